"""TensorFlow, imported once and without its start-up notes: `from workers.tensorflow import tf`.

The notes come from C++ before any log level counts, so stderr is closed to them for the length of
the import; an import that fails still raises.
"""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager

from workers.contract.settings import cores, quiet_tensorflow

__all__ = ["tf"]


@contextmanager
def _silent_stderr() -> Iterator[None]:
    kept = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


# depthwise convolutions keep float32 in a graph of reduced precision: they are a few percent of the
# work, and the rounding of so few weights per channel does not average out
os.environ.setdefault("TF_AUTO_MIXED_PRECISION_GRAPH_REWRITE_ALLOWLIST_REMOVE", "DepthwiseConv2dNative")

if quiet_tensorflow():
    with _silent_stderr():
        import tensorflow as tf

        _gpus = tf.config.list_physical_devices("GPU")
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
else:
    import tensorflow as tf

    _gpus = tf.config.list_physical_devices("GPU")

for _gpu in _gpus:
    # take memory as it is needed: several processes may share a card
    tf.config.experimental.set_memory_growth(_gpu, True)

# by itself it counts the machine's cores, past a container's quota
tf.config.threading.set_intra_op_parallelism_threads(cores())
