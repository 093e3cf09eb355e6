"""What a store keeps of runs and models, as the orchestrator reads and writes it."""

import json
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import partial
from types import TracebackType
from typing import Any, Self

from orchestrator.dispatch import Snapshot
from workers.contract import layout
from workers.contract.errors import (
    NoSuchModel,
    NoSuchRun,
    ObjectMissing,
    RetrainError,
    RunCancelled,
    to_record,
)
from workers.storage import Store, absolute, open_store

_PROGRESS_EVERY_S = 5.0
_LAST_PATIENCE_S = 3.0


@dataclass(frozen=True)
class Model:
    """What `models/ID/model.json` says."""

    id: str
    backbone: str
    image_size_px: int | None
    fingerprint: str
    preprocessing_version: int
    labels: list[str]


def read_model(store: Store, model_id: str) -> Model:
    """The model of this id, or the last one trained for "latest". Raises NoSuchModel."""
    try:
        if model_id == "latest":
            model_id = store.read(layout.LATEST_MODEL).decode().strip()
        record = json.loads(store.read(layout.model(model_id, "model.json")))
    except ObjectMissing:
        raise NoSuchModel(
            f"there is no model {model_id} in {store.url}: train one with retrain run"
        ) from None
    return Model(
        model_id,
        record["backbone"],
        record["image_size_px"],
        record["fingerprint"],
        record["preprocessing_version"],
        record["labels"],
    )


def read_metrics(store: Store, model_id: str) -> dict[str, Any]:
    metrics: dict[str, Any] = json.loads(store.read(layout.model(model_id, "metrics.json")))
    return metrics


class RunRecord:
    """`runs/ID/run.json`: what the run was asked, how far it came, what it found; and
    `progress.json` beside it, while it runs."""

    def __init__(self, store: Store, run_id: str, asked: dict[str, Any]) -> None:
        self.run_id = run_id
        self._store = store
        self._content = {"run_id": run_id, "started": _now(), **asked}
        self._began_s = self._written_s = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """What ended the run goes into its record, where the store can still be written."""
        if isinstance(error, RetrainError):
            stage = "cancelled" if isinstance(error, RunCancelled) else "failed"
            self._end(stage, error=to_record(error))
        elif isinstance(error, KeyboardInterrupt):
            self._end("interrupted")

    def _end(self, stage: str, **found: Any) -> None:
        """Note the end without the store's usual patience: it may be what ended the run."""
        self._store = open_store(self._store.url, _LAST_PATIENCE_S)
        with suppress(RetrainError):
            self.stage(stage, **found)

    def stage(self, stage: str, **found: Any) -> None:
        """Note the stage that begins, and what is known by now."""
        self._content |= {"stage": stage, "updated": _now(), **found}
        self._began_s = time.monotonic()
        self._write(layout.run_record(self.run_id), self._content)

    def progress(self, snapshot: Snapshot) -> None:
        """Note how far the stage is; most calls write nothing."""
        now = time.monotonic()
        if now - self._written_s < _PROGRESS_EVERY_S:
            return
        self._written_s = now
        rate = snapshot.units / (now - self._began_s)
        left = snapshot.units_total - snapshot.units
        content: dict[str, Any] = {
            "stage": self._content.get("stage"),
            "updated": _now(),
            "shards": {
                "total": snapshot.total,
                "done": snapshot.done,
                "running": snapshot.running,
                "waiting": snapshot.waiting,
                "sent_again": snapshot.resent,
            },
            "workers": snapshot.workers,
        }
        if snapshot.units_total:
            content["images_done"] = snapshot.units
            content["images_per_s"] = rate
            content["seconds_left"] = left / rate if rate else None
        self._write(layout.progress(self.run_id), content)

    def _write(self, key: str, content: dict[str, Any]) -> None:
        data = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
        self._store.write(key, data.encode())


def asked(request: Any) -> dict[str, Any]:
    """A command's request as a run's record keeps it: without the broker's URL, which may hold a
    password, and with an absolute source."""
    content = asdict(request)
    del content["broker_url"]
    return {"request": content | {"source": absolute(content["source"])}}


def read_runs(store: Store) -> list[dict[str, Any]]:
    """Every run's record, the latest first."""
    try:
        ids = store.folders("runs/")
    except ObjectMissing:
        return []
    runs = [run for run in map(partial(_record, store), ids) if run is not None]
    return sorted(runs, key=lambda run: str(run["started"]), reverse=True)


def _record(store: Store, run_id: str) -> dict[str, Any] | None:
    try:
        record: dict[str, Any] = json.loads(store.read(layout.run_record(run_id)))
    except (ObjectMissing, ValueError):  # half a record is none
        return None
    return record


def read_run(store: Store, run_id: str) -> dict[str, Any]:
    """One run's record. Raises NoSuchRun."""
    record = _record(store, run_id)
    if record is None:
        raise NoSuchRun(f"there is no run {run_id} in {store.url}: see retrain status")
    return record


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
