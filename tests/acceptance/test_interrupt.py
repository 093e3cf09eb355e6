"""A run that is stopped keeps what it did, and the same command goes on from there."""

import json
import signal
import time
from pathlib import Path
from typing import NamedTuple

import pyarrow.parquet as pq
import pytest

from orchestrator.demo import TRAINING, draw_pictures
from tests.command import Finished, Retrain
from workers.contract.errors import ExitCode

PER_LABEL = 60
TOTAL = 4 * PER_LABEL
PATIENCE_S = 60


class Stopped(NamedTuple):
    finished: Finished
    arguments: tuple[object, ...]
    store: Path

    def shards(self) -> list[Path]:
        return sorted((self.store / "features").glob("*/*.parquet"))


@pytest.fixture(scope="module")
def stopped(
    retrain: Retrain, small_backbone: Path, tmp_path_factory: pytest.TempPathFactory
) -> Stopped:
    """A run interrupted when its third shard is there."""
    folder = tmp_path_factory.mktemp("interrupted")
    draw_pictures(folder, PER_LABEL, unseen_per_label=0)
    store = folder / "store"
    places = (folder / TRAINING, "--store", store, "--backbone", small_backbone)
    arguments = ("run", *places, "--shard-size", 2, "--json")
    process = retrain.start(*arguments)
    deadline = time.monotonic() + PATIENCE_S
    while len(list(store.glob("features/*/*.parquet"))) < 3:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, "no shard was written"
        time.sleep(0.005)
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=PATIENCE_S)
    return Stopped(Finished(process.returncode, stdout, stderr), arguments, store)


def test_an_interrupted_run_says_so_in_one_line(stopped: Stopped) -> None:
    assert stopped.finished.code == ExitCode.INTERRUPTED, stopped.finished.stderr
    error = stopped.finished.json["error"]
    assert (error["type"], error["exit_code"]) == ("Interrupted", 130)
    assert "the same command goes on" in stopped.finished.error


def test_an_interrupted_run_leaves_whole_files_then_completes_with_the_rest(
    stopped: Stopped, retrain: Retrain
) -> None:
    done = sum(pq.read_table(path).num_rows for path in stopped.shards())
    assert 0 < done < TOTAL
    for path in stopped.store.rglob("*.json"):
        json.loads(path.read_text())
    again = retrain(*stopped.arguments)
    assert again.code == 0, again.stderr
    assert (again.json["extracted"], again.json["reused"]) == (TOTAL - done, done)
    assert again.json["images"] == {"total": TOTAL, "ok": TOTAL, "failed": 0}
    assert sum(pq.read_table(path).num_rows for path in stopped.shards()) == TOTAL
