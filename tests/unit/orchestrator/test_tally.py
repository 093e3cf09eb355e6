"""orchestrator.tally: how long each worker was seen."""

from orchestrator.tally import Tally
from workers.contract.beats import DONE, RUNNING, Beat
from workers.contract.stages import StageTimes


def test_a_worker_is_seen_from_its_first_beat_to_its_last() -> None:
    tally = Tally()
    tally.heard(Beat(RUNNING, "first", done=1), 100.0)
    tally.heard(Beat(RUNNING, "second", done=1), 103.0)
    tally.heard(Beat(RUNNING, "first", done=9), 105.0)
    last = Beat(DONE, "first", stages=StageTimes(images=9).to_json())
    tally.heard(last, 107.5)
    tally.landed(last)

    # a worker that has told nothing of its time yet is not in the report
    assert [(each.worker, each.seen_s) for each in tally.workers()] == [("first", 7.5)]


def test_nothing_heard_is_nobody() -> None:
    assert Tally().workers() == []
