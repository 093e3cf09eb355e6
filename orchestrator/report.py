"""Results as tables for a person."""

from typing import Any

from rich.console import Group
from rich.table import Table

# the stages of a command and the parts of an extraction, in words
_STAGES = {
    "list_s": "listing",
    "load_s": "loading the backbone",
    "plan_s": "planning",
    "extract_s": "extraction",
    "count_s": "counting",
    "train_s": "training",
    "score_s": "scoring",
    "evaluate_s": "evaluation",
}
_PARTS = {
    "start_s": "start",
    "backbone_s": "backbone",
    "starved_s": "backbone waiting",
    "write_s": "write",
    "fetch_wait_s": "fetch wait of all threads",
    "decode_s": "decode of all threads",
}
_WORKERS_SHOWN = 4


def run_table(result: dict[str, Any]) -> Group:
    """The result of `retrain run`."""
    facts = _facts()
    _add_images(facts, result)
    facts.add_row("labels", _labels(result["labels"]))
    facts.add_row("backbone", f"{result['backbone']['backbone']}, {_size(result['backbone'])}")
    trained = result["train_seconds"]
    facts.add_row("training", f"{trained:.1f} s" if trained else "this model is in the store already")
    facts.add_row("model", f"{result['model_id']}  ({result['model_uri']})")
    _add_stages(facts, result["stages"])
    rates = Table("split", "images", "top-1 error", "top-5 error")
    for split in ("validation", "test"):
        found = result[split]
        rates.add_row(
            split, str(found["images"]), _percent(found["top1_error"]), _percent(found["top5_error"])
        )
    return Group(facts, rates)


def predict_table(result: dict[str, Any]) -> Group:
    """The result of `retrain predict`."""
    facts = _facts()
    _add_images(facts, result)
    facts.add_row("model", result["model_id"])
    facts.add_row("predictions", result["predictions_uri"])
    _add_stages(facts, result["stages"])
    return Group(facts)


def evaluate_table(result: dict[str, Any]) -> Group:
    """The result of `retrain evaluate`: rates, classes, and where the confusion is."""
    facts = _facts()
    facts.add_row("model", result["model_id"])
    facts.add_row("images", f"{result['images']} judged, {result['failed']} failed")
    facts.add_row("top-1 error", _percent(result["top1_error"]))
    facts.add_row("top-5 error", _percent(result["top5_error"]))
    _add_stages(facts, result["stages"])
    classes = Table("label", "images", "precision", "recall", "most often taken for")
    for row, each in zip(result["confusion_matrix"], result["classes"], strict=True):
        classes.add_row(
            each["label"],
            str(each["images"]),
            _percent(each["precision"]),
            _percent(each["recall"]),
            _confused(row, each["label"], [other["label"] for other in result["classes"]]),
        )
    return Group(facts, classes)


def status_table(runs: list[dict[str, Any]]) -> Table:
    """The runs of a store."""
    table = Table("run", "command", "stage", "images", "started (UTC)", "source")
    for column in table.columns:
        column.overflow = "fold"
    table.columns[0].no_wrap = True
    for run in runs:
        table.add_row(
            run["run_id"],
            run["command"],
            run["stage"],
            str(run.get("images", "")),
            run["started"],
            run["source"],
        )
    return table


def run_status_table(status: dict[str, Any]) -> Group:
    """How far one run is."""
    facts = _facts()
    facts.add_row("run", f"{status['run_id']}: {status['command']} {status['source']}")
    facts.add_row("stage", f"{status['stage']}, since {status['updated']}")
    progress = status.get("progress", {})
    if shards := progress.get("shards"):
        facts.add_row("shards", ", ".join(f"{count} {name}" for name, count in shards.items()))
    if rate := progress.get("images_per_s"):
        left_s = progress["seconds_left"]
        left = f", about {left_s:.0f} s left" if left_s is not None else ""
        facts.add_row("images", f"{progress['images_done']} done, {rate:.0f}/s{left}")
    if workers := progress.get("workers"):
        facts.add_row("workers", ", ".join(workers))
    if status.get("silent_s", 0) > 30:
        facts.add_row("", f"its orchestrator was last heard {status['silent_s']:.0f} s ago")
    if error := status.get("error"):
        facts.add_row("error", error["message"])
    if result := status.get("result"):
        facts.add_row("took", f"{result['seconds']:.0f} s")
        if stages := result.get("stages"):  # an older version's record has none
            _add_stages(facts, stages)
    return Group(facts)


def _facts() -> Table:
    facts = Table.grid(padding=(0, 2))
    facts.add_column(style="bold")
    facts.add_column(overflow="fold")
    return facts


def _add_images(facts: Table, result: dict[str, Any]) -> None:
    images = result["images"]
    facts.add_row("images", f"{images['total']}: {images['ok']} ok, {images['failed']} failed")
    if images["failed"]:
        reasons = ", ".join(f"{count} {status}" for status, count in result["failures"].items())
        facts.add_row("failures", f"{reasons}  ({result['failures_uri']})")
    rate = result["extract_images_per_s"]
    at = f" ({rate:.0f} images/s)" if rate else ""
    facts.add_row("features", f"{result['extracted']} extracted{at}, {result['reused']} reused")


def _add_stages(facts: Table, stages: dict[str, Any]) -> None:
    """Where the time went; of the workers, only where they extracted something."""
    times = [f"{name} {stages[key]:.1f} s" for key, name in _STAGES.items() if key in stages]
    facts.add_row("time", ", ".join(times))
    if not stages["extract"]:
        return
    told, shards, workers = stages["shards_told"], stages["shards"], stages["workers"]
    parts = [f"{name} {stages['extract'][key]:.1f} s" for key, name in _PARTS.items()]
    summed = f", summed over {len(workers)} workers" if len(workers) > 1 else ""
    part = f" (of {told} of {shards} shards)" if told < shards else ""
    facts.add_row("extraction", f"{', '.join(parts)}{summed}{part}")
    for number, each in enumerate(workers[:_WORKERS_SHOWN]):
        facts.add_row("" if number else "workers", _worker(each))
    if (more := len(workers) - _WORKERS_SHOWN) > 0:
        facts.add_row("", f"and {more} more")
    if stages["bottleneck"]:
        facts.add_row("bottleneck", stages["bottleneck"])


def _worker(worker: dict[str, Any]) -> str:
    if worker["images_per_s"] is None:
        return f"{worker['worker']}: no images"
    return (
        f"{worker['worker']}: {worker['images_per_s']:.0f} images/s, {worker['engine']} "
        f"{worker['precision']} on {worker['device'].upper()}, batches of {worker['batch_size']}, "
        f"backbone busy {100 * worker['busy']:.0f} %"
    )


def _labels(counts: dict[str, int]) -> str:
    shown = [f"{label} {count}" for label, count in list(counts.items())[:12]]
    more = len(counts) - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more else "")


def _size(backbone: dict[str, Any]) -> str:
    return f"{backbone['width']} x {backbone['height']} px to {backbone['feature_size']} features"


def _confused(row: list[int], label: str, labels: list[str]) -> str:
    wrong = [(count, other) for count, other in zip(row, labels, strict=True) if other != label]
    count, other = max(wrong, default=(0, ""))
    return f"{other} ({count})" if count else ""


def _percent(rate: float | None) -> str:
    return "-" if rate is None else f"{100 * rate:.1f} %"
