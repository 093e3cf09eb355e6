"""Memory of a `retrain run` by the number of its shards, and with large images.

    tests/run tests/benchmarks/test_memory.py -m benchmark -n 0 -s

The command is its own worker here; its resident memory is sampled every 50 ms, children included,
and the most is told for each stage. Ratios are to one shard. RETRAIN_BENCH_SHARD_IMAGES,
_MEMORY_SHARDS, _LARGE_IMAGES, _MEMORY_BACKBONE (a handle; the photos' MobileNet v1 by default).
"""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.benchmarks.measure import names, number
from tests.benchmarks.photos import jpegs, repeat
from tests.benchmarks.runs import Peaks, watched
from tests.benchmarks.table import show, times
from tests.command import Retrain

pytestmark = [pytest.mark.benchmark, pytest.mark.timeout(7200)]

SHARD_IMAGES = number("SHARD_IMAGES", 100)
SHARDS = [int(each) for each in names("MEMORY_SHARDS", "1,10,100")]
LARGE_IMAGES = number("LARGE_IMAGES", 64)
# a single shard alone would be too few images to compile for, and larger batches take more memory
OPTIONS = ("--shard-size", SHARD_IMAGES, "--engine", "tensorflow", "--batch-size", 16)
DIFFERENT_LARGE = 16


def test_peak_memory(
    retrain: Retrain,
    photos: Callable[[int], Path],
    large_photos: Callable[[int], Path],
    mobilenet: Path,
    tmp_path: Path,
) -> None:
    backbone = os.environ.get("RETRAIN_BENCH_MEMORY_BACKBONE", str(mobilenet))
    large = repeat(
        jpegs(large_photos(min(DIFFERENT_LARGE, LARGE_IMAGES))), LARGE_IMAGES, tmp_path / "large"
    )
    sources = {f"{each} x {SHARD_IMAGES} photos": photos(each * SHARD_IMAGES) for each in SHARDS}
    sources[f"{LARGE_IMAGES} of 12 megapixels"] = large
    peaks = {
        name: watched(retrain, source, tmp_path / name, backbone, *OPTIONS)
        for name, source in sources.items()
    }
    _show(backbone, peaks)


def _show(backbone: str, peaks: dict[str, Peaks]) -> None:
    first = next(iter(peaks.values()))

    def cell(bytes_: int, of: int) -> str:
        return f"{bytes_ / 2**20:,.0f} ({times(bytes_ / of)})"

    show(
        f"{backbone}: peak memory in MiB, and its ratio to one shard",
        ["", "listing and loading", "extracting", "training and exporting"],
        [
            [
                name,
                cell(each.before, first.before),
                cell(each.extraction, first.extraction),
                cell(each.training, first.training),
            ]
            for name, each in peaks.items()
        ],
    )
