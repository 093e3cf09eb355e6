"""Some of a dataset's images, read block by block while the one before is worked on."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from workers.ahead import in_order
from workers.training.dataset import Dataset
from workers.training.local_copy import Floats

Labels = npt.NDArray[np.int32]
Rows = npt.NDArray[np.int64]
Block = tuple[Floats, Labels]

_BLOCK = 8_192
# What an epoch shuffles at a time: 128 MB of Inception's features, read from the disk in one go.
_WINDOW = 32_768


@dataclass(frozen=True)
class Images:
    """rows: int64 (n,), the rows of the dataset that are meant, ascending."""

    data: Dataset
    rows: Rows

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def labels(self) -> Labels:
        return self.data.labels[self.rows]

    def counts(self, classes: int) -> npt.NDArray[np.int64]:
        """Images of each class, (C,)."""
        return np.bincount(self.labels, minlength=classes)

    def some(self, count: int, seed: int) -> "Images":
        """All, or as many at random."""
        if len(self) <= count:
            return self
        chosen = np.random.default_rng(seed).choice(self.rows, count, replace=False)
        return replace(self, rows=np.sort(chosen))

    def blocks(self) -> Iterator[Block]:
        """All in order: features (B, D) as they are stored, and labels (B,)."""
        return self._read(self.rows, _BLOCK)

    def batches(self, rng: np.random.Generator, size: int) -> Iterator[Block]:
        """All in random order, `size` at a time.

        Windows of neighbours come in random order, each shuffled in itself. The dataset's own
        order is random, so a batch is a fair sample all the same.
        """
        windows = [self.rows[at : at + _WINDOW] for at in range(0, len(self), _WINDOW)]
        order = [rng.permutation(windows[each]) for each in rng.permutation(len(windows))]
        return self._read(np.concatenate(order), size)

    def _read(self, order: Rows, size: int) -> Iterator[Block]:
        def gather(begin: int) -> Block:
            rows = np.sort(order[begin : begin + size])  # the order of the disk
            return self.data.features[rows], self.data.labels[rows]

        with in_order(gather, range(0, len(order), size), threads=1) as ahead:
            yield from ahead
