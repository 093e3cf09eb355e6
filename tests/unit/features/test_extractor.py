"""workers.features.extractor: shards share threads and batches, and nothing else."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from tests.fleet.servers import until
from tests.unit.features.test_extract import QuarterMeans, corrupt, listed, png
from workers.contract.errors import HandedBack, RetrainError, StoreUnavailable
from workers.features import Floats, Pixels
from workers.features import extractor as extractor_module
from workers.features.decode import Failure, decode
from workers.features.extractor import Extractor, Image, Network, Progress, extractor_of
from workers.storage import Blob, fetch

SOON_S = 0.2
TIMEOUT_S = 20
POISON = 255
"""The grey that `Gated` dies of."""


class Gated(QuarterMeans):
    """Computes while its gate is open, and fails at a picture of POISON grey."""

    batch_size = 4

    def __init__(self) -> None:
        super().__init__()
        self.gate = threading.Event()
        self.gate.set()

    def features(self, images: npt.NDArray[np.uint8]) -> Floats:
        assert self.gate.wait(TIMEOUT_S)
        if (images == POISON).all(axis=(1, 2, 3)).any():
            raise ZeroDivisionError("this one")
        return super().features(images)


class Slow(QuarterMeans):
    def __init__(self, seconds: float) -> None:
        super().__init__()
        self._seconds = seconds

    def features(self, images: npt.NDArray[np.uint8]) -> Floats:
        time.sleep(self._seconds)
        return super().features(images)


class Computing:
    """`Extractor.compute` in a thread of its own."""

    def __init__(
        self,
        extractor: Extractor,
        images: Sequence[Image],
        progress: Progress = lambda done, total: None,
    ) -> None:
        self.fed = threading.Event()
        self._found: tuple[Floats, dict[int, Failure]] | None = None
        self._error: BaseException | None = None
        self._thread = threading.Thread(
            target=self._run, args=(extractor, images, progress), daemon=True
        )
        self._thread.start()

    def _run(self, extractor: Extractor, images: Sequence[Image], progress: Progress) -> None:
        try:
            self._found = extractor.compute(images, progress, self.fed.set)
        except BaseException as error:
            self._error = error

    @property
    def is_under_way(self) -> bool:
        return self._thread.is_alive()

    def greys(self) -> list[float | None]:
        """The grey of every image as its feature tells it, None for a bad one."""
        self._thread.join(TIMEOUT_S)
        assert not self._thread.is_alive(), "it does not end"
        if self._error is not None:
            raise self._error
        assert self._found is not None
        features, failures = self._found
        assert (features == features[:, :1]).all()
        assert not features[list(failures)].any()
        return [None if row in failures else float(features[row, 0]) for row in range(len(features))]


@contextmanager
def extracting(
    network: Network, fetch_threads: int = 2, decode_threads: int = 2
) -> Iterator[Extractor]:
    extractor = Extractor(network, fetch_threads, decode_threads)
    try:
        yield extractor
    finally:
        if isinstance(network, Gated):
            network.gate.set()
        closing = threading.Thread(target=extractor.close, daemon=True)
        closing.start()
        closing.join(TIMEOUT_S)
        assert not closing.is_alive(), "a shard never ends"


def of_greys(folder: Path, greys: Sequence[int]) -> list[Image]:
    """A picture of each grey."""
    images = []
    folder.mkdir(exist_ok=True)
    for row, grey in enumerate(greys):
        path = folder / f"{row:03d}.png"
        path.write_bytes(png(grey))
        images.append(listed(path))
    return images


class Fetches:
    """What is fetched from a real folder, with something done before."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, first: Callable[[str], None]) -> None:
        self.uris: list[str] = []
        self._first = first
        monkeypatch.setattr(extractor_module, "fetch", self._fetch)

    def _fetch(self, uri: str) -> Blob:
        self.uris.append(uri)
        self._first(uri)
        return fetch(uri)


def unavailable(uri: str) -> Callable[[str], None]:
    """The store does not answer for this one."""

    def first(asked: str) -> None:
        if asked == uri:
            raise StoreUnavailable("no answer")

    return first


def test_a_batch_holds_the_last_images_of_a_shard_and_the_first_of_the_next(tmp_path: Path) -> None:
    # Given two shards of six images, and a backbone that takes four and is busy
    one, other = range(10, 70, 10), range(70, 130, 10)
    first_images, second_images = of_greys(tmp_path / "1", one), of_greys(tmp_path / "2", other)
    network = Gated()
    network.gate.clear()
    with extracting(network) as extractor:
        # When the first is fed, and then the second
        first = Computing(extractor, first_images)
        assert first.fed.wait(TIMEOUT_S)
        time.sleep(SOON_S)  # its last two could be computed now, if that were right
        assert first.is_under_way, "fed comes before the images are done"
        second = Computing(extractor, second_images)
        assert second.fed.wait(TIMEOUT_S)
        network.gate.set()

        # Then every batch is full, and each shard has its own features in its own order
        assert first.greys() == list(one)
        assert second.greys() == list(other)
    assert network.batches == [4, 4, 4]


def test_the_last_batch_waits_for_the_next_shard_that_is_being_fed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a shard of two images, of which the store keeps back one
    answers = threading.Event()
    slow = of_greys(tmp_path / "slow", [10, 20])

    def keep_back(uri: str) -> None:
        if uri == slow[1].uri:
            answers.wait(TIMEOUT_S)

    Fetches(monkeypatch, keep_back)
    network = Gated()
    with extracting(network) as extractor:
        first = Computing(extractor, slow)
        assert first.fed.wait(TIMEOUT_S)
        time.sleep(SOON_S)

        # When two more come with the next shard, then the four are one batch
        second = Computing(extractor, of_greys(tmp_path / "next", [30, 40]))
        assert second.fed.wait(TIMEOUT_S)
        answers.set()
        assert (first.greys(), second.greys()) == ([10, 20], [30, 40])
    assert network.batches == [4]


def test_results_are_in_the_order_of_the_images_however_they_come(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a store that answers in any order, and three shards at once with bad images in them
    rng = np.random.default_rng(0)
    Fetches(monkeypatch, lambda uri: time.sleep(rng.uniform(0, 0.004)))
    greys = [list(range(begin, begin + 83, 2)) for begin in (1, 84, 167)]
    shards = [of_greys(tmp_path / str(number), each) for number, each in enumerate(greys)]
    for number, shard in enumerate(shards):
        shard[5 * number] = corrupt(tmp_path, number)
    with extracting(QuarterMeans(), 8, 3) as extractor:
        at_work = [Computing(extractor, shard) for shard in shards]

        # Then each has its own features, in its own order
        for number, each in enumerate(at_work):
            expected: list[float | None] = [float(grey) for grey in greys[number]]
            expected[5 * number] = None
            assert each.greys() == expected


def test_progress_of_shards_at_once_only_rises(tmp_path: Path) -> None:
    told: list[list[tuple[int, int]]] = [[], []]
    shards = [of_greys(tmp_path / str(number), range(1, 31 + number)) for number in range(2)]
    with extracting(Slow(0.05), 3, 2) as extractor:
        at_work = [
            Computing(extractor, shard, lambda done, total, of=of: of.append((done, total)))  # type: ignore[misc]
            for shard, of in zip(shards, told, strict=True)
        ]
        for each in at_work:
            each.greys()
    for shard, seen in zip(shards, told, strict=True):
        assert seen == sorted(seen)
        assert seen[-1] == (len(shard), len(shard))


def raising(error: Exception) -> Progress:
    def progress(done: int, total: int) -> None:
        raise error

    return progress


@pytest.mark.parametrize(
    ("greys", "progress", "error"),
    [
        ([10, 20, 30, 40, 50], None, StoreUnavailable),
        ([POISON] * 4, None, ZeroDivisionError),
        ([10, 20, 30, 40], raising(HandedBack("stopping")), HandedBack),
    ],
    ids=["the store", "the backbone", "progress"],
)
def test_a_shard_that_fails_fails_alone(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    greys: list[int],
    progress: Progress | None,
    error: type[Exception],
) -> None:
    # Given a shard that is to fail, whose first batch is in the backbone, and another
    images = of_greys(tmp_path / "bad", greys)
    others = list(range(100, 240, 10))
    Fetches(monkeypatch, unavailable(images[-1].uri if error is StoreUnavailable else ""))
    network = Gated()
    network.gate.clear()
    with extracting(network, 1, 1) as extractor:  # images come in order
        bad = Computing(extractor, images, progress or (lambda done, total: None))
        until(lambda: bad.fed.is_set() or not bad.is_under_way, TIMEOUT_S, "the first shard")
        good = Computing(extractor, of_greys(tmp_path / "good", others))
        assert good.fed.wait(TIMEOUT_S)
        time.sleep(SOON_S)
        network.gate.set()

        # Then the one ends with its error, the other is right, and so is the next
        with pytest.raises(error):
            bad.greys()
        assert good.greys() == others
        assert Computing(extractor, of_greys(tmp_path / "good", others)).greys() == others


def test_images_that_share_a_batch_share_its_failure(tmp_path: Path) -> None:
    network = Gated()
    network.gate.clear()
    with extracting(network, 1, 1) as extractor:  # images come in order
        # Given a busy backbone, and a batch behind it with images of two shards
        busy = Computing(extractor, of_greys(tmp_path / "busy", [10] * 4))
        assert busy.fed.wait(TIMEOUT_S)
        one = Computing(extractor, of_greys(tmp_path / "one", [20, 30]))
        assert one.fed.wait(TIMEOUT_S)
        other = Computing(extractor, of_greys(tmp_path / "other", [POISON, 40]))
        assert other.fed.wait(TIMEOUT_S)
        network.gate.set()

        # Then nobody knows which image it was: both fail, to be tried again
        for each in (one, other):
            with pytest.raises(ZeroDivisionError):
                each.greys()
        assert busy.greys() == [10] * 4


ROOM = 4 * Gated.batch_size + 2 + 2
"""Images that are fed and not in the backbone, with two threads of each kind."""


def looks_ahead(extractor: Extractor, network: Gated, image: Image, fetches: Fetches) -> int:
    """How many images are fetched while the backbone is at its first."""
    before, (most, goal) = len(fetches.uris), (10 * ROOM, ROOM + 2 * network.batch_size)
    network.gate.clear()
    shard = Computing(extractor, [image] * most)
    deadline = time.monotonic() + 3  # reached at once, or never
    while len(fetches.uris) - before < goal and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(SOON_S)
    found = len(fetches.uris) - before
    network.gate.set()
    assert shard.greys() == [10] * most
    return found


def test_no_more_images_are_fetched_ahead_than_there_is_room_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (image,) = of_greys(tmp_path, [10])
    fetches, network = Fetches(monkeypatch, lambda uri: None), Gated()
    with extracting(network) as extractor:
        assert looks_ahead(extractor, network, image, fetches) == ROOM + 2 * network.batch_size


@pytest.mark.parametrize("reason", ["the store", "the backbone", "progress"])
def test_shards_that_were_abandoned_take_no_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reason: str
) -> None:
    """More of them than there is room for, each abandoned while it is fed."""
    grey, poison, gone = of_greys(tmp_path, [10, POISON, 20])
    fetches, network = Fetches(monkeypatch, unavailable(gone.uri)), Gated()
    shard = {
        "the store": [grey] * 3 + [gone] + [grey] * 10 * ROOM,
        "the backbone": [grey] * 3 + [poison] + [grey] * 10 * ROOM,
        "progress": [grey] * 10 * ROOM,
    }[reason]
    stop = raising(HandedBack("stopping"))
    with extracting(network) as extractor:
        # Given many shards that failed in the middle
        for _ in range(2 * ROOM):
            failed = Computing(extractor, shard, stop if reason == "progress" else lambda *_: None)
            with pytest.raises((StoreUnavailable, ZeroDivisionError, HandedBack)):
                failed.greys()

        # Then a good one is right, and has all the room that there was
        assert Computing(extractor, [grey] * 7).greys() == [10] * 7
        assert looks_ahead(extractor, network, grey, fetches) == ROOM + 2 * network.batch_size


def test_an_error_that_ends_many_images_is_told_in_few_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A log shows its traceback."""
    (grey,) = of_greys(tmp_path, [10])
    bad = Image(f"{grey.uri}.not", "")

    def fail(uri: str) -> None:
        if uri == bad.uri:
            raise ZeroDivisionError

    Fetches(monkeypatch, fail)
    network = QuarterMeans()
    network.batch_size = 100
    with extracting(network, 1, 1) as extractor, pytest.raises(ZeroDivisionError) as raised:
        Computing(extractor, [bad] + [grey] * 300).greys()
    assert len(raised.traceback) < 20


def test_a_file_larger_than_the_memory_for_files_is_a_row_and_is_not_fetched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = of_greys(tmp_path, [10, 20, 30])
    monkeypatch.setattr(extractor_module, "FETCHED_BYTES", 1000)
    fetches = Fetches(monkeypatch, lambda uri: None)
    sizes = (1000, 1001, 0)
    images = [each._replace(size_bytes=size) for each, size in zip(images, sizes, strict=True)]
    with extracting(QuarterMeans()) as extractor:
        _, failures = extractor.compute(images)
        assert {row: failure.status for row, failure in failures.items()} == {1: "too_large"}
        assert Computing(extractor, images).greys() == [10, None, 30]
    assert images[1].uri not in fetches.uris


def test_files_in_memory_at_once_are_bounded_in_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given memory for three files, eight threads that fetch, and a store that answers three at once
    size_bytes, lock, held, most = 1000, threading.Lock(), [0], [0]
    three = threading.Barrier(3, timeout=TIMEOUT_S)
    monkeypatch.setattr(extractor_module, "FETCHED_BYTES", 3 * size_bytes)

    def hold(uri: str) -> None:
        with lock:
            held[0] += size_bytes
            most[0] = max(most[0], held[0])
        three.wait()

    def let_go(data: bytes, *options: int) -> Pixels:
        with lock:
            held[0] -= size_bytes
        return decode(data, *options)  # type: ignore[arg-type]

    Fetches(monkeypatch, hold)
    monkeypatch.setattr(extractor_module, "decode", let_go)
    greys = range(10, 250, 10)
    images = [each._replace(size_bytes=size_bytes) for each in of_greys(tmp_path, greys)]

    # Then it is asked for three at once, and never for more till these are decoded
    with extracting(QuarterMeans(), 8, 2) as extractor:
        assert Computing(extractor, images).greys() == list(greys)
    assert most[0] == 3 * size_bytes


def test_bytes_of_files_that_cannot_be_fetched_or_decoded_are_given_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given memory for one file
    monkeypatch.setattr(extractor_module, "FETCHED_BYTES", 1000)
    bad = [corrupt(tmp_path, 1), Image(str(tmp_path / "missing.png"), "x"), corrupt(tmp_path, 2)]
    images = [each._replace(size_bytes=1000) for each in (*bad, *of_greys(tmp_path, [10]))]
    with extracting(QuarterMeans(), 1, 1) as extractor:
        assert Computing(extractor, images).greys() == [None, None, None, 10]


def test_a_backbone_that_takes_smaller_batches_from_now_on_is_given_them(tmp_path: Path) -> None:
    class Halving(QuarterMeans):
        def features(self, images: npt.NDArray[np.uint8]) -> Floats:
            self.batch_size = 2
            return super().features(images)

    network = Halving()
    greys = range(10, 210, 10)
    with extracting(network, 1, 1) as extractor:
        assert Computing(extractor, of_greys(tmp_path, greys)).greys() == list(greys)
    # two streams: both may have taken four before the first was computed
    assert network.batches.count(4) <= 2
    assert set(network.batches) == {4, 2}


def test_close_waits_for_the_shards_at_hand_and_ends_every_thread(tmp_path: Path) -> None:
    before = set(threading.enumerate())
    network = Gated()
    network.gate.clear()
    extractor = Extractor(network, 3, 2)
    threads = [each for each in threading.enumerate() if each not in before]
    assert len(threads) == 3 + 2 + 2
    greys = range(10, 110, 10)
    shard = Computing(extractor, of_greys(tmp_path, greys))
    assert shard.fed.wait(TIMEOUT_S)

    # Given a shard in the backbone, closing waits
    closing = threading.Thread(target=extractor.close, daemon=True)
    closing.start()
    closing.join(SOON_S)
    assert closing.is_alive()

    # And when it is done, all threads end
    network.gate.set()
    closing.join(TIMEOUT_S)
    assert not closing.is_alive()
    assert shard.greys() == list(greys)
    for thread in threads:
        thread.join(TIMEOUT_S)
    assert not [each.name for each in threads if each.is_alive()]


def test_times_add_up_and_begin_anew(tmp_path: Path) -> None:
    images = of_greys(tmp_path, range(10, 110, 10))
    with extracting(Slow(0.01), 3, 2) as extractor:
        # Given two shards, of ten images and of three with a bad one among them
        at_work = [Computing(extractor, each) for each in (images, [*images[:2], corrupt(tmp_path, 0)])]
        for each in at_work:
            each.greys()

        # Then all images that the backbone saw are counted once, and every stage took some time
        times = extractor.times()
        assert times.images == 12
        assert (times.fetch_threads, times.decode_threads) == (3, 2)
        assert min(times.fetch_s, times.decode_s, times.starved_s) > 0
        assert times.backbone_s >= 0.01

        # And told once, it is not told again
        again = extractor.times()
        assert (again.images, again.fetch_s, again.decode_s, again.backbone_s) == (0, 0, 0, 0)
        extractor.compute(images[:5])
        assert extractor.times().images == 5


def test_a_process_keeps_one_extractor_and_changes_it_with_the_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(extractor_module, "_kept", [])
    old, new = Gated(), Gated()
    old.gate.clear()
    kept = extractor_of(old)
    assert extractor_of(old) is kept

    # Given a shard of the old network at hand, another network waits for it
    shard = Computing(kept, of_greys(tmp_path, [10, 20]))
    assert shard.fed.wait(TIMEOUT_S)
    made: list[Extractor] = []
    changing = threading.Thread(target=lambda: made.append(extractor_of(new)), daemon=True)
    changing.start()
    changing.join(SOON_S)
    assert not made
    old.gate.set()
    assert shard.greys() == [10, 20]
    changing.join(TIMEOUT_S)
    assert made[0].network is new
    made[0].close()


def test_an_error_of_this_program_keeps_its_type(tmp_path: Path) -> None:
    """Nothing is wrapped on its way from another thread."""
    (grey,) = of_greys(tmp_path, [10])
    with extracting(QuarterMeans()) as extractor, pytest.raises(RetrainError, match="stopping"):
        extractor.compute([grey], raising(HandedBack("stopping")))
