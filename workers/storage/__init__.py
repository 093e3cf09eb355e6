"""Folders and buckets behind one interface: `open_store(url)` and `fetch(uri)`."""

from pathlib import Path

from workers.contract.errors import BadSource
from workers.storage.base import Blob, ObjectInfo, Store
from workers.storage.local import LocalStore
from workers.storage.s3 import S3Store

__all__ = ["Blob", "ObjectInfo", "Store", "absolute", "fetch", "info", "open_store"]


def open_store(url: str) -> Store:
    """A store at `s3://bucket/prefix`, `file:///path` or a path.

    Raises BadSource for a scheme that is none of these.
    """
    scheme, separator, rest = url.partition("://")
    if not separator:
        return LocalStore(url)
    if scheme == "file":
        return LocalStore(rest)
    if scheme == "s3":
        bucket, _, prefix = rest.partition("/")
        if not bucket:
            raise BadSource(f"{url} names no bucket: write s3://BUCKET/PREFIX")
        return S3Store(bucket, prefix)
    raise BadSource(f"{url}: no store for {scheme}://; use a folder or s3://BUCKET/PREFIX")


def absolute(uri: str, base: str = "") -> str:
    """The address in the form manifests hold: s3://bucket/key, or an absolute path.

    A relative path counts from `base`, the URL of a folder or bucket prefix ("": this folder).
    """
    if uri.startswith("s3://"):
        return uri
    path = uri.removeprefix("file://")
    if base.startswith("s3://") and not path.startswith("/"):
        return f"{base.rstrip('/')}/{path}"
    return str(Path(base.removeprefix("file://"), path).expanduser().absolute())


def fetch(uri: str) -> Blob:
    """The bytes and version of one object by its absolute address."""
    store, key = _split(uri)
    return store.fetch(key)


def info(uri: str) -> ObjectInfo:
    """Size and version of one object by its absolute address."""
    store, key = _split(uri)
    return store.info(key)


def _split(uri: str) -> tuple[Store, str]:
    if uri.startswith("s3://"):
        bucket, _, key = uri.removeprefix("s3://").partition("/")
        return S3Store(bucket, ""), key
    path = Path(uri.removeprefix("file://"))
    return LocalStore(path.parent), path.name
