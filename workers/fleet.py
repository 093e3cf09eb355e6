"""A worker of a fleet: a main process that listens, and one process that works.

The work is in a process of its own, so that a picture which crashes its decoder, or takes all memory,
ends that process alone; it is started again, and the orchestrator is told at once.
"""

import logging
import os
import platform
import signal
import socket
import sys
import threading
import warnings
from contextlib import suppress
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from types import FrameType
from typing import Any

from celery import bootsteps, signals
from celery.platforms import SecurityWarning
from celery.worker.state import active_requests

from workers import drain, storage
from workers.app import app
from workers.contract.beats import BEAT_EVERY_S, HANDED_BACK, Beat, Beats, WorkerInfo
from workers.contract.broker import beats_of, configured, without_password
from workers.contract.errors import BadSetting, NoWorker, RetrainError
from workers.contract.extras import missing_for_worker
from workers.contract.messages import EXTRACT_QUEUE, QUEUES, TRAIN_QUEUE
from workers.contract.settings import Settings
from workers.tasks import loss, overlap
from workers.tasks.loss import message_of

log = logging.getLogger("retrain.worker")

_GREET_EVERY_S = 10.0
_LATE_AFTER_S = 5.0
_LOSS_LOOK_S = 1.0
_STOPPED_AT_ONCE = 128 + signal.SIGTERM


def run_worker(settings: Settings) -> int:
    """Listen until told to stop; returns the exit code.

    SIGTERM: the task at hand is finished, or handed back after `drain_s`; a second one stops at once.
    Raises BadSetting for an unknown queue, NoWorker where a queue's tasks cannot run here.
    """
    queues = list(settings.queues or QUEUES)
    _check(queues)
    configured(app, settings.broker_url)
    # it warns of root because of pickle, which is not accepted
    warnings.simplefilter("ignore", SecurityWarning)
    storage.restrict(settings.allow)
    beats = beats_of(settings.broker_url)
    _Presence.settings, _Presence.beats = settings, beats
    app.steps["worker"].add(_Presence)
    _connect_signals(settings, beats)
    worker = app.Worker(
        hostname=f"retrain@{socket.gethostname()}-{os.getpid()}",
        pool="prefork",
        concurrency=1,
        queues=queues,
        loglevel="WARNING",
        quiet=True,
        without_gossip=True,
        without_mingle=True,
        without_heartbeat=True,
    )
    log.info("listening to %s at %s", ", ".join(queues), without_password(settings.broker_url))
    worker.start()
    log.info("stopped")
    return int(worker.exitcode or 0)


def gpus() -> int:
    """GPUs of this machine, found without TensorFlow, which must not be loaded before a fork."""
    return len(list(Path("/dev").glob("nvidia[0-9]*")))


def _check(queues: list[str]) -> None:
    for queue in queues:
        if queue not in QUEUES:
            raise BadSetting(f"no queue {queue!r}: there are {', '.join(QUEUES)}")
    if (missing := missing_for_worker()) and {EXTRACT_QUEUE, TRAIN_QUEUE} & set(queues):
        raise NoWorker(
            f"no {missing} here for the queues extract and train: pip install '.[worker]' in a "
            "checkout, or listen to --queues score alone"
        )


def _connect_signals(settings: Settings, beats: Beats | None) -> None:
    def begin_drain(**_: Any) -> None:
        drain.begin(settings.drain_s)
        signal.signal(signal.SIGTERM, _stop_at_once)
        late = threading.Timer(settings.drain_s + _LATE_AFTER_S, _hand_back_for, args=(beats,))
        late.daemon = True
        late.start()
        log.info("stopping: %g s to finish the task at hand", settings.drain_s)

    # connected at all, it keeps Celery from setting up logs of its own
    signals.setup_logging.connect(_logs_are_set_up, weak=False)
    signals.worker_shutting_down.connect(begin_drain, weak=False)
    # in the process that works: its last tasks have returned to Celery before they ended
    signals.worker_process_shutdown.connect(lambda **_: overlap.finish(), weak=False)


def _logs_are_set_up(**_: Any) -> None:
    pass


def _stop_at_once(number: int, frame: FrameType | None) -> None:
    _end(_STOPPED_AT_ONCE)


def _hand_back_for(beats: Beats | None) -> None:
    """The process that works did not come to a point where it could hand back (it loads a backbone,
    say): it is ended, and its task handed back in its name."""
    for request in list(active_requests):
        message = message_of(request)
        if message is not None and beats is not None:
            with suppress(RetrainError):
                beats.send(message.beat_name(), Beat(HANDED_BACK, queue=message.queue))
    if beats is not None:
        with suppress(RetrainError):
            loss.tell_of_begun(beats, HANDED_BACK, lambda pid: True)
    _end(0)


def _end(code: int) -> None:
    from billiard import active_children

    for child in active_children():
        os.kill(child.pid, signal.SIGKILL)
    os._exit(code)


class _Presence(bootsteps.StartStopStep):  # type: ignore[misc]
    """Says from the worker's main loop that it is there: to a file, for a probe, and to the others.

    No thread of its own: a process forked while another thread imports or connects may wait for ever
    for a lock that nobody holds any more.
    """

    requires = {"celery.worker.components:Timer"}  # noqa: RUF012
    settings = Settings()
    beats: Beats | None = None

    def start(self, worker: Any) -> None:
        worker.timer.call_repeatedly(_LOSS_LOOK_S, _tell_of_loss, (self.beats,))
        if self.settings.heartbeat_file:
            worker.timer.call_repeatedly(BEAT_EVERY_S, self.settings.heartbeat_file.touch)
        if self.beats is not None:
            queues = list(self.settings.queues or QUEUES)
            info = WorkerInfo(worker.hostname, queues, gpus(), _versions())
            _greet(self.beats, info)
            worker.timer.call_repeatedly(_GREET_EVERY_S, _greet, (self.beats, info))


def _tell_of_loss(beats: Beats | None) -> None:
    if beats is not None:
        with suppress(RetrainError):
            loss.tell_of_gone(beats)


def _greet(beats: Beats, info: WorkerInfo) -> None:
    try:
        beats.greet(info)
    except RetrainError as error:
        log.warning("%s", error)


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in ("retrain", "tensorflow", "pillow"):
        if find_spec("PIL" if package == "pillow" else package) or package == "retrain":
            found[package] = version(package)
    return found


def configure_logs() -> None:
    """Log lines on stderr, from every process of the worker."""
    logging.basicConfig(
        stream=sys.stderr,
        level=logging.INFO,
        format="%(asctime)s %(levelname)s %(processName)s %(message)s",
    )
    for noisy in ("celery", "kombu", "amqp", "botocore"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
