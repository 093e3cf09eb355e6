"""orchestrator.planning: which shards a run reads, and which it has made."""

import random
from collections.abc import Sequence

import pyarrow as pa
import pytest

from orchestrator.planning import KNOWN, Plan, PlannedShard, plan
from workers.contract import schemas
from workers.contract.layout import shard_id


def manifest(versions: str, label: str = "rose", prefix: str = "/images/") -> pa.Table:
    """One image for each letter, which is its version; a letter again is a copy."""
    rows = [
        {
            "uri": f"{prefix}{number:04d}-{version}.jpg",
            "version": version,
            "size": 10,
            "label": label,
            "split": "train",
        }
        for number, version in enumerate(versions)
    ]
    return pa.Table.from_pylist(rows, schema=schemas.MANIFEST)


def known(*shards: tuple[str, str], failed: dict[str, str] | None = None) -> pa.Table:
    """What a store knows, from (shard's name, its versions) and the status of those that failed."""
    rows = [
        {"version": version, "status": (failed or {}).get(version, "ok"), "shard": name, "row": row}
        for name, versions in shards
        for row, version in enumerate(versions)
    ]
    return pa.Table.from_pylist(rows, schema=KNOWN)


NOTHING = known()


def versions_of(shard: PlannedShard) -> str:
    return "".join(shard.rows.column("version").to_pylist())


def new(planned: Plan) -> list[str]:
    return sorted(versions_of(shard) for shard in planned.new_shards)


def reused(planned: Plan) -> dict[str, str]:
    return {shard.id: versions_of(shard) for shard in planned.shards if not shard.is_new}


def contents(planned: Plan) -> dict[str, str]:
    """The versions of each new shard, in the order of its rows."""
    return {
        shard.id: "".join(dict.fromkeys(versions_of(shard))) for shard in planned.shards if shard.is_new
    }


def assert_every_row_once(planned: Plan, images: pa.Table) -> None:
    tables = [shard.rows.select(schemas.MANIFEST.names) for shard in planned.shards]
    assert pa.concat_tables(tables).sort_by("uri").equals(images.sort_by("uri").cast(schemas.MANIFEST))


def assert_rows_point_at_their_version(planned: Plan, stored: dict[str, str]) -> None:
    """`row` of every image is where its version lies in the shard's object."""
    for shard in planned.shards:
        for row in shard.rows.to_pylist():
            assert stored[shard.id][row["row"]] == row["version"]


@pytest.mark.parametrize(
    ("stored", "new_shards", "reused_shards"),
    [
        ([], ["abcd", "efgh", "ij"], {}),
        ([("x", "abcdefghij")], [], {"x": "abcdefghij"}),
        ([("x", "abcd"), ("y", "efghij")], [], {"x": "abcd", "y": "efghij"}),
        ([("x", "bd")], ["acef", "ghij"], {"x": "bd"}),
        ([("x", "jihg")], ["abcd", "ef"], {"x": "jihg"}),
        ([("x", "zzb"), ("y", "pq")], ["acde", "fghi", "j"], {"x": "b"}),
        ([("x", "pqr")], ["abcd", "efgh", "ij"], {}),
    ],
    ids=[
        "nothing known",
        "all known",
        "all known in two shards",
        "some known",
        "some known, backwards",
        "one known among others",
        "only others known",
    ],
)
def test_what_the_store_has_is_reused_and_the_rest_is_cut_into_shards(
    stored: list[tuple[str, str]], new_shards: list[str], reused_shards: dict[str, str]
) -> None:
    # Given ten images, and what the store knows
    images = manifest("abcdefghij")

    # When shards of four are planned
    planned = plan(images, known(*stored), 4, [name for name, _ in stored])

    # Then
    assert new(planned) == new_shards
    assert {name: sorted(found) for name, found in reused(planned).items()} == {
        name: sorted(found) for name, found in reused_shards.items()
    }
    assert_every_row_once(planned, images)
    assert_rows_point_at_their_version(planned, dict(stored) | contents(planned))


def test_the_shards_are_in_the_order_of_their_names_and_their_rows_in_order() -> None:
    planned = plan(manifest("abcdefghij"), known(("x", "jeb")), 3, ["x"])
    names = [shard.id for shard in planned.shards]
    assert names == sorted(set(names))
    for shard in planned.shards:
        assert shard.rows.schema == schemas.SHARD_ROWS
        assert shard.rows.column("row").to_pylist() == sorted(shard.rows.column("row").to_pylist())


def test_a_new_shard_is_named_after_its_versions_in_manifest_order() -> None:
    planned = plan(manifest("cab"), NOTHING, 2)
    assert contents(planned) == {shard_id("ca"): "ca", shard_id("b"): "b"}


@pytest.mark.parametrize("shard_size", [1, 2, 3, 7, 100])
def test_no_new_shard_has_more_images_than_asked_for(shard_size: int) -> None:
    planned = plan(manifest("abcdefg"), NOTHING, shard_size)
    sizes = sorted(shard.rows.num_rows for shard in planned.shards)
    assert sum(sizes) == 7
    assert max(sizes) <= shard_size
    assert len(sizes) == -(-7 // shard_size)


@pytest.mark.parametrize(("stored", "extracted"), [([], 5), ([("x", "a")], 2), ([("x", "abc")], 0)])
def test_copies_of_one_image_share_one_feature(stored: list[tuple[str, str]], extracted: int) -> None:
    # Given one image at three addresses among others
    images = manifest("abaca")

    # Then each address has its row, and all point at one feature
    planned = plan(images, known(*stored), 4, [name for name, _ in stored])
    assert planned.extracted == extracted
    assert_every_row_once(planned, images)
    assert_rows_point_at_their_version(planned, dict(stored) | contents(planned))
    copies = {
        (shard.id, row["row"])
        for shard in planned.shards
        for row in shard.rows.to_pylist()
        if row["version"] == "a"
    }
    assert len(copies) == 1


def test_copies_count_once_for_the_size_of_a_shard() -> None:
    assert new(plan(manifest("aaaaab"), NOTHING, 2)) == ["aaaaab"]


@pytest.mark.parametrize(
    "images",
    [
        manifest("abcdef", prefix="s3://bucket/moved/"),
        manifest("abcdef", label="tulip"),
        manifest("fedcba"),
    ],
    ids=["renamed", "relabelled", "in another order"],
)
def test_moving_or_relabelling_images_costs_no_extraction(images: pa.Table) -> None:
    stored = {"x": "abc", "y": "def"}
    planned = plan(images, known(*stored.items()), 4, stored)
    assert planned.extracted == 0
    assert_every_row_once(planned, images)
    assert_rows_point_at_their_version(planned, stored)


def test_a_new_category_costs_the_extraction_of_its_images_alone() -> None:
    both = pa.concat_tables([manifest("abc"), manifest("xy", label="tulip", prefix="/tulips/")])
    planned = plan(both, known(("x", "abc")), 4, ["x"])
    assert new(planned) == ["xy"]


@pytest.mark.parametrize("status", schemas.LASTING_FAILURES)
def test_a_failure_that_lasts_is_not_tried_again(status: str) -> None:
    planned = plan(manifest("abc"), known(("x", "abc"), failed={"b": status}), 4, ["x"])
    assert planned.new_shards == []
    assert reused(planned) == {"x": "abc"}


@pytest.mark.parametrize("status", schemas.PASSING_FAILURES)
def test_a_failure_that_may_have_passed_is_tried_again(status: str) -> None:
    planned = plan(manifest("abc"), known(("x", "abc"), failed={"b": status}), 4, ["x"])
    assert new(planned) == ["b"]
    assert reused(planned) == {"x": "ac"}


def test_a_failed_shard_that_is_tried_again_has_another_name_each_time() -> None:
    # Given a shard of one image that is missing every time
    images = manifest("a")
    stored: list[str] = []
    for attempt in range(4):
        failed = known(*((name, "a") for name in stored), failed={"a": "missing"})

        # When it is planned once more, then the name is free
        (shard,) = plan(images, failed, 4, stored).shards
        assert shard.is_new
        assert shard.id == shard_id("a", attempt)
        stored.append(shard.id)
    assert len(set(stored)) == 4


@pytest.mark.parametrize("names", [("x", "y"), ("y", "x")])
@pytest.mark.parametrize("failure", ["missing", "corrupt"])
def test_an_image_that_failed_once_and_went_well_once_is_good(
    names: tuple[str, str], failure: str
) -> None:
    bad, good = names
    both = pa.concat_tables(
        [known((bad, "ab"), failed={"a": failure, "b": failure}), known((good, "ba"))]
    )
    planned = plan(manifest("ab"), both, 4, names)
    assert reused(planned) == {good: "ba"}
    assert planned.new_shards == []


def test_of_two_shards_that_hold_one_image_the_same_is_taken_every_time() -> None:
    tables = [known(("x", "abc")), known(("y", "cba"))]
    plans = [plan(manifest("abc"), pa.concat_tables(order), 4) for order in (tables, tables[::-1])]
    assert [reused(each) for each in plans] == [{"x": "abc"}, {"x": "abc"}]


@pytest.mark.parametrize("finished", [[0], [1], [3], [0, 1], [1, 3], [0, 1, 2, 3]])
def test_a_run_that_was_killed_goes_on_with_the_shards_it_had_not_finished(
    finished: Sequence[int],
) -> None:
    # Given a first plan, of which some shards were finished
    images = manifest("abcdefghijklmn")
    first = plan(images, NOTHING, 4)
    by_manifest = sorted(first.shards, key=versions_of)
    done = {by_manifest[number].id: versions_of(by_manifest[number]) for number in finished}

    # When the same is planned again
    again = plan(images, known(*done.items()), 4, done)

    # Then the finished are reused and the others are what they were
    assert reused(again) == done
    assert contents(again) == {
        name: versions for name, versions in contents(first).items() if name not in done
    }
    assert again.id == first.id


def test_a_plan_is_named_after_its_shards() -> None:
    images = manifest("abcdef")
    assert plan(images, NOTHING, 4).id == plan(images, NOTHING, 4).id
    assert plan(images, NOTHING, 4).id != plan(images, NOTHING, 3).id
    assert plan(images, NOTHING, 4).id != plan(manifest("abcde"), NOTHING, 4).id


def test_an_empty_manifest_needs_no_shard() -> None:
    for stored in (NOTHING, known(("x", "abc"))):
        assert plan(manifest(""), stored, 4).shards == []


def test_every_row_is_in_one_shard_whatever_is_known() -> None:
    # Given many draws of images, copies and known shards with failures
    chance = random.Random(7)
    letters = "abcdefghijklmnopqrstuvwxyz"
    statuses = ["ok", "ok", "corrupt", "missing"]
    for _ in range(200):
        images = manifest("".join(chance.choices(letters, k=chance.randint(1, 40))))
        stored = {
            f"shard{number}": "".join(chance.sample(letters, chance.randint(1, 8)))
            for number in range(chance.randint(0, 4))
        }
        failed = {letter: chance.choice(statuses) for letter in letters}

        # When they are planned in shards of some size
        size = chance.randint(1, 10)
        planned = plan(images, known(*stored.items(), failed=failed), size, stored)

        # Then
        assert_every_row_once(planned, images)
        assert_rows_point_at_their_version(planned, stored | contents(planned))
        assert not {shard.id for shard in planned.new_shards} & set(stored)
