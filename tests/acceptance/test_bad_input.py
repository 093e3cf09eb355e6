"""What cannot be used is one clear line and an exit code, never a traceback."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.acceptance.conftest import Trained
from tests.command import Retrain
from tests.conftest import Pictures
from workers.contract.errors import ExitCode


class Place(NamedTuple):
    """What a case may use: good pictures, a good backbone, and an empty folder to spoil."""

    pictures: Path
    backbone: Path
    folder: Path


Arguments = tuple[object, ...]
Case = Callable[[Place], Arguments]


def _run(place: Place, source: object, *, backbone: object = "", store: object = "") -> Arguments:
    backbone, store = backbone or place.backbone, store or place.folder / "store"
    return ("run", source, "--backbone", backbone, "--store", store)


def _manifest(place: Place, text: str) -> Arguments:
    path = place.folder / "labels.csv"
    path.write_text(text)
    return _run(place, path)


def _folders(place: Place, *labels: str, empty: str = "") -> Arguments:
    """Good pictures of these labels, and a folder without any."""
    source = place.folder / "source"
    source.mkdir()
    for label in labels:
        (source / label).symlink_to(place.pictures / label)
    if empty:
        (source / empty).mkdir()
    return _run(place, source)


def _below_a_file(place: Place) -> Arguments:
    (place.folder / "file").touch()
    return _run(place, place.pictures, store=place.folder / "file" / "store")


def _backbone(place: Place, name: object) -> Arguments:
    return _run(place, place.pictures, backbone=name)


SOURCES: dict[str, tuple[Case, str, list[str]]] = {
    "no such folder": (lambda p: _run(p, p.folder / "nowhere"), "BadSource", ["nowhere"]),
    "an empty folder": (lambda p: _folders(p), "BadSource", ["no images"]),
    "one label": (lambda p: _folders(p, "disc"), "BadSource", ["only one label", "'disc'"]),
    "a label without images": (
        lambda p: _folders(p, "disc", "star", empty="sun"),
        "BadSource",
        ["sun"],
    ),
    "no such manifest": (lambda p: _run(p, p.folder / "none.csv"), "BadManifest", ["none.csv"]),
    "a manifest without uris": (lambda p: _manifest(p, "a,b\n1,2\n"), "BadManifest", ["uri"]),
    "a manifest without labels": (lambda p: _manifest(p, "uri\na.jpg\n"), "BadManifest", ["label"]),
    "a manifest with an unknown split": (
        lambda p: _manifest(p, "uri,label,split\na.jpg,x,exam\n"),
        "BadManifest",
        ["row 1", "'exam'", "validation"],
    ),
    "a manifest that lists an image twice": (
        lambda p: _manifest(p, "uri,label\na.jpg,x\n./a.jpg,y\n"),
        "BadManifest",
        ["a.jpg", "more than once"],
    ),
    "an unknown scheme of a store": (
        lambda p: _run(p, p.pictures, store="ftp://host/x"),
        "BadSource",
        ["ftp://", "s3://"],
    ),
}
BACKBONES: dict[str, tuple[Case, list[str]]] = {
    "an unknown name": (lambda p: _backbone(p, "nonesuch"), ["nonesuch", "inception_v3"]),
    "a TF Hub model that cannot be fetched": (
        lambda p: _backbone(p, "inception_v3"),
        ["https://tfhub.dev/google/imagenet/inception_v3/feature_vector/5", "TFHUB_CACHE_DIR"],
    ),
    "a folder that is no SavedModel": (lambda p: _backbone(p, p.pictures), ["saved_model.pb"]),
    "an unknown Keras application": (lambda p: _backbone(p, "keras:Nope"), ["Nope", "MobileNetV2"]),
    "Keras weights that are not there": (
        lambda p: _backbone(p, "keras:MobileNetV2?weights=none.h5"),
        ["no weights file none.h5"],
    ),
}
STORES: dict[str, tuple[Case, list[str]]] = {
    "a run into a folder below a file": (_below_a_file, ["file/store"]),
}


@pytest.fixture
def place(pictures: Pictures, small_backbone: Path, tmp_path: Path) -> Place:
    return Place(pictures.folder, small_backbone, tmp_path)


def check(
    retrain: Retrain, arguments: Arguments, code: ExitCode, words: list[str], kind: str = ""
) -> None:
    """The command fails with this code, one line on stderr and the same line as JSON."""
    finished = retrain(*arguments, "--json")
    assert finished.code == code, finished.stderr
    error = finished.json["error"]
    assert set(finished.json) == {"error"}
    assert error == {"type": kind or error["type"], "message": finished.error, "exit_code": code}
    for word in words:
        assert word in finished.error


@pytest.mark.parametrize("case", SOURCES)
def test_a_source_that_cannot_be_learned_from_is_bad_input(
    case: str, retrain: Retrain, place: Place
) -> None:
    arguments, kind, words = SOURCES[case]
    check(retrain, arguments(place), ExitCode.BAD_INPUT, words, kind)


@pytest.mark.parametrize("case", BACKBONES)
def test_a_backbone_that_cannot_be_had_is_named_with_the_remedy(
    case: str, retrain: Retrain, place: Place
) -> None:
    arguments, words = BACKBONES[case]
    check(retrain, arguments(place), ExitCode.BACKBONE, words, "BackboneUnavailable")


@pytest.mark.parametrize("case", STORES)
def test_a_store_that_cannot_be_written_is_named(case: str, retrain: Retrain, place: Place) -> None:
    arguments, words = STORES[case]
    check(retrain, arguments(place), ExitCode.STORE, words)


@pytest.mark.parametrize("command", ["predict", "evaluate", "label"])
def test_a_model_that_is_not_in_the_store_is_bad_input(
    command: str, retrain: Retrain, place: Place
) -> None:
    store = place.folder / "store"
    arguments = (command, place.pictures, "--store", store, "--model", "nonesuch")
    check(retrain, arguments, ExitCode.BAD_INPUT, ["nonesuch", str(store)], "NoSuchModel")


def test_a_run_that_is_not_in_the_store_is_bad_input(retrain: Retrain, place: Place) -> None:
    arguments = ("status", "nonesuch", "--store", place.folder)
    check(retrain, arguments, ExitCode.BAD_INPUT, ["nonesuch"], "NoSuchRun")


def test_labels_that_the_model_does_not_know_cannot_be_judged(
    retrain: Retrain, drawn_run: Trained, tmp_path: Path
) -> None:
    for label in ("disc", "square"):
        (tmp_path / label).symlink_to(drawn_run.source / "disc")
    arguments = ("evaluate", tmp_path, "--store", drawn_run.store)
    check(retrain, arguments, ExitCode.BAD_INPUT, ["'square'", "disc, grid"], "BadSource")


def test_another_backbone_than_the_model_learned_with_is_refused(
    retrain: Retrain, drawn_run: Trained, pictures: Pictures
) -> None:
    other = "keras:MobileNetV2?weights=none"
    arguments = ("predict", pictures.unseen, "--store", drawn_run.store, "--backbone", other)
    check(retrain, arguments, ExitCode.BACKBONE, ["fingerprint"], "BackboneChanged")


@pytest.mark.parametrize(("version", "remedy"), [(1, "train it again"), (99, "update the workers")])
def test_a_model_of_another_preprocessing_is_refused_with_the_remedy(
    retrain: Retrain,
    drawn_run: Trained,
    pictures: Pictures,
    tmp_path: Path,
    version: int,
    remedy: str,
) -> None:
    # Given a store whose model another release has trained, which made other pixels
    store = shutil.copytree(drawn_run.store, tmp_path / "store")
    (model,) = store.glob("models/*/model.json")
    record = json.loads(model.read_text())
    model.write_text(json.dumps(record | {"preprocessing_version": version, "fingerprint": "f" * 20}))

    # Then neither the backbone nor its place is blamed
    arguments = ("predict", pictures.unseen, "--store", store)
    words = [f"pixels of version {version}", remedy]
    check(retrain, arguments, ExitCode.BACKBONE, words, "BackboneChanged")


def test_an_image_that_cannot_be_labelled_is_bad_input_and_the_others_are_labelled(
    retrain: Retrain, drawn_run: Trained, pictures: Pictures, tmp_path: Path
) -> None:
    good, bad = sorted(pictures.unseen.iterdir())[0], tmp_path / "bad.jpg"
    bad.write_bytes(b"<html>not found</html>")
    finished = retrain("label", good, bad, "--store", drawn_run.store)
    assert finished.code == ExitCode.BAD_INPUT
    assert "bad.jpg: unsupported" in finished.error
    assert finished.stdout.splitlines()[0] == f"{good}:"
    as_json = retrain("label", good, bad, "--store", drawn_run.store, "--json")
    assert as_json.code == ExitCode.BAD_INPUT
    assert [row["status"] for row in as_json.json["images"]] == ["ok", "unsupported"]


def test_without_json_nothing_is_printed_where_results_go(retrain: Retrain, place: Place) -> None:
    finished = retrain(*_folders(place, "disc"))
    assert (finished.code, finished.stdout) == (ExitCode.BAD_INPUT, "")
    assert finished.error.startswith("only one label ('disc')")


def test_an_option_out_of_range_is_a_usage_error(retrain: Retrain, place: Place) -> None:
    arguments = (*_run(place, place.pictures), "--max-failed-fraction", "3")
    assert retrain(*arguments, "--json").json["error"]["exit_code"] == ExitCode.USAGE
    finished = retrain(*arguments)
    assert (finished.code, finished.stdout) == (ExitCode.USAGE, "")
    assert "--max-failed-fraction" in finished.error
