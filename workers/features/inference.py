"""A backbone made ready to compute at the speed of the hardware: engine, precision, batch size.

Whatever is chosen must give the features that float32 gives, so it changes no fingerprint; that is
checked on a few fixed images before the first shard.
"""

import gc
import logging
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from typing import Any

import numpy as np

from workers.contract.errors import EngineUnavailable, PrecisionLost, RetrainError
from workers.contract.messages import AUTO
from workers.contract.settings import cores
from workers.features import Floats, Pixels
from workers.features.backbone import Backbone
from workers.features.engines import (
    Compute,
    Engine,
    OutOfMemory,
    engine,
    least_seconds,
    precision_of,
)
from workers.features.parity import MIN_COSINE, fixed_images, lowest_cosine

log = logging.getLogger("retrain.worker")

COMPILE_FROM_IMAGES = 512
"""A process that was asked for fewer images in all computes as it loaded: compiling takes longer."""
_PLAIN_BATCH_SIZE = 32
_CPU_BATCH_SIZES = (8, 16, 32, 64)
_GPU_BATCH_SIZES = (32, 64, 128, 256)
_WORTH = 1.05
"""How much faster a larger batch must be to be taken."""
_TIMED = 2
"""Batches that are timed, of which the faster counts."""


@dataclass(frozen=True)
class Wanted:
    """What a command asks for; auto and None: the fastest."""

    engine: str = AUTO
    precision: str = AUTO
    batch_size: int | None = None

    @property
    def plain_will_do(self) -> bool:
        """Whether the backbone as it was loaded gives what is asked for."""
        return self.engine == AUTO and self.precision in (AUTO, "float32")


class Inference:
    """A backbone that computes, in batches of at most `batch_size` images.

    A batch that takes too much memory is cut in half, and so is `batch_size` for good.
    """

    def __init__(
        self, backbone: Backbone, compute: Compute, engine: str, precision: str, batch_size: int
    ) -> None:
        self.backbone = backbone
        self.width, self.height = backbone.width, backbone.height
        self.feature_size = backbone.feature_size
        self.engine, self.precision, self.batch_size = engine, precision, batch_size
        self.device = "gpu" if has_gpu() else "cpu"
        self._compute = compute

    def features(self, images: Pixels) -> Floats:
        """uint8 (B, height, width, 3) to float32 (B, D), from any thread."""
        try:
            return self._compute(images)
        except OutOfMemory as error:
            if len(images) == 1:
                raise EngineUnavailable(f"one image takes too much memory: {error}") from error
        half = len(images) // 2
        if self.batch_size > half:
            self.batch_size = half
            log.warning("a batch of %d takes too much memory: %d from now on", len(images), half)
        return np.concatenate([self.features(images[:half]), self.features(images[half:])])


# by what was wanted, and whether it is compiled; of one backbone at a time
_ready: dict[tuple[Wanted, bool], Inference] = {}
_refused: dict[tuple[str, Wanted], PrecisionLost] = {}
_asked_images: Counter[str] = Counter()


def prepare(backbone: Backbone, wanted: Wanted, images: int) -> Inference:
    """The inference for so many images more, kept in the process from one task to the next.

    Raises EngineUnavailable where this worker has not what is wanted, and PrecisionLost where it
    gives other features than float32.
    """
    _asked_images[backbone.fingerprint] += images
    is_few = _asked_images[backbone.fingerprint] < COMPILE_FROM_IMAGES
    is_plain = wanted.plain_will_do and is_few
    for compiled in (True, not is_plain):
        kept = _ready.get((wanted, compiled))
        if kept is not None and kept.backbone is backbone:
            return kept
    made = plain(backbone, wanted.batch_size) if is_plain else _compiled_once(backbone, wanted)
    for key in [key for key, each in _ready.items() if each.backbone is not backbone]:
        del _ready[key]
    _ready[wanted, not is_plain] = made
    return made


def at_once(backbone: Backbone) -> Inference:
    """An inference that costs no time to make: for a few images that somebody waits for."""
    kept = (each for each in _ready.values() if each.backbone is backbone)
    return next(kept, None) or plain(backbone)


def plain(backbone: Backbone, batch_size: int | None = None) -> Inference:
    """The backbone as it was loaded: ready at once, and in float32."""
    from workers.features.engines.tensorflow import computing

    compute = computing(backbone.function)
    return Inference(backbone, compute, "tensorflow", "float32", batch_size or _PLAIN_BATCH_SIZE)


def _compiled_once(backbone: Backbone, wanted: Wanted) -> Inference:
    """What is refused stays refused: compiling again would give the same."""
    if error := _refused.get((backbone.fingerprint, wanted)):
        raise PrecisionLost(str(error))
    began = time.monotonic()
    try:
        made = _fastest(backbone, wanted)
    except PrecisionLost as error:
        _refused[backbone.fingerprint, wanted] = error
        raise
    gc.collect()  # the graphs on the way here are cycles that hold the weights several times
    log.info(
        "%s: %s in %s, batches of %d, ready in %.1f s",
        *(backbone.name, made.engine, made.precision, made.batch_size, time.monotonic() - began),
    )
    return made


def _fastest(backbone: Backbone, wanted: Wanted) -> Inference:
    """Of the engines that may be the fastest and give the right features."""
    from workers.features.engines.tensorflow import freeze

    frozen = freeze(backbone.function)
    expected = plain(backbone).features(fixed_images(backbone.height, backbone.width))
    made: list[Inference] = []
    refusals: list[RetrainError] = []
    for name in _engines(wanted.engine):
        try:
            each = _compiled(backbone, frozen, engine(name), wanted)
            check_parity(each, expected)
            each.features(_pictures(each))  # what fails at this size is no choice
            made.append(each)
        except (EngineUnavailable, PrecisionLost) as error:
            log.warning("%s", error)
            refusals.append(error)
    if not made:
        raise next((each for each in refusals if isinstance(each, PrecisionLost)), refusals[0])
    fastest = made[0] if len(made) == 1 else _faster(made)
    if wanted.batch_size is None:
        _find_batch_size(fastest)
    return fastest


def _faster(made: Sequence[Inference]) -> Inference:
    pictures = _pictures(made[0])
    works = {each.engine: partial(each.features, pictures) for each in made}
    taken = least_seconds(works, _TIMED)
    return min(made, key=lambda each: taken[each.engine])


def _engines(wanted: str) -> list[str]:
    """What is tried, each where it may be the fastest."""
    if wanted != AUTO:
        return [wanted]
    # XLA compiles for minutes, so it is used only where somebody found that it pays
    has_choice = find_spec("openvino") is not None and not has_gpu()
    return ["tensorflow", "openvino"] if has_choice else ["tensorflow"]


def _compiled(backbone: Backbone, frozen: Any, engine: Engine, wanted: Wanted) -> Inference:
    precision = precision_of(engine, None if wanted.precision == AUTO else wanted.precision)
    compute = engine.compile(frozen, precision)
    batch_size = wanted.batch_size or _comparing_batch_size()
    return Inference(backbone, compute, engine.name, precision, batch_size)


def _comparing_batch_size() -> int:
    """In which engines are compared: OpenVINO needs several images for each core."""
    return min(_CPU_BATCH_SIZES[-1], max(_CPU_BATCH_SIZES[0], 4 * cores()))


def check_parity(made: Inference, expected: Floats) -> float:
    """The lowest cosine between a feature vector of the fixed images and what was expected, the
    backbone's own in float32. Raises PrecisionLost below MIN_COSINE."""
    cosine = lowest_cosine(expected, made.features(fixed_images(made.height, made.width)))
    if not cosine >= MIN_COSINE:
        raise PrecisionLost(
            f"{made.backbone.name} gives other features in {made.precision} with {made.engine} than "
            f"in float32 (cosine {cosine:.4f}, not {MIN_COSINE}): use --precision float32"
        )
    return cosine


def _find_batch_size(made: Inference) -> None:
    """Set the smallest batch size that is about as fast as any."""
    best_size, best = made.batch_size, 0.0
    for size in _GPU_BATCH_SIZES if made.device == "gpu" else _CPU_BATCH_SIZES:
        made.batch_size = size
        speed = _images_per_s(made)
        if made.batch_size < size:  # it takes too much memory, and was halved
            return
        if speed < _WORTH * best:
            break
        best_size, best = size, speed
    made.batch_size = best_size


def _images_per_s(made: Inference) -> float:
    """In batches of its size."""
    pictures = _pictures(made)
    (least_s,) = least_seconds({"": partial(made.features, pictures)}, _TIMED).values()
    return len(pictures) / least_s


def _pictures(made: Inference) -> Pixels:
    """A batch of its size."""
    fixed = fixed_images(made.height, made.width)
    return np.resize(fixed, (made.batch_size, *fixed.shape[1:]))


def has_gpu() -> bool:
    from workers.features.engines.tensorflow import has_gpu

    return has_gpu()
