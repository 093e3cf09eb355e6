"""What is installed here of what the `worker` extra brings."""

from importlib.util import find_spec

_WORKER = {"TensorFlow": "tensorflow", "OpenCV": "cv2", "obstore": "obstore"}


def missing_for_worker() -> str:
    """What a process lacks that computes features or trains, in words; empty if nothing."""
    return " and no ".join(name for name, module in _WORKER.items() if find_spec(module) is None)
