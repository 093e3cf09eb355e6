"""`retrain doctor`."""

import sys

import click

from orchestrator.cli.common import (
    BACKBONE_HELP,
    broker_option,
    finishes,
    image_size_option,
    json_option,
    located_backbone,
    print_json,
    store_option,
)
from orchestrator.doctor import DoctorRequest, examine
from orchestrator.progress import Reporter


@click.command("doctor")
@store_option
@broker_option
@click.option("--backbone", metavar="NAME|HANDLE|PATH", callback=located_backbone, help=BACKBONE_HELP)
@image_size_option
@json_option
@finishes
def doctor_command(
    store: str, broker_url: str, backbone: str | None, image_size_px: int | None, as_json: bool
) -> None:
    """Check the store, the broker, the workers and the backbone: each line is ok or the remedy.

    The exit code is that of the first check that failed.

    \b
    retrain doctor
    retrain doctor --store s3://features/flowers --broker redis://redis:6379/0 --backbone inception_v3
    """
    checks = []
    for check in examine(DoctorRequest(store, broker_url, backbone, image_size_px), Reporter()):
        checks.append(check)
        if not as_json:
            click.echo(f"{'ok  ' if check.is_ok else 'FAIL'} {check.name}: {check.found}")
    if as_json:
        print_json({"checks": [{"name": c.name, "ok": c.is_ok, "found": c.found} for c in checks]})
    sys.exit(next((int(check.exit_code) for check in checks if not check.is_ok), 0))
