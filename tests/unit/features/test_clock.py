"""workers.features.clock: every second at work is the backbone's, or it starves."""

from types import SimpleNamespace

import pytest

from workers.features.clock import Clock


class Time:
    """Goes on when it is told to."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def pass_s(self, seconds: float) -> None:
        self.now_s += seconds


@pytest.fixture
def time(monkeypatch: pytest.MonkeyPatch) -> Time:
    made = Time()
    monkeypatch.setattr("workers.features.clock.time", SimpleNamespace(monotonic=lambda: made.now_s))
    return made


def taken(clock: Clock) -> dict[str, float | int]:
    """The sums that are not zero."""
    return {name: value for name, value in clock.take().items() if value}


def test_time_at_work_is_the_backbones_or_starved_and_idle_time_is_neither(time: Time) -> None:
    clock = Clock()
    time.pass_s(100)  # idle
    with clock.at_work():
        time.pass_s(2)
        with clock.computing(4):
            time.pass_s(3)
        time.pass_s(1)
    time.pass_s(100)
    assert taken(clock) == {"starved_s": 3, "backbone_s": 3, "images": 4}


def test_two_batches_and_two_shards_at_once_take_their_time_once(time: Time) -> None:
    clock = Clock()
    with clock.at_work():
        time.pass_s(1)
        with clock.at_work(), clock.computing(4):
            time.pass_s(2)
            with clock.computing(3):
                time.pass_s(4)
            time.pass_s(8)
    assert taken(clock) == {"starved_s": 1, "backbone_s": 14, "images": 7}


def test_threads_add_up_what_they_wait_for(time: Time) -> None:
    clock = Clock()
    with clock.measured("fetch_s"):
        time.pass_s(2)
    with clock.measured("fetch_s"), clock.measured("decode_s"):
        time.pass_s(3)
    assert taken(clock) == {"fetch_s": 5, "decode_s": 3}


def test_what_fails_is_measured_all_the_same(time: Time) -> None:
    clock = Clock()

    def fail() -> None:
        with clock.at_work(), clock.computing(4), clock.measured("fetch_s"):
            time.pass_s(2)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    time.pass_s(100)
    assert taken(clock) == {"fetch_s": 2, "backbone_s": 2, "images": 4}


def test_taking_begins_anew_in_the_middle_of_a_batch(time: Time) -> None:
    clock = Clock()
    with clock.at_work(), clock.computing(4):
        time.pass_s(5)
        assert taken(clock) == {"backbone_s": 5}
        time.pass_s(2)
    assert taken(clock) == {"backbone_s": 2, "images": 4}
    assert taken(clock) == {}
