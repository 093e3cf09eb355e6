"""What the workers of a dispatch told of their time: one sum for each worker, however many shards."""

from dataclasses import dataclass, field

from orchestrator.stages import Worked, added
from workers.contract.beats import DONE, Beat
from workers.contract.stages import StageTimes


@dataclass
class Tally:
    """Hears every beat of a dispatch. A beat that was missed leaves its part of the time uncounted."""

    shards: int = 0
    """Shards whose result is there."""
    shards_told: int = 0
    """Those of them whose last beat told of time."""

    _times: dict[str, StageTimes] = field(default_factory=dict)
    _first_s: dict[str, float] = field(default_factory=dict)
    _last_s: dict[str, float] = field(default_factory=dict)

    def heard(self, beat: Beat, now_s: float) -> None:
        """A beat that is new."""
        self._first_s.setdefault(beat.worker, now_s)
        self._last_s[beat.worker] = now_s

    def landed(self, beat: Beat | None) -> None:
        """The result of a task is there, and this was its last beat."""
        self.shards += 1
        if beat is None or beat.state != DONE or beat.stages is None:
            return
        self.shards_told += 1
        known = self._times.get(beat.worker, StageTimes())
        self._times[beat.worker] = added(known, StageTimes.from_json(beat.stages))

    def workers(self) -> list[Worked]:
        """Those that told of their time, by name."""
        return [
            Worked(name, times, self._last_s.get(name, 0.0) - self._first_s.get(name, 0.0))
            for name, times in sorted(self._times.items())
        ]
