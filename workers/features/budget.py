"""Memory that many threads share: who would take more than is left waits."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Budget:
    """At most `limit` of something (bytes, pixels) at a time, over all threads.

    One that asks for more than the limit gets it alone, once nothing else is taken.
    """

    def __init__(self, limit: int) -> None:
        self._limit = self._left = limit
        self._changed = threading.Condition()

    def take(self, amount: int) -> None:
        amount = min(amount, self._limit)
        with self._changed:
            self._changed.wait_for(lambda: amount <= self._left)
            self._left -= amount

    def give_back(self, amount: int) -> None:
        with self._changed:
            self._left += min(amount, self._limit)
            self._changed.notify_all()

    @contextmanager
    def taken(self, amount: int) -> Iterator[None]:
        self.take(amount)
        try:
            yield
        finally:
            self.give_back(amount)
