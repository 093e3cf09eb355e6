"""orchestrator.pipeline: an extraction's options reach its tasks, and its times the result."""

import json
import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from orchestrator.engine import Engine
from orchestrator.pipeline import Backbone, ExtractionOptions, Pipeline
from orchestrator.progress import Reporter
from orchestrator.records import RunRecord
from workers.contract import layout, schemas
from workers.contract.beats import DONE, Beat, MemoryBeats
from workers.contract.messages import ExtractShard
from workers.contract.stages import StageTimes
from workers.storage import Store, open_store
from workers.storage.tables import read_table, write_table

BACKBONE = Backbone("none", None, "print", {})
TIMES = StageTimes(images=2, backbone_s=9.0, starved_s=1.0, engine="xla", device="gpu")
ROWS = [
    {"uri": f"/{name}.jpg", "version": name, "size": 1, "label": "rose", "split": "train"}
    for name in "abcde"
]
MANIFEST = pa.Table.from_pylist(ROWS, schema=schemas.MANIFEST)


@dataclass
class WorkingApp:
    """Gives every image of a shard the same feature at once, and tells made-up times."""

    store: Store
    beats: MemoryBeats
    done: list[ExtractShard] = field(default_factory=list)

    def send_task(self, name: str, args: list[Any], **_: Any) -> None:
        message = ExtractShard.from_json(args[0])
        rows = read_table(self.store, layout.shard_rows(message.run_id, message.plan, message.shard))
        features = [
            {"uri": uri, "version": version, "status": schemas.OK, "feature": [1.0]}
            for uri, version in zip(*map(rows.column, ("uri", "version")), strict=True)
        ]
        schema = schemas.features(1, pa.float32())
        write_table(self.store, message.result_key(), pa.Table.from_pylist(features, schema=schema))
        self.beats.send(message.beat_name(), Beat(DONE, "worker-1", stages=TIMES.to_json()))
        self.done.append(message)

    def is_alive(self) -> bool:
        return True


@pytest.fixture
def app(tmp_path: Path) -> WorkingApp:
    return WorkingApp(open_store(str(tmp_path)), MemoryBeats())


@pytest.fixture
def pipeline(app: WorkingApp) -> Iterator[Pipeline]:
    record = RunRecord(app.store, "run-1", {})
    log = logging.getLogger("retrain")
    handlers, propagates = list(log.handlers), log.propagate
    yield Pipeline(app.store, Engine(app, app.beats, app), Reporter(), record)
    log.handlers[:], log.propagate = handlers, propagates


def test_the_options_of_an_extraction_reach_its_tasks(app: WorkingApp, pipeline: Pipeline) -> None:
    options = ExtractionOptions(3, 16, "openvino", "bfloat16")
    pipeline.extract(MANIFEST, BACKBONE, options)
    asked = {(each.batch_size, each.engine, each.precision) for each in app.done}
    assert (len(app.done), asked) == (2, {(16, "openvino", "bfloat16")})


def test_a_task_is_left_to_choose_by_itself(app: WorkingApp, pipeline: Pipeline) -> None:
    pipeline.extract(MANIFEST, BACKBONE, ExtractionOptions())
    (asked,) = app.done
    assert (asked.batch_size, asked.engine, asked.precision) == (None, "auto", "auto")


def test_the_result_and_the_record_say_where_the_time_went(app: WorkingApp, pipeline: Pipeline) -> None:
    # Given three shards of at most two images
    extraction = pipeline.extract(MANIFEST, BACKBONE, ExtractionOptions(shard_size=2))
    result = pipeline.finish({"run_id": "run-1"}, extraction)

    # Then what their workers told is in the result
    stages = result["stages"]
    assert (stages["shards_told"], stages["shards"]) == (3, 3)
    assert stages["extract"]["backbone_s"] == 27.0
    (worker,) = stages["workers"]
    assert (worker["images"], worker["busy"], worker["images_per_s"]) == (6, 0.9, 0.2)
    assert stages["bottleneck"].startswith("backbone-bound: the GPU is busy 90 % of the time")

    # and the command's own stages, which are less than all of it
    own = [stages[name] for name in ("plan_s", "extract_s", "count_s")]
    assert all(seconds > 0 for seconds in own)
    assert sum(own) <= result["seconds"]
    assert stages["extract_s"] == extraction.seconds

    # and the record of the run has it as the result does
    record = json.loads(app.store.read(layout.run_record("run-1")))
    assert record["result"] == json.loads(json.dumps(result))


def test_an_extraction_of_known_images_has_no_time_to_tell(pipeline: Pipeline) -> None:
    pipeline.extract(MANIFEST, BACKBONE, ExtractionOptions())
    pipeline.clock.stages.clear()
    again = pipeline.extract(MANIFEST, BACKBONE, ExtractionOptions(engine="xla"))
    stages = pipeline.finish({}, again)["stages"]
    assert set(stages) & {"extract_s", "train_s"} == set()
    assert (stages["shards_told"], stages["shards"]) == (0, 0)
    assert (stages["extract"], stages["workers"], stages["bottleneck"]) == (None, [], None)
    assert again.summary()["extract_seconds"] == 0
