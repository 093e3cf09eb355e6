"""workers.features.inference: whatever computes, the features are those of float32."""

import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pytest

from tests.backbones import save_cancelling_backbone
from workers.contract.errors import EngineUnavailable, PrecisionLost
from workers.contract.messages import ENGINES, PRECISIONS
from workers.features import inference
from workers.features.backbone import Backbone, load
from workers.features.engines import engine, fastest_first
from workers.features.inference import MIN_COSINE, Inference, Wanted, prepare

MANY, FEW = inference.COMPILE_FROM_IMAGES, 5
"""Images that are worth compiling for, and ones that are not."""


@pytest.fixture(autouse=True)
def _nothing_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inference, "_ready", {})
    monkeypatch.setattr(inference, "_asked_images", Counter())


@pytest.fixture(scope="module")
def backbone(small_backbone: Path) -> Backbone:
    return load(str(small_backbone), None)


@pytest.fixture(scope="module")
def fragile(tmp_path_factory: pytest.TempPathFactory) -> Backbone:
    """A backbone that bfloat16 ruins."""
    return load(str(save_cancelling_backbone(tmp_path_factory.mktemp("backbones") / "fragile")), None)


def pictures(count: int, side_px: int, seed: int) -> npt.NDArray[np.uint8]:
    """Noise on grounds of all colours."""
    rng = np.random.default_rng(seed)
    ground = rng.integers(20, 236, (count, 1, 1, 3))
    return (ground + rng.normal(0, 20, (count, side_px, side_px, 3))).clip(0, 255).astype(np.uint8)


def cosines(one: npt.NDArray[np.float32], other: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    products = (one * other).sum(axis=1)
    lengths = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
    return np.asarray(products / lengths, np.float32)


def skip_without(name: str, precision: str) -> None:
    has = engine(name).precisions()
    if precision not in has:
        pytest.skip(f"this machine computes in {', '.join(has)} with {name}, not in {precision}")


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("name", ENGINES)
def test_every_engine_and_precision_gives_the_features_of_float32(
    backbone: Backbone, name: str, precision: str
) -> None:
    # Given the backbone made ready
    skip_without(name, precision)
    made = prepare(backbone, Wanted(name, precision, batch_size=9), MANY)
    assert (made.engine, made.precision, made.batch_size) == (name, precision, 9)

    # When two threads ask for batches of several sizes, full and not
    batches = [pictures(size, 64, seed) for seed, size in enumerate((1, 3, 5, 9, 5, 3, 1, 9))]
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(made.features, batches))

    # Then every row has the feature of its own picture
    for batch, features in zip(batches, found, strict=True):
        assert features.dtype == np.float32
        assert features.shape == (len(batch), backbone.feature_size)
        assert cosines(features, backbone.features(batch)).min() >= MIN_COSINE


@pytest.mark.parametrize("name", ENGINES)
def test_a_backbone_that_a_precision_ruins_is_refused_with_the_remedy(
    fragile: Backbone, name: str
) -> None:
    skip_without(name, "bfloat16")
    with pytest.raises(PrecisionLost, match=rf"bfloat16 with {name}.*use --precision float32"):
        prepare(fragile, Wanted(name, "bfloat16", 8), MANY)


def test_auto_refuses_it_too_where_it_is_the_fastest(
    fragile: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And never changes the precision by itself."""
    skip_without("tensorflow", "bfloat16")
    for each in ("tensorflow", "openvino"):
        monkeypatch.setattr(type(engine(each)), "precisions", lambda self: ["bfloat16", "float32"])
    with pytest.raises(PrecisionLost, match="use --precision float32"):
        prepare(fragile, Wanted(), MANY)


@pytest.mark.parametrize("name", ENGINES)
def test_a_backbone_that_bfloat16_ruins_works_in_float32(fragile: Backbone, name: str) -> None:
    made = prepare(fragile, Wanted(name, "float32", 4), MANY)
    images = pictures(4, 64, 0)
    assert cosines(made.features(images), fragile.features(images)).min() >= MIN_COSINE


def test_the_fastest_precision_is_the_one_whose_products_take_the_least_time() -> None:
    # Given one that is slow only once, as it sets up, one that is always slow, and a fast one
    setup = iter([0.2])
    products: dict[str, Callable[[], object]] = {
        "slow": lambda: time.sleep(0.03),
        "slow at first": lambda: time.sleep(next(setup, 0.015)),
        "fast": lambda: None,
    }
    assert fastest_first(products) == ["fast", "slow at first", "slow"]


@pytest.mark.parametrize("name", ENGINES)
def test_precisions_are_known_ones_and_float32_is_among_them(name: str) -> None:
    has = engine(name).precisions()
    assert "float32" in has
    assert set(has) <= set(PRECISIONS)
    assert len(set(has)) == len(has)
    assert engine(name).precisions() == has


def test_features_that_are_no_numbers_are_lost_precision(backbone: Backbone) -> None:
    """No comparison with NaN may let it pass."""
    broken = np.full((8, backbone.feature_size), np.nan, np.float32)
    made = Inference(backbone, lambda images: broken[: len(images)], "tensorflow", "bfloat16", 8)
    with pytest.raises(PrecisionLost):
        inference.check_parity(backbone, made)


@pytest.mark.parametrize("name", ENGINES)
def test_a_precision_that_the_hardware_lacks_is_another_workers_work(
    backbone: Backbone, name: str
) -> None:
    has = engine(name).precisions()
    lacks = next((each for each in PRECISIONS if each not in has), None)
    if lacks is None:
        pytest.skip(f"this machine computes in all of {', '.join(has)}")
    with pytest.raises(EngineUnavailable, match=rf"{lacks} with {name}: .*use --precision auto"):
        prepare(backbone, Wanted(name, lacks), FEW)


def test_openvino_that_is_not_installed_is_said_with_the_remedy(
    backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(EngineUnavailable, match=r"pip install 'retrain\[openvino\]'"):
        prepare(backbone, Wanted("openvino"), MANY)

    # And whoever did not ask for it does without
    assert prepare(backbone, Wanted(batch_size=4), MANY).engine == "tensorflow"


def test_few_images_compile_nothing_until_many_did(
    backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a shard of few images: the backbone as it was loaded
    with monkeypatch.context() as patch:
        patch.setattr("workers.features.engines.tensorflow.TensorFlow.compile", None)
        patch.setattr("workers.features.engines.openvino.OpenVino.compile", None)
        first = prepare(backbone, Wanted(), FEW)
        assert (first.engine, first.precision) == ("tensorflow", "float32")
        assert prepare(backbone, Wanted(), FEW) is first
        images = pictures(3, 64, 0)
        np.testing.assert_allclose(first.features(images), backbone.features(images), rtol=1e-4)

    # When all that were asked for are many, it is compiled; and then the small ones use that
    compiled = prepare(backbone, Wanted(), MANY - 2 * FEW)
    assert compiled is not first
    assert prepare(backbone, Wanted(), FEW) is compiled
    assert prepare(backbone, Wanted(), MANY) is compiled


def test_what_is_asked_for_is_compiled_for_one_image(backbone: Backbone) -> None:
    asked = prepare(backbone, Wanted("tensorflow", "float32", 2), 1)
    assert prepare(backbone, Wanted("tensorflow", "float32", 2), MANY) is asked
    assert prepare(backbone, Wanted("tensorflow", "float32", 3), 1) is not asked


def test_auto_finds_a_batch_size(backbone: Backbone) -> None:
    made = prepare(backbone, Wanted("tensorflow"), MANY)
    assert 8 <= made.batch_size <= 256
    assert made.precision == engine("tensorflow").precisions()[0]


_OUT_OF_MEMORY = """
import json, sys

from pathlib import Path
import numpy as np
from tests.backbones import save_bulky_backbone
from workers.contract.errors import EngineUnavailable
from workers.features.backbone import load
from workers.features.inference import Wanted, prepare

folder = Path(sys.argv[1])
bulky, giant = (
    load(str(save_bulky_backbone(folder / str(most), most)), None) for most in (5, 0)
)
images = np.random.default_rng(0).integers(0, 256, (16, 32, 32, 3), np.uint8)
said = {}
for kind, wanted in (("as loaded", Wanted()), ("compiled", Wanted("tensorflow", "float32", 16))):
    made = prepare(bulky, wanted, 5)
    asked = made.batch_size
    found = made.features(images)
    np.testing.assert_allclose(found, images.mean(axis=(1, 2)) / 255, rtol=1e-4)
    np.testing.assert_allclose(made.features(images[4:8]), found[4:8], rtol=1e-6)
    try:
        prepare(giant, wanted, 5).features(images)
        error = ""
    except EngineUnavailable as unavailable:
        error = str(unavailable)
    said[kind] = {"asked": asked, "after": made.batch_size, "error": error}
print(json.dumps(said))
"""


class OutOfMemory(NamedTuple):
    said: dict[str, dict[str, Any]]
    log: str


@pytest.fixture(scope="module")
def out_of_memory(tmp_path_factory: pytest.TempPathFactory) -> OutOfMemory:
    """A process where TensorFlow finds no memory for more than five images: what became of 16."""
    done = subprocess.run(
        [sys.executable, "-c", _OUT_OF_MEMORY, str(tmp_path_factory.mktemp("bulky"))],
        cwd=Path(__file__).parents[3],
        # the allocator of oneDNN tries for 10 s before it gives up
        env=os.environ | {"TF_ENABLE_ONEDNN_OPTS": "0"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    return OutOfMemory(json.loads(done.stdout), done.stderr)


@pytest.mark.parametrize(("kind", "asked"), [("as loaded", 32), ("compiled", 16)])
def test_a_batch_that_takes_too_much_memory_is_halved_for_good(
    out_of_memory: OutOfMemory, kind: str, asked: int
) -> None:
    said = out_of_memory.said[kind]
    assert said["after"] == 4
    assert said["asked"] in (asked, 4)  # the check before the first shard may have found it out
    assert "a batch of 8 takes too much memory: 4 from now on" in out_of_memory.log


@pytest.mark.parametrize("kind", ["as loaded", "compiled"])
def test_one_image_that_takes_too_much_memory_is_another_workers_work(
    out_of_memory: OutOfMemory, kind: str
) -> None:
    error = out_of_memory.said[kind]["error"]
    assert error.startswith("one image takes too much memory: ")
    assert "\n" not in error


def test_openvino_tells_nobody_of_its_use(small_backbone: Path, tmp_path: Path) -> None:
    """Its converter's telemetry leaves a client ID in the home folder before it sends anything."""
    script = (
        "from workers.features.backbone import load\n"
        "from workers.features.inference import Wanted, prepare\n"
        f"prepare(load({str(small_backbone)!r}, None), Wanted('openvino'), 1)\n"
        "import sys; print('openvino' in sys.modules)"
    )
    environment = {name: value for name, value in os.environ.items() if name != "CI"}
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**environment, "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert done.stdout.strip() == "True", done.stderr
    assert not list(tmp_path.rglob("*openvino*"))
