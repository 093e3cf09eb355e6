"""`retrain label`: the best labels of a few images."""

from dataclasses import dataclass
from typing import Any
from uuid import uuid4

from orchestrator.naming import named
from orchestrator.pipeline import Pipeline
from orchestrator.progress import Reporter
from orchestrator.records import RunRecord, read_model
from workers.contract.messages import LabelImages
from workers.storage import absolute, open_store


@dataclass(frozen=True)
class LabelRequest:
    images: tuple[str, ...]
    store: str
    broker_url: str
    model: str = "latest"
    backbone: str | None = None
    top_k: int = 5


def label(request: LabelRequest, reporter: Reporter) -> list[dict[str, Any]]:
    """One dict for each image: uri, status, error, label, score, top_labels, top_scores."""
    store = open_store(request.store)
    model = read_model(store, request.model)
    run_id = named("label", model=model.id)
    message = LabelImages(
        store.url,
        run_id,
        uuid4().hex[:12],
        model.id,
        request.backbone or model.backbone,
        model.image_size_px,
        model.fingerprint,
        [absolute(image) for image in request.images],
        min(request.top_k, len(model.labels)),
    )
    pipeline = Pipeline.open(store, request.broker_url, reporter, RunRecord(store, run_id, {}))
    with reporter.stage("labelling", len(request.images)):
        rows: list[dict[str, Any]] = pipeline.answer(message)
    return rows
