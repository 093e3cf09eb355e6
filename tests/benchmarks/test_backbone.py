"""How fast the backbone computes by itself, against the plain ways to call it, and against what the
machine's matrix units can do.

    tests/run tests/benchmarks/test_backbone.py -m benchmark -n 0 -s

Pixels are photos decoded beforehand. Plain ways take batches of 32; this project's inference takes
the batch size it finds, from two threads at once as the extraction does. The share is of the
floating point operations of one image (as TensorFlow's profiler counts them in the frozen graph),
times images/s, of what TensorFlow's product of two large matrices reaches in the same round, in
bfloat16 and float32. RETRAIN_BENCH_IMAGES, _MATRIX (side), _REPETITIONS, _BACKBONES, _ENGINES.
"""

import statistics
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from tests.benchmarks.measure import Samples, engines, interleaved, number, rate, ratio
from tests.benchmarks.photos import contents, evenly, jpegs
from tests.benchmarks.plain_script import load_model, use_bfloat16
from tests.benchmarks.table import show, spread, times
from workers.contract.errors import EngineUnavailable
from workers.features.decode import decode

pytestmark = [pytest.mark.benchmark, pytest.mark.timeout(3600)]

IMAGES = number("IMAGES", 256)
MATRIX = number("MATRIX", 4096)
PLAIN_BATCH_SIZE = 32
STREAMS = 2
PRODUCTS = 3

Pixels = npt.NDArray[np.uint8]
Call = Callable[[Pixels], Any]


def test_against_plain_calls_and_the_machine(backbone: str, flowers: Path) -> None:
    from workers.features.backbone import load

    loaded = load(backbone, None)
    files = evenly(jpegs(flowers), IMAGES)
    some = [decode(data, loaded.width, loaded.height) for data in contents(files)]
    pixels = np.resize(np.stack(some), (IMAGES, *some[0].shape))
    cases = {
        **dict(_plain(backbone, loaded.width, pixels)),
        **dict(_ours(loaded, pixels)),
        **{f"matrix product, {each}": _matrix_product(each) for each in ("float32", "bfloat16")},
    }
    found = interleaved(cases)
    _show(loaded.name, found, _operations(loaded))


def _plain(backbone: str, size: int, pixels: Pixels) -> Iterator[tuple[str, Callable[[], float]]]:
    """Images/s of each plain way to call the network."""
    import keras

    from workers.tensorflow import tf

    model, scale = load_model(backbone, size)

    def scaled(batch: Pixels) -> Any:
        return scale(tf.cast(batch, tf.float32))

    def function() -> Call:
        signature = [tf.TensorSpec((None, size, size, 3), tf.uint8)]
        made = tf.function(lambda batch: model(scaled(batch)), input_signature=signature)
        return lambda batch: made(tf.constant(batch)).numpy()

    is_keras = isinstance(model, keras.Model)
    if is_keras:
        yield "model(x), float32", _timed(lambda b: model(scaled(b), training=False).numpy(), pixels)
        yield "predict_on_batch, float32", _timed(lambda b: model.predict_on_batch(scaled(b)), pixels)
    else:
        yield "module(x), float32", _timed(lambda b: model(scaled(b)).numpy(), pixels)
    in_float32, in_bfloat16 = function(), _in_bfloat16(function())
    yield "tf.function, float32", _timed(in_float32, pixels)
    yield "tf.function, bfloat16 option", _timed(in_bfloat16, pixels)
    few = pixels[:PLAIN_BATCH_SIZE]
    if _has_bfloat16():
        assert not np.array_equal(in_float32(few), in_bfloat16(few)), "the option had no effect"


def _in_bfloat16(call: Call) -> Call:
    """With TensorFlow's option, which counts for the whole process, on for the length of a call."""

    def within(batch: Pixels) -> Any:
        use_bfloat16()
        try:
            return call(batch)
        finally:
            use_bfloat16(False)

    return within


def _ours(loaded: Any, pixels: Pixels) -> Iterator[tuple[str, Callable[[], float]]]:
    """Images/s of this project's inference, by engine and precision."""
    from workers.features.engines import engine
    from workers.features.inference import Wanted, prepare

    wanted = [Wanted(name, each) for name in engines() for each in engine(name).precisions()]
    for each in wanted:
        made = prepare(loaded, each, IMAGES)
        name = f"retrain, {made.engine} {made.precision}, batches of {made.batch_size}"
        yield name, _timed(made.features, pixels, made.batch_size, STREAMS)


def _timed(
    call: Call, pixels: Pixels, batch_size: int = PLAIN_BATCH_SIZE, threads: int = 1
) -> Callable[[], float]:
    """Images/s of the call over all the pixels."""
    batches = [pixels[begin : begin + batch_size] for begin in range(0, len(pixels), batch_size)]
    for size in {len(each): each for each in batches}.values():
        call(size)  # the first of a size sets up

    def measured() -> float:
        with ThreadPoolExecutor(threads) as pool:
            return rate(len(pixels), lambda: list(pool.map(call, batches)))

    return measured


def _matrix_product(precision: str) -> Callable[[], float]:
    """FLOP/s of a product of two large squares, the best of a few: what the machine is able to."""
    from workers.tensorflow import tf

    left, right = (tf.cast(tf.random.normal((MATRIX, MATRIX), seed=each), precision) for each in (1, 2))
    product = tf.function(tf.matmul)
    product(left, right)
    once = partial(rate, 2 * MATRIX**3, lambda: product(left, right).numpy())
    return lambda: max(once() for _ in range(PRODUCTS))


def _operations(loaded: Any) -> int:
    """Floating point operations of one image, additions and multiplications each for one."""
    from workers.features.engines.tensorflow import freeze
    from workers.tensorflow import tf

    one = tf.TensorSpec((1, loaded.height, loaded.width, 3), tf.float32)
    frozen = freeze(tf.function(loaded.network).get_concrete_function(one))
    profiler = tf.compat.v1.profiler
    options = profiler.ProfileOptionBuilder(profiler.ProfileOptionBuilder.float_operation())
    counted = profiler.profile(frozen.graph, options=options.with_empty_output().build())
    return int(counted.total_float_ops)


def _has_bfloat16() -> bool:
    from workers.features.engines import engine, precision_of

    try:
        return precision_of(engine("tensorflow"), "bfloat16") == "bfloat16"
    except EngineUnavailable:
        return False


def _show(name: str, found: Samples, operations: int) -> None:
    machine = {each: found.pop(f"matrix product, {each}") for each in ("bfloat16", "float32")}
    plain, *_ = found.values()

    def share(samples: list[float], precision: str) -> str:
        return f"{100 * operations * ratio(samples, machine[precision]):.0f} %"

    show(
        f"{name}: {operations / 1e9:.2f} GFLOP an image; one {MATRIX} x {MATRIX} matrix product: "
        + ", ".join(f"{statistics.median(v) / 1e9:,.0f} GFLOP/s in {k}" for k, v in machine.items()),
        ["", "images/s", "to the first", "of bfloat16", "of float32"],
        [
            [
                case,
                spread(each),
                times(ratio(each, plain)),
                share(each, "bfloat16"),
                share(each, "float32"),
            ]
            for case, each in found.items()
        ],
    )
