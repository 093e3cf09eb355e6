"""workers.features.inference: whatever computes, the features are those of float32."""

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pytest

from tests.backbones import save_cancelling_backbone, save_spelling_backbone
from workers.contract.errors import EngineUnavailable, PrecisionLost
from workers.contract.messages import ENGINES, PRECISIONS
from workers.features import Floats, Pixels, engines, inference
from workers.features.backbone import Backbone, load
from workers.features.engines import OutOfMemory, engine, fastest_first
from workers.features.inference import Inference, Wanted, prepare
from workers.features.parity import MIN_COSINE

MANY, FEW = inference.COMPILE_FROM_IMAGES, 5
"""Images that are worth compiling for, and ones that are not."""


@pytest.fixture(autouse=True)
def _nothing_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inference, "_ready", {})
    monkeypatch.setattr(inference, "_asked_images", Counter())


class FakeClock:
    """Time that passes only when somebody spends it."""

    def __init__(self) -> None:
        self._now = 0.0

    def perf_counter(self) -> float:
        return self._now

    def spend(self, seconds: float) -> None:
        self._now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> FakeClock:
    made = FakeClock()
    monkeypatch.setattr(engines, "time", made)
    return made


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


def test_the_fastest_precision_is_the_one_whose_products_take_the_least_time(
    clock: FakeClock,
) -> None:
    # Given one that is slow only once, as it sets up, one that is always slow, and a fast one
    setup = iter([20.0])
    products: dict[str, Callable[[], object]] = {
        "float32": lambda: clock.spend(3),
        "bfloat16": lambda: clock.spend(next(setup, 2)),
        "float16": lambda: clock.spend(1),
    }
    assert fastest_first(products) == ["float16", "bfloat16", "float32"]


def test_what_the_machine_is_busy_with_for_a_moment_does_not_decide(clock: FakeClock) -> None:
    # Given a precision that is the faster, and other work during the first round
    busy = iter([0.0, 9.0])
    products: dict[str, Callable[[], object]] = {
        "float32": lambda: clock.spend(2),
        "bfloat16": lambda: clock.spend(1 + next(busy, 0)),
    }
    assert fastest_first(products)[0] == "bfloat16"


@pytest.mark.parametrize(("bfloat16_s", "fastest"), [(0.96, "float32"), (0.8, "bfloat16")])
def test_exactness_is_given_up_for_a_clear_gain_alone(
    clock: FakeClock, bfloat16_s: float, fastest: str
) -> None:
    products = {"bfloat16": lambda: clock.spend(bfloat16_s), "float32": lambda: clock.spend(1)}
    assert fastest_first(products)[0] == fastest


@pytest.mark.parametrize("name", ENGINES)
def test_precisions_are_known_ones_and_float32_is_among_them(name: str) -> None:
    has = engine(name).precisions()
    assert "float32" in has
    assert set(has) <= set(PRECISIONS)
    assert len(set(has)) == len(has)


def timed_inference(
    backbone: Backbone,
    clock: FakeClock,
    seconds: Callable[[int], float],
    most: int = 1000,
    name: str = "tensorflow",
) -> Inference:
    """One whose batches take so long by their size, and that has no memory for more than `most`."""

    def compute(images: Pixels) -> Floats:
        if len(images) > most:
            raise OutOfMemory("too many")
        clock.spend(seconds(len(images)))
        return np.zeros((len(images), backbone.feature_size), np.float32)

    return Inference(backbone, compute, name, "float32", 8)


@pytest.mark.parametrize(
    ("seconds", "most", "size"),
    [
        pytest.param(lambda images: images, 1000, 8, id="nothing is gained"),
        pytest.param(lambda images: max(16, images), 1000, 16, id="up to 16"),
        pytest.param(lambda images: 1, 1000, 64, id="the more the better"),
        pytest.param(lambda images: 1, 16, 16, id="no memory for more than 16"),
        pytest.param(lambda images: 1, 5, 4, id="no memory for the least"),
    ],
)
def test_the_batch_size_is_the_smallest_that_is_about_as_fast_as_any(
    backbone: Backbone, clock: FakeClock, seconds: Callable[[int], float], most: int, size: int
) -> None:
    made = timed_inference(backbone, clock, seconds, most)
    made.device = "cpu"
    inference._find_batch_size(made)
    assert made.batch_size == size


@pytest.mark.parametrize(("tensorflow_s", "openvino_s"), [(1, 2), (2, 1)])
def test_of_two_engines_the_faster_is_taken(
    backbone: Backbone, clock: FakeClock, tensorflow_s: float, openvino_s: float
) -> None:
    one = timed_inference(backbone, clock, lambda images: tensorflow_s)
    other = timed_inference(backbone, clock, lambda images: openvino_s, name="openvino")
    assert inference._faster([one, other]) is (one if tensorflow_s < openvino_s else other)


@pytest.fixture(scope="module")
def spelling(tmp_path_factory: pytest.TempPathFactory) -> Backbone:
    """A backbone that only TensorFlow itself can run."""
    return load(str(save_spelling_backbone(tmp_path_factory.mktemp("backbones") / "spelling")), None)


def test_a_backbone_that_one_engine_cannot_run_is_computed_by_the_other(spelling: Backbone) -> None:
    made = prepare(spelling, Wanted(batch_size=4), MANY)
    assert made.engine == "tensorflow"
    images = pictures(4, 64, 0)
    assert cosines(made.features(images), spelling.features(images)).min() >= MIN_COSINE


@pytest.mark.parametrize(("name", "title"), [("openvino", "OpenVINO"), ("xla", "TensorFlow")])
def test_an_engine_that_cannot_run_a_backbone_says_so_in_one_line(
    spelling: Backbone, name: str, title: str
) -> None:
    with pytest.raises(EngineUnavailable, match=f"{title} cannot run this backbone") as told:
        prepare(spelling, Wanted(name, batch_size=4), MANY)
    assert "\n" not in str(told.value)


def test_a_batch_that_fails_in_openvino_spoils_none_after_it(
    backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given requests whose first wait finds no memory
    made = prepare(backbone, Wanted("openvino", "float32", 32), MANY)
    free = made._compute.__self__._free  # type: ignore[attr-defined]
    images = pictures(32, 64, 0)
    expected = backbone.features(images)
    requests = [free.get() for _ in range(free.qsize())]
    failures: list[Exception] = [MemoryError("none left")]
    for each in requests:
        free.put(_FailingRequest(each, failures))

    # When a batch meets that, then it is halved, and the next are as before
    assert cosines(made.features(images), expected).min() >= MIN_COSINE
    assert made.batch_size == 16
    assert not failures
    for _ in range(3):
        assert cosines(made.features(images), expected).min() >= MIN_COSINE


class _FailingRequest:
    """A real one of OpenVINO's, which fails while there are failures left."""

    def __init__(self, request: Any, failures: list[Exception]) -> None:
        self._request, self._failures = request, failures

    def wait(self) -> None:
        if self._failures:
            raise self._failures.pop()
        self._request.wait()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._request, name)


def test_features_that_are_no_numbers_are_lost_precision(backbone: Backbone) -> None:
    """No comparison with NaN may let it pass."""
    broken = np.full((8, backbone.feature_size), np.nan, np.float32)
    made = Inference(backbone, lambda images: broken[: len(images)], "tensorflow", "bfloat16", 8)
    with pytest.raises(PrecisionLost):
        inference.check_parity(made, np.ones_like(broken))


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
    with pytest.raises(EngineUnavailable, match=r"pip install '\.\[openvino\]'"):
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
    assert made.batch_size in inference._CPU_BATCH_SIZES + inference._GPU_BATCH_SIZES
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


class Outcome(NamedTuple):
    said: dict[str, dict[str, Any]]
    log: str


@pytest.fixture(scope="module")
def out_of_memory(tmp_path_factory: pytest.TempPathFactory) -> Outcome:
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
    return Outcome(json.loads(done.stdout), done.stderr)


@pytest.mark.parametrize(("kind", "asked"), [("as loaded", 32), ("compiled", 16)])
def test_a_batch_that_takes_too_much_memory_is_halved_for_good(
    out_of_memory: Outcome, kind: str, asked: int
) -> None:
    said = out_of_memory.said[kind]
    assert said["after"] == 4
    assert said["asked"] in (asked, 4)  # the check before the first shard may have found it out
    assert "a batch of 8 takes too much memory: 4 from now on" in out_of_memory.log


@pytest.mark.parametrize("kind", ["as loaded", "compiled"])
def test_one_image_that_takes_too_much_memory_is_another_workers_work(
    out_of_memory: Outcome, kind: str
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
