"""Where the time of an extraction went, and what would make it faster. Pure.

A worker has one backbone, which takes batches from `decode_threads`, which take bytes from
`fetch_threads`; one more thread writes. The stage that would take longest if it never had to wait
for another is the one that the others wait for.
"""

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from workers.contract.stages import StageTimes

BUSY = 0.85
"""A backbone at work for this part of the time gains little from anything but more backbones."""

_SUMMED = ("images", "start_s", "fetch_s", "decode_s", "backbone_s", "starved_s", "write_s")
_LATEST = ("fetch_threads", "decode_threads", "engine", "precision", "batch_size", "device")


@dataclass(frozen=True)
class Worked:
    """What one working process told, summed over its shards."""

    worker: str
    times: StageTimes
    seen_s: float = 0.0
    """From its first beat that was heard to its last: start-up, and pauses between shards, included."""

    @property
    def images_per_s(self) -> float | None:
        """Its rate while it had images to do: over backbone_s + starved_s, without start_s, which a
        process spends once, and without waiting for a task."""
        wall_s = _wall_s(self.times)
        return self.times.images / wall_s if wall_s else None

    @property
    def busy(self) -> float | None:
        """The part [0, 1] of that time with a batch in the backbone."""
        wall_s = _wall_s(self.times)
        return self.times.backbone_s / wall_s if wall_s else None

    def to_json(self) -> dict[str, Any]:
        return {
            "worker": self.worker,
            "images": self.times.images,
            "images_per_s": self.images_per_s,
            "busy": self.busy,
            "seen_s": self.seen_s,
            **_seconds(self.times),
            **{name: getattr(self.times, name) for name in _LATEST},
        }


def added(before: StageTimes, then: StageTimes) -> StageTimes:
    """The sums of both; what they ran with is as it was told last."""
    sums = {name: getattr(before, name) + getattr(then, name) for name in _SUMMED}
    latest = {name: getattr(then, name) or getattr(before, name) for name in _LATEST}
    return replace(then, **sums, **latest)


def report(workers: Sequence[Worked]) -> dict[str, Any]:
    """The part of a command's JSON result that tells of the workers' time; null where none told."""
    times = [each.times for each in workers]
    return {
        "extract": _seconds(_total(times)) if workers else None,
        "workers": [each.to_json() for each in workers],
        "bottleneck": bottleneck(times),
    }


def bottleneck(workers: Sequence[StageTimes]) -> str | None:
    """What would make the workers faster, from the sums of each; None where no image was done."""
    total = _total(workers)
    wall_s = _wall_s(total)
    if not total.backbone_s:
        return None
    if total.start_s > wall_s:
        return _start_bound(total, len(workers))
    # a worker's last shard is written when its backbone is done: a slow store need not starve it
    if total.write_s <= wall_s and total.backbone_s >= BUSY * wall_s:
        return _backbone_bound(total, workers)
    fetch_s = sum(each.fetch_s / each.fetch_threads for each in workers if each.fetch_threads)
    decode_s = sum(each.decode_s / each.decode_threads for each in workers if each.decode_threads)
    slowest_s = max(total.write_s, decode_s, fetch_s)
    if slowest_s <= total.backbone_s:
        return _pauses(total)
    if slowest_s == total.write_s:
        return _write_bound(total)
    return _decode_bound(total, workers) if slowest_s == decode_s else _fetch_bound(total, workers)


def _start_bound(total: StageTimes, workers: int) -> str:
    spent_s, whole_s = total.start_s / workers, (total.start_s + _wall_s(total)) / workers
    whose = "" if workers == 1 else "each worker's "
    return (
        f"start-up: loading and compiling the backbone took {spent_s:.1f} of {whose}{whole_s:.1f} s; "
        "larger runs spend their time better"
    )


def _backbone_bound(total: StageTimes, workers: Sequence[StageTimes]) -> str:
    busy = f"busy {100 * total.backbone_s / _wall_s(total):.0f} % of the time"
    if not _all_gpus(workers):
        return (
            f"backbone-bound: the backbone is {busy}; more workers, more cores or a GPU make it faster"
        )
    gpus = "GPU is" if len(workers) == 1 else "GPUs are"
    return f"backbone-bound: the {gpus} {busy}; more workers make it faster"


def _decode_bound(total: StageTimes, workers: Sequence[StageTimes]) -> str:
    """The threads that keep up are the thread-seconds of decoding for each second of backbone."""
    there = _mean([each.decode_threads for each in workers], workers)
    more = max(1, math.ceil(total.decode_s / total.backbone_s - there))
    whom = "GPU" if _all_gpus(workers) else "worker"
    return f"decode-bound: give each {whom} {more} more {'vCPU' if more == 1 else 'vCPUs'}"


def _fetch_bound(total: StageTimes, workers: Sequence[StageTimes]) -> str:
    there = round(_mean([each.fetch_threads for each in workers], workers))
    needed = max(there + 1, math.ceil(total.fetch_s / total.backbone_s))
    return (
        f"fetch-bound: raise RETRAIN_FETCH_THREADS from {there} to {needed}, or move the workers "
        "nearer to the bucket"
    )


def _write_bound(total: StageTimes) -> str:
    return (
        f"write-bound: writing features took {total.write_s:.1f} s, the backbone "
        f"{total.backbone_s:.1f} s; move the workers nearer to the store"
    )


def _pauses(total: StageTimes) -> str:
    waits = 100 * total.starved_s / _wall_s(total)
    return (
        f"pauses: the backbone waits {waits:.0f} % of the time, though fetching, decoding and writing "
        "keep up with it; larger shards (--shard-size) pause less often"
    )


def _total(workers: Sequence[StageTimes]) -> StageTimes:
    return functools.reduce(added, workers, StageTimes())


def _seconds(times: StageTimes) -> dict[str, float]:
    return {
        "start_s": times.start_s,
        "fetch_wait_s": times.fetch_s,
        "decode_s": times.decode_s,
        "backbone_s": times.backbone_s,
        "starved_s": times.starved_s,
        "write_s": times.write_s,
    }


def _wall_s(times: StageTimes) -> float:
    """The time in which a worker had images to do."""
    return times.backbone_s + times.starved_s


def _mean(threads: Sequence[int], workers: Sequence[StageTimes]) -> float:
    """Threads of a worker: the longer one had images to do, the more its own count."""
    walls_s = [_wall_s(each) for each in workers]
    weighted = (count * wall_s for count, wall_s in zip(threads, walls_s, strict=True))
    return sum(weighted) / sum(walls_s)


def _all_gpus(workers: Sequence[StageTimes]) -> bool:
    return all(each.device == "gpu" for each in workers)
