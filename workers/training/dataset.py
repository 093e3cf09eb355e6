"""The features and labels of a run's images, as arrays."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from workers.contract import schemas

Floats = npt.NDArray[np.float16] | npt.NDArray[np.float32]


@dataclass(frozen=True)
class Dataset:
    """N labelled images that have a feature, in the order of their addresses.

    features: float16 or float32 (N, D); labels: int32 (N,), a class index each; rows: the
    manifest columns (uri, version, label, split).
    """

    features: Floats
    labels: npt.NDArray[np.int32]
    rows: pa.Table

    def split(self, name: str) -> npt.NDArray[np.int64]:
        """The rows of a split, ascending."""
        return np.flatnonzero(np.asarray(self.rows.column("split")) == name)


def join(
    shards: Iterable[tuple[pa.Table, pa.Table]],
    labels: Sequence[str],
    matrix: Callable[[pa.Table], Floats],
) -> Dataset:
    """One dataset of (shard rows, feature shard) pairs; rows without a feature are left out."""
    index = {label: number for number, label in enumerate(labels)}
    kept, features = [], []
    for rows, shard in shards:
        good = shard.column("status").take(rows.column("row")).to_numpy() == schemas.OK
        rows = rows.filter(pa.array(good))
        kept.append(rows)
        features.append(matrix(shard)[rows.column("row").to_numpy()])
    table = pa.concat_tables(kept)
    order = np.argsort(np.asarray(table.column("uri")), kind="stable")
    table = table.take(pa.array(order))
    numbers = np.array([index[each] for each in table.column("label").to_pylist()], np.int32)
    matrix_in_order = np.concatenate(features)
    features.clear()  # not three copies at once
    return Dataset(matrix_in_order[order], numbers, table)
