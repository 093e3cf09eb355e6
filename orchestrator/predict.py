"""`retrain predict`: a model's labels for every image of a source."""

from dataclasses import dataclass, field
from typing import Any

from orchestrator.clock import Clock
from orchestrator.listing import SplitRule, list_images, manifest_id
from orchestrator.naming import named
from orchestrator.pipeline import Backbone, Extraction, ExtractionOptions, Pipeline
from orchestrator.progress import Reporter
from orchestrator.records import Model, read_model
from workers.contract import layout
from workers.contract.errors import BackboneChanged
from workers.contract.messages import ScoreShard
from workers.storage import open_store


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
    clock = Clock()
    model = read_model(open_store(request.store), request.model)
    with clock.timed("list_s"), reporter.stage("listing", None) as update:
        manifest = list_images(
            request.source, labelled=False, rule=SplitRule(), leave_out=request.store, progress=update
        )
    run_id = named(request.source, manifest=manifest_id(manifest), model=model.id, top_k=request.top_k)
    with Pipeline.begun(
        "predict", run_id, request, manifest, reporter, clock, model_id=model.id
    ) as pipeline:
        backbone = describe_as_trained(pipeline, model, request.backbone)
        extraction = pipeline.extract(manifest, backbone, request.extraction)
        with clock.timed("score_s"):
            job = _score(pipeline, model, extraction, request.top_k)
        uri = pipeline.store.uri(layout.predictions_prefix(job)).rstrip("/")
        return pipeline.finish(
            {
                "job": job,
                "run_id": run_id,
                "model_id": model.id,
                **extraction.summary(),
                "predictions_uri": uri,
            },
            extraction,
        )


def _score(pipeline: Pipeline, model: Model, extraction: Extraction, top_k: int) -> str:
    """Predictions for every shard of the plan; the name under which they lie."""
    plan = extraction.plan
    # another plan is another set of prediction shards: they must not mix
    job = f"{pipeline.run_id}-{plan.id[:8]}"
    pipeline.record.stage("score", job=job)
    scored = {each.key for each in pipeline.store.objects(layout.predictions_prefix(job))}
    messages = [
        ScoreShard(
            pipeline.store.url,
            pipeline.run_id,
            job,
            plan.id,
            shard.id,
            model.fingerprint,
            model.id,
            min(top_k, len(model.labels)),
        )
        for shard in plan.shards
        if layout.predictions(job, shard.id) not in scored
    ]
    sizes = {shard.id: shard.rows.num_rows for shard in plan.shards}
    with pipeline.reporter.stage("scoring", extraction.total) as update:
        pipeline.do(messages, sizes, update)
        update(extraction.total, None)
    return job


def describe_as_trained(pipeline: Pipeline, model: Model, backbone: str | None) -> Backbone:
    """The backbone of a model. Raises BackboneChanged where it is not what the model knows."""
    found = pipeline.describe(backbone or model.backbone, model.image_size_px)
    made, known = found.description["preprocessing_version"], model.preprocessing_version
    if made != known:
        remedy = "train it again with retrain run" if made > known else "update the workers"
        raise BackboneChanged(
            f"{model.id} was trained on pixels of version {known}, and the worker makes version "
            f"{made}: {remedy}"
        )
    if found.fingerprint != model.fingerprint:
        raise BackboneChanged(
            f"{found.name} is not the backbone that {model.id} was trained with (fingerprint "
            f"{found.fingerprint}, not {model.fingerprint}): name the right one with --backbone"
        )
    return found
