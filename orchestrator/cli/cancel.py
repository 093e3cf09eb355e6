"""`retrain cancel`."""

import click

from orchestrator.cli.common import finishes, json_option, print_json, store_option
from orchestrator.records import read_run
from orchestrator.status import is_over
from workers.contract import layout
from workers.contract.errors import NoSuchRun
from workers.storage import open_store


@click.command("cancel")
@click.argument("run_id", metavar="RUN")
@store_option
@json_option
@finishes
def cancel_command(run_id: str, store: str, as_json: bool) -> None:
    """Ask everybody to leave a run: its orchestrator ends, workers pass over its tasks.

    What was computed is kept; the command that began the run takes it up again.

    \b
    retrain cancel flowers-3f9a2c1b04de
    """
    place = open_store(store)
    run = read_run(place, run_id)
    if is_over(run):
        raise NoSuchRun(f"{run_id} is over: it ended as {run['stage']}")
    place.write(layout.cancel_mark(run_id), b"")
    if as_json:
        print_json({"run_id": run_id, "cancelled": True})
    else:
        click.echo(f"{run_id} is being cancelled")
