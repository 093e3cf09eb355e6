"""Which images a model learns from, and which judge it: retrain.py's rule.

The split of an image follows from its own path alone, so adding images moves no other one.
"""

import hashlib
import re

_MAX_IMAGES = 2**27 - 1  # retrain.py's MAX_NUM_IMAGES_PER_CLASS
_GROUP_END = re.compile(r"_nohash_.*$")


def percentage(path: str) -> float:
    """Where a path falls in [0, 100]; what follows `_nohash_` does not count, so that pictures of
    one thing (leaf7_nohash_0.jpg, leaf7_nohash_1.jpg) stay together."""
    name = _GROUP_END.sub("", path)
    number = int(hashlib.sha1(name.encode()).hexdigest(), 16)
    return (number % (_MAX_IMAGES + 1)) * (100.0 / _MAX_IMAGES)


def split_of(path: str, validation_percentage: float, test_percentage: float) -> str:
    """ "train", "validation" or "test"."""
    at = percentage(path)
    if at < validation_percentage:
        return "validation"
    return "test" if at < validation_percentage + test_percentage else "train"
