"""How both sides speak to the broker: JSON alone, no results, messages acknowledged when done."""

from celery import Celery

from workers.contract.messages import EXTRACT_QUEUE
from workers.contract.settings import MEMORY_BROKER, Settings


def configured(app: Celery, broker_url: str | None = None) -> Celery:
    """The same settings on either side; without a URL, the environment's."""
    url = broker_url or Settings.from_environment().broker_url
    app.conf.update(
        broker_url=url,
        result_backend=None,
        task_ignore_result=True,
        accept_content=["json"],
        task_serializer="json",
        result_serializer="json",
        event_serializer="json",
        task_default_queue=EXTRACT_QUEUE,
        task_acks_late=True,
        worker_prefetch_multiplier=1,
        worker_hijack_root_logger=False,
        worker_redirect_stdouts=False,
        broker_connection_retry_on_startup=True,
    )
    if url == MEMORY_BROKER:
        # the transport looks for new messages once a second unless told otherwise
        app.conf.broker_transport_options = {"polling_interval": 0.02}
    return app
