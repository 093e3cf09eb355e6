"""workers.features.extract: rows out = rows in, whatever the images are like."""

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest
from PIL import Image as Picture

from workers.contract import schemas
from workers.contract.errors import StoreDenied, StoreUnavailable
from workers.features import extract as features
from workers.features.extract import feature_matrix, fits_float16
from workers.features.extractor import Extractor, Image, Progress
from workers.storage import Blob, fetch, info
from workers.storage.local import LocalStore
from workers.storage.tables import read_table, write_table

Floats = npt.NDArray[np.float32]


class QuarterMeans:
    """A network whose feature is the mean colour of each quarter: float32 (N, 12) [0, 255]."""

    width, height, feature_size = 8, 6, 12
    batch_size = 4

    def __init__(self) -> None:
        self.batches: list[int] = []

    def features(self, images: npt.NDArray[np.uint8]) -> Floats:
        self.batches.append(len(images))
        quarters = images.reshape(len(images), 2, 3, 2, 4, 3)
        means: Floats = quarters.mean(axis=(2, 4)).reshape(len(images), 12).astype(np.float32)
        return means


class Inverse(QuarterMeans):
    """Infinite for a black picture, undefined for a white one."""

    def features(self, images: npt.NDArray[np.uint8]) -> Floats:
        means = super().features(images)
        means[means.mean(axis=1) == 0, 3] = np.inf
        means[means.mean(axis=1) == 255, 5] = np.nan
        return means


class Fine(QuarterMeans):
    """Features that differ in their fifth digit."""

    def features(self, images: npt.NDArray[np.uint8]) -> Floats:
        return np.float32(1000) + super().features(images) / np.float32(10_000)


def extract(
    images: list[Image],
    network: QuarterMeans,
    *,
    batch_size: int,
    threads: int,
    progress: Progress = lambda done, total: None,
) -> pa.Table:
    network.batch_size = batch_size
    extractor = Extractor(network, threads, threads)
    try:
        return features.extract(images, extractor, progress)
    finally:
        extractor.close()


def png(grey: int) -> bytes:
    file = io.BytesIO()
    Picture.new("RGB", (16, 12), (grey, grey, grey)).save(file, "PNG")
    return file.getvalue()


def listed(path: Path) -> Image:
    return Image(str(path), info(str(path)).version or "")


def good(folder: Path, row: int) -> Image:
    path = folder / f"{row}.png"
    path.write_bytes(png(10 * row))
    return listed(path)


def corrupt(folder: Path, row: int) -> Image:
    path = folder / f"{row}.png"
    path.write_bytes(png(10 * row)[:45])
    return listed(path)


def empty(folder: Path, row: int) -> Image:
    path = folder / f"{row}.png"
    path.write_bytes(b"")
    return listed(path)


def page(folder: Path, row: int) -> Image:
    path = folder / f"{row}.png"
    path.write_bytes(b"<html></html>")
    return listed(path)


def missing(folder: Path, row: int) -> Image:
    return Image(str(folder / f"{row}.png"), "gone")


def changed(folder: Path, row: int) -> Image:
    image = good(folder, row)
    Path(image.uri).write_bytes(png(255))
    return image


BAD: dict[str, Callable[[Path, int], Image]] = {
    "corrupt": corrupt,
    "empty": empty,
    "unsupported": page,
    "missing": missing,
    "changed": changed,
}


def statuses(table: pa.Table) -> list[str]:
    names: list[str] = table.column("status").to_pylist()
    return names


def assert_rows_are_the_images(table: pa.Table, images: list[Image]) -> None:
    assert table.column("uri").to_pylist() == [image.uri for image in images]
    assert table.column("version").to_pylist() == [image.version for image in images]


def assert_grey_features(table: pa.Table) -> None:
    """Row n, where it is good, has the feature of grey 10 n."""
    for row, vector in enumerate(table.column("feature").to_pylist()):
        if vector is not None:
            assert vector == [10.0 * row] * 12


@pytest.mark.parametrize("status", BAD)
@pytest.mark.parametrize("at", range(7))
def test_a_bad_image_anywhere_in_a_batch_is_a_row_and_moves_no_other(
    tmp_path: Path, status: str, at: int
) -> None:
    # Given seven images, of which one is bad, in batches of three
    images = [good(tmp_path, row) if row != at else BAD[status](tmp_path, row) for row in range(7)]

    # When their features are computed
    table = extract(images, QuarterMeans(), batch_size=3, threads=2)

    # Then there are seven rows in the order of the images, and one has a status and a reason
    assert_rows_are_the_images(table, images)
    assert statuses(table) == [status if row == at else schemas.OK for row in range(7)]
    errors = table.column("error").to_pylist()
    assert [row for row in range(7) if errors[row]] == [at]
    assert "\n" not in errors[at]
    assert table.column("feature").is_null().to_pylist() == [row == at for row in range(7)]
    assert_grey_features(table)


def test_every_kind_of_bad_image_in_one_shard(tmp_path: Path) -> None:
    kinds = [good, *BAD.values(), good]
    images = [make(tmp_path, row) for row, make in enumerate(kinds)]
    table = extract(images, QuarterMeans(), batch_size=2, threads=4)
    assert_rows_are_the_images(table, images)
    assert statuses(table) == ["ok", *BAD, "ok"]
    assert_grey_features(table)


@pytest.mark.parametrize("count", [1, 5])
def test_a_shard_of_bad_images_alone_has_all_its_rows(tmp_path: Path, count: int) -> None:
    # Given images none of which can be decoded
    network = QuarterMeans()
    images = [corrupt(tmp_path, row) for row in range(count)]

    # Then each has its row, and the network is not asked
    table = extract(images, network, batch_size=2, threads=1)
    assert statuses(table) == ["corrupt"] * count
    assert table.column("feature").null_count == count
    assert network.batches == []


@pytest.mark.parametrize(
    ("count", "batch_size", "batches"),
    [(1, 4, [1]), (4, 4, [4]), (5, 4, [4, 1]), (9, 3, [3, 3, 3]), (3, 1, [1, 1, 1])],
)
def test_images_go_through_the_network_in_batches(
    tmp_path: Path, count: int, batch_size: int, batches: list[int]
) -> None:
    network = QuarterMeans()
    images = [good(tmp_path, row) for row in range(count)]
    table = extract(images, network, batch_size=batch_size, threads=3)
    assert network.batches == batches
    assert_grey_features(table)


def test_bad_images_leave_no_hole_in_a_batch(tmp_path: Path) -> None:
    network = QuarterMeans()
    images = [(corrupt if row % 2 else good)(tmp_path, row) for row in range(8)]
    extract(images, network, batch_size=4, threads=2)
    assert network.batches == [4]


def test_one_image_listed_twice_has_two_rows(tmp_path: Path) -> None:
    image = good(tmp_path, 0)
    table = extract([image, image], QuarterMeans(), batch_size=4, threads=2)
    assert_rows_are_the_images(table, [image, image])


def test_progress_rises_to_the_whole(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    images = [good(tmp_path, row) for row in range(7)]
    extract(
        images,
        QuarterMeans(),
        batch_size=3,
        threads=1,
        progress=lambda done, total: seen.append((done, total)),
    )
    assert seen == sorted(seen)
    assert seen[-1] == (7, 7)
    assert {total for _, total in seen} == {7}


def test_infinite_and_undefined_features_are_bad_rows(tmp_path: Path) -> None:
    # Given a network that gives no number for black and for white
    for name, grey in (("black", 0), ("grey", 90), ("white", 255)):
        (tmp_path / f"{name}.png").write_bytes(png(grey))
    images = [listed(tmp_path / f"{name}.png") for name in ("black", "grey", "white")]

    # Then these two rows say so, and hold no feature
    table = extract(images, Inverse(), batch_size=3, threads=1)
    assert statuses(table) == ["non_finite", "ok", "non_finite"]
    assert table.column("feature").to_pylist() == [None, [90.0] * 12, None]
    assert np.isfinite(feature_matrix(table)).all()


def test_a_denied_image_is_a_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(uri: str) -> Blob:
        raise StoreDenied(f"{uri}: access denied")

    monkeypatch.setattr("workers.features.extractor.fetch", refuse)
    table = extract([good(tmp_path, 0)], QuarterMeans(), batch_size=3, threads=1)
    assert statuses(table) == ["denied"]


def test_a_store_that_does_not_answer_is_no_verdict_on_an_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a store that stops answering at the third image
    images = [good(tmp_path, row) for row in range(40)]

    def fetch_some(uri: str) -> Blob:
        if uri == images[2].uri:
            raise StoreUnavailable("no answer")
        return fetch(uri)

    monkeypatch.setattr("workers.features.extractor.fetch", fetch_some)

    # Then the shard fails as a whole, to be tried again
    with pytest.raises(StoreUnavailable):
        extract(images, QuarterMeans(), batch_size=2, threads=2)


@pytest.mark.parametrize(
    ("network", "dtype"), [(QuarterMeans(), pa.float16()), (Fine(), pa.float32())], ids=["16", "32"]
)
def test_features_are_float16_only_where_that_loses_nothing_that_tells_images_apart(
    tmp_path: Path, network: QuarterMeans, dtype: pa.DataType
) -> None:
    images = [good(tmp_path, row) for row in range(6)]
    table = extract(images, network, batch_size=4, threads=2)
    assert table.schema == schemas.features(12, dtype)
    assert len(np.unique(feature_matrix(table), axis=0)) == 6


NORMAL = np.random.default_rng(0).normal(size=(50, 8)).astype(np.float32)


@pytest.mark.parametrize(
    ("features", "fits"),
    [
        (NORMAL, True),
        (NORMAL * 1000, True),
        (NORMAL * 100_000, False),
        (NORMAL + 10_000, False),
        (NORMAL * 1e-9, False),
        (np.zeros((3, 8), np.float32), True),
        (np.full((3, 8), 0.5, np.float32), True),
        (np.full((3, 8), 0.1, np.float32), False),
        (np.zeros((0, 8), np.float32), True),
    ],
    ids=["plain", "large", "too large", "far off", "tiny", "zero", "alike", "alike, rounded", "none"],
)
def test_fits_float16(features: Floats, fits: bool) -> None:
    assert bool(fits_float16(features)) is fits


@pytest.mark.parametrize("network", [QuarterMeans(), Fine()], ids=["float16", "float32"])
def test_features_come_back_from_parquet_as_they_were(tmp_path: Path, network: QuarterMeans) -> None:
    # Given the features of good and bad images in a store
    images = [(corrupt if row in (0, 3, 6) else good)(tmp_path, row) for row in range(7)]
    table = extract(images, network, batch_size=4, threads=2)
    store = LocalStore(tmp_path / "store")
    write_table(store, "features/shard.parquet", table)

    # When they are read
    back = read_table(store, "features/shard.parquet")

    # Then the matrix is the same, with zeros for what is bad
    assert back.schema == table.schema
    matrix = feature_matrix(back)
    assert matrix.shape == (7, 12)
    assert matrix.dtype == (np.float32 if isinstance(network, Fine) else np.float16)
    vectors = back.column("feature").to_pylist()
    expected = np.array([vector or [0.0] * 12 for vector in vectors], matrix.dtype)
    np.testing.assert_array_equal(matrix, expected)


def test_the_matrix_of_joined_and_sliced_tables_keeps_its_rows(tmp_path: Path) -> None:
    images = [good(tmp_path, row) for row in range(5)]
    table = extract(images, QuarterMeans(), batch_size=4, threads=2)
    joined = pa.concat_tables([table.slice(1, 2), table])
    assert feature_matrix(table.slice(1, 2))[:, 0].tolist() == [10, 20]
    assert feature_matrix(table.slice(3))[:, 0].tolist() == [30, 40]
    assert feature_matrix(joined)[:, 0].tolist() == [10, 20, 0, 10, 20, 30, 40]


def test_the_matrix_of_no_rows_has_the_width_of_a_feature(tmp_path: Path) -> None:
    table = extract([good(tmp_path, 0)], QuarterMeans(), batch_size=4, threads=1)
    assert feature_matrix(table.slice(0, 0)).shape == (0, 12)
