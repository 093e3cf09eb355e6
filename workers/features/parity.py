"""Whether two ways to compute a backbone give the same features: fixed images, and a measure."""

from collections.abc import Iterator
from functools import lru_cache

import numpy as np

from workers.features import Floats, Pixels

MIN_COSINE = 0.999
_IMAGES = 8


@lru_cache(maxsize=1)
def fixed_images(height: int, width: int) -> Pixels:
    """uint8 (8, height, width, 3), not to be written to."""
    images = np.stack(list(_pictures(height, width)))
    images.flags.writeable = False
    return images


def _pictures(height: int, width: int) -> Iterator[Pixels]:
    """Pictures like photos: waves of several widths, most of them smooth, with a little grain.

    Smooth is where reduced precision goes wrong: an error in a weight is the same all over it.
    """
    rng = np.random.default_rng(0)
    down, across = np.mgrid[0:height, 0:width].astype(np.float32)
    for number in range(_IMAGES):
        turn = rng.uniform(0, np.pi, 3)
        length_px = max(height, width) / 2.0**number
        wave = [np.sin((down * np.cos(a) + across * np.sin(a)) * 2 * np.pi / length_px) for a in turn]
        level = rng.uniform(64, 192, 3) + rng.normal(0, 2, (height, width, 3))
        yield (level + 60 * np.stack(wave, axis=-1)).clip(0, 255).astype(np.uint8)


def lowest_cosine(expected: Floats, found: Floats) -> float:
    """Of the rows of two float32 (N, D); two zero vectors agree. NaN where one of them is none."""
    lengths = np.linalg.norm(expected, axis=1) * np.linalg.norm(found, axis=1)
    both_zero = ~expected.any(axis=1) & ~found.any(axis=1)
    with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
        cosines = np.where(both_zero, 1, (expected * found).sum(axis=1) / lengths)
    return float(cosines.min())
