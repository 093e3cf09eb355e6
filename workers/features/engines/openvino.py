"""OpenVINO as the engine, on CPUs: small batches, several at a time.

Not installed by default: pip install 'retrain[openvino]'.
"""

import threading
from typing import Any

import numpy as np

from workers.contract.errors import EngineUnavailable
from workers.contract.settings import cores
from workers.features.engines import Compute, Floats, OutOfMemory, Pixels

_PRECISIONS = {"bfloat16": "bf16", "float16": "f16", "float32": "f32"}
_CAPABILITIES = {"bfloat16": "BF16", "float16": "FP16"}
_SLICE = 4
"""Images for each request: the fastest of 1, 4, 8, 16 and 32 for Inception v3 on two AVX512-BF16
cores, where more of them only took more memory."""


class OpenVino:
    name = "openvino"

    def precisions(self) -> list[str]:
        has = _core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        fast = [precision for precision, mark in _CAPABILITIES.items() if mark in has]
        return [*fast, "float32"]

    def compile(self, frozen: Any, precision: str) -> Compute:
        import openvino

        model = openvino.convert_model(frozen.graph)
        height, width = frozen.inputs[0].shape[1:3]
        model.reshape([_SLICE, height, width, 3])
        compiled = _core().compile_model(
            model,
            "CPU",
            {
                "PERFORMANCE_HINT": "THROUGHPUT",
                "INFERENCE_PRECISION_HINT": _PRECISIONS[precision],
                "INFERENCE_NUM_THREADS": cores(),
            },
        )
        return _Requests(openvino.AsyncInferQueue(compiled), int(frozen.outputs[0].shape[1])).compute


class _Requests:
    """Cuts batches into slices for a queue of asynchronous requests, shared by threads."""

    def __init__(self, queue: Any, feature_size: int) -> None:
        self._queue, self._feature_size = queue, feature_size
        self._one_at_a_time = threading.Lock()
        queue.set_callback(_keep)

    def compute(self, images: Pixels) -> Floats:
        features = np.zeros((len(images), self._feature_size), np.float32)
        begins = range(0, len(images), _SLICE)
        left = _Left(len(begins))
        for begin in begins:
            part = images[begin : begin + _SLICE]
            if len(part) < _SLICE:
                part = np.pad(part, ((0, _SLICE - len(part)), (0, 0), (0, 0), (0, 0)))
            with self._one_at_a_time:
                try:
                    self._queue.start_async({0: part}, (features[begin : begin + _SLICE], left))
                except MemoryError as error:
                    raise OutOfMemory(str(error)) from error
        left.wait()
        return features


class _Left:
    """Slices of one batch that are not computed yet."""

    def __init__(self, count: int) -> None:
        self._count, self._changed = count, threading.Condition()

    def one_less(self) -> None:
        with self._changed:
            self._count -= 1
            self._changed.notify_all()

    def wait(self) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._count == 0)


def _keep(request: Any, told: tuple[Floats, _Left]) -> None:
    features, left = told
    features[:] = request.get_output_tensor(0).data[: len(features)]
    left.one_less()


def _core() -> Any:
    try:
        import openvino
    except ImportError:
        raise EngineUnavailable(
            "no OpenVINO here for --engine openvino: pip install 'retrain[openvino]'"
        ) from None
    return openvino.Core()
