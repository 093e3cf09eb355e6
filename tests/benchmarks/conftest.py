"""What the benchmarks work on."""

from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from tests.benchmarks.measure import names
from tests.benchmarks.photos import enlarge, evenly, jpegs, repeat

INCEPTION = "keras:InceptionV3?weights=none"


@pytest.fixture(scope="session", params=names("BACKBONES", "inception,mobilenet"))
def backbone(request: pytest.FixtureRequest) -> str:
    """Inception v3, whose random weights cost what the real ones cost; MobileNet v1 as it is; or
    what RETRAIN_BENCH_BACKBONES names."""
    if request.param == "inception":
        return INCEPTION
    if request.param == "mobilenet":
        return str(request.getfixturevalue("mobilenet"))
    return str(request.param)


@pytest.fixture(scope="session")
def photos(flowers: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], Path]:
    """A folder of so many photos of about 500 x 333 px, by label."""

    @cache
    def make(images: int) -> Path:
        return repeat(jpegs(flowers), images, tmp_path_factory.mktemp(f"photos{images}-"))

    return make


@pytest.fixture(scope="session")
def large_photos(flowers: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], Path]:
    """A folder of so many different photos of 4000 x 3000 px, by label."""

    @cache
    def make(images: int) -> Path:
        return enlarge(evenly(jpegs(flowers), images), tmp_path_factory.mktemp(f"large{images}-"))

    return make
