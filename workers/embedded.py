"""A worker in the orchestrator's own process, for one machine without a broker."""

import logging
import threading

from workers.contract.errors import NoWorker
from workers.contract.extras import missing_for_worker
from workers.contract.messages import QUEUES
from workers.contract.settings import MEMORY_BROKER


class EmbeddedWorker:
    """A thread that consumes every queue of the in-memory broker, one task at a time."""

    def __init__(self) -> None:
        """Raises NoWorker where what it needs is not installed."""
        if missing := missing_for_worker():
            raise NoWorker(
                f"no {missing} here to run the tasks: pip install '.[worker]' in a checkout, or name a "
                "broker whose workers have it with --broker"
            )
        # it says that memory:// names no host
        logging.getLogger("kombu.connection").setLevel(logging.ERROR)
        from workers.app import app
        from workers.contract.broker import configured

        controller = configured(app, MEMORY_BROKER).WorkController(
            pool_cls="solo",
            concurrency=1,
            loglevel="WARNING",
            hostname="embedded",
            queues=list(QUEUES),
            without_heartbeat=True,
            without_mingle=True,
            without_gossip=True,
        )
        # a daemon, left to end with the process: what it writes is never half written
        self._thread = threading.Thread(target=controller.start, name="worker", daemon=True)
        self._thread.start()

    def is_alive(self) -> bool:
        return self._thread.is_alive()
