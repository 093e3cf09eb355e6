"""What every command on many images shares: list, plan, extract, count."""

import csv
import io
import json
import logging
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol
from uuid import uuid4

import pyarrow as pa
import pyarrow.compute as pc

from orchestrator import features
from orchestrator.clock import Clock
from orchestrator.dispatch import Dispatch, Snapshot
from orchestrator.engine import Engine, open_engine
from orchestrator.listing import manifest_id
from orchestrator.planning import Plan, PlannedShard, plan
from orchestrator.progress import Reporter, Update
from orchestrator.records import RunRecord, asked
from orchestrator.stages import report
from orchestrator.tally import Tally
from workers.contract import layout, schemas
from workers.contract.errors import TooManyFailures
from workers.contract.messages import AUTO, DescribeBackbone, ExtractShard, Message
from workers.storage import Store, absolute, open_store
from workers.storage.tables import write_table

log = logging.getLogger("retrain")

_MANIFEST_PART_ROWS = 65_536
_WRITE_THREADS = 32


@dataclass(frozen=True)
class Backbone:
    """How to load it (name, size), and what it was found to be."""

    name: str
    image_size_px: int | None
    fingerprint: str
    description: dict[str, Any]


@dataclass(frozen=True)
class ExtractionOptions:
    shard_size: int = 1024
    batch_size: int | None = None
    """None: found by each worker, which measures."""
    engine: str = AUTO
    precision: str = AUTO
    max_failed_fraction: float = 0.05
    retry_failed: bool = False
    """Extract images anew that are known to have failed."""


@dataclass(frozen=True)
class Extraction:
    """Every image of the manifest has a row in one of the plan's shards, and these are the sums."""

    plan: Plan
    ok: int
    failed: int
    usable: pa.Table
    """The manifest without the images that failed."""
    reasons: dict[str, int]
    failures_uri: str | None
    seconds: float
    told: Tally
    """Where the workers' time went."""

    @property
    def total(self) -> int:
        return self.ok + self.failed

    def summary(self) -> dict[str, Any]:
        """The part of a command's JSON result that tells of images."""
        extracted = self.plan.extracted
        return {
            "images": {"total": self.total, "ok": self.ok, "failed": self.failed},
            "failures": self.reasons,
            "failures_uri": self.failures_uri,
            "extracted": extracted,
            "reused": self.total - extracted,
            "extract_seconds": self.seconds,
            "extract_images_per_s": extracted / self.seconds if extracted else None,
        }

    def stages(self) -> dict[str, Any]:
        """The part that tells of the workers' time."""
        return report(self.told.workers()) | {
            "shards_told": self.told.shards_told,
            "shards": len(self.plan.new_shards),
        }


class Request(Protocol):
    """What the requests of all commands on many images have."""

    @property
    def source(self) -> str: ...
    @property
    def store(self) -> str: ...
    @property
    def broker_url(self) -> str: ...


@dataclass(frozen=True)
class Pipeline:
    """One command's work on one store."""

    store: Store
    engine: Engine
    reporter: Reporter
    record: RunRecord
    clock: Clock = field(default_factory=Clock)

    @classmethod
    @contextmanager
    def begun(
        cls,
        command: str,
        run_id: str,
        request: Request,
        manifest: pa.Table,
        reporter: Reporter,
        clock: Clock,
        **facts: Any,
    ) -> Iterator["Pipeline"]:
        """A command on these images, on record from its first stage to how it ended."""
        store, listed = open_store(request.store), manifest_id(manifest)
        found = {"command": command, "source": absolute(request.source), "manifest_id": listed}
        with RunRecord(store, run_id, found | facts | asked(request)) as record:
            store.delete(layout.cancel_mark(run_id))  # a run that was cancelled is taken up again
            known = "taken up again" if store.exists(layout.run_record(run_id)) else "new"
            log.info("run %s (%s)", run_id, known)
            record.stage("list", images=manifest.num_rows)
            _write_manifest(store, listed, manifest)
            yield cls(store, open_engine(request.broker_url, store), reporter, record, clock)

    def finish(self, result: dict[str, Any], extraction: Extraction) -> dict[str, Any]:
        """Put the command's result on record, with where the time went."""
        stages = self.clock.stages | extraction.stages()
        result = result | {"stages": stages, "seconds": self.clock.total_s()}
        self.record.stage("done", result=result)
        return result

    @classmethod
    def open(cls, store: Store, broker_url: str, reporter: Reporter, record: RunRecord) -> "Pipeline":
        """Find who does the work."""
        return cls(store, open_engine(broker_url, store), reporter, record)

    @property
    def run_id(self) -> str:
        return self.record.run_id

    def do(
        self,
        messages: Sequence[Message],
        sizes: Mapping[str, int] | None = None,
        update: Update = lambda done, total: None,
    ) -> Tally:
        """Have tasks done; how far they are is told to the terminal and, now and then, the store.

        sizes: the images of each shard. Returns what the workers told of their time.
        """

        def images_of(message: Message) -> int:
            return (sizes or {}).get(getattr(message, "shard", ""), 0)

        def show(snapshot: Snapshot) -> None:
            update(snapshot.units, None)
            self.record.progress(snapshot)

        total = sum((sizes or {}).values())
        work = Dispatch(self.engine, self.store, messages, len(messages), images_of, total, show)
        work.run()
        return work.tally

    def answer(self, message: Message, *, keep: bool = False) -> Any:
        """The JSON that a task leaves as its result; removed unless others may ask the same."""
        self.do([message])
        reply = json.loads(self.store.read(message.result_key()))
        if not keep:
            self.store.delete(message.result_key())
        return reply

    def describe(self, name: str, image_size_px: int | None) -> Backbone:
        """Have a worker load the backbone and say what it is."""
        with self.clock.timed("load_s"), self.reporter.stage(f"loading {name}", None):
            found = self.answer(
                DescribeBackbone(self.store.url, self.run_id, uuid4().hex[:12], name, image_size_px)
            )
        return Backbone(name, image_size_px, found["fingerprint"], found)

    def extract(self, manifest: pa.Table, backbone: Backbone, options: ExtractionOptions) -> Extraction:
        """Features of every image, from the store or from the workers.

        Raises TooManyFailures past the budget; what was extracted stays in the store.
        """
        with self.clock.timed("plan_s"):
            planned = self._planned(manifest, backbone, options)
        self.record.stage(
            "extract",
            fingerprint=backbone.fingerprint,
            plan=planned.id,
            shards=len(planned.shards),
        )
        told = Tally()
        if planned.new_shards:
            with self.clock.timed("extract_s"):
                told = self._extract_new(planned, backbone, options)
        with self.clock.timed("count_s"):
            return self._counted(manifest, planned, backbone, options, told)

    def _planned(self, manifest: pa.Table, backbone: Backbone, options: ExtractionOptions) -> Plan:
        known = features.shards_in(self.store, backbone.fingerprint)
        images = features.known_images(self.store, known)
        if options.retry_failed:
            images = images.filter(pc.equal(images.column("status"), schemas.OK))
        planned = plan(manifest, images, options.shard_size, known.keys())
        self._write_plan(planned)
        return planned

    def _extract_new(self, planned: Plan, backbone: Backbone, options: ExtractionOptions) -> Tally:
        with self.reporter.stage("extracting features", planned.extracted) as update:
            messages = [self._message(planned, new, backbone, options) for new in planned.new_shards]
            sizes = {new.id: new.rows.num_rows for new in planned.new_shards}
            told = self.do(messages, sizes, update)
            update(planned.extracted, None)
        return told

    def _message(
        self, planned: Plan, shard: PlannedShard, backbone: Backbone, options: ExtractionOptions
    ) -> ExtractShard:
        return ExtractShard(
            self.store.url,
            self.run_id,
            planned.id,
            shard.id,
            backbone.name,
            backbone.image_size_px,
            backbone.fingerprint,
            options.batch_size,
            options.engine,
            options.precision,
        )

    def _write_plan(self, planned: Plan) -> None:
        def write(shard: PlannedShard) -> None:
            write_table(self.store, layout.shard_rows(self.run_id, planned.id, shard.id), shard.rows)

        with ThreadPoolExecutor(_WRITE_THREADS, "plan") as pool:
            deque(pool.map(write, planned.shards), maxlen=0)

    def _counted(
        self,
        manifest: pa.Table,
        planned: Plan,
        backbone: Backbone,
        options: ExtractionOptions,
        told: Tally,
    ) -> Extraction:
        shards = features.shards_in(self.store, backbone.fingerprint)
        rows = features.outcomes(self.store, backbone.fingerprint, planned.shards, shards)
        bad = rows.filter(pc.not_equal(rows.column("status"), schemas.OK)).sort_by("uri")
        reasons = {
            each["values"]: each["counts"] for each in pc.value_counts(bad.column("status")).to_pylist()
        }
        uri = self._write_failures(bad) if bad.num_rows else None
        failed = bad.num_rows
        if failed > options.max_failed_fraction * rows.num_rows:
            named = ", ".join(f"{count} {status}" for status, count in reasons.items())
            raise TooManyFailures(
                f"{failed} of {rows.num_rows} images failed ({named}), more than "
                f"--max-failed-fraction {options.max_failed_fraction:g} allows; they are listed in "
                f"{uri}"
            )
        lost = pc.is_in(manifest.column("uri"), bad.column("uri").combine_chunks())
        usable = manifest.filter(pc.invert(lost))
        seconds = self.clock.stages.get("extract_s", 0.0)
        return Extraction(planned, rows.num_rows - failed, failed, usable, reasons, uri, seconds, told)

    def _write_failures(self, bad: pa.Table) -> str:
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(bad.column_names)
        writer.writerows(row.values() for row in bad.to_pylist())
        key = layout.failed_images(self.run_id)
        self.store.write(key, text.getvalue().encode())
        return self.store.uri(key)


def _write_manifest(store: Store, manifest_id: str, manifest: pa.Table) -> None:
    """The list of images, in parts."""
    for part, begin in enumerate(range(0, manifest.num_rows, _MANIFEST_PART_ROWS)):
        rows = manifest.slice(begin, _MANIFEST_PART_ROWS)
        write_table(store, layout.manifest_part(manifest_id, part), rows)
