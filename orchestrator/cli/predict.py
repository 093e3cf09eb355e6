"""`retrain predict`."""

import click

from orchestrator.cli.common import (
    broker_option,
    console,
    extraction_options,
    finishes,
    json_option,
    model_backbone_option,
    model_option,
    print_json,
    store_option,
    top_option,
)
from orchestrator.pipeline import ExtractionOptions
from orchestrator.predict import PredictRequest, predict
from orchestrator.progress import Reporter
from orchestrator.report import predict_table


@click.command("predict")
@click.argument("source")
@store_option
@broker_option
@model_option
@model_backbone_option
@top_option
@extraction_options
@json_option
@finishes
def predict_command(
    source: str,
    store: str,
    broker_url: str,
    model: str,
    backbone: str | None,
    top_k: int,
    extraction: ExtractionOptions,
    as_json: bool,
) -> None:
    """Label every image of SOURCE with a model of the store.

    SOURCE is a folder or s3://BUCKET/PREFIX, searched to any depth, or a manifest with a column
    uri. The predictions are Parquet files: uri, label, score, top_labels, top_scores, status.

    \b
    retrain predict new-photos/
    retrain predict s3://photos/tonight/ --store s3://features/flowers --model latest
    """
    request = PredictRequest(source, store, broker_url, model, backbone, top_k, extraction)
    result = predict(request, Reporter())
    if as_json:
        print_json(result)
    else:
        console().print(predict_table(result))
