import threading
import time

import pytest

from workers.ahead import in_order


def test_results_come_in_the_order_of_the_items() -> None:
    def late_if_early(number: int) -> int:
        time.sleep(0.02 if number == 0 else 0)
        return number * number

    with in_order(late_if_early, range(20), 4) as ahead:
        assert list(ahead) == [number * number for number in range(20)]


def test_calls_go_on_at_the_same_time() -> None:
    together = threading.Barrier(3)
    with in_order(lambda _: together.wait(10), range(3), 3) as ahead:
        assert len(list(ahead)) == 3


def test_a_slow_loop_holds_few_results() -> None:
    begun: list[int] = []
    with in_order(begun.append, range(100), 3) as ahead:
        for used, _ in enumerate(ahead, 1):
            time.sleep(0.001)
            assert len(begun) <= used + 3 + 1


def test_a_loop_that_is_left_begins_no_more_calls_and_leaves_no_thread() -> None:
    before, begun = threading.active_count(), []

    def work(number: int) -> None:
        begun.append(number)
        time.sleep(0.01)

    def leave_early() -> None:
        with in_order(work, range(100), 2) as ahead:
            for _ in ahead:
                raise KeyError

    with pytest.raises(KeyError) as left:
        leave_early()
    assert left.traceback  # and with it the loop's frame
    assert threading.active_count() == before
    assert len(begun) <= 4


def test_what_a_call_raises_is_raised_in_the_loop() -> None:
    with pytest.raises(ZeroDivisionError), in_order(lambda each: 1 / each, [2, 0, 1], 2) as ahead:
        list(ahead)
