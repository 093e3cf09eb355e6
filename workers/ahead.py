"""Calls that run ahead of the loop that uses their results."""

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


@contextmanager
def in_order(work: Callable[[T], R], items: Iterable[T], threads: int) -> Iterator[Iterator[R]]:
    """The results of work, in the order of the items, while `threads` calls go on.

    At most `threads` + 1 results are held, however slow the loop is. Left early, the calls that
    have not begun are dropped and the others waited for.
    """
    results = _results(work, items, threads)
    try:
        yield results
    finally:
        # not left to the garbage collector: an error keeps the loop's frame alive
        results.close()


def _results(work: Callable[[T], R], items: Iterable[T], threads: int) -> Generator[R]:
    waiting: deque[Future[R]] = deque()
    with ThreadPoolExecutor(threads, "ahead") as pool:
        try:
            for item in items:
                waiting.append(pool.submit(work, item))
                if len(waiting) > threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
