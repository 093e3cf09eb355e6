"""`retrain status`."""

import time

import click

from orchestrator.cli.common import console, finishes, json_option, print_json, store_option
from orchestrator.records import read_runs
from orchestrator.report import run_status_table, status_table
from orchestrator.status import is_over, read_status
from workers.contract.errors import BadSetting
from workers.storage import open_store

_WATCH_EVERY_S = 5.0


@click.command("status")
@click.argument("run_id", required=False, metavar="[RUN]")
@store_option
@click.option("--watch", is_flag=True, help="Show RUN again every 5 s until it is over.")
@json_option
@finishes
def status_command(run_id: str | None, store: str, watch: bool, as_json: bool) -> None:
    """Show the runs of a store, or how far one is: from any machine, during a run and after it.

    \b
    retrain status
    retrain status flowers-3f9a2c1b04de --watch --store s3://features/flowers
    """
    place = open_store(store)
    if watch and (run_id is None or as_json):
        raise BadSetting("--watch needs a RUN, and goes without --json")
    if run_id is None:
        runs = read_runs(place)
        if as_json:
            print_json({"runs": runs})
        else:
            console().print(status_table(runs))
        return
    status = read_status(place, run_id)
    while watch and not is_over(status):
        console().print(run_status_table(status))
        time.sleep(_WATCH_EVERY_S)
        status = read_status(place, run_id)
    if as_json:
        print_json(status)
    else:
        console().print(run_status_table(status))
