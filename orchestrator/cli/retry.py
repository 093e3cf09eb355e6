"""`retrain retry`."""

import click

from orchestrator.cli.common import (
    broker_option,
    console,
    finishes,
    json_option,
    print_json,
    store_option,
)
from orchestrator.progress import Reporter
from orchestrator.report import evaluate_table, predict_table, run_table
from orchestrator.retry import retry

_TABLES = {"run": run_table, "predict": predict_table, "evaluate": evaluate_table}


@click.command("retry")
@click.argument("run_id", metavar="RUN")
@store_option
@broker_option
@json_option
@finishes
def retry_command(run_id: str, store: str, broker_url: str, as_json: bool) -> None:
    """Extract a run's failed images anew, and do again what follows from them.

    Images that have a feature are not touched. Use it after mending what was wrong: permissions,
    a bucket that was half copied, a worker that ran out of memory.

    \b
    retrain retry flowers-3f9a2c1b04de
    """
    command, result = retry(run_id, store, broker_url, Reporter())
    if as_json:
        print_json(result)
    else:
        console().print(_TABLES[command](result))
