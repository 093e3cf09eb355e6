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
from workers.features.decode import Failure
from workers.features.extract import table
from workers.features.extractor import Extractor, Image, Progress
from workers.storage import Store

CRASHED = "crashed"


@dataclass
class Journal:
    """`crashed`: rows known to kill; `suspect`: a row that a worker died of once; `trying`: the rows
    [begin, end) that were begun last, none if the last worker ended alive."""

    store: Store
    key: str
    crashed: list[int]
    suspect: int | None = None
    trying: tuple[int, int] | None = None

    @classmethod
    def open(cls, store: Store, key: str) -> "Journal":
        """Read what a dead worker left. A single row that it was trying is suspect the first time
        (the worker may have died of something else) and found guilty the second."""
        try:
            left = json.loads(store.read(key))
        except ObjectMissing:
            return cls(store, key, [])
        trying = tuple(left["trying"]) if left["trying"] else None
        journal = cls(store, key, left["crashed"], left["suspect"], trying)
        if trying and trying[1] - trying[0] == 1:
            if trying[0] == journal.suspect:
                journal.crashed.append(trying[0])
                journal.suspect = journal.trying = None
            else:
                journal.suspect = trying[0]
        return journal

    def begin(self, begin: int, end: int) -> None:
        self._write((begin, end))

    def rest(self) -> None:
        """The worker goes alive: what it was trying did not kill it."""
        self._write(None)

    def close(self) -> None:
        self.store.delete(self.key)

    def _write(self, trying: tuple[int, int] | None) -> None:
        record = {"crashed": self.crashed, "suspect": self.suspect, "trying": trying}
        self.store.write(self.key, json.dumps(record).encode())


def extract_carefully(
    images: Sequence[Image], extractor: Extractor, journal: Journal, progress: Progress
) -> pa.Table:
    """What `extract` returns, with a row of status "crashed" for each image that kills."""
    network = extractor.network
    features = np.zeros((len(images), network.feature_size), np.float32)
    failures = {
        row: Failure(CRASHED, "reading this image killed its worker") for row in journal.crashed
    }
    try:
        for begin, end in _ranges(len(images), network.batch_size, journal.trying):
            journal.begin(begin, end)
            rows = [row for row in range(begin, end) if row not in failures]
            found, bad = extractor.compute([images[row] for row in rows])
            features[rows] = found
            failures |= {rows[at]: why for at, why in bad.items()}
            progress(end, len(images))
    except Exception:
        journal.rest()
        raise
    result = table(images, features, failures)
    journal.close()
    return result


def _ranges(images: int, batch_size: int, suspect: tuple[int, int] | None) -> Sequence[tuple[int, int]]:
    """Batches; one that a worker died of, or in, goes image by image."""
    ranges = [(at, min(at + batch_size, images)) for at in range(0, images, batch_size)]
    if suspect is None:
        return ranges
    parts: list[tuple[int, int]] = []
    for begin, end in ranges:
        is_hit = begin < suspect[1] and suspect[0] < end
        parts += [(at, at + 1) for at in range(begin, end)] if is_hit else [(begin, end)]
    return parts
