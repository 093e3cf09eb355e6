"""How fast a head is trained on features that do not fit in memory, and how much memory it takes.

    tests/run tests/benchmarks/test_training.py -m benchmark -n 0 -s

Draws 1,000,000 features of 2,048 numbers in 1,000 classes (9 GB on the disk while it runs), then
does in a process of its own what the train task does. The products it is held against are measured
by that process, after each epoch.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.benchmarks.training_shards import (
    FINGERPRINT,
    PLAN,
    RUN,
    SHARD_IMAGES,
    names,
    write_shards,
)
from tests.fleet.proxy import FaultProxy
from tests.fleet.servers import ACCESS_KEY, SECRET_KEY, CephServer
from workers.storage import open_store
from workers.storage.s3 import client
from workers.tasks.train import find_shards

pytestmark = [pytest.mark.benchmark, pytest.mark.timeout(7200)]

IMAGES = int(os.environ.get("RETRAIN_BENCH_IMAGES", "1000000"))
SIZE = int(os.environ.get("RETRAIN_BENCH_FEATURE_SIZE", "2048"))
CLASSES = int(os.environ.get("RETRAIN_BENCH_CLASSES", "1000"))
EPOCHS = int(os.environ.get("RETRAIN_BENCH_EPOCHS", "3"))


def test_a_million_images(tmp_path: Path) -> None:
    store = tmp_path / "store"
    began = time.perf_counter()
    shards = write_shards(open_store(str(store)), IMAGES, SIZE, CLASSES)
    drawn_s = time.perf_counter() - began
    arguments = [str(each) for each in (store, shards, CLASSES, EPOCHS)]
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.benchmarks.training_process", *arguments],
        stdout=subprocess.PIPE,
        env=os.environ | {"RETRAIN_CACHE_DIR": str(tmp_path / "cache")},
    )
    peak = {"RssAnon": 0, "VmRSS": 0}
    try:
        while process.poll() is None:
            for name, kilobytes in _memory(process.pid):
                peak[name] = max(peak[name], kilobytes)
            time.sleep(0.1)
    finally:
        process.kill()
    assert process.stdout is not None
    assert process.returncode == 0
    found = json.loads(process.stdout.read())
    times, epochs, products = found["times"], found["epochs"], found["products"]
    ratios = [epoch / alone for epoch, alone in zip(epochs, products, strict=True)]
    both = [alone + more for alone, more in zip(products, found["preconditioner"], strict=True)]
    ratios_of_both = [epoch / alone for epoch, alone in zip(epochs, both, strict=True)]
    losses = ", ".join(f"{loss:.4f}" for loss in found["losses"])
    print(  # noqa: T201
        f"\n{found['images']:,} x {SIZE:,} float16, {CLASSES:,} classes, {shards:,} shards, drawn in "
        f"{drawn_s:.0f} s; {found['training']:,} to train on, batches of {found['batch']:,}\n"
        f"local copy            {times['local copy']:7.1f} s\n"
        f"standardisation       {times['standardisation']:7.1f} s\n"
        f"closed-form start     {times['closed_form']:7.1f} s\n"
        f"learning rate search  {times['choose_learning_rate']:7.1f} s\n"
        f"epochs                {_row(epochs)} s\n"
        f"products with features{_row(products)} s\n"
        f"the preconditioner's  {_row(found['preconditioner'])} s\n"
        f"epoch / products      {_row(ratios)}; with the preconditioner's {_row(ratios_of_both)}\n"
        f"judging and test rows {times['judging']:7.1f} s\n"
        f"images/s              {found['training'] * len(epochs) / sum(epochs):7,.0f}\n"
        f"peak RssAnon {peak['RssAnon'] / 2**20:.2f} GiB, peak RSS {peak['VmRSS'] / 2**20:.2f} GiB\n"
        f"validation losses {losses}; error {found['validation_error']:.4f}; {found['chosen']}"
    )


def _row(numbers: list[float]) -> str:
    return "".join(f"{each:9.2f}" for each in numbers)


def test_reading_a_bucket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Shards through a network of 30 ms, one by one and as training reads them."""
    ceph = CephServer(tmp_path / "ceph")
    try:
        proxy = FaultProxy(ceph.port)
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", ACCESS_KEY)
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
        monkeypatch.setenv("AWS_REGION", "us-east-1")
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", proxy.endpoint)
        client().create_bucket(Bucket="bench")
        store = open_store("s3://bench")
        count = write_shards(store, 64 * SHARD_IMAGES, SIZE, CLASSES)
        proxy.delay_s = 0.03
        shards = find_shards(store, RUN, PLAN, count, FINGERPRINT)
        began = time.perf_counter()
        for each in shards.keys:
            shards.read(each)
        serial_s = time.perf_counter() - began
        began = time.perf_counter()
        shards.load(names(CLASSES), 0, tmp_path / "cache", lambda done: None)
        concurrent_s = time.perf_counter() - began
    finally:
        ceph.stop()
    print(  # noqa: T201
        f"\n{count} shards of {SHARD_IMAGES:,} x {SIZE:,} float16 from Ceph, 30 ms away: one by one "
        f"{serial_s:.1f} s; the local copy of them, {shards.threads()} at a time, "
        f"{concurrent_s:.1f} s: {serial_s / concurrent_s:.1f} times as fast"
    )


def _memory(process: int) -> Iterator[tuple[str, int]]:
    """(name, KiB) of what the kernel counts; nothing where the process has just ended."""
    for line in Path(f"/proc/{process}/status").read_text().splitlines():
        name, _, rest = line.partition(":")
        if name in ("RssAnon", "VmRSS"):
            yield name, int(rest.split()[0])
