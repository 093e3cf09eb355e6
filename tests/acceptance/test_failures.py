"""Bad pictures are rows with a reason; the run goes on up to a stated part of them."""

import csv
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq
import pytest

from orchestrator.demo import TRAINING, draw_pictures
from tests.acceptance.conftest import Trained, train
from tests.command import Finished, Retrain
from tests.conftest import Pictures
from workers.contract.errors import ExitCode
from workers.features.extract import feature_matrix

BAD = {"empty": "empty", "page": "unsupported", "cut": "corrupt", "half": "corrupt"}
GOOD = 80


class Spoiled(NamedTuple):
    run: Trained
    bad: dict[str, str]
    """The status that each bad file should get, by its address."""


@pytest.fixture(scope="module")
def spoiled(
    retrain: Retrain, small_backbone: Path, tmp_path_factory: pytest.TempPathFactory
) -> Spoiled:
    """80 good pictures and 4 bad ones, which is within the default budget of 5 %."""
    folder = tmp_path_factory.mktemp("spoiled")
    draw_pictures(folder, per_label=GOOD // 4, unseen_per_label=0, seed=3)
    disc = folder / TRAINING / "disc"
    good, other = sorted(disc.glob("*.jpg"))[0].read_bytes(), sorted(disc.glob("*.png"))[0].read_bytes()
    contents = {
        "empty": b"",
        "page": b"<!DOCTYPE html><title>404</title>",
        "cut": good[: len(good) // 2],
        "half": other[: len(other) // 2],
    }
    for name, content in contents.items():
        (disc / f"{name}.jpg").write_bytes(content)
    run = train(retrain, folder / TRAINING, folder / "store", small_backbone)
    return Spoiled(run, {str(disc / f"{name}.jpg"): status for name, status in BAD.items()})


@pytest.fixture(scope="module")
def predicted(retrain: Retrain, spoiled: Spoiled) -> Finished:
    return retrain("predict", spoiled.run.source, "--store", spoiled.run.store, "--json")


def _listed(uri: str) -> dict[str, str]:
    with Path(uri).open(newline="") as file:
        return {row["uri"]: row["status"] for row in csv.DictReader(file) if row["error"]}


def test_bad_pictures_are_counted_listed_and_left_out(spoiled: Spoiled) -> None:
    result = spoiled.run.result
    assert result["images"] == {"total": GOOD + len(BAD), "ok": GOOD, "failed": len(BAD)}
    assert sum(result["failures"].values()) == len(BAD)
    assert _listed(result["failures_uri"]) == spoiled.bad


def test_a_table_names_the_failures_and_where_they_are_listed(
    retrain: Retrain, spoiled: Spoiled
) -> None:
    run = spoiled.run
    finished = retrain("run", run.source, "--store", run.store, "--backbone", run.backbone)
    printed = "".join(finished.stdout.split())
    assert f"{GOOD + len(BAD)}:{GOOD}ok,{len(BAD)}failed" in printed
    assert run.result["failures_uri"] in printed


def test_bad_pictures_are_not_tried_again(predicted: Finished) -> None:
    assert predicted.code == 0, predicted.stderr
    assert (predicted.json["extracted"], predicted.json["reused"]) == (0, GOOD + len(BAD))


def test_bad_pictures_have_a_prediction_row_without_a_label(
    predicted: Finished, spoiled: Spoiled
) -> None:
    (part,) = Path(predicted.json["predictions_uri"]).glob("*.parquet")
    rows = pq.read_table(part).to_pylist()
    assert len(rows) == GOOD + len(BAD)
    assert {row["uri"]: row["status"] for row in rows if row["label"] is None} == spoiled.bad


def test_evaluate_judges_the_good_pictures_and_counts_the_bad(
    retrain: Retrain, spoiled: Spoiled
) -> None:
    finished = retrain("evaluate", spoiled.run.source, "--store", spoiled.run.store, "--json")
    assert finished.code == 0, finished.stderr
    assert (finished.json["images"], finished.json["failed"]) == (GOOD, len(BAD))
    assert [each["images"] for each in finished.json["classes"]] == [GOOD // 4] * 4


def test_past_the_budget_the_run_fails_and_says_how_many_and_where(
    retrain: Retrain, spoiled: Spoiled
) -> None:
    run = spoiled.run
    arguments = ("run", run.source, "--store", run.store, "--backbone", run.backbone)
    finished = retrain(*arguments, "--max-failed-fraction", "0.04", "--json")
    assert finished.code == ExitCode.FAILED
    assert finished.json["error"]["type"] == "TooManyFailures"
    assert finished.error.startswith("4 of 84 images failed")
    uri = finished.error.rpartition(" ")[2]
    assert _listed(uri) == spoiled.bad


def test_many_small_shards_hold_the_same_features_as_one(
    retrain: Retrain, drawn_run: Trained, pictures: Pictures, tmp_path: Path
) -> None:
    cut = train(retrain, pictures.folder, tmp_path / "store", drawn_run.backbone, "--shard-size", "5")
    one, many = _features(drawn_run.store), _features(cut.store)
    assert len(list((cut.store / "features").glob("*/*.parquet"))) == 10
    assert one.keys() == many.keys()
    for version, feature in one.items():
        np.testing.assert_array_equal(feature, many[version])
    assert cut.result["test"] == drawn_run.result["test"]


def _features(store: Path) -> dict[str, npt.NDArray[np.generic]]:
    """Every feature of a store by the version of its image."""
    found: dict[str, npt.NDArray[np.generic]] = {}
    for path in (store / "features").glob("*/*.parquet"):
        table = pq.read_table(path)
        found |= zip(table["version"].to_pylist(), feature_matrix(table), strict=True)
    return found
