"""Source, store and backbone in buckets."""

import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import pyarrow.parquet as pq
import pytest
from moto.server import ThreadedMotoServer

from tests.command import Finished, Retrain
from tests.conftest import Pictures

Command = Callable[..., Finished]

STORE = "s3://results/shapes"
BACKBONE = "s3://photos/backbones/small"


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    server = ThreadedMotoServer("127.0.0.1", 0)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture(scope="module")
def s3(endpoint: str, pictures: Pictures, small_backbone: Path) -> Any:
    """A client; the bucket `photos` holds pictures and a backbone, `results` is empty."""
    session = boto3.Session("key", "secret", region_name="us-east-1")
    client = session.client("s3", endpoint_url=endpoint)
    for bucket in ("photos", "results"):
        client.create_bucket(Bucket=bucket)
    for folder, prefix in [
        (pictures.folder, "drawn"),
        (pictures.unseen, "unseen"),
        (small_backbone, "backbones/small"),
    ]:
        for path in folder.rglob("*"):
            if path.is_file():
                client.upload_file(str(path), "photos", f"{prefix}/{path.relative_to(folder)}")
    return client


@pytest.fixture(scope="module")
def command(retrain: Retrain, endpoint: str, s3: Any) -> Command:
    """`retrain` against this server."""
    environment = {
        "AWS_ENDPOINT_URL_S3": endpoint,
        "AWS_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
    }

    def run(*arguments: object) -> Finished:
        return retrain(*arguments, "--store", STORE, **environment)

    return run


@pytest.fixture(scope="module")
def first(command: Command) -> Finished:
    return command("run", "s3://photos/drawn", "--backbone", BACKBONE, "--json")


def _keys_in(s3: Any, bucket: str, prefix: str) -> list[str]:
    found = s3.list_objects_v2(Bucket=bucket, Prefix=prefix)
    return [each["Key"] for each in found.get("Contents", [])]


def test_a_run_reads_and_writes_buckets(first: Finished, s3: Any) -> None:
    assert first.code == 0, first.stderr
    result = first.json
    assert result["images"] == {"total": 48, "ok": 48, "failed": 0}
    assert result["extracted"] == 48
    assert result["model_uri"] == f"{STORE}/models/{result['model_id']}"
    names = _keys_in(s3, "results", f"shapes/models/{result['model_id']}/")
    assert {name.rpartition("/")[2] for name in names} >= {"model.json", "output_graph.pb"}


def test_a_second_run_extracts_nothing(first: Finished, command: Command) -> None:
    again = command("run", "s3://photos/drawn/", "--backbone", BACKBONE, "--json")
    assert again.code == 0, again.stderr
    assert (again.json["extracted"], again.json["reused"]) == (0, 48)
    assert again.json["model_id"] == first.json["model_id"]


def test_predict_writes_a_row_for_each_object(first: Finished, command: Command, s3: Any) -> None:
    finished = command("predict", "s3://photos/unseen", "--json")
    assert finished.code == 0, finished.stderr
    prefix = finished.json["predictions_uri"].removeprefix("s3://results/")
    (key,) = _keys_in(s3, "results", prefix)
    rows = pq.read_table(
        io.BytesIO(s3.get_object(Bucket="results", Key=key)["Body"].read())
    ).to_pylist()
    objects = _keys_in(s3, "photos", "unseen/")
    assert sorted(row["uri"] for row in rows) == [f"s3://photos/{key}" for key in objects]
    assert {row["status"] for row in rows} == {"ok"}


def test_label_takes_objects(first: Finished, command: Command, s3: Any) -> None:
    known = f"s3://photos/{_keys_in(s3, 'photos', 'drawn/disc/')[0]}"
    finished = command("label", known, "s3://photos/drawn/none.jpg", "--top", 2)
    assert finished.code == 3
    lines = finished.stdout.splitlines()
    assert [line for line in lines if line.endswith(":")] == [
        f"{known}:",
        "s3://photos/drawn/none.jpg:",
    ]
    assert len(lines) == 4
    assert "none.jpg: missing" in finished.error


def test_status_lists_the_runs_of_a_bucket(first: Finished, command: Command) -> None:
    runs = {run["run_id"]: run for run in command("status", "--json").json["runs"]}
    assert runs[first.json["run_id"]]["stage"] == "done"


@pytest.mark.parametrize(
    ("source", "code", "word"),
    [
        ("s3://nowhere/x", 5, "no such bucket"),
        ("s3://photos/none", 3, "no images"),
        ("s3://", 3, "bucket"),
    ],
)
def test_what_is_not_in_a_bucket_is_one_clear_line(
    source: str, code: int, word: str, command: Command
) -> None:
    finished = command("run", source, "--backbone", BACKBONE, "--json")
    assert finished.code == code
    assert word in finished.error
    assert finished.json["error"]["exit_code"] == code
