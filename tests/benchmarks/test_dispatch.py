"""How fast the orchestrator hands out shards: 100,000 that take no time, through a real Redis.

    tests/run tests/benchmarks/test_dispatch.py -m benchmark -n 0 -s

Two worker processes do nothing but write an empty result to a folder, as the ceiling of what any
fleet can ask of one orchestrator. At 1,024 images a shard these are 100 million images.
"""

import os
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from orchestrator.dispatch import Dispatch
from orchestrator.engine import open_engine
from orchestrator.records import RunRecord
from orchestrator.status import read_status
from tests.fleet.servers import RedisServer
from workers.contract.messages import ExtractShard, Message
from workers.storage import open_store

pytestmark = [pytest.mark.benchmark, pytest.mark.timeout(1800)]

SHARDS = int(os.environ.get("RETRAIN_BENCH_SHARDS", "100000"))


def _messages(store: str) -> Iterator[Message]:
    for number in range(SHARDS):
        yield ExtractShard(store, "bench", "plan", f"{number:020d}", "none", None, "print")


def test_a_hundred_thousand_shards(tmp_path: Path) -> None:
    redis = RedisServer()
    workers = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.fleet.idle_worker", redis.url], start_new_session=True
        )
        for _ in range(2)
    ]
    store = open_store(str(tmp_path))
    record = RunRecord(store, "bench", {"command": "run", "source": ""})
    record.stage("extract", plan="plan", fingerprint="print")
    peak = {"rss": 0, "redis": 0}
    latencies_s: list[float] = []
    over = threading.Event()

    def watch() -> None:
        while not over.wait(5):
            began = time.perf_counter()
            read_status(store, "bench")
            latencies_s.append(time.perf_counter() - began)
            peak["rss"] = max(peak["rss"], psutil.Process().memory_info().rss)
            memory = redis.client.info("memory")["used_memory"]
            peak["redis"] = max(peak["redis"], int(memory))

    watcher = threading.Thread(target=watch)
    watcher.start()
    before = psutil.Process().memory_info().rss
    began = time.perf_counter()
    messages = _messages(store.url)
    try:
        Dispatch(open_engine(redis.url, store), store, messages, SHARDS, show=record.progress).run()
    finally:
        took_s = time.perf_counter() - began
        over.set()
        watcher.join()
        for worker in workers:
            os.killpg(worker.pid, 9)
        redis.kill()
    print(  # noqa: T201
        f"\n{SHARDS:,} shards in {took_s:.0f} s: {SHARDS / took_s:.0f} tasks/s\n"
        f"orchestrator: {before / 2**20:.0f} MiB before, {peak['rss'] / 2**20:.0f} MiB at most\n"
        f"Redis: {peak['redis'] / 2**20:.1f} MiB at most\n"
        f"retrain status: median {1000 * statistics.median(latencies_s):.1f} ms"
    )
