"""Features and a head to scored labels. No TensorFlow: a matrix product on any CPU."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from workers.contract import schemas

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Scorer:
    """weights: float32 (D, C); bias: float32 (C,); labels: C names."""

    weights: Floats
    bias: Floats
    labels: Sequence[str]

    def scores(self, features: npt.NDArray[Any]) -> Floats:
        """float16 or float32 (N, D) to probabilities, float32 (N, C)."""
        logits = features.astype(np.float32) @ self.weights + self.bias
        exp = np.exp(logits - logits.max(axis=1, keepdims=True))
        result: Floats = exp / exp.sum(axis=1, keepdims=True)
        return result

    def top(self, scores: Floats, k: int) -> tuple[npt.NDArray[np.int64], Floats]:
        """The k best classes of each row, best first: indices (N, k) and scores (N, k)."""
        best = np.argsort(-scores, axis=1, kind="stable")[:, :k]
        return best, np.take_along_axis(scores, best, axis=1)


def predictions(
    scorer: Scorer, rows: pa.Table, shard: pa.Table, features: npt.NDArray[Any], top_k: int
) -> pa.Table:
    """One prediction for each of the rows (schema: `schemas.PREDICTIONS`), in their order.

    rows: `schemas.SHARD_ROWS`; shard: the feature shard they point into, its features given as
    float16 or float32 (N, D). A row without a feature keeps its status and has no label.
    """
    at = rows.column("row")
    status = shard.column("status").take(at)
    good = np.asarray(status) == schemas.OK
    names = np.array(scorer.labels, dtype=object)
    best, scores = scorer.top(scorer.scores(features[at.to_numpy()]), top_k)
    top_labels = [list(names[row]) if ok else None for row, ok in zip(best, good, strict=True)]
    top_scores = [row if ok else None for row, ok in zip(scores, good, strict=True)]
    columns = [
        rows.column("uri"),
        rows.column("version"),
        status,
        shard.column("error").take(at),
        pa.array([each[0] if each else None for each in top_labels], pa.string()),
        pa.array([None if each is None else each[0] for each in top_scores], pa.float32()),
        pa.array(top_labels, pa.list_(pa.string())),
        pa.array(top_scores, pa.list_(pa.float32())),
        rows.column("label"),
    ]
    table = pa.table(columns, schema=schemas.PREDICTIONS)
    assert table.num_rows == rows.num_rows, "rows out = rows in"
    return table


def save_head(weights: Floats, bias: Floats) -> bytes:
    """The head as a NumPy archive with `weights` and `bias`."""
    file = io.BytesIO()
    np.savez(file, weights=weights, bias=bias)
    return file.getvalue()


def load_head(data: bytes, labels: Sequence[str]) -> Scorer:
    with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
        return Scorer(arrays["weights"], arrays["bias"], labels)
