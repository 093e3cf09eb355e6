"""What every subcommand shares: options, errors as one line and an exit code, JSON or tables."""

import functools
import json
import logging
import os
import sys
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import click
from rich.console import Console

from orchestrator.pipeline import ExtractionOptions
from workers.contract.backbones import BACKBONES
from workers.contract.errors import ExitCode, RetrainError
from workers.contract.messages import AUTO, ENGINES, PRECISIONS
from workers.contract.settings import BROKER_VARIABLE, MEMORY_BROKER, STORE_VARIABLE
from workers.storage import absolute

Function = TypeVar("Function", bound=Callable[..., Any])

log = logging.getLogger("retrain")

DEFAULT_STORE = "./retrain-store"


def located_backbone(context: click.Context, option: click.Parameter, value: str | None) -> str | None:
    """A backbone as any machine and folder can find it: local paths are made absolute."""
    if value is None:
        return None
    if "://" in value and "@" in urlsplit(value).netloc:
        raise click.BadParameter("a URL with a password would be kept with the model; leave it out")
    is_local = "://" not in value and not value.startswith("keras:") and Path(value).exists()
    return absolute(value) if is_local else value


store_option = click.option(
    "--store",
    default=DEFAULT_STORE,
    show_default=True,
    envvar=STORE_VARIABLE,
    show_envvar=True,
    metavar="URI",
    help="Where features, models and predictions live: a folder or s3://BUCKET/PREFIX.",
)
broker_option = click.option(
    "--broker",
    "broker_url",
    default=MEMORY_BROKER,
    show_default=True,
    envvar=BROKER_VARIABLE,
    show_envvar=True,
    metavar="URL",
    help="Where workers listen: redis://, rediss:// or amqp://. memory:// works in this process.",
)
json_option = click.option(
    "--json", "as_json", is_flag=True, help="Print one JSON object on stdout, and nothing else."
)
model_option = click.option(
    "--model",
    default="latest",
    show_default=True,
    metavar="ID",
    help="A model of the store, as retrain run named it.",
)
model_backbone_option = click.option(
    "--backbone",
    metavar="NAME|HANDLE|PATH",
    callback=located_backbone,
    help="Where to load the model's backbone from.  [default: where it was trained with]",
)
image_size_option = click.option(
    "--image-size",
    "image_size_px",
    type=click.IntRange(min=16),
    metavar="PIXELS",
    help="Side of the square images the backbone is given, where the model leaves it open.",
)
top_option = click.option(
    "--top",
    "top_k",
    type=click.IntRange(min=1),
    default=5,
    show_default=True,
    metavar="N",
    help="Labels for each image, best first.",
)
BACKBONE_HELP = (
    "The network that turns images into features: a name "
    f"({', '.join(BACKBONES)}), keras:NAME[?weights=imagenet|none|PATH], a TF Hub or Kaggle URL, "
    "or a SavedModel folder here or at s3://."
)


_EXTRACTION = (
    click.option(
        "--shard-size",
        type=click.IntRange(min=1),
        default=ExtractionOptions.shard_size,
        show_default=True,
        metavar="IMAGES",
        help="Images for each extraction task.",
    ),
    click.option(
        "--batch-size",
        type=click.IntRange(min=1),
        metavar="IMAGES",
        help="Images for each pass through the backbone.  [default: found by measuring]",
    ),
    click.option(
        "--engine",
        type=click.Choice((AUTO, *ENGINES)),
        default=ExtractionOptions.engine,
        show_default=True,
        help="What runs the backbone; auto: the fastest that a worker has, from 512 images on. "
        "Features in the store are used whatever computed them.",
    ),
    click.option(
        "--precision",
        type=click.Choice((AUTO, *PRECISIONS)),
        default=ExtractionOptions.precision,
        show_default=True,
        help="What the backbone computes in; auto: what a worker's hardware is fastest in. Features in "
        "the store are used whatever they were computed in.",
    ),
    click.option(
        "--max-failed-fraction",
        type=click.FloatRange(0, 1),
        default=ExtractionOptions.max_failed_fraction,
        show_default=True,
        metavar="FRACTION",
        help="Fail the run when more than this part of the images cannot be read.",
    ),
)


def extraction_options(function: Function) -> Function:
    """The options that a command is given as one: `extraction`, its ExtractionOptions."""

    @functools.wraps(function)
    def gathered(*args: Any, **options: Any) -> None:
        names = {each.name for each in fields(ExtractionOptions)} & set(options)
        extraction = ExtractionOptions(**{name: options.pop(name) for name in names})
        function(*args, extraction=extraction, **options)

    for option in reversed(_EXTRACTION):
        gathered = option(gathered)
    return gathered  # type: ignore[return-value]


def split_options(function: Function) -> Function:
    """--validation-percentage, --testing-percentage and --split-root."""
    percentage = click.FloatRange(0, 100)
    for option in (
        click.option(
            "--split-root",
            metavar="PATH",
            help="Put PATH/ before each image's relative path when dealing splits, as retrain.py "
            "did with its --image_dir.",
        ),
        click.option(
            "--testing-percentage",
            type=percentage,
            default=10,
            show_default=True,
            metavar="PERCENT",
            help="Images that only judge the finished model.",
        ),
        click.option(
            "--validation-percentage",
            type=percentage,
            default=10,
            show_default=True,
            metavar="PERCENT",
            help="Images that judge the head while it trains.",
        ),
    ):
        function = option(function)
    return function


def finishes(function: Function) -> Function:
    """Turn what a command raises into one line on stderr and an exit code."""

    @functools.wraps(function)
    def wrapped(*args: Any, **options: Any) -> None:
        try:
            function(*args, **options)
        except RetrainError as error:
            _leave(type(error).__name__, str(error), error.exit_code, options.get("as_json", False))
        except Exception as error:
            log.exception("this is a fault of retrain, not yours")
            message = f"{type(error).__name__}: {error}"
            _leave("Unexpected", message, ExitCode.FAILED, options.get("as_json", False))
        except KeyboardInterrupt:
            message = "interrupted; what was done is kept: the same command goes on from there"
            _leave("Interrupted", message, ExitCode.INTERRUPTED, options.get("as_json", False))

    return wrapped  # type: ignore[return-value]


def _leave(kind: str, message: str, code: ExitCode, as_json: bool) -> None:
    message = " ".join(message.split())
    if as_json:
        print_error(kind, message, code)
    click.echo(f"Error: {message}", err=True)
    sys.stdout.flush()
    sys.stderr.flush()
    # a task may still be at work in this process's worker thread: nothing of it is half written
    os._exit(code)


def print_error(kind: str, message: str, code: ExitCode) -> None:
    """What --json gives for a command that failed."""
    print_json({"error": {"type": kind, "message": message, "exit_code": int(code)}})


def print_json(result: dict[str, Any]) -> None:
    click.echo(json.dumps(result, indent=2, ensure_ascii=False))


def console() -> Console:
    """Where results go: stdout, wide enough for names where it is no terminal."""
    return Console(highlight=False, markup=False, width=None if sys.stdout.isatty() else 160)
