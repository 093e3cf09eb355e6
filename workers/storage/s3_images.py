"""Fetching many small objects from a bucket: obstore does it in Rust, beside Python's lock.

For a photo of 100 KB, boto3 takes 2 to 3 ms of CPU, nearly all of which one thread of a process can
spend at a time; this takes 0.5 to 0.9 ms (tests/benchmarks/test_fetch.py). What does not come this way
is left to boto3, which waits, tries again, and says why.
"""

import logging
import os
import threading
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from workers.storage.base import Blob

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from obstore.store import ClientConfig, S3Store

log = logging.getLogger("retrain.storage")

_TRIES = 16
"""Objects in a row that boto3 gives and this does not, after which a bucket is left to boto3."""
# obstore asks for credentials anew five minutes before this is over: a token that is about to expire
# must not be kept for longer than botocore would
_KEEP_CREDENTIALS = timedelta(minutes=6)


class Images:
    """One bucket's objects, reached as a client of boto3 does: the same endpoint and credentials."""

    def __init__(self, client: "S3Client", bucket: str) -> None:
        self._bucket = bucket
        self._store = _opened(client, bucket)
        self._behind = 0

    def get(self, key: str, otherwise: Callable[[], Blob]) -> Blob:
        """The object, from any thread; where it does not come this way, what boto3 gives or raises."""
        # obstore takes slashes at the ends away, and finds another object
        if self._store is None or self._behind >= _TRIES or key != key.strip("/"):
            return otherwise()
        try:
            found = self._store.get(key)
            blob = Blob(bytes(found.bytes()), (found.meta["e_tag"] or "").strip('"'))
            if not blob.version:
                raise ValueError("the answer has no ETag")
        except Exception as error:  # whatever it is: boto3 does better, or tells
            blob = otherwise()
            self._fell_behind(error)
        else:
            self._behind = 0
        return blob

    def _fell_behind(self, error: Exception) -> None:
        self._behind += 1
        if self._behind == _TRIES:
            _warn(self._bucket, error)


_images: dict[tuple["S3Client", str], Images] = {}
_lock = threading.Lock()
_processes: set[int] = set()


def images_of(client: "S3Client", bucket: str) -> Images:
    with _lock:
        made = _images.get((client, bucket))
        if made is None:
            made = _images[client, bucket] = Images(client, bucket)
        return made


def _opened(client: "S3Client", bucket: str) -> "S3Store | None":
    _processes.add(os.getpid())
    try:
        if len(_processes) > 1:  # its threads are those of a process that this one was forked from
            raise RuntimeError("obstore does not survive a fork")
        return _open(client, bucket)
    except Exception as error:  # no credentials, say: boto3 tells
        _warn(bucket, error)
        return None


def _warn(bucket: str, error: Exception) -> None:
    reason = " ".join(str(error).split())[:300]
    log.warning("images of s3://%s are read by boto3, which takes more CPU: %s", bucket, reason)


def _open(client: "S3Client", bucket: str) -> "S3Store":
    from boto3.session import Session
    from botocore.session import get_session
    from obstore.auth.boto3 import Boto3CredentialProvider
    from obstore.store import S3Store

    settings = get_session()
    credentials = Boto3CredentialProvider(Session(botocore_session=settings), ttl=_KEEP_CREDENTIALS)
    options: ClientConfig = {
        "allow_http": True,
        "connect_timeout": "5s",
        "read_timeout": "60s",
        "timeout": "1h",
    }
    if certificates := settings.get_config_variable("ca_bundle"):
        options["root_certificate"] = Path(certificates).read_bytes()
    return S3Store(
        bucket,
        # all that obstore would take from the environment otherwise
        aws_endpoint_url_s3=client.meta.endpoint_url,
        region=client.meta.region_name,
        virtual_hosted_style_request=False,
        skip_signature=False,
        credential_provider=credentials,
        client_options=options,
        retry_config={"max_retries": 0},
    )
