"""The task behind `retrain label`: a few images, answered at once."""

import json

import numpy as np
import pyarrow as pa

from workers.contract.errors import ObjectMissing, StoreDenied
from workers.contract.messages import LabelImages
from workers.contract.settings import Settings
from workers.features.extract import Image, extract, feature_matrix
from workers.prediction.score import predictions
from workers.storage import info
from workers.tasks.base import Context, task
from workers.tasks.extract import DEFAULT_BATCH_SIZE
from workers.tasks.models import open_model


@task(LabelImages)
def label_images(message: LabelImages, context: Context) -> None:
    from workers.features.backbone import load

    images = [Image(uri, _version(uri)) for uri in message.uris]
    shard = extract(
        images,
        load(message.backbone, message.image_size_px, message.fingerprint),
        batch_size=DEFAULT_BATCH_SIZE,
        threads=Settings.from_environment().fetch_concurrency(),
    )
    rows = shard.select(["uri", "version"])
    rows = rows.append_column("label", pa.nulls(len(images), pa.string()))
    rows = rows.append_column("row", pa.array(np.arange(len(images), dtype=np.int32)))
    scorer = open_model(context.store, message.model_id)
    table = predictions(scorer, rows, shard, feature_matrix(shard), message.top_k)
    context.store.write(message.result_key(), json.dumps(table.to_pylist()).encode())


def _version(uri: str) -> str:
    try:
        return info(uri).version or ""
    except (ObjectMissing, StoreDenied):
        return ""  # the extraction says why
