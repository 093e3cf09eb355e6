"""The frozen network that turns pictures into features. Imports TensorFlow."""

import hashlib
import importlib
import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from workers.contract.backbones import KERAS_DEFAULT_IMAGE_SIZE, image_size_of, value_range_of
from workers.contract.errors import BackboneChanged, BackboneUnavailable
from workers.contract.layout import digest
from workers.features.decode import PREPROCESSING_VERSION
from workers.features.sources import KerasApplication, SavedModelFolder, find, folder_digest
from workers.tensorflow import tf

Network = Callable[[tf.Tensor], tf.Tensor]


@dataclass(frozen=True)
class Backbone:
    """A loaded backbone.

    `network` maps float32 (B, height, width, 3) in [0, 1] to float32 (B, feature_size), in any
    graph; `function` is the tf.ConcreteFunction of uint8 pixels; `module` owns the variables of both.
    """

    name: str
    fingerprint: str
    width: int
    height: int
    feature_size: int
    network: Network
    function: Any
    module: Any

    def features(self, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """uint8 (B, height, width, 3) to float32 (B, feature_size), computed in float32."""
        result: npt.NDArray[np.float32] = self.function(tf.constant(images)).numpy()
        return result

    def description(self) -> dict[str, Any]:
        """What the orchestrator needs to know of it."""
        return {
            "backbone": self.name,
            "fingerprint": self.fingerprint,
            "width": self.width,
            "height": self.height,
            "feature_size": self.feature_size,
            "preprocessing_version": PREPROCESSING_VERSION,
        }


_loaded: dict[tuple[str, int | None], Backbone] = {}


def load(name: str, image_size_px: int | None, fingerprint: str | None = None) -> Backbone:
    """The backbone of this name, kept in the process from one task to the next.

    With a fingerprint, the one kept is used if it fits; without, it is looked at anew.
    Raises BackboneUnavailable, or BackboneChanged where it is not that of the fingerprint.
    """
    kept = _loaded.get((name, image_size_px))
    if kept is not None and kept.fingerprint == fingerprint:
        return kept
    backbone = _load(name, image_size_px)
    if fingerprint is not None and backbone.fingerprint != fingerprint:
        raise BackboneChanged(
            f"the backbone {name} is another one here ({backbone.fingerprint}) than asked for "
            f"({fingerprint}): give every worker the same files and the same release of retrain, or "
            "begin with a new run"
        )
    if kept is not None and kept.fingerprint == backbone.fingerprint:
        return kept  # for which much may have been compiled
    _loaded.clear()
    _loaded[name, image_size_px] = backbone
    return backbone


def _load(name: str, image_size_px: int | None) -> Backbone:
    source = find(name)
    if isinstance(source, KerasApplication):
        made = _keras(name, source, image_size_px)
    else:
        made = _saved_model(name, source, image_size_px)
    network, weights, (height, width), module = made
    compiled = tf.function(
        lambda images: network(tf.cast(images, tf.float32) / 255.0),
        input_signature=[tf.TensorSpec((None, height, width, 3), tf.uint8)],
    )
    try:
        function = compiled.get_concrete_function()
        shape = function.output_shapes
    except (ValueError, TypeError, tf.errors.OpError) as error:
        raise BackboneUnavailable(
            f"the backbone {name} does not take images of {width} x {height}: "
            f"{_first_line(error)}; see --image-size"
        ) from error
    if shape.rank != 2 or shape[1] is None:
        raise BackboneUnavailable(
            f"the backbone {name} gives {shape}, not one vector an image: it needs the TF Hub "
            "image feature vector interface"
        )
    print_of = digest([weights, f"{width}x{height}", f"preprocessing {PREPROCESSING_VERSION}"])
    return Backbone(name, print_of, width, height, int(shape[1]), network, function, module)


_Made = tuple[Network, str, tuple[int, int], Any]


def _saved_model(name: str, source: SavedModelFolder, image_size_px: int | None) -> _Made:
    """A SavedModel: TF2 ones are called, TF1 Hub modules answer by signature."""
    is_tf1_hub_module = (source.path / "tfhub_module.pb").exists()
    try:
        module = tf.saved_model.load(str(source.path), tags=[] if is_tf1_hub_module else None)
    except (OSError, ValueError, RuntimeError, tf.errors.OpError) as error:
        raise BackboneUnavailable(f"cannot load {name}: {_first_line(error)}") from error
    call, spec = _entry(name, module)

    low, high = value_range_of(name)

    def network(images: tf.Tensor) -> tf.Tensor:
        return tf.cast(_only_output(name, call(low + images * (high - low))), tf.float32)

    size = _image_size(name, spec, image_size_px)
    return network, folder_digest(source.path), size, module


def _entry(name: str, module: Any) -> tuple[Callable[[Any], Any], Any]:
    """What to call, and the TensorSpec of its images."""
    if callable(module):
        for concrete in module.__call__.concrete_functions:
            specs = [s for s in tf.nest.flatten(concrete.structured_input_signature) if _is_image(s)]
            if specs:
                return module, specs[0]
    for key in ("serving_default", "default", "image_feature_vector"):
        if key in getattr(module, "signatures", {}):
            signature = module.signatures[key]
            (argument, spec), *rest = signature.structured_input_signature[1].items()
            if _is_image(spec) and not rest:
                return _by_keyword(signature, argument), spec
    raise BackboneUnavailable(
        f"{name} has no function of one batch of images: it needs the TF Hub image feature "
        "vector interface"
    )


def _by_keyword(signature: Any, argument: str) -> Callable[[Any], Any]:
    return lambda images: signature(**{argument: images})


def _is_image(spec: Any) -> bool:
    return isinstance(spec, tf.TensorSpec) and spec.shape.rank == 4 and spec.dtype == tf.float32


def _only_output(name: str, output: Any) -> Any:
    if not isinstance(output, dict):
        return output
    if "default" in output:
        return output["default"]
    if len(output) == 1:
        return next(iter(output.values()))
    raise BackboneUnavailable(f"{name} gives several outputs ({', '.join(output)}), none 'default'")


def _image_size(name: str, spec: Any, asked_px: int | None) -> tuple[int, int]:
    """(height, width): the model's own, else --image-size, else the table's."""
    height, width = spec.shape[1], spec.shape[2]
    if height and width:
        if asked_px not in (None, height) or asked_px not in (None, width):
            raise BackboneUnavailable(f"{name} takes {width} x {height} images only: drop --image-size")
        return height, width
    size = asked_px or image_size_of(name)
    if size is None:
        raise BackboneUnavailable(f"{name} takes images of any size: say which with --image-size")
    return size, size


def _keras(name: str, source: KerasApplication, image_size_px: int | None) -> _Made:
    """A class of keras.applications, its head off, its own preprocessing in front."""
    import keras

    build = getattr(keras.applications, source.application, None)
    if not callable(build):
        known = sorted(each for each in dir(keras.applications) if each[0].isupper())
        raise BackboneUnavailable(f"no {name}: keras.applications has {', '.join(known)}")
    preprocess = importlib.import_module(build.__module__).preprocess_input
    size = image_size_px or image_size_of(name) or KERAS_DEFAULT_IMAGE_SIZE
    if source.weights not in ("imagenet", "none") and not Path(source.weights).is_file():
        raise BackboneUnavailable(f"{name}: there is no weights file {source.weights}")
    keras.utils.set_random_seed(0)  # weights=none: the same network in every process
    try:
        with redirect_stdout(sys.stderr):  # where keras tells of a download
            model = build(
                include_top=False,
                weights=None if source.weights == "none" else source.weights,
                input_shape=(size, size, 3),
                pooling="avg",
            )
    except Exception as error:  # keras raises bare Exception where a download fails
        raise BackboneUnavailable(
            f"cannot build {name}: {_first_line(error)}; use ?weights=PATH for a file you have, "
            "or ?weights=none"
        ) from error
    model.trainable = False

    def network(images: tf.Tensor) -> tf.Tensor:
        return tf.cast(model(preprocess(images * 255.0), training=False), tf.float32)

    return network, _weights_digest(source.application, model), (size, size), model


def _weights_digest(application: str, model: Any) -> str:
    whole = hashlib.sha256(application.encode())
    for weight in model.weights:
        whole.update(str(tuple(weight.shape)).encode())
        whole.update(np.ascontiguousarray(weight.numpy()).tobytes())
    return whole.hexdigest()


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
