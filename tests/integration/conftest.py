"""Servers that last a session, and a fleet for each test."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest

from orchestrator.demo import TRAINING, draw_pictures
from tests.backbones import save_slow_backbone
from tests.command import Retrain
from tests.fleet.harness import BUCKET, Fleet, Undisturbed
from tests.fleet.proxy import FaultProxy
from tests.fleet.servers import ACCESS_KEY, SECRET_KEY, CephServer, RedisServer

IMAGES_PER_LABEL = 31
SHARDS = 42  # of three images each, but for the last


@pytest.fixture(scope="session")
def ceph(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CephServer]:
    server = CephServer(tmp_path_factory.mktemp("ceph"))
    yield server
    server.stop()


@pytest.fixture(scope="session")
def bucket(ceph: CephServer, small_backbone: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Drawn pictures at s3://fleet/pictures and a backbone at s3://fleet/backbone."""
    session = boto3.Session(ACCESS_KEY, SECRET_KEY, region_name="us-east-1")
    client = session.client("s3", endpoint_url=ceph.endpoint)
    client.create_bucket(Bucket=BUCKET)
    folder = tmp_path_factory.mktemp("drawn")
    draw_pictures(folder, IMAGES_PER_LABEL, 0)
    for place, prefix in [(folder / TRAINING, "pictures"), (small_backbone, "backbone")]:
        for path in place.rglob("*"):
            if path.is_file():
                client.upload_file(str(path), BUCKET, f"{prefix}/{path.relative_to(place)}")
    return client


@pytest.fixture
def broker() -> Iterator[RedisServer]:
    server = RedisServer()
    yield server
    server.resume()
    server.kill()


@pytest.fixture
def proxy(ceph: CephServer) -> FaultProxy:
    return FaultProxy(ceph.port)


def _fleet(retrain: Retrain, broker_url: str, endpoint: str, prefix: str, folder: Path) -> Fleet:
    return Fleet(
        retrain,
        broker_url,
        endpoint,
        f"s3://{BUCKET}/pictures",
        f"s3://{BUCKET}/backbone",
        prefix,
        folder,
    )


@pytest.fixture
def fleet(
    retrain: Retrain,
    broker: RedisServer,
    proxy: FaultProxy,
    bucket: Any,
    tmp_path: Path,
    request: pytest.FixtureRequest,
) -> Iterator[Fleet]:
    """Two workers on an empty store."""
    made = _fleet(retrain, broker.url, proxy.endpoint, f"stores/{request.node.name}", tmp_path)
    made.start_worker()
    made.start_worker()
    yield made
    made.stop()


@pytest.fixture(scope="session")
def slow_backbone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The features of the small backbone, in its own time."""
    return save_slow_backbone(tmp_path_factory.mktemp("backbones") / "slow", steps=200)


@pytest.fixture
def slow_fleet(fleet: Fleet, slow_backbone: Path) -> Fleet:
    """No worker, and a backbone that takes its time."""
    fleet.stop()
    fleet.workers.clear()
    fleet.backbone = str(slow_backbone)
    return fleet


@pytest.fixture(scope="session")
def undisturbed(
    retrain: Retrain, ceph: CephServer, bucket: Any, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Undisturbed]:
    broker = RedisServer()
    folder = tmp_path_factory.mktemp("undisturbed")
    fleet = _fleet(retrain, broker.url, ceph.endpoint, "stores/undisturbed", folder)
    try:
        fleet.start_worker()
        result = fleet.start_run().result()
        assert len(fleet.objects("features/")) == SHARDS
        yield Undisturbed(fleet.features(), result, fleet.head(result["model_id"]))
    finally:
        fleet.stop()
        broker.kill()
