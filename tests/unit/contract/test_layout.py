"""workers.contract.layout: an object's name follows from its content, in every process alike."""

import hashlib

import pytest

from workers.contract import layout
from workers.contract.layout import digest, settings_digest, shard_id


def test_a_digest_is_a_prefix_of_sha_256_over_lines() -> None:
    whole = hashlib.sha256(b"rose\n\xe8\x96\x94\n").hexdigest()
    assert digest(["rose", "薔"]) == whole[:20]
    assert digest(iter(["rose", "薔"]), 64) == whole


@pytest.mark.parametrize(
    ("parts", "others"),
    [
        (["ab"], ["a", "b"]),
        (["a", "b"], ["b", "a"]),
        ([], [""]),
        (["a"], ["a", ""]),
        (["a"], ["A"]),
    ],
)
def test_other_parts_have_another_digest(parts: list[str], others: list[str]) -> None:
    assert digest(parts) != digest(others)


def test_the_order_of_settings_does_not_matter() -> None:
    settings = {"steps": 4000, "rate": 0.01, "deep": {"a": [1, None], "b": True}}
    shuffled = {"deep": {"b": True, "a": [1, None]}, "rate": 0.01, "steps": 4000}
    assert settings_digest(settings) == settings_digest(shuffled)
    assert len(settings_digest(settings)) == 12


@pytest.mark.parametrize(
    "other", [{"steps": 4001}, {"steps": "4000"}, {"steps": None}, {"step": 4000}, {}]
)
def test_other_settings_have_another_digest(other: dict[str, object]) -> None:
    assert settings_digest(other) != settings_digest({"steps": 4000})


def test_a_shards_name_is_the_same_everywhere() -> None:
    # What stores hold today: another rule would extract every image again.
    assert shard_id(["v1", "v2"]) == "105b2c8d7bdd46426f20"
    assert shard_id(["v1", "v2"], 0) == shard_id(iter(["v1", "v2"]))


def test_a_shards_name_follows_from_its_versions_their_order_and_the_attempt() -> None:
    names = [
        shard_id(["v1", "v2"]),
        shard_id(["v2", "v1"]),
        shard_id(["v1"]),
        shard_id(["v1", "v2"], 1),
        shard_id(["v1", "v2"], 2),
    ]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize(
    ("key", "path"),
    [
        (layout.LATEST_MODEL, "models/latest"),
        (layout.manifest_part("m", 0), "manifests/m/part-00000.parquet"),
        (layout.manifest_part("m", 123), "manifests/m/part-00123.parquet"),
        (layout.features_prefix("f"), "features/f/"),
        (layout.features("f", "s"), "features/f/s.parquet"),
        (layout.predictions_prefix("j"), "predictions/j/"),
        (layout.predictions("j", "s"), "predictions/j/s.parquet"),
        (layout.model("m"), "models/m/"),
        (layout.model("m", "saved_model/saved_model.pb"), "models/m/saved_model/saved_model.pb"),
        (layout.run("r", "run.json"), "runs/r/run.json"),
        (layout.run_record("r"), "runs/r/run.json"),
        (layout.plan_prefix("r", "p"), "runs/r/plans/p/"),
        (layout.shard_rows("r", "p", "s"), "runs/r/plans/p/s.parquet"),
        (layout.failed_images("r"), "runs/r/failures.csv"),
        (layout.task_failure("r", "t"), "runs/r/failed-tasks/t.json"),
        (layout.reply("r", "t"), "runs/r/replies/t.json"),
    ],
)
def test_where_an_object_lives(key: str, path: str) -> None:
    assert key == path


def test_the_shards_of_a_backbone_or_job_lie_below_its_prefix() -> None:
    assert layout.features("f", "s").startswith(layout.features_prefix("f"))
    assert layout.predictions("j", "s").startswith(layout.predictions_prefix("j"))
    assert layout.shard_rows("r", "p", "s").startswith(layout.plan_prefix("r", "p"))
