"""Adding up what the threads of an extractor do."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager


class Clock:
    """Seconds by stage, since they were last taken. Every method from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sums: dict[str, float] = {}
        self._images = self._shards = self._computing = 0
        self._last_s = time.monotonic()

    @contextmanager
    def measured(self, stage: str) -> Iterator[None]:
        """Time of one thread, added to the others'."""
        began = time.monotonic()
        try:
            yield
        finally:
            with self._lock:
                self._add(stage, time.monotonic() - began)

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """A shard is at hand: from here on the backbone computes or starves."""
        with self._lock:
            self._book()
            self._shards += 1
        try:
            yield
        finally:
            with self._lock:
                self._book()
                self._shards -= 1

    @contextmanager
    def computing(self, images: int) -> Iterator[None]:
        """A batch is in the backbone."""
        with self._lock:
            self._book()
            self._computing += 1
        try:
            yield
        finally:
            with self._lock:
                self._book()
                self._computing -= 1
                self._images += images

    def take(self) -> dict[str, float | int]:
        """The sums by their names in `StageTimes`; they begin anew."""
        with self._lock:
            self._book()
            taken: dict[str, float | int] = {**self._sums, "images": self._images}
            self._sums, self._images = {}, 0
            return taken

    def _book(self) -> None:
        """The time since the last change belongs to what was the case."""
        now = time.monotonic()
        if self._computing or self._shards:
            self._add("backbone_s" if self._computing else "starved_s", now - self._last_s)
        self._last_s = now

    def _add(self, stage: str, seconds: float) -> None:
        self._sums[stage] = self._sums.get(stage, 0.0) + seconds
