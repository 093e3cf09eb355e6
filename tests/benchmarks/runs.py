"""The command and other scripts as processes of their own, timed and watched."""

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from tests.command import Retrain

ROOT = Path(__file__).resolve().parents[2]
_SAMPLE_EVERY_S = 0.05
_EXTRACTING, _TRAINING = "extracting features", "training and exporting"


@dataclass(frozen=True)
class Run:
    """What a `retrain run --json` gave."""

    json: dict[str, Any]
    wall_s: float

    @property
    def worker(self) -> dict[str, Any]:
        """Where the time of its one working process went."""
        (only,) = self.json["stages"]["workers"]
        assert isinstance(only, dict)
        return only

    @property
    def images_per_s(self) -> float:
        """Over the whole stage of extraction, dispatch and the last write included, but for loading
        and compiling the backbone."""
        stages = self.json["stages"]
        return float(self.worker["images"] / (stages["extract_s"] - stages["extract"]["start_s"]))

    @property
    def features_s(self) -> float:
        """The whole process without training and exporting."""
        return self.wall_s - float(self.json["train_seconds"])


def run(retrain: Retrain, source: Path, store: Path, backbone: str, *options: object) -> Run:
    began = time.perf_counter()
    process = retrain.start(
        *("run", source, "--store", store, "--backbone", backbone, "--json", *options)
    )
    stdout, stderr = process.communicate()
    assert process.returncode == 0, stderr
    return Run(json.loads(stdout), time.perf_counter() - began)


def seconds(retrain: Retrain, *arguments: object) -> float:
    """Of a whole command."""
    began = time.perf_counter()
    process = retrain.start(*arguments)
    _, stderr = process.communicate()
    assert process.returncode == 0, stderr
    return time.perf_counter() - began


@dataclass(frozen=True)
class Answer:
    """What a script printed last: one JSON object."""

    json: dict[str, Any]
    wall_s: float


def script(
    module: str,
    *arguments: object,
    python: str = sys.executable,
    environment: Mapping[str, str] | None = None,
) -> Answer:
    """A module of the benchmarks as a process."""
    began = time.perf_counter()
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    found = subprocess.run(
        [python, "-m", f"tests.benchmarks.{module}", *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": path, "TF_CPP_MIN_LOG_LEVEL": "3", **(environment or {})},
        capture_output=True,
        text=True,
    )
    assert found.returncode == 0, found.stderr
    return Answer(json.loads(found.stdout.splitlines()[-1]), time.perf_counter() - began)


@dataclass
class Peaks:
    """Resident bytes at most, by what the command was at."""

    before: int = 0
    """Listing the images, and loading the backbone."""
    extraction: int = 0
    training: int = 0


def watched(retrain: Retrain, source: Path, store: Path, backbone: str, *options: object) -> Peaks:
    """The memory of a `retrain run` and its children, sampled every 50 ms; its lines on stderr say
    which stage it is in."""
    process = retrain.start(
        *("run", source, "--store", store, "--backbone", backbone, "--json", *options)
    )
    stage, lines = ["before"], []

    def listen() -> None:
        assert process.stderr is not None
        for line in process.stderr:
            lines.append(line)
            if _EXTRACTING in line:
                stage[0] = "extraction"
            elif _TRAINING in line:
                stage[0] = "training"

    listener = threading.Thread(target=listen)
    listener.start()
    peaks = Peaks()
    while process.poll() is None:
        now = stage[0]
        setattr(peaks, now, max(getattr(peaks, now), _resident(process.pid)))
        time.sleep(_SAMPLE_EVERY_S)
    listener.join()
    assert process.returncode == 0, "".join(lines)
    return peaks


def _resident(pid: int) -> int:
    total = 0
    try:
        whole = psutil.Process(pid)
        for each in (whole, *whole.children(recursive=True)):
            total += each.memory_info().rss
    except psutil.NoSuchProcess:  # it ended just now
        return total
    return total
