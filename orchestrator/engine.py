"""Who does the work: a worker in this process."""

from dataclasses import dataclass
from functools import cache
from pkgutil import resolve_name
from typing import Any

from celery import Celery

from workers.contract.beats import IN_PROCESS, Beats
from workers.contract.broker import configured
from workers.contract.messages import Message
from workers.contract.settings import MEMORY_BROKER

# Named, not imported: a worker brings TensorFlow, which an orchestrator need not have.
_EMBEDDED_WORKER = "workers.embedded:EmbeddedWorker"


@dataclass(frozen=True)
class Engine:
    """Sends tasks by name, and knows where their beats are."""

    app: Any
    beats: Beats

    def send(self, message: Message) -> None:
        self.app.send_task(message.task, args=[message.to_json()], queue=message.queue)


@cache
def open_engine() -> Engine:
    """The process's engine. Raises NoWorker."""
    resolve_name(_EMBEDDED_WORKER)()
    app = configured(Celery("retrain-orchestrator", set_as_current=False), MEMORY_BROKER)
    return Engine(app, IN_PROCESS)
