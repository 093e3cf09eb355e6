"""As many photos as a benchmark asks for, from few: each with a version of its own."""

import io
from collections.abc import Iterator, Sequence
from itertools import count, cycle, islice
from pathlib import Path

import numpy as np
from PIL import Image

LARGE_PX = (4000, 3000)
_NOISE = 6
_QUALITY = 92


def jpegs(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.jpg"))


def evenly(files: Sequence[Path], images: int) -> list[Path]:
    """So many of them, from every part of the list: all labels, where it is sorted by label."""
    taken = np.linspace(0, len(files), min(images, len(files)), endpoint=False).astype(int)
    return [files[each] for each in taken]


def repeat(files: Sequence[Path], images: int, target: Path) -> Path:
    """So many photos at target/LABEL/. A repeated one has bytes after its end, which decoders do not
    read: another version of the same pixels."""
    some = evenly(files, images)
    for number, source in zip(count(), islice(cycle(some), images), strict=False):
        place = target / source.parent.name / f"{number:06d}.jpg"
        place.parent.mkdir(parents=True, exist_ok=True)
        again = number // len(some)
        place.write_bytes(source.read_bytes() + (again.to_bytes(4, "big") if again else b""))
    return target


def enlarge(files: Sequence[Path], target: Path) -> Path:
    """Each photo at 12 megapixels, at target/LABEL/: enlarged, with the noise that a camera adds."""
    for source, data in zip(files, map(_enlarged, files, count()), strict=False):
        place = target / source.parent.name / source.name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(data)
    return target


def _enlarged(source: Path, seed: int) -> bytes:
    with Image.open(source) as photo:
        large = photo.convert("RGB").resize(LARGE_PX, Image.Resampling.BICUBIC)
    noise = np.random.default_rng(seed).integers(-_NOISE, _NOISE + 1, (*LARGE_PX[::-1], 3), np.int8)
    noisy = (np.asarray(large).astype(np.int16) + noise).clip(0, 255).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(noisy).save(file, "JPEG", quality=_QUALITY)
    return file.getvalue()


def contents(files: Sequence[Path]) -> Iterator[bytes]:
    return (each.read_bytes() for each in files)
