"""orchestrator.clock: the seconds of stages."""

import time

import pytest

from orchestrator.clock import Clock


def test_stages_are_timed_in_the_order_they_were_begun() -> None:
    clock = Clock()
    with clock.timed("list_s"):
        time.sleep(0.02)
    with clock.timed("extract_s"):
        pass
    assert list(clock.stages) == ["list_s", "extract_s"]
    assert clock.stages["list_s"] >= 0.02 > clock.stages["extract_s"] > 0
    assert clock.total_s() >= sum(clock.stages.values())


def test_a_stage_in_two_parts_is_their_sum() -> None:
    clock = Clock()
    for _ in range(2):
        with clock.timed("load_s"):
            time.sleep(0.02)
    assert clock.stages["load_s"] >= 0.04


def test_a_stage_that_fails_is_timed() -> None:
    clock = Clock()
    with pytest.raises(ValueError, match="bad"), clock.timed("load_s"):
        raise ValueError("bad")
    assert clock.stages["load_s"] > 0
