"""The fleet on one machine."""

import re
from typing import Any

import boto3
import pytest
from moto import mock_aws

from tests.unit.deploy.files import DEPLOY, IMAGES, TARGETS, load, unknown_settings
from workers.contract.messages import QUEUES

COMPOSE = DEPLOY / "compose.yaml"
SERVICES: dict[str, dict[str, Any]] = load(COMPOSE)["services"]
OURS = [name for name, service in SERVICES.items() if "build" in service]


def test_all_parts_are_there() -> None:
    assert set(SERVICES) == {"redis", "s3", "buckets", "worker", "orchestrator", "flower"}
    assert SERVICES["orchestrator"]["profiles"], "only docker compose run starts it"
    assert SERVICES["flower"]["profiles"]
    command = SERVICES["redis"]["command"]
    assert command[command.index("--maxmemory-policy") + 1] == "noeviction"


@pytest.mark.parametrize("name", OURS)
def test_our_services_are_images_of_the_dockerfile(name: str) -> None:
    service = SERVICES[name]

    assert service["image"] in IMAGES
    assert service["build"]["target"] in TARGETS
    assert service["image"].startswith(f"retrain-{service['build']['target']}:")
    assert (COMPOSE.parent / service["build"]["context"] / service["build"]["dockerfile"]).is_file()
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]


@pytest.mark.parametrize("name", SERVICES)
def test_others_are_pinned_and_open_to_this_machine_alone(name: str) -> None:
    service = SERVICES[name]

    assert re.search(r":v?\d+\.\d+", service["image"])
    assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))


@pytest.mark.parametrize("name", OURS)
def test_every_setting_is_known(name: str) -> None:
    assert not unknown_settings(SERVICES[name]["environment"])


def test_the_worker_serves_all_queues_and_may_reach_the_store() -> None:
    environment = SERVICES["worker"]["environment"]

    assert tuple(environment["RETRAIN_QUEUES"].split(",")) == QUEUES
    allowed = tuple(environment["RETRAIN_ALLOW"].split(","))
    assert environment["RETRAIN_STORE"].startswith(allowed)
    assert set(re.findall(r"s3://(\w+)", COMPOSE.read_text())) == {"photos", "features"}


def test_the_worker_has_time_to_drain_and_a_heartbeat() -> None:
    worker = SERVICES["worker"]

    grace_s = int(worker["stop_grace_period"].removesuffix("s"))
    assert grace_s > int(worker["environment"]["RETRAIN_DRAIN_S"])
    assert '"$$RETRAIN_HEARTBEAT_FILE"' in worker["healthcheck"]["test"][1]
    assert worker["environment"]["RETRAIN_HEARTBEAT_FILE"].startswith("/tmp/")


def test_every_secret_has_an_example() -> None:
    lines = (DEPLOY / ".env.example").read_text().splitlines()

    given = {line.partition("=")[0] for line in lines if line and not line.startswith("#")}
    assert set(re.findall(r"\$\{(\w+)", COMPOSE.read_text())) == given


def test_services_wait_for_services_that_are_there() -> None:
    for service in SERVICES.values():
        for other, condition in service.get("depends_on", {}).items():
            assert "healthcheck" in SERVICES[other] or condition["condition"].endswith(
                "completed_successfully"
            )


@mock_aws
def test_buckets_are_made_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_DEFAULT_REGION", SERVICES["buckets"]["environment"]["AWS_REGION"])
    monkeypatch.delenv("AWS_ENDPOINT_URL_S3", raising=False)
    (script,) = SERVICES["buckets"]["command"]

    for _ in range(2):
        exec(script, {})

    buckets = boto3.client("s3").list_buckets()["Buckets"]
    assert {bucket["Name"] for bucket in buckets} == {"photos", "features"}
