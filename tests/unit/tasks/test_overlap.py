"""workers.tasks.overlap: two tasks in one process, and no more."""

import threading
from collections.abc import Callable, Iterator

import pytest

from workers.tasks import overlap

SOON_S = 0.1
TIMEOUT_S = 10


class Task:
    """Work that feeds and ends when it is told to."""

    def __init__(self) -> None:
        self.started, self.ended = threading.Event(), threading.Event()
        self._may_feed, self._may_end = threading.Event(), threading.Event()

    def __call__(self, fed: Callable[[], None]) -> None:
        self.started.set()
        assert self._may_feed.wait(TIMEOUT_S)
        fed()
        assert self._may_end.wait(TIMEOUT_S)
        self.ended.set()

    def feed(self) -> None:
        self._may_feed.set()

    def end(self) -> None:
        self._may_feed.set()
        self._may_end.set()


def fed() -> Task:
    """One that was begun and has fed its images."""
    task = Task()
    task.feed()
    overlap.begin(task)
    return task


def calling(call: Callable[[], None]) -> threading.Event:
    """Set once the call has returned, in a thread of its own."""
    returned = threading.Event()

    def run() -> None:
        call()
        returned.set()

    threading.Thread(target=run, daemon=True).start()
    return returned


@pytest.fixture(autouse=True)
def _nothing_is_left() -> Iterator[None]:
    yield
    assert calling(overlap.finish).wait(TIMEOUT_S), "a task keeps its place"


def test_begin_returns_when_the_images_are_fed_and_no_sooner() -> None:
    task = Task()
    begun = calling(lambda: overlap.begin(task))
    assert task.started.wait(TIMEOUT_S)
    assert not begun.wait(SOON_S)
    task.feed()
    assert begun.wait(TIMEOUT_S)
    assert not task.ended.is_set()
    task.end()
    assert task.ended.wait(TIMEOUT_S)


def test_work_that_never_says_that_it_has_fed_returns_at_its_end() -> None:
    done: list[int] = []
    overlap.begin(lambda fed: done.append(1))
    assert done == [1]


def test_a_third_task_waits_until_one_of_two_has_ended() -> None:
    # Given two tasks whose last images are being computed
    first, second, third = fed(), fed(), Task()

    # When a third comes, then it starts only once one of them has ended
    begun = calling(lambda: overlap.begin(third))
    assert not third.started.wait(SOON_S)
    first.end()
    assert third.started.wait(TIMEOUT_S)
    assert not second.ended.is_set()
    third.feed()
    assert begun.wait(TIMEOUT_S)
    second.end()
    third.end()


def test_what_is_done_alone_waits_for_all_and_keeps_no_place() -> None:
    first, second = fed(), fed()
    alone = threading.Event()
    done = calling(lambda: overlap.alone(alone.set))
    second.end()
    assert not alone.wait(SOON_S)
    first.end()
    assert alone.wait(TIMEOUT_S)
    assert done.wait(TIMEOUT_S)

    # Then there is room for two again
    for task in (fed(), fed()):
        task.end()


def test_finish_waits_for_all() -> None:
    first, second = fed(), fed()
    finished = calling(overlap.finish)
    first.end()
    assert not finished.wait(SOON_S)
    second.end()
    assert finished.wait(TIMEOUT_S)
    assert second.ended.is_set()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize("feeds", [False, True])
def test_work_that_raises_gives_its_place_back(feeds: bool) -> None:
    def work(fed: Callable[[], None]) -> None:
        if feeds:
            fed()
        raise ZeroDivisionError

    for _ in range(5):
        assert calling(lambda: overlap.begin(work)).wait(TIMEOUT_S)


def test_an_error_of_work_done_alone_is_its_callers() -> None:
    def work() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        overlap.alone(work)
