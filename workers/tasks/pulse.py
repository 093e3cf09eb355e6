"""The beats of one running task, sent beside its work."""

import logging
import os
import socket
import threading
import time
from types import TracebackType
from typing import Any, Self

from workers.contract.beats import BEAT_EVERY_S, RUNNING, Beat, Beats
from workers.contract.errors import HandedBack, RetrainError, RunCancelled, to_record
from workers.contract.messages import Message
from workers.contract.stages import StageTimes
from workers.drain import is_over
from workers.storage import open_store

log = logging.getLogger("retrain.worker")

_SHOW_EVERY_S = 1.0
_ASK_EVERY_S = 5.0


def worker_name() -> str:
    return f"{socket.gethostname()}-{os.getpid()}"


class Pulse:
    """Sends a beat every few seconds for as long as it is open, and tells when it is time to stop."""

    def __init__(self, message: Message, beats: Beats) -> None:
        self._message, self._beats = message, beats
        self._done = self._total = self._count = 0
        self._shown_s, self._asked_s = 0.0, time.monotonic()
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="pulse", daemon=True)

    def __enter__(self) -> Self:
        self._send(RUNNING)
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._closed.set()
        self._thread.join()

    def progress(self, done: int, total: int) -> None:
        """Told by the work as often as it likes. Raises HandedBack or RunCancelled when it is time
        to stop: nothing is half done between two calls."""
        self._done, self._total = done, total
        if is_over():
            raise HandedBack("the worker is shutting down")
        now = time.monotonic()
        if now - self._shown_s > _SHOW_EVERY_S:
            self._send(RUNNING)
        if now - self._asked_s > _ASK_EVERY_S:
            self._asked_s = now
            if self._is_cancelled():
                raise RunCancelled(f"{self._message.run_id} was cancelled")

    def _is_cancelled(self) -> bool:
        try:
            return self._message.is_cancelled(open_store(self._message.store, 0).exists)
        except RetrainError:  # then nobody knows, and the work goes on
            return False

    def end(self, state: str, error: Exception | None = None, stages: StageTimes | None = None) -> None:
        """The last beat."""
        self._closed.set()
        self._thread.join()  # no beat of a running task after it
        self._send(state, to_record(error) if error else None, stages.to_json() if stages else None)

    def _run(self) -> None:
        while not self._closed.wait(BEAT_EVERY_S):
            self._send(RUNNING)

    def _send(
        self, state: str, error: dict[str, str] | None = None, stages: dict[str, Any] | None = None
    ) -> None:
        self._count += 1
        self._shown_s = time.monotonic()
        name, queue = worker_name(), self._message.queue
        beat = Beat(state, name, queue, self._done, self._total, self._count, error, stages)
        try:
            self._beats.send(self._message.beat_name(), beat)
        except RetrainError as error:
            log.warning("%s: a beat was lost: %s", self._message.beat_name(), error)
