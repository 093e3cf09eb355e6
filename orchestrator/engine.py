"""Who does the work: workers behind a broker, or one in this process."""

from dataclasses import dataclass
from functools import cache
from pkgutil import resolve_name
from typing import Any

from celery import Celery
from kombu.exceptions import OperationalError

from workers.contract.beats import Beats
from workers.contract.broker import beats_of, configured, without_password
from workers.contract.errors import BrokerUnavailable, NoBroker, NoWorker
from workers.contract.messages import Message
from workers.contract.settings import MEMORY_BROKER
from workers.storage import Store
from workers.storage.beats import StoreBeats

# Named, not imported: a worker brings TensorFlow, which an orchestrator need not have.
_EMBEDDED_WORKER = "workers.embedded:EmbeddedWorker"


@dataclass(frozen=True)
class Engine:
    """Sends tasks by name, and knows where their beats are."""

    app: Any
    beats: Beats
    worker: Any = None
    """The worker in this process, if that is where the work is done."""

    @property
    def is_embedded(self) -> bool:
        return self.worker is not None

    def check(self) -> None:
        """Raises NoWorker where the worker in this process has ended."""
        if self.worker is not None and not self.worker.is_alive():
            raise NoWorker("the worker in this process has ended: see the log")

    def send(self, message: Message) -> None:
        """Raises BrokerUnavailable where the broker does not take it."""
        try:
            self.app.send_task(message.task, args=[message.to_json()], queue=message.queue, retry=False)
        except (OperationalError, OSError) as error:
            raise BrokerUnavailable(f"the broker does not answer ({error})") from error

    def waiting(self, queue: str) -> int:
        """Messages that no worker has taken. Raises BrokerUnavailable."""
        connection = self.app.connection_for_write()
        try:
            declared = connection.default_channel.queue_declare(queue, passive=True)
            return int(declared.message_count)
        except connection.channel_errors:  # no worker has ever listened to it
            return 0
        except (*connection.connection_errors, OperationalError) as error:
            raise BrokerUnavailable(f"the broker does not answer ({error})") from error
        finally:
            connection.release()


@cache
def _embedded() -> Any:
    return resolve_name(_EMBEDDED_WORKER)()


def open_engine(broker_url: str, store: Store) -> Engine:
    """Raises NoWorker without a broker and without TensorFlow, BadSetting, or NoBroker."""
    app = configured(Celery("retrain-orchestrator", set_as_current=False), broker_url)
    beats = beats_of(broker_url) or StoreBeats(store)
    if broker_url == MEMORY_BROKER:
        return Engine(app, beats, _embedded())
    _check_connection(app, broker_url)
    return Engine(app, beats)


def _check_connection(app: Any, broker_url: str) -> None:
    try:
        with app.connection_for_write() as connection:
            connection.ensure_connection(max_retries=1, timeout=10)
    except (OperationalError, OSError) as error:
        raise NoBroker(
            f"no broker at {without_password(broker_url)} ({error}): start one, or leave out "
            "--broker to work in this process"
        ) from error
