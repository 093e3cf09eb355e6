"""The one tree of errors, and the exit codes of the command line.

`Retryable` errors are tried again with back-off (a store that does not answer, a lost
connection); `Permanent` ones are reported at once. A message is one line that names what is
wrong and, where there is one, the remedy.
"""

from enum import IntEnum


class ExitCode(IntEnum):
    """Exit codes of `retrain`."""

    OK = 0
    FAILED = 1
    """The run finished or stopped without the result asked for (too many bad images, say)."""
    USAGE = 2
    """An option or argument is wrong."""
    BAD_INPUT = 3
    """The source, the manifest or the model asked for cannot be used."""
    BACKBONE = 4
    """The backbone cannot be loaded, or is not what the run began with."""
    STORE = 5
    """The store or the bucket cannot be reached, read or written."""
    FLEET = 6
    """No broker or no worker can do the work."""
    INTERRUPTED = 130
    """Stopped by the user; the same command resumes."""


class RetrainError(Exception):
    """Something this program can explain."""

    exit_code = ExitCode.FAILED


class Retryable(RetrainError):
    """Trying again later may help."""


class Permanent(RetrainError):
    """Trying again changes nothing."""


class StoreUnavailable(Retryable):
    """The store does not answer, or asks to slow down."""

    exit_code = ExitCode.STORE


class BrokerUnavailable(StoreUnavailable):
    """The broker, or the Redis with the beats, does not answer."""

    exit_code = ExitCode.FLEET


class NoLocalDisk(Retryable):
    """The folder for local copies has no room, or cannot be written; another worker's may."""


class StoreDenied(Permanent):
    """The store refuses: credentials, permissions, a bucket that is not there, a full disk."""

    exit_code = ExitCode.STORE


class ObjectMissing(Permanent):
    """There is no object of that name."""

    exit_code = ExitCode.STORE


class BadSource(Permanent):
    """The images asked for cannot be listed, or cannot be learned from."""

    exit_code = ExitCode.BAD_INPUT


class BadManifest(BadSource):
    """The manifest file cannot be used."""


class BadSetting(Permanent):
    """An environment variable or option has a value that does not fit."""

    exit_code = ExitCode.USAGE


class BadMessage(Permanent):
    """A task message does not fit the contract."""

    exit_code = ExitCode.FLEET


class NoSuchModel(Permanent):
    """There is no such model in the store."""

    exit_code = ExitCode.BAD_INPUT


class NoSuchRun(Permanent):
    """There is no such run in the store."""

    exit_code = ExitCode.BAD_INPUT


class BackboneUnavailable(Permanent):
    """The backbone cannot be fetched or loaded."""

    exit_code = ExitCode.BACKBONE


class BackboneChanged(Permanent):
    """A worker loaded other weights than the run began with."""

    exit_code = ExitCode.BACKBONE


class EngineUnavailable(Retryable):
    """This worker has no such inference engine or precision; another may."""

    exit_code = ExitCode.BACKBONE


class PrecisionLost(Retryable):
    """The compiled backbone does not give the features that it gives in float32 on this worker."""

    exit_code = ExitCode.BACKBONE


UNFIT = (EngineUnavailable, PrecisionLost)
"""What a worker finds of itself: the others may do, so none of its failures counts twice."""


class TooManyFailures(Permanent):
    """More images failed than --max-failed-fraction allows."""


class NoWorker(Permanent):
    """Nothing here can run the tasks."""

    exit_code = ExitCode.FLEET


class NoBroker(Permanent):
    """The broker does not answer, or its URL is wrong."""

    exit_code = ExitCode.FLEET


class HandedBack(Retryable):
    """The worker is shutting down: somebody else does the task."""


class RunCancelled(Permanent):
    """The run was cancelled with `retrain cancel`."""


class NotAllowed(Permanent):
    """A worker was told of a place that it is not configured for."""

    exit_code = ExitCode.STORE


class TaskFailed(Permanent):
    """A task failed for a reason this program does not know; the log has it."""


def _tree(root: type[RetrainError]) -> dict[str, type[RetrainError]]:
    found = {root.__name__: root}
    for child in root.__subclasses__():
        found |= _tree(child)
    return found


def to_record(error: BaseException) -> dict[str, str]:
    """The error as JSON, for a failure object or a beat; one of ours keeps its type."""
    if isinstance(error, RetrainError):
        return {"type": type(error).__name__, "message": str(error)}
    first_line = (str(error).strip().splitlines() or [""])[0]
    return {"type": "TaskFailed", "message": f"{type(error).__name__}: {first_line}"}


def from_record(record: dict[str, str]) -> RetrainError:
    """The error that `to_record` wrote; an unknown type becomes TaskFailed."""
    return _tree(RetrainError).get(record["type"], TaskFailed)(record["message"])
