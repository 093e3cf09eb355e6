"""The inference-engine seam: what turns a frozen backbone into a function that computes fast.

An engine is one file of this package with a class of this interface, and a line in `_MODULES`.
"""

from collections.abc import Callable
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
