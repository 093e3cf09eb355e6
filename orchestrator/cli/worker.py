"""`retrain worker`."""

import sys
from dataclasses import replace
from pkgutil import resolve_name

import click

from orchestrator.cli.common import finishes
from workers.contract.errors import BadSetting
from workers.contract.messages import QUEUES
from workers.contract.settings import MEMORY_BROKER, Settings

# Named, not imported: TensorFlow comes with it.
_RUN_WORKER, _CONFIGURE_LOGS = "workers.fleet:run_worker", "workers.fleet:configure_logs"


@click.command("worker")
@click.option(
    "--broker",
    metavar="URL",
    help="redis://, rediss:// or amqp://; with a password, better in RETRAIN_BROKER_URL.",
)
@click.option(
    "--queues",
    metavar="NAME,...",
    help=f"What to listen to, of {', '.join(QUEUES)}.  [default: all; RETRAIN_QUEUES]",
)
@click.option(
    "--allow",
    multiple=True,
    metavar="PREFIX",
    help="A bucket prefix or folder that tasks may read and write under; repeat for more.  "
    "[default: any; RETRAIN_ALLOW]",
)
@click.option(
    "--drain",
    "drain_s",
    type=click.FloatRange(min=0),
    metavar="SECONDS",
    help="Time to finish the task at hand when told to stop, before it is handed back.  "
    "[default: 30; RETRAIN_DRAIN_S]",
)
@finishes
def worker_command(
    broker: str | None, queues: str | None, allow: tuple[str, ...], drain_s: float | None
) -> None:
    """Run a worker of a fleet: start one for each GPU, and as many as you like without.

    SIGTERM stops it: the task at hand is finished, or handed back after --drain seconds. A second
    one stops at once. Nothing is lost either way.

    \b
    retrain worker --broker redis://redis:6379/0
    retrain worker --queues extract --allow s3://photos --allow s3://features
    """
    given = Settings.from_environment()
    settings = replace(
        given,
        broker_url=broker or given.broker_url,
        queues=tuple(name.strip() for name in queues.split(",")) if queues else given.queues,
        allow=allow or given.allow,
        drain_s=given.drain_s if drain_s is None else drain_s,
    )
    if settings.broker_url == MEMORY_BROKER:
        raise BadSetting("a worker needs a broker: --broker redis://HOST:6379/0")
    resolve_name(_CONFIGURE_LOGS)()
    sys.exit(resolve_name(_RUN_WORKER)(settings))
