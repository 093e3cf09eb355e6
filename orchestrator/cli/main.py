"""`retrain` and its subcommands."""

import click

from orchestrator.cli.cancel import cancel_command
from orchestrator.cli.demo import demo_command
from orchestrator.cli.doctor import doctor_command
from orchestrator.cli.evaluate import evaluate_command
from orchestrator.cli.label import label_command
from orchestrator.cli.predict import predict_command
from orchestrator.cli.retry import retry_command
from orchestrator.cli.run import run_command
from orchestrator.cli.status import status_command
from orchestrator.cli.worker import worker_command


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
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
