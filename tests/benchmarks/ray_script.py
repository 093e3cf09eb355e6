"""Features of a folder of photos with Ray Data, as its guides write it: read_images, an actor with
the Keras model, write_parquet. Needs ray[data].

    python -m tests.benchmarks.ray_script PHOTOS OUT --backbone keras:InceptionV3 --size 299
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tests.benchmarks.plain_script import BATCH_SIZE, load_model, use_bfloat16
from workers.contract.settings import cores

Batch = dict[str, npt.NDArray[Any]]


class Network:
    """Lives in one actor, and holds the model."""

    def __init__(self, backbone: str, size: int, precision: str) -> None:
        import tensorflow as tf

        if precision == "bfloat16":
            use_bfloat16()
        model, scale = load_model(backbone, size)
        # a function, since without one the option above has no graph to work on
        self._features = tf.function(
            lambda pixels: model(scale(tf.cast(pixels, tf.float32))),
            input_signature=[tf.TensorSpec((None, size, size, 3), tf.uint8)],
        )

    def __call__(self, batch: Batch) -> Batch:
        features = self._features(batch["image"]).numpy()
        ended = np.full(len(features), time.monotonic())  # one clock for all processes
        return {"path": batch["path"], "feature": features, "ended_s": ended}


def main() -> None:
    import ray

    parser = argparse.ArgumentParser()
    parser.add_argument("photos", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--backbone", required=True)
    parser.add_argument("--size", type=int, required=True)
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="float32")
    options = parser.parse_args()
    ray.init(num_cpus=cores(), include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    ray.data.DataContext.get_current().enable_progress_bars = False
    size = (options.size, options.size)
    images = ray.data.read_images(str(options.photos), size=size, mode="RGB", include_paths=True)
    images.map_batches(
        Network,
        fn_constructor_args=(options.backbone, options.size, options.precision),
        batch_size=BATCH_SIZE,
        concurrency=1,
    ).write_parquet(str(options.out))
    print(json.dumps(_counted(options.out)))  # noqa: T201


def _counted(out: Path) -> dict[str, float]:
    """Rows, and the rate after the first batch."""
    import pyarrow.parquet as pq

    ended = np.sort(pq.read_table(out, columns=["ended_s"]).column("ended_s").to_numpy())
    first = np.searchsorted(ended, ended[0], side="right")
    return {"images": len(ended), "images_per_s": (len(ended) - first) / (ended[-1] - ended[0])}


if __name__ == "__main__":
    main()
