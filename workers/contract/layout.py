"""Where every object of a store lives, and how its name follows from its content."""

import hashlib
import json
from collections.abc import Iterable
from typing import Any

LATEST_MODEL = "models/latest"


def digest(parts: Iterable[str], length: int = 20) -> str:
    """A hex SHA-256 prefix over parts; each is closed with a newline, so ["ab"] != ["a", "b"]."""
    whole = hashlib.sha256()
    for part in parts:
        whole.update(part.encode() + b"\n")
    return whole.hexdigest()[:length]


def settings_digest(settings: dict[str, Any], length: int = 12) -> str:
    """A digest of JSON-able settings that does not depend on their order."""
    return digest([json.dumps(settings, sort_keys=True)], length)


def shard_id(versions: Iterable[str], attempt: int = 0) -> str:
    """The name of the feature shard that holds these image versions, in this order.

    `attempt` is above 0 only where the same images were extracted before and some of them
    failed for a reason that may have passed (a missing file, say).
    """
    return digest([*versions, *([f"attempt {attempt}"] if attempt else [])])


def manifest_part(manifest_id: str, part: int) -> str:
    return f"manifests/{manifest_id}/part-{part:05d}.parquet"


def features_prefix(fingerprint: str) -> str:
    return f"features/{fingerprint}/"


def features(fingerprint: str, shard: str) -> str:
    return f"{features_prefix(fingerprint)}{shard}.parquet"


def predictions_prefix(job: str) -> str:
    return f"predictions/{job}/"


def predictions(job: str, shard: str) -> str:
    return f"{predictions_prefix(job)}{shard}.parquet"


def model(model_id: str, name: str = "") -> str:
    return f"models/{model_id}/{name}"


def run(run_id: str, name: str = "") -> str:
    return f"runs/{run_id}/{name}"


def run_record(run_id: str) -> str:
    return run(run_id, "run.json")


def plan_prefix(run_id: str, plan: str) -> str:
    return run(run_id, f"plans/{plan}/")


def shard_rows(run_id: str, plan: str, shard: str) -> str:
    """The manifest rows of a run whose features are in this shard."""
    return f"{plan_prefix(run_id, plan)}{shard}.parquet"


def cancel_mark(run_id: str) -> str:
    """Its presence asks everybody to leave the run."""
    return run(run_id, "cancelled")


def progress(run_id: str) -> str:
    """How far the run is, as its orchestrator last saw it."""
    return run(run_id, "progress.json")


def suspects(run_id: str, shard: str) -> str:
    """What a shard that killed its worker was about to do, while the image is looked for."""
    return run(run_id, f"suspects/{shard}.json")


def failed_images(run_id: str) -> str:
    return run(run_id, "failures.csv")


def task_failures_prefix(run_id: str) -> str:
    return run(run_id, "failed-tasks/")


def task_failure(run_id: str, task: str) -> str:
    """Why a task of the run failed for good."""
    return f"{task_failures_prefix(run_id)}{task}.json"


def reply(run_id: str, task: str) -> str:
    """What a task that makes no other object answers."""
    return run(run_id, f"replies/{task}.json")
