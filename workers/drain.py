"""When a worker is to stop, shared by its processes: told to by a signal, or unfit for its work."""

import multiprocessing
import time

# made before the pool forks, so that its processes see what the main one writes
_deadline = multiprocessing.Value("d", 0.0)
_is_unfit = multiprocessing.Value("b", False)


def begin(grace_s: float) -> None:
    """Tasks that are not done in so many seconds hand themselves back."""
    _deadline.value = time.monotonic() + grace_s


def is_over() -> bool:
    deadline: float = _deadline.value
    return deadline > 0 and time.monotonic() > deadline


def refuse() -> None:
    """This worker must take no more tasks: its results would be wrong."""
    _is_unfit.value = True


def is_refusing() -> bool:
    return bool(_is_unfit.value)
