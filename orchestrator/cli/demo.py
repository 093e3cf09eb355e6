"""`retrain demo`."""

import tempfile
from pathlib import Path

import click

from orchestrator.cli.common import console, finishes, json_option, print_json
from orchestrator.demo import TRAINING, UNSEEN, draw_pictures
from orchestrator.label import LabelRequest, label
from orchestrator.predict import PredictRequest, predict
from orchestrator.progress import Reporter
from orchestrator.report import run_table
from orchestrator.run import RunRequest, run
from workers.contract.settings import MEMORY_BROKER

_BACKBONE = "keras:InceptionV3?weights=none"
_PER_LABEL, _UNSEEN_PER_LABEL = 40, 5


@click.command("demo")
@click.option(
    "--folder",
    type=click.Path(file_okay=False, path_type=Path),
    help="Keep the pictures and the store in this folder.  [default: a temporary one]",
)
@json_option
@finishes
def demo_command(folder: Path | None, as_json: bool) -> None:
    """Draw four kinds of pictures, learn to tell them apart, and label some unseen ones.

    Runs the real pipeline with the real Inception v3 architecture; needs no network, no data and
    no GPU, and takes a minute or two on two cores.

    \b
    retrain demo
    retrain demo --folder retrain-demo
    """
    if folder is not None:
        _demo(folder, as_json)
        return
    with tempfile.TemporaryDirectory(prefix="retrain-demo-") as temporary:
        _demo(Path(temporary), as_json)


def _demo(folder: Path, as_json: bool) -> None:
    reporter = Reporter()
    with reporter.stage("drawing", None, "pictures"):
        draw_pictures(folder, _PER_LABEL, _UNSEEN_PER_LABEL)
    store = str(folder / "store")
    result = run(RunRequest(str(folder / TRAINING), store, MEMORY_BROKER, _BACKBONE), reporter)
    predicted = predict(PredictRequest(str(folder / UNSEEN), store, MEMORY_BROKER), reporter)
    rows = label(_unseen(folder, store), reporter)
    right = sum(Path(row["uri"]).name.startswith(f"{row['label']}-") for row in rows)
    if as_json:
        print_json({"run": result, "predict": predicted, "unseen": rows, "unseen_right": right})
        return
    out = console()
    out.print(run_table(result))
    for row in rows:
        out.print(f"  {Path(row['uri']).name:16} {row['label']:8} {row['score']:.2f}")
    out.print(
        f"\n{right} of {len(rows)} unseen pictures were labelled right. The network is Inception "
        "v3 with random weights, since this needs no download: it tells drawn shapes apart, and "
        "with its ImageNet weights it tells photographs apart. For your own, one folder for each "
        "label:\n\n"
        "  retrain run photos/                        # fetches the pretrained Inception v3\n"
        "  retrain run photos/ --backbone PATH        # or a SavedModel you have\n"
        "  retrain predict new-photos/\n"
        "  retrain label one.jpg"
    )


def _unseen(folder: Path, store: str) -> LabelRequest:
    return LabelRequest(
        tuple(str(path) for path in sorted((folder / UNSEEN).iterdir())), store, MEMORY_BROKER
    )
