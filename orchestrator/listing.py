"""What a source holds: a folder or a bucket prefix, one folder a label, or a manifest file."""

import csv
import io
import logging
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from orchestrator.split import split_of
from workers import storage
from workers.contract import schemas
from workers.contract.errors import BadManifest, BadSetting, BadSource, ObjectMissing, StoreDenied
from workers.contract.layout import digest
from workers.storage import ObjectInfo, Store

log = logging.getLogger("retrain")

Progress = Callable[[int, int | None], None]

_THREADS = 32
# What lies beside images in most buckets. Everything else is tried, whatever its name: the bytes
# say what it is.
_OTHER_FILES = re.compile(
    r"(^|/)(_SUCCESS|LICENSE|README|Makefile)$"
    r"|\.(avro|cfg|csv|db|gz|html?|ini|jsonl?|log|md|mp4|np[yz]|parquet|pb|pdf|pkl|py|sh|tar|tfrecord"
    r"|toml|tsv|txt|xml|ya?ml|zip)$",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class SplitRule:
    """retrain.py's split; `root` is put before the relative path that is hashed."""

    validation_percentage: float = 10
    test_percentage: float = 10
    root: str | None = None

    def __post_init__(self) -> None:
        if self.validation_percentage + self.test_percentage > 100:
            raise BadSetting("--validation-percentage and --testing-percentage exceed 100 together")

    def of(self, path: str) -> str:
        hashed = path if self.root is None else f"{self.root.rstrip('/')}/{path}"
        return split_of(hashed, self.validation_percentage, self.test_percentage)


def is_manifest(source: str) -> bool:
    return source.lower().endswith((".csv", ".parquet"))


def list_images(
    source: str,
    *,
    labelled: bool,
    rule: SplitRule,
    leave_out: str = "",
    progress: Progress = lambda done, total: None,
) -> pa.Table:
    """The images of a source (schema: `schemas.MANIFEST`), by address.

    `labelled` asks for a label and a split of each; `leave_out` is a store that may lie inside the
    source. Raises BadSource, whose message says what to change.
    """
    rows = (
        _from_manifest(source, labelled, rule, progress)
        if is_manifest(source)
        else _from_folder(source, labelled, rule, leave_out, progress)
    )
    if not rows:
        raise BadSource(f"no images in {source}")
    table = pa.Table.from_pylist(rows, schema=schemas.MANIFEST)
    return table.sort_by("uri")


def check_labels(table: pa.Table) -> list[str]:
    """The labels in class order. Raises BadSource where there is nothing to tell apart."""
    counts = Counter(table.column("label").to_pylist())
    labels = sorted(counts)
    if len(labels) < 2:
        raise BadSource(
            f"only one label ({labels[0]!r}): a classifier needs at least two; put the images "
            "of each label in a folder of its own"
        )
    if bad := [label for label in labels if "\n" in label or not label.strip()]:
        raise BadSource(f"{bad[0]!r} cannot be a label: it is blank or has a line break")
    if few := [label for label in labels if counts[label] < 20]:
        log.warning("fewer than 20 images of %s: expect poor results", ", ".join(few))
    return labels


def manifest_id(table: pa.Table) -> str:
    """A name that follows from what the manifest says."""
    return digest(
        "\t".join(value or "" for value in row)
        for row in zip(
            *(table.column(name).to_pylist() for name in ("uri", "version", "label", "split")),
            strict=True,
        )
    )


def _from_folder(
    source: str, labelled: bool, rule: SplitRule, leave_out: str, progress: Progress
) -> list[dict[str, Any]]:
    store = storage.open_store(source)
    inside = f"{storage.open_store(leave_out).url}/" if leave_out else ""
    found = [
        each
        for each in _image_files(store, source, progress)
        if not inside or not store.uri(each.key).startswith(inside)
    ]
    if labelled:
        found = _below_label_folders(store, source, found, inside)
    versions = _each(found, lambda each: each if each.version else _info(store, each.key), progress)
    return [
        {
            "uri": store.uri(each.key),
            "version": each.version,
            "size": each.size_bytes,
            "label": each.key.partition("/")[0] if labelled else None,
            "split": rule.of(each.key) if labelled else None,
        }
        for each in versions
    ]


def _image_files(store: Store, source: str, progress: Progress) -> list[ObjectInfo]:
    found, passed_over = [], 0
    for each in _existing(store, source):
        hidden = any(part.startswith(".") for part in each.key.split("/"))
        if hidden or _OTHER_FILES.search(each.key):
            passed_over += 1
            continue
        found.append(each)
        if len(found) % 1000 == 0:
            progress(len(found), None)
    if passed_over:
        log.info("passed over %d files that are no images by their names", passed_over)
    return found


def _existing(store: Store, source: str) -> Iterable[ObjectInfo]:
    try:
        store.folders()
    except ObjectMissing:
        raise BadSource(f"there is no folder {source}") from None
    return store.objects()


def _below_label_folders(
    store: Store, source: str, found: list[ObjectInfo], leave_out: str
) -> list[ObjectInfo]:
    inside = [each for each in found if "/" in each.key]
    if stray := len(found) - len(inside):
        log.warning("%d images lie in no label's folder and are left out", stray)
    labels = {each.key.partition("/")[0] for each in inside}
    folders = [
        name
        for name in store.folders()
        if not name.startswith(".") and f"{store.uri(name)}/" != leave_out
    ]
    if empty := [name for name in folders if name not in labels]:
        raise BadSource(
            f"no images in {', '.join(store.uri(name) for name in empty)}: every folder in "
            f"{source} is a label; add images or remove the folder"
        )
    if not inside:
        raise BadSource(f"no images in {source}: put those of each label in a folder of its own")
    return inside


def _from_manifest(
    source: str, labelled: bool, rule: SplitRule, progress: Progress
) -> list[dict[str, Any]]:
    rows = _read_manifest(source)
    if labelled and any(not row.get("label") for row in rows):
        raise BadManifest(f"{source}: every row needs a label")
    base = _folder_and_name(source)[0]
    for row in rows:
        row["path"], row["uri"] = row["uri"], storage.absolute(row["uri"], base)
    doubled = [uri for uri, count in Counter(row["uri"] for row in rows).items() if count > 1]
    if doubled:
        raise BadManifest(f"{source}: {doubled[0]} is listed more than once")
    infos = _each([row["uri"] for row in rows], _info_of_uri, progress)
    return [
        {
            "uri": row["uri"],
            "version": info.version,
            "size": info.size_bytes,
            "label": row.get("label"),
            "split": (row.get("split") or rule.of(row["path"])) if labelled else row.get("split"),
        }
        for row, info in zip(rows, infos, strict=True)
    ]


def _read_manifest(source: str) -> list[dict[str, Any]]:
    folder, name = _folder_and_name(source)
    try:
        data = storage.open_store(folder).read(name)
    except ObjectMissing:
        raise BadManifest(f"there is no manifest {source}") from None
    try:
        if name.lower().endswith(".csv"):
            header = next(csv.reader(io.StringIO(data[:65536].decode("utf-8-sig", "ignore"))), [])
            text = pa_csv.ConvertOptions(
                column_types={column: pa.string() for column in header},
                strings_can_be_null=True,
                null_values=[""],
            )
            table = pa_csv.read_csv(io.BytesIO(data), convert_options=text)
        else:
            table = pq.read_table(io.BytesIO(data))
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise BadManifest(f"{source} is not readable: {error}") from error
    return _checked(source, table)


def _folder_and_name(source: str) -> tuple[str, str]:
    folder, slash, name = source.rpartition("/")
    return folder or slash or ".", name


def _checked(source: str, table: pa.Table) -> list[dict[str, Any]]:
    if "uri" not in table.column_names:
        raise BadManifest(f"{source} has no column uri (it has {', '.join(table.column_names)})")
    columns = [name for name in ("uri", "label", "split") if name in table.column_names]
    if doubled := [name for name in columns if table.column_names.count(name) > 1]:
        raise BadManifest(f"{source} has more than one column {doubled[0]}")
    for name in ("uri", "split"):
        if name in table.column_names and not pa.types.is_string(_plain(table, name)):
            raise BadManifest(f"{source}: column {name} is {table.schema.field(name).type}, not string")
    rows: list[dict[str, Any]] = table.select(columns).to_pylist()
    for number, row in enumerate(rows, 1):
        if not row["uri"]:
            raise BadManifest(f"{source}: row {number} has no uri")
        if row.get("split") not in (None, *schemas.SPLITS):
            raise BadManifest(
                f"{source}: row {number} has split {row['split']!r}, not one of "
                f"{', '.join(schemas.SPLITS)}"
            )
        row["label"] = None if row.get("label") is None else str(row["label"])
    return rows


def _plain(table: pa.Table, name: str) -> pa.DataType:
    kind = table.schema.field(name).type
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return pa.string() if pa.types.is_large_string(kind) or pa.types.is_null(kind) else kind


def _info_of_uri(uri: str) -> ObjectInfo:
    folder, _, name = uri.rpartition("/")
    return _info(storage.open_store(folder or "/"), name)


def _info(store: Store, key: str) -> ObjectInfo:
    """Size and version; an image that cannot be read is a row all the same, and extraction says why."""
    try:
        return store.info(key)
    except (ObjectMissing, StoreDenied):
        return ObjectInfo(key, 0, f"unread-{digest([store.uri(key)])}")


def _each(items: Sequence[Any], work: Callable[[Any], ObjectInfo], progress: Progress) -> list[Any]:
    done = []
    with ThreadPoolExecutor(_THREADS, "listing") as pool:
        for result in pool.map(work, items):
            done.append(result)
            if len(done) % 100 == 0 or len(done) == len(items):
                progress(len(done), len(items))
    return done
