"""Parquet tables in a store: written whole, read whole or by column."""

import io
from collections.abc import Sequence

import pyarrow as pa
import pyarrow.parquet as pq

from workers.contract.errors import StoreDenied
from workers.storage.base import Store

_TAIL_BYTES = 64 * 1024


def write_table(store: Store, key: str, table: pa.Table) -> None:
    """One object, compressed; features do not compress, so they are stored plain."""
    sink = io.BytesIO()
    names = [name for name in table.column_names if name != "feature"]
    pq.write_table(
        table,
        sink,
        compression=dict.fromkeys(names, "zstd") | {"feature": "none"},
        use_dictionary=[name for name in names if name in ("label", "split", "status")],
        write_statistics=False,
    )
    store.write(key, sink.getvalue())


def read_table(store: Store, key: str) -> pa.Table:
    """The whole table. Raises ObjectMissing, or StoreDenied where the object is no Parquet file."""
    return _parsed(io.BytesIO(store.read(key)), store.uri(key), None)


def read_columns(store: Store, key: str, size_bytes: int, columns: Sequence[str]) -> pa.Table:
    """Some columns, by ranged reads: the features of a shard are not transferred."""
    return _parsed(_RangeFile(store, key, size_bytes), store.uri(key), columns)


def read_outline(
    store: Store, key: str, size_bytes: int, columns: Sequence[str]
) -> tuple[pa.Schema, pa.Table]:
    """The schema of all columns, and some of them, by ranged reads."""
    return _opened(_RangeFile(store, key, size_bytes), store.uri(key), columns)


def _parsed(file: io.IOBase, name: str, columns: Sequence[str] | None) -> pa.Table:
    return _opened(file, name, columns)[1]


def _opened(file: io.IOBase, name: str, columns: Sequence[str] | None) -> tuple[pa.Schema, pa.Table]:
    try:
        with pq.ParquetFile(file, pre_buffer=False) as parquet:
            return parquet.schema_arrow, parquet.read(columns=columns)
    except pa.ArrowInvalid as error:
        raise StoreDenied(f"{name} is not a readable Parquet file: {error}") from error


class _RangeFile(io.RawIOBase):
    """A seekable file over ranged reads, its last 64 KiB (where Parquet keeps its index) kept."""

    def __init__(self, store: Store, key: str, size_bytes: int) -> None:
        self._store, self._key, self._size, self._at = store, key, size_bytes, 0
        self._tail_start = max(0, size_bytes - _TAIL_BYTES)
        self._tail = store.read_range(key, self._tail_start, _TAIL_BYTES) if size_bytes else b""

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        self._at = start + offset
        return self._at

    def read(self, size: int = -1) -> bytes:
        length = self._size - self._at if size < 0 else min(size, self._size - self._at)
        if length <= 0:
            return b""
        start = self._at - self._tail_start
        if start >= 0:
            data = self._tail[start : start + length]
        else:
            data = self._store.read_range(self._key, self._at, length)
        self._at += len(data)
        return data

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)
