"""Signs of life: what a task tells while it runs. Hints for speed and progress, never the truth.

A beat is one small record for each task, which replaces the one before it. What a task achieved
is read from the store; a lost beat costs time at most.
"""

import threading
from dataclasses import asdict, dataclass
from typing import Any, Protocol

RUNNING, DONE, FAILED = "running", "done", "failed"


@dataclass(frozen=True)
class Beat:
    state: str
    worker: str = ""
    done: int = 0
    total: int = 0
    count: int = 0
    """Rises with every beat of a running task: one that stands still is a dead worker's."""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


class Beats(Protocol):
    """Where beats are kept, by the name of their task."""

    def send(self, task: str, beat: Beat) -> None: ...

    def latest(self, tasks: list[str]) -> dict[str, Beat]:
        """The last beat of each of these tasks that has one."""
        ...


class MemoryBeats:
    """For tasks that run in this process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._beats: dict[str, Beat] = {}

    def send(self, task: str, beat: Beat) -> None:
        with self._lock:
            self._beats[task] = beat

    def latest(self, tasks: list[str]) -> dict[str, Beat]:
        with self._lock:
            return {task: self._beats[task] for task in tasks if task in self._beats}


IN_PROCESS = MemoryBeats()
