"""Where the time of an extraction goes, as a worker tells it with the last beat of a shard."""

from dataclasses import asdict, dataclass, fields
from typing import Any, Self


@dataclass(frozen=True)
class StageTimes:
    """What one working process did since it last told: two shards overlap in it, so times belong to
    the process, not to a shard. Their sums over all shards of a run are the run's."""

    images: int = 0
    start_s: float = 0.0
    """Loading, compiling and checking the backbone."""
    fetch_s: float = 0.0
    """Waiting for the store, summed over `fetch_threads`."""
    decode_s: float = 0.0
    """Decoding and resizing, summed over `decode_threads`."""
    backbone_s: float = 0.0
    """Wall time with a batch in the backbone."""
    starved_s: float = 0.0
    """Wall time with images to do and no batch in the backbone."""
    write_s: float = 0.0
    """Writing feature shards, beside the work on the next one."""
    fetch_threads: int = 0
    decode_threads: int = 0
    engine: str = ""
    """tensorflow, xla or openvino."""
    precision: str = ""
    """float32, bfloat16 or float16."""
    batch_size: int = 0
    device: str = "cpu"
    """cpu or gpu."""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Self:
        """What a worker of another version tells beside, or as another type, is left out: a beat is a
        hint, and none of it may stop a run."""
        return cls(
            **{
                each.name: value[each.name]
                for each in fields(cls)
                if each.name in value and _fits(value[each.name], each.default)
            }
        )


def _fits(given: Any, default: Any) -> bool:
    if isinstance(given, bool):
        return False
    return isinstance(given, int | float if isinstance(default, float) else type(default))
