"""Sending tasks and waiting for their results, a bounded number at a time.

A task is done when its result is in the store. Beats only tell when to look, and how far it is.
"""

import json
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from orchestrator.engine import Engine
from workers.contract.beats import DONE, FAILED, Beat
from workers.contract.errors import from_record
from workers.contract.messages import Message
from workers.storage import Store

Progress = Callable[[int], None]

_POLL_S = 0.05
_LOOK_AGAIN_S = 5.0


@dataclass
class _InFlight:
    message: Message
    looked_s: float = field(default_factory=time.monotonic)


def dispatch(
    engine: Engine,
    store: Store,
    messages: Iterable[Message],
    *,
    window: int = 8,
    progress: Progress = lambda done: None,
) -> None:
    """Have every message's task done; returns when all results are in the store.

    progress: called with the units of work (images, say) that beats tell of so far. Raises what
    the first failing task raised.
    """
    waiting = deque(messages)
    flying: dict[str, _InFlight] = {}
    units: dict[str, int] = {}
    while waiting or flying:
        while waiting and len(flying) < window:
            message = waiting.popleft()
            store.delete(message.failure_key())
            engine.send(message)
            flying[message.beat_name()] = _InFlight(message)
        beats = engine.beats.latest(list(flying))
        for name, flight in list(flying.items()):
            beat = beats.get(name)
            units[name] = max(units.get(name, 0), beat.done if beat else 0)
            if _is_due(flight, beat) and _is_done(store, flight.message):
                del flying[name]
        progress(sum(units.values()))
        if flying:
            time.sleep(_POLL_S)


def _is_due(flight: _InFlight, beat: Beat | None) -> bool:
    """Whether to look in the store: at once when the task says that it ended, else now and then."""
    now = time.monotonic()
    if (beat and beat.state in (DONE, FAILED)) or now - flight.looked_s > _LOOK_AGAIN_S:
        flight.looked_s = now
        return True
    return False


def _is_done(store: Store, message: Message) -> bool:
    if store.exists(message.result_key()):
        return True
    if store.exists(message.failure_key()):
        raise from_record(json.loads(store.read(message.failure_key())))
    return False
