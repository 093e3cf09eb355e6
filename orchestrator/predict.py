"""`retrain predict`: a model's labels for every image of a source."""

import time
from dataclasses import dataclass, field
from typing import Any

from orchestrator.listing import SplitRule, list_images, manifest_id
from orchestrator.naming import named
from orchestrator.pipeline import ExtractionOptions, Pipeline, write_manifest
from orchestrator.progress import Reporter
from orchestrator.records import Model, RunRecord, read_model
from workers.contract import layout
from workers.contract.errors import BackboneChanged
from workers.contract.messages import ScoreShard
from workers.storage import absolute, open_store


@dataclass(frozen=True)
class PredictRequest:
    source: str
    store: str
    broker_url: str
    model: str = "latest"
    backbone: str | None = None
    """Where to load the model's backbone from, if not from where it was trained with."""
    top_k: int = 5
    extraction: ExtractionOptions = field(default_factory=ExtractionOptions)


def predict(request: PredictRequest, reporter: Reporter) -> dict[str, Any]:
    """List, extract what is not known, score. Returns the JSON result of the command."""
    began = time.monotonic()
    store = open_store(request.store)
    model = read_model(store, request.model)
    source = absolute(request.source)
    with reporter.stage("listing", None) as update:
        manifest = list_images(source, labelled=False, rule=SplitRule(), progress=update)
    listed = manifest_id(manifest)
    run_id = named(source, manifest=listed, model=model.id, top_k=request.top_k)
    record = RunRecord(
        store,
        run_id,
        {"command": "predict", "source": source, "manifest_id": listed, "model_id": model.id},
    )
    record.stage("list", images=manifest.num_rows)
    write_manifest(store, listed, manifest)
    pipeline = Pipeline.open(store, request.broker_url, reporter, record)
    backbone = describe_as_trained(pipeline, model, request.backbone)
    extraction = pipeline.extract(manifest, backbone, request.extraction)
    job = f"{run_id}-{extraction.plan.id[:8]}"
    record.stage("score", job=job)
    with reporter.stage("scoring", len(extraction.plan.shards), "shards"):
        pipeline.do(
            [
                ScoreShard(
                    store.url,
                    run_id,
                    job,
                    extraction.plan.id,
                    shard.id,
                    backbone.fingerprint,
                    model.id,
                    min(request.top_k, len(model.labels)),
                )
                for shard in extraction.plan.shards
            ]
        )
    result = {
        "job": job,
        "run_id": run_id,
        "model_id": model.id,
        **extraction.summary(),
        "predictions_uri": store.uri(layout.predictions_prefix(job)).rstrip("/"),
        "seconds": time.monotonic() - began,
    }
    record.stage("done", result=result)
    return result


def describe_as_trained(pipeline: Pipeline, model: Model, backbone: str | None) -> Any:
    """The backbone of a model. Raises BackboneChanged where it is not what the model knows."""
    found = pipeline.describe(backbone or model.backbone, model.image_size_px)
    if found.fingerprint != model.fingerprint:
        raise BackboneChanged(
            f"{found.name} is not the backbone that {model.id} was trained with (fingerprint "
            f"{found.fingerprint}, not {model.fingerprint}): name the right one with --backbone"
        )
    return found
