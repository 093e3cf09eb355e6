"""Tasks of the train queue: train a head and export the model; judge a model."""

import json
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from workers.contract import layout, schemas
from workers.contract.errors import ObjectMissing
from workers.contract.messages import EvaluateModel, TrainHead
from workers.contract.training import TrainingSettings
from workers.features.extract import feature_matrix
from workers.prediction.score import Scorer, predictions
from workers.storage import Store
from workers.storage.tables import read_table
from workers.tasks.base import Context, task
from workers.tasks.models import open_model
from workers.training.dataset import Dataset, join
from workers.training.evaluation import Evaluation

_TEST_TOP_K = 5
_BLOCK = 8_192


@task(TrainHead)
def train_head(message: TrainHead, context: Context) -> None:
    from workers.features.backbone import load
    from workers.training.bundle import export
    from workers.training.graphs import Classifier
    from workers.training.head import train

    settings = TrainingSettings(**message.training)
    steps = message.shards + settings.epochs
    shards = _shards(context.store, message.run_id, message.plan, message.shards, message.fingerprint)
    data = join(_counted(shards, context, steps), message.labels, feature_matrix)
    began = time.monotonic()
    head = train(
        data,
        message.labels,
        settings,
        lambda epoch: context.progress(message.shards + epoch, steps),
    )
    train_s = time.monotonic() - began
    scorer = Scorer(head.weights, head.bias, message.labels)
    backbone = load(message.backbone, message.image_size_px, message.fingerprint)
    classifier = Classifier(
        backbone.network, backbone.width, backbone.height, head.weights, head.bias, message.labels
    )
    metrics = {
        "train_seconds": train_s,
        "train": {"images": len(data.split("train"))},
        **{name: judge(scorer, data, name) for name in ("validation", "test")},
        "chosen": head.chosen,
        "history": head.history,
    }
    record = backbone.description() | {
        "image_size_px": message.image_size_px,
        "labels": message.labels,
        "data_fingerprint": message.data_fingerprint,
        "run_id": message.run_id,
        "training": message.training,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    export(context.store, message.model_id, classifier, record, metrics, _test_rows(scorer, data))


@task(EvaluateModel)
def evaluate_model(message: EvaluateModel, context: Context) -> None:
    scorer = open_model(context.store, message.model_id)
    index = {label: number for number, label in enumerate(scorer.labels)}
    evaluation = Evaluation(scorer.labels)
    for rows, shard in _shards(
        context.store, message.run_id, message.plan, message.shards, message.fingerprint
    ):
        good = np.asarray(shard.column("status").take(rows.column("row"))) == schemas.OK
        if message.split:
            good &= np.asarray(pc.equal(rows.column("split"), message.split))
        rows = rows.filter(pa.array(good))
        truth = np.array([index[each] for each in rows.column("label").to_pylist()], np.int32)
        evaluation.add(scorer.scores(feature_matrix(shard)[rows.column("row").to_numpy()]), truth)
    context.store.write(message.result_key(), json.dumps(evaluation.result()).encode())


def judge(scorer: Scorer, data: Dataset, split: str) -> dict[str, Any]:
    """The error rates of the head on one split."""
    evaluation = Evaluation(scorer.labels)
    rows = data.split(split)
    for begin in range(0, len(rows), _BLOCK):
        block = rows[begin : begin + _BLOCK]
        evaluation.add(scorer.scores(data.features[block]), data.labels[block])
    return evaluation.result()


def _test_rows(scorer: Scorer, data: Dataset) -> pa.Table:
    rows = data.split("test")
    table = data.rows.take(pa.array(rows)).drop_columns(["row"])
    table = table.append_column("row", pa.array(np.arange(len(rows), dtype=np.int32)))
    fine = pa.table({"status": [schemas.OK] * len(rows), "error": pa.nulls(len(rows), pa.string())})
    features: npt.NDArray[Any] = data.features[rows]
    return predictions(scorer, table, fine, features, _TEST_TOP_K)


def _counted(
    shards: Iterator[tuple[pa.Table, pa.Table]], context: Context, steps: int
) -> Iterator[tuple[pa.Table, pa.Table]]:
    for number, pair in enumerate(shards, 1):
        context.progress(number, steps)
        yield pair


def _shards(
    store: Store, run_id: str, plan: str, expected: int, fingerprint: str
) -> Iterator[tuple[pa.Table, pa.Table]]:
    """(rows of the run, features) of every shard of a plan."""
    keys = sorted(each.key for each in store.objects(layout.plan_prefix(run_id, plan)))
    if len(keys) != expected:
        raise ObjectMissing(
            f"the plan of {run_id} has {len(keys)} of its {expected} shards in the store: "
            "start the run again"
        )
    for key in keys:
        shard = key.rpartition("/")[2].removesuffix(".parquet")
        yield read_table(store, key), read_table(store, layout.features(fingerprint, shard))
