"""Sending tasks and waiting for their results, a bounded number at a time.

A task is done when its result is in the store. Beats tell when to look, how far it is, and whether
its worker is alive; what has fallen silent is sent again. Sending a task twice does no harm: a
worker leaves a task whose result is there, or that another one is at.
"""

import json
import logging
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any
from uuid import uuid4

from orchestrator.engine import Engine
from orchestrator.tally import Tally
from workers.contract import layout
from workers.contract.beats import DONE, FAILED, HANDED_BACK, LOST, RUNNING, SILENCE_S, Beat
from workers.contract.errors import (
    UNFIT,
    RetrainError,
    Retryable,
    RunCancelled,
    StoreUnavailable,
    TaskFailed,
    from_record,
)
from workers.contract.messages import ExtractShard, Message
from workers.storage import Store

log = logging.getLogger("retrain")

WINDOW = 256
MAX_ATTEMPTS = 30
"""Workers that may die of one task."""
MAX_FAILURES = 6
MAX_FAILED_WORKERS = 3
"""Times, and workers, that may fail at one task for a reason that may pass."""
MAX_UNANSWERED = 5
"""Times a message may vanish without a worker's word."""

_POLL_S = 0.05
_FLEET_POLL_S = 0.5
_LOOK_AGAIN_S = 10.0
_CANCEL_LOOK_S = 5.0
_CHECK_THREADS = 16


@dataclass(frozen=True)
class Snapshot:
    """How far a dispatch is: shards by state, units (images, say) done, and who is at it."""

    total: int
    done: int
    running: int
    waiting: int
    resent: int
    units: int
    units_total: int
    workers: list[str]


@dataclass
class _Flight:
    """A task that was sent."""

    message: Message
    order: int = 0
    """Its place among the messages sent; 0 where somebody else had sent it."""
    changed_s: float = 0.0
    """When its beat last changed, or it was sent."""
    looked_s: float = 0.0
    tries: int = 0
    beat: Beat | None = None
    attempts: int = 0
    failures: int = 0
    failed_at: set[str] = field(default_factory=set)
    unanswered: int = 0
    held_until_s: float = 0.0

    def saw(self, beat: Beat, now_s: float) -> bool:
        """Whether the beat is a new one."""
        is_new = beat != self.beat
        if is_new:
            self.beat, self.changed_s = beat, now_s
        return is_new

    @property
    def is_running(self) -> bool:
        return self.beat is not None and self.beat.state == RUNNING


@dataclass
class Dispatch:
    """Has every message's task done, in `run`.

    `units_of` tells how many units (images) a task stands for, once it is done.
    """

    engine: Engine
    store: Store
    messages: Iterable[Message]
    total: int
    units_of: Callable[[Message], int] = lambda message: 0
    units_total: int = 0
    show: Callable[[Snapshot], None] = lambda snapshot: None
    window: int = WINDOW
    tally: Tally = field(default_factory=Tally)
    """What the workers told of their time."""

    _flying: dict[str, _Flight] = field(default_factory=dict)
    _again: deque[_Flight] = field(default_factory=deque)
    _token: str = field(default_factory=lambda: uuid4().hex)
    _sent: int = 0
    _done: int = 0
    _resent: int = 0
    _units: int = 0
    _newest_started: dict[str, int] = field(default_factory=dict)
    _warned_s: float = 0.0
    _cancel_looked_s: float = 0.0

    def run(self) -> None:
        """Returns when all results are in the store. Raises what a task failed of for good,
        TaskFailed for one that kills every worker, or RunCancelled."""
        fresh = iter(self.messages)
        poll_s = _POLL_S if self.engine.is_embedded else _FLEET_POLL_S
        with suppress(StoreUnavailable):
            self.engine.beats.remembers(self._token)
        pool = ThreadPoolExecutor(_CHECK_THREADS, "check")
        try:
            while self._fill(fresh) or self._flying or self._again:
                try:
                    self._listen()
                except StoreUnavailable as error:
                    self._forgive(error)
                landed = self._land(pool)
                self.engine.check()
                self._check_cancelled()
                self.show(self._snapshot())
                if self._flying or self._again:
                    # when results come in, more are on their way
                    time.sleep(_POLL_S if landed else poll_s)
        finally:  # whoever interrupts does not wait for a store that does not answer
            pool.shutdown(wait=False, cancel_futures=True)

    def _fill(self, fresh: Iterator[Message]) -> bool:
        """Send until the window is full; whether there is more to send."""
        while len(self._flying) < self.window:
            flight = self._next_again() or self._next(fresh)
            if flight is None:
                return False
            if not self._send(flight):
                self._again.appendleft(flight)
                return True
        return True

    def _next_again(self) -> _Flight | None:
        now = time.monotonic()
        for flight in self._again:
            if flight.held_until_s <= now:
                self._again.remove(flight)
                return flight
        return None

    def _next(self, fresh: Iterator[Message]) -> _Flight | None:
        message = next(fresh, None)
        if message is None:
            return None
        if not self._sent:
            # what an earlier try of the run failed of is tried again
            for old in self.store.objects(layout.task_failures_prefix(message.run_id)):
                self.store.delete(old.key)
        return _Flight(message)

    def _send(self, flight: _Flight) -> bool:
        name = flight.message.beat_name()
        try:
            found = None if flight.tries else self.engine.beats.latest([name]).get(name)
            is_running = found is not None and found.state == RUNNING
            if not is_running:  # else another orchestrator, or this one's last life, has sent it
                self.engine.beats.clear(name)
                self.engine.send(flight.message)
        except StoreUnavailable as error:
            self._warn("%s; trying again", error)
            return False
        self._sent += 1
        flight.order = 0 if is_running else self._sent
        flight.beat = found if is_running else None
        flight.tries += 1
        flight.changed_s = flight.looked_s = time.monotonic()
        self._flying[name] = flight
        return True

    def _listen(self) -> None:
        """Take in the beats, and send again what has fallen silent."""
        now = time.monotonic()
        for name, beat in self.engine.beats.latest(list(self._flying)).items():
            flight = self._flying[name]
            if flight.saw(beat, now):
                self.tally.heard(beat, now)
            queue = flight.message.queue
            self._newest_started[queue] = max(self._newest_started.get(queue, 0), flight.order)
        if self.engine.is_embedded:
            return
        forgotten = not self.engine.beats.remembers(self._token)
        silent = [f for f in self._flying.values() if now - f.changed_s > SILENCE_S]
        empty = {queue: self.engine.waiting(queue) == 0 for queue in _queues(silent)}
        for flight in list(self._flying.values()):
            if flight.beat is None and forgotten:
                self._resend(flight, "the broker lost it")
            elif flight.beat is not None and flight.beat.state in (LOST, HANDED_BACK):
                self._resend(flight, flight.beat.state, died=flight.beat.state == LOST)
        for flight in silent:
            if flight.message.beat_name() not in self._flying:
                continue
            if flight.is_running:
                self._resend(flight, "its worker fell silent", died=True)
            elif flight.beat is not None and flight.beat.state == DONE:
                self._resend(flight, "it ended without its result")
            elif flight.beat is None and (empty[flight.message.queue] or self._overtaken(flight)):
                self._count_unanswered(flight)
                self._resend(flight, "no worker has it, and it waits no more")
            elif flight.beat is None:
                self._warn_without_workers(flight.message.queue)

    def _count_unanswered(self, flight: _Flight) -> None:
        flight.unanswered += 1
        if flight.unanswered > MAX_UNANSWERED:
            raise TaskFailed(
                f"no worker answers for {flight.message.beat_name()}: see the workers' logs; are they "
                "of this version, and may they use this store (--allow)?"
            )

    def _warn_without_workers(self, queue: str) -> None:
        workers = self.engine.beats.workers()
        if workers is not None and not any(queue in worker.queues for worker in workers):
            self._warn(
                "no worker listens to %s: start one with retrain worker --queues %s", queue, queue
            )

    def _overtaken(self, flight: _Flight) -> bool:
        """Whether a worker began a later message of the same queue: queues keep their order."""
        return self._newest_started.get(flight.message.queue, 0) > flight.order

    def _resend(self, flight: _Flight, why: str, died: bool = False) -> None:
        name = flight.message.beat_name()
        del self._flying[name]
        self._resent += 1
        flight.attempts += died
        if flight.attempts >= MAX_ATTEMPTS:
            raise TaskFailed(f"{name} lost its worker {flight.attempts} times: see the workers' logs")
        if isinstance(flight.message, ExtractShard):
            flight.message = replace(flight.message, attempt=flight.attempts)
        log.warning("sending %s again: %s", name, why)
        self._again.append(flight)

    def _forgive(self, error: StoreUnavailable) -> None:
        """While beats cannot be heard, silence means nothing."""
        self._warn("%s; waiting", error)
        now = time.monotonic()
        for flight in self._flying.values():
            flight.changed_s = now

    def _land(self, pool: ThreadPoolExecutor) -> int:
        """Take out the tasks whose results are there; how many these were."""
        now, before = time.monotonic(), self._done
        due = [flight for flight in self._flying.values() if _is_due(flight, now)]
        for flight, is_done in zip(due, pool.map(self._is_done, due), strict=True):
            name = flight.message.beat_name()
            if is_done:
                del self._flying[name]
                self._done += 1
                self._units += self.units_of(flight.message)
                self.tally.landed(flight.beat)
            elif (flight.beat and flight.beat.state == FAILED) or self._has_failed(flight):
                self._judge(flight)
        return self._done - before

    def _is_done(self, flight: _Flight) -> bool:
        return self.store.exists(flight.message.result_key())

    def _has_failed(self, flight: _Flight) -> bool:
        return self.store.exists(flight.message.failure_key())

    def _judge(self, flight: _Flight) -> None:
        """A task failed: raise its error, or try again where that may help."""
        key = flight.message.failure_key()
        record = flight.beat.error if flight.beat else None
        if record is None:
            record = json.loads(self.store.read(key))
        error = from_record(record)
        flight.failures += 1
        flight.failed_at.add(flight.beat.worker if flight.beat else "")
        # an unknown error may be one machine's (its disk is full, say)
        may_pass = isinstance(error, Retryable | TaskFailed) and not self.engine.is_embedded
        if not may_pass or self._is_hopeless(flight, error):
            raise error
        self.store.delete(key)
        flight.held_until_s = time.monotonic() + 2 ** min(flight.failures, MAX_FAILURES)
        self._resend(flight, str(error))

    def _is_hopeless(self, flight: _Flight, error: RetrainError) -> bool:
        if isinstance(error, UNFIT):  # then any worker that has not tried may be fit
            workers = self.engine.beats.workers()
            if workers is not None:
                there = sum(flight.message.queue in each.queues for each in workers)
                return len(flight.failed_at) >= max(1, there)
        return flight.failures >= MAX_FAILURES or len(flight.failed_at) >= MAX_FAILED_WORKERS

    def _check_cancelled(self) -> None:
        now = time.monotonic()
        if now - self._cancel_looked_s < _CANCEL_LOOK_S:
            return
        self._cancel_looked_s = now
        for flight in list(self._flying.values())[:1]:
            if flight.message.is_cancelled(self.store.exists):
                raise RunCancelled(
                    f"{flight.message.run_id} was cancelled: the same command takes it up again"
                )

    def _snapshot(self) -> Snapshot:
        running = [f.beat for f in self._flying.values() if f.is_running and f.beat]
        return Snapshot(
            self.total,
            self._done,
            len(running),
            self.total - self._done - len(running),
            self._resent,
            self._units + sum(beat.done for beat in running),
            self.units_total,
            sorted({beat.worker for beat in running}),
        )

    def _warn(self, text: str, *values: Any) -> None:
        if time.monotonic() - self._warned_s > 10:
            self._warned_s = time.monotonic()
            log.warning(text, *values)


def _is_due(flight: _Flight, now_s: float) -> bool:
    """Whether to look in the store: at once when the task says that it ended, else now and then."""
    ended = flight.beat is not None and flight.beat.state in (DONE, FAILED)
    if ended or now_s - flight.looked_s > _LOOK_AGAIN_S:
        flight.looked_s = now_s
        return True
    return False


def _queues(flights: Iterable[_Flight]) -> Counter[str]:
    return Counter(flight.message.queue for flight in flights)
