"""What every task does around its work: parse, skip what is done, beat, report."""

import json
import logging
import os
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeVar

from workers.app import app
from workers.contract.beats import (
    BEAT_EVERY_S,
    DONE,
    FAILED,
    HANDED_BACK,
    IN_PROCESS,
    RUNNING,
    Beat,
    Beats,
)
from workers.contract.broker import beats_of
from workers.contract.errors import (
    UNFIT,
    BadMessage,
    HandedBack,
    RetrainError,
    to_record,
)
from workers.contract.messages import Message
from workers.contract.stages import StageTimes
from workers.storage import Store, open_store
from workers.storage.beats import StoreBeats
from workers.tasks import overlap
from workers.tasks.pulse import Pulse, worker_name

log = logging.getLogger("retrain.worker")

_PAUSE_AFTER_UNFIT_S = 5.0

M = TypeVar("M", bound=Message)


@dataclass(frozen=True)
class Context:
    """What a task's work is given beside its message."""

    store: Store
    progress: Callable[[int, int], None]
    fed: Callable[[], None] = lambda: None
    """Called by work that can share the process from now on with the next task of its kind."""


Work = Callable[[M, Context], StageTimes | None]


def task(
    message_type: type[M], overlaps: Callable[[M], bool] = lambda message: False
) -> Callable[[Work[M]], Work[M]]:
    """Register work as the Celery task of this message; the function itself stays callable.

    overlaps: whether the next task may begin once the work calls `Context.fed`.
    """

    def register(work: Work[M]) -> Work[M]:
        def run(payload: Any) -> None:
            try:
                message = message_type.from_json(payload)
            except BadMessage as error:
                log.error("a message was refused: %s", error)
                return
            if overlaps(message):
                overlap.begin(lambda fed: perform(message, work, fed))
            else:
                overlap.alone(lambda: perform(message, work))

        app.task(run, name=message_type.task, Request="workers.tasks.loss:TellingRequest")
        return work

    return register


_at_hand: set[str] = set()


def perform(message: M, work: Work[M], fed: Callable[[], None] = lambda: None) -> None:
    """Do the work unless its result is there; whatever goes wrong is told, never raised."""
    name = message.beat_name()
    if name in _at_hand:
        log.info("%s: this worker is at it", name)
        return
    _at_hand.add(name)
    try:
        _perform(message, work, fed)
    finally:
        _at_hand.remove(name)


def _perform(message: M, work: Work[M], fed: Callable[[], None]) -> None:
    beats = _beats(app.conf.broker_url, os.getpid())
    try:
        store = open_store(message.store)
    except RetrainError as error:  # the store is where failures are told, but for this one
        log.error("%s: %s", message.beat_name(), error)
        if beats is not None:
            with suppress(RetrainError):
                beats.send(message.beat_name(), Beat(FAILED, error=to_record(error)))
        return
    beats = beats or StoreBeats(store)
    if _is_running_elsewhere(message, beats):
        log.info("%s: another worker is at it", message.beat_name())
        return
    with Pulse(message, beats) as pulse:
        stages = None
        try:
            if not store.exists(message.result_key()) and not message.is_cancelled(store.exists):
                stages = work(message, Context(store, pulse.progress, fed))
        except HandedBack:
            log.info("%s: handed back", message.beat_name())
            pulse.end(HANDED_BACK)
        except Exception as error:
            _tell(message, store, error)
            pulse.end(FAILED, error)
            is_unknown = not isinstance(error, RetrainError)
            if is_unknown:
                log.exception("%s failed", message.beat_name())
            elif beats is not IN_PROCESS:  # the command that it is in says so itself
                log.error("%s: %s", message.beat_name(), error)
            if beats is not IN_PROCESS and (is_unknown or isinstance(error, UNFIT)):
                # a machine that cannot do it must not take every task because it fails fastest
                time.sleep(_PAUSE_AFTER_UNFIT_S)
        else:
            pulse.end(DONE, stages=stages)


@cache
def _beats(broker_url: str, process: int) -> Beats | None:
    """Made once in a process: its connections do not survive a fork."""
    return beats_of(broker_url)


def _is_running_elsewhere(message: Message, beats: Beats) -> bool:
    """Whether another worker's beats for this task go on: a beat may be a dead worker's last."""
    name = message.beat_name()
    first = None
    for _ in range(int(2 * BEAT_EVERY_S) + 2):
        try:
            beat = beats.latest([name]).get(name)
        except RetrainError:
            return False
        if beat is None or beat.state != RUNNING or beat.worker == worker_name():
            return False
        if beats.expire or (first is not None and beat.count != first.count):
            return True
        first = beat
        time.sleep(1)
    return False


def _tell(message: Message, store: Store, error: Exception) -> None:
    try:
        store.write(message.failure_key(), json.dumps(to_record(error)).encode())
    except RetrainError as store_error:
        log.error("%s: %s (and the store took no note: %s)", message.beat_name(), error, store_error)
