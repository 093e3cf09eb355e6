"""`retrain status`."""

import click

from orchestrator.cli.common import console, finishes, json_option, print_json, store_option
from orchestrator.records import read_run, read_runs
from orchestrator.report import status_table
from workers.storage import open_store


@click.command("status")
@click.argument("run_id", required=False, metavar="[RUN]")
@store_option
@json_option
@finishes
def status_command(run_id: str | None, store: str, as_json: bool) -> None:
    """Show the runs of a store, or one run: what it was asked and how far it is.

    \b
    retrain status
    retrain status flowers-3f9a2c1b04de --store s3://features/flowers --json
    """
    place = open_store(store)
    runs = [read_run(place, run_id)] if run_id else read_runs(place)
    if as_json:
        print_json(runs[0] if run_id else {"runs": runs})
    else:
        console().print(status_table(runs))
