"""The closed-form start of the head: linear discriminant analysis with a shrunk covariance.

Its posterior is a softmax of a linear function (Hastie, Tibshirani, Friedman, The Elements of
Statistical Learning, 4.3). The within-class covariance is shrunk towards a multiple of the identity.
The shrinkage is the regulariser: a few strengths are tried, each with its logits scaled for the
best cross-entropy. With few images this beats a tuned logistic regression.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from workers.training.images import Images, Labels

Matrix = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]

_SHRINKAGES = (0.1, 0.3, 0.5, 0.7, 0.9)
_SCALES = np.geomspace(0.02, 2.0, 40)
# what judges a shrinkage: two numbers are chosen, which need no more images
_JUDGING_IMAGES = 16_384
_SHIFT_IMAGES = 8_192
# rows of logits in double precision at a time: 8 MB for a thousand classes
_LOGITS_BLOCK = 1_024


@dataclass(frozen=True)
class Scaling:
    """Standardisation: (x - mean) * inverse_std; a constant feature is scaled to nothing.

    mean, inverse_std: float32 (D,).
    """

    mean: Matrix
    inverse_std: Matrix

    def __call__(self, features: npt.NDArray[Any]) -> Matrix:
        """float16 or float32 (B, D) to float32 (B, D)."""
        scaled: Matrix = features.astype(np.float32)
        scaled -= self.mean
        scaled *= self.inverse_std
        return scaled


@dataclass(frozen=True)
class Start:
    """weights: float32 (D, C); bias: float32 (C,), for standardised features;
    inverse_covariance: float32 (D, D)."""

    weights: Matrix
    bias: Matrix
    inverse_covariance: Matrix
    shrinkage: float


def standardisation(training: Images, tick: Callable[[], None]) -> Scaling:
    """Mean and spread in one pass, as distances from the mean of some images: the squares of
    features far from zero would drown their spread."""
    some = training.some(_SHIFT_IMAGES, seed=0)
    shift = float32(sum(block.sum(axis=0, dtype=np.float64) for block, _ in some.blocks()) / len(some))
    total, squares = np.zeros(len(shift)), np.zeros(len(shift))
    for block, _ in training.blocks():
        away = block.astype(np.float32) - shift
        total += away.sum(axis=0, dtype=np.float64)
        squares += np.square(away, dtype=np.float64).sum(axis=0)
        tick()
    drift = total / len(training)
    mean = shift + drift
    std = np.sqrt(np.maximum(squares / len(training) - np.square(drift), 0))
    constant = std <= 1e-7 * np.abs(mean)
    inverse = np.where(constant, 0, 1 / np.where(constant, 1, std))
    return Scaling(float32(mean), float32(inverse))


def closed_form(
    training: Images,
    judging: Images,
    scaling: Scaling,
    class_weights: Matrix,
    tick: Callable[[], None],
) -> Start:
    """The discriminant with the best shrinkage. tick: called often."""
    means, values, vectors = _moments(training, scaling, len(class_weights), tick)
    priors = np.log(_priors(training.counts(len(class_weights)), class_weights))
    some = judging.some(_JUDGING_IMAGES, seed=0)
    features = np.concatenate([scaling(block) for block, _ in some.blocks()])
    best: tuple[float, Start] | None = None
    for shrinkage in _SHRINKAGES:
        shrunk = (1 - shrinkage) * values + shrinkage * (values.mean() or 1.0)
        inverse = (vectors / shrunk) @ vectors.T
        weights = inverse @ means.T
        bias = priors - 0.5 * (means * weights.T).sum(axis=1)
        scale, loss = best_scale(features @ float32(weights) + float32(bias), some.labels)
        if best is None or loss < best[0]:
            scaled = float32(weights * scale), float32(bias * scale)
            best = loss, Start(*scaled, float32(inverse), shrinkage)
        tick()
    assert best is not None
    return best[1]


def _moments(
    training: Images, scaling: Scaling, classes: int, tick: Callable[[], None]
) -> tuple[Doubles, Doubles, Doubles]:
    """Class means (C, D), and the eigenvalues (D,) and eigenvectors (D, D) of the
    within-class covariance, all of standardised features in float64."""
    size = len(scaling.mean)
    sums, scatter = np.zeros((classes, size)), np.zeros((size, size))
    for features, labels in training.blocks():
        block = scaling(features)
        scatter += block.T @ block
        add_by_class(sums, block, labels)
        tick()
    counts = training.counts(classes)[:, None]
    means = sums / counts
    within = (scatter - (means * counts).T @ means) / len(training)
    values, vectors = np.linalg.eigh(within)
    return means, np.maximum(values, 0), vectors


def add_by_class(sums: Doubles, block: Matrix, labels: Labels) -> None:
    """Add each row of a block (B, D) to its class's row of sums (C, D)."""
    order = np.argsort(labels, kind="stable")
    there, begins = np.unique(labels[order], return_index=True)
    sums[there] += np.add.reduceat(block[order], begins, axis=0)


def _priors(counts: npt.NDArray[np.int64], class_weights: Matrix) -> Doubles:
    weighted = counts * class_weights.astype(np.float64)
    priors: Doubles = weighted / weighted.sum()
    return priors


def best_scale(logits: Matrix, truth: Labels) -> tuple[float, float]:
    """The factor on the logits with the least cross-entropy, and that cross-entropy.

    The loss is convex in the factor, so the first one whose neighbour is no better is the best.
    """
    known: dict[int, float] = {}

    def loss(at: int) -> float:
        if at not in known:
            known[at] = cross_entropy(logits, truth, float(_SCALES[at]))
        return known[at]

    low, high = 0, len(_SCALES) - 1
    while low < high:
        middle = (low + high) // 2
        if loss(middle + 1) >= loss(middle):
            high = middle
        else:
            low = middle + 1
    return float(_SCALES[low]), loss(low)


def cross_entropy(logits: Matrix, truth: Labels, scale: float) -> float:
    """The mean over rows of -log softmax(scale * logits)[truth]. logits: (B, C); truth: (B,)."""
    total = 0.0
    for begin in range(0, len(truth), _LOGITS_BLOCK):
        block, own = logits[begin : begin + _LOGITS_BLOCK], truth[begin : begin + _LOGITS_BLOCK]
        shifted = np.multiply(block, scale, dtype=np.float64)
        shifted -= shifted.max(axis=1, keepdims=True)
        picked = shifted[np.arange(len(own)), own]
        total += float(np.sum(np.log(np.exp(shifted).sum(axis=1)) - picked))
    return total / len(truth)


def float32(array: npt.ArrayLike) -> Matrix:
    return np.asarray(array, np.float32)
