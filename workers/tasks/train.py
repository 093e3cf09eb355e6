"""Tasks of the train queue: train a head and export the model; judge a model."""

import json
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from workers.ahead import in_order
from workers.contract import layout, schemas
from workers.contract.errors import ObjectMissing
from workers.contract.messages import EvaluateModel, TrainHead
from workers.contract.settings import Settings
from workers.contract.training import TrainingSettings
from workers.features.extract import feature_matrix
from workers.prediction.score import Scorer, predictions
from workers.storage import Store
from workers.tasks.base import Context, task
from workers.tasks.models import open_model
from workers.training.dataset import Dataset, Shard, Shards
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

    def progress(done: int) -> None:
        context.progress(done, steps)

    shards = find_shards(
        context.store, message.run_id, message.plan, message.shards, message.fingerprint
    )
    folder = Settings.from_environment().cache_dir
    data = shards.load(message.labels, settings.seed, folder, progress)
    began = time.monotonic()
    head = train(data, message.labels, settings, lambda epoch: progress(message.shards + epoch))
    train_s = time.monotonic() - began
    scorer = Scorer(head.weights, head.bias, message.labels)

    def tick() -> None:
        progress(steps)

    backbone = load(message.backbone, message.image_size_px, message.fingerprint)
    classifier = Classifier(
        backbone.network, backbone.width, backbone.height, head.weights, head.bias, message.labels
    )
    metrics = {
        "train_seconds": train_s,
        "train": {"images": len(data.split("train"))},
        **{name: judge(scorer, data, name, tick) for name in ("validation", "test")},
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
    export(
        context.store, message.model_id, classifier, record, metrics, predict_test(scorer, data, tick)
    )


@task(EvaluateModel)
def evaluate_model(message: EvaluateModel, context: Context) -> None:
    scorer = open_model(context.store, message.model_id)
    index = {label: number for number, label in enumerate(scorer.labels)}
    evaluation = Evaluation(scorer.labels)
    shards = find_shards(
        context.store, message.run_id, message.plan, message.shards, message.fingerprint
    )
    with in_order(shards.read, shards.keys, shards.threads()) as ahead:
        for done, (rows, shard) in enumerate(ahead, 1):
            good = np.asarray(shard.column("status").take(rows.column("row"))) == schemas.OK
            if message.split:
                good &= np.asarray(pc.equal(rows.column("split"), message.split))
            rows = rows.filter(pa.array(good))
            truth = np.array([index[each] for each in rows.column("label").to_pylist()], np.int32)
            features, at = feature_matrix(shard), rows.column("row").to_numpy()
            for block in _blocks(np.arange(len(at))):
                evaluation.add(scorer.scores(features[at[block]]), truth[block])
            context.progress(done, len(shards.keys))
    context.store.write(message.result_key(), json.dumps(evaluation.result()).encode())


def judge(scorer: Scorer, data: Dataset, split: str, tick: Callable[[], None]) -> dict[str, Any]:
    """The error rates of the head on one split. tick: called often."""
    evaluation = Evaluation(scorer.labels)
    for block in _blocks(data.split(split)):
        evaluation.add(scorer.scores(data.features[block]), data.labels[block])
        tick()
    return evaluation.result()


def predict_test(scorer: Scorer, data: Dataset, tick: Callable[[], None]) -> pa.Table:
    """A prediction for every test image, in the order of the addresses (`schemas.PREDICTIONS`)."""
    tables = [schemas.PREDICTIONS.empty_table()]
    for block in _blocks(data.split("test")):
        rows = data.rows.take(pa.array(block))
        rows = rows.append_column("row", pa.array(np.arange(len(block), dtype=np.int32)))
        error = pa.nulls(len(block), pa.string())
        fine = pa.table({"status": [schemas.OK] * len(block), "error": error})
        tables.append(predictions(scorer, rows, fine, data.features[block], _TEST_TOP_K))
        tick()
    return pa.concat_tables(tables)


def _blocks(rows: npt.NDArray[np.int64]) -> Iterator[npt.NDArray[np.int64]]:
    """So many at a time that their scores fit in memory."""
    for begin in range(0, len(rows), _BLOCK):
        yield rows[begin : begin + _BLOCK]


def find_shards(store: Store, run_id: str, plan: str, expected: int, fingerprint: str) -> Shards:
    """The shards of a plan: rows of the run, and features."""
    keys = sorted(each.key for each in store.objects(layout.plan_prefix(run_id, plan)))
    if len(keys) != expected:
        raise ObjectMissing(
            f"the plan of {run_id} has {len(keys)} of its {expected} shards in the store: "
            "start the run again"
        )
    features = [
        layout.features(fingerprint, key.rpartition("/")[2].removesuffix(".parquet")) for key in keys
    ]
    sizes = dict.fromkeys(features, 0)
    for each in store.objects(layout.features_prefix(fingerprint)):
        if each.key in sizes:
            sizes[each.key] = each.size_bytes
    for key, size_bytes in sizes.items():
        if not size_bytes:
            raise ObjectMissing(f"there is no object {store.uri(key)}: start the run again")
    shards = [Shard(rows, found, sizes[found]) for rows, found in zip(keys, features, strict=True)]
    return Shards(store, shards, feature_matrix)
