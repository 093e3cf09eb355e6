"""Feature shards as a run leaves them, drawn instead of extracted."""

import numpy as np
import pyarrow as pa

from workers.contract import layout, schemas
from workers.storage import Store
from workers.storage.tables import write_table

RUN, PLAN, FINGERPRINT = "bench", "plan", "print"
SHARD_IMAGES = 1_024

# half the distance between two classes of D features is this times sqrt(D / 2) standard deviations:
# of a thousand classes, another one is nearer to an image in fifty
_SPREAD_OF_CENTRES = 0.14


def write_shards(store: Store, images: int, size: int, classes: int) -> int:
    """Images around a centre for each class, 80 % to train on; returns the number of shards."""
    rng = np.random.default_rng(0)
    centres = (_SPREAD_OF_CENTRES * rng.standard_normal((classes, size))).astype(np.float32)
    begins = range(0, images, SHARD_IMAGES)
    for number, begin in enumerate(begins):
        of = np.arange(begin, min(begin + SHARD_IMAGES, images))
        labels = of % classes
        noise = rng.standard_normal((len(of), size), dtype=np.float32)
        _write(store, f"{number:020d}", of, labels, (centres[labels] + noise).astype(np.float16))
    return len(begins)


def names(classes: int) -> list[str]:
    return [f"class-{number:04d}" for number in range(classes)]


def _write(
    store: Store,
    shard: str,
    of: np.ndarray[tuple[int], np.dtype[np.int64]],
    labels: np.ndarray[tuple[int], np.dtype[np.int64]],
    features: np.ndarray[tuple[int, int], np.dtype[np.float16]],
) -> None:
    kind = {0: "validation", 1: "test"}
    uris = [
        f"s3://bench/class-{label:04d}/{image:09d}.jpg" for label, image in zip(labels, of, strict=True)
    ]
    versions = [f"{image:032x}" for image in of]
    rows = [
        uris,
        versions,
        np.full(len(of), 100_000),
        [f"class-{label:04d}" for label in labels],
        # not the images' number: the classes go by that
        [kind.get(int(image) * 2_654_435_761 // 2**16 % 10, "train") for image in of],
        np.arange(len(of), dtype=np.int32),
    ]
    table = pa.table([pa.array(each) for each in rows], names=schemas.SHARD_ROWS.names)
    write_table(store, layout.shard_rows(RUN, PLAN, shard), table.cast(schemas.SHARD_ROWS))
    vectors = pa.FixedSizeListArray.from_arrays(pa.array(features.reshape(-1)), features.shape[1])
    columns = [uris, versions, [schemas.OK] * len(of), pa.nulls(len(of), pa.string()), vectors]
    schema = schemas.features(features.shape[1], pa.float16())
    write_table(store, layout.features(FINGERPRINT, shard), pa.table(columns, schema=schema))
