"""`retrain run`."""

from typing import Any

import click

from orchestrator.cli.common import (
    BACKBONE_HELP,
    broker_option,
    console,
    extraction_options,
    finishes,
    image_size_option,
    json_option,
    located_backbone,
    print_json,
    split_options,
    store_option,
)
from orchestrator.listing import SplitRule
from orchestrator.pipeline import ExtractionOptions
from orchestrator.progress import Reporter
from orchestrator.report import run_table
from orchestrator.run import RunRequest, run
from workers.contract.backbones import DEFAULT
from workers.contract.training import TrainingSettings

_TRAINING = TrainingSettings()


@click.command("run")
@click.argument("source")
@store_option
@broker_option
@click.option(
    "--backbone",
    default=DEFAULT,
    show_default=True,
    metavar="NAME|HANDLE|PATH",
    callback=located_backbone,
    help=BACKBONE_HELP,
)
@image_size_option
@extraction_options
@split_options
@click.option(
    "--epochs",
    type=click.IntRange(min=0),
    default=_TRAINING.epochs,
    show_default=True,
    metavar="N",
    help="At most; training ends when validation gets no better.",
)
@click.option(
    "--train-batch-size",
    type=click.IntRange(min=1),
    metavar="IMAGES",
    help="Images for each training step.  [default: 256, more where there are many images]",
)
@click.option(
    "--learning-rate",
    type=click.FloatRange(min=0, min_open=True),
    metavar="RATE",
    help="[default: the best of three on the validation images]",
)
@click.option(
    "--weight-decay",
    type=click.FloatRange(min=0),
    default=_TRAINING.weight_decay,
    show_default=True,
    metavar="FACTOR",
    help="Pull towards the closed-form start.",
)
@click.option(
    "--label-smoothing",
    type=click.FloatRange(0, 1, max_open=True),
    default=_TRAINING.label_smoothing,
    show_default=True,
    metavar="FRACTION",
    help="Part of each label that is spread over all labels.",
)
@click.option(
    "--class-weights",
    type=click.Choice(["none", "balanced"]),
    default=_TRAINING.class_weights,
    show_default=True,
    help="balanced: every label counts the same, however many images it has.",
)
@click.option(
    "--seed",
    type=int,
    default=_TRAINING.seed,
    show_default=True,
    metavar="N",
    help="Of the order in which training sees images.",
)
@json_option
@finishes
def run_command(
    source: str,
    store: str,
    broker_url: str,
    backbone: str,
    image_size_px: int | None,
    extraction: ExtractionOptions,
    validation_percentage: float,
    testing_percentage: float,
    split_root: str | None,
    as_json: bool,
    train_batch_size: int | None,
    **training: Any,
) -> None:
    """Learn the labels of SOURCE and save a model.

    SOURCE is a folder or s3://BUCKET/PREFIX with one folder for each label, or a .csv or .parquet
    manifest with columns uri, label and, if you like, split (train, validation, test).

    \b
    retrain run photos/
    retrain run s3://photos/2026/ --store s3://features/flowers
    retrain run labels.csv --backbone keras:MobileNetV2
    """
    request = RunRequest(
        source,
        store,
        broker_url,
        backbone,
        image_size_px,
        SplitRule(validation_percentage, testing_percentage, split_root),
        extraction,
        TrainingSettings(batch_size=train_batch_size, **training),
    )
    result = run(request, Reporter())
    if as_json:
        print_json(result)
    else:
        console().print(run_table(result))
        console().print(
            f"\nNext: retrain label IMAGE --store {store}, or retrain predict FOLDER --store {store}",
            soft_wrap=True,
        )
