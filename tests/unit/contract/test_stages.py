"""workers.contract.stages: the times of a beat survive the wire, and versions that differ."""

from typing import Any

import pytest

from workers.contract.beats import DONE, Beat, MemoryBeats
from workers.contract.stages import StageTimes

TOLD = StageTimes(
    images=512,
    start_s=3.5,
    fetch_s=40.0,
    decode_s=55.25,
    backbone_s=8.0,
    starved_s=1.5,
    write_s=0.25,
    fetch_threads=32,
    decode_threads=8,
    engine="xla",
    precision="bfloat16",
    batch_size=64,
    device="gpu",
)


def test_the_times_survive_the_wire_in_a_beat() -> None:
    beat = Beat(DONE, "worker-1", "extract", 512, 512, 3, stages=TOLD.to_json())
    heard = Beat.from_json(beat.to_json())
    assert heard == beat
    assert heard.stages is not None
    assert StageTimes.from_json(heard.stages) == TOLD


def test_the_times_survive_beats_in_memory() -> None:
    beats = MemoryBeats()
    beats.send("run/extract-a", Beat(DONE, stages=TOLD.to_json()))
    assert beats.latest(["run/extract-a"])["run/extract-a"].stages == TOLD.to_json()


def test_a_beat_without_times_has_none() -> None:
    assert Beat.from_json('{"state": "done", "worker": "of another version"}').stages is None


def test_what_another_version_tells_beside_is_left_out() -> None:
    assert StageTimes.from_json(TOLD.to_json() | {"upload_s": 3.0, "threads": [1]}) == TOLD


def test_what_another_version_does_not_tell_is_nothing() -> None:
    assert StageTimes.from_json({"images": 7}) == StageTimes(images=7)
    assert StageTimes.from_json({}) == StageTimes()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("images", "seven"),
        ("images", 7.5),
        ("images", True),
        ("decode_s", None),
        ("decode_s", "1.0"),
        ("decode_s", False),
        ("engine", 3),
        ("device", None),
    ],
)
def test_what_is_of_another_type_is_left_out(name: str, value: Any) -> None:
    assert StageTimes.from_json({name: value}) == StageTimes()


def test_whole_seconds_are_seconds() -> None:
    assert StageTimes.from_json({"decode_s": 3}).decode_s == 3
