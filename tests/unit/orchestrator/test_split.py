"""orchestrator.split: the split of an image follows from its path alone, as in retrain.py."""

from collections import Counter

import pytest

from orchestrator.listing import SplitRule
from orchestrator.split import percentage, split_of

# Computed with retrain.py's own formula.
VECTORS = [
    ("/data/flower_photos/daisy/img_0001.jpg", 87.33504330616476, "train"),
    ("flower_photos/daisy/img_0001.jpg", 92.01532149326296, "train"),
    ("/data/flower_photos/daisy/img_0007.jpg", 4.8266210021571885, "validation"),
    ("/data/flower_photos/daisy/img_0012.jpg", 18.45563067835294, "test"),
    ("/data/flower_photos/rose/leaf7_nohash_0.jpg", 15.499425049866922, "test"),
    ("/data/flower_photos/rose/leaf7_nohash_1.jpg", 15.499425049866922, "test"),
]


@pytest.mark.parametrize(("path", "at", "split"), VECTORS)
def test_a_path_falls_where_retrain_py_puts_it(path: str, at: float, split: str) -> None:
    assert percentage(path) == at
    assert split_of(path, 10, 10) == split


@pytest.mark.parametrize(
    ("validation", "test", "split"),
    [
        (10, 10, "test"),
        (15.499, 0, "train"),
        (15.5, 0, "validation"),
        (0, 15.499, "train"),
        (0, 15.5, "test"),
        (5, 10.5, "test"),
        (0, 0, "train"),
        (100, 0, "validation"),
        (0, 100, "test"),
    ],
)
def test_the_percentages_cut_validation_first_then_test(
    validation: float, test: float, split: str
) -> None:
    # Given a path at 15.4994 percent
    path = "/data/flower_photos/rose/leaf7_nohash_0.jpg"
    assert split_of(path, validation, test) == split


@pytest.mark.parametrize(
    "name",
    ["leaf7_nohash_0.jpg", "leaf7_nohash_", "leaf7_nohash_a_nohash_b.png", "leaf7_nohash_/x.jpg"],
)
def test_pictures_of_one_thing_stay_together(name: str) -> None:
    assert percentage(f"rose/{name}") == percentage("rose/leaf7_nohash_1.jpg")


@pytest.mark.parametrize("name", ["leaf8_nohash_0.jpg", "leaf7_nohash.jpg", "leaf7.jpg", "leaf7"])
def test_pictures_of_other_things_fall_elsewhere(name: str) -> None:
    fell = percentage("rose/leaf7_nohash_0.jpg")
    assert (percentage(f"rose/{name}") == fell) is (name == "leaf7")


def test_names_in_any_script_fall_somewhere() -> None:
    assert 0 <= percentage("薔薇/rosé.jpg") <= 100


def test_many_images_are_dealt_by_the_percentages() -> None:
    counts = Counter(split_of(f"rose/{number}.jpg", 10, 20) for number in range(20_000))
    assert counts["validation"] == pytest.approx(2_000, rel=0.1)
    assert counts["test"] == pytest.approx(4_000, rel=0.1)
    assert counts["train"] == pytest.approx(14_000, rel=0.1)


@pytest.mark.parametrize(
    ("root", "hashed"),
    [
        (None, "daisy/img_0007.jpg"),
        ("/data/flower_photos", "/data/flower_photos/daisy/img_0007.jpg"),
        ("/data/flower_photos/", "/data/flower_photos/daisy/img_0007.jpg"),
        ("flower_photos", "flower_photos/daisy/img_0007.jpg"),
    ],
)
def test_a_split_root_is_put_before_the_relative_path(root: str | None, hashed: str) -> None:
    # Given every percentage, the rule deals as the whole path does
    for percent in range(0, 91, 5):
        rule = SplitRule(percent, 10, root)
        assert rule.of("daisy/img_0007.jpg") == split_of(hashed, percent, 10)


def test_with_its_old_root_a_moved_data_set_is_dealt_as_before() -> None:
    rule = SplitRule(root="/data/flower_photos")
    relative = {path: path.removeprefix("/data/flower_photos/") for path, _, _ in VECTORS}
    for path, _, split in VECTORS:
        if path.startswith("/data"):
            assert rule.of(relative[path]) == split
