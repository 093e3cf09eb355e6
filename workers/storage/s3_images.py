"""Fetching many small objects from a bucket: obstore does it in Rust, beside Python's lock.

For a photo of 100 KB, boto3 takes 2 to 3 ms of CPU, nearly all of which one thread of a process can
spend at a time; this takes 0.5 to 0.9 ms (tests/benchmarks/test_fetch.py). What does not come this way
is left to boto3, which waits, tries again, and says why.
"""

import logging
import threading
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from workers.storage.base import Blob

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from obstore.store import ClientConfig, S3Store

log = logging.getLogger("retrain.storage")

_TRIES = 16
"""A bucket that has given nothing after so many is left to boto3: it may be in another region."""


class Images:
    """One bucket's objects, reached as a client of boto3 does: the same endpoint and credentials."""

    def __init__(self, client: "S3Client", bucket: str) -> None:
        self._store = _opened(client, bucket)
        self._has_given = False
        self._tries = 0
        self._lock = threading.Lock()

    def get(self, key: str) -> Blob | None:
        """The object, from any thread; None where boto3 is to be asked."""
        # obstore takes slashes at the ends away, and finds another object
        if self._store is None or key != key.strip("/") or not self._may_try():
            return None
        try:
            found = self._store.get(key)
            blob = Blob(bytes(found.bytes()), str(found.meta["e_tag"]).strip('"'))
        except Exception:  # whatever it is: boto3 does better, or tells
            return None
        self._has_given = True
        return blob

    def _may_try(self) -> bool:
        with self._lock:
            self._tries += 1
            return self._has_given or self._tries <= _TRIES


@lru_cache(maxsize=16)
def images_of(client: "S3Client", bucket: str) -> Images:
    return Images(client, bucket)


def _opened(client: "S3Client", bucket: str) -> "S3Store | None":
    try:
        return _open(client, bucket)
    except Exception as error:  # no credentials, say: boto3 tells
        log.warning("s3://%s is read by boto3 alone, which is slower: %s", bucket, error)
        return None


def _open(client: "S3Client", bucket: str) -> "S3Store":
    from boto3.session import Session
    from botocore.session import get_session
    from obstore.auth.boto3 import Boto3CredentialProvider
    from obstore.store import S3Store

    settings = get_session()
    options: ClientConfig = {"allow_http": True, "connect_timeout": "5s", "timeout": "60s"}
    if certificates := settings.get_config_variable("ca_bundle"):
        options["root_certificate"] = Path(certificates).read_bytes()
    return S3Store(
        bucket,
        endpoint=client.meta.endpoint_url,
        region=client.meta.region_name,
        virtual_hosted_style_request=False,
        credential_provider=Boto3CredentialProvider(Session(botocore_session=settings)),
        client_options=options,
        retry_config={"max_retries": 0},
    )
