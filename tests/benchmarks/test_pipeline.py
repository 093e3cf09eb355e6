"""The whole extraction: against what its parts allow, and against other ways to do the same.

    tests/run tests/benchmarks/test_pipeline.py -m benchmark -n 0 -s

The ceiling: backbone and decoding share the cores, so together they can do no more than
1 / (1 / backbone + 1 / decode), both measured alone, in turns with the whole and with the batch size
that was found for the backbone alone. The whole is a `retrain run`; its rate is images over the seconds
of its extraction stage without those of loading and compiling (the stages' extract_s - start_s).

The others: `plain_script.py` (tf.data and Keras) and `ray_script.py` (Ray Data), each a process of
its own. "whole" is the process from start to end with all that it loads and compiles, without the
training that only `retrain run` does; "steady" is the rate after the start: after the first batch
for the others. Ray runs where it is installed for the python that RETRAIN_BENCH_RAY_PYTHON names (this
one by default), which needs this project's other packages too.

RETRAIN_BENCH_IMAGES, _REPETITIONS, _BACKBONES, _ENGINES. 2,000 photos, both backbones and three rounds
take about an hour on two cores.
"""

import os
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from tests.benchmarks.measure import REPETITIONS, engines, number, rate, ratio
from tests.benchmarks.photos import jpegs
from tests.benchmarks.runs import Run, run, script
from tests.benchmarks.table import show, spread, times
from tests.command import Retrain
from workers.contract.settings import cores
from workers.features.decode import decode
from workers.storage import fetch

pytestmark = [pytest.mark.benchmark, pytest.mark.timeout(7200)]

IMAGES = number("IMAGES", 2000)
RAY_PYTHON = os.environ.get("RETRAIN_BENCH_RAY_PYTHON", sys.executable)
BACKBONE_IMAGES = 512
STREAMS = 2

Photos = Callable[[int], Path]


class Rates(NamedTuple):
    """Images/s of the parts and the whole, in one round."""

    backbone: float
    decode: float
    whole: float

    @property
    def ceiling(self) -> float:
        return 1 / (1 / self.backbone + 1 / self.decode)


@pytest.mark.parametrize("engine", engines())
def test_share_of_the_ceiling(
    retrain: Retrain, photos: Photos, backbone: str, engine: str, tmp_path: Path
) -> None:
    from workers.features.backbone import load
    from workers.features.inference import Wanted, prepare

    source = photos(IMAGES)
    network = prepare(load(backbone, None), Wanted(engine), IMAGES)
    options = (
        *("--engine", engine, "--precision", network.precision),
        *("--batch-size", network.batch_size),
    )
    rounds, runs = [], []
    for round_ in range(REPETITIONS):
        alone = _backbone_alone(network, source), _decode_alone(network, source)
        runs.append(run(retrain, source, tmp_path / f"{round_}", backbone, *options))
        rounds.append(Rates(*alone, runs[-1].images_per_s))
        assert runs[-1].json["images"]["ok"] == IMAGES
    _show_share(backbone, rounds, runs[-1])


def _backbone_alone(network: Any, source: Path) -> float:
    """On the first photos over and over, decoded beforehand, from as many threads as it has in the
    extraction."""
    files = jpegs(source)[: 2 * network.batch_size]
    pixels = np.stack([decode(each.read_bytes(), network.width, network.height) for each in files])
    batch = np.resize(pixels, (network.batch_size, *pixels.shape[1:]))
    batches = [batch] * max(1, min(IMAGES, BACKBONE_IMAGES) // network.batch_size)
    with ThreadPoolExecutor(STREAMS) as pool:
        list(pool.map(network.features, [batch] * STREAMS))
        return rate(
            len(batches) * network.batch_size, lambda: list(pool.map(network.features, batches))
        )


def _decode_alone(network: Any, source: Path) -> float:
    """Fetching with the digest of each file included, on as many threads as cores."""
    files = [str(each) for each in jpegs(source)]

    def one(uri: str) -> None:
        decode(fetch(uri).data, network.width, network.height)

    with ThreadPoolExecutor(cores()) as pool:
        return rate(len(files), lambda: list(pool.map(one, files)))


def _show_share(backbone: str, rounds: list[Rates], last: Run) -> None:
    worker = last.worker
    show(
        f"{backbone}, {IMAGES:,} photos: the whole against its ceiling",
        ["engine", "images/s: backbone", "decode", "ceiling", "whole", "share of the ceiling"],
        [
            [
                f"{worker['engine']} {worker['precision']}, batches of {worker['batch_size']}",
                spread([each.backbone for each in rounds]),
                spread([each.decode for each in rounds]),
                spread([each.ceiling for each in rounds]),
                spread([each.whole for each in rounds]),
                spread([each.whole / each.ceiling for each in rounds], 2),
            ]
        ],
    )


class Measured(NamedTuple):
    wall_s: float
    images_per_s: float


def test_against_other_ways(retrain: Retrain, photos: Photos, backbone: str, tmp_path: Path) -> None:
    from workers.features.backbone import load

    source, size = photos(IMAGES), load(backbone, None).width
    ours = {
        f"retrain, {each}": partial(_retrain, retrain, source, backbone, each) for each in engines()
    }
    others = {
        f"{title}, {precision}": partial(_script, module, python, source, backbone, size, precision)
        for title, module, python in _scripts()
        for precision in ("float32", "bfloat16")
    }
    found: dict[str, list[Measured]] = defaultdict(list)
    for round_ in range(REPETITIONS):
        for name, case in {**ours, **others}.items():
            found[name].append(case(tmp_path / f"{round_}-{name.replace(', ', '-')}"))
    _show_others(backbone, list(ours), found)


def _scripts() -> list[tuple[str, str, str]]:
    """Title, module and python of what is installed here."""
    has_ray = subprocess.run([RAY_PYTHON, "-c", "import ray.data"], capture_output=True).returncode == 0
    plain = ("tf.data and Keras", "plain_script", sys.executable)
    return [plain, ("Ray Data", "ray_script", RAY_PYTHON)] if has_ray else [plain]


def _retrain(retrain: Retrain, source: Path, backbone: str, engine: str, out: Path) -> Measured:
    done = run(retrain, source, out, backbone, "--engine", engine)
    assert done.json["images"]["ok"] == IMAGES
    return Measured(done.features_s, done.images_per_s)


def _script(
    module: str, python: str, source: Path, backbone: str, size: int, precision: str, out: Path
) -> Measured:
    options = ("--backbone", backbone, "--size", size, "--precision", precision)
    done = script(module, source, out, *options, python=python)
    assert done.json["images"] == IMAGES
    return Measured(done.wall_s, done.json["images_per_s"])


def _show_others(backbone: str, ours: list[str], found: dict[str, list[Measured]]) -> None:
    """A ratio above 1: this project is so many times faster than the row."""
    walls = {name: [each.wall_s for each in samples] for name, samples in found.items()}
    rates = {name: [each.images_per_s for each in samples] for name, samples in found.items()}
    per_ours = [f"{each}: {what}" for each in ours for what in ("whole", "steady")]
    show(
        f"{backbone}, {IMAGES:,} photos: how many times faster this project is than each row",
        ["", "whole, s", "steady, images/s", *per_ours],
        [
            [
                name,
                spread(walls[name]),
                spread(rates[name]),
                *(
                    cell
                    for each in ours
                    for cell in (
                        times(ratio(walls[name], walls[each])),
                        times(ratio(rates[each], rates[name])),
                    )
                ),
            ]
            for name in found
        ],
    )
