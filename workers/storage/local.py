"""A folder as a store."""

import errno
import hashlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from workers.contract.errors import ObjectMissing, RetrainError, StoreDenied, StoreUnavailable
from workers.storage.base import Blob, ObjectInfo

_TEMPORARY = ".writing-"
_PASSING = {errno.EIO, errno.EAGAIN, errno.EBUSY, errno.ESTALE, errno.ETIMEDOUT, errno.EMFILE}


def content_version(data: bytes) -> str:
    """A file's version: a digest of its bytes.

    Size and modification time would be quicker to get, but data sets unpacked from an archive
    often share one time, and then two pictures of one size would share one feature.
    """
    return hashlib.blake2b(data, digest_size=16).hexdigest()


class LocalStore:
    """Objects are files below `root`; a write goes to a file beside, is synced, then renamed."""

    def __init__(self, root: str | Path) -> None:
        self.root = Path(os.path.abspath(os.path.expanduser(root)))  # noqa: PTH111 - "~nobody" is a name too
        self.url = str(self.root)

    def uri(self, key: str) -> str:
        return str(self.root / key)

    def objects(self, prefix: str = "") -> Iterator[ObjectInfo]:
        folder = prefix.rpartition("/")[0]
        with _translated(self.uri(prefix)):
            for info in _walk(self._path(folder), f"{folder}/" if folder else "", ()):
                if info.key.startswith(prefix):
                    yield info

    def folders(self, prefix: str = "") -> list[str]:
        with _translated(self.uri(prefix)):
            return sorted(each.name for each in os.scandir(self._path(prefix)) if each.is_dir())

    def fetch(self, key: str) -> Blob:
        data = self.read(key)
        return Blob(data, content_version(data))

    def read(self, key: str) -> bytes:
        with _translated(self.uri(key)):
            return self._path(key).read_bytes()

    def read_range(self, key: str, start: int, length: int) -> bytes:
        with _translated(self.uri(key)), self._path(key).open("rb") as file:
            file.seek(start)
            return file.read(length)

    def info(self, key: str) -> ObjectInfo:
        data = self.read(key)
        return ObjectInfo(key, len(data), content_version(data))

    def write(self, key: str, data: bytes) -> None:
        path = self._path(key)
        with _translated(str(path)):
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
            except (NotADirectoryError, FileExistsError) as error:
                raise StoreDenied(f"{path.parent} cannot be a folder: a file is in its way") from error
            descriptor, temporary = tempfile.mkstemp(prefix=_TEMPORARY, dir=path.parent)
            try:
                with os.fdopen(descriptor, "wb") as file:
                    file.write(data)
                    file.flush()
                    os.fchmod(descriptor, 0o644)
                    os.fsync(descriptor)
                os.replace(temporary, path)
            except BaseException:
                Path(temporary).unlink(missing_ok=True)
                raise
            _sync_folder(path.parent)

    def exists(self, key: str) -> bool:
        return os.path.isfile(self._path(key))  # noqa: PTH113 - no error for an odd name

    def delete(self, key: str) -> None:
        with _translated(self.uri(key)), suppress(FileNotFoundError, NotADirectoryError):
            self._path(key).unlink()

    def _path(self, key: str) -> Path:
        path = Path(os.path.normpath(self.root / key))
        if path != self.root and self.root not in path.parents:
            raise StoreDenied(f"{key!r} leads out of {self.url}")
        return path


def _walk(folder: Path, prefix: str, above: tuple[tuple[int, int], ...]) -> Iterator[ObjectInfo]:
    """Files below folder, links followed; a link back to a folder above is passed over."""
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except FileNotFoundError:
        return
    here = folder.stat()
    above = (*above, (here.st_dev, here.st_ino))
    for entry in entries:
        if entry.is_dir():
            status = entry.stat()
            if (status.st_dev, status.st_ino) not in above:
                yield from _walk(Path(entry.path), f"{prefix}{entry.name}/", above)
        elif entry.is_file() and not entry.name.startswith(_TEMPORARY):
            yield ObjectInfo(prefix + entry.name, entry.stat().st_size, None)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _translated(name: str) -> Iterator[None]:
    """OSError as one of our errors, by one table."""
    try:
        yield
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
        raise ObjectMissing(f"there is no file {name}") from error
    except ValueError as error:
        raise StoreDenied(f"{name!r} is no file name: {error}") from error
    except OSError as error:
        kind: type[RetrainError] = StoreUnavailable if error.errno in _PASSING else StoreDenied
        raise kind(f"{name}: {error.strerror or error}") from error
