"""Runs that several acceptance tests look at, each done once."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.command import Finished, Retrain
from tests.conftest import Pictures


@dataclass(frozen=True)
class Trained:
    """A `retrain run --json` that went well."""

    source: Path
    store: Path
    backbone: Path
    finished: Finished

    @property
    def result(self) -> dict[str, Any]:
        return self.finished.json

    @property
    def model(self) -> Path:
        return self.store / "models" / str(self.result["model_id"])

    def test_predictions(self) -> pa.Table:
        return pq.read_table(self.model / "test_predictions.parquet")


def train(retrain: Retrain, source: Path, store: Path, backbone: Path, *options: object) -> Trained:
    finished = retrain("run", source, "--store", store, "--backbone", backbone, "--json", *options)
    assert finished.code == 0, finished.stderr
    return Trained(source, store, backbone, finished)


@pytest.fixture(scope="session")
def flowers_run(
    retrain: Retrain, flowers: Path, mobilenet: Path, tmp_path_factory: pytest.TempPathFactory
) -> Trained:
    """500 photos, learned with a real backbone."""
    return train(retrain, flowers, tmp_path_factory.mktemp("flowers") / "store", mobilenet)


@pytest.fixture(scope="session")
def drawn_run(
    retrain: Retrain,
    pictures: Pictures,
    small_backbone: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Trained:
    """48 drawn pictures, learned with the small backbone."""
    return train(retrain, pictures.folder, tmp_path_factory.mktemp("drawn") / "store", small_backbone)
