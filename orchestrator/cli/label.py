"""`retrain label`."""

import sys

import click

from orchestrator.cli.common import (
    broker_option,
    finishes,
    json_option,
    model_backbone_option,
    model_option,
    print_json,
    store_option,
    top_option,
)
from orchestrator.label import LabelRequest, label
from orchestrator.progress import Reporter
from workers.contract.errors import ExitCode


@click.command("label")
@click.argument("images", nargs=-1, required=True, metavar="IMAGE...")
@store_option
@broker_option
@model_option
@model_backbone_option
@top_option
@json_option
@finishes
def label_command(
    images: tuple[str, ...],
    store: str,
    broker_url: str,
    model: str,
    backbone: str | None,
    top_k: int,
    as_json: bool,
) -> None:
    """Print the best labels of single images, best first, with their scores.

    IMAGE is a file or s3://BUCKET/KEY. An image that cannot be read makes the exit code 3.

    \b
    retrain label rose.jpg
    retrain label a.jpg b.png --model latest --top 3
    """
    rows = label(LabelRequest(images, store, broker_url, model, backbone, top_k), Reporter())
    if as_json:
        print_json({"images": rows})
    for row in rows if not as_json else []:
        if len(rows) > 1:
            click.echo(f"{row['uri']}:")
        for name, score in zip(row["top_labels"] or [], row["top_scores"] or [], strict=True):
            click.echo(f"{name} {score:.5f}")
    bad = [f"{row['uri']}: {row['status']}, {row['error']}" for row in rows if row["label"] is None]
    if bad:  # the others are answered all the same
        click.echo(f"Error: {'; '.join(bad)}", err=True)
        sys.exit(ExitCode.BAD_INPUT)
