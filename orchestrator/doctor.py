"""`retrain doctor`: whether everything a run needs is there, and the remedy where it is not."""

import platform
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from uuid import uuid4

from orchestrator.engine import Engine, open_engine
from orchestrator.pipeline import Pipeline
from orchestrator.progress import Reporter
from orchestrator.records import RunRecord
from workers.contract.broker import without_password
from workers.contract.errors import ExitCode, NoWorker, RetrainError, StoreDenied
from workers.contract.extras import missing_for_worker
from workers.contract.settings import MEMORY_BROKER
from workers.storage import Store, open_store

_PATIENCE_S = 5.0


@dataclass(frozen=True)
class Check:
    """One line: what was looked at, what was found or is wrong, and 0 or an exit code."""

    name: str
    found: str
    exit_code: ExitCode = ExitCode.OK

    @property
    def is_ok(self) -> bool:
        return self.exit_code == ExitCode.OK


@dataclass(frozen=True)
class DoctorRequest:
    store: str
    broker_url: str
    backbone: str | None = None
    image_size_px: int | None = None


def examine(request: DoctorRequest, reporter: Reporter) -> Iterator[Check]:
    """Every check, as it is made; a failed one does not keep the others from being made."""
    yield _check("versions", _versions)
    yield _check(f"store {request.store}", lambda: _store(request.store))
    name = f"broker {without_password(request.broker_url)}"
    yield _check(name, lambda: _broker(request))
    yield _check("workers", lambda: _workers(_engine(request)))
    if request.backbone:
        yield _check(f"backbone {request.backbone}", lambda: _backbone(request, reporter))


def _check(name: str, look: Callable[[], str]) -> Check:
    try:
        return Check(name, look())
    except RetrainError as error:
        return Check(name, str(error), error.exit_code)


def _versions() -> str:
    found = [f"Python {platform.python_version()}"]
    packages = ("retrain", "celery", "redis", "boto3", "pyarrow", "pillow")
    found += [f"{package} {version(package)}" for package in packages]
    if find_spec("tensorflow"):
        found.append(f"tensorflow {version('tensorflow')}")
    return ", ".join(found)


def _store(url: str) -> str:
    store = open_store(url, _PATIENCE_S)
    key, data = f"doctor/{uuid4().hex}", uuid4().bytes
    store.write(key, data)
    try:
        if store.read(key) != data:
            raise StoreDenied(f"{store.url} gives back other bytes than were written")
        if key not in [each.key for each in store.objects("doctor/")]:
            raise StoreDenied(f"{store.url} does not list an object that was just written")
    finally:
        store.delete(key)
    return "written, read back, listed and deleted"


def _broker(request: DoctorRequest) -> str:
    engine = _engine(request)
    return "in this process" if engine.is_embedded else "answers"


def _workers(engine: Engine) -> str:
    if engine.is_embedded:
        gpus = len(list(Path("/dev").glob("nvidia[0-9]*")))
        return f"one, in this process ({gpus} GPU)"
    workers = engine.beats.workers()
    if workers is None:
        return "this broker does not tell who listens: see the workers' logs"
    if not workers:
        raise NoWorker("none is listening: start one with retrain worker --broker ...")
    listed = [
        f"{each.name} ({', '.join(each.queues)}; {each.gpus} GPU; "
        f"TensorFlow {each.versions.get('tensorflow', 'none')})"
        for each in workers
    ]
    return "; ".join(listed)


def _backbone(request: DoctorRequest, reporter: Reporter) -> str:
    store: Store = open_store(request.store, _PATIENCE_S)
    record = RunRecord(store, "doctor", {})
    pipeline = Pipeline.open(store, request.broker_url, reporter, record)
    found = pipeline.describe(request.backbone or "", request.image_size_px).description
    return f"{found['width']} x {found['height']} px to {found['feature_size']} features"


def _engine(request: DoctorRequest) -> Engine:
    store = open_store(request.store, _PATIENCE_S)
    if request.broker_url == MEMORY_BROKER and (missing := missing_for_worker()):
        raise NoWorker(f"no {missing} here: pip install '.[worker]' in a checkout, or name a --broker")
    return open_engine(request.broker_url, store)
