"""The Celery application of a worker."""

from celery import Celery

from workers.contract.broker import configured

TASK_MODULES = (
    "workers.tasks.extract",
    "workers.tasks.train",
    "workers.tasks.score",
    "workers.tasks.label",
)

app: Celery = configured(Celery("retrain", include=TASK_MODULES))
