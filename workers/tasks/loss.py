"""Telling the orchestrator at once that a task's process died, from the main process."""

import logging
import socket
from collections import deque
from contextlib import suppress
from typing import Any

from celery.exceptions import WorkerLostError
from celery.worker.request import Request

from workers.contract.beats import LOST, RUNNING, Beat
from workers.contract.broker import beats_of
from workers.contract.errors import BadMessage, RetrainError
from workers.contract.messages import MESSAGES, Message
from workers.tasks import overlap

log = logging.getLogger("retrain.worker")


# the last tasks that the process began: their images may still be computed (`overlap`)
_begun: deque[Message] = deque(maxlen=overlap.TASKS + 1)


class TellingRequest(Request):  # type: ignore[misc]
    """Celery's own bookkeeping of a task in the main process, and one more beat."""

    # on_success is not asked: Celery derives from this class and replaces it
    def on_accepted(self, *args: Any, **options: Any) -> Any:
        if message := message_of(self):
            _begun.append(message)
        return super().on_accepted(*args, **options)

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
            others = [each.beat_name() for each in _begun if each != message]
            for name, beat in beats.latest(others).items():
                if beat.state == RUNNING and beat.worker == f"{socket.gethostname()}-{self.worker_pid}":
                    beats.send(name, Beat(LOST, queue=beat.queue))
            beats.send(message.beat_name(), Beat(LOST, queue=message.queue))
        except RetrainError as unheard:
            log.warning("nobody was told: %s", unheard)


def message_of(request: Request) -> Message | None:
    """The message of a task in the main process; None for one that is not of ours."""
    for kind in MESSAGES:
        if kind.task == request.task.name:
            with suppress(BadMessage, IndexError):
                return kind.from_json(request.args[0])
    return None
