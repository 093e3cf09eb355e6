"""Fixtures for tests of every kind."""

import os
from pathlib import Path
from typing import NamedTuple

import pytest

from orchestrator.demo import TRAINING, UNSEEN, draw_pictures
from tests.backbones import save_small_backbone
from tests.command import Retrain, clean_environment

DATA_VARIABLE = "RETRAIN_TEST_DATA"


class Pictures(NamedTuple):
    labels: list[str]
    folder: Path
    """One folder for each label."""
    unseen: Path
    """LABEL-NUMBER.jpg or .png, side by side."""


@pytest.fixture(scope="session")
def data() -> Path:
    """Real photos and a real backbone, which are not part of this repository."""
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get(DATA_VARIABLE, beside))
    if not folder.is_dir():
        pytest.skip(f"no test data in {folder}: set {DATA_VARIABLE}")
    return folder


@pytest.fixture(scope="session")
def flowers(data: Path) -> Path:
    """500 photos of five kinds of flowers."""
    return data / "flowers"


@pytest.fixture(scope="session")
def mobilenet(data: Path) -> Path:
    """MobileNet v1 with ImageNet weights: 224 x 224 px to 1,024 features."""
    return data / "mobilenet_v1_feature_vector"


@pytest.fixture(scope="session")
def small_backbone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """64 x 64 px to 48 features, in no time."""
    return save_small_backbone(tmp_path_factory.mktemp("backbones") / "small")


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Pictures:
    """Drawn pictures: 12 for each of four labels, and 2 unseen ones. Not to be changed by tests."""
    folder = tmp_path_factory.mktemp("drawn")
    labels = draw_pictures(folder, per_label=12, unseen_per_label=2)
    return Pictures(labels, folder / TRAINING, folder / UNSEEN)


@pytest.fixture(scope="session")
def retrain(tmp_path_factory: pytest.TempPathFactory) -> Retrain:
    """The installed command."""
    folder = tmp_path_factory.mktemp("command")
    return Retrain(folder, clean_environment(folder / "caches"))
