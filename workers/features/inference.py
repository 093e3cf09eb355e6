"""A backbone made ready to compute at the speed of the hardware: engine, precision, batch size.

Whatever is chosen must give the features that float32 gives, so it changes no fingerprint; that is
checked on a few fixed images before the first shard.
"""

import gc
import logging
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import numpy as np

from workers.contract.errors import EngineUnavailable, PrecisionLost, RetrainError
from workers.contract.messages import AUTO
from workers.features.backbone import Backbone
from workers.features.engines import Compute, Engine, Floats, OutOfMemory, Pixels, engine, precision_of

log = logging.getLogger("retrain.worker")

MIN_COSINE = 0.999
COMPILE_FROM_IMAGES = 512
"""A process that was asked for fewer images in all computes as it loaded: compiling takes longer."""
_PLAIN_BATCH_SIZE = 32
_CPU_BATCH_SIZES = (8, 16, 32, 64)
_GPU_BATCH_SIZES = (32, 64, 128, 256)
_WORTH = 1.05
"""How much faster a larger batch must be to be taken."""
_TIMED = 2
"""Batches that are timed, of which the faster counts: other work on the machine comes and goes."""
_PARITY_IMAGES = 8


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
    made: list[Inference] = []
    refusals: list[RetrainError] = []
    for name in _engines(wanted.engine):
        try:
            made.append(_checked(backbone, frozen, engine(name), wanted))
        except (EngineUnavailable, PrecisionLost) as error:
            log.warning("%s", error)
            refusals.append(error)
    if not made:
        raise next((each for each in refusals if isinstance(each, PrecisionLost)), refusals[0])
    fastest = max(made, key=_images_per_s) if len(made) > 1 else made[0]
    if wanted.batch_size is None:
        _find_batch_size(fastest)
    return fastest


def _engines(wanted: str) -> list[str]:
    """What is tried, each where it may be the fastest."""
    if wanted != AUTO:
        return [wanted]
    # XLA compiles for minutes, so it is used only where somebody found that it pays
    has_choice = find_spec("openvino") is not None and not has_gpu()
    return ["tensorflow", "openvino"] if has_choice else ["tensorflow"]


def _checked(backbone: Backbone, frozen: Any, engine: Engine, wanted: Wanted) -> Inference:
    precision = precision_of(engine, None if wanted.precision == AUTO else wanted.precision)
    compute = engine.compile(frozen, precision)
    batch_size = wanted.batch_size or _PARITY_IMAGES
    made = Inference(backbone, compute, engine.name, precision, batch_size)
    check_parity(backbone, made)
    return made


def check_parity(backbone: Backbone, made: Inference) -> float:
    """The lowest cosine between a feature vector of `made` and the backbone's own in float32, over
    a few fixed images. Raises PrecisionLost below MIN_COSINE."""
    images = np.stack(list(_parity_images(made.height, made.width)))
    expected, found = plain(backbone).features(images), made.features(images)
    cosine = float(_cosines(expected, found).min())
    if not cosine >= MIN_COSINE:
        raise PrecisionLost(
            f"{backbone.name} gives other features in {made.precision} with {made.engine} than in "
            f"float32 (cosine {cosine:.4f}, not {MIN_COSINE}): use --precision float32"
        )
    return cosine


def _cosines(expected: Floats, found: Floats) -> Floats:
    """float32 (N,); two zero vectors agree."""
    lengths = np.linalg.norm(expected, axis=1) * np.linalg.norm(found, axis=1)
    both_zero = ~expected.any(axis=1) & ~found.any(axis=1)
    with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
        cosines: Floats = np.where(both_zero, 1, (expected * found).sum(axis=1) / lengths)
    return cosines


def _parity_images(height: int, width: int) -> Iterator[Pixels]:
    """Fixed pictures like photos: waves of several widths, most of them smooth, with a little grain.

    Smooth is where reduced precision goes wrong: an error in a weight is the same all over it.
    """
    rng = np.random.default_rng(0)
    down, across = np.mgrid[0:height, 0:width].astype(np.float32)
    for number in range(_PARITY_IMAGES):
        turn = rng.uniform(0, np.pi, 3)
        length_px = max(height, width) / 2.0**number
        wave = [np.sin((down * np.cos(a) + across * np.sin(a)) * 2 * np.pi / length_px) for a in turn]
        level = rng.uniform(64, 192, 3) + rng.normal(0, 2, (height, width, 3))
        yield (level + 60 * np.stack(wave, axis=-1)).clip(0, 255).astype(np.uint8)


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
    size = made.batch_size
    images = np.resize(
        np.stack(list(_parity_images(made.height, made.width))), (size, made.height, made.width, 3)
    )
    made.features(images)  # the first of a size sets up
    seconds = []
    for _ in range(_TIMED):
        began = time.perf_counter()
        made.features(images)
        seconds.append(time.perf_counter() - began)
    return size / min(seconds)


def has_gpu() -> bool:
    from workers.features.engines.tensorflow import has_gpu

    return has_gpu()
