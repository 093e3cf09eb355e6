"""Tasks of the extract queue: what a backbone is, and the features of a shard."""

import json
import time
from dataclasses import replace

import pyarrow as pa

from workers.contract import layout
from workers.contract.messages import DescribeBackbone, ExtractShard
from workers.contract.stages import StageTimes
from workers.features.careful import Journal, extract_carefully
from workers.features.extract import extract
from workers.features.extractor import Image, extractor_of
from workers.storage.tables import read_table, write_table
from workers.tasks.base import Context, task

CAREFUL_FROM = 2
"""Attempts that lost their worker before the image that does it is looked for: one may be chance."""


@task(DescribeBackbone)
def describe_backbone(message: DescribeBackbone, context: Context) -> None:
    from workers.features.backbone import load

    backbone = load(message.backbone, message.image_size_px)
    context.store.write(message.result_key(), json.dumps(backbone.description()).encode())


@task(ExtractShard, overlaps=lambda message: message.attempt < CAREFUL_FROM)
def extract_shard(message: ExtractShard, context: Context) -> StageTimes:
    from workers.features.backbone import load
    from workers.features.inference import Wanted, prepare

    rows = read_table(context.store, layout.shard_rows(message.run_id, message.plan, message.shard))
    images = distinct_images(rows)
    began = time.monotonic()
    backbone = load(message.backbone, message.image_size_px, message.fingerprint)
    wanted = Wanted(message.engine, message.precision, message.batch_size)
    inference = prepare(backbone, wanted, len(images))
    extractor = extractor_of(inference)
    start_s = time.monotonic() - began
    if message.attempt < CAREFUL_FROM:
        table = extract(images, extractor, context.progress, context.fed)
    else:
        journal = Journal.open(context.store, layout.suspects(message.run_id, message.shard))
        table = extract_carefully(images, extractor, journal, context.progress)
    assert table.num_rows == len(images), "rows out = rows in"
    began = time.monotonic()
    write_table(context.store, message.result_key(), table)
    return replace(
        extractor.times(),
        start_s=start_s,
        write_s=time.monotonic() - began,
        engine=inference.engine,
        precision=inference.precision,
        batch_size=inference.batch_size,
        device=inference.device,
    )


def distinct_images(rows: pa.Table) -> list[Image]:
    """The images of a shard by their `row`; copies of one image share a row."""
    by_row = {
        row: Image(*image)
        for row, *image in zip(
            *(reversed(rows.column(name).to_pylist()) for name in ("row", "uri", "version", "size")),
            strict=True,
        )
    }
    return [by_row[row] for row in range(len(by_row))]
