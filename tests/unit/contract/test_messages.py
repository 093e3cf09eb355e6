"""workers.contract.messages: a task hears what was said, or that it cannot."""

import json
from dataclasses import replace
from typing import Any

import pytest

from workers.contract import layout
from workers.contract.errors import BadMessage
from workers.contract.messages import (
    MESSAGES,
    QUEUES,
    DescribeBackbone,
    EvaluateModel,
    ExtractShard,
    LabelImages,
    Message,
    ScoreShard,
    TrainHead,
)

EXTRACT = ExtractShard("s3://b/store", "run-1", "plan", "shard", "inception_v3", 299, "print", 32)
TRAIN = TrainHead(
    "s3://b/store",
    "run-1",
    "plan",
    7,
    "model-1",
    "manifest",
    "inception_v3",
    None,
    "print",
    ["daisy", "rosé"],
    {"learning_rate": 0.01, "steps": 4000},
)
EXAMPLES: list[Message] = [
    DescribeBackbone("/store", "run-1", "a1", "keras:InceptionV3", None),
    EXTRACT,
    replace(EXTRACT, image_size_px=None, batch_size=None),
    TRAIN,
    replace(TRAIN, labels=[], training={}),
    ScoreShard("/store", "run-1", "job", "plan", "shard", "print", "model-1", 5),
    EvaluateModel("/store", "run-1", "plan", 7, "print", "model-1", "test"),
    EvaluateModel("/store", "run-1", "plan", 7, "print", "model-1", None),
    LabelImages("/store", "run-1", "a2", "model-1", "x", 224, "print", ["/a.jpg", "s3://b/c"], 3),
]


def named(message: Message) -> str:
    return type(message).__name__


def changed(message: Message, **fields: Any) -> dict[str, Any]:
    return message.to_json() | fields


def test_every_message_has_an_example() -> None:
    assert {type(example) for example in EXAMPLES} == set(MESSAGES)


@pytest.mark.parametrize("message", EXAMPLES, ids=named)
def test_a_message_survives_the_wire(message: Message) -> None:
    heard = json.loads(json.dumps(message.to_json()))
    assert type(message).from_json(heard) == message


@pytest.mark.parametrize("message", EXAMPLES, ids=named)
def test_a_message_with_an_unknown_field_is_refused(message: Message) -> None:
    with pytest.raises(BadMessage, match=rf"{named(message)}: unknown fields \['colour'\]"):
        type(message).from_json(changed(message, colour="red"))


@pytest.mark.parametrize("message", EXAMPLES, ids=named)
def test_a_message_without_a_field_is_refused(message: Message) -> None:
    for field in ("store", "run_id"):
        value = message.to_json()
        del value[field]
        with pytest.raises(BadMessage, match=field):
            type(message).from_json(value)


def test_a_field_with_a_default_may_be_left_out() -> None:
    value = EXTRACT.to_json()
    del value["batch_size"]
    assert ExtractShard.from_json(value) == replace(EXTRACT, batch_size=None)


@pytest.mark.parametrize("value", [None, [], "ExtractShard", 3, [EXTRACT.to_json()]], ids=repr)
def test_what_is_no_object_is_refused(value: Any) -> None:
    with pytest.raises(BadMessage, match="ExtractShard: not an object"):
        ExtractShard.from_json(value)


@pytest.mark.parametrize(
    ("message", "field", "value"),
    [
        (EXTRACT, "store", 3),
        (EXTRACT, "store", None),
        (EXTRACT, "shard", ["shard"]),
        (EXTRACT, "image_size_px", "299"),
        (EXTRACT, "image_size_px", 299.5),
        (EXTRACT, "image_size_px", True),
        (EXTRACT, "batch_size", [32]),
        (TRAIN, "shards", None),
        (TRAIN, "shards", False),
        (TRAIN, "shards", 7.0),
        (TRAIN, "labels", "daisy"),
        (TRAIN, "labels", None),
        (TRAIN, "labels", [1, 2]),
        (TRAIN, "labels", ["daisy", None]),
        (TRAIN, "training", []),
        (TRAIN, "training", None),
    ],
    ids=lambda value: named(value) if isinstance(value, Message) else repr(value),
)
def test_a_field_of_another_type_is_refused_by_name(message: Message, field: str, value: Any) -> None:
    with pytest.raises(BadMessage, match=rf"{named(message)}\.{field}"):
        type(message).from_json(changed(message, **{field: value}))


@pytest.mark.parametrize("kind", MESSAGES, ids=lambda kind: kind.__name__)
def test_a_task_has_a_name_and_a_queue(kind: type[Message]) -> None:
    assert kind.task.startswith("retrain.")
    assert kind.queue in QUEUES


def test_no_two_tasks_share_a_name() -> None:
    assert len({kind.task for kind in MESSAGES}) == len(MESSAGES)


def test_the_messages_of_a_run_have_names_of_their_own() -> None:
    examples = {example.name_in_run(): example for example in EXAMPLES}
    kept = [EXTRACT, TRAIN]  # given twice above, differing in what does not name a task
    assert len(examples) == len(EXAMPLES) - len(kept)


@pytest.mark.parametrize(
    ("message", "key"),
    [
        (EXTRACT, layout.features("print", "shard")),
        (TRAIN, layout.model("model-1", "model.json")),
        (EXAMPLES[0], "runs/run-1/replies/backbone-a1.json"),
        (EXAMPLES[5], layout.predictions("job", "shard")),
        (EXAMPLES[6], "runs/run-1/replies/evaluate-plan-test.json"),
        (EXAMPLES[7], "runs/run-1/replies/evaluate-plan-all.json"),
        (EXAMPLES[8], "runs/run-1/replies/label-a2.json"),
    ],
)
def test_the_object_that_says_a_task_is_done(message: Message, key: str) -> None:
    assert message.result_key() == key


def test_a_failure_and_a_beat_belong_to_the_run() -> None:
    assert EXTRACT.failure_key() == "runs/run-1/failed-tasks/extract-shard.json"
    assert EXTRACT.beat_name() == "run-1/extract-shard"
