"""Tasks of the extract queue: what a backbone is, and the features of a shard."""

import json

import pyarrow as pa

from workers.contract import layout
from workers.contract.messages import DescribeBackbone, ExtractShard
from workers.contract.settings import Settings
from workers.features.careful import Journal, extract_carefully
from workers.features.extract import Image, extract
from workers.storage.tables import read_table, write_table
from workers.tasks.base import Context, task

DEFAULT_BATCH_SIZE = 32
CAREFUL_FROM = 2
"""Attempts that lost their worker before the image that does it is looked for: one may be chance."""


@task(DescribeBackbone)
def describe_backbone(message: DescribeBackbone, context: Context) -> None:
    from workers.features.backbone import load

    backbone = load(message.backbone, message.image_size_px)
    context.store.write(message.result_key(), json.dumps(backbone.description()).encode())


@task(ExtractShard)
def extract_shard(message: ExtractShard, context: Context) -> None:
    from workers.features.backbone import load

    rows = read_table(context.store, layout.shard_rows(message.run_id, message.plan, message.shard))
    images = distinct_images(rows)
    backbone = load(message.backbone, message.image_size_px, message.fingerprint)
    options = {
        "batch_size": message.batch_size or DEFAULT_BATCH_SIZE,
        "threads": Settings.from_environment().fetch_concurrency(),
    }
    if message.attempt < CAREFUL_FROM:
        table = extract(images, backbone, progress=context.progress, **options)
    else:
        journal = Journal.open(context.store, layout.suspects(message.run_id, message.shard))
        table = extract_carefully(images, backbone, journal, progress=context.progress, **options)
    assert table.num_rows == len(images), "rows out = rows in"
    write_table(context.store, message.result_key(), table)


def distinct_images(rows: pa.Table) -> list[Image]:
    """The images of a shard by their `row`; copies of one image share a row."""
    by_row = {
        row: Image(uri, version)
        for row, uri, version in zip(
            *(reversed(rows.column(name).to_pylist()) for name in ("row", "uri", "version")),
            strict=True,
        )
    }
    return [by_row[row] for row in range(len(by_row))]
