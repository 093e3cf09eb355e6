"""How fast photos become pixels, against TensorFlow's decoder and Pillow's full decoding.

    tests/run tests/benchmarks/test_decode.py -m benchmark -n 0 -s

To 299 x 299 px, from photos in memory. On one thread in ms an image, and on all cores in images/s:
threads for Python, a private thread pool of tf.data for TensorFlow. "ratio" is TensorFlow's own
reduction while decoding, which somebody must know to ask for. Pixels are compared where nothing is
reduced: TensorFlow chooses a faster and less accurate DCT unless it is told otherwise.
RETRAIN_BENCH_IMAGES, _LARGE_IMAGES, _REPETITIONS.
"""

import io
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.benchmarks.measure import interleaved, number, rate, ratio
from tests.benchmarks.photos import contents, evenly, jpegs
from tests.benchmarks.table import show, spread, times
from workers.contract.settings import cores
from workers.features.decode import decode, resize

pytestmark = [pytest.mark.benchmark, pytest.mark.timeout(3600)]

IMAGES = number("IMAGES", 200)
LARGE_IMAGES = number("LARGE_IMAGES", 16)
SIZE = 299
RATIOS = (2, 4, 8)

Way = Callable[[list[bytes], int], Any]
"""Decodes all of them on so many threads."""


def test_photos_of_500_x_333(flowers: Path) -> None:
    files = list(contents(evenly(jpegs(flowers), IMAGES)))
    found = _measure(files, {"TensorFlow": partial(_tensorflow, 1)})
    _show(f"{len(files)} photos of about 500 x 333 px", found)
    differences = {each: _difference(files, each) for each in ("", "INTEGER_ACCURATE")}
    for method, (absolute, signed) in differences.items():
        print(  # noqa: T201
            f"to TensorFlow's pixels, DCT {method or 'as it chooses'}: mean difference "
            f"{absolute:.3f} of 255, with its sign {signed:+.3f}"
        )


def test_photos_of_12_megapixels(large_photos: Callable[[int], Path]) -> None:
    files = list(contents(jpegs(large_photos(LARGE_IMAGES))))
    reduced = {f"TensorFlow, ratio={each}": partial(_tensorflow, each) for each in RATIOS}
    found = _measure(files, {"TensorFlow": partial(_tensorflow, 1), **reduced})
    _show(f"{len(files)} photos of 4000 x 3000 px", found)


def _measure(files: list[bytes], tensorflow: dict[str, Way]) -> dict[str, list[float]]:
    """Images/s by way and number of threads."""
    ways: dict[str, Way] = {"retrain": _retrain, **tensorflow, "Pillow": _pillow}
    cases: dict[str, Callable[[], float]] = {}
    for name, way in ways.items():
        for threads in (1, cores()):
            work = partial(way, files, threads)
            way(files[:2], threads)
            cases[f"{name}|{threads}"] = partial(rate, len(files), work)
    return interleaved(cases)


def _retrain(files: list[bytes], threads: int) -> None:
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(lambda data: decode(data, SIZE, SIZE), files))


def _pillow(files: list[bytes], threads: int) -> None:
    """All pixels decoded, then the same resize."""

    def whole(data: bytes) -> Any:
        return resize(np.asarray(Image.open(io.BytesIO(data)).convert("RGB")), SIZE, SIZE)

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(whole, files))


def _tensorflow(reduction: int, files: list[bytes], threads: int) -> None:
    from workers.tensorflow import tf

    options = tf.data.Options()
    options.threading.private_threadpool_size = threads
    options.threading.max_intra_op_parallelism = 1
    dataset = tf.data.Dataset.from_tensor_slices(files)
    pixels = dataset.map(partial(_tensorflow_pixels, reduction), num_parallel_calls=threads)
    for _ in pixels.with_options(options):
        pass


def _tensorflow_pixels(reduction: int, data: Any, dct_method: str = "") -> Any:
    from workers.tensorflow import tf

    whole = tf.io.decode_jpeg(data, channels=3, ratio=reduction, dct_method=dct_method)
    return tf.compat.v1.image.resize_bilinear(whole[tf.newaxis], (SIZE, SIZE))[0]


def _difference(files: list[bytes], dct_method: str) -> tuple[float, float]:
    """The mean difference of our pixels to TensorFlow's, absolute and signed."""
    found = []
    for data in files:
        each = decode(data, SIZE, SIZE) - _tensorflow_pixels(1, data, dct_method).numpy()
        found.append((np.abs(each).mean(), each.mean()))
    absolute, signed = np.mean(found, axis=0)
    return float(absolute), float(signed)


def _show(title: str, found: dict[str, list[float]]) -> None:
    """A ratio above 1: this project is so many times faster than the row."""

    def cells(name: str) -> list[str]:
        one, all_ = found[f"{name}|1"], found[f"{name}|{cores()}"]
        return [
            spread([1000 / each for each in one], 2),
            times(ratio(found["retrain|1"], one)),
            spread(all_),
            times(ratio(found[f"retrain|{cores()}"], all_)),
        ]

    names = dict.fromkeys(each.partition("|")[0] for each in found)
    show(
        f"{title} to {SIZE} x {SIZE} px: how many times faster this project is than each row",
        ["", "ms, one thread", "", f"images/s, {cores()} threads", ""],
        [[name, *cells(name)] for name in names],
    )
