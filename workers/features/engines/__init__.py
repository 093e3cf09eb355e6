"""The inference-engine seam: what turns a frozen backbone into a function that computes fast.

An engine is one file of this package with a class of this interface, and a line in `_MODULES`.
"""

import math
import time
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any, Protocol

from workers.contract.errors import EngineUnavailable
from workers.features import Floats, Pixels

Compute = Callable[[Pixels], Floats]
"""uint8 (B, height, width, 3) to float32 (B, D), for any B, from any thread."""


class OutOfMemory(EngineUnavailable):
    """The batch does not fit: a smaller one may."""


class Engine(Protocol):
    name: str

    def precisions(self) -> list[str]:
        """What this machine computes in hardware, the fastest first; float32 is always there.

        Raises EngineUnavailable where the engine cannot run here.
        """
        ...

    def compile(self, frozen: Any, precision: str) -> Compute:
        """frozen: a tf.ConcreteFunction of uint8 pixels whose weights are constants."""
        ...


_MODULES = {
    "tensorflow": ("workers.features.engines.tensorflow", "TensorFlow"),
    "xla": ("workers.features.engines.tensorflow", "Xla"),
    "openvino": ("workers.features.engines.openvino", "OpenVino"),
}


PRODUCT_SIDE = 1024
"""Rows and columns of the matrices whose product tells how fast a precision is."""
_ROUNDS = 5
_WORTH = 1.1
"""How much faster than float32 a precision must be, that gives up some of its exactness."""


def fastest_first(products: Mapping[str, Callable[[], object]]) -> list[str]:
    """Precisions by the time that a product of two matrices takes in each.

    That the hardware has a precision does not say that it is fast: without AMX, an Intel core
    multiplies in bfloat16 at half its rate in float32, an AMD one at almost twice.
    """
    taken = least_seconds(products, _ROUNDS)
    return sorted(taken, key=lambda each: taken[each] * (1 if each == "float32" else _WORTH))


def least_seconds(works: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """The least time that each takes, of rounds in turns after one that sets up: what else the
    machine is at comes and goes."""
    for work in works.values():
        work()
    taken = dict.fromkeys(works, math.inf)
    for _ in range(rounds):
        for name, work in works.items():
            began = time.perf_counter()
            work()
            taken[name] = min(taken[name], time.perf_counter() - began)
    return taken


def engine(name: str) -> Engine:
    module, made = _MODULES[name]
    found: Engine = getattr(import_module(module), made)()
    return found


def precision_of(engine: Engine, asked: str | None) -> str:
    """The precision asked for, or the fastest. Raises EngineUnavailable where this machine would
    have to emulate it."""
    has = engine.precisions()
    if asked is not None and asked not in has:
        raise EngineUnavailable(
            f"this worker's hardware does not compute in {asked} with {engine.name}: it has "
            f"{', '.join(has)}; use --precision auto"
        )
    return asked or has[0]
