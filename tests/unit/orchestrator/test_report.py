"""orchestrator.report: where the time went, for a person."""

from typing import Any

from rich.console import Console

from orchestrator.report import predict_table, run_status_table

TIMES = {
    "start_s": 3.0,
    "fetch_wait_s": 40.2,
    "decode_s": 55.1,
    "backbone_s": 8.0,
    "starved_s": 1.0,
    "write_s": 0.2,
}
WORKER = {
    "worker": "gpu-1",
    "images": 1368,
    "images_per_s": 152.0,
    "busy": 0.889,
    "engine": "xla",
    "precision": "bfloat16",
    "batch_size": 16,
    "device": "gpu",
    **TIMES,
}
STAGES: dict[str, Any] = {
    "list_s": 0.3,
    "load_s": 2.0,
    "extract_s": 12.1,
    "score_s": 0.6,
    "extract": TIMES,
    "workers": [WORKER],
    "shards_told": 2,
    "shards": 2,
    "bottleneck": "backbone-bound: more of it",
}
NOTHING: dict[str, Any] = {
    "list_s": 0.3,
    "extract": None,
    "workers": [],
    "bottleneck": None,
    "shards": 0,
}
RESULT = {
    "images": {"total": 5, "ok": 5, "failed": 0},
    "extract_images_per_s": None,
    "extracted": 0,
    "reused": 5,
    "model_id": "model",
    "predictions_uri": "there",
    "seconds": 15.0,
}


def shown(stages: dict[str, Any]) -> str:
    console = Console(width=160, highlight=False)
    with console.capture() as capture:
        console.print(predict_table(RESULT | {"stages": stages}))
    return "\n".join(line.rstrip() for line in capture.get().splitlines())


def test_a_person_reads_where_the_time_went() -> None:
    text = shown(STAGES)
    assert (
        "time         listing 0.3 s, loading the backbone 2.0 s, extraction 12.1 s, scoring 0.6 s"
        in text
    )
    assert (
        "extraction   start 3.0 s, backbone 8.0 s, backbone waiting 1.0 s, write 0.2 s, fetch wait of "
        "all threads 40.2 s, decode of all threads 55.1 s\n" in text
    )
    assert (
        "workers      gpu-1: 152 images/s, xla bfloat16 on GPU, batches of 16, backbone busy 89 %"
        in text
    )
    assert "bottleneck   backbone-bound: more of it" in text


def test_what_was_not_told_is_said() -> None:
    assert "(of 1 of 2 shards)" in shown(STAGES | {"shards_told": 1}).replace("\n             ", " ")


def test_the_first_workers_stand_for_a_fleet() -> None:
    fleet = [WORKER | {"worker": f"gpu-{number}"} for number in range(7)]
    text = shown(STAGES | {"workers": fleet})
    assert "gpu-3" in text
    assert "gpu-4" not in text
    assert "and 3 more" in text
    assert "summed over 7 workers" in text.replace("\n             ", " ")


def test_a_worker_whose_images_were_all_bad_has_no_rate() -> None:
    text = shown(STAGES | {"workers": [WORKER | {"images_per_s": None, "busy": None}]})
    assert "gpu-1: no images" in text


def test_where_nothing_was_extracted_there_are_only_times() -> None:
    text = shown(NOTHING)
    assert "time         listing 0.3 s" in text
    assert not [name for name in ("extraction  ", "workers", "bottleneck") if name in text]


def test_the_status_of_a_finished_run_tells_it_too() -> None:
    status = {
        "run_id": "run-1",
        "command": "predict",
        "source": "photos",
        "stage": "done",
        "updated": "today",
    }
    console = Console(width=160, highlight=False)
    with console.capture() as capture:
        console.print(run_status_table(status | {"result": RESULT | {"stages": STAGES}}))
        console.print(run_status_table(status | {"result": RESULT}))  # of an older version
    assert capture.get().count("bottleneck") == 1
