"""The inference-engine seam: what turns a frozen backbone into a function that computes fast.

An engine is one file of this package with a class of this interface, and a line in `_MODULES`.
"""

import time
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from workers.contract.errors import EngineUnavailable

Pixels = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]
Compute = Callable[[Pixels], Floats]
"""uint8 (B, height, width, 3) to float32 (B, D), for any B, from any thread."""


class OutOfMemory(Exception):
    """The batch does not fit: a smaller one may."""


class Engine(Protocol):
    name: str

    def precisions(self) -> list[str]:
        """What this machine computes in hardware, the fastest first, by measurement; float32 is
        always there.

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
_TIMED_PRODUCTS = 5
"""Of which the fastest counts: other work on the machine comes and goes."""


def fastest_first(products: Mapping[str, Callable[[], object]]) -> list[str]:
    """Precisions by the time that a product of two matrices takes in each.

    That the hardware has a precision does not say that it is fast: without AMX, an Intel core
    multiplies in bfloat16 at half its rate in float32, an AMD one at almost twice.
    """
    return sorted(products, key=lambda precision: _seconds(products[precision]))


def _seconds(product: Callable[[], object]) -> float:
    product()  # the first sets up
    taken = []
    for _ in range(_TIMED_PRODUCTS):
        began = time.perf_counter()
        product()
        taken.append(time.perf_counter() - began)
    return min(taken)


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
