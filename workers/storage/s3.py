"""A bucket prefix as a store, over boto3.

Endpoint, region and credentials come from AWS's own sources (AWS_ENDPOINT_URL_S3, profiles,
instance roles): this module reads no setting of its own.
"""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from workers.contract.errors import ObjectMissing, RetrainError, StoreDenied, StoreUnavailable
from workers.storage.base import Blob, ObjectInfo

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

MAX_CONNECTIONS = 64

_MISSING = {"NoSuchKey", "404", "NotFound"}
_PASSING = {
    "SlowDown",
    "503",
    "500",
    "InternalError",
    "ServiceUnavailable",
    "RequestTimeout",
    "RequestTimeTooSkewed",
    "Throttling",
    "ThrottlingException",
    "RequestLimitExceeded",
}
_REMEDIES = {
    "NoSuchBucket": "there is no such bucket",
    "AccessDenied": "access denied: check the credentials and the bucket's policy",
    "403": "access denied: check the credentials and the bucket's policy",
    "InvalidAccessKeyId": "unknown access key: check AWS_ACCESS_KEY_ID or the profile",
    "SignatureDoesNotMatch": "wrong secret key: check AWS_SECRET_ACCESS_KEY or the profile",
    "ExpiredToken": "the session token has expired: log in again",
    "PermanentRedirect": "the bucket is in another region: set AWS_REGION",
}

_clients: dict[int, "S3Client"] = {}
_clients_lock = threading.Lock()


def client() -> "S3Client":
    """The process's client: made once after a fork, since clients are thread-safe, not fork-safe."""
    with _clients_lock:
        made = _clients.get(os.getpid())
        if made is None:
            _clients.clear()
            made = _clients[os.getpid()] = _make_client()
        return made


def _make_client() -> "S3Client":
    import boto3
    from botocore.config import Config

    with _translated("s3://"):
        return boto3.session.Session().client(
            "s3",
            config=Config(
                retries={"mode": "standard", "total_max_attempts": 6},
                max_pool_connections=MAX_CONNECTIONS,
                connect_timeout=5,
                read_timeout=60,
                tcp_keepalive=True,
                # the default trailer checksums are answered with 411 by S3-compatible servers
                request_checksum_calculation="when_required",
                response_checksum_validation="when_required",
            ),
        )


class S3Store:
    """Objects below `s3://bucket/prefix`; one object is one PUT, which S3 makes atomic."""

    def __init__(self, bucket: str, prefix: str) -> None:
        self.bucket = bucket
        self.prefix = f"{prefix.strip('/')}/" if prefix.strip("/") else ""
        self.url = f"s3://{bucket}/{self.prefix}".rstrip("/")

    def uri(self, key: str) -> str:
        return f"s3://{self.bucket}/{self.prefix}{key}"

    def objects(self, prefix: str = "") -> Iterator[ObjectInfo]:
        pages = client().get_paginator("list_objects_v2")
        with _translated(self.uri(prefix)):
            for page in pages.paginate(Bucket=self.bucket, Prefix=self.prefix + prefix):
                for found in page.get("Contents", []):
                    if not found["Key"].endswith("/"):
                        key = found["Key"][len(self.prefix) :]
                        yield ObjectInfo(key, found["Size"], found["ETag"].strip('"'))

    def folders(self) -> list[str]:
        pages = client().get_paginator("list_objects_v2")
        with _translated(self.url):
            return sorted(
                found["Prefix"][len(self.prefix) :].rstrip("/")
                for page in pages.paginate(Bucket=self.bucket, Prefix=self.prefix, Delimiter="/")
                for found in page.get("CommonPrefixes", [])
            )

    def fetch(self, key: str) -> Blob:
        return self._get(key)

    def read(self, key: str) -> bytes:
        return self._get(key).data

    def read_range(self, key: str, start: int, length: int) -> bytes:
        return self._get(key, Range=f"bytes={start}-{start + length - 1}").data

    def info(self, key: str) -> ObjectInfo:
        with _translated(self.uri(key)):
            head = client().head_object(Bucket=self.bucket, Key=self.prefix + key)
        return ObjectInfo(key, head["ContentLength"], head["ETag"].strip('"'))

    def write(self, key: str, data: bytes) -> None:
        with _translated(self.uri(key)):
            client().put_object(Bucket=self.bucket, Key=self.prefix + key, Body=data)

    def exists(self, key: str) -> bool:
        try:
            self.info(key)
        except ObjectMissing:
            return False
        return True

    def delete(self, key: str) -> None:
        with _translated(self.uri(key)):
            client().delete_object(Bucket=self.bucket, Key=self.prefix + key)

    def _get(self, key: str, **more: Any) -> Blob:
        with _translated(self.uri(key)):
            answer = client().get_object(Bucket=self.bucket, Key=self.prefix + key, **more)
            return Blob(answer["Body"].read(), answer["ETag"].strip('"'))


@contextmanager
def _translated(name: str) -> Iterator[None]:
    """botocore's errors as ours, by one table."""
    from botocore import exceptions as vendor

    try:
        yield
    except vendor.ClientError as error:
        raise _from_answer(name, error) from error
    except (vendor.NoCredentialsError, vendor.PartialCredentialsError) as error:
        raise StoreDenied(
            f"{name}: no AWS credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, "
            "or AWS_PROFILE"
        ) from error
    except vendor.HTTPClientError as error:
        raise StoreUnavailable(
            f"{name}: no answer ({type(error).__name__}): check AWS_ENDPOINT_URL_S3 and the network"
        ) from error
    except (vendor.BotoCoreError, ValueError) as error:
        raise StoreDenied(f"{name}: {error}") from error


def _from_answer(name: str, error: Any) -> RetrainError:
    code = str(error.response.get("Error", {}).get("Code", ""))
    if code in _MISSING:
        return ObjectMissing(f"there is no object {name}")
    if code in _PASSING:
        return StoreUnavailable(f"{name}: the store answers {code}")
    return StoreDenied(f"{name}: {_REMEDIES.get(code, str(error))}")
