"""A trained classifier as TensorFlow graphs: a SavedModel and a frozen GraphDef.

Imports TensorFlow. Both hold backbone and head as constants, so they depend on no file beside
them and load wherever TensorFlow runs.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from workers.tensorflow import tf

Network = Callable[[tf.Tensor], tf.Tensor]

GRAPH_INPUT, GRAPH_OUTPUT = "Placeholder", "final_result"


@dataclass(frozen=True)
class Classifier:
    """`network` maps float32 (B, height, width, 3) in [0, 1] to float32 (B, D); the head is
    weights float32 (D, C) and bias float32 (C,); `labels` are the C class names."""

    network: Network
    width: int
    height: int
    weights: npt.NDArray[np.float32]
    bias: npt.NDArray[np.float32]
    labels: Sequence[str]

    def frozen(self) -> Any:
        """The concrete function of float images to probabilities (B, C), without variables."""

        def classify(image: tf.Tensor) -> tf.Tensor:
            logits = tf.matmul(self.network(image), self.weights) + self.bias
            return tf.nn.softmax(logits)

        images = tf.TensorSpec((None, self.height, self.width, 3), tf.float32, name="image")
        # no public name for it yet, though TensorFlow's own guides use it
        from tensorflow.python.framework.convert_to_constants import (
            convert_variables_to_constants_v2,
        )

        return convert_variables_to_constants_v2(
            tf.function(classify, input_signature=[images]).get_concrete_function()
        )


def graph_def(frozen: Any) -> bytes:
    """A serialised GraphDef: input `Placeholder`, output `final_result`, as retrain.py named them."""
    graph = tf.Graph()
    with graph.as_default():
        image = tf.compat.v1.placeholder(tf.float32, frozen.inputs[0].shape, GRAPH_INPUT)
        (prediction,) = tf.import_graph_def(
            frozen.graph.as_graph_def(),
            input_map={frozen.inputs[0].name: image},
            return_elements=[frozen.outputs[0].name],
            name="",
        )
        tf.identity(prediction, name=GRAPH_OUTPUT)
    wanted = tf.compat.v1.graph_util.extract_sub_graph(graph.as_graph_def(), [GRAPH_OUTPUT])
    serialised: bytes = wanted.SerializeToString()
    return serialised


def save_model(classifier: Classifier, frozen: Any, folder: Path) -> None:
    """Write a SavedModel with two signatures.

    serving_default: `image` float32 (B, height, width, 3) in [0, 1] -> `prediction` (B, C).
    image_bytes: `image_bytes` string (B,), encoded pictures -> `prediction` (B, C) and `label`
    string (B,). It decodes JPEG, PNG, GIF and BMP as the workers do, EXIF orientation aside.
    """
    module = tf.Module()
    module.labels = tf.constant(list(classifier.labels))

    def from_pixels(image: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"prediction": frozen(image)[0]}

    def from_bytes(image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
        shape = (classifier.height, classifier.width, 3)
        images = tf.map_fn(
            lambda data: _decode(data, classifier.width, classifier.height),
            image_bytes,
            fn_output_signature=tf.TensorSpec(shape, tf.float32),
        )
        prediction = frozen(images)[0]
        return {
            "prediction": prediction,
            "label": tf.gather(module.labels, tf.argmax(prediction, axis=1)),
        }

    pixels = tf.TensorSpec((None, classifier.height, classifier.width, 3), tf.float32, name="image")
    encoded = tf.TensorSpec((None,), tf.string, name="image_bytes")
    module.from_pixels = tf.function(from_pixels, [pixels], autograph=False)
    module.from_bytes = tf.function(from_bytes, [encoded], autograph=False)
    tf.saved_model.save(
        module,
        str(folder),
        signatures={"serving_default": module.from_pixels, "image_bytes": module.from_bytes},
    )


def _decode(data: tf.Tensor, width: int, height: int) -> tf.Tensor:
    """The workers' preprocessing (features/decode.py) as a graph: float32 (height, width, 3)."""
    is_jpeg = tf.strings.substr(data, 0, 3) == b"\xff\xd8\xff"
    image = tf.cond(is_jpeg, lambda: _jpeg(data, width, height), lambda: _other(data, width, height))
    resized = tf.compat.v1.image.resize_bilinear(image[None], (height, width))
    pixels = tf.round(resized[0])  # the workers' are whole numbers
    return tf.ensure_shape(pixels / 255.0, (height, width, 3))


def _jpeg(data: tf.Tensor, width: int, height: int) -> tf.Tensor:
    def at(ratio: int) -> Callable[[], tf.Tensor]:
        return lambda: tf.io.decode_jpeg(data, 3, ratio=ratio, dct_method="INTEGER_ACCURATE")

    step = _reduction_step(tf.io.extract_jpeg_shape(data), width, height)
    return tf.cast(tf.switch_case(step, [at(1), at(2), at(4), at(8)]), tf.float32)


def _other(data: tf.Tensor, width: int, height: int) -> tf.Tensor:
    image = tf.io.decode_image(data, channels=3, expand_animations=False)
    step = _reduction_step(tf.shape(image), width, height)
    factor = tf.bitwise.left_shift(1, step)
    return tf.cond(step > 0, lambda: _box(image, factor), lambda: tf.cast(image, tf.float32))


def _box(image: tf.Tensor, factor: tf.Tensor) -> tf.Tensor:
    """Averages of factor x factor pixels; at the edges, of those that are there."""
    rows = tf.range(tf.shape(image)[0]) // factor
    columns = tf.range(tf.shape(image)[1]) // factor
    down = tf.math.segment_mean(tf.cast(image, tf.float32), rows)
    across = tf.math.segment_mean(tf.transpose(down, (1, 0, 2)), columns)
    return tf.round(tf.transpose(across, (1, 0, 2)))


def _reduction_step(shape: tf.Tensor, width: int, height: int) -> tf.Tensor:
    """log2 of the factor that `decode.reduction` gives a picture of this (height, width, ...)."""
    ratio = tf.minimum(shape[0] // height, shape[1] // width)
    return tf.reduce_sum(tf.cast(ratio >= tf.constant([2, 4, 8]), tf.int32))
