"""Real photos, a real backbone, every command."""

from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from tests.acceptance.conftest import Trained, train
from tests.command import Finished, Retrain

RUN_KEYS = {
    "run_id",
    "model_id",
    "model_uri",
    "images",
    "extracted",
    "reused",
    "extract_images_per_s",
    "train_seconds",
    "validation",
    "test",
    "seconds",
    "stages",
}
PREDICT_KEYS = {"job", "images", "extracted", "reused", "predictions_uri", "seconds", "stages"}
ALL_GOOD = {"total": 500, "ok": 500, "failed": 0}


@pytest.fixture(scope="module")
def predicted(retrain: Retrain, flowers_run: Trained) -> Finished:
    return retrain("predict", flowers_run.source, "--store", flowers_run.store, "--json")


@pytest.fixture(scope="module")
def evaluated(retrain: Retrain, flowers_run: Trained) -> Finished:
    store = flowers_run.store
    return retrain("evaluate", flowers_run.source, "--store", store, "--split", "test", "--json")


def _prediction_rows(predicted: Finished) -> pa.Table:
    parts = sorted(Path(predicted.json["predictions_uri"]).glob("*.parquet"))
    return pa.concat_tables(pq.read_table(part) for part in parts)


def test_a_run_prints_one_json_object_with_the_keys_of_the_contract(flowers_run: Trained) -> None:
    result = flowers_run.result
    assert set(result) >= RUN_KEYS
    assert result["images"] == ALL_GOOD
    assert (result["extracted"], result["reused"]) == (500, 0)
    assert result["extract_images_per_s"] > 0
    assert 0 < result["train_seconds"] < result["seconds"]
    for split in ("validation", "test"):
        assert set(result[split]) == {"images", "top1_error", "top5_error"}


def test_a_run_says_where_its_time_went(retrain: Retrain, flowers_run: Trained) -> None:
    stages = flowers_run.result["stages"]
    own = ["list_s", "load_s", "plan_s", "extract_s", "count_s", "train_s"]
    assert [name for name in stages if name in own] == own
    assert all(stages[name] > 0 for name in own)
    assert sum(stages[name] for name in own) <= flowers_run.result["seconds"]
    assert stages["extract_s"] == flowers_run.result["extract_seconds"]
    assert stages["shards"] == 1

    # and the record of the run keeps it
    run_id = flowers_run.result["run_id"]
    status = retrain("status", run_id, "--store", flowers_run.store, "--json")
    assert set(status.json["result"]["stages"]) >= {"list_s", "workers", "bottleneck"}


def test_the_run_is_right_on_at_least_four_of_five_test_photos(flowers_run: Trained) -> None:
    test = flowers_run.result["test"]
    assert test["images"] == 51
    assert test["top1_error"] <= 0.20
    assert test["top5_error"] == 0


def test_the_model_folder_holds_every_file_it_should(flowers_run: Trained) -> None:
    files = {str(each.relative_to(flowers_run.model)) for each in flowers_run.model.rglob("*")}
    assert files >= {
        "saved_model/saved_model.pb",
        "output_graph.pb",
        "labels.txt",
        "model.json",
        "metrics.json",
        "test_predictions.parquet",
    }
    labels = (flowers_run.model / "labels.txt").read_text()
    assert labels == "daisy\ndandelion\nroses\nsunflowers\ntulips\n"


def test_a_second_run_extracts_and_trains_nothing(retrain: Retrain, flowers_run: Trained) -> None:
    again = train(retrain, flowers_run.source, flowers_run.store, flowers_run.backbone).result
    first = flowers_run.result
    assert (again["extracted"], again["reused"]) == (0, 500)
    assert again["extract_images_per_s"] is None
    assert "train_s" not in again["stages"]
    assert again["stages"]["bottleneck"] is None
    same = ("run_id", "model_id", "test", "validation")
    assert [again[key] for key in same] == [first[key] for key in same]


def test_the_test_predictions_agree_with_the_figures_of_the_run(flowers_run: Trained) -> None:
    rows = flowers_run.test_predictions()
    wrong = pc.sum(pc.not_equal(rows["label"], rows["true_label"])).as_py()
    assert rows.num_rows == flowers_run.result["test"]["images"]
    assert wrong / rows.num_rows == pytest.approx(flowers_run.result["test"]["top1_error"])


def test_predict_gives_one_row_for_each_image(predicted: Finished, flowers_run: Trained) -> None:
    assert predicted.code == 0, predicted.stderr
    result = predicted.json
    assert set(result) >= PREDICT_KEYS
    assert result["images"] == ALL_GOOD
    assert (result["extracted"], result["reused"]) == (0, 500)
    assert result["stages"]["score_s"] > 0
    photos = {str(each) for each in flowers_run.source.glob("*/*")}
    rows = _prediction_rows(predicted)
    assert rows.num_rows == 500
    assert set(rows["uri"].to_pylist()) == photos


def test_predicted_labels_come_best_first_with_scores_that_sum_to_one(predicted: Finished) -> None:
    for row in _prediction_rows(predicted).to_pylist():
        assert row["label"] == row["top_labels"][0]
        assert row["score"] == row["top_scores"][0]
        assert row["top_scores"] == sorted(row["top_scores"], reverse=True)
        assert len(set(row["top_labels"])) == 5
        assert sum(row["top_scores"]) == pytest.approx(1, abs=1e-4)


def test_evaluate_on_the_test_split_agrees_with_the_run(
    evaluated: Finished, flowers_run: Trained
) -> None:
    assert evaluated.code == 0, evaluated.stderr
    result = evaluated.json
    figures = {key: result[key] for key in ("images", "top1_error", "top5_error")}
    assert figures == flowers_run.result["test"]
    assert result["stages"]["evaluate_s"] > 0
    assert [each["label"] for each in result["classes"]] == sorted(flowers_run.result["labels"])
    assert sum(map(sum, result["confusion_matrix"])) == 51
    for each, row in zip(result["classes"], result["confusion_matrix"], strict=True):
        assert each["images"] == sum(row)


def test_label_prints_labels_and_scores_best_first(retrain: Retrain, flowers_run: Trained) -> None:
    known = flowers_run.test_predictions().to_pylist()[0]
    finished = retrain("label", known["uri"], "--store", flowers_run.store)
    assert finished.code == 0, finished.stderr
    lines = [line.rsplit(" ", 1) for line in finished.stdout.splitlines()]
    assert [label for label, _ in lines] == known["top_labels"]
    scores = [float(score) for _, score in lines]
    assert scores == pytest.approx(known["top_scores"], abs=2e-3)
