"""orchestrator.cli: the options of an extraction are the same in every command that has them."""

from typing import Any

import pytest
from click.testing import CliRunner

from orchestrator.cli.main import main
from orchestrator.pipeline import ExtractionOptions

COMMANDS = ("run", "predict", "evaluate")


def asked(monkeypatch: pytest.MonkeyPatch, command: str, *options: str) -> ExtractionOptions:
    """What the command line asks of the extraction."""
    requests: list[Any] = []

    class Reached(Exception):
        pass

    def note(request: Any, reporter: Any) -> None:
        requests.append(request)
        raise Reached

    monkeypatch.setattr(f"orchestrator.cli.{command}.{command}", note)
    monkeypatch.setattr(f"orchestrator.cli.{command}.Reporter", lambda: None)
    monkeypatch.setattr("orchestrator.cli.common.os._exit", lambda code: None)
    CliRunner().invoke(main, [command, "photos", *options], prog_name="retrain")
    assert len(requests) == 1
    extraction: ExtractionOptions = requests[0].extraction
    return extraction


@pytest.mark.parametrize("command", COMMANDS)
def test_what_is_not_asked_is_left_to_the_workers(
    monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    assert asked(monkeypatch, command) == ExtractionOptions(1024, None, "auto", "auto", 0.05)


@pytest.mark.parametrize("command", COMMANDS)
def test_what_is_asked_of_an_extraction_reaches_it(
    monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    options = ("--shard-size", "7", "--batch-size", "3", "--engine", "openvino")
    more = ("--precision", "float16", "--max-failed-fraction", "0.5")
    found = asked(monkeypatch, command, *options, *more)
    assert found == ExtractionOptions(7, 3, "openvino", "float16", 0.5)


def test_the_batches_of_training_are_not_those_of_the_extraction(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert asked(monkeypatch, "run", "--train-batch-size", "9").batch_size is None


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("option", [("--engine", "onnx"), ("--precision", "int8")])
def test_an_engine_or_precision_that_there_is_not_is_refused(
    command: str, option: tuple[str, str]
) -> None:
    answer = CliRunner().invoke(main, [command, "photos", *option], prog_name="retrain")
    assert answer.exit_code == 2
    assert "'auto'" in answer.output
