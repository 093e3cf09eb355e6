"""Pictures for `retrain demo`: drawn here, so that it needs no network and no data."""

import math
import random
from collections.abc import Callable
from pathlib import Path

from PIL import Image, ImageColor, ImageDraw, ImageFilter

Color = tuple[int, int, int]
Shape = Callable[[ImageDraw.ImageDraw, float, float, float, Color], None]

TRAINING, UNSEEN = "pictures", "unseen"


def draw_pictures(folder: Path, per_label: int, unseen_per_label: int, seed: int = 0) -> list[str]:
    """Write `pictures/LABEL/*` and `unseen/LABEL-*`, JPEG and PNG of many sizes.

    Returns the labels. The same arguments draw the same pictures.
    """
    for label, (shape, hue) in _LABELS.items():
        rng = random.Random(f"{label} {seed}")
        (folder / TRAINING / label).mkdir(parents=True, exist_ok=True)
        (folder / UNSEEN).mkdir(parents=True, exist_ok=True)
        for number in range(per_label + unseen_per_label):
            suffix = rng.choice(("jpg", "png"))
            name = (
                f"{TRAINING}/{label}/{number:03d}.{suffix}"
                if number < per_label
                else f"{UNSEEN}/{label}-{number:03d}.{suffix}"
            )
            _picture(rng, shape, hue).save(folder / name)
    return sorted(_LABELS)


def _picture(rng: random.Random, shape: Shape, hue: int) -> Image.Image:
    """The shape, once to three times, somewhere on a noisy ground."""
    width, height = rng.randint(180, 520), rng.randint(180, 520)
    ground = _color(rng, rng.randint(0, 359), (10, 40), (60, 100))
    image = Image.effect_noise((width, height), rng.uniform(10, 40)).convert("RGB")
    image = Image.blend(image, Image.new("RGB", (width, height), ground), 0.75)
    draw = ImageDraw.Draw(image)
    for _ in range(rng.randint(1, 3)):
        size = rng.uniform(0.15, 0.35) * min(width, height)
        x, y = rng.uniform(size, width - size), rng.uniform(size, height - size)
        shape(draw, x, y, size, _color(rng, hue, (50, 100), (25, 80)))
    return image.filter(ImageFilter.GaussianBlur(rng.uniform(0, 1.2)))


def _color(rng: random.Random, hue: int, saturation: tuple[int, int], value: tuple[int, int]) -> Color:
    """A colour near this hue (0-359), its saturation and value somewhere in these ranges (0-100)."""
    tone = (hue + rng.randint(-25, 25)) % 360
    return ImageColor.getrgb(f"hsv({tone},{rng.randint(*saturation)}%,{rng.randint(*value)}%)")[:3]


def _disc(draw: ImageDraw.ImageDraw, x: float, y: float, size: float, color: Color) -> None:
    draw.ellipse((x - size, y - size, x + size, y + size), fill=color)


def _stripes(draw: ImageDraw.ImageDraw, x: float, y: float, size: float, color: Color) -> None:
    for step in range(-3, 4):
        at = y + step * size / 3.5
        draw.line((x - size, at, x + size, at), fill=color, width=max(2, int(size / 9)))


def _grid(draw: ImageDraw.ImageDraw, x: float, y: float, size: float, color: Color) -> None:
    step = size / 2.5
    for row in range(5):
        for column in range(5):
            if (row + column) % 2 == 0:
                left, top = x - size + column * step, y - size + row * step
                draw.rectangle((left, top, left + step, top + step), fill=color)


def _star(draw: ImageDraw.ImageDraw, x: float, y: float, size: float, color: Color) -> None:
    points = []
    for corner in range(10):
        radius = size if corner % 2 == 0 else size * 0.35
        angle = math.pi * corner / 5
        points.append((x + radius * math.sin(angle), y - radius * math.cos(angle)))
    draw.polygon(points, fill=color)


# a shape and the hue it mostly has, as flowers do
_LABELS: dict[str, tuple[Shape, int]] = {
    "disc": (_disc, 0),
    "grid": (_grid, 220),
    "star": (_star, 45),
    "stripes": (_stripes, 130),
}
