"""How good the head is on real photos: ten random splits of 400 and 100."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest

from workers.contract.training import TrainingSettings
from workers.features.backbone import load
from workers.features.decode import decode
from workers.training.dataset import Dataset
from workers.training.head import train

SPLITS, TRAIN, VALIDATION = 10, 360, 40
MAX_MEAN_ERROR = 0.135


@pytest.fixture(scope="session")
def flower_features(flowers: Path, mobilenet: Path) -> tuple[npt.NDArray[np.float16], list[str]]:
    """float16 (500, 1024), as a feature shard keeps them, and the label of each."""
    backbone = load(str(mobilenet), None)
    photos = sorted(flowers.glob("*/*"))
    pixels = [decode(each.read_bytes(), backbone.width, backbone.height) for each in photos]
    blocks = [backbone.features(np.stack(pixels[at : at + 50])) for at in range(0, len(pixels), 50)]
    return np.concatenate(blocks).astype(np.float16), [each.parent.name for each in photos]


def test_over_ten_random_splits_the_mean_error_is_that_of_a_tuned_logistic_regression(
    flower_features: tuple[npt.NDArray[np.float16], list[str]],
) -> None:
    features, names = flower_features
    classes = sorted(set(names))
    labels = np.array([classes.index(name) for name in names], np.int32)
    errors = []
    for seed in range(SPLITS):
        order = np.random.default_rng(seed).permutation(len(labels))
        split = np.full(len(labels), "test", dtype=object)
        split[order[:TRAIN]], split[order[TRAIN : TRAIN + VALIDATION]] = "train", "validation"
        data = Dataset(features, labels, pa.table({"split": pa.array(split, pa.string())}))
        head = train(data, classes, TrainingSettings(seed=seed))
        test = data.split("test")
        answers = (features[test].astype(np.float32) @ head.weights + head.bias).argmax(axis=1)
        errors.append(float((answers != labels[test]).mean()))
    assert np.mean(errors) <= MAX_MEAN_ERROR, errors
