"""`retrain evaluate`: how often a model is right on a labelled source."""

from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from orchestrator.clock import Clock
from orchestrator.listing import SplitRule, list_images, manifest_id
from orchestrator.naming import named
from orchestrator.pipeline import ExtractionOptions, Pipeline
from orchestrator.predict import describe_as_trained
from orchestrator.progress import Reporter
from orchestrator.records import Model, read_model
from workers.contract.errors import BadSource
from workers.contract.messages import EvaluateModel
from workers.storage import open_store


@dataclass(frozen=True)
class EvaluateRequest:
    source: str
    store: str
    broker_url: str
    model: str = "latest"
    backbone: str | None = None
    split: str | None = None
    """Judge on this split of the source alone; None: on all of it."""
    rule: SplitRule = field(default_factory=SplitRule)
    extraction: ExtractionOptions = field(default_factory=ExtractionOptions)


def evaluate(request: EvaluateRequest, reporter: Reporter) -> dict[str, Any]:
    """List, extract what is not known, judge. Returns the JSON result of the command."""
    clock = Clock()
    model = read_model(open_store(request.store), request.model)
    with clock.timed("list_s"), reporter.stage("listing", None) as update:
        manifest = list_images(
            request.source, labelled=True, rule=request.rule, leave_out=request.store, progress=update
        )
    manifest = _judged(manifest, model, request)
    run_id = named(
        request.source,
        manifest=manifest_id(manifest),
        model=model.id,
        split=request.split,
        judge=True,
    )
    with Pipeline.begun(
        "evaluate", run_id, request, manifest, reporter, clock, model_id=model.id
    ) as pipeline:
        backbone = describe_as_trained(pipeline, model, request.backbone)
        extraction = pipeline.extract(manifest, backbone, request.extraction)
        pipeline.record.stage("evaluate")
        message = EvaluateModel(
            pipeline.store.url,
            run_id,
            extraction.plan.id,
            len(extraction.plan.shards),
            backbone.fingerprint,
            model.id,
            request.split,
        )
        with clock.timed("evaluate_s"):
            judged = pipeline.answer(message, keep=True)
        return pipeline.finish(
            {
                "run_id": run_id,
                "model_id": model.id,
                **judged,
                "failed": extraction.failed,
                "failures_uri": extraction.failures_uri,
                "extracted": extraction.plan.extracted,
                "reused": extraction.total - extraction.plan.extracted,
            },
            extraction,
        )


def _judged(manifest: pa.Table, model: Model, request: EvaluateRequest) -> pa.Table:
    unknown = sorted(set(manifest.column("label").to_pylist()) - set(model.labels))
    if unknown:
        raise BadSource(
            f"{model.id} does not know the label {unknown[0]!r}: it knows {', '.join(model.labels)}"
        )
    if request.split:
        manifest = manifest.filter(pc.equal(manifest.column("split"), request.split))
        if not manifest.num_rows:
            raise BadSource(f"no image of {request.source} is in the {request.split} split")
    return manifest
