"""How both sides speak to the broker: JSON alone, and no results.

A message is a hint to do work. Whether a task is alive is told by its beats, and whether it is done
by the store. So Redis may forget a message as soon as a worker has it, and its visibility timeout,
which would deliver a long task again while it runs, never applies. RabbitMQ keeps it until the task
leaves its process to another, since it delivers again what a lost connection held, and hands out one at
a time that way.
"""

import re
from typing import Any
from urllib.parse import urlsplit

from celery import Celery

from workers.contract.beats import IN_PROCESS, Beats
from workers.contract.errors import BadSetting
from workers.contract.messages import EXTRACT_QUEUE
from workers.contract.redis_beats import RedisBeats
from workers.contract.settings import MEMORY_BROKER

_SCHEMES = ("redis", "rediss", "amqp", "amqps")


def _transport(scheme: str) -> dict[str, Any]:
    if scheme.startswith("redis"):
        return {
            "socket_timeout": 5,
            "socket_connect_timeout": 5,
            "socket_keepalive": True,
            "health_check_interval": 25,
        }
    # the in-memory transport looks for new messages once a second unless told otherwise
    return {"polling_interval": 0.02} if scheme == "memory" else {}


def configured(app: Celery, broker_url: str) -> Celery:
    """The settings that both sides share. Raises BadSetting for a URL of another kind."""
    scheme = check_url(broker_url)
    app.conf.update(
        broker_url=broker_url,
        broker_transport_options=_transport(scheme),
        result_backend=None,
        task_ignore_result=True,
        accept_content=["json"],
        task_serializer="json",
        result_serializer="json",
        event_serializer="json",
        task_default_queue=EXTRACT_QUEUE,
        task_acks_late=scheme.startswith("amqp"),
        worker_prefetch_multiplier=1,
        # take a message only when there is a process to run it
        worker_disable_prefetch=scheme.startswith("redis"),
        worker_cancel_long_running_tasks_on_connection_loss=False,
        worker_enable_remote_control=False,
        worker_send_task_events=True,  # for Flower
        worker_hijack_root_logger=False,
        worker_redirect_stdouts=False,
        worker_proc_alive_timeout=120,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
    )
    return app


def check_url(broker_url: str) -> str:
    """The scheme of a broker URL. Raises BadSetting."""
    try:
        scheme = urlsplit(broker_url).scheme
        _ = urlsplit(broker_url).port
    except ValueError as error:
        raise BadSetting(
            f"{without_password(broker_url)} is no URL ({error}): write special characters of a "
            "password as %2F, %23 and so on"
        ) from None
    if broker_url != MEMORY_BROKER and scheme not in _SCHEMES:
        raise BadSetting(
            f"no broker at {without_password(broker_url)}: use redis://, rediss:// or amqp://"
        )
    return scheme


def without_password(url: str) -> str:
    """A URL that may be shown: whatever stands before its last @, or behind a ?, does not."""
    return re.sub(r"\?.*", "", re.sub(r"://.*@", "://***@", url))


def beats_of(broker_url: str) -> Beats | None:
    """Where beats are, if not in the store."""
    if broker_url == MEMORY_BROKER:
        return IN_PROCESS
    if broker_url.startswith("redis"):
        return RedisBeats(broker_url)
    return None
