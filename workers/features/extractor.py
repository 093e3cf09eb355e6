"""The flow of images through one working process: fetch, decode, batch, compute.

Shards are fed one after the other and overlap: while the last images of one are computed, the next
one's are fetched, and a batch may hold images of both. Everything that waits is bounded: images that
are not in the backbone yet by their number, fetched bytes and decoded pixels by budgets.
"""

import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from queue import SimpleQueue
from typing import NamedTuple, Protocol, TypeVar

import numpy as np

from workers.contract.errors import ObjectMissing, StoreDenied
from workers.contract.settings import Settings
from workers.contract.stages import StageTimes
from workers.features import Floats, Pixels
from workers.features.budget import Budget
from workers.features.clock import Clock
from workers.features.decode import MAX_PIXELS, BadImage, Failure, decode
from workers.storage import Blob, fetch

Progress = Callable[[int, int], None]
T = TypeVar("T")

FETCHED_BYTES = 256 * 2**20
"""Encoded images in memory at once; a file that is larger by itself is refused."""
DECODED_PIXELS = MAX_PIXELS
"""Pixels being decoded at once: many photos, or one of the largest."""

_STREAMS = 2
"""Batches in the backbone at once: one computes while another's results are taken out."""
_TELL_EVERY_S = 0.2


class Image(NamedTuple):
    uri: str
    version: str
    size_bytes: int = 0


class Network(Protocol):
    """The part of an inference that this flow needs."""

    batch_size: int

    @property
    def width(self) -> int: ...
    @property
    def height(self) -> int: ...
    @property
    def feature_size(self) -> int: ...
    def features(self, images: Pixels) -> Floats:
        """From any thread."""
        ...


class _Shard:
    """What one call of `compute` asked for, and what is found."""

    def __init__(self, images: Sequence[Image], feature_size: int) -> None:
        self.images = images
        self.features: Floats = np.zeros((len(images), feature_size), np.float32)
        self.failures: dict[int, Failure] = {}
        self.left = len(images)
        self.error: BaseException | None = None

    @property
    def done(self) -> int:
        return len(self.images) - self.left

    def check(self) -> None:
        """Raises what the shard as a whole failed of."""
        if self.error is not None:
            raise self.error


class _Fetched(NamedTuple):
    shard: _Shard
    row: int
    data: bytes


class _Decoded(NamedTuple):
    shard: _Shard
    row: int
    pixels: Pixels


class Extractor:
    """One backbone's images, whatever shards they are of. Threads are daemons: a process that ends
    does not wait for them."""

    def __init__(self, network: Network, fetch_threads: int, decode_threads: int) -> None:
        self.network = network
        self.clock = Clock()
        self._threads = fetch_threads, decode_threads
        self._to_fetch: SimpleQueue[tuple[_Shard, int] | None] = SimpleQueue()
        self._to_decode: SimpleQueue[_Fetched | None] = SimpleQueue()
        self._ready: deque[_Decoded] = deque()
        self._changed = threading.Condition()
        # shards at hand, those of them not wholly fed, images on their way, batches in the backbone
        self._shards = self._feeding = self._coming = self._computing = 0
        self._is_closed = False
        self._bytes, self._pixels = Budget(FETCHED_BYTES), Budget(DECODED_PIXELS)
        # images that were fed and are not in the backbone yet
        self._room = threading.Semaphore(4 * network.batch_size + fetch_threads + decode_threads)
        _start(fetch_threads, "fetch", self._to_fetch.get, self._fetch)
        _start(decode_threads, "decode", self._to_decode.get, self._decode)
        _start(_STREAMS, "backbone", self._next_batch, self._compute)

    def close(self) -> None:
        """Let the threads go, once the shards at hand are done."""
        with self._changed:
            self._changed.wait_for(lambda: not self._shards)
        for _ in range(self._threads[0]):
            self._to_fetch.put(None)
        for _ in range(self._threads[1]):
            self._to_decode.put(None)
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()

    def compute(
        self,
        images: Sequence[Image],
        progress: Progress = lambda done, total: None,
        fed: Callable[[], None] = lambda: None,
    ) -> tuple[Floats, dict[int, Failure]]:
        """float32 (N, D) features, zeros where an image failed, and the failures by row.

        progress: told how many images are done; what it raises ends the work on these images.
        fed: called when the last image is on its way: the time to bring the next shard.
        Raises StoreUnavailable where the store does not answer: then nothing is known of the image.
        """
        shard = _Shard(images, self.network.feature_size)
        with self._at_hand(), self.clock.at_work():
            try:
                self._feed(shard, progress)
                fed()
                self._await(shard, progress)
            except BaseException as error:
                shard.error = shard.error or error  # what is still on its way is dropped
                raise
        progress(len(images), len(images))
        return shard.features, shard.failures

    def times(self) -> StageTimes:
        """The times since they were last asked for."""
        threads = {"fetch_threads": self._threads[0], "decode_threads": self._threads[1]}
        return StageTimes(**self.clock.take(), **threads)  # type: ignore[arg-type]

    @contextmanager
    def _at_hand(self) -> Iterator[None]:
        with self._changed:
            self._shards += 1
        try:
            yield
        finally:
            with self._changed:
                self._shards -= 1
                self._changed.notify_all()

    def _feed(self, shard: _Shard, progress: Progress) -> None:
        told = 0
        with self._changed:
            self._feeding += 1
        try:
            for row in range(len(shard.images)):
                shard.check()
                while not self._room.acquire(timeout=_TELL_EVERY_S):
                    shard.check()
                    progress(shard.done, len(shard.images))
                with self._changed:
                    self._coming += 1
                self._to_fetch.put((shard, row))
                if shard.done > told:
                    told = shard.done
                    progress(told, len(shard.images))
        finally:
            with self._changed:
                self._feeding -= 1
                self._changed.notify_all()

    def _await(self, shard: _Shard, progress: Progress) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: shard.error or not shard.left, _TELL_EVERY_S)
            shard.check()
            if not shard.left:
                return
            progress(shard.done, len(shard.images))

    def _fetch(self, job: tuple[_Shard, int]) -> None:
        shard, row = job
        if shard.error is not None:  # not raised here again: its traceback would grow each time
            return self._over(shard, row, shard.error)
        size_bytes = shard.images[row].size_bytes
        if size_bytes > FETCHED_BYTES:
            too_large = f"the file has more than {FETCHED_BYTES // 2**20} MiB"
            return self._over(shard, row, BadImage("too_large", too_large))
        self._bytes.take(size_bytes)
        try:
            with self.clock.measured("fetch_s"):
                data = _fetch_same(shard.images[row]).data
        except BaseException as error:
            self._bytes.give_back(size_bytes)
            return self._over(shard, row, error)
        return self._to_decode.put(_Fetched(shard, row, data))

    def _decode(self, job: _Fetched) -> None:
        shard, row = job.shard, job.row
        try:
            if shard.error is not None:
                return self._over(shard, row, shard.error)
            with self.clock.measured("decode_s"):
                pixels = decode(job.data, self.network.width, self.network.height, self._pixels)
        except BaseException as error:
            return self._over(shard, row, error)
        finally:
            self._bytes.give_back(shard.images[row].size_bytes)
        with self._changed:
            self._ready.append(_Decoded(shard, row, pixels))
            self._one_came()
        return None

    def _one_came(self) -> None:
        self._coming -= 1
        if len(self._ready) >= self.network.batch_size or not self._coming:
            self._changed.notify_all()

    def _over(self, shard: _Shard, row: int, error: BaseException) -> None:
        """An image ends without pixels: a bad one is a row, all else is the shard's failure."""
        with self._changed:
            if isinstance(error, BadImage):
                shard.failures[row] = error.failure
            else:
                shard.error = shard.error or error
            shard.left -= 1
            self._one_came()
            if not shard.left:
                self._changed.notify_all()
        self._room.release()

    def _compute(self, batch: list[_Decoded]) -> None:
        self._room.release(len(batch))
        error: BaseException | None = None
        try:
            with self.clock.computing(len(batch)):
                found = self.network.features(np.stack([each.pixels for each in batch]))
            for each, feature in zip(batch, found, strict=True):
                each.shard.features[each.row] = feature
        except BaseException as raised:
            error = raised
        with self._changed:
            self._computing -= 1
            for each in batch:
                each.shard.error = each.shard.error or error
                each.shard.left -= 1
            self._changed.notify_all()

    def _next_batch(self) -> list[_Decoded] | None:
        """A full batch, or what there is once no more is coming and nothing else computes: till
        then, images of the next shard may fill it. None: closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._is_closed or self._has_batch())
            if self._is_closed:
                return None
            self._computing += 1
            size = min(len(self._ready), self.network.batch_size)
            return [self._ready.popleft() for _ in range(size)]

    def _has_batch(self) -> bool:
        if len(self._ready) >= self.network.batch_size:
            return True
        return bool(self._ready) and not (self._coming or self._feeding or self._computing)


_kept: list[Extractor] = []


def extractor_of(network: Network) -> Extractor:
    """The process's extractor, made anew for another network; for one caller at a time."""
    if not _kept or _kept[0].network is not network:
        for old in _kept:
            old.close()
        settings = Settings.from_environment()
        _kept[:] = [Extractor(network, settings.fetch_threads, settings.decoders())]
    return _kept[0]


def _start(count: int, name: str, take: Callable[[], T | None], work: Callable[[T], None]) -> None:
    """Threads that do the work on what they take, until that is None."""

    def run() -> None:
        while (job := take()) is not None:
            work(job)
            del job  # a thread that waits keeps no picture and no shard in memory

    for number in range(count):
        threading.Thread(target=run, name=f"{name}-{number}", daemon=True).start()


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
