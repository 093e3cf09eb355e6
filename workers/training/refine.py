"""The refinement of the head: gradient descent from the closed-form start. Imports TensorFlow.

Mini-batches, softmax cross-entropy, momentum, and a preconditioner: the inverse of the within-class
covariance, which makes one learning rate fit any backbone. Early stopping keeps the best epoch,
the start included, so this cannot end worse on the validation images than it began.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from workers.contract.training import TrainingSettings
from workers.tensorflow import tf
from workers.training.images import Images, Labels
from workers.training.local_copy import Floats
from workers.training.start import Matrix, Scaling, Start

_MOMENTUM = 0.9


@dataclass(frozen=True)
class Refined:
    """weights: float32 (D, C); bias: float32 (C,), of the best epoch; history: every epoch's losses."""

    weights: Matrix
    bias: Matrix
    history: list[dict[str, float]]


@dataclass(frozen=True)
class Refinement:
    """judging: the images whose loss says which epoch is best; batch_size: images for each step."""

    start: Start
    scaling: Scaling
    class_weights: Matrix
    settings: TrainingSettings
    batch_size: int

    def run(
        self,
        training: Images,
        judging: Images,
        epochs: int,
        learning_rate: float,
        progress: Callable[[int], None],
    ) -> Refined:
        """progress: called after every step with the number of epochs done."""
        done = 0

        def tick() -> None:
            progress(done)

        model = _Softmax(self, training.data.features.dtype)
        rng = np.random.default_rng(self.settings.seed)
        loss = model.judge(judging, tick)
        best = (loss, *model.values())
        history = [{"epoch": 0.0, "validation_loss": loss}]
        last_better = 0
        for epoch in range(1, epochs + 1):
            rate = learning_rate * 0.5 * (1 + math.cos(math.pi * (epoch - 1) / epochs))
            losses = []
            for features, labels in training.batches(rng, self.batch_size):
                losses.append(model.step(features, labels, rate))
                tick()
            loss = model.judge(judging, tick)
            history.append(
                {"epoch": float(epoch), "loss": float(np.mean(losses)), "validation_loss": loss}
            )
            if loss < best[0]:
                best, last_better = (loss, *model.values()), epoch
            done = epoch
            tick()
            if epoch - last_better >= self.settings.patience:
                break
        return Refined(best[1], best[2], history)


class _Softmax:
    """The layer under refinement, on the GPU where there is one."""

    def __init__(self, plan: Refinement, dtype: npt.DTypeLike) -> None:
        start, settings = plan.start, plan.settings
        self._weights, self._bias = tf.Variable(start.weights), tf.Variable(start.bias)
        self._start, self._inverse = tf.constant(start.weights), tf.constant(start.inverse_covariance)
        self._speed = tf.Variable(tf.zeros_like(start.weights))
        self._bias_speed = tf.Variable(tf.zeros_like(start.bias))
        self._mean, self._inverse_std = (
            tf.constant(plan.scaling.mean),
            tf.constant(plan.scaling.inverse_std),
        )
        self._class_weights = tf.constant(plan.class_weights)
        self._decay, self._smoothing = settings.weight_decay, settings.label_smoothing
        size, self._classes = start.weights.shape
        features = tf.TensorSpec((None, size), dtype)
        labels, rate = tf.TensorSpec((None,), tf.int32), tf.TensorSpec((), tf.float32)
        self._compiled = tf.function(self._step, [features, labels, rate])
        self._judge = tf.function(self._losses, [features, labels])

    def step(self, features: Floats, labels: Labels, rate: float) -> float:
        """One update on (B, D) features as they are stored; returns the loss before it."""
        return float(self._compiled(features, labels, np.float32(rate)))

    def judge(self, images: Images, tick: Callable[[], None]) -> float:
        """The mean cross-entropy of all images, whose scores are never together in memory."""
        total = 0.0
        for features, labels in images.blocks():
            total += float(self._judge(features, labels).numpy().sum(dtype=np.float64))
            tick()
        return total / len(images)

    def values(self) -> tuple[Matrix, Matrix]:
        return self._weights.numpy(), self._bias.numpy()

    def _standardised(self, features: tf.Tensor) -> tf.Tensor:
        return (tf.cast(features, tf.float32) - self._mean) * self._inverse_std

    def _losses(self, features: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
        logits = tf.matmul(self._standardised(features), self._weights) + self._bias
        return tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)

    def _step(self, features: tf.Tensor, labels: tf.Tensor, rate: tf.Tensor) -> tf.Tensor:
        features = self._standardised(features)
        logits = tf.matmul(features, self._weights) + self._bias  # (B, C)
        even = self._smoothing / self._classes
        target = tf.one_hot(labels, self._classes, 1 - self._smoothing + even, even)
        # losses (B,) and softmax - target (B, C) in one go: these passes over memory cost time too
        losses, error = tf.raw_ops.SoftmaxCrossEntropyWithLogits(features=logits, labels=target)
        weight = tf.gather(self._class_weights, labels)  # (B,)
        error *= (weight / tf.cast(tf.shape(labels)[0], tf.float32))[:, None]
        gradient = tf.matmul(features, error, transpose_a=True)  # (D, C)
        if self._decay:
            gradient += self._decay * (self._weights - self._start)
        self._speed.assign(_MOMENTUM * self._speed + tf.matmul(self._inverse, gradient))
        self._bias_speed.assign(_MOMENTUM * self._bias_speed + tf.reduce_sum(error, axis=0))
        self._weights.assign_sub(rate * self._speed)
        self._bias.assign_sub(rate * self._bias_speed)
        return tf.reduce_mean(losses * weight)
