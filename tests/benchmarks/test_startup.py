"""What a run costs before and beside its images: the parts of a worker's start, by engine, and whole
commands on few photos.

    tests/run tests/benchmarks/test_startup.py -m benchmark -n 0 -s

Every part is timed in a fresh process, on files that the system has in memory. "prepare" is freeze,
compile, parity and probe together: what a run of few images does without. RETRAIN_BENCH_FEW_IMAGES,
_REPETITIONS, _BACKBONES, _ENGINES.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.benchmarks.measure import REPETITIONS, Samples, engines, interleaved, number
from tests.benchmarks.photos import jpegs
from tests.benchmarks.runs import run, script, seconds
from tests.benchmarks.table import show, spread
from tests.command import Retrain

pytestmark = [pytest.mark.benchmark, pytest.mark.timeout(3600)]

FEW_IMAGES = number("FEW_IMAGES", 50)
PARTS = ("import", "load", "freeze", "compile", "parity", "probe", "prepare", "first batch")


def test_parts(backbone: str, retrain: Retrain) -> None:
    found: dict[str, Samples] = {}
    for _ in range(REPETITIONS):
        for engine in engines():
            told = dict(_parts(backbone, engine, retrain.environment))
            name = f"{engine} {told.pop('precision')}"
            for part in PARTS:
                found.setdefault(name, {}).setdefault(part, []).append(float(told[part]))
    show(
        f"{backbone}: seconds of a worker's start",
        ["engine", *PARTS],
        [[name, *(spread(parts[part], 2) for part in PARTS)] for name, parts in found.items()],
    )


def _parts(backbone: str, engine: str, environment: Mapping[str, str]) -> dict[str, Any]:
    arguments = ("--backbone", backbone, "--engine", engine)
    return script("startup_script", *arguments, environment=environment).json


def test_commands(
    backbone: str, retrain: Retrain, photos: Callable[[int], Path], tmp_path: Path
) -> None:
    source = photos(FEW_IMAGES)
    first, *_ = jpegs(source)
    model = tmp_path / "model"
    run(retrain, source, model, backbone)
    stores = (tmp_path / f"{number}" for number in range(REPETITIONS))

    def whole() -> float:
        return seconds(retrain, "run", source, "--store", next(stores), "--backbone", backbone)

    cases = {
        f"retrain run on {FEW_IMAGES} photos": whole,
        "the same again": lambda: seconds(
            retrain, "run", source, "--store", model, "--backbone", backbone
        ),
        "retrain label, one photo": lambda: seconds(retrain, "label", first, "--store", model),
    }
    found = interleaved(cases)
    show(
        f"{backbone}: seconds of whole commands",
        ["", "s"],
        [[name, spread(samples, 2)] for name, samples in found.items()],
    )
