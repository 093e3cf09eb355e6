"""The command explains itself, and what needs no TensorFlow works without it."""

import subprocess
import sys
from pathlib import Path

import pytest
from click import Context
from click.testing import CliRunner

from orchestrator.cli.main import main
from tests.command import Retrain
from workers.contract.errors import ExitCode

COMMANDS = sorted(main.commands)


def _help(*command: str) -> str:
    answer = CliRunner().invoke(main, [*command, "--help"], prog_name="retrain")
    assert answer.exit_code == 0
    return answer.output


def _without_tensorflow(*arguments: object) -> "subprocess.CompletedProcess[str]":
    """The command line in a Python that cannot import TensorFlow."""
    code = (
        "import sys; sys.modules['tensorflow'] = sys.modules['tensorflow_hub'] = None;"
        "from orchestrator.cli.main import main; main(prog_name='retrain')"
    )
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_every_command_is_there() -> None:
    assert {*COMMANDS} >= {"run", "predict", "evaluate", "label", "demo", "status"}


@pytest.mark.parametrize("command", [(), *((name,) for name in COMMANDS)])
def test_every_help_has_a_line_that_can_be_typed(command: tuple[str, ...]) -> None:
    example = " ".join(["retrain", *command])
    lines = [line.strip() for line in _help(*command).splitlines()]
    assert [line for line in lines if line.startswith(example)]


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_and_option_has_help_and_every_command_speaks_json(name: str) -> None:
    command = main.commands[name]
    assert command.get_short_help_str()
    options = [
        each for each in command.get_params(Context(command)) if each.param_type_name == "option"
    ]
    undescribed = [each.name for each in options if not getattr(each, "help", None)]
    assert undescribed == []
    # a worker runs until it is stopped, and has no result
    assert name == "worker" or "--json" in {flag for each in options for flag in each.opts}


def test_the_installed_command_prints_its_help_and_version(retrain: Retrain) -> None:
    printed = retrain("--help").stdout
    assert printed == retrain("-h").stdout
    assert printed.startswith("Usage: retrain [OPTIONS] COMMAND")
    assert retrain("--version").stdout.startswith("retrain, version ")


def test_importing_the_command_line_imports_no_tensorflow() -> None:
    code = (
        "import sys, orchestrator.cli.main; "
        "print([m for m in sys.modules if m.startswith(('tensorflow', 'keras', 'workers.features'))])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_help_and_status_work_without_tensorflow(tmp_path: Path) -> None:
    assert _without_tensorflow("--help").stdout.startswith("Usage: retrain [OPTIONS] COMMAND")
    status = _without_tensorflow("status", "--store", tmp_path, "--json")
    assert (status.returncode, status.stdout) == (0, '{\n  "runs": []\n}\n')


def test_a_run_without_tensorflow_says_what_to_install(tmp_path: Path) -> None:
    for label in ("a", "b"):
        (tmp_path / label).mkdir()
        (tmp_path / label / "picture.jpg").touch()
    finished = _without_tensorflow("run", tmp_path, "--store", tmp_path / "store")
    assert finished.returncode == ExitCode.FLEET
    assert "pip install '.[worker]'" in finished.stderr
    assert "Traceback" not in finished.stderr
