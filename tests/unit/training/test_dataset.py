import gc
import resource
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pytest

from workers.contract import layout, schemas
from workers.contract.errors import BadSource, HandedBack, NoLocalDisk, ObjectMissing
from workers.features.extract import feature_matrix
from workers.storage import Store, open_store
from workers.storage.tables import write_table
from workers.tasks.train import find_shards
from workers.training.dataset import Dataset, Shard, Shards

SIZE = 2


class Picture(NamedTuple):
    """An image whose feature is [value, -value]; None: it failed."""

    uri: str
    label: str
    split: str
    value: float | None


PICTURES = [
    Picture("a", "y", "test", 1),
    Picture("b", "y", "train", 3),
    Picture("c", "x", "train", None),
    Picture("d", "x", "train", 2),
    Picture("e", "x", "train", 5),
    Picture("f", "y", "validation", 6),
    Picture("g", "y", "train", 7),
    Picture("h", "x", "test", 8),
]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(str(tmp_path / "store"))


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def written(
    store: Store, *shards: Sequence[Picture], kind: pa.DataType | None = None, plan: str = "plan"
) -> Shards:
    """The plan of these shards; its rows go backwards, so that `row` is needed."""
    for number, shard in enumerate(shards):
        name = f"{plan}-{number}"
        rows = [
            {"version": f"v{row}", "size": 1, "row": row} | picture._asdict()
            for row, picture in enumerate(shard)
        ]
        table = pa.Table.from_pylist(rows[::-1], schema=schemas.SHARD_ROWS)
        write_table(store, layout.shard_rows("run", plan, name), table)
        write_table(store, layout.features("print", name), features(shard, kind or pa.float16()))
    return find_shards(store, "run", plan, len(shards), "print")


def features(shard: Sequence[Picture], kind: pa.DataType) -> pa.Table:
    rows = [
        {
            "uri": f"first/{row}",
            "version": f"v{row}",
            "status": "corrupt" if picture.value is None else schemas.OK,
            "error": "broken" if picture.value is None else None,
            "feature": None if picture.value is None else number([picture.value, -picture.value], kind),
        }
        for row, picture in enumerate(shard)
    ]
    return pa.Table.from_pylist(rows, schema=schemas.features(SIZE, kind))


def number(values: list[float], kind: pa.DataType) -> list[Any]:
    return [np.dtype(kind.to_pandas_dtype()).type(value) for value in values]


def loaded(shards: Shards, cache: Path, seed: int = 0) -> Dataset:
    return shards.load(["x", "y"], seed, cache, lambda done: None)


def content(data: Dataset) -> list[tuple[str, str, int, float]]:
    uris, splits = data.rows["uri"].to_pylist(), data.rows["split"].to_pylist()
    first = data.features[:, 0].tolist()
    return list(zip(uris, splits, data.labels.tolist(), first, strict=True))


def test_every_image_has_its_own_feature_and_label(store: Store, cache: Path) -> None:
    data = loaded(written(store, PICTURES[:3], PICTURES[3:]), cache)
    good = [each for each in PICTURES if each.value is not None]
    expected = [(each.uri, each.split, "xy".index(each.label), each.value) for each in good]
    assert sorted(content(data)) == sorted(expected)
    np.testing.assert_array_equal(data.features[:, 1], -data.features[:, 0])
    assert [str(each.dtype) for each in (data.features, data.labels)] == ["float16", "int32"]


def test_images_without_a_feature_are_left_out(store: Store, cache: Path) -> None:
    data = loaded(written(store, PICTURES), cache)
    assert "c" not in data.rows["uri"].to_pylist()
    assert len(data.features) == 7


def test_splits_lie_one_after_the_other_and_only_training_is_shuffled(
    store: Store, cache: Path
) -> None:
    data = loaded(written(store, PICTURES), cache)
    assert data.split("train").tolist() == [0, 1, 2, 3]
    assert data.split("validation").tolist() == [4]
    assert data.split("test").tolist() == [5, 6]
    assert data.rows["uri"].to_pylist()[4:] == ["f", "a", "h"]


def many() -> list[Picture]:
    return [Picture(f"{n:03d}", "xy"[n % 2], "test" if n % 5 == 0 else "train", n) for n in range(200)]


def test_the_cut_of_the_shards_does_not_matter(store: Store, cache: Path) -> None:
    images = many()
    cuts = [[images], [images[150:], images[:60], images[60:150]], [images[::2], images[1::2]]]
    found = [
        content(loaded(written(store, *cut, plan=f"cut{each}"), cache)) for each, cut in enumerate(cuts)
    ]
    assert found[0] == found[1] == found[2]


def test_the_seed_gives_the_order_of_training(store: Store, cache: Path) -> None:
    shards = written(store, many())
    one, same, other = (content(loaded(shards, cache, seed)) for seed in (1, 1, 2))
    assert one == same
    assert one[:160] != sorted(one[:160])
    assert one[:160] != other[:160]
    assert sorted(one[:160]) == sorted(other[:160])
    assert one[160:] == other[160:] == sorted(one[160:])


def test_copies_of_one_image_share_its_feature(store: Store, cache: Path) -> None:
    shards = written(store, [PICTURES[1]])
    key = shards.keys[0].rows_key
    copies = [
        {"uri": uri, "version": "v", "size": 1, "label": "x", "split": "test", "row": 0} for uri in "ab"
    ]
    write_table(store, key, pa.Table.from_pylist(copies, schema=schemas.SHARD_ROWS))
    assert loaded(shards, cache).features[:, 0].tolist() == [3, 3]


def test_shards_of_both_precisions_go_together(store: Store, cache: Path) -> None:
    half = written(store, [Picture("a", "x", "test", 1)], plan="half")
    wide = written(store, [Picture("b", "x", "test", 70_000)], plan="wide", kind=pa.float32())
    data = loaded(Shards(store, [*half.keys, *wide.keys], feature_matrix), cache)
    assert data.features.dtype == np.float32
    assert data.features[:, 0].tolist() == [1, 70_000]


def test_a_label_that_the_run_does_not_have_is_refused(store: Store, cache: Path) -> None:
    with pytest.raises(BadSource, match="start the run again"):
        loaded(written(store, [Picture("a", "z", "train", 1)]), cache)


def test_without_any_feature_there_is_an_empty_dataset(store: Store, cache: Path) -> None:
    data = loaded(written(store, [PICTURES[2]]), cache)
    assert data.features.shape == (0, SIZE)
    assert data.split("train").tolist() == []


def test_a_feature_shard_that_is_gone_is_named(store: Store) -> None:
    shards = written(store, PICTURES)
    store.delete(shards.keys[0].features_key)
    with pytest.raises(ObjectMissing, match=f"{shards.keys[0].features_key}: start the run again"):
        find_shards(store, "run", "plan", 1, "print")


@pytest.mark.parametrize(("megabytes", "threads"), [(1, 32), (32, 5), (10_000, 1)])
def test_large_shards_are_read_fewer_at_a_time(store: Store, megabytes: int, threads: int) -> None:
    shards = Shards(store, [Shard("rows", "features", megabytes * 2**20)], feature_matrix)
    assert shards.threads() == threads


def is_mapped(cache: Path) -> bool:
    gc.collect()
    return str(cache) in Path("/proc/self/maps").read_text()


def test_the_local_copy_has_no_name_and_goes_with_the_dataset(store: Store, cache: Path) -> None:
    data = loaded(written(store, PICTURES), cache)
    assert is_mapped(cache)
    assert list(cache.iterdir()) == []
    del data
    assert not is_mapped(cache)


def stop(done: int) -> None:
    if done:
        raise HandedBack("the worker is shutting down")


def test_nothing_is_left_of_a_copy_that_was_stopped(store: Store, cache: Path) -> None:
    shards = written(store, PICTURES[:4], PICTURES[4:])
    with pytest.raises(HandedBack):
        shards.load(["x", "y"], 0, cache, stop)
    assert list(cache.iterdir()) == []
    assert not is_mapped(cache)


def test_nothing_is_left_of_a_copy_that_failed(store: Store, cache: Path) -> None:
    shards = written(store, PICTURES[:4], PICTURES[4:])

    told = []

    def vanish_after_the_first_pass(done: int) -> None:
        told.append(done)
        if len(told) == len(shards.keys):
            store.delete(shards.keys[1].features_key)

    with pytest.raises(ObjectMissing):
        shards.load(["x", "y"], 0, cache, vanish_after_the_first_pass)
    assert list(cache.iterdir()) == []
    assert not is_mapped(cache)


@contextmanager
def largest_file(size_bytes: int) -> Iterator[None]:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_a_disk_without_room_is_told_in_one_line_with_the_remedy(store: Store, cache: Path) -> None:
    shards = written(store, many())
    with largest_file(400), pytest.raises(NoLocalDisk) as told:
        loaded(shards, cache)
    assert "\n" not in str(told.value)
    assert str(cache) in str(told.value)
    assert "set RETRAIN_CACHE_DIR" in str(told.value)
    assert list(cache.iterdir()) == []


def test_a_folder_that_cannot_be_made_is_told_the_same_way(store: Store, cache: Path) -> None:
    cache.write_text("a file is in the way")
    with pytest.raises(NoLocalDisk, match="set RETRAIN_CACHE_DIR"):
        loaded(written(store, PICTURES), cache)


def test_a_full_disk_is_told_before_a_page_of_it_is_written(store: Store, tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    mounting = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(small)]
    if subprocess.run(mounting, capture_output=True).returncode:
        pytest.skip("a small disk may not be mounted here")
    try:
        wide = [Picture(f"{n:05d}", "x", "train", 1) for n in range(20_000)]
        with pytest.raises(NoLocalDisk, match="No space left on device"):
            loaded(written(store, wide), small)
        assert list(small.iterdir()) == []
    finally:
        subprocess.run(["umount", "-l", str(small)], check=True)
