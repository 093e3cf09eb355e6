"""The whole extraction on real photos: every row has the feature of its own image, as in float32."""

import io
import shutil
from collections.abc import Callable
from itertools import cycle
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq
import pytest
from PIL import Image

from tests.command import Retrain
from workers.contract import layout
from workers.contract.messages import ExtractShard
from workers.features import inference
from workers.features.backbone import Backbone, load
from workers.features.decode import BadImage, decode
from workers.features.engines import engine
from workers.features.extract import feature_matrix
from workers.storage import open_store
from workers.tasks.base import Context
from workers.tasks.extract import extract_shard

Floats = npt.NDArray[np.float32]

BATCH = 4
SHARD = 20
MIN_COSINE = 0.999
GRAINLESS_COSINE = 0.98
"""In reduced precision, of five by three pixels enlarged: so smooth that no rounding averages out."""
DECODER_COSINE = 0.99
"""TensorFlow's own decoder reads whole photos where ours reads them reduced."""


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def turned(image: Image.Image) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return encoded(image, "JPEG", exif=exif, quality=90)


def deep(image: Image.Image) -> bytes:
    grey = np.asarray(image.convert("L")).astype(np.uint16) * 257
    return encoded(Image.fromarray(grey), "PNG")


FORMATS: dict[str, Callable[[Image.Image], bytes]] = {
    "progressive.jpg": lambda image: encoded(image, "JPEG", progressive=True, quality=90),
    "grey.jpg": lambda image: encoded(image.convert("L"), "JPEG"),
    "cmyk.jpg": lambda image: encoded(image.convert("CMYK"), "JPEG"),
    "turned.jpg": turned,
    "plain.png": lambda image: encoded(image, "PNG"),
    "alpha.png": lambda image: encoded(image.convert("RGBA"), "PNG"),
    "deep.png": deep,
    "palette.gif": lambda image: encoded(image, "GIF"),
    "plain.bmp": lambda image: encoded(image, "BMP"),
    "lossy.webp": lambda image: encoded(image, "WEBP", quality=90),
    "tiny.png": lambda image: encoded(image.resize((5, 3)), "PNG"),
    "large.jpg": lambda image: encoded(image.resize((3000, 2200)), "JPEG"),
}
BAD: dict[str, tuple[str, Callable[[bytes, int], bytes]]] = {
    "cut.jpg": ("corrupt", lambda photo, number: photo[: len(photo) // 2]),
    "page.jpg": ("unsupported", lambda photo, number: b"<html>%d</html>" % number),
    "header.jpg": ("corrupt", lambda photo, number: photo[:20] + bytes(number)),
    "empty.jpg": ("empty", lambda photo, number: b""),
}
LABELS, PHOTOS = ("roses", "tulips"), 40


class Collection(NamedTuple):
    folder: Path
    bad: dict[str, str]
    """The status that each bad file should have, by its address."""
    photos: list[str]
    """The addresses of untouched photos."""

    def uris(self) -> list[str]:
        return sorted(str(path) for path in self.folder.rglob("*.*"))


@pytest.fixture(scope="module")
def collection(flowers: Path, tmp_path_factory: pytest.TempPathFactory) -> Collection:
    """80 photos of two labels: untouched, in every format, and a bad file in each fifth place: with
    four in a batch, it comes to every place of one."""
    made = Collection(tmp_path_factory.mktemp("collection"), {}, [])
    formats, harms = cycle(FORMATS.items()), cycle(list(BAD.items())[:-1])
    for label in LABELS:
        (made.folder / label).mkdir()
        for number, photo in enumerate(sorted((flowers / label).glob("*.jpg"))[:PHOTOS]):
            beginning = made.folder / label / f"{number:03d}-"
            if number % 5 == 4:
                # one is empty: more would be copies of one image
                name, (status, harm) = next(harms) if made.bad else ("empty.jpg", BAD["empty.jpg"])
                path = Path(f"{beginning}{name}")
                path.write_bytes(harm(photo.read_bytes(), number))
                made.bad[str(path)] = status
            elif number % 5 == 2:
                name, encode = next(formats)
                with Image.open(photo) as image:
                    Path(f"{beginning}{name}").write_bytes(encode(image.convert("RGB")))
            else:
                made.photos.append(shutil.copy(photo, f"{beginning}photo.jpg"))
    return made


class Extracted(NamedTuple):
    """What `retrain run` left."""

    store: Path
    result: dict[str, Any]
    backbone: Backbone

    def shards(self) -> dict[str, Any]:
        """Name to table, in the order of the images."""
        prefix = layout.features_prefix(self.backbone.fingerprint)
        tables = {path.stem: pq.read_table(path) for path in (self.store / prefix).glob("*.parquet")}
        return dict(sorted(tables.items(), key=lambda item: str(item[1]["uri"][0])))


@pytest.fixture(scope="module")
def extracted(
    retrain: Retrain,
    collection: Collection,
    mobilenet: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Extracted:
    store = tmp_path_factory.mktemp("features") / "store"
    finished = retrain(
        "run", collection.folder, "--store", store, "--backbone", mobilenet, "--json",
        "--shard-size", SHARD, "--batch-size", BATCH, "--max-failed-fraction", "0.5",
    )  # fmt: skip
    assert finished.code == 0, finished.stderr
    return Extracted(store, finished.json, load(str(mobilenet), None))


@pytest.fixture(scope="module")
def reference(collection: Collection, extracted: Extracted) -> dict[str, Floats]:
    """Every good image's feature by its address: decoded alone, computed alone, in float32."""
    backbone, found = extracted.backbone, {}
    for path in collection.folder.rglob("*.*"):
        try:
            pixels = decode(path.read_bytes(), backbone.width, backbone.height)
        except BadImage:
            continue
        found[str(path)] = backbone.features(pixels[np.newaxis])[0]
    return found


def assert_right(
    extracted: Extracted,
    collection: Collection,
    reference: dict[str, Floats],
    grainless_cosine: float = MIN_COSINE,
) -> None:
    """Each row in these shards has its own feature or its own status."""
    for table in extracted.shards().values():
        uris, statuses = table["uri"].to_pylist(), table["status"].to_pylist()
        matrix = feature_matrix(table).astype(np.float32)
        assert statuses == [collection.bad.get(uri, "ok") for uri in uris]
        for uri, status, feature in zip(uris, statuses, matrix, strict=True):
            if status == "ok":
                alike = {name: cosine(feature, reference[name]) for name in uris if name in reference}
                enough = grainless_cosine if uri.endswith("-tiny.png") else MIN_COSINE
                assert alike[uri] >= enough, uri
                assert max(alike, key=lambda name: alike[name]) == uri
            else:
                assert not feature.any()


def cosine(one: Floats, other: Floats) -> float:
    return float(one @ other / (np.linalg.norm(one) * np.linalg.norm(other)))


def test_a_run_gives_every_image_its_feature(
    extracted: Extracted, collection: Collection, reference: dict[str, Floats]
) -> None:
    assert extracted.result["images"]["total"] == len(LABELS) * PHOTOS
    assert extracted.result["images"]["failed"] == len(collection.bad) == len(LABELS) * PHOTOS / 5
    # rows out = rows in, in address order
    rows = [uri for table in extracted.shards().values() for uri in table["uri"].to_pylist()]
    assert rows == collection.uris()
    assert_right(extracted, collection, reference)


@pytest.mark.parametrize(
    ("name", "precision", "most"),
    [
        ("tensorflow", "float32", None),
        ("tensorflow", "bfloat16", None),
        ("tensorflow", "float16", None),
        ("openvino", "bfloat16", None),
        ("xla", "float32", 1),  # it compiles for long
    ],
)
def test_the_task_gives_every_image_its_feature_in_every_precision(
    extracted: Extracted,
    collection: Collection,
    reference: dict[str, Floats],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    precision: str,
    most: int | None,
) -> None:
    has = engine(name).precisions()
    if precision not in has:
        pytest.skip(f"this machine computes in {', '.join(has)} with {name}, not in {precision}")
    monkeypatch.setattr(inference, "_ready", {})
    # Given the plan of that run in a store without features
    shards = list(extracted.shards())[:most]
    copy = extracted._replace(store=tmp_path / "store")
    shutil.copytree(extracted.store / "runs", copy.store / "runs")
    store, run_id = open_store(str(copy.store)), extracted.result["run_id"]
    (plan,) = (path.name for path in (copy.store / "runs" / run_id / "plans").iterdir())

    # When its shards are extracted with this engine in this precision
    for shard in shards:
        message = ExtractShard(
            *(store.url, run_id, plan, shard, extracted.backbone.name, None),
            *(extracted.backbone.fingerprint, BATCH, name, precision),
        )
        times = extract_shard(message, Context(store, lambda done, total: None))
        assert times is not None
        assert (times.engine, times.precision, times.batch_size) == (name, precision, BATCH)

    # Then they are the same
    assert list(copy.shards()) == shards
    for shard, table in copy.shards().items():
        assert table["uri"].equals(extracted.shards()[shard]["uri"])
    exact = precision == "float32"
    assert_right(copy, collection, reference, MIN_COSINE if exact else GRAINLESS_COSINE)


def test_photos_are_what_tensorflow_itself_makes_of_them(
    extracted: Extracted, collection: Collection
) -> None:
    """Decoded and resized by TensorFlow, as retrain.py did: nothing of ours but the backbone."""
    from workers.tensorflow import tf

    backbone = extracted.backbone
    size = [backbone.height, backbone.width]
    found = {
        uri: feature
        for table in extracted.shards().values()
        for uri, feature in zip(table["uri"].to_pylist(), feature_matrix(table), strict=True)
    }
    assert len(collection.photos) == len(LABELS) * PHOTOS * 3 / 5
    for uri in collection.photos:
        pixels = tf.image.decode_jpeg(tf.io.read_file(uri), channels=3, dct_method="INTEGER_ACCURATE")
        resized = tf.compat.v1.image.resize_bilinear(pixels[tf.newaxis], size)
        expected = backbone.network(resized / 255.0).numpy()[0]
        assert cosine(found[uri].astype(np.float32), expected) >= DECODER_COSINE, uri
