import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest

from workers.contract.errors import BadSource, HandedBack
from workers.contract.training import TrainingSettings
from workers.training import head as head_module
from workers.training import images, start
from workers.training.dataset import Dataset
from workers.training.head import Head, automatic_batch_size, train

CLASSES = ["a", "b", "c"]
SIZE = 12

Features = npt.NDArray[Any]


def dataset(features: Features, labels: npt.NDArray[np.int32], split: list[str]) -> Dataset:
    return Dataset(features, labels, pa.table({"split": split}))


def clusters(per_class: int = 30, spread: float = 1.0, seed: int = 0, classes: int = 3) -> Dataset:
    """Images of each class around a point of their own; of ten, one is validation, one test."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(classes, dtype=np.int32), per_class)
    centres = 4 * rng.normal(size=(classes, SIZE))
    features = (centres[labels] + spread * rng.normal(size=(len(labels), SIZE))).astype(np.float32)
    names = {0: "validation", 1: "test"}
    return dataset(features, labels, [names.get(n % 10, "train") for n in range(len(labels))])


def logits(head: Head, data: Dataset) -> npt.NDArray[np.float32]:
    result: npt.NDArray[np.float32] = data.features.astype(np.float32) @ head.weights + head.bias
    return result


def error(head: Head, data: Dataset, split: str = "test") -> float:
    rows = data.split(split)
    return float((logits(head, data)[rows].argmax(axis=1) != data.labels[rows]).mean())


def as_trained(data: Dataset, features: Features) -> Dataset:
    return Dataset(features, data.labels, data.rows)


def test_separable_classes_are_told_apart() -> None:
    data = clusters()
    head = train(data, CLASSES, TrainingSettings())
    assert (head.weights.shape, head.bias.shape) == ((SIZE, 3), (3,))
    assert [str(each.dtype) for each in (head.weights, head.bias)] == ["float32", "float32"]
    assert error(head, data) == 0


def test_one_seed_gives_one_head() -> None:
    data = clusters(spread=4)
    heads = [train(data, CLASSES, TrainingSettings(seed=seed, batch_size=8)) for seed in (3, 3, 4)]
    np.testing.assert_array_equal(heads[0].weights, heads[1].weights)
    np.testing.assert_array_equal(heads[0].bias, heads[1].bias)
    assert heads[0].history == heads[1].history != heads[2].history


def test_the_head_is_no_worse_on_the_validation_images_than_its_start() -> None:
    history = train(clusters(spread=6), CLASSES, TrainingSettings(patience=60)).history
    start, *later = [step["validation_loss"] for step in history]
    assert len(later) > 1
    data = clusters(spread=6)
    head = train(data, CLASSES, TrainingSettings(patience=60))
    rows = data.split("validation")
    scores = logits(head, data)[rows].astype(np.float64)
    scores -= scores.max(axis=1, keepdims=True)
    own = scores[np.arange(len(rows)), data.labels[rows]]
    loss = float(np.mean(np.log(np.exp(scores).sum(axis=1)) - own))
    assert loss == pytest.approx(min(start, *later), rel=1e-3)


def test_without_epochs_the_head_is_the_closed_form_start() -> None:
    head = train(clusters(), CLASSES, TrainingSettings(epochs=0))
    assert [step["epoch"] for step in head.history] == [0]
    assert error(head, clusters()) == 0


def test_a_given_learning_rate_is_kept() -> None:
    assert (
        train(clusters(), CLASSES, TrainingSettings(learning_rate=0.05)).chosen["learning_rate"] == 0.05
    )


def scaled(by: float) -> Callable[[Features], Features]:
    return lambda features: (features * by).astype(np.float32)


def shifted(features: Features) -> Features:
    return (features + 1000).astype(np.float32)


def with_constants(features: Features) -> Features:
    features = features.copy()
    features[:, 0], features[:, 1] = 0, 7.3
    return features


def in_half(features: Features) -> Features:
    return features.astype(np.float16)


@pytest.mark.parametrize(
    "change",
    [scaled(1e-6), scaled(1e5), shifted, with_constants, in_half],
    ids=["small", "large", "shifted", "constant", "in half"],
)
def test_the_scale_of_the_features_does_not_matter(change: Callable[[Features], Features]) -> None:
    data = clusters()
    changed = as_trained(data, change(data.features))
    head = train(changed, CLASSES, TrainingSettings())
    assert np.isfinite(head.weights).all()
    assert error(head, changed) == 0


def test_the_weights_hold_the_standardisation() -> None:
    data = clusters(spread=3)
    scales = np.geomspace(1e-3, 1e3, SIZE)
    raw = as_trained(data, ((data.features + 2) * scales).astype(np.float32))
    expected = logits(train(data, CLASSES, TrainingSettings()), data)
    found = logits(train(raw, CLASSES, TrainingSettings()), raw)
    # standardised, both are the same features: so both heads must give the same scores
    np.testing.assert_allclose(found, expected, atol=2e-3 * np.abs(expected).max())


def test_features_that_are_all_constant_still_give_a_head() -> None:
    data = clusters()
    flat = as_trained(data, np.full_like(data.features, 0.5))
    head = train(flat, CLASSES, TrainingSettings())
    assert np.isfinite(logits(head, flat)).all()


@pytest.mark.parametrize("per_class", [1, 2, 5])
def test_a_few_images_of_each_class_are_enough(per_class: int) -> None:
    data = clusters(per_class)
    everything = dataset(data.features, data.labels, ["train"] * len(data.labels))
    head = train(everything, CLASSES, TrainingSettings())
    assert np.isfinite(head.weights).all()
    assert error(head, everything, "train") == 0


def test_without_validation_images_a_part_of_the_training_images_judges() -> None:
    data = clusters(60)
    splits = [name if name == "test" else "train" for name in data.rows["split"].to_pylist()]
    everything = dataset(data.features, data.labels, splits)
    head = train(everything, CLASSES, TrainingSettings())
    assert error(head, everything) == 0


def test_the_images_taken_for_judging_leave_every_class_one_to_learn_from() -> None:
    """Twenty of one class and one of another: whichever are taken, the one is not."""
    data = clusters(20, classes=2)
    keep = np.arange(21)
    few = dataset(data.features[keep], data.labels[keep], ["train"] * len(keep))
    for seed in range(25):
        head = train(few, CLASSES[:2], TrainingSettings(seed=seed, epochs=0))
        assert error(head, few, "train") == 0


@pytest.mark.parametrize(
    "settings",
    [
        TrainingSettings(label_smoothing=0.2),
        TrainingSettings(weight_decay=0.1),
        TrainingSettings(class_weights="balanced"),
        TrainingSettings(batch_size=1, epochs=3),
        TrainingSettings(batch_size=100_000),
    ],
)
def test_every_setting_gives_a_head_that_works(settings: TrainingSettings) -> None:
    data = clusters()
    head = train(data, CLASSES, settings)
    assert error(head, data) == 0
    assert head.chosen["settings"]["class_weights"] == settings.class_weights


def test_balanced_class_weights_find_more_of_a_rare_class() -> None:
    rng = np.random.default_rng(1)
    labels = np.array([0] * 900 + [1] * 60, np.int32)
    features = (rng.normal(size=(960, SIZE)) + labels[:, None] * 0.4).astype(np.float32)
    data = dataset(features, labels, ["validation" if n % 5 == 0 else "train" for n in range(960)])
    found = {
        kind: (
            logits(train(data, CLASSES[:2], TrainingSettings(class_weights=kind)), data)[labels == 1]
            .argmax(axis=1)
            .mean()
        )
        for kind in ("none", "balanced")
    }
    assert found["balanced"] > found["none"] + 0.1


@pytest.mark.parametrize("split", ["test", "validation"])
def test_a_class_without_training_images_is_named(split: str) -> None:
    data = clusters()
    names = [split if label == 1 else "train" for label in data.labels]
    with pytest.raises(BadSource, match="no readable training image of b:"):
        train(dataset(data.features, data.labels, names), CLASSES, TrainingSettings())


def test_the_size_of_the_blocks_does_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    data, settings = clusters(spread=5), TrainingSettings(epochs=3, batch_size=16)
    whole = train(data, CLASSES, settings)
    monkeypatch.setattr(images, "_BLOCK", 7)
    monkeypatch.setattr(start, "_LOGITS_BLOCK", 3)
    blocks = train(data, CLASSES, settings)
    np.testing.assert_allclose(blocks.weights, whole.weights, rtol=1e-3, atol=1e-5)
    for one, other in zip(blocks.history, whole.history, strict=True):
        assert one == pytest.approx(other, rel=1e-4)


@pytest.mark.parametrize(
    ("images", "size", "expected"),
    [(100, 2_048, 256), (16_384, 2_048, 256), (64_000, 2_048, 1_000), (800_000, 2_048, 4_096),
     (800_000, 1_024, 2_048), (800_000, 16, 256)],
)  # fmt: skip
def test_batches_grow_with_the_images_until_the_preconditioner_is_cheap(
    images: int, size: int, expected: int
) -> None:
    assert automatic_batch_size(images, size) == expected


def test_the_learning_rate_of_many_images_is_found_on_a_part_of_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(head_module, "_SEARCH_IMAGES", 50)
    monkeypatch.setattr(head_module, "_LARGE_SEARCH_IMAGES", 60)
    monkeypatch.setattr(head_module, "_LARGE_SEARCH_VISITS", 120)
    told: list[int] = []
    data = clusters(100, spread=3)
    head = train(data, CLASSES, TrainingSettings(epochs=4, batch_size=10), told.append)
    assert error(head, data) < 0.1
    # three rates for two epochs of six batches each, before the four epochs of 24
    assert told.count(0) < 3 * 2 * (6 + 2) + 24 + 20
    assert told.count(1) == 24 + 2


@pytest.mark.parametrize("calls", [1, 3, 10, 25])
def test_what_progress_raises_ends_the_training_and_its_threads(calls: int) -> None:
    data, threads, told = clusters(), threading.active_count(), []

    def stop(epoch: int) -> None:
        told.append(epoch)
        if len(told) == calls:
            raise HandedBack("the worker is shutting down")

    with pytest.raises(HandedBack):
        train(data, CLASSES, TrainingSettings(batch_size=16), stop)
    assert len(told) == calls
    assert threading.active_count() == threads
