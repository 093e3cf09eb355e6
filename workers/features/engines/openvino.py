"""OpenVINO as the engine, on CPUs: small batches, several at a time.

Not installed by default: pip install '.[openvino]'.
"""

import sys
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache, partial
from queue import Empty, SimpleQueue
from typing import Any

import numpy as np

from workers.contract.errors import EngineUnavailable, RetrainError
from workers.contract.settings import cores
from workers.features import Floats, Pixels
from workers.features.engines import PRODUCT_SIDE, Compute, OutOfMemory, fastest_first

_PRECISIONS = {"bfloat16": "bf16", "float16": "f16", "float32": "f32"}
_CAPABILITIES = {"bfloat16": "BF16", "float16": "FP16"}
_SLICE = 4
"""Images for each request: the fastest of 1, 4, 8, 16 and 32 for Inception v3 on two AVX512-BF16
cores, where more of them only took more memory."""


class OpenVino:
    name = "openvino"

    def precisions(self) -> list[str]:
        with _translated():
            return list(_precisions())

    def compile(self, frozen: Any, precision: str) -> Compute:
        openvino = _openvino()
        height, width = frozen.inputs[0].shape[1:3]
        options = {"PERFORMANCE_HINT": "THROUGHPUT", **_options(precision)}
        with _translated():
            model = openvino.convert_model(frozen.graph)
            model.reshape([_SLICE, height, width, 3])
            if precision != "float32":
                _split_depthwise(model)
            compiled = _core().compile_model(model, "CPU", options)
            return _Requests(compiled, int(frozen.outputs[0].shape[1])).compute


def _options(precision: str) -> dict[str, Any]:
    return {"INFERENCE_PRECISION_HINT": _PRECISIONS[precision], "INFERENCE_NUM_THREADS": cores()}


@cache
def _precisions() -> tuple[str, ...]:
    has = _core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    known = ["float32", *(precision for precision, mark in _CAPABILITIES.items() if mark in has)]
    if len(known) == 1:
        return tuple(known)
    return tuple(fastest_first({each: _product(each) for each in known}))


def _product(precision: str) -> Callable[[], object]:
    from openvino import Model
    from openvino import opset8 as operations

    matrix = np.ones((PRODUCT_SIDE, PRODUCT_SIDE), np.float32)
    given = operations.parameter(matrix.shape, np.float32)
    model = Model([operations.matmul(given, operations.constant(matrix), False, False)], [given])
    request = _core().compile_model(model, "CPU", _options(precision)).create_infer_request()
    return lambda: request.infer({0: matrix})


def _split_depthwise(model: Any) -> None:
    """Have each depthwise convolution computed with the upper and the lower half of its weights.

    The two sum to what float32 weights give: a channel has too few for their rounding to average
    out. The plugin keeps a precision per model, not per operation.
    """
    from openvino import opset8 as operations

    for whole in model.get_ordered_ops():
        if whole.get_type_name() != "GroupConvolution":
            continue
        weights = whole.input_value(1).get_node()
        if weights.get_type_name() != "Constant" or weights.data.dtype != np.float32:
            continue
        if weights.data.shape[2] > 1:  # (groups, out, in, height, width): more than one channel each
            continue
        given = whole.get_attributes()
        names = ("strides", "pads_begin", "pads_end", "dilations", "auto_pad")
        convolve = partial(operations.group_convolution, **{name: given[name] for name in names})
        upper = (weights.data.view(np.uint32) & 0xFFFF0000).view(np.float32)
        halves = [
            convolve(whole.input_value(0), operations.constant(half))
            for half in (upper, weights.data - upper)
        ]
        summed = operations.add(*halves).output(0)
        for target in whole.output(0).get_target_inputs():
            target.replace_source_output(summed)


class _Requests:
    """Cuts batches into slices for a few asynchronous requests, shared by threads."""

    def __init__(self, compiled: Any, feature_size: int) -> None:
        self._feature_size = feature_size
        self._free: SimpleQueue[Any] = SimpleQueue()
        for _ in range(compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS")):
            self._free.put(compiled.create_infer_request())

    def compute(self, images: Pixels) -> Floats:
        features = np.zeros((len(images), self._feature_size), np.float32)
        running: deque[tuple[Any, int]] = deque()
        try:
            with _translated():
                for begin in range(0, len(images), _SLICE):
                    request = self._take(running, features)
                    running.append((request, begin))
                    request.start_async({0: _filled(images[begin : begin + _SLICE])})
                while running:
                    self._finish(running, features)
        finally:
            for request, _ in running:  # after an error: what they compute is not wanted
                request.cancel()
                with suppress(RuntimeError):  # that it was cancelled; till then it takes nothing new
                    request.wait()
                self._free.put(request)
        return features

    def _take(self, running: deque[tuple[Any, int]], features: Floats) -> Any:
        """A free request; only who holds none waits for others to free theirs."""
        while running:
            try:
                return self._free.get_nowait()
            except Empty:
                self._finish(running, features)
        return self._free.get()

    def _finish(self, running: deque[tuple[Any, int]], features: Floats) -> None:
        request, begin = running[0]
        request.wait()
        part = features[begin : begin + _SLICE]
        part[:] = request.get_output_tensor(0).data[: len(part)]
        running.popleft()
        self._free.put(request)


def _filled(part: Pixels) -> Pixels:
    missing = _SLICE - len(part)
    return np.pad(part, ((0, missing), (0, 0), (0, 0), (0, 0))) if missing else part


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except RetrainError:
        raise
    except Exception as error:  # its converter raises kinds of its own, which share no other base
        first_line = str(error).strip().partition("\n")[0]
        if isinstance(error, MemoryError) or "bad_alloc" in str(error):
            raise OutOfMemory(first_line) from error
        raise EngineUnavailable(f"OpenVINO cannot run this backbone: {first_line}") from error


def _core() -> Any:
    return _openvino().Core()


def _openvino() -> Any:
    # its converter tells Google Analytics of each use, from a process that it forks; but not where it
    # cannot import this
    sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]
    try:
        import openvino
    except ImportError:
        raise EngineUnavailable(
            "no OpenVINO here for --engine openvino: pip install '.[openvino]' in a checkout"
        ) from None
    return openvino
