"""What a store can do. Keys are "/"-separated and relative to the store's URL."""

from collections.abc import Iterator
from typing import NamedTuple, Protocol


class ObjectInfo(NamedTuple):
    key: str
    size_bytes: int
    version: str | None
    """What the listing says of the bytes (an ETag); None where only reading them tells."""


class Blob(NamedTuple):
    data: bytes
    version: str


class Store(Protocol):
    """A folder or a bucket prefix.

    Every method raises errors of `workers.contract.errors` alone: StoreUnavailable where trying
    again may help, StoreDenied, or ObjectMissing.
    """

    url: str

    def uri(self, key: str) -> str:
        """The absolute address of a key, which `fetch` of this module's package takes."""
        ...

    def objects(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """Every object whose key begins with prefix, in no promised order."""
        ...

    def folders(self, prefix: str = "") -> list[str]:
        """The names of the folders right below prefix, sorted; an empty one counts.

        prefix: "", or a folder with its closing "/".
        """
        ...

    def fetch(self, key: str) -> Blob:
        """The bytes and their version, which belong together."""
        ...

    def read(self, key: str) -> bytes:
        """The bytes."""
        ...

    def read_range(self, key: str, start: int, length: int) -> bytes:
        """Up to length bytes from start."""
        ...

    def info(self, key: str) -> ObjectInfo:
        """Size and version of one object; the version is always there."""
        ...

    def write(self, key: str, data: bytes) -> None:
        """Create or replace the object whole: a reader sees the old bytes or the new."""
        ...

    def exists(self, key: str) -> bool: ...

    def delete(self, key: str) -> None:
        """Remove the object; one that is not there is no error."""
        ...
