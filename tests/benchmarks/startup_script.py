"""The seconds that a worker spends before its first image, part by part, as one JSON object.

python -m tests.benchmarks.startup_script --backbone HANDLE --engine tensorflow
"""

import argparse
import json
import time
from collections.abc import Callable
from typing import Any

seconds: dict[str, float] = {}


def timed(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """The same function, its time added to `seconds`."""

    def wrapped(*args: Any) -> Any:
        began = time.perf_counter()
        try:
            return function(*args)
        finally:
            seconds[name] = seconds.get(name, 0.0) + time.perf_counter() - began

    return wrapped


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--backbone", required=True)
    parser.add_argument("--engine", required=True)
    options = parser.parse_args()
    timed("import", _import)()

    from workers.features import engines, inference
    from workers.features.backbone import load
    from workers.features.engines import tensorflow

    # the parts of `prepare`, timed where it calls them
    tensorflow.freeze = timed("freeze", tensorflow.freeze)
    inference.check_parity = timed("parity", inference.check_parity)
    inference._find_batch_size = timed("probe", inference._find_batch_size)
    made = type(engines.engine(options.engine))
    made.compile = timed("compile", made.compile)  # type: ignore[method-assign]

    backbone = timed("load", load)(options.backbone, None)
    wanted = inference.Wanted(options.engine)
    ready = timed("prepare", inference.prepare)(backbone, wanted, inference.COMPILE_FROM_IMAGES)
    timed("first batch", ready.features)(_batch(ready))
    print(json.dumps({"precision": ready.precision, **seconds}))  # noqa: T201


def _import() -> None:
    from workers.tensorflow import tf

    assert tf.__version__


def _batch(ready: Any) -> Any:
    import numpy as np

    return np.full((ready.batch_size, ready.height, ready.width, 3), 128, np.uint8)


if __name__ == "__main__":
    main()
