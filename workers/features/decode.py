"""Image bytes to the pixels a backbone sees: every format, one rule.

The rule, which is part of every backbone's fingerprint (raise PREPROCESSING_VERSION when it
changes): the first frame, turned by its EXIF orientation, alpha dropped, in RGB; reduced by the
largest of 8, 4, 2 that leaves both sides at least as large as the target (JPEG by its DCT, others
by box averages); then bilinear to the target without keeping the aspect ratio, sampled at
x * width / target_width and rounded: what `tf.compat.v1.image.resize_bilinear` does, and so
retrain.py and label_image.py.
"""

import io
import warnings
from contextlib import nullcontext
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, UnidentifiedImageError

from workers.features import Pixels
from workers.features.budget import Budget

PREPROCESSING_VERSION = 2
FORMATS = ("JPEG", "PNG", "GIF", "BMP", "WEBP")
_BEGINNINGS = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF87a", b"GIF89a")
MAX_PIXELS = 100_000_000
"""Pictures of more pixels are refused by their header: 100 Mpx is 300 MB once decoded."""

_ORIENTATION_TAG = 0x0112
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_REDUCTIONS = (8, 4, 2)
_JPEG = ("JPEG", "MPO")
_NO_MEMORY = ("out of memory", "insufficient memory")
"""What Pillow and OpenCV say of it, in errors of other kinds than MemoryError."""

# The limit above is checked for every picture; Pillow's own warns at 89 Mpx.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)


class Failure(NamedTuple):
    """Why an image has no feature: `status` is one of the contract's failures."""

    status: str
    reason: str


class BadImage(Exception):
    """A picture that gives no pixels. Not to be kept: its traceback holds the picture."""

    def __init__(self, status: str, reason: str) -> None:
        super().__init__(reason)
        self.failure = Failure(status, reason)


def decode(data: bytes, width: int, height: int, pixels: Budget | None = None) -> Pixels:
    """The picture in `data` as uint8 (height, width, 3) RGB. Raises BadImage.

    pixels: what threads that decode at the same time may decode together.
    """
    image = _open(data)
    try:
        with pixels.taken(_held_pixels(image, width, height)) if pixels else nullcontext():
            return resize(_upright(image, width, height), width, height)
    except Exception as error:
        # Decoders meet hostile bytes and raise nearly anything; each is this picture's failure.
        raise _bad(error) from error


def _bad(error: Exception) -> BadImage:
    if isinstance(error, MemoryError) or any(each in str(error).lower() for each in _NO_MEMORY):
        return BadImage("no_memory", "its worker had not the memory to decode it")
    return BadImage("corrupt", _one_line(error))


def _held_pixels(image: Image.Image, width: int, height: int) -> int:
    """Pixels in memory while the picture is decoded: a plain JPEG is reduced as it is read."""
    is_plain_jpeg = image.format in _JPEG and "progressive" not in image.info
    factor = reduction(image.size, (max(width, height),) * 2) if is_plain_jpeg else 1
    return image.width * image.height // factor**2


def _open(data: bytes) -> Image.Image:
    """The picture with its header read, its format and size checked."""
    if not data:
        raise BadImage("empty", "the file has no bytes")
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
    except UnidentifiedImageError:
        if data.startswith(_BEGINNINGS):
            raise BadImage("corrupt", "it begins as a picture and does not go on as one") from None
        raise BadImage("unsupported", f"not a {', '.join(FORMATS)} picture{_hint(data)}") from None
    except Image.DecompressionBombError as error:
        raise BadImage("too_large", _one_line(error)) from error
    except Exception as error:  # as in decode()
        raise _bad(error) from error
    if image.width * image.height > MAX_PIXELS:
        size = f"{image.width} x {image.height}"
        raise BadImage("too_large", f"{size} is more than {MAX_PIXELS // 1_000_000} megapixels")
    return image


def _upright(image: Image.Image, width: int, height: int) -> Pixels:
    """The picture in RGB, reduced for this target and turned."""
    orientation = _orientation(image)
    # a picture lying on its side is reduced before it is turned
    target = (height, width) if orientation >= 5 else (width, height)
    factor = reduction(image.size, target)
    if factor > 1 and image.format in _JPEG:
        image.draft("RGB", (image.width // factor, image.height // factor))
    rgb = to_rgb(image)
    if factor > 1 and image.format not in _JPEG:
        rgb = rgb.reduce(factor)
    if orientation > 1:
        rgb = rgb.transpose(_TURNS[orientation])
    return np.asarray(rgb)


def reduction(size: tuple[int, int], target: tuple[int, int]) -> int:
    """The factor, of 8, 4, 2 and 1, by which a picture is shrunk before it is resized."""
    for factor in _REDUCTIONS:
        if size[0] >= factor * target[0] and size[1] >= factor * target[1]:
            return factor
    return 1


def to_rgb(image: Image.Image) -> Image.Image:
    """Any mode to 8-bit RGB: 16-bit grey keeps its high byte, alpha is dropped."""
    if image.mode.startswith("I"):
        high = (np.asarray(image) >> 8).clip(0, 255)
        image = Image.fromarray(high.astype(np.uint8), "L")
    return image if image.mode == "RGB" else image.convert("RGB")


def resize(pixels: Pixels, width: int, height: int) -> Pixels:
    """Bilinear as TensorFlow 1 does it: corners not aligned, no half-pixel shift, no antialias."""
    if pixels.shape == (height, width, 3):
        return pixels
    cv2 = _opencv()
    to_source = np.diag((pixels.shape[1] / width, pixels.shape[0] / height, 1))[:2]
    bilinear = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    resized: Pixels = cv2.warpAffine(
        pixels, to_source, (width, height), flags=bilinear, borderMode=cv2.BORDER_REPLICATE
    )
    return resized


@cache
def _opencv() -> Any:
    """A worker that only scores, or has not forked yet, does without."""
    import cv2

    # pictures are decoded side by side, each on one thread
    cv2.setNumThreads(1)
    return cv2


def _orientation(image: Image.Image) -> int:
    try:
        value = image.getexif().get(_ORIENTATION_TAG, 1)
    except Exception:  # a broken EXIF block says nothing; the pixels may be fine
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _hint(data: bytes) -> str:
    start = data[:256].lstrip().lower()
    if start.startswith((b"<!doctype html", b"<html")):
        return ": it is an HTML page"
    if start.startswith((b"<?xml", b"<svg")):
        return ": it is XML or SVG"
    if start.startswith((b"ii*\0", b"mm\0*")):
        return ": it is TIFF"
    return ""


def _one_line(error: Exception) -> str:
    return " ".join(f"{error}".split()) or type(error).__name__
