from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest

from workers.contract import schemas
from workers.prediction.score import Scorer, load_head, predictions, save_head

LABELS = ["a", "b", "c"]


@pytest.fixture
def scorer() -> Scorer:
    """Its logits are the features themselves, b's raised by one."""
    return Scorer(np.eye(3, dtype=np.float32), np.array([0, 1, 0], np.float32), LABELS)


def shard(*status: str) -> pa.Table:
    errors = [None if each == schemas.OK else f"it is {each}" for each in status]
    return pa.table({"status": list(status), "error": pa.array(errors, pa.string())})


def rows(*at: int, labels: Sequence[str | None] = ()) -> pa.Table:
    labels = labels or [None] * len(at)
    values = [
        {"uri": f"u{n}", "version": f"v{row}", "size": 1, "label": label, "split": None, "row": row}
        for n, (row, label) in enumerate(zip(at, labels, strict=True))
    ]
    return pa.Table.from_pylist(values, schema=schemas.SHARD_ROWS)


def features(*of: list[float]) -> npt.NDArray[np.float16]:
    return np.array(of, np.float16)


def test_scores_are_the_softmax_of_the_logits(scorer: Scorer) -> None:
    found = scorer.scores(features([2, 0, -1]))
    exp = np.exp([2.0, 1.0, -1.0])
    np.testing.assert_allclose(found[0], exp / exp.sum(), rtol=1e-6)
    assert found.dtype == np.float32


def test_large_features_do_not_overflow(scorer: Scorer) -> None:
    found = scorer.scores(np.array([[1e4, 0, -1e4], [6e4, 6e4, 0]], np.float32))
    np.testing.assert_allclose(found.sum(axis=1), 1)
    np.testing.assert_allclose(found[0], [1, 0, 0])


@pytest.mark.parametrize(("k", "expected"), [(1, [1]), (2, [1, 0]), (3, [1, 0, 2]), (9, [1, 0, 2])])
def test_the_best_classes_come_first_and_of_equal_ones_the_first(
    k: int, expected: list[int], scorer: Scorer
) -> None:
    best, scores = scorer.top(np.array([[0.2, 0.6, 0.2]], np.float32), k)
    assert best[0].tolist() == expected
    assert scores[0].tolist() == sorted(scores[0].tolist(), reverse=True)


def test_every_row_in_is_a_row_out_in_the_same_order(scorer: Scorer) -> None:
    known = shard("ok", "corrupt", "ok", "missing")
    values = features([5, 0, 0], [0, 0, 0], [0, 0, 5], [0, 0, 0])
    table = predictions(scorer, rows(2, 1, 0, 3, 2), known, values, top_k=2)
    assert table.schema == schemas.PREDICTIONS
    assert table["uri"].to_pylist() == ["u0", "u1", "u2", "u3", "u4"]
    assert table["version"].to_pylist() == ["v2", "v1", "v0", "v3", "v2"]
    assert table["label"].to_pylist() == ["c", None, "a", None, "c"]
    assert table["status"].to_pylist() == ["ok", "corrupt", "ok", "missing", "ok"]
    assert table["error"].to_pylist() == [None, "it is corrupt", None, "it is missing", None]


def test_a_failed_row_has_neither_labels_nor_scores(scorer: Scorer) -> None:
    (row,) = predictions(scorer, rows(0), shard("empty"), features([0, 0, 0]), 3).to_pylist()
    assert [row[key] for key in ("label", "score", "top_labels", "top_scores")] == [None] * 4


def test_the_best_label_and_score_are_the_first_of_the_top(scorer: Scorer) -> None:
    (row,) = predictions(scorer, rows(0), shard("ok"), features([3, 0, 1]), 2).to_pylist()
    assert row["top_labels"] == ["a", "b"]
    assert (row["label"], row["score"]) == ("a", row["top_scores"][0])
    expected = np.exp([3, 1]) / np.exp([3, 1, 1]).sum()
    assert row["top_scores"] == pytest.approx(expected.tolist(), rel=1e-5)


def test_what_the_source_said_is_kept(scorer: Scorer) -> None:
    given = rows(0, 0, labels=["b", None])
    table = predictions(scorer, given, shard("ok"), features([1, 0, 0]), 1)
    assert table["true_label"].to_pylist() == ["b", None]


def test_no_rows_give_no_predictions(scorer: Scorer) -> None:
    table = predictions(scorer, rows(), shard("ok"), features([1, 0, 0]), 3)
    assert (table.num_rows, table.schema) == (0, schemas.PREDICTIONS)


def test_a_saved_head_is_read_back(scorer: Scorer) -> None:
    found = load_head(save_head(scorer.weights, scorer.bias), LABELS)
    np.testing.assert_array_equal(found.weights, scorer.weights)
    np.testing.assert_array_equal(found.bias, scorer.bias)
    assert found.labels == LABELS
