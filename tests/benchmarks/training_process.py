"""What the train task does between its message and the export, timed: one JSON line to stdout.

python -m tests.benchmarks.training_process STORE SHARDS CLASSES EPOCHS
"""

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from tests.benchmarks.training_shards import FINGERPRINT, PLAN, RUN, names
from workers.contract.settings import Settings
from workers.contract.training import TrainingSettings
from workers.prediction.score import Scorer
from workers.storage import open_store
from workers.tasks.train import find_shards, judge, predict_test
from workers.training import head

Times = dict[str, float]


def main(store_url: str, shards: int, classes: int, epochs: int) -> None:
    times: Times = {}
    _time_stages(times)
    labels, settings = names(classes), TrainingSettings(epochs=epochs)
    began = time.perf_counter()
    plan = find_shards(open_store(store_url), RUN, PLAN, shards, FINGERPRINT)
    data = plan.load(labels, settings.seed, Settings.from_environment().cache_dir, lambda done: None)
    times["local copy"] = time.perf_counter() - began

    ends: dict[int, float] = {}
    trained = head.train(
        data, labels, settings, lambda epoch: ends.__setitem__(epoch, time.perf_counter())
    )
    began = time.perf_counter()
    scorer = Scorer(trained.weights, trained.bias, labels)
    judged = judge(scorer, data, "validation", lambda: None)
    tested = predict_test(scorer, data, lambda: None)
    times["judging"] = time.perf_counter() - began

    training = len(data.split("train"))
    batch = trained.chosen["batch_size"]
    products_s, preconditioner_s = _products(training, batch, data.features.shape[1], classes)
    result = {
        "images": len(data.labels),
        "training": training,
        "batch": batch,
        "chosen": {key: trained.chosen[key] for key in ("shrinkage", "learning_rate")},
        "losses": [each["validation_loss"] for each in trained.history],
        "validation_error": judged["top1_error"],
        "test_rows": tested.num_rows,
        "times": times,
        "epochs": _epochs(ends, times),
        "products": products_s,
        "preconditioner": preconditioner_s,
    }
    print(json.dumps(result))  # noqa: T201


def _time_stages(times: Times) -> None:
    """Note how long the stages of the training take that it does not tell of."""

    def timed(name: str) -> None:
        work: Callable[..., Any] = getattr(head, name)

        def run(*arguments: Any) -> Any:
            began = time.perf_counter()
            result = work(*arguments)
            times[name] = time.perf_counter() - began
            times[f"end of {name}"] = time.perf_counter()
            return result

        setattr(head, name, run)

    for name in ("standardisation", "closed_form", "choose_learning_rate"):
        timed(name)


def _epochs(ends: dict[int, float], times: Times) -> list[float]:
    """Seconds of each, its validation included; the first also judges the start.

    ends: when the training last told of so many epochs done: at the end of the next one, but for
    the last.
    """
    marks = [times["end of choose_learning_rate"], *(ends[number] for number in sorted(ends)[:-1])]
    return list(np.diff(marks))


def _products(images: int, batch: int, size: int, classes: int) -> tuple[float, float]:
    """Seconds of one epoch's matrix products alone: those with the features (X W and Xᵀ E), and
    that of the preconditioner. Random float32 of the same shapes, as many batches."""
    from workers.tensorflow import tf

    features, error = tf.random.normal((batch, size)), tf.random.normal((batch, classes))
    weights, inverse = tf.random.normal((size, classes)), tf.random.normal((size, size))

    @tf.function  # type: ignore[untyped-decorator]
    def forward_and_gradient() -> Any:
        logits = tf.matmul(features, weights)
        return logits[0, 0] + tf.matmul(features, error, transpose_a=True)[0, 0]

    @tf.function  # type: ignore[untyped-decorator]
    def preconditioner() -> Any:
        return tf.matmul(inverse, weights)[0, 0]

    def seconds(work: Callable[[], Any]) -> float:
        work()
        began = time.perf_counter()
        for _ in range(images // batch):
            float(work())
        return (time.perf_counter() - began) * images / batch / (images // batch)

    return seconds(forward_and_gradient), seconds(preconditioner)


if __name__ == "__main__":
    store, *numbers = sys.argv[1:]
    main(str(Path(store)), *map(int, numbers))
