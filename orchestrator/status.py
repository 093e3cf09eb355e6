"""How far runs are, read from the store alone: from any machine, during a run and after it."""

import json
from datetime import UTC, datetime
from typing import Any

from orchestrator.records import read_run
from workers.contract import layout
from workers.contract.errors import ObjectMissing
from workers.storage import Store

_SILENT_AFTER_S = 30.0
_ENDED = ("done", "failed", "cancelled", "interrupted")


def read_status(store: Store, run_id: str) -> dict[str, Any]:
    """The run's record; `progress` as its orchestrator last saw it, or, where that has fallen silent,
    counted from what is in the store; `silent_s`, seconds since the orchestrator was last heard.
    Raises NoSuchRun."""
    record = read_run(store, run_id)
    if is_over(record):
        return record
    progress = _progress(store, run_id)
    heard = max(record["updated"], progress.get("updated", ""))
    silent_s = (datetime.now(UTC) - datetime.fromisoformat(heard)).total_seconds()
    if silent_s > _SILENT_AFTER_S and record["stage"] == "extract":
        progress = {"stage": "extract", "shards": _counted(store, record)}
    return record | {"progress": progress, "silent_s": silent_s}


def is_over(status: dict[str, Any]) -> bool:
    return status["stage"] in _ENDED


def _progress(store: Store, run_id: str) -> dict[str, Any]:
    try:
        progress: dict[str, Any] = json.loads(store.read(layout.progress(run_id)))
    except ObjectMissing:
        return {}
    return progress


def _counted(store: Store, record: dict[str, Any]) -> dict[str, int]:
    planned = _names(store, layout.plan_prefix(record["run_id"], record["plan"]))
    there = planned & _names(store, layout.features_prefix(record["fingerprint"]))
    failed = len(list(store.objects(layout.task_failures_prefix(record["run_id"]))))
    return {"total": len(planned), "done": len(there), "failed": failed}


def _names(store: Store, prefix: str) -> set[str]:
    return {each.key.rpartition("/")[2] for each in store.objects(prefix)}
