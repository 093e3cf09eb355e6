"""What every store must do: the same tests for a folder and for a bucket.

The bucket is moto's, on a port of its own; a test gets a prefix of its own in it.
"""

import errno
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from uuid import uuid4

import numpy as np
import pyarrow as pa
import pytest

from tests.unit.storage.conftest import BUCKET
from tests.unit.storage.endpoint import Answer, Endpoint, said
from workers import storage
from workers.contract.errors import (
    BadSource,
    ObjectMissing,
    Permanent,
    RetrainError,
    StoreDenied,
    StoreUnavailable,
)
from workers.storage import Store, absolute, fetch, info, open_store, s3
from workers.storage.local import LocalStore
from workers.storage.s3 import S3Store
from workers.storage.tables import read_columns, read_table, write_table

NOT_LISTENING = "http://127.0.0.1:9"


@pytest.fixture(params=["folder", "bucket"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    if request.param == "folder":
        (tmp_path / "store").mkdir()
        return LocalStore(tmp_path / "store")
    return S3Store(request.getfixturevalue("bucket"), f"{uuid4().hex}/prefix")


def keys(store: Store, prefix: str = "") -> list[str]:
    return sorted(each.key for each in store.objects(prefix))


KEYS = [
    "plain.bin",
    "deep/below/several/folders.bin",
    "with space.jpg",
    "a+b & c=d.jpg",
    "100%25 sure?#1.jpg",
    "grün/rosé/薔薇.jpg",
    "dots...and..more/.hidden",
    'it\'s "quoted".jpg',
]


@pytest.mark.parametrize("key", KEYS)
def test_what_is_written_can_be_read_listed_and_deleted(store: Store, key: str) -> None:
    # Given an object
    assert not store.exists(key)
    store.write(key, b"some bytes")

    # Then each way to it agrees
    assert store.exists(key)
    assert store.read(key) == b"some bytes"
    assert store.fetch(key) == storage.Blob(b"some bytes", store.info(key).version or "")
    assert store.info(key).size_bytes == 10
    assert keys(store) == [key]

    # And once deleted it is gone
    store.delete(key)
    assert not store.exists(key)
    assert keys(store) == []


@pytest.mark.parametrize("key", KEYS)
def test_the_address_of_a_key_leads_to_the_object(store: Store, key: str) -> None:
    store.write(key, b"some bytes")
    assert fetch(store.uri(key)) == store.fetch(key)
    assert info(store.uri(key)).version == store.info(key).version
    assert info(store.uri(key)).size_bytes == 10
    assert open_store(store.url).read(key) == b"some bytes"


@pytest.mark.parametrize("data", [b"", b"\0", bytes(range(256)) * 4096], ids=["none", "one", "MiB"])
def test_bytes_come_back_as_they_were(store: Store, data: bytes) -> None:
    store.write("key", data)
    assert store.read("key") == data
    assert store.info("key").size_bytes == len(data)


def test_overwriting_replaces_the_whole_object(store: Store) -> None:
    store.write("key", b"a long first content")
    store.write("key", b"second")
    assert store.read("key") == b"second"
    assert keys(store) == ["key"]


def test_a_version_changes_with_the_bytes_and_with_them_alone(store: Store) -> None:
    # Given two objects of the same bytes
    store.write("a", b"one")
    store.write("b", b"one")
    first = store.fetch("a").version
    assert first
    assert store.fetch("b").version == first

    # When one is changed to as many other bytes, and back
    store.write("a", b"two")
    changed = store.fetch("a").version
    store.write("a", b"one")

    # Then its version follows
    assert changed != first
    assert store.fetch("a").version == first


def test_what_the_listing_says_of_an_object_is_true(store: Store) -> None:
    store.write("a/b", b"12345")
    (listed,) = store.objects()
    assert listed.key == "a/b"
    assert listed.size_bytes == 5
    assert listed.version in (None, store.fetch("a/b").version)


@pytest.mark.parametrize(
    ("prefix", "found"),
    [
        ("", ["a/1", "a/2", "a/b/3", "ab/4", "top"]),
        ("a/", ["a/1", "a/2", "a/b/3"]),
        ("a", ["a/1", "a/2", "a/b/3", "ab/4"]),
        ("a/b", ["a/b/3"]),
        ("a/b/", ["a/b/3"]),
        ("t", ["top"]),
        ("top", ["top"]),
        ("none", []),
        ("none/", []),
        ("none/below", []),
    ],
)
def test_objects_are_listed_by_prefix(store: Store, prefix: str, found: list[str]) -> None:
    for key in ("a/1", "a/2", "a/b/3", "ab/4", "top"):
        store.write(key, b"")
    assert keys(store, prefix) == found


def test_a_prefix_of_a_bucket_does_not_show_its_neighbours(bucket: str) -> None:
    name = uuid4().hex
    S3Store(bucket, name).write("key", b"")
    S3Store(bucket, f"{name}-other").write("key", b"")
    assert keys(S3Store(bucket, name)) == ["key"]
    assert keys(S3Store(bucket, f"/{name}/")) == ["key"]


def test_more_objects_than_a_page_of_the_listing_holds(store: Store) -> None:
    # Given more objects and folders than the thousand that S3 lists at once
    names = [f"{number:04d}/x" for number in range(1001)]
    if isinstance(store, S3Store):
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda name: store.write(name, b""), names))
    else:
        for name in names:
            (Path(store.url) / name).parent.mkdir()
            (Path(store.url) / name).touch()

    # Then none is lost
    assert keys(store) == names
    assert store.folders() == [name.removesuffix("/x") for name in names]


def test_the_first_level_of_folders(store: Store) -> None:
    for key in ("roses/1", "roses/red/2", "daisies and more/3", "top"):
        store.write(key, b"")
    assert store.folders() == ["daisies and more", "roses"]


def test_an_empty_local_folder_counts(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert LocalStore(tmp_path).folders() == ["empty"]


def test_a_folder_made_in_a_console_is_no_object(bucket: str) -> None:
    store = S3Store(bucket, uuid4().hex)
    s3.client().put_object(Bucket=bucket, Key=f"{store.prefix}label/", Body=b"")
    assert keys(store) == []
    assert store.folders() == ["label"]


@pytest.mark.parametrize(
    ("start", "length", "part"),
    [(0, 4, b"0123"), (3, 1, b"3"), (4, 6, b"456789"), (8, 100, b"89"), (0, 10, b"0123456789")],
)
def test_ranges(store: Store, start: int, length: int, part: bytes) -> None:
    store.write("key", b"0123456789")
    assert store.read_range("key", start, length) == part


@pytest.mark.parametrize("key", ["missing", "missing/below", "here/below"])
def test_a_missing_object_is_told_by_name(store: Store, key: str) -> None:
    store.write("here", b"")
    for read in (store.read, store.fetch, store.info):
        with pytest.raises(ObjectMissing, match=key):
            read(key)
    with pytest.raises(ObjectMissing, match=key):
        store.read_range(key, 0, 1)
    assert not store.exists(key)


def test_a_folder_is_no_object(store: Store) -> None:
    store.write("folder/key", b"")
    assert not store.exists("folder")
    with pytest.raises(ObjectMissing):
        store.read("folder")


@pytest.mark.parametrize("key", ["missing", "missing/below", "here/below"])
def test_deleting_what_is_not_there_is_no_error(store: Store, key: str) -> None:
    store.write("here", b"")
    store.delete(key)
    assert keys(store) == ["here"]


def test_a_missing_bucket_is_denied_at_once(bucket: str) -> None:
    store = S3Store("no-such-bucket", "prefix")
    with pytest.raises(StoreDenied, match="no such bucket"):
        store.read("key")
    with pytest.raises(StoreDenied, match="no such bucket"):
        store.write("key", b"")
    with pytest.raises(StoreDenied, match="no such bucket"):
        list(store.objects())
    with pytest.raises(StoreDenied, match="no such bucket"):
        store.folders()


def test_an_endpoint_that_is_not_there_may_come_back(new_client: pytest.MonkeyPatch) -> None:
    new_client.setenv("AWS_ENDPOINT_URL_S3", NOT_LISTENING)
    for way in READS.values():
        with pytest.raises(StoreUnavailable, match="AWS_ENDPOINT_URL_S3"):
            way(S3Store(BUCKET, ""), "key")
    with pytest.raises(StoreUnavailable):
        list(S3Store(BUCKET, "").objects())


def test_missing_credentials_are_named(new_client: pytest.MonkeyPatch) -> None:
    new_client.delenv("AWS_ACCESS_KEY_ID")
    new_client.delenv("AWS_SECRET_ACCESS_KEY")
    for way in READS.values():
        with pytest.raises(StoreDenied, match="AWS_ACCESS_KEY_ID"):
            way(S3Store(BUCKET, ""), "key")


READS: dict[str, Callable[[Store, str], object]] = {
    "read": lambda store, key: store.read(key),
    "fetch": lambda store, key: store.fetch(key),
}


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (Answer(503, said("SlowDown")), StoreUnavailable),
        (Answer(503), StoreUnavailable),
        (Answer(500, said("InternalError")), StoreUnavailable),
        (Answer(500), StoreUnavailable),
        (Answer(502, b"<html>Bad Gateway</html>"), StoreUnavailable),
        (Answer(504), StoreUnavailable),
        (Answer(429), StoreUnavailable),
        (Answer(200, b"a part", promised=100), StoreUnavailable),
        (Answer(403, said("AccessDenied")), StoreDenied),
        (Answer(403, said("SignatureDoesNotMatch")), StoreDenied),
        (Answer(400, said("ExpiredToken")), StoreDenied),
        (Answer(403), StoreDenied),
        (Answer(404, said("NoSuchKey")), ObjectMissing),
        (Answer(404, said("NoSuchBucket")), StoreDenied),
    ],
    ids=lambda value: f"{value.status} {value.body.decode()}" if isinstance(value, Answer) else "",
)
@pytest.mark.parametrize("way", READS)
def test_what_a_bucket_answers_is_retryable_or_permanent(
    new_client: pytest.MonkeyPatch, answer: Answer, error: type[RetrainError], way: str
) -> None:
    # Given an endpoint that always answers so
    with Endpoint(answer) as endpoint:
        threading.Thread(target=endpoint.serve_forever, args=(0.01,)).start()
        new_client.setenv("AWS_ENDPOINT_URL_S3", f"http://127.0.0.1:{endpoint.server_port}")

        # Then reading fails in our words
        try:
            with pytest.raises(error, match="s3://"):
                READS[way](S3Store(BUCKET, ""), "key")
        finally:
            endpoint.shutdown()


def test_the_region_is_the_one_that_aws_tools_are_told(new_client: pytest.MonkeyPatch) -> None:
    new_client.delenv("AWS_DEFAULT_REGION", raising=False)
    new_client.setenv("AWS_REGION", "eu-central-1")
    assert s3.client().meta.region_name == "eu-central-1"


@pytest.mark.parametrize("key", ["../x", "a/../../x", "/etc/hostname", ".."])
def test_a_key_does_not_lead_out_of_a_folder(tmp_path: Path, key: str) -> None:
    store = LocalStore(tmp_path / "store")
    (tmp_path / "x").write_bytes(b"outside")
    with pytest.raises(StoreDenied, match="leads out"):
        store.write(key, b"inside")
    with pytest.raises(StoreDenied, match="leads out"):
        store.read(key)
    with pytest.raises(StoreDenied, match="leads out"):
        store.delete(key)
    assert (tmp_path / "x").read_bytes() == b"outside"


@pytest.mark.parametrize("key", ["x" * 300, "a\0b"])
def test_a_name_that_no_file_can_have_is_an_error_of_ours(tmp_path: Path, key: str) -> None:
    store = LocalStore(tmp_path)
    with pytest.raises(Permanent):
        store.read(key)
    with pytest.raises(Permanent):
        store.write(key, b"")
    assert not store.exists(key)


@pytest.mark.parametrize(
    ("number", "error"),
    [
        (errno.ENOSPC, StoreDenied),
        (errno.EROFS, StoreDenied),
        (errno.EACCES, StoreDenied),
        (errno.EIO, StoreUnavailable),
        (errno.ESTALE, StoreUnavailable),
    ],
    ids=errno.errorcode.get,
)
def test_a_write_that_fails_leaves_the_old_bytes_and_nothing_beside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, error: type[RetrainError]
) -> None:
    # Given a folder that takes no more
    store = LocalStore(tmp_path)
    store.write("key", b"old")

    def replace(source: str, target: str) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "replace", replace)

    # When an object is written
    with pytest.raises(error, match=os.strerror(number)):
        store.write("key", b"new")

    # Then nothing has changed
    assert store.read("key") == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["key"]


def test_a_file_that_is_being_written_is_not_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = LocalStore(tmp_path)
    replace, seen = os.replace, []

    def listing_replace(source: str, target: str) -> None:
        seen.append((len(list(tmp_path.iterdir())), keys(store)))
        replace(source, target)

    monkeypatch.setattr(os, "replace", listing_replace)
    store.write("key", b"new")
    assert seen == [(1, [])]


def test_links_are_followed_and_circles_are_not(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "file").write_bytes(b"x")
    root = tmp_path / "store"
    root.mkdir()
    (root / "linked").symlink_to(tmp_path / "elsewhere")
    (root / "circle").symlink_to(root)
    (root / "dangling").symlink_to(tmp_path / "nowhere")
    assert keys(LocalStore(root)) == ["linked/file"]


@pytest.mark.parametrize(
    ("url", "kind", "opened"),
    [
        ("/data/store", LocalStore, "/data/store"),
        ("/data/store/", LocalStore, "/data/store"),
        ("file:///data/store", LocalStore, "/data/store"),
        ("/data/a/../b", LocalStore, "/data/b"),
        ("s3://bucket", S3Store, "s3://bucket"),
        ("s3://bucket/", S3Store, "s3://bucket"),
        ("s3://bucket/a/b/", S3Store, "s3://bucket/a/b"),
    ],
)
def test_opening_a_store(url: str, kind: type[Store], opened: str) -> None:
    store = open_store(url)
    assert isinstance(store, kind)
    assert store.url == opened


def test_a_relative_store_is_below_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert open_store("store").url == str(tmp_path / "store")


def test_a_store_in_the_home_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/someone")
    assert open_store("~/store").url == "/home/someone/store"


@pytest.mark.parametrize(
    "url", ["gs://bucket/a", "https://host/a", "redis://host", "s3://", "s3:///a", "s3:/a"]
)
def test_an_address_that_is_no_store_is_a_bad_source(url: str) -> None:
    with pytest.raises(BadSource, match="s3://BUCKET/PREFIX"):
        open_store(url)


@pytest.mark.parametrize(
    ("uri", "base", "expected"),
    [
        ("s3://bucket/key", "", "s3://bucket/key"),
        ("s3://bucket/key", "/data", "s3://bucket/key"),
        ("/data/a.jpg", "", "/data/a.jpg"),
        ("/data/a.jpg", "/other", "/data/a.jpg"),
        ("/data/a.jpg", "s3://bucket/prefix", "/data/a.jpg"),
        ("file:///data/a.jpg", "s3://bucket/prefix", "/data/a.jpg"),
        ("a/b.jpg", "/data", "/data/a/b.jpg"),
        ("a/b.jpg", "file:///data", "/data/a/b.jpg"),
        ("a/b.jpg", "s3://bucket/prefix", "s3://bucket/prefix/a/b.jpg"),
        ("a/b.jpg", "s3://bucket/prefix/", "s3://bucket/prefix/a/b.jpg"),
        ("a b+c.jpg", "/data", "/data/a b+c.jpg"),
        ("~/a.jpg", "", "/home/someone/a.jpg"),
        ("a.jpg", "~/data", "/home/someone/data/a.jpg"),
    ],
)
def test_absolute(monkeypatch: pytest.MonkeyPatch, uri: str, base: str, expected: str) -> None:
    monkeypatch.setenv("HOME", "/home/someone")
    assert absolute(uri, base) == expected


def test_a_relative_address_without_a_base_counts_from_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert absolute("a.jpg") == str(tmp_path / "a.jpg")
    assert absolute("a.jpg", "data") == str(tmp_path / "data" / "a.jpg")


@pytest.mark.parametrize("uri", ["gs://bucket/a.jpg", "https://host/a.jpg"])
@pytest.mark.parametrize("base", ["", "/data", "s3://bucket/prefix"])
def test_an_image_in_no_store_is_a_bad_source(uri: str, base: str) -> None:
    with pytest.raises(BadSource):
        absolute(uri, base)


ROWS = 300


@pytest.fixture
def table() -> pa.Table:
    """300 rows of 1,000 features: more than a megabyte of what is not asked for."""
    vectors = pa.array(np.random.default_rng(0).normal(size=ROWS * 1000).astype(np.float32))
    return pa.table(
        {
            "uri": [f"/images/{row}.jpg" for row in range(ROWS)],
            "status": ["ok" if row % 7 else "corrupt" for row in range(ROWS)],
            "feature": pa.FixedSizeListArray.from_arrays(vectors, 1000),
        }
    )


class Counting(LocalStore):
    """Counts the bytes that ranged reads bring, and refuses to read an object whole."""

    counted = 0

    def read(self, key: str) -> bytes:
        raise AssertionError(f"{key} is read whole")

    def read_range(self, key: str, start: int, length: int) -> bytes:
        data = super().read_range(key, start, length)
        self.counted += len(data)
        return data


def test_a_table_comes_back_as_it_was(store: Store, table: pa.Table) -> None:
    write_table(store, "a/table.parquet", table)
    assert read_table(store, "a/table.parquet").equals(table)


def test_some_columns_of_a_table(store: Store, table: pa.Table) -> None:
    write_table(store, "table.parquet", table)
    size = store.info("table.parquet").size_bytes
    columns = read_columns(store, "table.parquet", size, ["uri", "status"])
    assert columns.equals(table.select(["uri", "status"]))
    feature = read_columns(store, "table.parquet", size, ["feature"])
    assert feature.equals(table.select(["feature"]))


def test_reading_some_columns_does_not_transfer_the_rest(tmp_path: Path, table: pa.Table) -> None:
    # Given a table of more than a megabyte, nearly all of it features
    store = Counting(tmp_path)
    write_table(store, "table.parquet", table)
    size = (tmp_path / "table.parquet").stat().st_size
    assert size > 1_000_000

    # When its status is read
    read_columns(store, "table.parquet", size, ["status"])

    # Then little more than the file's last 64 KiB is
    assert store.counted < 100_000


@pytest.mark.parametrize("data", [b"", b"PAR1", b"no table" * 100_000], ids=["none", "start", "other"])
def test_what_is_no_table_is_named(store: Store, data: bytes) -> None:
    store.write("table.parquet", data)
    with pytest.raises(StoreDenied, match=r"table\.parquet is not a readable Parquet file"):
        read_table(store, "table.parquet")
    with pytest.raises(StoreDenied, match=r"table\.parquet is not a readable Parquet file"):
        read_columns(store, "table.parquet", len(data), ["uri"])


def test_a_table_that_is_cut_off_is_named(store: Store, table: pa.Table) -> None:
    write_table(store, "table.parquet", table)
    half = store.read("table.parquet")[:500_000]
    store.write("table.parquet", half)
    with pytest.raises(StoreDenied, match=r"table\.parquet is not a readable Parquet file"):
        read_table(store, "table.parquet")


def test_a_missing_table_is_missing(store: Store) -> None:
    with pytest.raises(ObjectMissing):
        read_table(store, "table.parquet")
    with pytest.raises(ObjectMissing):
        read_columns(store, "table.parquet", 100, ["uri"])
