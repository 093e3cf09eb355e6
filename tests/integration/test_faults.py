"""Whatever dies: the run ends with the results of an undisturbed one."""

import os
import signal
import subprocess
import threading
import time

import pytest

from tests.fleet.harness import Fleet, Undisturbed, assert_untouched, sleep_while
from tests.fleet.proxy import PASS, RESET, SLOW_DOWN, FaultProxy
from tests.fleet.servers import RedisServer, until
from tests.integration.conftest import SHARDS

pytestmark = pytest.mark.timeout(240)

SOME = 6


def test_the_process_that_works_is_killed(fleet: Fleet, undisturbed: Undisturbed) -> None:
    run = fleet.start_run()
    done = fleet.wait_for_shards(SOME)
    fleet.workers[0].child.kill()
    undisturbed.assert_same(fleet, run.result())
    assert_untouched(done, fleet)


def test_a_whole_worker_is_killed(fleet: Fleet, undisturbed: Undisturbed) -> None:
    run = fleet.start_run()
    done = fleet.wait_for_shards(SOME)
    fleet.workers[0].signal_all(signal.SIGKILL)
    began = time.monotonic()
    undisturbed.assert_same(fleet, run.result())
    assert_untouched(done, fleet)
    assert time.monotonic() - began < 60 + 30, "a lost worker costs a minute at most"


def test_every_worker_in_turn_is_told_to_stop(fleet: Fleet, undisturbed: Undisturbed) -> None:
    run = fleet.start_run()
    fleet.wait_for_shards(SOME)
    first, second = fleet.workers
    first.process.send_signal(signal.SIGTERM)
    assert first.process.wait(40) == 0
    fleet.start_worker()
    done = fleet.wait_for_shards(2 * SOME)
    second.process.send_signal(signal.SIGTERM)
    assert second.process.wait(40) == 0
    undisturbed.assert_same(fleet, run.result())
    assert_untouched(done, fleet)


def test_a_worker_without_time_hands_its_shard_back(fleet: Fleet, undisturbed: Undisturbed) -> None:
    impatient = fleet.start_worker("--drain", "0")
    run = fleet.start_run()
    fleet.wait_for_shards(SOME)
    impatient.process.send_signal(signal.SIGTERM)
    assert impatient.process.wait(40) == 0
    undisturbed.assert_same(fleet, run.result())


def test_a_second_signal_stops_a_worker_at_once(fleet: Fleet, undisturbed: Undisturbed) -> None:
    run = fleet.start_run()
    fleet.wait_for_shards(SOME)
    worker = fleet.workers[0]
    worker.child.suspend()  # its task will never be done in time
    worker.process.send_signal(signal.SIGTERM)
    time.sleep(2)
    assert worker.process.poll() is None
    worker.process.send_signal(signal.SIGTERM)
    assert worker.process.wait(5) == 128 + signal.SIGTERM
    undisturbed.assert_same(fleet, run.result())


def test_redis_restarts_empty(fleet: Fleet, broker: RedisServer, undisturbed: Undisturbed) -> None:
    run = fleet.start_run()
    done = fleet.wait_for_shards(SOME)
    broker.kill()
    time.sleep(3)
    broker.start()
    undisturbed.assert_same(fleet, run.result())
    assert_untouched(done, fleet)


def test_redis_hangs_for_half_a_minute(
    fleet: Fleet, broker: RedisServer, undisturbed: Undisturbed
) -> None:
    run = fleet.start_run()
    done = fleet.wait_for_shards(SOME)
    broker.pause()
    sleep_while(30, run)
    broker.resume()
    undisturbed.assert_same(fleet, run.result())
    assert_untouched(done, fleet)


def test_the_store_asks_to_slow_down(fleet: Fleet, proxy: FaultProxy, undisturbed: Undisturbed) -> None:
    run = fleet.start_run()
    fleet.wait_for_shards(SOME)
    proxy.set(SLOW_DOWN)
    sleep_while(8, run)
    proxy.set(PASS)
    undisturbed.assert_same(fleet, run.result())


def test_the_store_breaks_every_connection_for_a_minute(
    fleet: Fleet, proxy: FaultProxy, undisturbed: Undisturbed
) -> None:
    run = fleet.start_run()
    fleet.wait_for_shards(SOME)
    proxy.set(RESET)
    sleep_while(60, run)
    proxy.set(PASS)
    undisturbed.assert_same(fleet, run.result())


@pytest.mark.parametrize("stage", ["before extraction", "extracting", "training"])
def test_the_orchestrator_is_killed_and_started_again(
    fleet: Fleet, undisturbed: Undisturbed, stage: str
) -> None:
    run = fleet.start_run()
    if stage == "before extraction":
        until(lambda: bool(fleet.objects("runs/")), 60, "the run's record")
    else:
        fleet.wait_for_shards(SOME if stage == "extracting" else SHARDS)
    run.process.kill()
    run.process.wait()
    done = fleet.objects("features/")
    result = fleet.start_run().result()
    undisturbed.assert_same(fleet, result)
    assert_untouched(done, fleet)


def test_two_orchestrators_do_the_same_run(fleet: Fleet, undisturbed: Undisturbed) -> None:
    runs = [fleet.start_run(), fleet.start_run()]
    results = [run.result() for run in runs]
    assert results[0]["run_id"] == results[1]["run_id"]
    for result in results:
        undisturbed.assert_same(fleet, result)


def test_messages_are_delivered_twice_at_once(
    fleet: Fleet, broker: RedisServer, undisturbed: Undisturbed
) -> None:
    run = fleet.start_run()
    until(lambda: broker.client.llen("extract") > 10, 90, "messages")
    for message in broker.client.lrange("extract", -5, -1):
        broker.client.rpush("extract", message, message)  # where workers take them
    undisturbed.assert_same(fleet, run.result())


def test_a_frozen_worker_wakes_up(fleet: Fleet, undisturbed: Undisturbed) -> None:
    run = fleet.start_run()
    fleet.wait_for_shards(SOME)
    frozen = fleet.workers[0]
    frozen.signal_all(signal.SIGSTOP)
    waking = threading.Timer(55, lambda: frozen.signal_all(signal.SIGCONT))
    waking.start()
    undisturbed.assert_same(fleet, run.result())
    waking.join()


def test_a_clock_jumps(fleet: Fleet, undisturbed: Undisturbed) -> None:
    """Ten minutes ahead, while the worker is at it; S3 takes no signature fifteen minutes off."""
    fleet.stop()
    offset = fleet.folder / "offset"
    offset.write_text("+0")
    jumping = {
        "FAKETIME_TIMESTAMP_FILE": str(offset),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }
    fleet.start_worker(wrapper=("faketime", "-f", "+0", "env", "-u", "FAKETIME"), **jumping)
    run = fleet.start_run()
    fleet.wait_for_shards(SOME)
    offset.write_text("+10m")
    undisturbed.assert_same(fleet, run.result())


def test_a_worker_without_room_for_files(fleet: Fleet, undisturbed: Undisturbed) -> None:
    """It cannot keep the backbone; the others do its work."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount a small disk")
    full = fleet.folder / "full"
    full.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(full)], check=True)
    try:
        fleet.start_worker(RETRAIN_CACHE_DIR=str(full), TMPDIR=str(full))
        undisturbed.assert_same(fleet, fleet.start_run().result())
    finally:
        fleet.stop()
        subprocess.run(["umount", "-l", str(full)], check=True)
