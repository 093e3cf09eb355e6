"""workers.tasks.base: what is done around every task's work."""

import threading
from pathlib import Path

import pytest

from workers.contract.messages import ExtractShard
from workers.tasks.base import Context, perform

TIMEOUT_S = 10


@pytest.fixture
def message(tmp_path: Path) -> ExtractShard:
    return ExtractShard(str(tmp_path), "run", "plan", "shard", "backbone", None, "fingerprint")


def test_a_message_that_comes_twice_to_a_process_is_worked_on_once(message: ExtractShard) -> None:
    """As happens when a broker delivers again what this very process is at."""
    # Given a task at work
    calls: list[ExtractShard] = []
    started, may_end = threading.Event(), threading.Event()

    def work(given: ExtractShard, context: Context) -> None:
        calls.append(given)
        started.set()
        assert may_end.wait(TIMEOUT_S)

    first = threading.Thread(target=perform, args=(message, work), daemon=True)
    first.start()
    assert started.wait(TIMEOUT_S)

    # When its message comes again, then that returns and does nothing
    again = threading.Thread(target=perform, args=(message, work), daemon=True)
    again.start()
    again.join(TIMEOUT_S)
    assert not again.is_alive()
    assert len(calls) == 1

    # And once it has ended without a result, a third is worked on
    may_end.set()
    first.join(TIMEOUT_S)
    perform(message, work)
    assert len(calls) == 2


def test_work_whose_result_is_there_is_left(message: ExtractShard, tmp_path: Path) -> None:
    calls = []
    result = tmp_path / message.result_key()
    result.parent.mkdir(parents=True)
    result.write_bytes(b"")
    perform(message, lambda given, context: calls.append(given))
    assert not calls
