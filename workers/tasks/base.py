"""What every task does around its work: parse, skip what is done, retry, report."""

import json
import logging
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from workers.app import app
from workers.contract.beats import DONE, FAILED, IN_PROCESS, RUNNING, Beat, Beats
from workers.contract.errors import RetrainError, Retryable, to_record
from workers.contract.messages import Message
from workers.storage import Store, open_store

log = logging.getLogger("retrain.worker")

M = TypeVar("M", bound=Message)

_ATTEMPTS = 6
_FIRST_WAIT_S = 0.5


@dataclass
class Pulse:
    """The beats of one task."""

    task: str
    beats: Beats
    count: int = 0

    def progress(self, done: int, total: int) -> None:
        self.count += 1
        self.beats.send(self.task, Beat(RUNNING, done=done, total=total, count=self.count))

    def end(self, state: str) -> None:
        self.beats.send(self.task, Beat(state))


@dataclass(frozen=True)
class Context:
    """What a task's work is given beside its message."""

    store: Store
    progress: Callable[[int, int], None]


def task(
    message_type: type[M],
) -> Callable[[Callable[[M, Context], None]], Callable[[M, Context], None]]:
    """Register work as the Celery task of this message; the function itself stays callable."""

    def register(work: Callable[[M, Context], None]) -> Callable[[M, Context], None]:
        def run(payload: Any) -> None:
            perform(message_type.from_json(payload), work, IN_PROCESS)

        app.task(run, name=message_type.task)
        return work

    return register


def perform(message: M, work: Callable[[M, Context], None], beats: Beats) -> None:
    """Do the work unless its result is there; whatever goes wrong is told, never raised."""
    pulse = Pulse(message.beat_name(), beats)
    pulse.progress(0, 0)
    try:
        _with_retries(message, work, pulse)
    except Exception as error:
        if not isinstance(error, RetrainError):
            log.exception("%s failed", message.beat_name())
        _tell(message, error)
        pulse.end(FAILED)
    else:
        pulse.end(DONE)


def _with_retries(message: M, work: Callable[[M, Context], None], pulse: Pulse) -> None:
    store = open_store(message.store)
    for attempt in range(_ATTEMPTS):
        try:
            if not store.exists(message.result_key()):
                work(message, Context(store, pulse.progress))
            return
        except Retryable as error:
            if attempt == _ATTEMPTS - 1:
                raise
            wait_s = _FIRST_WAIT_S * 2**attempt * random.uniform(0.5, 1.5)
            log.warning("%s: %s; again in %.1f s", message.beat_name(), error, wait_s)
            time.sleep(wait_s)


def _tell(message: Message, error: Exception) -> None:
    try:
        record = json.dumps(to_record(error)).encode()
        open_store(message.store).write(message.failure_key(), record)
    except RetrainError as store_error:
        log.error("%s: %s (and the store took no note: %s)", message.beat_name(), error, store_error)
