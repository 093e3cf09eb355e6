from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest

from workers.training import images, start
from workers.training.dataset import Dataset
from workers.training.images import Images
from workers.training.start import add_by_class, best_scale, cross_entropy, standardisation

RNG = np.random.default_rng(0)


def logits_and_truth(images: int = 50) -> tuple[Any, Any]:
    logits = RNG.normal(size=(images, 4)).astype(np.float32) * 5
    return logits, (logits + RNG.normal(size=logits.shape) * 6).argmax(axis=1).astype(np.int32)


def by_definition(logits: npt.NDArray[Any], truth: npt.NDArray[Any]) -> float:
    exp = np.exp(logits.astype(np.float64))
    return float(-np.log(exp[np.arange(len(truth)), truth] / exp.sum(axis=1)).mean())


@pytest.mark.parametrize("block", [1, 7, 50, 1_000])
def test_the_cross_entropy_is_that_of_the_whole_array(
    block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(start, "_LOGITS_BLOCK", block)
    logits, truth = logits_and_truth()
    expected = by_definition(0.5 * logits, truth)
    assert cross_entropy(logits, truth, 0.5) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("factor", [0, 1e-3, 0.1, 1, 10, 1e3])
def test_the_best_scale_is_the_best_of_all(factor: float) -> None:
    logits, truth = logits_and_truth()
    logits *= np.float32(factor)
    losses = [cross_entropy(logits, truth, scale) for scale in start._SCALES]
    scale, loss = best_scale(logits, truth)
    assert loss == min(losses)
    assert scale == start._SCALES[int(np.argmin(losses))]


def test_sums_by_class_are_those_of_one_row_at_a_time() -> None:
    block, labels = RNG.normal(size=(100, 3)).astype(np.float32), RNG.integers(0, 5, 100) * 2
    expected = np.ones((10, 3))
    np.add.at(expected, labels, block)
    found = np.ones((10, 3))
    add_by_class(found, block, labels.astype(np.int32))
    np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.parametrize("block", [7, 1_000])
@pytest.mark.parametrize(("offset", "spread"), [(0, 1), (1_000, 1), (1, 1e-4), (0, 1e6)])
def test_the_scaling_is_that_of_the_whole_array(
    offset: float, spread: float, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(images, "_BLOCK", block)
    # what shifts the features is then not the mean of all of them
    monkeypatch.setattr(start, "_SHIFT_IMAGES", 20)
    features = (offset + spread * RNG.normal(size=(200, 3))).astype(np.float32)
    features[:, 2] = 7.3
    data = Dataset(features, np.zeros(200, np.int32), pa.table({"split": ["train"] * 200}))
    scaling = standardisation(Images(data, np.arange(200)), lambda: None)
    exact = features.astype(np.float64)
    np.testing.assert_allclose(scaling.mean, exact.mean(axis=0), rtol=1e-6, atol=1e-6 * spread)
    np.testing.assert_allclose(1 / scaling.inverse_std[:2], exact.std(axis=0)[:2], rtol=1e-5)
    assert scaling.inverse_std[2] == 0
