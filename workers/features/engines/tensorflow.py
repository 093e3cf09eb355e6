"""TensorFlow as the engine, with or without XLA. Imports TensorFlow."""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from tensorflow.core.protobuf import config_pb2, meta_graph_pb2, rewriter_config_pb2
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2
from tensorflow.python.grappler import tf_optimizer

from workers.contract.errors import EngineUnavailable
from workers.features import Floats, Pixels
from workers.features.engines import PRODUCT_SIDE, Compute, OutOfMemory, fastest_first
from workers.tensorflow import tf

# the rewriting of a graph that puts its heavy operations into a precision
_REWRITERS = {"bfloat16": "auto_mixed_precision_onednn_bfloat16", "float16": "auto_mixed_precision"}
_BFLOAT16_FLAGS = {"amx_bf16", "avx512_bf16"}
# a copy to a GPU that is full, and cuDNN that finds no room to work in
_FULL_GPU = ("Dst tensor is not initialized", "No algorithm worked")


def freeze(function: Any) -> Any:
    """A ConcreteFunction whose variables have become constants, for every engine to compile."""
    return convert_variables_to_constants_v2(function)


def computing(call: Any) -> Compute:
    """A function of tensors as one of arrays. What TensorFlow says of a graph that it cannot run
    here becomes EngineUnavailable."""

    def compute(images: Pixels) -> Floats:
        try:
            features: Floats = call(tf.constant(images)).numpy()
        except (tf.errors.ResourceExhaustedError, MemoryError) as error:
            raise OutOfMemory(str(error).partition("\n")[0]) from error
        except tf.errors.OpError as error:
            if any(each in error.message for each in _FULL_GPU):
                raise OutOfMemory("the GPU's memory is full") from error
            first_line = error.message.strip().partition("\n")[0]
            raise EngineUnavailable(
                f"TensorFlow cannot run this backbone here: {first_line}"
            ) from error
        return features

    return compute


def has_gpu() -> bool:
    return bool(tf.config.list_physical_devices("GPU"))


class TensorFlow:
    name = "tensorflow"
    _jit = False

    def precisions(self) -> list[str]:
        """float16 on GPUs with tensor cores (compute capability 7.0), where it is several times as
        fast; bfloat16 on CPUs with AMX or AVX512-BF16."""
        if has_gpu():
            return ["float16", "float32"] if _capability() >= (7, 0) else ["float32"]
        return list(_cpu_precisions())

    def compile(self, frozen: Any, precision: str) -> Compute:
        is_float32 = precision == "float32"
        if is_float32 and not self._jit:
            return computing(lambda images: frozen(images)[0])  # it gives a list
        graph = frozen.graph.as_graph_def() if is_float32 else _rewritten(frozen, _REWRITERS[precision])
        return computing(_function(graph, frozen, self._jit))


class Xla(TensorFlow):
    """The same graph compiled by XLA, which compiles anew for each batch size: batches are filled
    up to a power of two."""

    name = "xla"
    _jit = True

    def compile(self, frozen: Any, precision: str) -> Compute:
        whole = super().compile(frozen, precision)

        def compute(images: Pixels) -> Floats:
            missing = (1 << (len(images) - 1).bit_length()) - len(images)
            filled = np.pad(images, ((0, missing), (0, 0), (0, 0), (0, 0))) if missing else images
            return whole(filled)[: len(images)]

        return compute


def _rewritten(frozen: Any, rewriter: str) -> Any:
    """The frozen graph in reduced precision, casts and all.

    Rewritten here once: the same as an option of the process would apply to all else that runs in
    it, training and the float32 reference included.
    """
    graph = frozen.graph.as_graph_def()
    meta = tf.compat.v1.train.export_meta_graph(graph_def=graph, graph=frozen.graph)
    ends = meta_graph_pb2.CollectionDef()
    ends.node_list.value.extend(each.name for each in (*frozen.inputs, *frozen.outputs))
    meta.collection_def["train_op"].CopyFrom(ends)
    config = config_pb2.ConfigProto()
    options = config.graph_options.rewrite_options
    options.meta_optimizer_iterations = rewriter_config_pb2.RewriterConfig.ONE
    setattr(options, rewriter, rewriter_config_pb2.RewriterConfig.ON)
    return tf_optimizer.OptimizeGraph(config, meta)


def _function(graph: Any, frozen: Any, jit: bool) -> Any:
    """A tf.function of a graph that has the ends of the frozen one."""
    given, result = frozen.inputs[0], frozen.outputs[0]
    rest = tf.compat.v1.GraphDef(versions=graph.versions, library=graph.library)
    rest.node.extend(node for node in graph.node if node.name != given.op.name)

    def call(images: tf.Tensor) -> tf.Tensor:
        ends = {given.op.name: images}
        return tf.graph_util.import_graph_def(rest, ends, [result.name], name="")[0]

    spec = tf.TensorSpec(given.shape, given.dtype)
    return tf.function(call, input_signature=[spec], jit_compile=jit or None)


@cache
def _cpu_precisions() -> tuple[str, ...]:
    if not _BFLOAT16_FLAGS & _cpu_flags():
        return ("float32",)
    return tuple(fastest_first({each: _product(each) for each in ("bfloat16", "float32")}))


def _product(precision: str) -> Callable[[], object]:
    matrix = tf.ones((PRODUCT_SIDE, PRODUCT_SIDE), precision)
    multiply = tf.function(tf.matmul)
    return lambda: multiply(matrix, matrix).numpy()


def _capability() -> tuple[int, ...]:
    """The lowest CUDA compute capability of this machine's GPUs."""
    details = (
        tf.config.experimental.get_device_details(gpu) for gpu in tf.config.list_physical_devices("GPU")
    )
    return min((tuple(each.get("compute_capability", (0, 0))) for each in details), default=(0, 0))


def _cpu_flags() -> set[str]:
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return set()
    return {flag for line in text.splitlines() if line.startswith("flags") for flag in line.split()}
