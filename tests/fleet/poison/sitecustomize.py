"""On a worker's PYTHONPATH, this makes a picture that ends with POISON crash its decoder for real."""

import ctypes
from typing import Any

import PIL.Image

_open = PIL.Image.open


def _crash(file: Any, *arguments: Any, **options: Any) -> PIL.Image.Image:
    if file.getvalue().endswith(b"POISON"):
        ctypes.string_at(0)  # reads address 0: a segmentation fault
    return _open(file, *arguments, **options)


vars(PIL.Image)["open"] = _crash
