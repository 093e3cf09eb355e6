"""What is known is not computed again: features follow the bytes of an image, not its name."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from orchestrator.demo import TRAINING, draw_pictures
from tests.acceptance.conftest import Trained, train
from tests.command import Retrain

PER_LABEL = 12
TOTAL = 4 * PER_LABEL


@pytest.fixture
def moved(drawn_run: Trained, tmp_path: Path) -> Path:
    """The pictures of the first run, elsewhere."""
    return Path(shutil.copytree(drawn_run.source, tmp_path / "elsewhere"))


@pytest.fixture
def known(drawn_run: Trained, tmp_path: Path) -> Path:
    """A store that knows the pictures of the first run."""
    return Path(shutil.copytree(drawn_run.store, tmp_path / "store"))


def nothing(source: Path) -> None:
    pass


def rename(source: Path) -> None:
    for number, path in enumerate(sorted(source.glob("star/*"))):
        path.rename(path.with_name(f"renamed-{number}.picture"))


def relabel(source: Path) -> None:
    for path in sorted(source.glob("star/*"))[:3]:
        path.rename(source / "disc" / f"was-star-{path.name}")


def add_category(source: Path) -> None:
    new = sorted((_draw_more(source) / "grid").iterdir())[:5]
    (source / "check").mkdir()
    for path in new:
        path.rename(source / "check" / path.name)


def change(source: Path) -> None:
    """One more byte at the same time of change, and the same bytes at another one."""
    path, other = sorted(source.glob("star/*"))[:2]
    before = path.stat()
    path.write_bytes(path.read_bytes() + b"\0")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    other.touch()


def double(source: Path) -> None:
    for path in sorted(source.glob("disc/*"))[:2]:
        shutil.copy(path, path.with_name(f"copy-{path.name}"))


def _draw_more(source: Path) -> Path:
    draw_pictures(source.parent / "more", per_label=5, unseen_per_label=0, seed=9)
    return source.parent / "more" / TRAINING


# what is done to the folder, and how many images are then extracted and reused
EDITS: list[tuple[Callable[[Path], None], int, int]] = [
    (nothing, 0, TOTAL),
    (rename, 0, TOTAL),
    (relabel, 0, TOTAL),
    (add_category, 5, TOTAL),
    (change, 1, TOTAL - 1),
    (double, 0, TOTAL + 2),
]


@pytest.mark.parametrize(("edit", "extracted", "reused"), EDITS)
def test_only_images_with_unknown_bytes_are_extracted(
    edit: Callable[[Path], None],
    extracted: int,
    reused: int,
    retrain: Retrain,
    drawn_run: Trained,
    moved: Path,
    known: Path,
) -> None:
    edit(moved)
    result = train(retrain, moved, known, drawn_run.backbone).result
    assert (result["extracted"], result["reused"]) == (extracted, reused)
    assert result["images"]["ok"] == extracted + reused


def test_a_manifest_of_known_images_extracts_nothing_and_keeps_its_splits(
    retrain: Retrain, drawn_run: Trained, moved: Path, known: Path
) -> None:
    paths = sorted(path.relative_to(moved.parent) for path in moved.glob("*/*"))
    splits = ["train", "train", "validation", "test"]
    rows = [f"{path},{path.parent.name},{splits[n % 4]}\n" for n, path in enumerate(paths)]
    manifest = moved.parent / "labels.csv"
    manifest.write_text("uri,label,split\n" + "".join(rows))
    result = train(retrain, manifest, known, drawn_run.backbone).result
    assert (result["extracted"], result["reused"]) == (0, TOTAL)
    assert (result["validation"]["images"], result["test"]["images"]) == (TOTAL // 4, TOTAL // 4)


def test_adding_and_moving_images_moves_none_to_another_split(
    retrain: Retrain, drawn_run: Trained, moved: Path, known: Path
) -> None:
    before = _splits(drawn_run)
    for path in _draw_more(moved).glob("*/*"):
        path.rename(moved / path.parent.name / f"new-{path.name}")
    grown = train(retrain, moved, known, drawn_run.backbone)
    after = _splits(grown)
    assert len(after) == TOTAL + 20
    assert grown.result["extracted"] == 20
    assert {path: after[path] for path in before} == before
    assert set(before.values()) == {"train", "validation", "test"}


def _splits(run: Trained) -> dict[str, str]:
    """The split of every image of a run, by its path below the source."""
    record = json.loads((run.store / "runs" / run.result["run_id"] / "run.json").read_text())
    (manifest,) = (run.store / "manifests" / record["manifest_id"]).iterdir()
    rows = pq.read_table(manifest).to_pylist()
    return {str(Path(row["uri"]).relative_to(run.source)): row["split"] for row in rows}
