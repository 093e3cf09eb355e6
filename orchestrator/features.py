"""What a store knows of images: the status columns of its feature shards."""

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyarrow as pa

from orchestrator.planning import KNOWN, PlannedShard
from workers.contract import layout
from workers.storage import ObjectInfo, Store
from workers.storage.tables import read_columns

_THREADS = 32


def shards_in(store: Store, fingerprint: str) -> dict[str, ObjectInfo]:
    """Every feature shard of a backbone, by name."""
    listed = store.objects(layout.features_prefix(fingerprint))
    return {_name(each): each for each in listed if each.key.endswith(".parquet")}


def known_images(store: Store, shards: dict[str, ObjectInfo]) -> pa.Table:
    """The images in these shards (schema: `planning.KNOWN`)."""

    def read(name: str) -> pa.Table:
        info = shards[name]
        table = read_columns(store, info.key, info.size_bytes, ["version", "status"])
        rows = np.arange(table.num_rows, dtype=np.int32)
        columns = [
            table.column("version"),
            table.column("status"),
            pa.array([name] * table.num_rows, pa.string()),
            pa.array(rows),
        ]
        return pa.table(columns, schema=KNOWN)

    with ThreadPoolExecutor(_THREADS, "known") as pool:
        tables = list(pool.map(read, sorted(shards)))
    return pa.concat_tables(tables) if tables else KNOWN.empty_table()


def outcomes(
    store: Store, fingerprint: str, planned: Iterable[PlannedShard], shards: dict[str, ObjectInfo]
) -> pa.Table:
    """What became of every image of a plan: uri, status, error."""

    def read(shard: PlannedShard) -> pa.Table:
        info = shards[shard.id]
        table = read_columns(store, info.key, info.size_bytes, ["status", "error"])
        at = shard.rows.column("row")
        return pa.table(
            {
                "uri": shard.rows.column("uri"),
                "status": table.column("status").take(at),
                "error": table.column("error").take(at),
            }
        )

    with ThreadPoolExecutor(_THREADS, "outcomes") as pool:
        return pa.concat_tables(pool.map(read, planned))


def _name(info: ObjectInfo) -> str:
    return info.key.rpartition("/")[2].removesuffix(".parquet")
