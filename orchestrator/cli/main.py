"""`retrain` and its subcommands."""

import sys
from typing import Any

import click

from orchestrator.cli.cancel import cancel_command
from orchestrator.cli.common import print_error
from orchestrator.cli.demo import demo_command
from orchestrator.cli.doctor import doctor_command
from orchestrator.cli.evaluate import evaluate_command
from orchestrator.cli.label import label_command
from orchestrator.cli.predict import predict_command
from orchestrator.cli.retry import retry_command
from orchestrator.cli.run import run_command
from orchestrator.cli.status import status_command
from orchestrator.cli.worker import worker_command
from workers.contract.errors import ExitCode


class _Main(click.Group):
    """Answers a usage error with JSON too, where JSON was asked for."""

    def main(self, *args: Any, **options: Any) -> Any:
        options["standalone_mode"] = False
        try:
            code = super().main(*args, **options)
        except click.ClickException as error:
            if "--json" in sys.argv:
                print_error("UsageError", error.format_message(), ExitCode.USAGE)
            error.show()
            sys.exit(error.exit_code)
        except click.Abort:
            sys.exit(ExitCode.INTERRUPTED)
        sys.exit(code if isinstance(code, int) else 0)


@click.group(
    cls=_Main, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100}
)
@click.version_option(package_name="retrain")
def main() -> None:
    """Teach an image classifier new categories, and run it over millions of images.

    \b
    retrain demo                        see it work, with pictures it draws
    retrain run photos/                 learn the labels of photos/LABEL/*.jpg
    retrain predict new-photos/         label every image of a folder or bucket
    retrain label rose.jpg              label one image
    """


for command in (
    run_command,
    predict_command,
    evaluate_command,
    label_command,
    demo_command,
    status_command,
    cancel_command,
    retry_command,
    doctor_command,
    worker_command,
):
    main.add_command(command)
