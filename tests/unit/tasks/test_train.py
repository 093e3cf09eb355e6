from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from workers.contract import schemas
from workers.prediction.score import Scorer
from workers.tasks import train
from workers.training.dataset import Dataset

COUNT, CLASSES = 40, ["a", "b", "c"]


@pytest.fixture
def data() -> Dataset:
    """As training leaves them: of four images, two train, one validates, one tests."""
    rng = np.random.default_rng(0)
    splits = ["train"] * 20 + ["validation"] * 10 + ["test"] * 10
    labels = rng.integers(0, 3, COUNT).astype(np.int32)
    rows = pa.table(
        {
            "uri": [f"{n:02d}" for n in range(COUNT)],
            "version": [f"v{n}" for n in range(COUNT)],
            "size": np.ones(COUNT, np.int64),
            "label": [CLASSES[label] for label in labels],
            "split": splits,
        }
    )
    return Dataset(rng.normal(size=(COUNT, 5)).astype(np.float16), labels, rows)


@pytest.fixture
def scorer() -> Scorer:
    rng = np.random.default_rng(1)
    weights, bias = rng.normal(size=(5, 3)), rng.normal(size=3)
    return Scorer(weights.astype(np.float32), bias.astype(np.float32), CLASSES)


def found(scorer: Scorer, data: Dataset, block: int, patch: pytest.MonkeyPatch) -> tuple[Any, pa.Table]:
    patch.setattr(train, "_BLOCK", block)
    ticks: list[None] = []
    judged = train.judge(scorer, data, "validation", lambda: ticks.append(None))
    tested = train.predict_test(scorer, data, lambda: ticks.append(None))
    assert len(ticks) == 2 * -(-10 // block)
    return judged, tested


@pytest.mark.parametrize("block", [1, 3, 10])
def test_figures_and_predictions_are_the_same_however_many_images_are_scored_at_a_time(
    scorer: Scorer, data: Dataset, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    judged, tested = found(scorer, data, block, monkeypatch)
    expected_judged, expected = found(scorer, data, COUNT, monkeypatch)
    assert judged.pop("cross_entropy") == pytest.approx(expected_judged.pop("cross_entropy"))
    assert judged == expected_judged
    assert tested.drop_columns(["score", "top_scores"]).equals(
        expected.drop_columns(["score", "top_scores"])
    )
    np.testing.assert_allclose(tested["score"], expected["score"], rtol=1e-6)


def test_every_test_image_has_a_prediction_in_the_order_of_the_addresses(
    scorer: Scorer, data: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    tested = found(scorer, data, 4, monkeypatch)[1]
    assert tested.schema == schemas.PREDICTIONS
    assert tested["uri"].to_pylist() == [f"{n:02d}" for n in range(30, COUNT)]
    best = scorer.scores(data.features[30:]).argmax(axis=1)
    assert tested["label"].to_pylist() == [CLASSES[each] for each in best]
    assert tested["true_label"].to_pylist() == [CLASSES[each] for each in data.labels[30:]]


def test_without_test_images_there_are_no_predictions(scorer: Scorer, data: Dataset) -> None:
    none = Dataset(data.features[:20], data.labels[:20], data.rows.slice(0, 20))
    assert train.predict_test(scorer, none, lambda: None).num_rows == 0
