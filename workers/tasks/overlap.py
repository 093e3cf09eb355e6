"""Two extraction tasks in one process: while one's last images are computed, the next is fed.

Celery gives a process one task at a time. A task that has fed all its images returns to Celery, and
ends in a thread of its own: its message is a hint that was taken, its beats go on until its result
is in the store, and they fall silent if the process dies.
"""

import threading
from collections.abc import Callable

TASKS = 2
_room = threading.Semaphore(TASKS)


def begin(work: Callable[[Callable[[], None]], None]) -> None:
    """Do the work beside one other; return when it calls what it is given, or ends."""
    fed = threading.Event()

    def run() -> None:
        try:
            work(fed.set)
        finally:
            _room.release()
            fed.set()

    _room.acquire()
    # a daemon: what it writes is never half written
    threading.Thread(target=run, name="task", daemon=True).start()
    fed.wait()


def alone(work: Callable[[], None]) -> None:
    """Do the work after all others have ended, and before the next."""
    finish()
    work()


def finish() -> None:
    """Wait for the tasks that were begun."""
    for _ in range(TASKS):
        _room.acquire()
    _room.release(TASKS)
