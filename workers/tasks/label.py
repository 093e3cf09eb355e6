"""The task behind `retrain label`: a few images, answered at once."""

import json

import numpy as np
import pyarrow as pa

from workers.contract.errors import ObjectMissing, StoreDenied
from workers.contract.messages import LabelImages
from workers.features.extract import extract, feature_matrix
from workers.features.extractor import Image, extractor_of
from workers.prediction.score import predictions
from workers.storage import info
from workers.tasks.base import Context, task
from workers.tasks.models import open_model


@task(LabelImages)
def label_images(message: LabelImages, context: Context) -> None:
    from workers.features.backbone import load
    from workers.features.inference import at_once

    images = [_image(uri) for uri in message.uris]
    backbone = load(message.backbone, message.image_size_px, message.fingerprint)
    shard = extract(images, extractor_of(at_once(backbone)))
    rows = shard.select(["uri", "version"])
    rows = rows.append_column("label", pa.nulls(len(images), pa.string()))
    rows = rows.append_column("row", pa.array(np.arange(len(images), dtype=np.int32)))
    scorer = open_model(context.store, message.model_id)
    table = predictions(scorer, rows, shard, feature_matrix(shard), message.top_k)
    context.store.write(message.result_key(), json.dumps(table.to_pylist()).encode())


def _image(uri: str) -> Image:
    try:
        found = info(uri)
    except (ObjectMissing, StoreDenied):
        return Image(uri, "")  # the extraction says why
    return Image(uri, found.version or "", found.size_bytes)
