"""Signs of life: what a task tells while it runs. Hints for speed and progress, never the truth.

A beat is one small record for each task, which replaces the one before it. What a task achieved
is read from the store; a lost beat costs time at most.
"""

import json
import threading
from dataclasses import asdict, dataclass
from typing import Any, Protocol, Self

RUNNING = "running"
DONE = "done"
FAILED = "failed"
# The task ended without a result, and somebody should do it again at once:
HANDED_BACK = "handed back"  # the worker is shutting down
LOST = "lost"  # the task's process died

BEAT_EVERY_S = 5.0
SILENCE_S = 40.0
"""A running task whose beat stands still for so long is a dead worker's."""


@dataclass(frozen=True)
class Beat:
    state: str
    worker: str = ""
    queue: str = ""
    done: int = 0
    total: int = 0
    count: int = 0
    """Rises with every beat of a running task."""
    error: dict[str, str] | None = None
    """What a failed task failed of, as `errors.to_record` writes it."""
    stages: dict[str, Any] | None = None
    """Where the time went, told with the last beat of an extraction (`stages.StageTimes`)."""

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str | bytes) -> Self:
        return cls(**json.loads(text))


@dataclass(frozen=True)
class WorkerInfo:
    """What a worker tells of itself every few seconds."""

    name: str
    queues: list[str]
    gpus: int
    versions: dict[str, str]

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str | bytes) -> Self:
        return cls(**json.loads(text))


class Beats(Protocol):
    """Where beats are kept, by the name of their task. Raises StoreUnavailable."""

    expire: bool
    """Whether the beat of a task that runs no more vanishes by itself."""

    def send(self, task: str, beat: Beat) -> None: ...

    def latest(self, tasks: list[str]) -> dict[str, Beat]:
        """The last beat of each of these tasks that has one."""
        ...

    def clear(self, task: str) -> None:
        """Forget what an earlier try of the task told."""
        ...

    def greet(self, worker: WorkerInfo) -> None:
        """Say that a worker is there."""
        ...

    def workers(self) -> list[WorkerInfo] | None:
        """The workers that were there a moment ago; None where that cannot be known."""
        ...

    def remembers(self, token: str) -> bool:
        """Whether all that was told since the token was first asked for is still known; a broker
        that was restarted empty has forgotten its messages with it."""
        ...


class MemoryBeats:
    """For tasks that run in this process."""

    expire = False

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._beats: dict[str, Beat] = {}

    def send(self, task: str, beat: Beat) -> None:
        with self._lock:
            self._beats[task] = beat

    def latest(self, tasks: list[str]) -> dict[str, Beat]:
        with self._lock:
            return {task: self._beats[task] for task in tasks if task in self._beats}

    def clear(self, task: str) -> None:
        with self._lock:
            self._beats.pop(task, None)

    def greet(self, worker: WorkerInfo) -> None:
        pass

    def workers(self) -> list[WorkerInfo] | None:
        return None

    def remembers(self, token: str) -> bool:
        return True


def running_set(queue: str) -> str:
    """The Redis sorted set of the tasks of a queue that are running: what KEDA counts."""
    return f"retrain:running:{queue}"


IN_PROCESS = MemoryBeats()
