"""What the environment says: the one module that reads it.

AWS's own variables (AWS_ENDPOINT_URL_S3, AWS_PROFILE, ...) are read by boto3, and TFHUB_CACHE_DIR
by tensorflow_hub.
"""

import os
from dataclasses import dataclass
from pathlib import Path

MEMORY_BROKER = "memory://"


@dataclass(frozen=True)
class Settings:
    broker_url: str = MEMORY_BROKER
    """RETRAIN_BROKER_URL: memory:// runs the tasks in the command's own process."""
    cache_dir: Path = Path("~/.cache/retrain")
    """RETRAIN_CACHE_DIR: where backbones that live in a bucket are kept on disk."""
    decode_threads: int = 0
    """RETRAIN_DECODE_THREADS: threads that fetch and decode images; 0: four for each core."""

    @classmethod
    def from_environment(cls) -> "Settings":
        environment = os.environ
        return cls(
            broker_url=environment.get("RETRAIN_BROKER_URL", cls.broker_url),
            cache_dir=Path(environment.get("RETRAIN_CACHE_DIR", cls.cache_dir)).expanduser(),
            decode_threads=int(environment.get("RETRAIN_DECODE_THREADS", cls.decode_threads)),
        )

    def fetch_concurrency(self) -> int:
        return self.decode_threads or 4 * (os.cpu_count() or 1)


def quiet_tensorflow() -> bool:
    """Whether to keep TensorFlow's notes off stderr: unless TF_CPP_MIN_LOG_LEVEL asks for them."""
    return os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3") == "3"
