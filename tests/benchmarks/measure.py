"""How every benchmark measures: in rounds that take turns, sized by RETRAIN_BENCH_* variables."""

import os
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec

Samples = dict[str, list[float]]


def number(name: str, default: int) -> int:
    return int(os.environ.get(f"RETRAIN_BENCH_{name}", default))


def names(name: str, default: str) -> list[str]:
    """Comma separated."""
    return [each for each in os.environ.get(f"RETRAIN_BENCH_{name}", default).split(",") if each]


REPETITIONS = number("REPETITIONS", 3)


def engines() -> list[str]:
    """RETRAIN_BENCH_ENGINES, of these what is installed."""
    asked = names("ENGINES", "tensorflow,openvino")
    return [each for each in asked if each != "openvino" or find_spec("openvino") is not None]


def interleaved(cases: Mapping[str, Callable[[], float]], repetitions: int = REPETITIONS) -> Samples:
    """What each case gives, one after the other, round after round: what else the machine does at
    the time hits all of them."""
    found: Samples = {name: [] for name in cases}
    for _ in range(repetitions):
        for name, case in cases.items():
            found[name].append(case())
    return found


def ratio(above: Sequence[float], below: Sequence[float]) -> float:
    """The median over the rounds of what one round gives."""
    return statistics.median(a / b for a, b in zip(above, below, strict=True))


def rate(count: int, work: Callable[[], object]) -> float:
    """So many things a second, that one call does."""
    began = time.perf_counter()
    work()
    return count / (time.perf_counter() - began)
