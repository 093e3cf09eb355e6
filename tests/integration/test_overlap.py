"""A worker with two shards at hand that dies, is told to stop, or is unfit for its work."""

import json
import os
import signal
from collections import Counter
from pathlib import Path

import pytest

from tests.backbones import save_cancelling_backbone
from tests.command import Finished, Retrain
from tests.conftest import Pictures
from tests.fleet.harness import Fleet, Run, Undisturbed, Worker
from tests.fleet.servers import RedisServer, until
from workers.contract.beats import DONE, RUNNING, Beat
from workers.contract.errors import ExitCode
from workers.features.engines import engine

pytestmark = pytest.mark.timeout(240)

SHARDS = 11
"""Of twelve images, three batches each: a shard is fed as long as another is computed."""


def start_run(fleet: Fleet) -> Run:
    return fleet.start_run("--shard-size", "12", "--batch-size", "4")


def beats_of(broker: RedisServer) -> list[Beat]:
    """The last beat of every shard that was begun."""
    keys = [key for key in broker.client.keys("retrain:beat:*") if b"/extract-" in key]
    return [Beat.from_json(text) for text in broker.client.mget(keys) if text] if keys else []


def wait_for_overlap(broker: RedisServer, worker: Worker) -> None:
    """Until the images of two shards are computed in the worker's process, and a third waits there."""

    def is_there() -> bool:
        beats = beats_of(broker)
        states = Counter(beat.state for beat in beats)
        taken = SHARDS - broker.client.llen("extract")
        return states[RUNNING] == 2 and taken - states[DONE] == 3

    until(is_there, 90, "two shards at once")
    pids = {beat.worker.rpartition("-")[2] for beat in beats_of(broker) if beat.state == RUNNING}
    assert pids <= {str(worker.child.pid)}


def way(run: Run, fleet: Fleet, undisturbed: Undisturbed) -> str:
    """What a run said that ended as if nothing had disturbed it."""
    stdout, stderr = run.process.communicate(timeout=200)
    assert run.process.returncode == 0, stderr
    undisturbed.assert_same(fleet, json.loads(stdout))
    assert stderr.count("sending ") == stderr.count(" again: "), stderr
    return stderr


def test_both_shards_of_a_process_that_dies_are_sent_again_at_once(
    slow_fleet: Fleet, broker: RedisServer, undisturbed: Undisturbed
) -> None:
    # Given two shards that have returned to Celery and are still computed, and a third that waits
    worker = slow_fleet.start_worker()
    run = start_run(slow_fleet)
    wait_for_overlap(broker, worker)

    # When the process that works is killed
    worker.child.kill()

    # Then its main process has told of both, and of the third if that had reached it: nobody waited
    # for their silence, and nothing else was sent again
    said = way(run, slow_fleet, undisturbed)
    assert 2 <= said.count(" again: lost") <= 3
    assert said.count(" again: ") == said.count(" again: lost")


@pytest.mark.parametrize(("drain_s", "why"), [("30", None), ("0", "handed back")])
def test_a_worker_told_to_stop_keeps_or_hands_back_what_it_computes(
    slow_fleet: Fleet, broker: RedisServer, undisturbed: Undisturbed, drain_s: str, why: str | None
) -> None:
    worker = slow_fleet.start_worker("--drain", drain_s)
    run = start_run(slow_fleet)
    wait_for_overlap(broker, worker)
    done = slow_fleet.objects("features/")

    # When it is told to stop while two shards are computed, and a third waits
    worker.process.send_signal(signal.SIGTERM)
    assert worker.process.wait(40) == 0, worker.log.read_text()

    # Then they are in the store if there was time, and else handed back: another does the rest
    kept = slow_fleet.objects("features/")
    slow_fleet.start_worker()
    said = way(run, slow_fleet, undisturbed)
    assert "fell silent" not in said
    assert "Traceback" not in worker.log.read_text()
    if why is None:
        assert len(kept) - len(done) == 3
        assert " again: " not in said
    else:
        assert 2 <= said.count(f" again: {why}") <= 3


def skip_without_bfloat16() -> None:
    has = engine("tensorflow").precisions()
    if "bfloat16" not in has:
        pytest.skip(f"this machine computes in {', '.join(has)}, not in bfloat16")


def test_workers_whose_hardware_ruins_a_backbone_refuse_it_and_the_run_says_why(
    fleet: Fleet, tmp_path: Path
) -> None:
    # Given two workers, and a backbone that bfloat16 ruins
    skip_without_bfloat16()
    fleet.backbone = str(save_cancelling_backbone(tmp_path / "fragile"))
    fleet.stop()
    fleet.workers.clear()
    workers = [fleet.start_worker(), fleet.start_worker()]
    until(lambda: all("listening" in each.log.read_text() for each in workers), 60, "two workers")

    # When both have tried
    run = fleet.start_run("--shard-size", "10", "--precision", "bfloat16")
    stdout, stderr = run.process.communicate(timeout=200)

    # Then the run ends with one line that names the remedy, and no feature is in the store
    finished = Finished(run.process.returncode, stdout, stderr)
    assert finished.code == ExitCode.BACKBONE
    assert finished.error.endswith("use --precision float32")
    assert finished.json["error"]["type"] == "PrecisionLost"
    assert not fleet.objects("features/")

    # And each says so in its log, and is there for other work
    for worker in workers:
        assert worker.process.poll() is None
        assert "use --precision float32" in worker.log.read_text()
        assert "Traceback" not in worker.log.read_text()


def test_a_run_without_a_fleet_says_so_too(
    retrain: Retrain, pictures: Pictures, tmp_path: Path
) -> None:
    skip_without_bfloat16()
    backbone = save_cancelling_backbone(tmp_path / "fragile")
    finished = retrain(
        *("run", pictures.folder, "--store", tmp_path / "store", "--backbone", backbone),
        *("--precision", "bfloat16", "--json"),
    )
    assert finished.code == ExitCode.BACKBONE
    assert finished.error.endswith("use --precision float32")


def test_a_worker_without_the_engine_leaves_the_run_to_one_that_has_it(
    fleet: Fleet, tmp_path: Path
) -> None:
    # Given a worker that cannot import OpenVINO, and one that can
    (tmp_path / "openvino.py").write_text("raise ImportError('not here')")
    fleet.stop()
    fleet.workers.clear()
    without = fleet.start_worker(PYTHONPATH=f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}")
    workers = [without, fleet.start_worker()]
    until(lambda: all("listening" in each.log.read_text() for each in workers), 60, "two workers")

    # When a run asks for it
    finished = fleet.start_run("--shard-size", "5", "--engine", "openvino").result()

    # Then the one that can has done it all, and the other says what it lacks
    assert {each["engine"] for each in finished["stages"]["workers"]} == {"openvino"}
    assert "pip install '.[openvino]'" in without.log.read_text()
    assert without.process.poll() is None
