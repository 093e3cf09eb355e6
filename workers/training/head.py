"""Training the head: a softmax layer on standardised features. Imports TensorFlow.

Two stages, both chosen by the cross-entropy on the validation images.

1. A closed-form start: linear discriminant analysis, whose posterior is a softmax of a linear
   function (Hastie, Tibshirani, Friedman, The Elements of Statistical Learning, 4.3), with the
   within-class covariance shrunk towards a multiple of the identity. The shrinkage is the
   regulariser: a few strengths are tried, each with its logits scaled for the best validation
   cross-entropy. With few images this beats a tuned logistic regression.
2. Refinement: mini-batch gradient descent on the softmax cross-entropy from there, with momentum,
   preconditioned by the inverse of the same covariance, which makes one learning rate fit any
   backbone. Early stopping keeps the best epoch, the start included, so this cannot end worse on
   the validation images than stage 1.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from workers.contract.errors import BadSource
from workers.contract.training import TrainingSettings
from workers.tensorflow import tf
from workers.training.dataset import Dataset

Matrix = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int32]
Rows = npt.NDArray[np.int64]

_SHRINKAGES = (0.1, 0.3, 0.5, 0.7, 0.9)
_SCALES = np.geomspace(0.02, 2.0, 40)
_LEARNING_RATES = (0.3, 0.1, 0.03)
_MOMENTUM = 0.9
_SEARCH_IMAGES = 16_384
_BLOCK = 8_192


@dataclass(frozen=True)
class Head:
    """logits = features @ weights + bias, for features as the backbone gives them.

    weights: float32 (D, C); bias: float32 (C,).
    """

    weights: Matrix
    bias: npt.NDArray[np.float32]
    chosen: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, float]] = field(default_factory=list)


@dataclass(frozen=True)
class _Scaling:
    """Standardisation: (x - mean) * inverse_std; a constant feature is scaled to nothing."""

    mean: Matrix
    inverse_std: Matrix

    def __call__(self, features: npt.NDArray[Any]) -> Matrix:
        scaled: Matrix = (features.astype(np.float32) - self.mean) * self.inverse_std
        return scaled


@dataclass(frozen=True)
class _Start:
    weights: Matrix
    bias: Matrix
    inverse_covariance: Matrix
    shrinkage: float
    loss: float


def train(
    data: Dataset,
    classes: Sequence[str],
    settings: TrainingSettings,
    progress: Callable[[int], None] = lambda epoch: None,
) -> Head:
    """The head that does best on the validation images. Deterministic for one seed.

    progress: called after every epoch with its number, 0 while the learning rate is looked for;
    what it raises ends the training.

    Without validation images, a tenth of the training images judges instead. Raises BadSource
    where a class has no training image.
    """
    training, judging = data.split("train"), data.split("validation")
    if not len(judging):
        training, judging = _hold_out(training, data.labels, settings.seed)
    counts = np.bincount(data.labels[training], minlength=len(classes))
    if missing := [classes[int(i)] for i in np.flatnonzero(counts == 0)]:
        raise BadSource(f"no readable training image of {', '.join(missing)}: add some")
    scaling = _scaling(data.features, training)
    fit = _Fit(data, scaling, training, judging, _class_weights(counts, settings))
    start = fit.start()
    rate = settings.learning_rate or fit.choose_learning_rate(start, settings, progress)
    weights, bias, history = fit.refine(start, settings, rate, progress)
    chosen = {"shrinkage": start.shrinkage, "learning_rate": rate, "settings": asdict(settings)}
    return _folded(scaling, weights, bias, chosen, history)


@dataclass(frozen=True)
class _Fit:
    data: Dataset
    scaling: _Scaling
    training: Rows
    judging: Rows
    class_weights: Matrix

    def start(self) -> _Start:
        """Stage 1: the discriminant with the best shrinkage."""
        means, values, vectors = self._moments()
        priors = np.log(self._priors())
        truth = self.data.labels[self.judging]
        best: _Start | None = None
        for shrinkage in _SHRINKAGES:
            shrunk = (1 - shrinkage) * values + shrinkage * (values.mean() or 1.0)
            inverse = (vectors / shrunk) @ vectors.T
            weights = inverse @ means.T
            bias = priors - 0.5 * (means * weights.T).sum(axis=1)
            scale, loss = _best_scale(self._logits(weights, bias), truth)
            if best is None or loss < best.loss:
                scaled = _float32(weights * scale), _float32(bias * scale)
                best = _Start(*scaled, _float32(inverse), shrinkage, loss)
        assert best is not None
        return best

    def choose_learning_rate(
        self, start: _Start, settings: TrainingSettings, progress: Callable[[int], None]
    ) -> float:
        """The rate that reaches the lowest validation loss, tried on a part of the images."""
        some = self.training
        if len(some) > _SEARCH_IMAGES:
            some = np.sort(
                np.random.default_rng(settings.seed).choice(some, _SEARCH_IMAGES, replace=False)
            )
        part = _Fit(self.data, self.scaling, some, self.judging, self.class_weights)

        def reached(rate: float) -> float:
            history = part.refine(start, settings, rate, lambda epoch: progress(0))[2]
            return min(step["validation_loss"] for step in history)

        return min(_LEARNING_RATES, key=reached)

    def refine(
        self,
        start: _Start,
        settings: TrainingSettings,
        learning_rate: float,
        progress: Callable[[int], None] = lambda epoch: None,
    ) -> tuple[Matrix, Matrix, list[dict[str, float]]]:
        """Stage 2: the weights of the best epoch, and the losses of each."""
        model = _Softmax(start, self.class_weights, settings)
        rng = np.random.default_rng(settings.seed)
        truth = self.data.labels[self.judging]
        best = (start.loss, start.weights, start.bias)
        history = [{"epoch": 0.0, "validation_loss": start.loss}]
        last_better = 0
        for epoch in range(1, settings.epochs + 1):
            rate = learning_rate * 0.5 * (1 + np.cos(np.pi * (epoch - 1) / settings.epochs))
            losses = [
                model.step(features, labels, rate)
                for features, labels in self._batches(rng, settings.batch_size)
            ]
            weights, bias = model.values()
            loss = _cross_entropy(self._logits(weights, bias), truth)
            history.append(
                {"epoch": float(epoch), "loss": float(np.mean(losses)), "validation_loss": loss}
            )
            if loss < best[0]:
                best, last_better = (loss, weights, bias), epoch
            progress(epoch)
            if epoch - last_better >= settings.patience:
                break
        return best[1], best[2], history

    def _batches(self, rng: np.random.Generator, size: int) -> Iterator[tuple[Matrix, Labels]]:
        order = rng.permutation(self.training)
        for begin in range(0, len(order), size):
            rows = np.sort(order[begin : begin + size])
            yield self.scaling(self.data.features[rows]), self.data.labels[rows]

    def _logits(self, weights: npt.NDArray[Any], bias: npt.NDArray[Any]) -> Matrix:
        weights, bias = _float32(weights), _float32(bias)
        return np.concatenate(
            [self.scaling(self.data.features[rows]) @ weights + bias for rows in _blocks(self.judging)]
        )

    def _moments(self) -> tuple[npt.NDArray[Any], npt.NDArray[Any], npt.NDArray[Any]]:
        """Class means (C, D), and the eigenvalues (D,) and eigenvectors (D, D) of the
        within-class covariance, all of standardised features in float64."""
        classes, size = len(self.class_weights), self.data.features.shape[1]
        sums, scatter = np.zeros((classes, size)), np.zeros((size, size))
        for rows in _blocks(self.training):
            block = self.scaling(self.data.features[rows])
            scatter += block.T @ block
            np.add.at(sums, self.data.labels[rows], block)
        counts = np.bincount(self.data.labels[self.training], minlength=classes)[:, None]
        means = sums / counts
        within = (scatter - (means * counts).T @ means) / len(self.training)
        values, vectors = np.linalg.eigh(within)
        return means, np.maximum(values, 0), vectors

    def _priors(self) -> npt.NDArray[Any]:
        counts = np.bincount(self.data.labels[self.training], minlength=len(self.class_weights))
        weighted: npt.NDArray[Any] = counts * self.class_weights
        priors: npt.NDArray[Any] = weighted / weighted.sum()
        return priors


class _Softmax:
    """The layer under refinement, on the GPU where there is one."""

    def __init__(self, start: _Start, class_weights: Matrix, settings: TrainingSettings) -> None:
        self._weights, self._bias = tf.Variable(start.weights), tf.Variable(start.bias)
        self._start, self._inverse = tf.constant(start.weights), tf.constant(start.inverse_covariance)
        self._speed = tf.Variable(tf.zeros_like(start.weights))
        self._bias_speed = tf.Variable(tf.zeros_like(start.bias))
        self._class_weights = tf.constant(class_weights)
        self._decay, self._smoothing = settings.weight_decay, settings.label_smoothing
        size, classes = start.weights.shape
        self._compiled = tf.function(
            self._step,
            input_signature=[
                tf.TensorSpec((None, size), tf.float32),
                tf.TensorSpec((None,), tf.int32),
                tf.TensorSpec((), tf.float32),
            ],
        )
        self._classes = classes

    def step(self, features: Matrix, labels: Labels, rate: float) -> float:
        """One update on float32 (B, D) features; returns the loss before it."""
        return float(self._compiled(features, labels, np.float32(rate)))

    def values(self) -> tuple[Matrix, Matrix]:
        return self._weights.numpy(), self._bias.numpy()

    def _step(self, features: tf.Tensor, labels: tf.Tensor, rate: tf.Tensor) -> tf.Tensor:
        logits = tf.matmul(features, self._weights) + self._bias  # (B, C)
        target = tf.one_hot(labels, self._classes)
        target = target * (1 - self._smoothing) + self._smoothing / self._classes
        weight = tf.gather(self._class_weights, labels)[:, None]  # (B, 1)
        losses = tf.nn.softmax_cross_entropy_with_logits(target, logits)
        error = (tf.nn.softmax(logits) - target) * weight / tf.cast(tf.shape(labels)[0], tf.float32)
        gradient = tf.matmul(features, error, transpose_a=True)  # (D, C)
        gradient += self._decay * (self._weights - self._start)
        self._speed.assign(_MOMENTUM * self._speed + tf.matmul(self._inverse, gradient))
        self._bias_speed.assign(_MOMENTUM * self._bias_speed + tf.reduce_sum(error, axis=0))
        self._weights.assign_sub(rate * self._speed)
        self._bias.assign_sub(rate * self._bias_speed)
        return tf.reduce_mean(losses * weight[:, 0])


def _folded(
    scaling: _Scaling,
    weights: Matrix,
    bias: Matrix,
    chosen: dict[str, Any],
    history: list[dict[str, float]],
) -> Head:
    """The head for features that are not standardised: the scaling moves into the weights."""
    folded = scaling.inverse_std.astype(np.float64)[:, None] * weights
    shift = bias - scaling.mean.astype(np.float64) @ folded
    return Head(_float32(folded), _float32(shift), chosen, history)


def _scaling(features: npt.NDArray[Any], rows: Rows) -> _Scaling:
    total = np.zeros(features.shape[1])
    for block in _blocks(rows):
        total += features[block].sum(axis=0, dtype=np.float64)
    mean = total / len(rows)
    squares = np.zeros_like(mean)
    for block in _blocks(rows):
        squares += np.square(features[block] - mean).sum(axis=0)
    std = np.sqrt(squares / len(rows))
    constant = std <= 1e-7 * np.abs(mean)
    inverse = np.where(constant, 0, 1 / np.where(constant, 1, std))
    return _Scaling(_float32(mean), _float32(inverse))


def _class_weights(counts: npt.NDArray[Any], settings: TrainingSettings) -> Matrix:
    if settings.class_weights == "balanced":
        return _float32(counts.sum() / (len(counts) * counts))
    return np.ones(len(counts), np.float32)


def _hold_out(training: Rows, labels: Labels, seed: int) -> tuple[Rows, Rows]:
    """A tenth to judge on; every class keeps one image at least."""
    # too few to part with are judged on what they teach, which the shrinkage survives
    if len(training) < 20:
        return training, training
    shuffled = np.random.default_rng(seed).permutation(training)
    _, first_of_class = np.unique(labels[shuffled], return_index=True)
    spare = np.delete(np.arange(len(shuffled)), first_of_class)
    held = spare[: max(1, len(training) // 10)]
    if not len(held):
        return training, training
    return np.sort(np.delete(shuffled, held)), np.sort(shuffled[held])


def _best_scale(logits: Matrix, truth: Labels) -> tuple[float, float]:
    losses = [_cross_entropy(logits * scale, truth) for scale in _SCALES]
    best = int(np.argmin(losses))
    return float(_SCALES[best]), losses[best]


def _cross_entropy(logits: Matrix, truth: Labels) -> float:
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    picked = shifted[np.arange(len(truth)), truth]
    return float(np.mean(np.log(np.exp(shifted).sum(axis=1)) - picked))


def _blocks(rows: Rows) -> Iterator[Rows]:
    for begin in range(0, len(rows), _BLOCK):
        yield rows[begin : begin + _BLOCK]


def _float32(array: npt.NDArray[Any]) -> Matrix:
    return np.asarray(array, np.float32)
