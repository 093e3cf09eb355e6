"""orchestrator.stages: where the time went, and the bottleneck in words."""

import json
from dataclasses import replace

import pytest

from orchestrator.stages import Worked, added, bottleneck, report
from workers.contract.stages import StageTimes

GPU = StageTimes(
    images=10_000,
    start_s=5.0,
    backbone_s=50.0,
    starved_s=50.0,
    fetch_threads=32,
    decode_threads=8,
    engine="xla",
    precision="bfloat16",
    batch_size=64,
    device="gpu",
)
"""Its wall time is 100 s, so 8 decode threads have 800 thread-seconds and 32 fetch threads 3,200."""
CPU = replace(GPU, device="cpu")

VERDICTS = {
    # 93 of 100 s in the backbone
    "busy GPU": (
        [replace(GPU, backbone_s=93.0, starved_s=7.0, decode_s=700.0)],
        "backbone-bound: the GPU is busy 93 % of the time; more workers make it faster",
    ),
    # (93 + 87) of (100 + 100) s
    "busy GPUs": (
        [replace(GPU, backbone_s=93.0, starved_s=7.0), replace(GPU, backbone_s=87.0, starved_s=13.0)],
        "backbone-bound: the GPUs are busy 90 % of the time; more workers make it faster",
    ),
    "busy CPU": (
        [replace(CPU, backbone_s=98.0, starved_s=2.0)],
        "backbone-bound: the backbone is busy 98 % of the time; more workers, more cores or a GPU "
        "make it faster",
    ),
    "85 % is busy": (
        [replace(GPU, backbone_s=85.0, starved_s=15.0, decode_s=800.0)],
        "backbone-bound: the GPU is busy 85 % of the time; more workers make it faster",
    ),
    # 800 / 84 = 9.52 threads keep up; there are 8
    "84 % is not": (
        [replace(GPU, backbone_s=84.0, starved_s=16.0, decode_s=800.0)],
        "decode-bound: give each GPU 2 more vCPUs",
    ),
    # 790 / 50 = 15.8 threads keep up; there are 8
    "decode": (
        [replace(GPU, decode_s=790.0, fetch_s=1000.0)],
        "decode-bound: give each GPU 8 more vCPUs",
    ),
    # 620 / 50 = 12.4
    "decode, rounded up": ([replace(GPU, decode_s=620.0)], "decode-bound: give each GPU 5 more vCPUs"),
    # 410 / 50 = 8.2
    "decode, by little": ([replace(GPU, decode_s=410.0)], "decode-bound: give each GPU 1 more vCPU"),
    "decode on a CPU": (
        [replace(CPU, decode_s=790.0)],
        "decode-bound: give each worker 8 more vCPUs",
    ),
    # (790 + 390) / (50 + 50) = 11.8 threads keep up in each; on average (8 + 4) / 2 = 6 are there
    "decode in two workers": (
        [replace(GPU, decode_s=790.0), replace(GPU, decode_s=390.0, decode_threads=4)],
        "decode-bound: give each GPU 6 more vCPUs",
    ),
    # 3,110 / 50 = 62.2 threads keep up; decoding has 500 / 8 = 62.5 s to do, fetching 3,110 / 32 = 97.2
    "fetch": (
        [replace(GPU, fetch_s=3110.0, decode_s=500.0)],
        "fetch-bound: raise RETRAIN_FETCH_THREADS from 32 to 63, or move the workers nearer to the "
        "bucket",
    ),
    # 1,610 / 50 = 32.2
    "fetch, by little": (
        [replace(GPU, fetch_s=1610.0)],
        "fetch-bound: raise RETRAIN_FETCH_THREADS from 32 to 33, or move the workers nearer to the "
        "bucket",
    ),
    # 12 of 12 + 1 + 0.5 s, though the backbone was busy for two thirds of the rest
    "start-up": (
        [replace(GPU, start_s=12.0, backbone_s=1.0, starved_s=0.5, decode_s=11.0)],
        "start-up: loading and compiling the backbone took 12.0 of 13.5 s; larger runs spend their "
        "time better",
    ),
    # (12 + 8) / 2 of (12 + 8 + 4 + 4) / 2
    "start-up of two": (
        [
            replace(GPU, start_s=12.0, backbone_s=3.0, starved_s=1.0),
            replace(GPU, start_s=8.0, backbone_s=1.0, starved_s=3.0),
        ],
        "start-up: loading and compiling the backbone took 10.0 of each worker's 14.0 s; larger runs "
        "spend their time better",
    ),
    "write": (
        [replace(GPU, write_s=95.0, decode_s=700.0)],
        "write-bound: writing features took 95.0 s, the backbone 50.0 s; move the workers nearer to "
        "the store",
    ),
    "write after the last batch": (
        [replace(GPU, backbone_s=20.0, starved_s=0.0, write_s=60.0)],
        "write-bound: writing features took 60.0 s, the backbone 20.0 s; move the workers nearer to "
        "the store",
    ),
    # 240 / 8 = 30 s of decoding, 640 / 32 = 20 s of fetching, 10 s of writing: all less than 50 s
    "pauses": (
        [replace(GPU, decode_s=240.0, fetch_s=640.0, write_s=10.0)],
        "pauses: the backbone waits 50 % of the time, though fetching, decoding and writing keep up "
        "with it; larger shards (--shard-size) pause less often",
    ),
    # the thread counts of an older worker are not known
    "no threads told": (
        [replace(GPU, decode_s=790.0, decode_threads=0, fetch_threads=0)],
        "pauses: the backbone waits 50 % of the time, though fetching, decoding and writing keep up "
        "with it; larger shards (--shard-size) pause less often",
    ),
}


@pytest.mark.parametrize(("workers", "verdict"), VERDICTS.values(), ids=VERDICTS.keys())
def test_the_bottleneck_in_words(workers: list[StageTimes], verdict: str) -> None:
    assert bottleneck(workers) == verdict


@pytest.mark.parametrize(
    "workers",
    [[], [StageTimes()], [StageTimes(start_s=9.0)], [StageTimes(images=3, starved_s=2.0)]],
    ids=["nobody told", "nothing done", "only started", "every image was bad"],
)
def test_without_a_batch_there_is_no_bottleneck(workers: list[StageTimes]) -> None:
    assert bottleneck(workers) is None


def test_times_add_up_and_settings_are_as_told_last() -> None:
    first = replace(GPU, fetch_s=7.0, decode_s=3.0, write_s=1.0)
    then = StageTimes(10, 0.5, 1.0, 2.0, 3.0, 4.0, 5.0, 16, 4, "tensorflow", "float32", 8, "gpu")
    assert added(first, then) == StageTimes(
        10_010, 5.5, 8.0, 5.0, 53.0, 54.0, 6.0, 16, 4, "tensorflow", "float32", 8, "gpu"
    )


def test_settings_that_are_not_told_again_stay() -> None:
    assert added(GPU, StageTimes(device="gpu")) == GPU


def test_the_rate_of_a_worker_is_that_of_the_time_it_had_images() -> None:
    # 10,000 images in 50 + 50 s; neither the 5 s of start-up nor the 300 s it was there count
    worked = Worked("gpu-1", GPU, seen_s=300.0)
    assert (worked.images_per_s, worked.busy) == (100.0, 0.5)


def test_a_worker_that_did_nothing_has_no_rate() -> None:
    worked = Worked("gpu-1", StageTimes(start_s=3.0))
    assert (worked.images_per_s, worked.busy) == (None, None)


def test_the_report_has_sums_workers_and_the_bottleneck() -> None:
    slow = replace(GPU, decode_s=790.0, fetch_s=64.0, write_s=2.0)
    told = report([Worked("gpu-1", slow, 120.0), Worked("gpu-2", replace(slow, images=5_000), 110.0)])
    assert told["extract"] == {
        "start_s": 10.0,
        "fetch_wait_s": 128.0,
        "decode_s": 1580.0,
        "backbone_s": 100.0,
        "starved_s": 100.0,
        "write_s": 4.0,
    }
    assert told["bottleneck"] == "decode-bound: give each GPU 8 more vCPUs"
    assert told["workers"][1] == {
        "worker": "gpu-2",
        "images": 5_000,
        "images_per_s": 50.0,
        "busy": 0.5,
        "seen_s": 110.0,
        "start_s": 5.0,
        "fetch_wait_s": 64.0,
        "decode_s": 790.0,
        "backbone_s": 50.0,
        "starved_s": 50.0,
        "write_s": 2.0,
        "fetch_threads": 32,
        "decode_threads": 8,
        "engine": "xla",
        "precision": "bfloat16",
        "batch_size": 64,
        "device": "gpu",
    }
    assert json.loads(json.dumps(told)) == told


def test_a_report_of_nobody_says_so() -> None:
    assert report([]) == {"extract": None, "workers": [], "bottleneck": None}
