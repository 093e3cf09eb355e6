"""Progress on stderr: bars with rate and time left on a terminal, log lines elsewhere."""

import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.logging import RichHandler
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

log = logging.getLogger("retrain")

Update = Callable[[int, int | None], None]

_LOG_EVERY_S = 10.0


class Reporter:
    """Tells a person how far a command is."""

    def __init__(self) -> None:
        self._console = Console(stderr=True)
        self._live = self._console.is_terminal
        handler: logging.Handler
        if self._live:
            handler = RichHandler(console=self._console, show_path=False, log_time_format="%H:%M:%S")
            handler.setFormatter(logging.Formatter("%(message)s"))
        else:
            handler = logging.StreamHandler(sys.stderr)
            handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        log.handlers[:] = [handler]
        log.setLevel(logging.INFO)
        log.propagate = False

    @contextmanager
    def stage(self, name: str, total: int | None, unit: str = "images") -> Iterator[Update]:
        """A stage of so many units; the update takes units done, and a total once it is known."""
        began = time.monotonic()
        done = 0

        def counted(show: Update) -> Update:
            def update(units: int, of: int | None = None) -> None:
                nonlocal done
                done = units
                show(units, of or total)

            return update

        with self._bar(name, total) if self._live else _lines(name, total, unit) as show:
            yield counted(show)
        took = time.monotonic() - began
        rate = f", {done / took:.0f} {unit}/s" if done and took > 0 else ""
        log.info("%s: %s in %.1f s%s", name, f"{done:,} {unit}" if done else "done", took, rate)

    @contextmanager
    def _bar(self, name: str, total: int | None) -> Iterator[Update]:
        columns = [
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            _Rate(),
            TimeRemainingColumn(),
        ]
        with Progress(*columns, console=self._console, transient=True) as progress:
            bar = progress.add_task(name, total=total)
            yield lambda done, of: progress.update(bar, completed=done, total=of)


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text(f"{task.speed:.0f}/s" if task.speed else "", style="progress.data.speed")


@contextmanager
def _lines(name: str, total: int | None, unit: str) -> Iterator[Update]:
    log.info("%s%s", name, f": {total:,} {unit}" if total else "")
    began = last = time.monotonic()

    def show(done: int, of: int | None) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last < _LOG_EVERY_S or not done:
            return
        last, rate = now, done / (now - began)
        left = f", {(of - done) / rate:.0f} s left" if of else ""
        log.info(
            "%s: %s%s %s, %.0f/s%s", name, f"{done:,}", f" of {of:,}" if of else "", unit, rate, left
        )

    yield show
