"""What fetching a photo from a bucket costs: the images' way (obstore) against boto3.

    tests/run tests/benchmarks/test_fetch.py -m benchmark -n 0 -s

From a Ceph on this machine, which takes its share of the cores: the CPU that this process spends on a
photo is the figure, since Python's threads spend boto3's part of it one at a time.
RETRAIN_BENCH_IMAGES, _REPETITIONS.
"""

import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest

from tests.benchmarks.measure import Samples, interleaved, number, rate, ratio
from tests.benchmarks.photos import contents, evenly, jpegs
from tests.benchmarks.table import show, spread, times
from tests.fleet.servers import ACCESS_KEY, SECRET_KEY, CephServer
from workers.storage import open_store
from workers.storage.s3 import client

pytestmark = [pytest.mark.benchmark, pytest.mark.timeout(1800)]

IMAGES = number("IMAGES", 500)
THREADS = (1, 8, 32)
URL = "s3://bench"


@pytest.fixture
def keys(flowers: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Photos in a bucket that this process's environment leads to."""
    ceph = CephServer(tmp_path / "ceph")
    try:
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", ACCESS_KEY)
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
        monkeypatch.setenv("AWS_REGION", "us-east-1")
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", ceph.endpoint)
        client().create_bucket(Bucket="bench")
        store, photos = open_store(URL), list(contents(evenly(jpegs(flowers), IMAGES)))
        named = {f"{at:06}.jpg": data for at, data in enumerate(photos)}
        for key, data in named.items():
            store.write(key, data)
        yield list(named)
    finally:
        ceph.stop()


def test_fetching(keys: list[str]) -> None:
    store, cpu_ms = open_store(URL), defaultdict[str, list[float]](list)
    ways: dict[str, Callable[[str], object]] = {"retrain": store.fetch, "boto3": store.read}

    def measured(name: str, way: Callable[[str], object], threads: int) -> float:
        began_s = time.process_time()
        with ThreadPoolExecutor(threads) as pool:
            fetched = rate(len(keys), lambda: list(pool.map(way, keys)))
        cpu_ms[name].append(1000 * (time.process_time() - began_s) / len(keys))
        return fetched

    cases = {
        (name := f"{title}, {threads} threads"): partial(measured, name, way, threads)
        for threads in THREADS
        for title, way in ways.items()
    }
    _show(len(keys), interleaved(cases), cpu_ms)


def _show(photos: int, found: Samples, cpu_ms: Samples) -> None:
    """A ratio above 1: this project is so many times better than the row."""

    def row(name: str) -> list[str]:
        ours = f"retrain, {name.partition(', ')[2]}"
        return [
            *(name, spread(found[name], 0), times(ratio(found[ours], found[name]))),
            *(spread(cpu_ms[name], 2), times(ratio(cpu_ms[name], cpu_ms[ours]))),
        ]

    show(
        f"{photos} photos from Ceph",
        ["", "photos/s", "", "ms of CPU for each", ""],
        [row(name) for name in found],
    )
