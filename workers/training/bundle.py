"""A model as objects in the store: `models/ID/`."""

import json
import platform
import tempfile
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import pyarrow as pa

from workers.contract import layout
from workers.prediction.score import save_head
from workers.storage import Store
from workers.storage.tables import write_table
from workers.training.graphs import Classifier, graph_def, save_model


def export(
    store: Store,
    model_id: str,
    classifier: Classifier,
    record: dict[str, Any],
    metrics: dict[str, Any],
    test_predictions: pa.Table,
) -> None:
    """Write every file of the model; model.json comes last and says that the rest is there."""

    def put(name: str, data: bytes) -> None:
        store.write(layout.model(model_id, name), data)

    frozen = classifier.frozen()
    with tempfile.TemporaryDirectory(prefix="retrain-export-") as folder:
        save_model(classifier, frozen, Path(folder))
        for file in sorted(Path(folder).rglob("*")):
            if file.is_file():
                put(f"saved_model/{file.relative_to(folder).as_posix()}", file.read_bytes())
    put("output_graph.pb", graph_def(frozen))
    put("head.npz", save_head(classifier.weights, classifier.bias))
    put("labels.txt", "".join(f"{label}\n" for label in classifier.labels).encode())
    put("metrics.json", _json(metrics))
    write_table(store, layout.model(model_id, "test_predictions.parquet"), test_predictions)
    put("model.json", _json(record | {"model_id": model_id, "versions": versions()}))


def versions() -> dict[str, str]:
    """What a model was made with."""
    found = {"python": platform.python_version()}
    for package in ("retrain", "tensorflow", "tensorflow-hub", "numpy", "pillow", "pyarrow"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _json(value: dict[str, Any]) -> bytes:
    return (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode()
