"""How long the stages of a command take."""

import time
from collections.abc import Iterator
from contextlib import contextmanager


class Clock:
    """Starts with the command; knows the seconds of each stage, in the order they were begun."""

    def __init__(self) -> None:
        self._began_s = time.monotonic()
        self.stages: dict[str, float] = {}

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """A stage, or another part of one that was timed before."""
        began_s = time.monotonic()
        self.stages.setdefault(stage, 0.0)
        try:
            yield
        finally:
            self.stages[stage] += time.monotonic() - began_s

    def total_s(self) -> float:
        """All of it, the time between stages included."""
        return time.monotonic() - self._began_s
