"""`retrain evaluate`."""

import click

from orchestrator.cli.common import (
    broker_option,
    console,
    extraction_options,
    finishes,
    json_option,
    model_backbone_option,
    model_option,
    print_json,
    split_options,
    store_option,
)
from orchestrator.evaluate import EvaluateRequest, evaluate
from orchestrator.listing import SplitRule
from orchestrator.pipeline import ExtractionOptions
from orchestrator.progress import Reporter
from orchestrator.report import evaluate_table
from workers.contract.schemas import SPLITS


@click.command("evaluate")
@click.argument("source")
@store_option
@broker_option
@model_option
@model_backbone_option
@click.option(
    "--split",
    type=click.Choice(SPLITS),
    help="Judge on this split of SOURCE alone: a model knows what it was trained on.",
)
@split_options
@extraction_options
@json_option
@finishes
def evaluate_command(
    source: str,
    store: str,
    broker_url: str,
    model: str,
    backbone: str | None,
    split: str | None,
    validation_percentage: float,
    testing_percentage: float,
    split_root: str | None,
    extraction: ExtractionOptions,
    as_json: bool,
) -> None:
    """Judge a model on labelled images: error rates, precision, recall, confusion.

    SOURCE is laid out as for retrain run.

    \b
    retrain evaluate photos/ --split test
    retrain evaluate s3://photos/checked/ --store s3://features/flowers --json
    """
    request = EvaluateRequest(
        source,
        store,
        broker_url,
        model,
        backbone,
        split,
        SplitRule(validation_percentage, testing_percentage, split_root),
        extraction,
    )
    result = evaluate(request, Reporter())
    if as_json:
        print_json(result)
    else:
        console().print(evaluate_table(result))
