"""Tasks of the extract queue: what a backbone is, and the features of a shard."""

import json

import pyarrow as pa

from workers.contract import layout
from workers.contract.messages import DescribeBackbone, ExtractShard
from workers.contract.settings import Settings
from workers.features.extract import Image, extract
from workers.storage.tables import read_table, write_table
from workers.tasks.base import Context, task

DEFAULT_BATCH_SIZE = 32


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
    table = extract(
        images,
        load(message.backbone, message.image_size_px, message.fingerprint),
        batch_size=message.batch_size or DEFAULT_BATCH_SIZE,
        threads=Settings.from_environment().fetch_concurrency(),
        progress=context.progress,
    )
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
