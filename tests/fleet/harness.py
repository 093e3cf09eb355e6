"""A fleet in a test: workers and orchestrators as processes, and what they left in the store."""

import io
import json
import os
import signal
import subprocess
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import boto3
import numpy as np
import numpy.typing as npt
import psutil
import pyarrow as pa
import pyarrow.parquet as pq

from tests.command import Retrain
from tests.fleet.servers import ACCESS_KEY, SECRET_KEY, until

BUCKET = "fleet"


@dataclass
class Worker:
    """A worker's main process and the one that works."""

    process: subprocess.Popen[bytes]
    log: Path

    @property
    def child(self) -> psutil.Process:
        return psutil.Process(self.process.pid).children()[-1]

    def signal_all(self, number: int) -> None:
        os.killpg(self.process.pid, number)

    def stop(self) -> None:
        with suppress(ProcessLookupError):
            self.signal_all(signal.SIGCONT)
            self.signal_all(signal.SIGKILL)
        self.process.wait()


@dataclass
class Run:
    """`retrain run` under way."""

    process: "subprocess.Popen[str]"

    def result(self, timeout_s: float = 200) -> dict[str, Any]:
        stdout, stderr = self.process.communicate(timeout=timeout_s)
        assert self.process.returncode == 0, stderr
        result: dict[str, Any] = json.loads(stdout)
        return result


@dataclass
class Fleet:
    """One broker, one store prefix, any number of workers."""

    retrain: Retrain
    broker_url: str
    endpoint: str
    source: str
    backbone: str
    prefix: str
    folder: Path
    workers: list[Worker] = field(default_factory=list)

    @property
    def store(self) -> str:
        return f"s3://{BUCKET}/{self.prefix}"

    @property
    def environment(self) -> dict[str, str]:
        return {
            "AWS_ENDPOINT_URL_S3": self.endpoint,
            "AWS_REGION": "us-east-1",
            "AWS_ACCESS_KEY_ID": ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
            "RETRAIN_BROKER_URL": self.broker_url,
            "RETRAIN_STORE": self.store,
        }

    def start_worker(
        self, *arguments: str, wrapper: tuple[str, ...] = (), **environment: str
    ) -> Worker:
        log = self.folder / f"worker-{len(self.workers)}.log"
        command = [*wrapper, *self.retrain.command("worker", *arguments)]
        # one image at a time, so that a run of small pictures lasts long enough to be disturbed
        slow = {"RETRAIN_DECODE_THREADS": "1"}
        with log.open("wb") as out:
            process = subprocess.Popen(
                command,
                env={**self.retrain.environment, **self.environment, **slow, **environment},
                stdout=out,
                stderr=out,
                start_new_session=True,
            )
        self.workers.append(Worker(process, log))
        return self.workers[-1]

    def start_run(self, *arguments: str, **environment: str) -> Run:
        process = self.retrain.start(
            "run", self.source, "--backbone", self.backbone, "--shard-size", "3", "--json",
            *arguments, **{**self.environment, **environment},
        )  # fmt: skip
        return Run(process)

    def client(self) -> Any:
        session = boto3.Session(ACCESS_KEY, SECRET_KEY, region_name="us-east-1")
        return session.client("s3", endpoint_url=self.endpoint)

    def objects(self, below: str) -> dict[str, Any]:
        """Key to last modification, of the store."""
        pages = self.client().get_paginator("list_objects_v2")
        found = pages.paginate(Bucket=BUCKET, Prefix=f"{self.prefix}/{below}")
        return {
            each["Key"]: each["LastModified"] for page in found for each in page.get("Contents", [])
        }

    def wait_for_shards(self, count: int, timeout_s: float = 90) -> dict[str, Any]:
        """Returns the feature shards that are there."""
        until(lambda: len(self.objects("features/")) >= count, timeout_s, f"{count} shards")
        return self.objects("features/")

    def features(self) -> "Features":
        """Every row of every feature shard, by address."""
        client = self.client()
        tables = [
            pq.read_table(io.BytesIO(client.get_object(Bucket=BUCKET, Key=key)["Body"].read()))
            for key in self.objects("features/")
        ]
        return Features.of(tables)

    def head(self, model_id: str) -> Mapping[str, npt.NDArray[np.float32]]:
        key = f"{self.prefix}/models/{model_id}/head.npz"
        data = self.client().get_object(Bucket=BUCKET, Key=key)["Body"].read()
        return dict(np.load(io.BytesIO(data)))

    def stop(self) -> None:
        for worker in self.workers:
            worker.stop()


@dataclass(frozen=True)
class Features:
    uris: list[str]
    status: list[str]
    matrix: npt.NDArray[np.float32]

    @classmethod
    def of(cls, shards: list[pa.Table]) -> "Features":
        rows = [row for shard in shards for row in shard.to_pylist()]
        rows.sort(key=lambda row: str(row["uri"]))
        zeros = [0.0] * shards[0].column("feature").type.list_size
        return cls(
            [row["uri"] for row in rows],
            [row["status"] for row in rows],
            np.array([row["feature"] or zeros for row in rows], np.float32),
        )


@dataclass(frozen=True)
class Undisturbed:
    """What a run gave that nothing disturbed."""

    features: Features
    result: dict[str, Any]
    head: Mapping[str, npt.NDArray[np.float32]]

    def assert_same(self, fleet: Fleet, result: dict[str, Any]) -> None:
        """Not a row lost, not one doubled, and the same model."""
        features = fleet.features()
        assert features.uris == self.features.uris
        assert features.status == self.features.status
        np.testing.assert_allclose(features.matrix, self.features.matrix, rtol=1e-2, atol=1e-3)
        for name in ("images", "validation", "test"):
            assert result[name] == self.result[name], name
        for name, values in fleet.head(result["model_id"]).items():
            np.testing.assert_allclose(values, self.head[name], rtol=0.05, atol=0.05)


def assert_untouched(before: Mapping[str, Any], fleet: Fleet) -> None:
    """What was finished before a fault was not computed again."""
    now = fleet.objects("features/")
    assert {key: now.get(key) for key in before} == dict(before)


def sleep_while(seconds: float, run: Run) -> None:
    """Let a fault last, as long as the run has not ended of it."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        assert run.process.poll() is None, run.process.communicate()[1]
        time.sleep(0.2)
