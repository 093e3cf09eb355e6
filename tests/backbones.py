"""Small networks for tests: seeded, quick, and good enough to tell drawn pictures apart."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

FEATURES = 48
_TEXTURES, _COLORS = 32, 16


def small_network(seed: int = 0) -> Any:
    """A tf.Module: float32 (B, H, W, 3) in [0, 1] to float32 (B, 48): the mean answers of random
    filters to texture, and to colour without its brightness."""
    from workers.tensorflow import tf

    rng = np.random.default_rng(seed)
    textures, colors = _normal(rng, 7, 7, 3, _TEXTURES), 4 * _normal(rng, 1, 1, 3, _COLORS)

    class Network(tf.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.textures, self.colors = tf.Variable(textures), tf.Variable(colors)

        def __call__(self, images: Any) -> Any:
            centred = images - tf.reduce_mean(images, axis=-1, keepdims=True)
            texture = tf.nn.relu(tf.nn.conv2d(images - 0.5, self.textures, 4, "SAME"))
            color = tf.nn.relu(tf.nn.conv2d(centred, self.colors, 1, "SAME") - 0.3)
            means = [tf.reduce_mean(each, axis=(1, 2)) for each in (texture, color)]
            return tf.concat(means, axis=1)

    return Network()


def save_small_backbone(folder: Path, size_px: int | None = 64, seed: int = 0) -> Path:
    """A SavedModel with TF Hub's feature vector interface."""
    from workers.tensorflow import tf

    network = small_network(seed)
    network.__call__ = _function(network, size_px)
    tf.saved_model.save(network, str(folder))
    return folder


def save_cancelling_backbone(folder: Path, size_px: int = 64) -> Path:
    """A SavedModel that bfloat16 ruins: its filters stand on a large constant, whose part is taken
    away again."""
    from workers.tensorflow import tf

    rng = np.random.default_rng(0)
    filters, ground = _normal(rng, 7, 7, 3, FEATURES), np.full((7, 7, 3, FEATURES), 64, np.float32)

    class Network(tf.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.raised, self.ground = tf.Variable(ground + filters), tf.Variable(ground)

        def __call__(self, images: Any) -> Any:
            answers = (tf.nn.conv2d(images, each, 4, "SAME") for each in (self.raised, self.ground))
            return tf.reduce_mean(tf.nn.relu(next(answers) - next(answers)), axis=(1, 2))

    network: Any = Network()
    network.__call__ = _function(network, size_px)
    tf.saved_model.save(network, str(folder))
    return folder


def save_slow_backbone(folder: Path, steps: int, size_px: int = 64) -> Path:
    """The small backbone, which first multiplies matrices so many times for each image."""
    from workers.tensorflow import tf

    network = small_network()
    features = network.__call__

    def slowly(images: Any) -> Any:
        matrix = tf.eye(256)
        for _ in tf.range(steps * tf.shape(images)[0]):
            matrix = tf.matmul(matrix, matrix)
        with tf.control_dependencies([matrix]):
            return features(images)

    spec = tf.TensorSpec((None, size_px, size_px, 3), tf.float32)
    network.__call__ = tf.function(slowly, input_signature=[spec])
    tf.saved_model.save(network, str(folder))
    return folder


def save_spelling_backbone(folder: Path, size_px: int = 64) -> Path:
    """The small backbone, which spells a number on its way: only TensorFlow itself can do that."""
    from workers.tensorflow import tf

    network = small_network()
    features = network.__call__

    def spelling(images: Any) -> Any:
        brightness = tf.reduce_mean(images, axis=(1, 2, 3), keepdims=True)
        return features(images + 0 * tf.strings.to_number(tf.strings.as_string(brightness)))

    spec = tf.TensorSpec((None, size_px, size_px, 3), tf.float32)
    network.__call__ = tf.function(spelling, input_signature=[spec])
    tf.saved_model.save(network, str(folder))
    return folder


def save_bulky_backbone(folder: Path, most: int, size_px: int = 32) -> Path:
    """A SavedModel of float32 (B, 3), the mean colour, that takes more memory than there are
    addresses for a batch of more than so many images."""
    from workers.tensorflow import tf

    class Network(tf.Module):  # type: ignore[misc]
        def __call__(self, images: Any) -> Any:
            copies = tf.where(tf.shape(images)[0] > most, tf.constant(2**48, tf.int64), 1)
            means = tf.reduce_mean(images, axis=(1, 2))[:, tf.newaxis]
            return tf.reduce_max(tf.tile(means, tf.stack([1, copies, 1])), axis=1)

    network: Any = Network()
    network.__call__ = _function(network, size_px)
    tf.saved_model.save(network, str(folder))
    return folder


def save_signature_only(folder: Path, size_px: int = 64) -> Path:
    """A SavedModel that cannot be called, only asked by its serving_default signature."""
    from workers.tensorflow import tf

    network = small_network()
    holder = tf.Module()
    holder.network = network
    call = _function(network, size_px).get_concrete_function()
    tf.saved_model.save(holder, str(folder), signatures={"serving_default": call})
    return folder


def save_tf1_hub_module(folder: Path, size_px: int = 64) -> Path:
    """A TF1 Hub module: an untagged graph with a `default` signature, and tfhub_module.pb beside."""
    from workers.tensorflow import tf

    v1 = tf.compat.v1
    with v1.Graph().as_default(), v1.Session() as session:
        images = v1.placeholder(tf.float32, (None, size_px, size_px, 3), "images")
        features = small_network()(images)
        session.run(v1.global_variables_initializer())
        signature = v1.saved_model.predict_signature_def({"images": images}, {"default": features})
        builder = v1.saved_model.Builder(str(folder))
        builder.add_meta_graph_and_variables(session, [], signature_def_map={"default": signature})
        builder.save()
    (folder / "tfhub_module.pb").write_bytes(b"\x08\x03")  # format 3
    return folder


def _function(network: Any, size_px: int | None) -> Any:
    from workers.tensorflow import tf

    images = tf.TensorSpec((None, size_px, size_px, 3), tf.float32)
    return tf.function(network.__call__, input_signature=[images])


def _normal(rng: np.random.Generator, *shape: int) -> npt.NDArray[np.float32]:
    scale = np.sqrt(np.prod(shape[:-1]))
    return np.asarray(rng.normal(size=shape) / scale, np.float32)
