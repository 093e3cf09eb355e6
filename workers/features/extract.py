"""A shard's images to its table of features, a row for every image."""

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from workers.contract import schemas
from workers.features import Floats
from workers.features.decode import Failure
from workers.features.extractor import Extractor, Image, Progress

# float16 is kept where what it loses is below this part of the spread between images
_FLOAT16_LOSS = 0.01


def extract(
    images: Sequence[Image],
    extractor: Extractor,
    progress: Progress = lambda done, total: None,
    fed: Callable[[], None] = lambda: None,
) -> pa.Table:
    """Features of images, one row each and in their order (schema: `schemas.features`).

    An image that cannot be read or decoded is a row with a status and a reason. For `progress`,
    `fed` and errors see `Extractor.compute`.
    """
    return table(images, *extractor.compute(images, progress, fed))


def table(images: Sequence[Image], features: Floats, failures: dict[int, Failure]) -> pa.Table:
    """The feature shard of what `compute` found."""
    for row in np.flatnonzero(~np.isfinite(features).all(axis=1)):
        failures[int(row)] = Failure("non_finite", "the backbone gives infinite or undefined values")
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
