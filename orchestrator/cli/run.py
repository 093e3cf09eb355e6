"""`retrain run`."""

from typing import Any

import click

from orchestrator.cli.common import (
    BACKBONE_HELP,
    broker_option,
    console,
    extraction_options,
    finishes,
    json_option,
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


@click.command("run")
@click.argument("source")
@store_option
@broker_option
@click.option(
    "--backbone", default=DEFAULT, show_default=True, metavar="NAME|HANDLE|PATH", help=BACKBONE_HELP
)
@click.option(
    "--image-size",
    "image_size_px",
    type=click.IntRange(min=16),
    metavar="PIXELS",
    help="Side of the square images the backbone is given, where the model leaves it open.",
)
@extraction_options
@split_options
@click.option("--epochs", type=click.IntRange(min=0), metavar="N", help="At most.  [default: 60]")
@click.option("--train-batch-size", type=click.IntRange(min=1), metavar="N", help="[default: 256]")
@click.option(
    "--learning-rate",
    type=click.FloatRange(min=0, min_open=True),
    metavar="RATE",
    help="[default: the best of three on the validation images]",
)
@click.option(
    "--weight-decay",
    type=click.FloatRange(min=0),
    metavar="FACTOR",
    help="Pull towards the closed-form start.  [default: 0]",
)
@click.option(
    "--label-smoothing",
    type=click.FloatRange(0, 1, max_open=True),
    metavar="FRACTION",
    help="[default: 0]",
)
@click.option(
    "--class-weights",
    type=click.Choice(["none", "balanced"]),
    help="balanced: every label counts the same, however many images it has.  [default: none]",
)
@click.option("--seed", type=int, metavar="N", help="[default: 0]")
@json_option
@finishes
def run_command(
    source: str,
    store: str,
    broker_url: str,
    backbone: str,
    image_size_px: int | None,
    shard_size: int,
    extract_batch_size: int | None,
    max_failed_fraction: float,
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
    chosen = {"batch_size": train_batch_size, **training}
    request = RunRequest(
        source,
        store,
        broker_url,
        backbone,
        image_size_px,
        SplitRule(validation_percentage, testing_percentage, split_root),
        ExtractionOptions(shard_size, extract_batch_size, max_failed_fraction),
        {name: value for name, value in chosen.items() if value is not None},
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
