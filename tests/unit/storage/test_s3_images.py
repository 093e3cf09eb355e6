"""workers.storage.s3_images: images come the fast way, or as boto3 gives them."""

import subprocess
import sys
import threading
from collections.abc import Iterator
from email.message import Message
from uuid import uuid4

import pytest

from tests.unit.storage.conftest import BUCKET
from tests.unit.storage.endpoint import Answer, Endpoint, said
from tests.unit.storage.test_conformance import KEYS, NOT_LISTENING
from workers import storage
from workers.contract.errors import ObjectMissing
from workers.storage import s3
from workers.storage.s3 import S3Store


def test_images_come_without_boto3(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    store = S3Store(bucket, uuid4().hex)
    for key in KEYS:
        store.write(key, key.encode())
    versions = {key: store.info(key).version for key in KEYS}
    monkeypatch.setattr(S3Store, "_get", None)
    assert {key: store.fetch(key) for key in KEYS} == {
        key: storage.Blob(key.encode(), versions[key] or "") for key in KEYS
    }


@pytest.mark.parametrize("key", ["/key", "key/", "a//b", "a/./b", "a/../b"])
def test_an_image_of_an_unusual_name_is_not_taken_for_another(bucket: str, key: str) -> None:
    s3.client().put_object(Bucket=bucket, Key=key, Body=b"this")
    for other in ("key", "a/b", "b"):
        s3.client().put_object(Bucket=bucket, Key=other, Body=b"another")
    assert S3Store(bucket, "").fetch(key).data == b"this"


class PickyEndpoint(Endpoint):
    """Gives boto3 what it asks for, and others nothing unless it is kind: as a bucket in another
    region does."""

    def __init__(self) -> None:
        super().__init__(Answer(200, b"pixels"))
        self.asked: list[bool] = []
        """For each request, whether boto3 made it."""
        self.is_kind = False

    def reply(self, headers: Message) -> Answer:
        is_boto3 = "Boto3" in headers["User-Agent"]
        self.asked.append(is_boto3)
        return self.answer if is_boto3 or self.is_kind else Answer(403, said("AccessDenied"))


@pytest.fixture
def picky(new_client: pytest.MonkeyPatch) -> Iterator[PickyEndpoint]:
    with PickyEndpoint() as endpoint:
        threading.Thread(target=endpoint.serve_forever, args=(0.01,)).start()
        new_client.setenv("AWS_ENDPOINT_URL_S3", f"http://127.0.0.1:{endpoint.server_port}")
        yield endpoint
        endpoint.shutdown()


def test_a_bucket_that_gives_images_to_boto3_alone_is_left_to_it(
    picky: PickyEndpoint, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(20):
        assert S3Store(BUCKET, "").fetch("key") == storage.Blob(b"pixels", "version")
    assert (picky.asked.count(True), picky.asked.count(False)) == (20, 16)
    (told,) = [each.getMessage() for each in caplog.records if "read by boto3" in each.getMessage()]
    assert f"s3://{BUCKET}" in told
    assert "\n" not in told


def test_a_bucket_that_was_away_is_read_the_fast_way_again(picky: PickyEndpoint) -> None:
    store = S3Store(BUCKET, "")
    for is_kind in [*[False] * 15, True, *[False] * 15]:
        picky.is_kind = is_kind
        assert store.fetch("key").data == b"pixels"
    assert picky.asked.count(False) == 31


def test_what_neither_way_gives_says_nothing_against_the_fast_one(
    new_client: pytest.MonkeyPatch, bucket: str
) -> None:
    store = S3Store(bucket, uuid4().hex)
    store.write("there", b"pixels")
    for _ in range(20):
        with pytest.raises(ObjectMissing):
            store.fetch("gone")
    new_client.setattr(S3Store, "_get", None)
    assert store.fetch("there").data == b"pixels"


def test_the_environment_leads_both_ways_to_one_place(
    new_client: pytest.MonkeyPatch, bucket: str
) -> None:
    """obstore has variables of its own, and reads those that boto3 was told to pass over."""
    store = S3Store(bucket, uuid4().hex)
    store.write("key", b"pixels")
    endpoint = s3.client().meta.endpoint_url
    new_client.setenv("AWS_ENDPOINT_URL_S3", endpoint)
    s3.client()
    new_client.setenv("AWS_ENDPOINT_URL_S3", NOT_LISTENING)
    new_client.setenv("AWS_SKIP_SIGNATURE", "true")
    new_client.setattr(S3Store, "_get", None)
    assert store.fetch("key").data == b"pixels"


_FORKED = """
import os, sys
from workers.storage import open_store
store = open_store(sys.argv[1])
store.write("key", b"pixels")
assert store.fetch("key").data == b"pixels"
child = os.fork()
if not child:
    os._exit(0 if open_store(sys.argv[1]).fetch("key").data == b"pixels" else 1)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def test_a_forked_process_still_reads(bucket: str) -> None:
    command = [sys.executable, "-c", _FORKED, f"s3://{bucket}/{uuid4().hex}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, done.stderr
