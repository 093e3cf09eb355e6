"""What the environment says: the one module that reads it.

AWS's own variables (AWS_ENDPOINT_URL_S3, AWS_PROFILE, ...) are read by boto3, and TFHUB_CACHE_DIR
by tensorflow_hub.
"""

import math
import os
from dataclasses import dataclass
from pathlib import Path

from workers.contract.errors import BadSetting

MEMORY_BROKER = "memory://"

# defaults of --broker and --store, which click reads
BROKER_VARIABLE = "RETRAIN_BROKER_URL"
STORE_VARIABLE = "RETRAIN_STORE"


@dataclass(frozen=True)
class Settings:
    broker_url: str = MEMORY_BROKER
    """RETRAIN_BROKER_URL: memory:// runs the tasks in the command's own process."""
    queues: tuple[str, ...] = ()
    """RETRAIN_QUEUES: what a worker listens to, comma separated; none: every queue."""
    allow: tuple[str, ...] = ()
    """RETRAIN_ALLOW: URL prefixes a worker may read and write under, comma separated; none: any."""
    cache_dir: Path = Path("~/.cache/retrain")
    """RETRAIN_CACHE_DIR: where backbones that live in a bucket are kept on disk, and the
    features of a training for as long as it lasts."""
    fetch_threads: int = 32
    """RETRAIN_FETCH_THREADS: images that are fetched at once."""
    decode_threads: int = 0
    """RETRAIN_DECODE_THREADS: images that are decoded at once; 0: one for each core."""
    drain_s: float = 30.0
    """RETRAIN_DRAIN_S: how long a worker told to stop may go on with its task."""
    heartbeat_file: Path | None = None
    """RETRAIN_HEARTBEAT_FILE: touched every few seconds by a worker that is ready."""
    store_patience_s: float = 300.0
    """RETRAIN_STORE_PATIENCE_S: how long a store that does not answer is asked again."""
    allow_http_models: bool = False
    """RETRAIN_ALLOW_HTTP_MODELS: fetch backbones over http:// too; they run as code."""

    @classmethod
    def from_environment(cls) -> "Settings":
        """Raises BadSetting where a value does not parse."""
        return cls(
            broker_url=_get(BROKER_VARIABLE) or cls.broker_url,
            queues=_list("RETRAIN_QUEUES"),
            allow=_list("RETRAIN_ALLOW"),
            cache_dir=Path(_get("RETRAIN_CACHE_DIR") or cls.cache_dir).expanduser(),
            fetch_threads=_count("RETRAIN_FETCH_THREADS", cls.fetch_threads, least=1),
            decode_threads=_count("RETRAIN_DECODE_THREADS", cls.decode_threads, least=0),
            drain_s=_number("RETRAIN_DRAIN_S", cls.drain_s),
            heartbeat_file=Path(_get("RETRAIN_HEARTBEAT_FILE"))
            if _get("RETRAIN_HEARTBEAT_FILE")
            else None,
            store_patience_s=_number("RETRAIN_STORE_PATIENCE_S", cls.store_patience_s),
            allow_http_models=_get("RETRAIN_ALLOW_HTTP_MODELS").lower() in ("1", "true", "yes"),
        )

    def decoders(self) -> int:
        return self.decode_threads or cores()


def aws_region() -> str | None:
    """AWS_REGION, which other SDKs read: botocore reads AWS_DEFAULT_REGION and profiles alone."""
    return _get("AWS_REGION") or None


def cores() -> int:
    """Cores that this process may use: of those it may run on, what its cgroup's quota allows."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return max(1, min(allowed, math.ceil(int(quota) / int(period))))
    except (OSError, ValueError):  # no cgroup v2, or "max"
        return allowed


def _get(name: str) -> str:
    return os.environ.get(name, "").strip()


def _list(name: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in _get(name).split(",") if part.strip())


def _number(name: str, default: float) -> float:
    text = _get(name)
    try:
        number = float(text) if text else default
        if not math.isfinite(number):
            raise ValueError
        return number
    except ValueError:
        raise BadSetting(f"{name}={text!r} is no number") from None


def _count(name: str, default: int, least: int) -> int:
    number = _number(name, default)
    if number != int(number) or number < least:
        raise BadSetting(f"{name}={_get(name)!r} is no whole number from {least} up")
    return int(number)


def quiet_tensorflow() -> bool:
    """Whether to keep TensorFlow's notes off stderr: unless TF_CPP_MIN_LOG_LEVEL asks for them."""
    return os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3") == "3"
