"""The columns of every Parquet file in a store."""

from typing import Final

import pyarrow as pa

OK: Final = "ok"
# A bad image stays bad as long as its bytes do not change ...
LASTING_FAILURES: Final = ("empty", "unsupported", "corrupt", "too_large", "non_finite", "crashed")
# ... while these may be gone the next time, so a later run tries them again.
PASSING_FAILURES: Final = ("missing", "changed", "denied", "no_memory")

SPLITS: Final = ("train", "validation", "test")

MANIFEST: Final = pa.schema(
    [
        pa.field("uri", pa.string(), nullable=False),
        pa.field("version", pa.string(), nullable=False),
        pa.field("size", pa.int64(), nullable=False),
        pa.field("label", pa.string()),
        pa.field("split", pa.string()),
    ]
)

# The rows of a run whose features one shard holds; `row` is the feature's row in that shard.
SHARD_ROWS: Final = MANIFEST.append(pa.field("row", pa.int32(), nullable=False))


def features(size: int, dtype: pa.DataType) -> pa.Schema:
    """A feature shard: `feature` is float16 or float32 [size], null where status is not "ok"."""
    return pa.schema(
        [
            pa.field("uri", pa.string(), nullable=False),
            pa.field("version", pa.string(), nullable=False),
            pa.field("status", pa.string(), nullable=False),
            pa.field("error", pa.string()),
            pa.field("feature", pa.list_(dtype, size)),
        ]
    )


PREDICTIONS: Final = pa.schema(
    [
        pa.field("uri", pa.string(), nullable=False),
        pa.field("version", pa.string(), nullable=False),
        pa.field("status", pa.string(), nullable=False),
        pa.field("error", pa.string()),
        pa.field("label", pa.string()),
        pa.field("score", pa.float32()),
        pa.field("top_labels", pa.list_(pa.string())),
        pa.field("top_scores", pa.list_(pa.float32())),
        # what the source said the label is; null where it did not say
        pa.field("true_label", pa.string()),
    ]
)
