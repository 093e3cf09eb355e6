"""orchestrator.cli: the options of an extraction are the same in every command that has them."""

from typing import Any

import pytest
from click.testing import CliRunner, Result

from orchestrator.cli.main import main
from orchestrator.pipeline import ExtractionOptions
from workers.contract.errors import ExitCode

COMMANDS = ("run", "predict", "evaluate")


def invoked(monkeypatch: pytest.MonkeyPatch, command: str, *options: str) -> tuple[Result, list[Any]]:
    """What the command line answered, and what it asked for; nothing is done."""
    requests: list[Any] = []

    def note(request: Any, reporter: Any) -> dict[str, Any]:
        requests.append(request)
        return {}

    monkeypatch.setattr(f"orchestrator.cli.{command}.{command}", note)
    monkeypatch.setattr(f"orchestrator.cli.{command}.Reporter", lambda: None)
    arguments = [command, "photos", "--json", *options]
    return CliRunner().invoke(main, arguments, prog_name="retrain"), requests


def asked(monkeypatch: pytest.MonkeyPatch, command: str, *options: str) -> Any:
    answer, (request,) = invoked(monkeypatch, command, *options)
    assert answer.exit_code == 0, answer.output
    return request


@pytest.mark.parametrize("command", COMMANDS)
def test_what_is_not_asked_is_left_to_the_workers(
    monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    assert asked(monkeypatch, command).extraction == ExtractionOptions(1024, None, "auto", "auto", 0.05)


@pytest.mark.parametrize("command", COMMANDS)
def test_what_is_asked_of_an_extraction_reaches_it(
    monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    options = ("--shard-size", "7", "--batch-size", "3", "--engine", "openvino")
    more = ("--precision", "float16", "--max-failed-fraction", "0.5")
    found = asked(monkeypatch, command, *options, *more)
    assert found.extraction == ExtractionOptions(7, 3, "openvino", "float16", 0.5)


def test_the_batches_of_training_are_not_those_of_the_extraction(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    request = asked(monkeypatch, "run", "--train-batch-size", "9")
    assert (request.training.batch_size, request.extraction.batch_size) == (9, None)


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("option", [("--engine", "onnx"), ("--precision", "int8")])
def test_an_engine_or_precision_that_there_is_not_is_refused(
    monkeypatch: pytest.MonkeyPatch, command: str, option: tuple[str, str]
) -> None:
    answer, requests = invoked(monkeypatch, command, *option)
    assert (answer.exit_code, requests) == (ExitCode.USAGE, [])
    assert "'auto'" in answer.output
