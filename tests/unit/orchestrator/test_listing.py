"""orchestrator.listing: what a folder or a manifest says the images are."""

import logging
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from orchestrator.listing import SplitRule, check_labels, is_manifest, list_images, manifest_id
from workers.contract import schemas
from workers.contract.errors import BadManifest, BadSource, ObjectMissing
from workers.storage import fetch, info

RULE = SplitRule()


def make(folder: Path, *names: str) -> Path:
    """Files whose content is their name; a name that ends in a slash is an empty folder."""
    for name in names:
        path = folder / name
        (path if name.endswith("/") else path.parent).mkdir(parents=True, exist_ok=True)
        if not name.endswith("/"):
            path.write_bytes(name.encode())
    return folder


def listed(source: Path | str, labelled: bool = True, rule: SplitRule = RULE) -> list[dict[str, Any]]:
    table = list_images(str(source), labelled=labelled, rule=rule)
    assert table.schema == schemas.MANIFEST
    rows: list[dict[str, Any]] = table.to_pylist()
    return rows


def labels(rows: list[dict[str, Any]], below: Path) -> dict[str, str | None]:
    return {row["uri"].removeprefix(f"{below}/"): row["label"] for row in rows}


FLOWERS = ("daisy/1.jpg", "daisy/2.jpg", "rose/1.jpg")


def test_each_folder_is_a_label_and_each_file_in_it_an_image(tmp_path: Path) -> None:
    # Given a folder for each label
    make(tmp_path, *FLOWERS)

    # Then the rows are in the order of their addresses, and true of the files
    rows = listed(tmp_path)
    assert labels(rows, tmp_path) == {
        "daisy/1.jpg": "daisy",
        "daisy/2.jpg": "daisy",
        "rose/1.jpg": "rose",
    }
    assert [row["uri"] for row in rows] == [str(tmp_path / name) for name in FLOWERS]
    for row in rows:
        assert row["version"] == fetch(row["uri"]).version
        assert row["size"] == Path(row["uri"]).stat().st_size


def test_images_in_folders_below_a_label_are_of_that_label(tmp_path: Path) -> None:
    make(tmp_path, "rose/red/a.jpg", "rose/white/small/b.jpg", "daisy/c.jpg")
    assert labels(listed(tmp_path), tmp_path) == {
        "rose/red/a.jpg": "rose",
        "rose/white/small/b.jpg": "rose",
        "daisy/c.jpg": "daisy",
    }


@pytest.mark.parametrize(
    "name",
    [
        "rose/.DS_Store",
        "rose/.hidden/a.jpg",
        ".cache/a.jpg",
        "rose/notes.txt",
        "rose/labels.CSV",
        "rose/a.jpg.json",
        "manifest.json",
        "_SUCCESS",
        "rose/_SUCCESS",
        "README",
        "LICENSE",
    ],
)
def test_what_lies_beside_images_is_passed_over(tmp_path: Path, name: str) -> None:
    make(tmp_path, *FLOWERS, name)
    assert {row["uri"] for row in listed(tmp_path)} == {str(tmp_path / each) for each in FLOWERS}


@pytest.mark.parametrize(
    "name",
    ["rose/no-suffix", "rose/a.PNG", "rose/b.jfif", "rose/c.tiff", "rose/a b+c.jpeg", "rose/薔薇.jpg"],
)
def test_everything_else_is_tried_whatever_its_name(tmp_path: Path, name: str) -> None:
    make(tmp_path, *FLOWERS, name)
    assert str(tmp_path / name) in {row["uri"] for row in listed(tmp_path)}


def test_images_in_no_labels_folder_are_left_out_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    make(tmp_path, *FLOWERS, "stray1.jpg", "stray2.jpg")
    with caplog.at_level(logging.WARNING, "retrain"):
        assert len(listed(tmp_path)) == 3
    assert "2 images" in caplog.text


@pytest.mark.parametrize("name", ["tulip/", "tulip/notes.txt", "tulip/.hidden.jpg", "tulip/below/"])
def test_a_labels_folder_without_images_is_named(tmp_path: Path, name: str) -> None:
    make(tmp_path, *FLOWERS, name)
    with pytest.raises(BadSource, match=f"no images in {tmp_path}/tulip"):
        listed(tmp_path)


def test_an_empty_hidden_folder_is_no_label(tmp_path: Path) -> None:
    make(tmp_path, *FLOWERS, ".git/")
    assert len(listed(tmp_path)) == 3


@pytest.mark.parametrize("labelled", [True, False])
@pytest.mark.parametrize("names", [(), ("notes.txt",), (".hidden/a.jpg",)])
def test_a_folder_without_images_is_a_bad_source(
    tmp_path: Path, names: tuple[str, ...], labelled: bool
) -> None:
    make(tmp_path, *names)
    with pytest.raises(BadSource, match="no images in"):
        listed(tmp_path, labelled)


def test_images_side_by_side_have_no_labels_to_learn(tmp_path: Path) -> None:
    make(tmp_path, "a.jpg", "b.jpg")
    with pytest.raises(BadSource, match="folder of its own"):
        listed(tmp_path)


@pytest.mark.parametrize("labelled", [True, False])
def test_a_missing_folder_is_a_bad_source(tmp_path: Path, labelled: bool) -> None:
    with pytest.raises(BadSource, match="there is no folder"):
        listed(tmp_path / "missing", labelled)


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    make(tmp_path, "a.jpg")
    with pytest.raises(BadSource, match="there is no folder"):
        listed(tmp_path / "a.jpg", False)


def test_without_labels_every_image_of_the_tree_is_listed(tmp_path: Path) -> None:
    make(tmp_path, *FLOWERS, "top.jpg", "empty/")
    rows = listed(tmp_path, labelled=False)
    assert labels(rows, tmp_path) == dict.fromkeys([*FLOWERS, "top.jpg"])
    assert {row["split"] for row in rows} == {None}


def test_an_image_is_dealt_by_its_path_below_the_source(tmp_path: Path) -> None:
    # Given the same tree in two places
    names = [f"rose/{number}.jpg" for number in range(50)]
    here, there = make(tmp_path / "here", *names), make(tmp_path / "there" / "deep", *names)

    # Then the images are dealt alike, by the rule
    splits = [[row["split"] for row in listed(folder)] for folder in (here, there)]
    assert splits[0] == splits[1] == [RULE.of(name) for name in sorted(names)]
    assert len(set(splits[0])) == 3


def test_a_split_root_deals_as_if_the_source_were_there(tmp_path: Path) -> None:
    names = [f"rose/{number}.jpg" for number in range(50)]
    rows = listed(make(tmp_path, *names), rule=SplitRule(root="/data/flowers"))
    assert [row["split"] for row in rows] == [
        RULE.of(f"/data/flowers/{name}") for name in sorted(names)
    ]


def test_progress_counts_up_to_every_image(tmp_path: Path) -> None:
    seen: list[tuple[int, int | None]] = []
    list_images(
        str(make(tmp_path, *FLOWERS)),
        labelled=True,
        rule=RULE,
        progress=lambda done, total: seen.append((done, total)),
    )
    assert seen[-1] == (3, 3)


@pytest.mark.parametrize(
    ("source", "is_one"),
    [
        ("images.csv", True),
        ("/data/IMAGES.CSV", True),
        ("s3://bucket/images.parquet", True),
        ("/data/csv", False),
        ("/data/images.csv/", False),
        ("images.json", False),
    ],
)
def test_is_manifest(source: str, is_one: bool) -> None:
    assert is_manifest(source) is is_one


Columns = Mapping[str, list[str | None]]


def write_manifest(path: Path, columns: Columns) -> Path:
    """A CSV or Parquet file, by its suffix."""
    if path.suffix == ".parquet":
        pq.write_table(pa.table({name: pa.array(values) for name, values in columns.items()}), path)
    else:
        lines = zip(*([value or "" for value in values] for values in columns.values()), strict=True)
        text = "\n".join(",".join(line) for line in [tuple(columns), *lines])
        path.write_text(text + "\n", encoding="utf-8")
    return path


@pytest.fixture(params=["csv", "parquet"])
def manifest(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Where a manifest goes, beside the folders of FLOWERS."""
    make(tmp_path, *FLOWERS)
    return tmp_path / f"images.{request.param}"


def test_a_manifest_says_the_labels_and_its_relative_paths_count_from_its_folder(
    manifest: Path,
) -> None:
    # Given a manifest whose labels are not those of the folders
    write_manifest(manifest, {"uri": ["rose/1.jpg", "daisy/1.jpg"], "label": ["Rosa", "Bellis"]})

    # Then it is believed, and versions are those of the files
    rows = listed(manifest)
    assert labels(rows, manifest.parent) == {"rose/1.jpg": "Rosa", "daisy/1.jpg": "Bellis"}
    assert [row["version"] for row in rows] == [info(row["uri"]).version for row in rows]
    assert [row["split"] for row in rows] == [RULE.of("daisy/1.jpg"), RULE.of("rose/1.jpg")]


def test_a_manifest_may_have_absolute_paths_and_other_columns(manifest: Path, tmp_path: Path) -> None:
    uris: list[str | None] = [f"{tmp_path}/rose/1.jpg", f"file://{tmp_path}/daisy/1.jpg"]
    write_manifest(manifest, {"camera": ["x", "y"], "uri": uris, "label": ["a", "b"]})
    assert labels(listed(manifest), tmp_path) == {"rose/1.jpg": "a", "daisy/1.jpg": "b"}


def test_a_manifest_in_the_current_folder(manifest: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_manifest(manifest, {"uri": ["rose/1.jpg"], "label": ["a"]})
    monkeypatch.chdir(manifest.parent)
    assert labels(listed(manifest.name), manifest.parent) == {"rose/1.jpg": "a"}


def test_a_manifest_at_the_top_of_the_file_system(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(make(tmp_path, "there-is-none-at-the-top.csv"))
    with pytest.raises(BadManifest, match="there is no manifest"):
        listed("/there-is-none-at-the-top.csv")


def test_a_manifests_split_stands_and_the_rule_fills_the_gaps(manifest: Path) -> None:
    columns: Columns = {
        "uri": [*FLOWERS],
        "label": ["a", "b", "c"],
        "split": ["test", None, "validation"],
    }
    rows = listed(write_manifest(manifest, columns))
    assert [row["split"] for row in rows] == ["test", RULE.of("daisy/2.jpg"), "validation"]


def test_an_unlabelled_manifest_needs_no_labels(manifest: Path) -> None:
    write_manifest(manifest, {"uri": [*FLOWERS]})
    rows = listed(manifest, labelled=False)
    assert [(row["label"], row["split"]) for row in rows] == [(None, None)] * 3


def test_the_labels_of_a_manifest_are_kept_where_none_are_needed(manifest: Path) -> None:
    write_manifest(manifest, {"uri": [*FLOWERS], "label": ["a", None, "c"]})
    assert [row["label"] for row in listed(manifest, labelled=False)] == ["a", None, "c"]


@pytest.mark.parametrize(
    "words",
    [
        ["007", "08", "12"],
        ["1.50", "2.0", "1e3"],
        ["NA", "null", "nan"],
        ["true", "False", "true"],
        ["2020-01-01", "2020-01-02", "2020-02-01"],
    ],
)
def test_labels_that_look_like_something_else_stay_words(manifest: Path, words: list[str]) -> None:
    write_manifest(manifest, {"uri": [*FLOWERS], "label": [*words]})
    assert [row["label"] for row in listed(manifest)] == words


def test_labels_that_are_numbers_in_parquet_become_words(tmp_path: Path) -> None:
    make(tmp_path, *FLOWERS)
    pq.write_table(pa.table({"uri": [*FLOWERS], "label": [7, 8, 9]}), tmp_path / "images.parquet")
    assert [row["label"] for row in listed(tmp_path / "images.parquet")] == ["7", "8", "9"]


def test_a_missing_file_is_a_row_all_the_same(manifest: Path) -> None:
    # Given a manifest that lists files that are gone
    write_manifest(
        manifest, {"uri": ["rose/1.jpg", "gone/1.jpg", "gone/2.jpg"], "label": ["a", "b", "c"]}
    )

    # Then there is a row for each, and no two of the missing share a version
    rows = {row["uri"].removeprefix(f"{manifest.parent}/"): row for row in listed(manifest)}
    assert list(rows) == ["gone/1.jpg", "gone/2.jpg", "rose/1.jpg"]
    assert rows["gone/1.jpg"]["size"] == 0
    assert len({row["version"] for row in rows.values()}) == 3
    with pytest.raises(ObjectMissing):
        fetch(rows["gone/1.jpg"]["uri"])


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"path": ["a.jpg"], "label": ["a"]}, "no column uri .it has path, label"),
        ({"uri": ["a.jpg", "a.jpg"], "label": ["a", "b"]}, "a.jpg is listed more than once"),
        ({"uri": ["a.jpg", "./a.jpg"], "label": ["a", "b"]}, "a.jpg is listed more than once"),
        ({"uri": ["a.jpg", "b.jpg"], "label": ["a", None]}, "every row needs a label"),
        ({"uri": ["a.jpg"]}, "every row needs a label"),
        ({"uri": ["a.jpg", None], "label": ["a", "b"]}, "row 2 has no uri"),
        (
            {"uri": ["a.jpg"], "label": ["a"], "split": ["training"]},
            "row 1 has split 'training', not one of train, validation, test",
        ),
    ],
    ids=["no uri", "twice", "twice in two ways", "a gap", "no label", "no address", "unknown split"],
)
def test_a_manifest_that_cannot_be_used_says_why(
    manifest: Path, columns: Columns, message: str
) -> None:
    write_manifest(manifest, columns)
    with pytest.raises(BadManifest, match=message) as error:
        listed(manifest)
    assert str(manifest) in str(error.value)


@pytest.mark.parametrize("name", ["images.csv", "images.parquet", "no/folder/images.csv"])
def test_a_missing_manifest_is_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(BadManifest, match=f"there is no manifest .*{name}"):
        listed(tmp_path / name)


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("images.csv", b""),
        ("images.csv", b"uri,label\na.jpg,ros\xe9\n"),
        ("images.csv", b"uri,label\na.jpg\n"),
        ("images.csv", b"uri,uri,label\na.jpg,b.jpg,c\n"),
        ("images.parquet", b""),
        ("images.parquet", b"uri,label\na.jpg,b\n"),
    ],
    ids=["empty CSV", "Latin-1", "a short row", "uri twice", "empty Parquet", "CSV in Parquet"],
)
def test_a_manifest_that_cannot_be_read_is_named(tmp_path: Path, name: str, data: bytes) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(BadManifest, match=name):
        listed(tmp_path / name)


def test_a_manifest_of_no_rows_has_no_images(manifest: Path) -> None:
    write_manifest(manifest, {"uri": [], "label": []})
    with pytest.raises(BadSource):
        listed(manifest)


def test_a_csv_from_a_spreadsheet(tmp_path: Path) -> None:
    # Given a byte order mark, CRLF, quotes and a comma in a label
    make(tmp_path, *FLOWERS)
    text = 'uri,label\r\nrose/1.jpg,"rose, red"\r\ndaisy/1.jpg,daisy\r\n'
    (tmp_path / "images.csv").write_bytes(b"\xef\xbb\xbf" + text.encode())
    assert [row["label"] for row in listed(tmp_path / "images.csv")] == ["daisy", "rose, red"]


@pytest.mark.parametrize("shift", [0, 1, 2])
def test_a_long_csv_may_hold_any_script(tmp_path: Path, shift: int) -> None:
    # Given more than 64 KiB of characters of three bytes, wherever a block of bytes may end
    rows = [f"{'薔' * 30}{number:04d}.jpg,薔薇" for number in range(1000)]
    rows[0] = "x" * shift + rows[0]
    (tmp_path / "images.csv").write_text("\n".join(["uri,label", *rows]), encoding="utf-8")
    assert len(listed(tmp_path / "images.csv")) == 1000


def table(*rows: tuple[str, str, str | None, str | None]) -> pa.Table:
    """A manifest of (uri, version, label, split)."""
    return pa.Table.from_pylist(
        [
            {"uri": uri, "version": version, "size": 1, "label": label, "split": split}
            for uri, version, label, split in rows
        ],
        schema=schemas.MANIFEST,
    )


ROW = ("/a.jpg", "v", "rose", "train")


@pytest.mark.parametrize(
    "other",
    [
        ("/b.jpg", "v", "rose", "train"),
        ("/a.jpg", "w", "rose", "train"),
        ("/a.jpg", "v", "tulip", "train"),
        ("/a.jpg", "v", "rose", "test"),
        ("/a.jpg", "v", None, None),
    ],
)
def test_a_manifests_name_follows_from_what_it_says(
    other: tuple[str, str, str | None, str | None],
) -> None:
    assert manifest_id(table(ROW)) == manifest_id(table(ROW))
    assert manifest_id(table(ROW)) != manifest_id(table(other))
    assert manifest_id(table(ROW)) != manifest_id(table(ROW, other))


def test_a_manifests_name_does_not_depend_on_the_order_of_its_rows(manifest: Path) -> None:
    # Given the same rows in two orders
    names = [f"rose/{number}.jpg" for number in range(20)]
    make(manifest.parent, *names)
    found = []
    for seed in (1, 2):
        random.Random(seed).shuffle(names)
        write_manifest(manifest, {"uri": [*names], "label": ["rose"] * 20})
        found.append(manifest_id(list_images(str(manifest), labelled=True, rule=RULE)))

    # Then they are one manifest
    assert found[0] == found[1]


def test_a_folder_listed_twice_has_one_name(tmp_path: Path) -> None:
    make(tmp_path, *FLOWERS)
    ids = {manifest_id(list_images(str(tmp_path), labelled=True, rule=RULE)) for _ in range(2)}
    assert len(ids) == 1


def labelled(*names: str) -> pa.Table:
    return table(*((f"/{number}.jpg", "v", name, "train") for number, name in enumerate(names)))


def test_labels_are_in_the_order_of_their_names() -> None:
    assert check_labels(labelled("tulip", "Rose", "daisy", "tulip")) == ["Rose", "daisy", "tulip"]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["rose"], "only one label .'rose'."),
        (["rose", "rose"], "only one label .'rose'."),
        (["rose", " "], "' ' cannot be a label"),
        (["rose", "red\nrose"], "cannot be a label"),
    ],
)
def test_labels_that_cannot_be_learned(names: list[str], message: str) -> None:
    with pytest.raises(BadSource, match=message):
        check_labels(labelled(*names))


@pytest.mark.parametrize(("count", "warned"), [(19, True), (20, False)])
def test_few_images_of_a_label_are_worth_a_warning(
    caplog: pytest.LogCaptureFixture, count: int, warned: bool
) -> None:
    with caplog.at_level(logging.WARNING, "retrain"):
        check_labels(labelled(*["rose"] * count, *["tulip"] * 30))
    assert ("fewer than 20 images of rose" in caplog.text) is warned
