"""Telling the orchestrator at once that a task's process died, from the main process."""

import logging
import os
import socket
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from celery.exceptions import WorkerLostError
from celery.worker.request import Request

from workers.contract.beats import LOST, RUNNING, Beat, Beats
from workers.contract.broker import beats_of
from workers.contract.errors import BadMessage, RetrainError
from workers.contract.messages import MESSAGES, Message

log = logging.getLogger("retrain.worker")


# the last tasks that were begun, and by which process: they may have returned to Celery, and
# their images still be computed (`overlap`)
_begun: deque[tuple[int, Message]] = deque(maxlen=16)


class TellingRequest(Request):  # type: ignore[misc]
    """Celery's own bookkeeping of a task in the main process, and one more beat."""

    # on_success is not asked: Celery derives from this class and replaces it
    def on_accepted(self, pid: int, time_accepted: float) -> Any:
        if message := message_of(self):
            _begun.append((pid, message))
        return super().on_accepted(pid, time_accepted)

    def on_failure(self, exc_info: Any, *args: Any, **options: Any) -> Any:
        error = getattr(exc_info.exception, "exc", exc_info.exception)
        if isinstance(error, WorkerLostError | SystemExit):
            self._tell(error)
        return super().on_failure(exc_info, *args, **options)

    def _tell(self, error: BaseException) -> None:
        log.error("%s: its process died: %s", self.task.name, error)
        beats, message = beats_of(self.app.conf.broker_url), message_of(self)
        if beats is None or message is None:
            return
        try:
            tell_of_begun(beats, LOST, lambda pid: pid == self.worker_pid)
            beats.send(message.beat_name(), Beat(LOST, queue=message.queue))
        except RetrainError as unheard:
            log.warning("nobody was told: %s", unheard)


def tell_of_gone(beats: Beats) -> None:
    """Tell of what processes had begun that are no more: Celery, which has no task of theirs, does
    not ask. Raises StoreUnavailable."""
    tell_of_begun(beats, LOST, _is_gone)


def tell_of_begun(beats: Beats, state: str, is_meant: Callable[[int], bool]) -> None:
    """Tell of all that some processes had begun and not ended. Raises StoreUnavailable."""
    meant = [(pid, message) for pid, message in _begun if is_meant(pid)]
    workers = {message.beat_name(): f"{socket.gethostname()}-{pid}" for pid, message in meant}
    for name, beat in beats.latest(list(workers)).items():
        if beat.state == RUNNING and beat.worker == workers[name]:
            beats.send(name, Beat(state, queue=beat.queue))
    for each in meant:
        _begun.remove(each)


def _is_gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def message_of(request: Request) -> Message | None:
    """The message of a task in the main process; None for one that is not of ours."""
    for kind in MESSAGES:
        if kind.task == request.task.name:
            with suppress(BadMessage, IndexError):
                return kind.from_json(request.args[0])
    return None
