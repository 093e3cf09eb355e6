"""`retrain demo`: the first thing that anybody runs."""

import time
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.command import Finished, Retrain

LIMIT_S = 120


class Demo(NamedTuple):
    told: Finished
    as_json: Finished
    """The same folder once more."""
    seconds: float


@pytest.fixture(scope="module")
def demo(retrain: Retrain, tmp_path_factory: pytest.TempPathFactory) -> Demo:
    folder = tmp_path_factory.mktemp("demo") / "kept"
    began = time.monotonic()
    told = retrain("demo", "--folder", folder)
    seconds = time.monotonic() - began
    return Demo(told, retrain("demo", "--folder", folder, "--json"), seconds)


def test_the_demo_ends_well_within_two_minutes(demo: Demo) -> None:
    assert demo.told.code == 0, demo.told.stderr
    assert demo.seconds < LIMIT_S


def test_the_demo_says_what_its_numbers_mean_and_what_to_type_next(demo: Demo) -> None:
    assert "random weights" in demo.told.stdout
    assert "unseen pictures were labelled right" in demo.told.stdout
    for line in ("retrain run photos/", "retrain predict new-photos/", "retrain label one.jpg"):
        assert f"  {line}" in demo.told.stdout


def test_the_demo_labels_most_unseen_pictures_right(demo: Demo) -> None:
    assert demo.as_json.code == 0, demo.as_json.stderr
    result = demo.as_json.json
    named = [Path(row["uri"]).name.partition("-")[0] == row["label"] for row in result["unseen"]]
    assert len(named) == 20
    assert sum(named) == result["unseen_right"] >= 15
    assert f"{result['unseen_right']} of 20 unseen" in demo.told.stdout


def test_the_demo_is_a_real_run_that_reuses_what_it_has(demo: Demo) -> None:
    run, predict = demo.as_json.json["run"], demo.as_json.json["predict"]
    assert run["backbone"]["feature_size"] == 2048
    assert run["images"] == {"total": 160, "ok": 160, "failed": 0}
    assert predict["images"] == {"total": 20, "ok": 20, "failed": 0}
    assert (run["extracted"], predict["extracted"]) == (0, 0)
