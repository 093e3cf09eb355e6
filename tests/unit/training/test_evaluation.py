import math
from typing import Any

import numpy as np
import pytest

from workers.training.evaluation import Evaluation

# (scores, truth): of six images, four are right
SCORES = [
    [0.7, 0.2, 0.1],
    [0.6, 0.3, 0.1],
    [0.5, 0.4, 0.1],
    [0.1, 0.8, 0.1],
    [0.2, 0.2, 0.6],
    [0.3, 0.6, 0.1],
]
TRUTH = [0, 0, 1, 1, 2, 2]


def evaluated(scores: list[list[float]], truth: list[int], batch: int, labels: str) -> dict[str, Any]:
    evaluation = Evaluation(list(labels))
    for begin in range(0, len(truth), batch):
        part = slice(begin, begin + batch)
        evaluation.add(np.array(scores[part], np.float32), np.array(truth[part], np.int32))
    return evaluation.result()


@pytest.mark.parametrize("batch", [1, 4, 100])
def test_figures_are_those_counted_by_hand_however_the_images_are_batched(batch: int) -> None:
    result = evaluated(SCORES, TRUTH, batch, "abc")
    assert result["images"] == 6
    assert result["top1_error"] == pytest.approx(2 / 6)
    assert result["top5_error"] == 0
    assert result["confusion_matrix"] == [[2, 0, 0], [1, 1, 0], [0, 1, 1]]
    losses = [-math.log(row[own]) for row, own in zip(SCORES, TRUTH, strict=True)]
    assert result["cross_entropy"] == pytest.approx(sum(losses) / 6, rel=1e-5)
    assert result["classes"] == [
        {"label": "a", "images": 2, "precision": pytest.approx(2 / 3), "recall": 1},
        {"label": "b", "images": 2, "precision": pytest.approx(1 / 2), "recall": 0.5},
        {"label": "c", "images": 2, "precision": 1, "recall": 0.5},
    ]


def test_the_true_label_in_fifth_place_counts_and_in_sixth_does_not() -> None:
    row = [0.3, 0.2, 0.17, 0.13, 0.11, 0.09]
    assert evaluated([row] * 2, [4, 5], 2, "abcdef")["top5_error"] == 0.5


def test_between_equal_scores_the_first_label_is_predicted_as_everywhere_else() -> None:
    result = evaluated([[0.4, 0.4, 0.2]] * 2, [0, 1], 2, "abc")
    assert result["confusion_matrix"] == [[1, 0, 0], [1, 0, 0], [0, 0, 0]]


def test_a_class_that_is_absent_or_never_predicted_has_no_figure() -> None:
    result = evaluated([[0.9, 0.1, 0.0]], [0], 1, "abc")
    nothing = {"images": 0, "precision": None, "recall": None}
    assert result["classes"][1:] == [{"label": "b"} | nothing, {"label": "c"} | nothing]


def test_a_score_of_zero_for_the_truth_costs_much_but_not_infinity() -> None:
    assert evaluated([[1.0, 0.0]], [1], 1, "ab")["cross_entropy"] == pytest.approx(-math.log(1e-12))


@pytest.mark.parametrize("batches", [0, 1])
def test_no_images_have_no_rates(batches: int) -> None:
    evaluation = Evaluation(["a", "b"])
    for _ in range(batches):
        evaluation.add(np.zeros((0, 2), np.float32), np.zeros(0, np.int32))
    result = evaluation.result()
    assert result["images"] == 0
    assert [result[key] for key in ("top1_error", "top5_error", "cross_entropy")] == [None] * 3
