"""workers.app: what a worker's main process loads before it forks."""

import subprocess
import sys

_LISTED = """
import sys
for each in %r:
    sys.modules[each] = None
from workers.app import app
app.loader.import_default_modules()
print(*sorted(each for each in app.tasks if not each.startswith("celery.")))
imported = {each for each, module in sys.modules.items() if module}
print(*sorted({"tensorflow", "cv2", "obstore"} & imported))
"""


def listed(without: list[str]) -> tuple[str, str]:
    """The tasks that a process registers which cannot import some packages, and what it imported."""
    done = subprocess.run(
        [sys.executable, "-c", _LISTED % without], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    tasks, imported = done.stdout.splitlines()
    return tasks, imported


def test_a_worker_that_only_scores_needs_neither_tensorflow_nor_opencv() -> None:
    tasks, _ = listed(without=["tensorflow", "tensorflow_hub", "cv2", "obstore"])
    assert "score" in tasks
    assert "extract" in tasks


def test_nothing_that_starts_threads_is_loaded_before_the_fork() -> None:
    _, imported = listed(without=[])
    assert imported == ""
