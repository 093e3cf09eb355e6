"""The Celery application of a worker."""

from celery import Celery

from workers.contract.broker import configured
from workers.contract.settings import MEMORY_BROKER

TASK_MODULES = (
    "workers.tasks.extract",
    "workers.tasks.train",
    "workers.tasks.score",
    "workers.tasks.label",
)

# whoever starts a worker configures its broker
app: Celery = configured(Celery("retrain", include=TASK_MODULES), MEMORY_BROKER)
