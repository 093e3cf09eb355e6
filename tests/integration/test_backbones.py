"""Backbones from every place they come from: the same weights are the same backbone."""

import io
import shutil
import subprocess
import sys
import tarfile
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pytest

from tests.backbones import FEATURES, save_signature_only, save_small_backbone, save_tf1_hub_module
from workers.contract.backbones import BACKBONES, KnownBackbone
from workers.contract.errors import BackboneChanged, BackboneUnavailable
from workers.features.backbone import Backbone, load
from workers.features.sources import folder_digest

Floats = npt.NDArray[np.float32]

KERAS = "keras:MobileNetV2?weights={}"
KERAS_SIZE_PX = 96


class Hub(NamedTuple):
    """Serves the models below a folder as TF Hub does: NAME/1?tf-hub-format=compressed."""

    url: str
    folder: Path
    asked: list[str]

    def serve(self, model: Path) -> str:
        """The handle of a copy of this model."""
        shutil.copytree(model, self.folder / model.name)
        return f"{self.url}/{model.name}/1"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    monkeypatch.setenv("TFHUB_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setenv("RETRAIN_ALLOW_HTTP_MODELS", "1")
    folder = tmp_path / "served"
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            path, _, query = self.path.partition("?")
            model = folder / path.split("/")[1]
            found = model.is_dir() and query == "tf-hub-format=compressed"
            self.send_response(200 if found else 404)
            self.end_headers()
            self.wfile.write(_packed(model) if found else b"no such model")

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield Hub(f"http://127.0.0.1:{server.server_port}", folder, asked)
        server.shutdown()


def _packed(folder: Path) -> bytes:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w:gz") as archive:
        archive.add(folder, arcname=".")
    return data.getvalue()


def features_of(backbone: Backbone) -> Floats:
    shape = (3, backbone.height, backbone.width, 3)
    images = np.random.default_rng(5).integers(0, 256, shape, np.uint8)
    return backbone.features(images)


@pytest.mark.parametrize("model", ["small_backbone", "mobilenet"])
def test_one_model_at_four_places_is_one_backbone(
    model: str, request: pytest.FixtureRequest, hub: Hub, tmp_path: Path
) -> None:
    folder: Path = request.getfixturevalue(model)
    copy = shutil.copytree(folder, tmp_path / "elsewhere" / "copy")
    first = load(str(folder), None)
    for name in (f"file://{folder}", str(copy), hub.serve(folder)):
        other = load(name, None)
        assert (other.fingerprint, other.width, other.height) == (
            first.fingerprint,
            first.width,
            first.height,
        )
        np.testing.assert_array_equal(features_of(other), features_of(first))
    assert hub.asked == [f"/{folder.name}/1?tf-hub-format=compressed"]


def test_a_model_is_fetched_once_and_then_taken_from_the_cache(hub: Hub, small_backbone: Path) -> None:
    handle = hub.serve(small_backbone)
    fingerprints = {load(handle, None).fingerprint for _ in range(2)}
    assert len(fingerprints) == 1
    assert len(hub.asked) == 1


def test_a_handle_that_the_server_does_not_know_is_named_with_the_remedy(hub: Hub) -> None:
    with pytest.raises(BackboneUnavailable, match=r"/nonesuch/1 \(Not Found\).*TFHUB_CACHE_DIR"):
        load(f"{hub.url}/nonesuch/1", None)


def test_other_weights_have_another_fingerprint(small_backbone: Path, tmp_path: Path) -> None:
    other = load(str(save_small_backbone(tmp_path / "other", seed=1)), None)
    first = load(str(small_backbone), None)
    assert other.fingerprint != first.fingerprint
    assert not np.allclose(features_of(other), features_of(first))


def test_one_changed_byte_of_the_weights_is_another_backbone(
    small_backbone: Path, tmp_path: Path
) -> None:
    copy = Path(shutil.copytree(small_backbone, tmp_path / "copy"))
    weights = copy / "variables" / "variables.data-00000-of-00001"
    data = bytearray(weights.read_bytes())
    data[4000] ^= 1
    weights.write_bytes(data)
    assert folder_digest(copy) != folder_digest(small_backbone)


@pytest.mark.parametrize("save", [save_signature_only, save_tf1_hub_module])
def test_models_that_answer_by_signature_give_the_same_features(
    save: Callable[[Path], Path], small_backbone: Path, tmp_path: Path
) -> None:
    found = load(str(save(tmp_path / "model")), None)
    assert (found.width, found.height, found.feature_size) == (64, 64, FEATURES)
    expected = features_of(load(str(small_backbone), None))
    np.testing.assert_allclose(features_of(found), expected, rtol=1e-4, atol=1e-6)


def test_a_model_of_open_size_needs_to_be_told_one_and_keeps_to_it(tmp_path: Path) -> None:
    name = str(save_small_backbone(tmp_path / "open", size_px=None))
    with pytest.raises(BackboneUnavailable, match="--image-size"):
        load(name, None)
    sizes = {size: load(name, size) for size in (40, 72)}
    for size, backbone in sizes.items():
        assert (backbone.width, backbone.height) == (size, size)
        assert features_of(backbone).shape == (3, FEATURES)
    assert sizes[40].fingerprint != sizes[72].fingerprint


def test_a_model_of_open_size_takes_the_size_of_the_table(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    handle = hub.serve(save_small_backbone(tmp_path / "open", size_px=None))
    monkeypatch.setitem(BACKBONES, "drawn", KnownBackbone(handle, 56, FEATURES))
    by_name, by_handle, asked = load("drawn", None), load(handle, None), load("drawn", 48)
    assert (by_name.width, by_handle.width, asked.width) == (56, 56, 48)
    assert by_name.fingerprint == by_handle.fingerprint


def test_a_model_of_fixed_size_takes_no_other(small_backbone: Path) -> None:
    assert load(str(small_backbone), 64).width == 64
    with pytest.raises(BackboneUnavailable, match="64 x 64"):
        load(str(small_backbone), 65)


def test_a_kept_backbone_of_another_fingerprint_is_refused(small_backbone: Path) -> None:
    kept = load(str(small_backbone), None)
    assert load(str(small_backbone), None, kept.fingerprint) is kept
    with pytest.raises(BackboneChanged, match="0123456789"):
        load(str(small_backbone), None, "0123456789")


def test_a_backbone_that_is_looked_at_again_stays_what_much_was_compiled_for(tmp_path: Path) -> None:
    # Given a backbone that a run had described and extracted with
    folder = save_small_backbone(tmp_path / "network")
    kept = load(str(folder), None)

    # When the next run has it described, then it is the same object for as long as the files are
    assert load(str(folder), None) is kept
    shutil.rmtree(folder)
    save_small_backbone(folder, seed=1)
    changed = load(str(folder), None)
    assert changed is not kept
    assert changed.fingerprint != kept.fingerprint
    assert load(str(folder), None, changed.fingerprint) is changed


_IN_ANOTHER_PROCESS = """
import sys
import numpy as np
from tests.integration.test_backbones import KERAS, KERAS_SIZE_PX, features_of, load
backbone = load(KERAS.format("none"), KERAS_SIZE_PX)
np.savez(sys.argv[1], fingerprint=backbone.fingerprint, features=features_of(backbone))
"""


def test_random_keras_weights_are_the_same_in_every_process(tmp_path: Path) -> None:
    here = load(KERAS.format("none"), KERAS_SIZE_PX)
    command = [sys.executable, "-c", _IN_ANOTHER_PROCESS, str(tmp_path / "there.npz")]
    subprocess.run(command, check=True, cwd=Path(__file__).parents[2], timeout=120)
    with np.load(tmp_path / "there.npz") as there:
        assert there["fingerprint"] == here.fingerprint
        np.testing.assert_array_equal(there["features"], features_of(here))


def test_keras_weights_come_from_a_file(tmp_path: Path) -> None:
    import keras

    keras.utils.set_random_seed(7)
    shape = (KERAS_SIZE_PX, KERAS_SIZE_PX, 3)
    model = keras.applications.MobileNetV2(
        include_top=False, weights=None, input_shape=shape, pooling="avg"
    )
    path = tmp_path / "mine.weights.h5"
    model.save_weights(path)
    loaded = load(KERAS.format(path), KERAS_SIZE_PX)
    random = load(KERAS.format("none"), KERAS_SIZE_PX)
    assert loaded.fingerprint != random.fingerprint
    images = np.random.default_rng(5).integers(0, 256, (3, *shape), np.uint8)
    expected = model(images / 127.5 - 1, training=False).numpy()  # what MobileNetV2 was trained on
    # a network that learned nothing gives small numbers
    np.testing.assert_allclose(features_of(loaded), expected, atol=1e-3 * np.abs(expected).max())


@pytest.mark.parametrize(
    ("name", "word"),
    [
        (KERAS.format("nowhere.h5"), "nowhere.h5"),
        ("keras:MobileNetV2?wieghts=none", "wieghts"),
        ("keras:layers", "keras.applications has"),
    ],
)
def test_what_keras_cannot_build_is_named(name: str, word: str) -> None:
    with pytest.raises(BackboneUnavailable, match=word):
        load(name, None)
