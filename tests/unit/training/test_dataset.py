import numpy as np
import pyarrow as pa
import pytest

from workers.contract import schemas
from workers.features.extract import feature_matrix
from workers.training.dataset import Dataset, join

SIZE = 2
FEATURES = schemas.features(SIZE, pa.float16())


def shard(*values: float | None) -> pa.Table:
    """A feature shard with [value, -value] for each image, None for a bad one."""
    rows = [
        {
            "uri": f"first/{n}",
            "version": f"v{n}",
            "status": "corrupt" if value is None else schemas.OK,
            "error": "broken" if value is None else None,
            "feature": None if value is None else [np.float16(value), np.float16(-value)],
        }
        for n, value in enumerate(values)
    ]
    return pa.Table.from_pylist(rows, schema=FEATURES)


def rows(*of: tuple[str, str, str, int]) -> pa.Table:
    """(uri, label, split, row in the shard)"""
    return pa.Table.from_pylist(
        [
            {"uri": uri, "version": f"v{row}", "size": 1, "label": label, "split": split, "row": row}
            for uri, label, split, row in of
        ],
        schema=schemas.SHARD_ROWS,
    )


@pytest.fixture
def joined() -> Dataset:
    pairs = [
        (rows(("d", "x", "train", 1), ("a", "y", "test", 0)), shard(1, 2)),
        (
            rows(("b", "y", "train", 0), ("c", "x", "train", 1), ("e", "x", "train", 2)),
            shard(3, None, 5),
        ),
    ]
    return join(pairs, ["x", "y"], feature_matrix)


def test_images_come_in_the_order_of_their_addresses_with_their_own_features(joined: Dataset) -> None:
    assert joined.rows["uri"].to_pylist() == ["a", "b", "d", "e"]
    np.testing.assert_array_equal(joined.features, [[1, -1], [3, -3], [2, -2], [5, -5]])
    np.testing.assert_array_equal(joined.labels, [1, 1, 0, 0])
    assert [str(each.dtype) for each in (joined.features, joined.labels)] == ["float16", "int32"]


def test_images_without_a_feature_are_left_out(joined: Dataset) -> None:
    assert "c" not in joined.rows["uri"].to_pylist()


def test_a_split_is_its_rows_in_ascending_order(joined: Dataset) -> None:
    assert joined.split("train").tolist() == [1, 2, 3]
    assert joined.split("test").tolist() == [0]
    assert joined.split("validation").tolist() == []


def test_copies_of_one_image_share_its_feature() -> None:
    copies = rows(("a", "x", "train", 0), ("b", "y", "train", 0))
    np.testing.assert_array_equal(
        join([(copies, shard(4))], ["x", "y"], feature_matrix).features[:, 0], [4, 4]
    )


def test_the_order_of_the_shards_does_not_matter() -> None:
    pairs = [(rows((name, "x", "train", 0)), shard(value)) for name, value in (("a", 1), ("b", 2))]
    one, other = (join(each, ["x"], feature_matrix) for each in (pairs, pairs[::-1]))
    np.testing.assert_array_equal(one.features, other.features)


def test_shards_of_both_precisions_go_together() -> None:
    wide = shard(70_000.0 / 2).cast(schemas.features(SIZE, pa.float32()))
    pairs = [(rows(("a", "x", "train", 0)), shard(1)), (rows(("b", "x", "train", 0)), wide)]
    data = join(pairs, ["x"], feature_matrix)
    assert data.features.dtype == np.float32
    assert data.features[:, 0].tolist() == [1, float(np.float16(35_000))]
