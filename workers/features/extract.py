"""The shard loop: images in, one table of features out, a row for every image."""

from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from workers.contract import schemas
from workers.contract.errors import ObjectMissing, StoreDenied
from workers.features.decode import BadImage, decode
from workers.storage import Blob, fetch

Pixels = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]
Progress = Callable[[int, int], None]

# float16 is kept where what it loses is below this part of the spread between images
_FLOAT16_LOSS = 0.01


class Image(NamedTuple):
    uri: str
    version: str


class Network(Protocol):
    """The part of a backbone that this loop needs."""

    @property
    def width(self) -> int: ...
    @property
    def height(self) -> int: ...
    @property
    def feature_size(self) -> int: ...
    def features(self, images: Pixels) -> Floats: ...


def extract(
    images: Sequence[Image],
    backbone: Network,
    *,
    batch_size: int,
    threads: int,
    progress: Progress = lambda done, total: None,
) -> pa.Table:
    """Features of images, one row each and in their order (schema: `schemas.features`).

    An image that cannot be read or decoded is a row with a status and a reason. Raises
    StoreUnavailable where the store does not answer: then nothing is known of the image.
    """
    found = compute(images, backbone, batch_size=batch_size, threads=threads, progress=progress)
    return table(images, *found)


def compute(
    images: Sequence[Image],
    backbone: Network,
    *,
    batch_size: int,
    threads: int,
    progress: Progress = lambda done, total: None,
) -> tuple[Floats, dict[int, BadImage]]:
    """float32 (N, D) features, zeros where an image failed, and the failures by row."""
    features = np.zeros((len(images), backbone.feature_size), np.float32)
    failures: dict[int, BadImage] = {}
    batch: list[tuple[int, Pixels]] = []

    def run_batch() -> None:
        rows = [row for row, _ in batch]
        features[rows] = backbone.features(np.stack([pixels for _, pixels in batch]))
        batch.clear()

    look_ahead = 2 * batch_size + threads
    with (
        ThreadPoolExecutor(threads, "decode") as pool,
        closing(_in_order(pool, images, backbone, look_ahead)) as ahead,
    ):
        for row, result in enumerate(ahead):
            if isinstance(result, BadImage):
                failures[row] = result
            else:
                batch.append((row, result))
            if len(batch) == batch_size:
                run_batch()
                progress(row + 1, len(images))
        if batch:
            run_batch()
    progress(len(images), len(images))
    return features, failures


def _in_order(
    pool: ThreadPoolExecutor, images: Sequence[Image], backbone: Network, look_ahead: int
) -> Generator[Pixels | BadImage, None, None]:
    """Decoded images in order, at most look_ahead of them fetched before they are asked for."""
    waiting: deque[Future[Pixels | BadImage]] = deque()
    try:
        for image in images:
            waiting.append(pool.submit(_read, image, backbone.width, backbone.height))
            if len(waiting) >= look_ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()


def _read(image: Image, width: int, height: int) -> Pixels | BadImage:
    try:
        return decode(_fetch_same(image).data, width, height)
    except BadImage as bad:
        return bad


def _fetch_same(image: Image) -> Blob:
    try:
        blob = fetch(image.uri)
    except ObjectMissing as error:
        raise BadImage("missing", str(error)) from error
    except StoreDenied as error:
        raise BadImage("denied", str(error)) from error
    if blob.version != image.version:
        raise BadImage("changed", "the image changed after it was listed; run again")
    return blob


def table(images: Sequence[Image], features: Floats, failures: dict[int, BadImage]) -> pa.Table:
    """The feature shard of what `compute` found."""
    for row in np.flatnonzero(~np.isfinite(features).all(axis=1)):
        failures[int(row)] = BadImage("non_finite", "the backbone gives infinite or undefined values")
    good = np.ones(len(images), bool)
    good[list(failures)] = False
    features[~good] = 0
    stored = features.astype(np.float16) if fits_float16(features[good]) else features
    size = features.shape[1]
    vectors = pa.FixedSizeListArray.from_arrays(
        pa.array(stored.reshape(-1)), size, mask=pa.array(~good)
    )
    columns = [
        pa.array([image.uri for image in images], pa.string()),
        pa.array([image.version for image in images], pa.string()),
        pa.array([failures[i].status if i in failures else schemas.OK for i in range(len(images))]),
        pa.array(
            [failures[i].reason if i in failures else None for i in range(len(images))], pa.string()
        ),
        vectors,
    ]
    return pa.table(columns, schema=schemas.features(size, vectors.type.value_type))


def fits_float16(features: Floats) -> bool:
    """Whether float32 (N, D) loses next to nothing as float16.

    The loss is measured against the spread between images, since that is what a head learns
    from: a network whose features differ in their fourth digit needs float32.
    """
    if not len(features):
        return True
    if np.abs(features).max() > np.finfo(np.float16).max:
        return False
    loss = np.linalg.norm(features - features.astype(np.float16).astype(np.float32))
    spread = np.linalg.norm(features - features.mean(axis=0))
    return bool(loss <= _FLOAT16_LOSS * spread or loss == 0)


def feature_matrix(table: pa.Table) -> npt.NDArray[np.float16] | Floats:
    """The `feature` column as float16 or float32 (N, D); rows without a feature are zeros."""
    column = table.column("feature").combine_chunks()
    if isinstance(column, pa.ChunkedArray):
        column = pa.concat_arrays(column.chunks)
    size = column.type.list_size
    values = column.values[column.offset * size :]
    matrix: Floats = values.to_numpy(zero_copy_only=False).reshape(len(column), size)
    if column.null_count:
        matrix = np.where(np.asarray(column.is_null())[:, None], matrix.dtype.type(0), matrix)
    return matrix
