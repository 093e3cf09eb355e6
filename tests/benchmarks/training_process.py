"""What the train task does between its message and the export, timed: one JSON line to stdout.

python -m tests.benchmarks.training_process STORE SHARDS CLASSES EPOCHS
"""

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

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

    training = len(data.split("train"))
    batch = head.automatic_batch_size(training, data.features.shape[1])
    epochs_done = Epochs(times, Products(training, batch, data.features.shape[1], classes))
    trained = head.train(data, labels, settings, epochs_done)
    began = time.perf_counter()
    scorer = Scorer(trained.weights, trained.bias, labels)
    judged = judge(scorer, data, "validation", lambda: None)
    tested = predict_test(scorer, data, lambda: None)
    times["judging"] = time.perf_counter() - began

    result = {
        "images": len(data.labels),
        "training": training,
        "batch": trained.chosen["batch_size"],
        "chosen": {key: trained.chosen[key] for key in ("shrinkage", "learning_rate")},
        "losses": [each["validation_loss"] for each in trained.history],
        "validation_error": judged["top1_error"],
        "test_rows": tested.num_rows,
        "times": times,
        "epochs": epochs_done.seconds,
        "products": [each for each, _ in epochs_done.products],
        "preconditioner": [each for _, each in epochs_done.products],
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


class Products:
    """One epoch's matrix products alone: those with the features (X W and Xᵀ E), and that of the
    preconditioner. Random float32 of the same shapes, as many batches."""

    def __init__(self, images: int, batch: int, size: int, classes: int) -> None:
        from workers.tensorflow import tf

        self._batches = images / batch
        features, error = tf.random.normal((batch, size)), tf.random.normal((batch, classes))
        weights, inverse = tf.random.normal((size, classes)), tf.random.normal((size, size))

        @tf.function  # type: ignore[untyped-decorator]
        def with_features() -> Any:
            logits = tf.matmul(features, weights)
            return logits[0, 0] + tf.matmul(features, error, transpose_a=True)[0, 0]

        @tf.function  # type: ignore[untyped-decorator]
        def of_preconditioner() -> Any:
            return tf.matmul(inverse, weights)[0, 0]

        self._work = with_features, of_preconditioner
        self.seconds()  # compiles

    def seconds(self) -> tuple[float, float]:
        """Seconds of an epoch, told from a quarter of one: the machine may have other work, so it
        is asked often."""
        with_features, of_preconditioner = (self._seconds(each) for each in self._work)
        return with_features, of_preconditioner

    def _seconds(self, work: Callable[[], Any]) -> float:
        count = max(1, round(self._batches / 4))
        began = time.perf_counter()
        for _ in range(count):
            float(work())
        return (time.perf_counter() - began) * self._batches / count


class Epochs:
    """Seconds of each epoch, its validation included, and of its products, measured right after it.

    The first epoch also judges the start.
    """

    def __init__(self, times: Times, products: Products) -> None:
        self.seconds: list[float] = []
        self.products: list[tuple[float, float]] = []
        self._times, self._measure = times, products
        self._began = 0.0

    def __call__(self, done: int) -> None:
        if done > len(self.seconds):
            began = self._began or self._times["end of choose_learning_rate"]
            self.seconds.append(time.perf_counter() - began)
            self.products.append(self._measure.seconds())
            self._began = time.perf_counter()


if __name__ == "__main__":
    store, *numbers = sys.argv[1:]
    main(str(Path(store)), *map(int, numbers))
