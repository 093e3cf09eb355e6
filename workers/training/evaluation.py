"""How good predictions are: error rates, per-class figures, the confusion matrix."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt


class Evaluation:
    """Adds up batches of scores, so that memory does not grow with the number of images."""

    def __init__(self, labels: Sequence[str]) -> None:
        self._labels = list(labels)
        self._confusion = np.zeros((len(labels), len(labels)), np.int64)
        self._top5_right = 0
        self._log_loss = 0.0

    def add(self, scores: npt.NDArray[np.float32], truth: npt.NDArray[np.int32]) -> None:
        """scores: float32 (B, C), rows summing to 1; truth: int32 (B,), class indices."""
        np.add.at(self._confusion, (truth, scores.argmax(axis=1)), 1)
        own = scores[np.arange(len(truth)), truth]
        # the rank of the true class: how many score higher
        self._top5_right += int(((scores > own[:, None]).sum(axis=1) < 5).sum())
        self._log_loss -= float(np.log(np.maximum(own, 1e-12)).sum())

    @property
    def images(self) -> int:
        return int(self._confusion.sum())

    def result(self) -> dict[str, Any]:
        """Rates are in [0, 1] and None where nothing was judged; `confusion_matrix` counts
        images, a row for each true label and a column for each predicted one."""
        right = np.diag(self._confusion)
        of_class, as_class = self._confusion.sum(axis=1), self._confusion.sum(axis=0)
        return {
            "images": self.images,
            "top1_error": _error(int(right.sum()), self.images),
            "top5_error": _error(self._top5_right, self.images),
            "cross_entropy": self._log_loss / self.images if self.images else None,
            "classes": [
                {
                    "label": label,
                    "images": int(of_class[i]),
                    "precision": _ratio(int(right[i]), int(as_class[i])),
                    "recall": _ratio(int(right[i]), int(of_class[i])),
                }
                for i, label in enumerate(self._labels)
            ],
            "confusion_matrix": self._confusion.tolist(),
        }


def _error(right: int, of: int) -> float | None:
    return (of - right) / of if of else None


def _ratio(part: int, of: int) -> float | None:
    return part / of if of else None
