import numpy as np
import pyarrow as pa
import pytest

from workers.training import images
from workers.training.dataset import Dataset
from workers.training.images import Block, Images

COUNT = 100


@pytest.fixture(params=[7, 1_000])
def some(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Images:
    """Every image but the first ten, in blocks and windows that are small, and larger than all."""
    monkeypatch.setattr(images, "_BLOCK", request.param)
    monkeypatch.setattr(images, "_WINDOW", 3 * request.param)
    number = np.arange(COUNT)
    features = np.stack([number, -number], axis=1).astype(np.float16)
    data = Dataset(features, number.astype(np.int32), pa.table({"split": ["train"] * COUNT}))
    return Images(data, number[10:])


def together(blocks: list[Block]) -> list[int]:
    for features, labels in blocks:
        np.testing.assert_array_equal(features, np.stack([labels, -labels], axis=1))
    return [int(label) for _, labels in blocks for label in labels]


def test_blocks_hold_every_image_in_order(some: Images) -> None:
    assert together(list(some.blocks())) == list(range(10, COUNT))


@pytest.mark.parametrize("size", [1, 8, 90, 500])
def test_batches_hold_every_image_once_an_epoch(some: Images, size: int) -> None:
    batches = list(some.batches(np.random.default_rng(0), size))
    found = together(batches)
    assert sorted(found) == list(range(10, COUNT))
    assert {len(labels) for _, labels in batches[:-1]} <= {size}


def test_one_seed_gives_one_order_and_the_next_epoch_another(some: Images) -> None:
    one, other = np.random.default_rng(3), np.random.default_rng(3)
    first = together(list(some.batches(one, 8)))
    assert first == together(list(some.batches(other, 8)))
    assert first != together(list(some.batches(one, 8)))


def test_a_sample_is_of_these_images_and_ascending(some: Images) -> None:
    rows = some.some(20, seed=1).rows
    assert len(set(rows)) == 20
    assert sorted(rows) == rows.tolist()
    assert set(rows) <= set(some.rows)
    assert some.some(COUNT, seed=1) is some
