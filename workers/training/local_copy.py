"""Arrays on disk that no crash leaves behind."""

import math
import mmap
import os
import tempfile
from pathlib import Path

import numpy as np
import numpy.typing as npt

from workers.contract.errors import NoLocalDisk

Floats = npt.NDArray[np.float16] | npt.NDArray[np.float32]


def on_disk(folder: Path, shape: tuple[int, int], dtype: npt.DTypeLike) -> Floats:
    """A writable array of zeros in a memory-mapped file below folder.

    The file has no name, so its room is free again when the array is gone, however the process
    ends. Raises NoLocalDisk where there is not room for all of it.
    """
    length = math.prod(shape) * np.dtype(dtype).itemsize
    if not length:  # an empty file cannot be mapped
        return np.zeros(shape, dtype)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            if hasattr(os, "posix_fallocate"):
                # now, since a disk that is full when a page is written kills the process (SIGBUS)
                os.posix_fallocate(file.fileno(), 0, length)
            else:
                file.truncate(length)
            mapping = mmap.mmap(file.fileno(), length)
    except OSError as error:
        raise NoLocalDisk(
            f"{folder}: no place for {length / 1e9:.1f} GB of features ({error.strerror}): make "
            "room, or set RETRAIN_CACHE_DIR to a folder on a larger disk"
        ) from error
    return np.frombuffer(mapping, dtype).reshape(shape)
