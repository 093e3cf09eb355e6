"""The features and labels of a run's images, as arrays; the features lie on the local disk.

Two passes over the shards, each with many reads at a time. The first reads what is small: the
rows of the plan, which of them have a feature, and the precision of the features. That settles
where each feature goes, so that the second can write them as they come.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from workers.ahead import in_order
from workers.contract import schemas
from workers.contract.errors import BadSource
from workers.storage import Store
from workers.storage.tables import read_outline, read_table
from workers.training.local_copy import Floats, on_disk

_THREADS = 32
_IN_FLIGHT_BYTES = 512 * 2**20
# as read, as a table, and the rows wanted of it
_COPIES_IN_FLIGHT = 3


@dataclass(frozen=True)
class Dataset:
    """N labelled images that have a feature, split by split.

    features: float16 or float32 (N, D); labels: int32 (N,), a class index each; rows: the
    manifest columns (uri, version, label, split).
    """

    features: Floats
    labels: npt.NDArray[np.int32]
    rows: pa.Table

    def split(self, name: str) -> npt.NDArray[np.int64]:
        """The rows of a split, ascending."""
        return np.flatnonzero(_is_split(self.rows, name))


class Shard(NamedTuple):
    """Two objects: rows of a run, and the features they point to."""

    rows_key: str
    features_key: str
    features_bytes: int


class _Known(NamedTuple):
    """What the first pass finds of a shard: its rows that have a feature, and its kind."""

    rows: pa.Table
    size: int
    dtype: np.dtype[np.float16] | np.dtype[np.float32]


@dataclass(frozen=True)
class Shards:
    """The shards of a plan. matrix: the features of a feature shard, float16 or float32 (n, D)."""

    store: Store
    keys: Sequence[Shard]
    matrix: Callable[[pa.Table], Floats]

    def threads(self) -> int:
        """As many reads at a time as memory allows."""
        largest = max((each.features_bytes for each in self.keys), default=0)
        return max(1, min(_THREADS, _IN_FLIGHT_BYTES // (_COPIES_IN_FLIGHT * largest + 1)))

    def read(self, shard: Shard) -> tuple[pa.Table, pa.Table]:
        """(rows of the run, feature shard), whole."""
        return read_table(self.store, shard.rows_key), read_table(self.store, shard.features_key)

    def load(
        self, labels: Sequence[str], seed: int, folder: Path, progress: Callable[[int], None]
    ) -> Dataset:
        """The dataset of all rows that have a feature, in an order that the shards' cut does not
        change: training rows shuffled by the seed, so that batches may be read from the disk in
        sequence, then validation and test rows in the order of their addresses.

        folder: where the features are kept; progress: called often, with the shards copied.
        """
        known = self._survey(progress)
        table = pa.concat_tables([each.rows for each in known])
        order = arrangement(table, seed)
        dtype = np.result_type(*(each.dtype for each in known))
        features = on_disk(folder, (len(order), known[0].size), dtype)
        place = np.full(len(table), -1)
        place[order] = np.arange(len(order))
        self._copy(known, place, features, progress)
        table = table.take(pa.array(order)).drop_columns(["row"])
        return Dataset(features, _numbers(table.column("label"), labels), table)

    def _survey(self, progress: Callable[[int], None]) -> list[_Known]:
        found = []
        with in_order(self._look, self.keys, _THREADS) as ahead:
            for each in ahead:
                found.append(each)
                progress(0)
        return found

    def _look(self, shard: Shard) -> _Known:
        rows = read_table(self.store, shard.rows_key)
        schema, outline = read_outline(self.store, shard.features_key, shard.features_bytes, ["status"])
        kind = schema.field("feature").type
        status = outline.column("status").take(rows.column("row"))
        return _Known(
            rows.filter(pc.equal(status, schemas.OK)),
            kind.list_size,
            np.dtype(kind.value_type.to_pandas_dtype()),
        )

    def _copy(
        self,
        known: Sequence[_Known],
        place: npt.NDArray[np.int64],
        features: Floats,
        progress: Callable[[int], None],
    ) -> None:
        """place: the row of `features` for each known row, -1 for none."""
        ends = np.cumsum([each.rows.num_rows for each in known])

        def copy(number: int) -> None:
            to = place[ends[number] - known[number].rows.num_rows : ends[number]]
            row = known[number].rows.column("row").to_numpy()
            shard = read_table(self.store, self.keys[number].features_key)
            features[to[to >= 0]] = self.matrix(shard)[row[to >= 0]]

        with in_order(copy, range(len(known)), self.threads()) as ahead:
            for done, _ in enumerate(ahead, 1):
                progress(done)


def arrangement(rows: pa.Table, seed: int) -> npt.NDArray[np.int64]:
    """The rows of every split, in the order of the local copy.

    A pure function of the set of rows and the seed: of their order, nothing is kept.
    """
    keys = [(name, "ascending") for name in ("uri", "label", "split", "version")]
    by_address = pc.sort_indices(rows, keys).to_numpy().astype(np.int64)
    parts = [by_address[_is_split(rows, name)[by_address]] for name in schemas.SPLITS]
    parts[0] = np.random.default_rng(seed).permutation(parts[0])
    return np.concatenate(parts)


def _is_split(rows: pa.Table, name: str) -> npt.NDArray[np.bool_]:
    return np.asarray(pc.equal(rows.column("split"), name).fill_null(False))


def _numbers(names: pa.ChunkedArray, labels: Sequence[str]) -> npt.NDArray[np.int32]:
    found = pc.index_in(names, pa.array(labels, names.type))
    if found.null_count:
        raise BadSource("the plan holds labels that its run does not have: start the run again")
    return np.asarray(found, np.int32)
