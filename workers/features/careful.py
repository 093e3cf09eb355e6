"""Finding the image that kills its worker (a decoder that crashes, a picture that takes all memory).

A journal in the store says what is about to be computed. A worker that dies leaves it behind, and
the next one knows where to look: first which batch, then which image of it. That image becomes a
failed row, and the shard goes on. Costs one small write for each batch, so it is used only for shards
of which workers died before.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from workers.contract.errors import ObjectMissing
from workers.features.decode import BadImage
from workers.features.extract import Image, Network, Progress, compute, table
from workers.storage import Store

CRASHED = "crashed"


@dataclass
class Journal:
    """`crashed`: rows known to kill; `trying`: the rows [begin, end) that were begun last."""

    store: Store
    key: str
    crashed: list[int]
    trying: tuple[int, int] | None

    @classmethod
    def open(cls, store: Store, key: str) -> "Journal":
        """Read what a dead worker left; a single row that it was trying is found guilty."""
        try:
            left = json.loads(store.read(key))
        except ObjectMissing:
            return cls(store, key, [], None)
        journal = cls(store, key, left["crashed"], tuple(left["trying"]))
        if journal.trying and journal.trying[1] - journal.trying[0] == 1:
            journal.crashed.append(journal.trying[0])
            journal.trying = None
        return journal

    def begin(self, begin: int, end: int) -> None:
        record = {"crashed": self.crashed, "trying": (begin, end)}
        self.store.write(self.key, json.dumps(record).encode())

    def close(self) -> None:
        self.store.delete(self.key)


def extract_carefully(
    images: Sequence[Image],
    backbone: Network,
    journal: Journal,
    *,
    batch_size: int,
    threads: int,
    progress: Progress,
) -> pa.Table:
    """What `extract` returns, with a row of status "crashed" for each image that kills."""
    features = np.zeros((len(images), backbone.feature_size), np.float32)
    failures = {
        row: BadImage(CRASHED, "reading this image killed its worker") for row in journal.crashed
    }
    for begin, end in _ranges(len(images), batch_size, journal.trying):
        journal.begin(begin, end)
        rows = [row for row in range(begin, end) if row not in failures]
        some = [images[row] for row in rows]
        found, bad = compute(some, backbone, batch_size=batch_size, threads=threads)
        features[rows] = found
        failures |= {rows[at]: why for at, why in bad.items()}
        progress(end, len(images))
    result = table(images, features, failures)
    journal.close()
    return result


def _ranges(images: int, batch_size: int, suspect: tuple[int, int] | None) -> Sequence[tuple[int, int]]:
    """Batches; the one that a worker died of goes image by image."""
    ranges = [(at, min(at + batch_size, images)) for at in range(0, images, batch_size)]
    if suspect is None:
        return ranges
    return [
        part
        for whole in ranges
        for part in ([(at, at + 1) for at in range(*whole)] if whole == suspect else [whole])
    ]
