"""orchestrator.dispatch: what the workers tell of their time is summed when their shards land."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from orchestrator.dispatch import Dispatch
from orchestrator.engine import Engine
from workers.contract.beats import DONE, RUNNING, Beat, MemoryBeats
from workers.contract.messages import ExtractShard, Message
from workers.contract.stages import StageTimes
from workers.storage import Store, open_store

Work = Callable[[Message], Beat | None]
TIMES = StageTimes(
    images=10, backbone_s=2.0, starved_s=0.5, decode_s=4.0, decode_threads=2, engine="xla"
)


class WorkingApp:
    """Does a task when it is sent: writes its result, and tells the beat that `work` gives."""

    def __init__(self, store: Store, beats: MemoryBeats, work: Work) -> None:
        self._store, self._beats, self._work = store, beats, work

    def send_task(self, name: str, args: list[Any], **_: Any) -> None:
        message = ExtractShard.from_json(args[0])
        if (beat := self._work(message)) is not None:
            self._beats.send(message.beat_name(), beat)
        self._store.write(message.result_key(), b"")

    def is_alive(self) -> bool:
        return True


def dispatched(folder: Path, shards: int, work: Work) -> Dispatch:
    """A dispatch of so many shards, done by `work` in this thread."""
    store, beats = open_store(str(folder)), MemoryBeats()
    app = WorkingApp(store, beats, work)
    messages = [
        ExtractShard(store.url, "run", "plan", f"{number}", "none", None, "print")
        for number in range(shards)
    ]
    dispatch = Dispatch(Engine(app, beats, app), store, messages, shards, window=3)
    dispatch.run()
    return dispatch


def told(worker: str, times: StageTimes | None = TIMES) -> Beat:
    return Beat(DONE, worker, stages=times.to_json() if times else None)


def test_the_times_of_all_shards_are_one_sum_for_each_worker(tmp_path: Path) -> None:
    # Given seven shards, of which every third is done by the second worker
    def work(message: Message) -> Beat:
        return told("second" if message.name_in_run() in ("extract-2", "extract-5") else "first")

    tally = dispatched(tmp_path, 7, work).tally

    # Then each has the sum of its own
    first, second = tally.workers()
    assert (first.worker, second.worker) == ("first", "second")
    assert (first.times.images, second.times.images) == (50, 20)
    assert (first.times.backbone_s, second.times.backbone_s) == (10.0, 4.0)
    assert (first.times.decode_s, second.times.decode_s) == (20.0, 8.0)
    assert first.times.decode_threads == second.times.decode_threads == 2
    assert (tally.shards_told, tally.shards) == (7, 7)
    assert first.seen_s > second.seen_s > 0


def test_a_shard_that_tells_nothing_is_done_all_the_same(tmp_path: Path) -> None:
    # Given a shard that another orchestrator's worker had done: its beat says no more than that
    def work(message: Message) -> Beat:
        return told("first", None if message.name_in_run() == "extract-1" else TIMES)

    tally = dispatched(tmp_path, 3, work).tally
    assert (tally.shards_told, tally.shards) == (2, 3)
    assert tally.workers()[0].times.images == 20


def test_a_beat_that_is_not_the_last_is_not_summed(tmp_path: Path, monkeypatch: Any) -> None:
    # Given a result that is seen before the last beat
    monkeypatch.setattr("orchestrator.dispatch._LOOK_AGAIN_S", 0.0)
    tally = dispatched(
        tmp_path, 2, lambda message: Beat(RUNNING, "first", stages=TIMES.to_json())
    ).tally
    assert (tally.shards_told, tally.shards) == (0, 2)
    assert tally.workers() == []


@pytest.mark.parametrize("stages", [{}, {"images": "many", "colour": "red"}])
def test_times_that_make_no_sense_stop_nothing(tmp_path: Path, stages: dict[str, Any]) -> None:
    tally = dispatched(tmp_path, 1, lambda message: Beat(DONE, "first", stages=stages)).tally
    assert [each.times for each in tally.workers()] == [StageTimes()]
