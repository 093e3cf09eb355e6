"""Folders and buckets behind one interface: `open_store(url)` and `fetch(uri)`."""

import os
from pathlib import Path

from workers.contract.errors import BadSource, NotAllowed
from workers.contract.settings import Settings
from workers.storage.base import Blob, ObjectInfo, Store
from workers.storage.local import LocalStore
from workers.storage.s3 import S3Store

__all__ = [
    "Blob",
    "ObjectInfo",
    "Store",
    "absolute",
    "check_allowed",
    "fetch",
    "info",
    "open_store",
    "restrict",
]


_allowed: tuple[str, ...] = ()


def restrict(prefixes: tuple[str, ...]) -> None:
    """From now on, this process opens only what lies at or below one of these URLs or folders."""
    global _allowed
    _allowed = tuple(_resolved(prefix) for prefix in prefixes)


def open_store(url: str, patience_s: float | None = None) -> Store:
    """A store at `s3://bucket/prefix`, `file:///path` or a path.

    patience_s: how long a bucket that does not answer is asked again; None: the environment's.
    Raises BadSource for a scheme that is none of these, and NotAllowed past `restrict`.
    """
    scheme, separator, rest = url.partition("://")
    if url.startswith("s3:") and not separator:
        raise BadSource(f"{url} is no bucket: write s3://BUCKET/PREFIX")
    if not separator or scheme == "file":
        store: Store = LocalStore(rest if separator else url)
    elif scheme == "s3":
        bucket, _, prefix = rest.partition("/")
        if not bucket:
            raise BadSource(f"{url} names no bucket: write s3://BUCKET/PREFIX")
        store = S3Store(bucket, prefix, _patience(patience_s))
    else:
        raise BadSource(f"{url}: no store for {scheme}://; use a folder or s3://BUCKET/PREFIX")
    check_allowed(store.url)
    return store


def absolute(uri: str, base: str = "") -> str:
    """The address in the form manifests hold: s3://bucket/key, or an absolute path.

    A relative path counts from `base`, the URL of a folder or bucket prefix ("": this folder).
    Raises BadSource for another scheme.
    """
    if uri.startswith("s3://"):
        return uri
    path = uri.removeprefix("file://")
    if "://" in path:
        raise BadSource(f"{uri}: no store for {path.partition('://')[0]}://; use a path or s3://")
    if base.startswith("s3://") and not path.startswith("/"):
        return f"{base.rstrip('/')}/{path}"
    joined = os.path.join(base.removeprefix("file://"), path)  # noqa: PTH118
    return os.path.abspath(os.path.expanduser(joined))  # noqa: PTH111 - "~nobody" is a name too


def fetch(uri: str) -> Blob:
    """The bytes and version of one object by its absolute address."""
    store, key = _split(uri)
    return store.fetch(key)


def info(uri: str) -> ObjectInfo:
    """Size and version of one object by its absolute address."""
    store, key = _split(uri)
    return store.info(key)


def _split(uri: str) -> tuple[Store, str]:
    check_allowed(uri)
    if uri.startswith("s3://"):
        bucket, _, key = uri.removeprefix("s3://").partition("/")
        return S3Store(bucket, "", _patience(None)), key
    path = Path(uri.removeprefix("file://"))
    return LocalStore(path.parent), path.name


def check_allowed(address: str) -> None:
    """Raises NotAllowed for what lies outside of `restrict`; links and ".." lead nowhere else."""
    place = _resolved(address)
    is_inside = any(place == each or place.startswith(f"{each}/") for each in _allowed)
    if _allowed and (".." in address.split("/") or not is_inside):
        raise NotAllowed(
            f"{address} is not below {', '.join(_allowed)}, which this worker may use (--allow)"
        )


def _resolved(address: str) -> str:
    place = absolute(address)
    return place.rstrip("/") if place.startswith("s3://") else os.path.realpath(place)


def _patience(asked_s: float | None) -> float:
    return Settings.from_environment().store_patience_s if asked_s is None else asked_s
