"""`retrain run`: from labelled images to a model."""

from dataclasses import asdict, dataclass, field
from typing import Any

import pyarrow as pa

from orchestrator.clock import Clock
from orchestrator.listing import SplitRule, check_labels, list_images, manifest_id
from orchestrator.naming import named
from orchestrator.pipeline import Backbone, Extraction, ExtractionOptions, Pipeline
from orchestrator.progress import Reporter
from orchestrator.records import read_metrics
from workers.contract import layout
from workers.contract.messages import TrainHead
from workers.contract.training import TrainingSettings


@dataclass(frozen=True)
class RunRequest:
    source: str
    store: str
    broker_url: str
    backbone: str
    image_size_px: int | None = None
    split: SplitRule = field(default_factory=SplitRule)
    extraction: ExtractionOptions = field(default_factory=ExtractionOptions)
    training: TrainingSettings = field(default_factory=TrainingSettings)


def run(request: RunRequest, reporter: Reporter) -> dict[str, Any]:
    """List, extract, train, evaluate, export. Returns the JSON result of the command."""
    clock = Clock()
    with clock.timed("list_s"), reporter.stage("listing", None) as update:
        manifest = list_images(
            request.source, labelled=True, rule=request.split, leave_out=request.store, progress=update
        )
    labels = check_labels(manifest)
    run_id = named(
        request.source,
        manifest=manifest_id(manifest),
        backbone=request.backbone,
        image_size_px=request.image_size_px,
        training=asdict(request.training),
    )
    with Pipeline.begun("run", run_id, request, manifest, reporter, clock, labels=labels) as pipeline:
        store = pipeline.store
        backbone = pipeline.describe(request.backbone, request.image_size_px)
        extraction = pipeline.extract(manifest, backbone, request.extraction)
        model_id = _train(pipeline, request, labels, backbone, extraction)
        metrics = read_metrics(store, model_id)
        store.write(layout.LATEST_MODEL, f"{model_id}\n".encode())
        return pipeline.finish(
            {
                "run_id": run_id,
                "model_id": model_id,
                "model_uri": store.uri(layout.model(model_id)).rstrip("/"),
                "backbone": backbone.description,
                "labels": _label_counts(manifest, labels),
                **extraction.summary(),
                "train_seconds": clock.stages.get("train_s", 0.0),
                "validation": _error_rates(metrics["validation"]),
                "test": _error_rates(metrics["test"]),
            },
            extraction,
        )


def _train(
    pipeline: Pipeline,
    request: RunRequest,
    labels: list[str],
    backbone: Backbone,
    extraction: Extraction,
) -> str:
    """The model's id; nothing is done where the store has it."""
    data = manifest_id(extraction.usable)
    model_id = named(
        request.source,
        data=data,
        fingerprint=backbone.fingerprint,
        training=asdict(request.training),
    )
    message = TrainHead(
        pipeline.store.url,
        pipeline.run_id,
        extraction.plan.id,
        len(extraction.plan.shards),
        model_id,
        data,
        backbone.name,
        backbone.image_size_px,
        backbone.fingerprint,
        labels,
        asdict(request.training),
    )
    pipeline.record.stage("train", model_id=model_id)
    if pipeline.store.exists(message.result_key()):
        return model_id
    steps = message.shards + request.training.epochs
    with (
        pipeline.clock.timed("train_s"),
        pipeline.reporter.stage("training and exporting", steps, "steps") as update,
    ):
        pipeline.do([message], update=update)
    return model_id


def _label_counts(manifest: pa.Table, labels: list[str]) -> dict[str, int]:
    counted = manifest.column("label").value_counts().to_pylist()
    found = {each["values"]: each["counts"] for each in counted}
    return {label: found[label] for label in labels}


def _error_rates(metrics: dict[str, Any]) -> dict[str, Any]:
    return {name: metrics[name] for name in ("images", "top1_error", "top5_error")}
