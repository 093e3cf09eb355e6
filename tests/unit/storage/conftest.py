"""A bucket of moto's, and clients that are made anew."""

import os
from collections.abc import Iterator

import pytest
from moto.server import ThreadedMotoServer

from workers.storage import s3

BUCKET = "conformance"


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    """A bucket that this process's environment leads to, with no other credentials in reach."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL"):
            patch.delenv(name, raising=False)
        patch.setenv("AWS_ENDPOINT_URL_S3", f"http://{host}:{port}")
        patch.setenv("AWS_ACCESS_KEY_ID", "testing")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        patch.setenv("AWS_REGION", "us-east-1")
        patch.setenv("AWS_CONFIG_FILE", os.devnull)
        patch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        s3._clients.clear()
        s3.client().create_bucket(Bucket=BUCKET)
        yield BUCKET
    s3._clients.clear()
    server.stop()


@pytest.fixture
def new_client(bucket: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """For tests that change the environment: clients are made anew, and try again without delay."""
    with monkeypatch.context() as patch:
        backoff = "botocore.retries.standard.ExponentialBackoff.delay_amount"
        patch.setattr(backoff, lambda self, context: 0.0)
        s3._clients.clear()
        yield patch
    s3._clients.clear()
