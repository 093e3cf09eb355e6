"""Features of a folder of photos, the plain way: tf.data, Keras, Parquet.

What somebody writes who does without this project: it knows nothing of it, and loses nothing in
clumsiness. Decodes on all cores ahead of the network, batches of 32.

    python -m tests.benchmarks.plain_script PHOTOS OUT.parquet --backbone keras:InceptionV3 --size 299
"""

import argparse
import importlib
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

BATCH_SIZE = 32


def load_model(backbone: str, size: int) -> tuple[Any, Callable[[Any], Any]]:
    """The network, and what scales pixels in [0, 255] for it."""
    import keras
    import tensorflow as tf

    if not backbone.startswith("keras:"):
        return tf.saved_model.load(backbone), lambda pixels: pixels / 255.0
    name = backbone.removeprefix("keras:").partition("?")[0]
    build = getattr(keras.applications, name)
    model = build(include_top=False, weights=None, pooling="avg", input_shape=(size, size, 3))
    return model, importlib.import_module(build.__module__).preprocess_input


def use_bfloat16(on: bool = True) -> None:
    """TensorFlow's own option: heavy operations of every graph in bfloat16, where the CPU has it."""
    import tensorflow as tf

    tf.config.optimizer.set_experimental_options({"auto_mixed_precision_onednn_bfloat16": on})


def batches(files: list[str], size: int, scale: Callable[[Any], Any]) -> Any:
    """float32 (B, size, size, 3) as the network takes them."""
    import tensorflow as tf

    def load(path: Any) -> Any:
        pixels = tf.io.decode_jpeg(tf.io.read_file(path), channels=3)
        return scale(tf.image.resize(pixels, (size, size)))

    dataset = tf.data.Dataset.from_tensor_slices(files).map(load, num_parallel_calls=tf.data.AUTOTUNE)
    return dataset.batch(BATCH_SIZE).prefetch(tf.data.AUTOTUNE)


def predict(model: Any, dataset: Any) -> tuple[Any, list[float]]:
    """float32 (N, D), and when each batch was done."""
    import keras
    import numpy as np

    ends: list[float] = []
    if not isinstance(model, keras.Model):
        found = []
        for batch in dataset:
            found.append(model(batch).numpy())
            ends.append(time.perf_counter())
        return np.concatenate(found), ends
    note = keras.callbacks.Callback()
    note.on_predict_batch_end = lambda batch, logs=None: ends.append(time.perf_counter())
    return model.predict(dataset, verbose=0, callbacks=[note]), ends


def write(files: list[str], features: Any, out: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    vectors = pa.FixedSizeListArray.from_arrays(pa.array(features.reshape(-1)), features.shape[1])
    pq.write_table(pa.table({"uri": files, "feature": vectors}), out)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("photos", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--backbone", required=True)
    parser.add_argument("--size", type=int, required=True)
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="float32")
    options = parser.parse_args()
    if options.precision == "bfloat16":
        use_bfloat16()
    files = sorted(map(str, options.photos.rglob("*.jpg")))
    model, scale = load_model(options.backbone, options.size)
    features, ends = predict(model, batches(files, options.size, scale))
    write(files, features, options.out)
    after_first = len(files) - BATCH_SIZE
    rate = after_first / (ends[-1] - ends[0])
    print(json.dumps({"images": len(features), "images_per_s": rate}))  # noqa: T201


if __name__ == "__main__":
    main()
