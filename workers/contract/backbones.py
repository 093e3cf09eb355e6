"""The backbones known by name: one row each.

Names stand for TF Hub handles, which all take float32 images in [0, 1]; `keras:NAME` takes any
class of keras.applications, for which `KERAS_IMAGE_SIZE` gives the size it was trained on.
A handle, path or URL that is no name here is passed to the loader as it is.
"""

from dataclasses import dataclass

DEFAULT = "inception_v3"


@dataclass(frozen=True)
class KnownBackbone:
    handle: str
    image_size_px: int
    feature_size: int
    value_range: tuple[float, float] = (0.0, 1.0)
    """What its pixels are scaled to before they reach it."""


_HUB = "https://tfhub.dev/google/"

BACKBONES: dict[str, KnownBackbone] = {
    "inception_v3": KnownBackbone(f"{_HUB}imagenet/inception_v3/feature_vector/5", 299, 2048),
    "inception_resnet_v2": KnownBackbone(
        f"{_HUB}imagenet/inception_resnet_v2/feature_vector/5", 299, 1536
    ),
    "mobilenet_v1": KnownBackbone(f"{_HUB}imagenet/mobilenet_v1_100_224/feature_vector/5", 224, 1024),
    "mobilenet_v2": KnownBackbone(f"{_HUB}imagenet/mobilenet_v2_100_224/feature_vector/5", 224, 1280),
    "mobilenet_v3_large": KnownBackbone(
        f"{_HUB}imagenet/mobilenet_v3_large_100_224/feature_vector/5", 224, 1280
    ),
    "resnet50": KnownBackbone(f"{_HUB}imagenet/resnet_v2_50/feature_vector/5", 224, 2048),
    "resnet101": KnownBackbone(f"{_HUB}imagenet/resnet_v2_101/feature_vector/5", 224, 2048),
    "resnet152": KnownBackbone(f"{_HUB}imagenet/resnet_v2_152/feature_vector/5", 224, 2048),
    "efficientnet_b0": KnownBackbone(f"{_HUB}efficientnet/b0/feature-vector/1", 224, 1280),
    "efficientnet_b4": KnownBackbone(f"{_HUB}efficientnet/b4/feature-vector/1", 380, 1792),
    "efficientnet_b7": KnownBackbone(f"{_HUB}efficientnet/b7/feature-vector/1", 600, 2560),
    "efficientnet_v2_b0": KnownBackbone(
        f"{_HUB}imagenet/efficientnet_v2_imagenet1k_b0/feature_vector/2", 224, 1280
    ),
    "efficientnet_v2_s": KnownBackbone(
        f"{_HUB}imagenet/efficientnet_v2_imagenet1k_s/feature_vector/2", 384, 1280
    ),
}

KERAS_IMAGE_SIZE: dict[str, int] = {
    "InceptionV3": 299,
    "InceptionResNetV2": 299,
    "Xception": 299,
    "EfficientNetB1": 240,
    "EfficientNetB2": 260,
    "EfficientNetB3": 300,
    "EfficientNetB4": 380,
    "EfficientNetB5": 456,
    "EfficientNetB6": 528,
    "EfficientNetB7": 600,
    "EfficientNetV2B1": 240,
    "EfficientNetV2B2": 260,
    "EfficientNetV2B3": 300,
    "EfficientNetV2S": 384,
    "EfficientNetV2M": 480,
    "EfficientNetV2L": 480,
    "NASNetLarge": 331,
}
KERAS_DEFAULT_IMAGE_SIZE = 224


def image_size_of(name: str) -> int | None:
    """The input size, in pixels, that the table gives a name or its handle; None if it is not there."""
    if name.startswith("keras:"):
        application = name.removeprefix("keras:").partition("?")[0]
        return KERAS_IMAGE_SIZE.get(application, KERAS_DEFAULT_IMAGE_SIZE)
    for known, row in BACKBONES.items():
        if name in (known, row.handle):
            return row.image_size_px
    return None


def value_range_of(name: str) -> tuple[float, float]:
    """The range of the pixels that a name or its handle takes: [0, 1] unless the table differs."""
    rows = [row for known, row in BACKBONES.items() if name in (known, row.handle)]
    return rows[0].value_range if rows else (0.0, 1.0)
