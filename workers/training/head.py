"""Training the head: a softmax layer on standardised features. Imports TensorFlow.

Two stages, both chosen by the cross-entropy on the validation images: a closed-form start
(start.py), and its refinement by gradient descent (refine.py). All of it reads the features block by
block: memory grows with the classes and the size of a feature, not with the number of images.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from workers.contract.errors import BadSource
from workers.contract.training import TrainingSettings
from workers.training.dataset import Dataset
from workers.training.images import Images
from workers.training.refine import Refined, Refinement
from workers.training.start import Matrix, Scaling, closed_form, float32, standardisation

_LEARNING_RATES = (0.3, 0.1, 0.03)
# The search trains on all images for all epochs where these are few ...
_SEARCH_IMAGES = 16_384
# ... and sees so many at most where they are not: for more parameters than images, a small part
# would show overfitting at any rate.
_LARGE_SEARCH_IMAGES, _LARGE_SEARCH_VISITS = 131_072, 262_144

# The preconditioner costs 2 D D C operations a step, the products with B features 4 B D C: four
# times them for 256 features of D = 2,048, and a quarter of them where B = 2 D.
_LEAST_BATCH, _LEAST_STEPS_IN_EPOCH = 256, 64


@dataclass(frozen=True)
class Head:
    """logits = features @ weights + bias, for features as the backbone gives them.

    weights: float32 (D, C); bias: float32 (C,).
    """

    weights: Matrix
    bias: Matrix
    chosen: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, float]] = field(default_factory=list)


def train(
    data: Dataset,
    classes: Sequence[str],
    settings: TrainingSettings,
    progress: Callable[[int], None] = lambda epoch: None,
) -> Head:
    """The head that does best on the validation images. Deterministic for one seed.

    progress: called after every block of images with the number of epochs done, 0 until the
    learning rate is found; what it raises ends the training.

    Without validation images, a tenth of the training images judges instead. Raises BadSource
    where a class has no training image.
    """
    training, judging = _roles(data, settings.seed)
    counts = training.counts(len(classes))
    if missing := [classes[int(i)] for i in np.flatnonzero(counts == 0)]:
        raise BadSource(f"no readable training image of {', '.join(missing)}: add some")

    def tick() -> None:
        progress(0)

    scaling, weights = standardisation(training, tick), _class_weights(counts, settings)
    start = closed_form(training, judging, scaling, weights, tick)
    batch_size = settings.batch_size or automatic_batch_size(len(training), len(scaling.mean))
    refinement = Refinement(start, scaling, weights, settings, batch_size)
    rate = settings.learning_rate or choose_learning_rate(refinement, training, judging, tick)
    refined = refinement.run(training, judging, settings.epochs, rate, progress)
    chosen = {
        "shrinkage": start.shrinkage,
        "learning_rate": rate,
        "batch_size": batch_size,
        "settings": asdict(settings),
    }
    return _folded(scaling, refined, chosen)


def automatic_batch_size(images: int, size: int) -> int:
    """images: to train on; size: numbers in a feature."""
    return max(_LEAST_BATCH, min(images // _LEAST_STEPS_IN_EPOCH, 2 * size))


def choose_learning_rate(
    refinement: Refinement, training: Images, judging: Images, tick: Callable[[], None]
) -> float:
    """The rate that reaches the lowest validation loss, tried on a part of the images."""
    settings = refinement.settings
    epochs = settings.epochs
    if len(training) > _SEARCH_IMAGES:
        training = training.some(_LARGE_SEARCH_IMAGES, settings.seed)
        epochs = min(epochs, max(1, _LARGE_SEARCH_VISITS // len(training)))
    judging = judging.some(_SEARCH_IMAGES, settings.seed)

    def reached(rate: float) -> float:
        history = refinement.run(training, judging, epochs, rate, lambda epoch: tick()).history
        # where no rate betters the start, the one that spoils it least
        losses = [step["validation_loss"] for step in history[1:]]
        return min(filter(math.isfinite, losses), default=math.inf)

    return min(_LEARNING_RATES, key=reached)


def _roles(data: Dataset, seed: int) -> tuple[Images, Images]:
    """The images to learn from, and those to judge on."""
    training, judging = data.split("train"), data.split("validation")
    if not len(judging):
        training, judging = _hold_out(training, data.labels, seed)
    return Images(data, training), Images(data, judging)


def _hold_out(
    training: npt.NDArray[np.int64], labels: npt.NDArray[np.int32], seed: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
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


def _class_weights(counts: npt.NDArray[np.int64], settings: TrainingSettings) -> Matrix:
    if settings.class_weights == "balanced":
        return float32(counts.sum() / (len(counts) * counts))
    return np.ones(len(counts), np.float32)


def _folded(scaling: Scaling, refined: Refined, chosen: dict[str, Any]) -> Head:
    """The head for features that are not standardised: the scaling moves into the weights."""
    folded = scaling.inverse_std.astype(np.float64)[:, None] * refined.weights
    shift = refined.bias - scaling.mean.astype(np.float64) @ folded
    return Head(float32(folded), float32(shift), chosen, refined.history)
