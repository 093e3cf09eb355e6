"""Which shards a run needs: those the store has, and new ones for what it lacks. Pure."""

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from workers.contract import schemas
from workers.contract.layout import digest, shard_id

# What is known of the images in a store's feature shards.
KNOWN = pa.schema(
    [
        pa.field("version", pa.string()),
        pa.field("status", pa.string()),
        pa.field("shard", pa.string()),
        pa.field("row", pa.int32()),
    ]
)


@dataclass(frozen=True)
class PlannedShard:
    """The rows of the manifest (schema: `schemas.SHARD_ROWS`) whose features this shard holds."""

    id: str
    rows: pa.Table
    is_new: bool


@dataclass(frozen=True)
class Plan:
    shards: list[PlannedShard]

    @property
    def extracted(self) -> int:
        """Images whose features the run computes, copies of one image among them."""
        return sum(shard.rows.num_rows for shard in self.new_shards)

    @property
    def id(self) -> str:
        return digest(f"{shard.id} {shard.rows.num_rows}" for shard in self.shards)

    @property
    def new_shards(self) -> list[PlannedShard]:
        return [shard for shard in self.shards if shard.is_new]


def plan(
    manifest: pa.Table, known: pa.Table, shard_size: int, taken: Collection[str] = frozenset()
) -> Plan:
    """Every row of the manifest in exactly one shard.

    Images are found by version alone, so moving, renaming or relabelling costs nothing. New
    shards are cut from the unknown versions in manifest order: when some of them were finished by
    a run that was killed, cutting what is left gives the others again. `taken` are the names of
    shards in the store.
    """
    usable = _usable(known)
    versions = manifest.column("version").combine_chunks()
    at = pc.index_in(versions, usable.column("version").combine_chunks())
    is_known = np.asarray(at.is_valid())
    rows = manifest.append_column("row", pa.nulls(manifest.num_rows, pa.int32()))
    found = _known_shards(rows.filter(pa.array(is_known)), usable.take(at.drop_null()))
    new_rows = rows.filter(pa.array(~is_known))
    # what failed before and may be mended is cut apart, so that it shifts no other shard
    was_seen = pc.is_in(new_rows.column("version"), known.column("version").combine_chunks())
    new = [
        *_new_shards(new_rows.filter(pc.invert(was_seen)), shard_size, taken),
        *_new_shards(new_rows.filter(was_seen), shard_size, taken),
    ]
    return Plan(sorted([*found, *new], key=lambda shard: shard.id))


def _usable(known: pa.Table) -> pa.Table:
    """Known images without those whose failure may have passed, the good ones first."""
    status = known.column("status")
    passing = pc.is_in(status, pa.array(schemas.PASSING_FAILURES))
    kept = known.filter(pc.invert(passing))
    bad = pc.not_equal(kept.column("status"), schemas.OK)
    return kept.append_column("bad", bad).sort_by(
        [("bad", "ascending"), ("shard", "ascending"), ("row", "ascending")]
    )


def _known_shards(rows: pa.Table, where: pa.Table) -> list[PlannedShard]:
    rows = _with_row(rows, where.column("row")).append_column("shard", where.column("shard"))
    return _grouped(rows, is_new=False)


def _new_shards(rows: pa.Table, shard_size: int, taken: Collection[str]) -> list[PlannedShard]:
    versions = pc.unique(rows.column("version"))
    if not len(versions):
        return []
    place = np.asarray(pc.index_in(rows.column("version"), versions))
    names = pa.array(
        [
            _free_name(versions[begin : begin + shard_size].to_pylist(), taken)
            for begin in range(0, len(versions), shard_size)
        ]
    )
    rows = _with_row(rows, pa.array((place % shard_size).astype(np.int32)))
    rows = rows.append_column("shard", names.take(pa.array(place // shard_size)))
    return _grouped(rows, is_new=True)


def _free_name(versions: list[str], taken: Collection[str]) -> str:
    attempt = 0
    while (name := shard_id(versions, attempt)) in taken:
        attempt += 1
    return name


def _with_row(rows: pa.Table, row: pa.Array) -> pa.Table:
    return rows.set_column(rows.column_names.index("row"), schemas.SHARD_ROWS.field("row"), row)


def _grouped(rows: pa.Table, is_new: bool) -> list[PlannedShard]:
    """Rows with a `shard` column, cut into one table for each, in the order of their rows."""
    rows = rows.sort_by([("shard", "ascending"), ("row", "ascending"), ("uri", "ascending")])
    names = rows.column("shard").combine_chunks()
    runs = pc.run_end_encode(names) if len(names) else None
    if runs is None:
        return []
    ends = runs.run_ends.to_pylist()
    begins = [0, *ends[:-1]]
    bare = rows.drop_columns(["shard"]).cast(schemas.SHARD_ROWS)
    return [
        PlannedShard(name, bare.slice(begin, end - begin), is_new)
        for name, begin, end in zip(runs.values.to_pylist(), begins, ends, strict=True)
    ]
