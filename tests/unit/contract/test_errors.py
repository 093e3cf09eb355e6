"""workers.contract.errors: an error that crosses a process is the same error there."""

import json

import pytest

from workers.contract import errors
from workers.contract.errors import (
    ExitCode,
    Permanent,
    RetrainError,
    Retryable,
    StoreUnavailable,
    TaskFailed,
    from_record,
    to_record,
)

KINDS = [
    kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, RetrainError)
]


def across(error: BaseException) -> RetrainError:
    return from_record(json.loads(json.dumps(to_record(error))))


@pytest.mark.parametrize("kind", KINDS)
def test_every_error_survives_its_record(kind: type[RetrainError]) -> None:
    # Given an error as it is raised in a worker
    error = kind("the bucket rosé does not answer: check AWS_ENDPOINT_URL_S3")

    # Then the other side has one of the same type, words and exit code
    back = across(error)
    assert type(back) is kind
    assert str(back) == str(error)
    assert back.exit_code == error.exit_code


def test_an_error_defined_elsewhere_in_the_tree_survives_too() -> None:
    class StoreAsleep(StoreUnavailable):
        """For this test."""

    assert type(across(StoreAsleep("wake it"))) is StoreAsleep


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (ValueError("bad shape"), "ValueError: bad shape"),
        (ValueError("bad shape\nand a long\nstory"), "ValueError: bad shape"),
        (ValueError(), "ValueError: "),
        (ValueError("\n\n"), "ValueError: "),
        (KeyError("feature"), "KeyError: 'feature'"),
        (MemoryError(), "MemoryError: "),
    ],
)
def test_an_error_that_is_not_ours_is_a_failed_task_in_one_line(
    error: BaseException, message: str
) -> None:
    back = across(error)
    assert type(back) is TaskFailed
    assert str(back) == message


def test_a_record_of_an_unknown_type_is_a_failed_task() -> None:
    back = from_record({"type": "FromTheFuture", "message": "words"})
    assert type(back) is TaskFailed
    assert str(back) == "words"


@pytest.mark.parametrize("kind", KINDS)
def test_an_error_is_retryable_or_permanent_and_says_what_it_is(kind: type[RetrainError]) -> None:
    assert kind.__doc__
    if kind is not RetrainError:
        assert issubclass(kind, Retryable) != issubclass(kind, Permanent)


@pytest.mark.parametrize("kind", KINDS)
def test_no_error_ends_a_command_with_success(kind: type[RetrainError]) -> None:
    assert kind.exit_code in ExitCode
    assert kind.exit_code != ExitCode.OK


def test_the_exit_codes_scripts_rely_on() -> None:
    assert {code.name: code.value for code in ExitCode} == {
        "OK": 0,
        "FAILED": 1,
        "USAGE": 2,
        "BAD_INPUT": 3,
        "BACKBONE": 4,
        "STORE": 5,
        "FLEET": 6,
        "INTERRUPTED": 130,
    }
