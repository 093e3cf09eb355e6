"""What other programs load: the SavedModel and the frozen graph give the scores of the run."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from orchestrator.demo import draw_pictures
from tests.acceptance.conftest import Trained
from workers.features.decode import decode
from workers.training.graphs import GRAPH_INPUT, GRAPH_OUTPUT

Floats = npt.NDArray[np.float32]

LABELS = ["daisy", "dandelion", "roses", "sunflowers", "tulips"]


@pytest.fixture(scope="module")
def signatures(flowers_run: Trained) -> Any:
    from workers.tensorflow import tf

    loaded = tf.saved_model.load(str(flowers_run.model / "saved_model"))
    signatures = loaded.signatures
    return {"module": loaded, **{name: signatures[name] for name in signatures}}


def by_saved_model(signatures: Any, model: Path, images: Floats) -> Floats:
    from workers.tensorflow import tf

    result: Floats = signatures["serving_default"](image=tf.constant(images))["prediction"].numpy()
    return result


def by_frozen_graph(signatures: Any, model: Path, images: Floats) -> Floats:
    """As label_image.py does it: a TF1 session, nodes by their names."""
    from workers.tensorflow import tf

    graph = tf.Graph()
    definition = tf.compat.v1.GraphDef.FromString((model / "output_graph.pb").read_bytes())
    with graph.as_default(), tf.compat.v1.Session(graph=graph) as session:
        tf.import_graph_def(definition, name="")
        result: Floats = session.run(f"{GRAPH_OUTPUT}:0", {f"{GRAPH_INPUT}:0": images})
    return result


def by_bytes(signatures: Any, data: list[bytes]) -> tuple[Floats, list[str]]:
    from workers.tensorflow import tf

    answer = signatures["image_bytes"](image_bytes=tf.constant(data))
    return answer["prediction"].numpy(), [each.decode() for each in answer["label"].numpy()]


def _pixels(data: list[bytes]) -> Floats:
    return np.stack([decode(each, 224, 224) for each in data]).astype(np.float32) / np.float32(255)


def _photos_and_scores(trained: Trained) -> tuple[list[bytes], Floats]:
    rows = trained.test_predictions().to_pylist()
    scores = [
        [dict(zip(r["top_labels"], r["top_scores"], strict=True))[x] for x in LABELS] for r in rows
    ]
    return [Path(row["uri"]).read_bytes() for row in rows], np.array(scores, np.float32)


def test_the_nodes_of_the_frozen_graph_are_named_as_in_retrain_py() -> None:
    assert (GRAPH_INPUT, GRAPH_OUTPUT) == ("Placeholder", "final_result")


@pytest.mark.parametrize("way", [by_saved_model, by_frozen_graph])
def test_reloaded_the_model_gives_the_scores_that_the_run_reported(
    way: Callable[[Any, Path, Floats], Floats], signatures: Any, flowers_run: Trained
) -> None:
    photos, reported = _photos_and_scores(flowers_run)
    scores = way(signatures, flowers_run.model, _pixels(photos))
    np.testing.assert_allclose(scores, reported, atol=2e-3)


def test_from_raw_bytes_the_model_gives_the_labels_that_the_run_reported(
    signatures: Any, flowers_run: Trained
) -> None:
    photos, reported = _photos_and_scores(flowers_run)
    scores, labels = by_bytes(signatures, photos)
    assert labels == [LABELS[best] for best in reported.argmax(axis=1)]
    np.testing.assert_allclose(scores, reported, atol=0.02)


def _large_png(picture: Image.Image) -> dict[str, Any]:
    return {"image": picture.resize((1100, 900)), "format": "PNG"}


def _odd_png(picture: Image.Image) -> dict[str, Any]:
    return {"image": picture.resize((2017, 931)), "format": "PNG"}


def _small_png(picture: Image.Image) -> dict[str, Any]:
    return {"image": picture.resize((90, 131)), "format": "PNG"}


def _grey_jpeg(picture: Image.Image) -> dict[str, Any]:
    return {"image": picture.resize((700, 500)).convert("L"), "format": "JPEG", "quality": 90}


def _palette_png(picture: Image.Image) -> dict[str, Any]:
    return {"image": picture.convert("P"), "format": "PNG"}


def _bmp(picture: Image.Image) -> dict[str, Any]:
    return {"image": picture, "format": "BMP"}


@pytest.mark.parametrize("kind", [_large_png, _odd_png, _small_png, _grey_jpeg, _palette_png, _bmp])
def test_the_model_decodes_bytes_as_the_workers_do(
    kind: Callable[[Image.Image], dict[str, Any]], signatures: Any, flowers_run: Trained, tmp_path: Path
) -> None:
    draw_pictures(tmp_path, per_label=1, unseen_per_label=0)
    data = []
    for number, path in enumerate(sorted(tmp_path.rglob("0*.*"))):
        saved = kind(Image.open(path).convert("RGB"))
        target = tmp_path / f"{number}.bytes"
        saved.pop("image").save(target, **saved)
        data.append(target.read_bytes())
    assert len(data) == 4
    expected = by_saved_model(signatures, flowers_run.model, _pixels(data))
    scores, labels = by_bytes(signatures, data)
    np.testing.assert_allclose(scores, expected, atol=0.02)
    assert labels == [LABELS[best] for best in expected.argmax(axis=1)]
