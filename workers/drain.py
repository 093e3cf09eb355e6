"""The time left to a worker that was told to stop, shared by its processes."""

import multiprocessing
import time

# made before the pool forks, so that its processes see what the main one writes; without a lock,
# which a process that is killed would keep
_deadline = multiprocessing.Value("d", 0.0, lock=False)


def begin(grace_s: float) -> None:
    """Tasks that are not done in so many seconds hand themselves back."""
    _deadline.value = time.monotonic() + grace_s


def is_over() -> bool:
    deadline: float = _deadline.value
    return deadline > 0 and time.monotonic() > deadline
