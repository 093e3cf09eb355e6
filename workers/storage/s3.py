"""A bucket prefix as a store, over boto3.

Endpoint, region and credentials come from AWS's own sources (AWS_ENDPOINT_URL_S3, AWS_REGION,
profiles, instance roles): this module reads no setting of its own.
"""

import logging
import os
import random
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from workers.contract.errors import ObjectMissing, RetrainError, StoreDenied, StoreUnavailable
from workers.contract.settings import aws_region
from workers.storage.base import Blob, ObjectInfo
from workers.storage.s3_images import images_of

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

log = logging.getLogger("retrain.storage")

T = TypeVar("T")

MAX_CONNECTIONS = 64
_LISTING_THREADS = 16
_LONGEST_WAIT_S = 20.0

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
            region_name=aws_region(),
            config=Config(
                retries={"mode": "standard", "total_max_attempts": 3},
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
    """Objects below `s3://bucket/prefix`; one object is one PUT, which S3 makes atomic.

    Where the store does not answer or asks to slow down, a call waits, longer each time, and tries
    again until `patience_s` is over.
    """

    def __init__(self, bucket: str, prefix: str, patience_s: float = 0) -> None:
        self.bucket = bucket
        self.prefix = f"{prefix.strip('/')}/" if prefix.strip("/") else ""
        self.url = f"s3://{bucket}/{self.prefix}".rstrip("/")
        self._patience_s = patience_s

    def uri(self, key: str) -> str:
        return f"s3://{self.bucket}/{self.prefix}{key}"

    def objects(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """Folders below the prefix are listed at the same time: a listing is serial within one."""
        folders = []
        for page in self._pages(prefix, Delimiter="/"):
            yield from self._infos(page)
            folders += [found["Prefix"] for found in page.get("CommonPrefixes", [])]
        with ThreadPoolExecutor(_LISTING_THREADS, "list") as pool:
            for infos in pool.map(self._whole_folder, folders):
                yield from infos

    def folders(self, prefix: str = "") -> list[str]:
        return sorted(
            found["Prefix"][len(self.prefix + prefix) :].rstrip("/")
            for page in self._pages(prefix, Delimiter="/")
            for found in page.get("CommonPrefixes", [])
        )

    def fetch(self, key: str) -> Blob:
        return images_of(client(), self.bucket).get(self.prefix + key, lambda: self._get(key))

    def read(self, key: str) -> bytes:
        return self._get(key).data

    def read_range(self, key: str, start: int, length: int) -> bytes:
        if length <= 0:
            return b""
        return self._get(key, Range=f"bytes={start}-{start + length - 1}").data

    def info(self, key: str) -> ObjectInfo:
        head = self._call(key, lambda s3: s3.head_object(Bucket=self.bucket, Key=self.prefix + key))
        return ObjectInfo(key, head["ContentLength"], head["ETag"].strip('"'))

    def write(self, key: str, data: bytes) -> None:
        self._call(key, lambda s3: s3.put_object(Bucket=self.bucket, Key=self.prefix + key, Body=data))

    def exists(self, key: str) -> bool:
        try:
            self.info(key)
        except ObjectMissing:
            return False
        return True

    def delete(self, key: str) -> None:
        self._call(key, lambda s3: s3.delete_object(Bucket=self.bucket, Key=self.prefix + key))

    def _get(self, key: str, **more: Any) -> Blob:
        def get(s3: "S3Client") -> Blob:
            answer = s3.get_object(Bucket=self.bucket, Key=self.prefix + key, **more)
            return Blob(answer["Body"].read(), answer["ETag"].strip('"'))

        return self._call(key, get)

    def _whole_folder(self, full_prefix: str) -> list[ObjectInfo]:
        pages = self._pages(full_prefix[len(self.prefix) :])
        return [info for page in pages for info in self._infos(page)]

    def _infos(self, page: Any) -> Iterator[ObjectInfo]:
        for found in page.get("Contents", []):
            if not found["Key"].endswith("/"):
                key = found["Key"][len(self.prefix) :]
                yield ObjectInfo(key, found["Size"], found["ETag"].strip('"'))

    def _pages(self, prefix: str, **more: Any) -> Iterator[Any]:
        """Every page of a listing; each is asked for again on its own."""
        while True:
            page = self._call(
                prefix,
                lambda s3: s3.list_objects_v2(Bucket=self.bucket, Prefix=self.prefix + prefix, **more),
            )
            yield page
            if not page.get("IsTruncated"):
                return
            more["ContinuationToken"] = page["NextContinuationToken"]

    def _call(self, key: str, work: "Callable[[S3Client], T]") -> T:
        name, deadline_s, wait_s = self.uri(key), time.monotonic() + self._patience_s, 0.5
        while True:
            try:
                with _translated(name):
                    return work(client())
            except StoreUnavailable as error:
                if time.monotonic() + wait_s > deadline_s:
                    raise
                log.warning("%s; again in about %.0f s", error, wait_s)
            time.sleep(wait_s * random.uniform(0.5, 1.5))
            wait_s = min(2 * wait_s, _LONGEST_WAIT_S)


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
    except (vendor.HTTPClientError, vendor.ConnectionError, vendor.IncompleteReadError) as error:
        raise StoreUnavailable(
            f"{name}: no answer ({type(error).__name__}): check AWS_ENDPOINT_URL_S3 and the network"
        ) from error
    except (vendor.BotoCoreError, ValueError) as error:
        raise StoreDenied(f"{name}: {error}") from error


def _from_answer(name: str, error: Any) -> RetrainError:
    code = str(error.response.get("Error", {}).get("Code", ""))
    status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    if code in _MISSING:
        return ObjectMissing(f"there is no object {name}")
    if code in _PASSING or status == 429 or status >= 500:
        return StoreUnavailable(f"{name}: the store answers {code}")
    return StoreDenied(f"{name}: {_REMEDIES.get(code, str(error))}")
