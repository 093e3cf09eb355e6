"""The fleet without faults: what it tells, how it is steered, what it refuses."""

import csv
import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from kombu.connection import Connection

from orchestrator.engine import open_engine
from tests.command import Retrain
from tests.fleet.harness import BUCKET, Fleet, Undisturbed
from tests.fleet.servers import CephServer, RabbitServer, RedisServer, until
from tests.integration.conftest import SHARDS
from workers.contract.messages import ExtractShard
from workers.storage import open_store

pytestmark = pytest.mark.timeout(240)

POISON = Path(__file__).parent.parent / "fleet" / "poison"


def test_an_image_that_kills_its_worker_becomes_a_failed_row(fleet: Fleet, bucket: Any) -> None:
    fleet.stop()
    path = [str(POISON), *filter(None, [os.environ.get("PYTHONPATH")])]
    fleet.start_worker(PYTHONPATH=os.pathsep.join(path))
    listed = bucket.list_objects_v2(Bucket=BUCKET, Prefix="pictures/")["Contents"]
    for each in listed[::8]:
        name = each["Key"].removeprefix("pictures/")
        bucket.copy({"Bucket": BUCKET, "Key": each["Key"]}, BUCKET, f"poisoned/{name}")
    some = bucket.get_object(Bucket=BUCKET, Key=listed[1]["Key"])["Body"].read()
    bucket.put_object(Bucket=BUCKET, Key="poisoned/grid/poison.png", Body=some + b"POISON")
    fleet.source = f"s3://{BUCKET}/poisoned"
    result = fleet.start_run("--max-failed-fraction", "0.1").result()
    assert result["failures"] == {"crashed": 1}
    key = f"{fleet.prefix}/runs/{result['run_id']}/failures.csv"
    failures = bucket.get_object(Bucket=BUCKET, Key=key)["Body"].read().decode()
    rows = list(csv.DictReader(io.StringIO(failures)))
    assert [row["uri"] for row in rows] == [f"s3://{BUCKET}/poisoned/grid/poison.png"]
    features = fleet.features()
    assert len(features.uris) == len(set(features.uris)) == result["images"]["total"]
    assert features.status.count("ok") == result["images"]["total"] - 1
    assert not fleet.objects(f"runs/{result['run_id']}/suspects/")

    fleet.start_worker()  # one that the picture does no harm
    fleet.workers[0].stop()
    fleet.workers[1].stop()
    fleet.workers[2].stop()
    again = fleet.retrain("retry", result["run_id"], "--json", **fleet.environment).json
    assert again["images"]["failed"] == 0
    assert again["extracted"] == 1
    assert again["model_id"] != result["model_id"], "the model has seen one image more"


def test_status_tells_how_far_a_run_is_and_cancel_ends_it(
    slow_fleet: Fleet, undisturbed: Undisturbed
) -> None:
    # Given a run whose only worker stands still, so that it cannot end while it is looked at
    fleet = slow_fleet
    worker = fleet.start_worker()
    run = fleet.start_run()
    done = fleet.wait_for_shards(4)
    worker.signal_all(signal.SIGSTOP)
    (run_id,) = {key.partition("/runs/")[2].partition("/")[0] for key in fleet.objects("runs/")}
    told: list[dict[str, Any]] = []

    def tells_of_shards() -> bool:
        status = fleet.retrain("status", run_id, "--json", **fleet.environment).json
        told.append(status.get("progress", {}))
        shards = told[-1].get("shards", {})  # at first of the one task before the shards
        return bool(shards.get("total") == SHARDS and shards["done"] > 0)

    # Then its status tells how far it is
    until(tells_of_shards, 30, "progress")
    assert told[-1]["images_per_s"] > 0
    assert len(told[-1]["workers"]) == 1

    # When it is cancelled, then it ends, and says so
    assert fleet.retrain("cancel", run_id, **fleet.environment).code == 0
    stdout, stderr = run.process.communicate(timeout=30)
    assert run.process.returncode == 1
    assert json.loads(stdout)["error"]["type"] == "RunCancelled"
    assert "Traceback" not in stderr
    assert fleet.retrain("status", run_id, "--json", **fleet.environment).json["stage"] == "cancelled"

    # And the same command takes it up again
    worker.signal_all(signal.SIGCONT)
    undisturbed.assert_same(fleet, fleet.start_run().result())
    assert done.items() <= fleet.objects("features/").items()
    after = fleet.retrain("status", run_id, "--json", **fleet.environment).json
    assert after["stage"] == "done"


def test_a_changed_setting_is_a_new_run_that_reuses_features(
    fleet: Fleet, undisturbed: Undisturbed
) -> None:
    first = fleet.start_run().result()
    second = fleet.start_run("--label-smoothing", "0.1").result()
    assert first["run_id"] == undisturbed.result["run_id"] != second["run_id"]
    assert (second["extracted"], second["reused"]) == (0, first["images"]["total"])


def test_a_prediction_has_one_row_for_every_image(fleet: Fleet, bucket: Any) -> None:
    images = fleet.start_run().result()["images"]["total"]
    command = ("predict", fleet.source, "--shard-size", "3", "--json")
    result = fleet.retrain(*command, **fleet.environment).json
    rows = []
    for key in fleet.objects(f"predictions/{result['job']}/"):
        data = bucket.get_object(Bucket=BUCKET, Key=key)["Body"].read()
        rows += pq.read_table(io.BytesIO(data)).to_pylist()
    assert len(rows) == len({row["uri"] for row in rows}) == images
    assert all(row["label"] and row["score"] for row in rows)


def test_every_worker_takes_a_task_as_soon_as_it_has_started(
    broker: RedisServer, tmp_path: Path
) -> None:
    """A process that is forked at the wrong moment hangs in its first task; hence several times."""
    for attempt in range(4):
        store = open_store(str(tmp_path / str(attempt)))
        engine = open_engine(broker.url, store)
        for number in range(12):
            engine.send(ExtractShard(store.url, "run", "plan", f"{number}", "x", None, "print"))
        command = [sys.executable, "-m", "tests.fleet.idle_worker", broker.url]
        workers = [subprocess.Popen(command, start_new_session=True) for _ in range(3)]
        try:
            until(lambda: len(list(store.objects("features/"))) == 12, 15, "twelve results")  # noqa: B023
        finally:
            for worker in workers:
                os.killpg(worker.pid, signal.SIGKILL)
                worker.wait()


def test_a_worker_leaves_alone_what_it_is_not_allowed(fleet: Fleet) -> None:
    fleet.stop()
    fleet.start_worker("--allow", f"s3://{BUCKET}/elsewhere", "--allow", f"s3://{BUCKET}/backbone")
    finished = fleet.retrain(
        "run", fleet.source, "--backbone", fleet.backbone, "--json", **fleet.environment
    )
    assert finished.code == 5
    assert finished.json["error"]["type"] == "NotAllowed"
    assert "elsewhere" in finished.error


def test_messages_that_are_no_json_are_refused(fleet: Fleet, broker: RedisServer) -> None:
    connect: Any = Connection
    with connect(broker.url) as connection:
        queue = connection.SimpleQueue("extract", serializer="pickle")
        queue.put({"anything": object})
        queue.close()
    fleet.start_run().result()
    assert fleet.workers[0].process.poll() is None


def test_doctor_examines_the_fleet(fleet: Fleet, broker: RedisServer) -> None:
    until(lambda: len(broker.client.keys("retrain:worker:*")) == 2, 30, "the workers")
    good = fleet.retrain("doctor", "--backbone", fleet.backbone, **fleet.environment)
    assert good.code == 0, good.stdout
    lines = good.stdout.splitlines()
    assert all(line.startswith("ok ") for line in lines)
    assert [word for word in ("store", "broker", "workers", "backbone") if word in good.stdout]
    environment = fleet.environment | {"RETRAIN_STORE": "s3://no-such-bucket/x"}
    bad = fleet.retrain("doctor", **environment)
    assert bad.code == 5
    assert "FAIL store" in bad.stdout
    assert "no such bucket" in bad.stdout
    nobody = fleet.retrain(
        "doctor", **fleet.environment | {"RETRAIN_BROKER_URL": "redis://127.0.0.1:9/0"}
    )
    assert nobody.code == 6
    assert "FAIL broker redis://127.0.0.1:9/0" in nobody.stdout


def test_no_password_is_written_anywhere(fleet: Fleet, broker: RedisServer, bucket: Any) -> None:
    password = "open-sesame-4711"
    fleet.stop()
    broker.client.config_set("requirepass", password)
    broker.client.connection_pool.connection_kwargs["password"] = password
    fleet.broker_url = broker.url.replace("//", f"//:{password}@")
    seen: list[bytes] = []
    worker = fleet.start_worker()
    run = fleet.start_run()
    while run.process.poll() is None:
        for key in broker.client.keys("*"):
            value: Any = broker.client.dump(key)
            seen.append(value or b"")
        time.sleep(0.5)
    stdout, stderr = run.process.communicate()
    assert run.process.returncode == 0, stderr
    seen += [stdout.encode(), stderr.encode(), worker.log.read_bytes()]
    for key in fleet.objects(""):
        seen.append(bucket.get_object(Bucket=BUCKET, Key=key)["Body"].read())
    for secret in (password.encode(), b"testtest"):
        assert not [text for text in seen if secret in text]


@pytest.fixture
def rabbit(tmp_path: Path) -> Iterator[RabbitServer]:
    folder = tmp_path / "rabbit"
    folder.mkdir()
    server = RabbitServer(folder)
    yield server
    server.stop()


def test_rabbitmq_carries_the_messages_too(
    retrain: Retrain,
    ceph: CephServer,
    rabbit: RabbitServer,
    undisturbed: Undisturbed,
    tmp_path: Path,
) -> None:
    source, backbone = f"s3://{BUCKET}/pictures", f"s3://{BUCKET}/backbone"
    fleet = Fleet(retrain, rabbit.url, ceph.endpoint, source, backbone, "stores/rabbit", tmp_path)
    fleet.start_worker()
    fleet.start_worker()
    try:
        run = fleet.start_run()
        fleet.wait_for_shards(6)
        fleet.workers[0].signal_all(signal.SIGKILL)
        undisturbed.assert_same(fleet, run.result())
    finally:
        fleet.stop()
