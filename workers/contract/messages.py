"""What a task is told: small JSON that names things, never data and never a secret.

A message class knows the name and the queue of its task; both sides send and register by these.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, fields
from types import UnionType
from typing import Any, ClassVar, Self, get_args, get_origin, get_type_hints

from workers.contract import layout
from workers.contract.errors import BadMessage

EXTRACT_QUEUE = "extract"
TRAIN_QUEUE = "train"
SCORE_QUEUE = "score"
QUEUES = (EXTRACT_QUEUE, TRAIN_QUEUE, SCORE_QUEUE)

AUTO = "auto"
ENGINES = ("tensorflow", "xla", "openvino")
PRECISIONS = ("float32", "bfloat16", "float16")


@dataclass(frozen=True)
class Message(ABC):
    """Every task works on one store, for one run."""

    task: ClassVar[str]
    queue: ClassVar[str]

    store: str
    run_id: str

    @abstractmethod
    def name_in_run(self) -> str:
        """What tells this task from the others of its run."""

    def result_key(self) -> str:
        """The object whose presence in the store says that the task is done."""
        return layout.reply(self.run_id, self.name_in_run())

    def failure_key(self) -> str:
        """The object that says why the task failed for good."""
        return layout.task_failure(self.run_id, self.name_in_run())

    def beat_name(self) -> str:
        return f"{self.run_id}/{self.name_in_run()}"

    def is_cancelled(self, exists: Callable[[str], bool]) -> bool:
        """Whether the run was cancelled, asked of its store."""
        return exists(layout.cancel_mark(self.run_id))

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, value: Any) -> Self:
        """Raises BadMessage where a field is missing, unknown or of another type."""
        if not isinstance(value, dict):
            raise BadMessage(f"{cls.__name__}: not an object")
        hints = get_type_hints(cls)
        known = {each.name for each in fields(cls)}
        if unknown := set(value) - known:
            raise BadMessage(f"{cls.__name__}: unknown fields {sorted(unknown)}")
        for name, given in value.items():
            if not _fits(given, hints[name]):
                raise BadMessage(f"{cls.__name__}.{name}: {given!r} is not {hints[name]}")
        try:
            return cls(**value)
        except TypeError as error:
            raise BadMessage(f"{cls.__name__}: {error}") from None


def _fits(value: Any, hint: Any) -> bool:
    if get_origin(hint) is UnionType:
        return any(_fits(value, each) for each in get_args(hint))
    if get_origin(hint) is list:
        return isinstance(value, list) and all(_fits(each, get_args(hint)[0]) for each in value)
    if get_origin(hint) is dict:
        return isinstance(value, dict)
    if hint is float:
        return isinstance(value, float | int) and not isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, hint)


@dataclass(frozen=True)
class DescribeBackbone(Message):
    """Load the backbone and answer its fingerprint, input size and feature size."""

    task: ClassVar[str] = "retrain.describe_backbone"
    queue: ClassVar[str] = EXTRACT_QUEUE

    name: str
    backbone: str
    image_size_px: int | None

    def name_in_run(self) -> str:
        return f"backbone-{self.name}"


@dataclass(frozen=True)
class ExtractShard(Message):
    """Compute the features of the images in one shard."""

    task: ClassVar[str] = "retrain.extract_shard"
    queue: ClassVar[str] = EXTRACT_QUEUE

    plan: str
    shard: str
    backbone: str
    image_size_px: int | None
    fingerprint: str
    batch_size: int | None = None
    engine: str = AUTO
    """tensorflow, xla or openvino; auto: the fastest that the worker has."""
    precision: str = AUTO
    """float32, bfloat16 or float16; auto: what the worker's hardware is fastest in."""
    attempt: int = 0
    """How often a worker died of this shard."""

    def name_in_run(self) -> str:
        return f"extract-{self.shard}"

    def result_key(self) -> str:
        return layout.features(self.fingerprint, self.shard)


@dataclass(frozen=True)
class TrainHead(Message):
    """Train a head on the features of a run's labelled images, and export the model."""

    task: ClassVar[str] = "retrain.train_head"
    queue: ClassVar[str] = TRAIN_QUEUE

    plan: str
    shards: int
    model_id: str
    data_fingerprint: str
    backbone: str
    image_size_px: int | None
    fingerprint: str
    labels: list[str]
    training: dict[str, Any] = field(default_factory=dict)

    def name_in_run(self) -> str:
        return f"train-{self.model_id}"

    def result_key(self) -> str:
        return layout.model(self.model_id, "model.json")


@dataclass(frozen=True)
class ScoreShard(Message):
    """Apply a model's head to one feature shard."""

    task: ClassVar[str] = "retrain.score_shard"
    queue: ClassVar[str] = SCORE_QUEUE

    job: str
    plan: str
    shard: str
    fingerprint: str
    model_id: str
    top_k: int

    def name_in_run(self) -> str:
        return f"score-{self.shard}"

    def result_key(self) -> str:
        return layout.predictions(self.job, self.shard)


@dataclass(frozen=True)
class EvaluateModel(Message):
    """Judge a model on the labelled images of a run."""

    task: ClassVar[str] = "retrain.evaluate_model"
    queue: ClassVar[str] = TRAIN_QUEUE

    plan: str
    shards: int
    fingerprint: str
    model_id: str
    split: str | None

    def name_in_run(self) -> str:
        return f"evaluate-{self.plan}-{self.split or 'all'}"


@dataclass(frozen=True)
class LabelImages(Message):
    """Answer the best labels of a few images by their addresses."""

    task: ClassVar[str] = "retrain.label_images"
    queue: ClassVar[str] = EXTRACT_QUEUE

    name: str
    model_id: str
    backbone: str
    image_size_px: int | None
    fingerprint: str
    uris: list[str]
    top_k: int

    def name_in_run(self) -> str:
        return f"label-{self.name}"


MESSAGES: tuple[type[Message], ...] = (
    DescribeBackbone,
    ExtractShard,
    TrainHead,
    ScoreShard,
    EvaluateModel,
    LabelImages,
)
