"""Tables on stdout."""

import os
import platform
import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path

from workers.contract.settings import cores


def show(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """The first column to the left, numbers to the right."""
    lines = [list(columns), *(list(row) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    print(f"\n{title}\n{_machine()}")  # noqa: T201
    for first, *rest in lines:
        cells = [each.rjust(width) for each, width in zip(rest, widths[1:], strict=True)]
        print("  ".join([first.ljust(widths[0]), *cells]))  # noqa: T201


def spread(samples: Sequence[float], digits: int = 1) -> str:
    """The median, and the range where there is one."""
    median = f"{statistics.median(samples):,.{digits}f}"
    if len(samples) == 1:
        return median
    return f"{median} ({min(samples):,.{digits}f}-{max(samples):,.{digits}f})"


def times(ratio: float) -> str:
    return f"{ratio:.2f}x"


def _machine() -> str:
    """What it ran on, and how much else ran there by now."""
    return f"({cores()} cores, {_processor()}; load {os.getloadavg()[0]:.1f})"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(": ")[2] for line in lines if line.startswith("model name")), "?")
