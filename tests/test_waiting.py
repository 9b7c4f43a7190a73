"""Little is waited for one thing after the other where a bucket has to be waited for."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from her2core.params import ProfileParams, PyramidParams
from her2core.pixels import RGB8
from her2core.profile.sampling import SampledSlide
from her2core.pyramid import reader as pyramid_reader
from her2core.pyramid import writer
from her2core.pyramid.reader import PyramidReader
from her2core.readers import MemoryReader, open_slide
from her2core.readers.bytesource import RemoteBytes
from her2core.records import Box, PyramidRef
from her2core.stages import parts
from her2core.storage.store import Store
from her2core.storage.waiting import Uploads, side_by_side
from tests.conftest import Bucket
from tests.helpers import jpegslides
from tests.test_source_codec import scene
from tests.tools.faultproxy import Fault, FaultProxy

PARAMS = PyramidParams(16, 64, "zstd")


class Remote:
    """A folder as an object store's client sees it; notes what is asked at once."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, list[str]]] = []

    def pipe(self, objects: Mapping[str, bytes], **how: Any) -> None:
        self._write("pipe", objects)

    def pipe_file(self, path: str, body: bytes, **how: Any) -> None:
        self._write("pipe_file", {path: body})

    def _write(self, verb: str, objects: Mapping[str, bytes]) -> None:
        self.asked.append((verb, [level(path) for path in objects]))
        for path, body in objects.items():
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            Path(path).write_bytes(body)

    def cat_ranges(
        self, paths: Sequence[str], starts: Sequence[int], ends: Sequence[int | None], on_error: str
    ) -> list[bytes]:
        self.asked.append(("cat_ranges", [level(path) for path in paths]))
        found = zip(paths, starts, ends, strict=True)
        return [Path(path).read_bytes()[start:end] for path, start, end in found]


def level(path: str) -> str:
    return path.split("/p/")[1].split("/")[0]


@pytest.fixture
def remote(monkeypatch: pytest.MonkeyPatch) -> Remote:
    client = Remote()
    monkeypatch.setattr(pyramid_reader, "_known", pyramid_reader._Indexes(1 << 16))
    monkeypatch.setattr(Store, "is_local", property(lambda self: False))
    monkeypatch.setattr(Store, "fs", property(lambda self: client))
    return client


def made(folder: Path) -> tuple[PyramidRef, np.ndarray]:
    pixels = np.random.default_rng(1).integers(0, 200, (150, 190, 3), dtype=np.uint8)
    return writer.convert(MemoryReader(pixels), Store(folder), "p", PARAMS, mpp=0.25), pixels


def test_shards_of_a_task_are_written_at_once_and_the_one_that_tells_last(
    tmp_path: Path, remote: Remote
) -> None:
    slide = MemoryReader(np.full((64, 64, 3), 9, np.uint8))
    writer.write_shards(slide, Store(tmp_path), "p", writer.grid_of(64, 64, PARAMS), PARAMS, [(0, 0)])
    assert remote.asked == [("pipe", ["2", "1"]), ("pipe_file", ["0"])]


def test_a_region_takes_two_requests_in_turn_and_then_one(
    tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    ref, pixels = made(tmp_path)
    client: Remote = request.getfixturevalue("remote")
    out = np.empty((150, 190, 3), np.uint8)
    for expected in (2, 1):
        client.asked.clear()
        PyramidReader(Store(tmp_path), ref).read(0, 0, 0, out)
        assert np.array_equal(out, pixels)
        assert [len(paths) >= 9 for _, paths in client.asked] == [True] * expected


def test_sampled_tiles_are_read_side_by_side_and_come_in_order() -> None:
    pixels = np.random.default_rng(2).integers(0, 256, (512, 512, 3), dtype=np.uint8)
    ref = PyramidRef("p", "1-x", ((512, 512),), 512, 512, 2.0, "zstd", 1, 1)

    class Level:
        waits = False

        def read(self, level: int, y0: int, x0: int, out: np.ndarray) -> None:
            out[...] = pixels[y0 : y0 + out.shape[0], x0 : x0 + out.shape[1]]

    class Slow(Level):
        waits = True
        pair, begun = threading.Barrier(2, timeout=30), itertools.count()

        def read(self, level: int, y0: int, x0: int, out: np.ndarray) -> None:
            if next(self.begun) < 2:
                self.pair.wait()  # the first passes only beside another
            super().read(level, y0, x0, out)

    params = ProfileParams(sample_tiles=16)
    plain, slow = (SampledSlide(reader, ref, params) for reader in (Level(), Slow()))
    boxes = list(plain.tiles())[:16]
    for (box, mine), (other, theirs) in zip(plain._read_ahead(boxes), slow._read_ahead(boxes), strict=True):
        assert box == other
        assert np.array_equal(mine, theirs)


# uploads in the background


class Stored:
    """What `Uploads` asks of a store; objects in the order in which they were stored."""

    is_local = False

    def __init__(self, hold: threading.Event | None = None) -> None:
        self.stored: list[str] = []
        self.hold = hold
        self.in_flight = self.most = 0
        self.lock = threading.Lock()

    def write_many(self, objects: Mapping[str, bytes]) -> None:
        size = sum(map(len, objects.values()))
        with self.lock:
            self.in_flight += size
            self.most = max(self.most, self.in_flight)
        if self.hold is not None:
            self.hold.wait(30)
        with self.lock:
            self.in_flight -= size
            if any(path.startswith("bad") for path in objects):
                raise OSError("503")
            self.stored += objects


def uploads(bucket: Stored, most: int = 1000) -> Uploads:
    return Uploads(bucket, most)  # type: ignore[arg-type]


def put_all(bucket: Stored, objects: Sequence[Mapping[str, bytes]]) -> None:
    with uploads(bucket) as background:
        for number, each in enumerate(objects, 1):
            background.put(each, last=number == len(objects))


def test_uploads_go_on_while_the_next_is_made_and_are_stored_in_the_end() -> None:
    hold = threading.Event()
    bucket, buffer = Stored(hold), bytearray(b"first")
    with uploads(bucket) as background:
        background.put({"a": memoryview(buffer)})
        buffer[:] = b"again"  # it was taken over
        background.put({"b": b"x", "c": b"y"})
        assert bucket.stored == []
        hold.set()
    assert sorted(bucket.stored) == ["a", "b", "c"]


def test_what_tells_that_all_is_there_is_stored_after_all_else() -> None:
    hold = threading.Event()
    bucket = Stored(hold)
    with uploads(bucket) as background:
        for name in "abcdefgh":  # more than there are threads
            background.put({name: b"x"})
        background.put({"done": b""}, last=True)
        background.put({"more": b""})
        hold.set()
    assert set(bucket.stored[: bucket.stored.index("done")]) >= set("abcdefgh")


def test_memory_of_uploads_is_bounded() -> None:
    bucket = Stored()
    with uploads(bucket, most=10) as background:
        for number in range(20):
            background.put({str(number): b"12345"})
        background.put({"large": b"x" * 50})  # alone
    assert len(bucket.stored) == 21
    assert bucket.most == 50
    uploads(bucket, most=10).put({})  # returns at once


def test_an_upload_that_fails_ends_the_task_that_made_it_and_nothing_is_said_to_be_there() -> None:
    bucket = Stored()
    failing: list[Mapping[str, bytes]] = [{"a": b"x"}, {"bad": b"x"}, {"done": b""}]
    with pytest.raises(OSError, match="503"):
        put_all(bucket, failing)
    assert bucket.stored == ["a"]


def test_an_error_of_the_task_leaves_no_upload_behind() -> None:
    bucket = Stored()
    with pytest.raises(TypeError):
        put_all(bucket, [{"a": b"x"}, {"b": None}])  # type: ignore[dict-item]
    assert bucket.in_flight == 0


def test_what_does_not_depend_on_one_another_is_done_side_by_side_and_its_error_is_told(
    tmp_path: Path,
) -> None:
    pair = threading.Barrier(2, timeout=30)
    bucket: Any = Stored()
    assert len(side_by_side(bucket, [pair.wait, pair.wait])) == 2
    assert len(side_by_side(bucket, [pair.wait] * 6, 2)) == 6
    done: list[int] = []
    with pytest.raises(ZeroDivisionError):
        side_by_side(bucket, [lambda: done.append(1 // 0), lambda: done.append(1)])
    assert done == [1]
    side_by_side(Store(tmp_path), [partial(done.append, number) for number in (2, 3)])
    assert done == [1, 2, 3]


# a slide's tiles


class Ranges:
    """A file as fsspec reads it: notes the ranges of each call."""

    def __init__(self, data: bytes) -> None:
        self.data, self.asked = data, list[list[tuple[int, int]]]()

    def cat_ranges(self, paths: Sequence[str], starts: Sequence[int], ends: Sequence[int]) -> list[Any]:
        self.asked.append(list(zip(starts, ends, strict=True)))
        return [OSError("gone") if start == 666 else self.data[start:end] for start, end in self.asked[-1]]


def test_spans_that_were_begun_are_asked_for_once_and_as_few_ranges() -> None:
    data = np.random.default_rng(0).bytes(400_000)
    fs = Ranges(data)
    source = RemoteBytes(fs, "f", "f", len(data))
    source.begin([(0, 10), (20, 1000), (300_000, 300_100)])
    got = [
        bytes(view) for view in source.read_spans([(0, 10), (25, 30), (200_000, 200_001), (300_000, 300_100)])
    ]
    assert got == [data[0:10], data[25:30], data[200_000:200_001], data[300_000:300_100]]
    assert fs.asked == [[(0, 1000), (300_000, 300_100)], [(200_000, 200_001)]]


def test_what_was_read_ahead_is_let_go() -> None:
    fs = Ranges(bytes(1000))
    source = RemoteBytes(fs, "f", "f", 1000)
    for start in (0, 100, 200):  # the last two are kept
        source.begin([(start, start + 10)])
    assert [bytes(view) for view in source.read_spans([(0, 10), (100, 110)])] == [bytes(10)] * 2
    source.begin([])
    list(source.read_spans([(100, 110)]))
    assert fs.asked.count([(100, 110)]) == 2


def test_spans_that_could_not_be_read_ahead_are_told_where_they_are_wanted() -> None:
    source = RemoteBytes(Ranges(bytes(1000)), "f", "f", 1000)
    source.begin([(666, 700)])
    assert bytes(next(source.read_spans([(0, 5)]))) == bytes(5)
    with pytest.raises(OSError, match="gone"):
        list(source.read_spans([(666, 700)]))


# parts of cells


def test_parts_are_fetched_once_and_come_in_their_order(monkeypatch: pytest.MonkeyPatch) -> None:
    class Far:
        is_local = False
        asked: ClassVar[list[str]] = []

        def read_bytes(self, path: str) -> bytes:
            self.asked.append(path)
            return path.encode() * 10

    monkeypatch.setattr(parts, "KEPT_BYTES", 200)
    store: Any = Far()
    names = [f"part-{number:03d}" for number in range(12)]  # of 80 bytes: two are kept
    bodies = [name.encode() * 10 for name in names]
    for _ in range(2):
        assert list(parts.read_parts(store, names)) == bodies
    assert sorted(Far.asked) == sorted([*names, *names[2:]])
    parts.forget_parts()
    assert next(parts.read_parts(store, names[:1])) == bodies[0]
    assert len(Far.asked) == 23


# a pyramid's chunks


@pytest.mark.parametrize("level", [0, 1, 2])
def test_a_region_that_was_begun_is_not_asked_for_again(
    level: int, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    path = jpegslides.write_slide(tmp_path / "a.svs", scene(301, 523), 32, jpegslides.jpeg)
    with open_slide(path, mpp=0.25) as slide:
        ref = writer.convert(slide, Store(tmp_path), "p", PyramidParams(32, 64, "source"), mpp=0.25)
    near = Box(-5, 20, 60, 70)

    def wanted(chunk: Box) -> bool:
        return chunk.x0 < 60

    plain, ahead = (np.empty((65, 50, 3), np.uint8) for _ in range(2))
    PyramidReader(Store(tmp_path), ref).read(level, near.y0, near.x0, plain, wanted)
    client: Remote = request.getfixturevalue("remote")
    reader = PyramidReader(Store(tmp_path), ref)
    begun = reader.begin(level, near, wanted).result()
    client.asked.clear()
    reader.read(level, near.y0, near.x0, ahead, wanted, begun)
    assert np.array_equal(plain, ahead)
    assert client.asked == []


# a task of the pyramid


@given(
    height=st.integers(1, 700),
    width=st.integers(1, 700),
    chunk=st.sampled_from([16, 32]),
    side=st.sampled_from([1, 2, 8, 32]),
)
@settings(max_examples=25, deadline=None)
def test_shards_are_read_ahead_in_the_order_in_which_they_are_made(
    height: int, width: int, chunk: int, side: int
) -> None:
    params = PyramidParams(chunk, chunk * side, "source-jpeg-16")
    grid = writer.grid_of(height, width, params)
    work = writer._workspace(grid, params, RGB8, 0)
    for task in grid.tasks():
        made: list[tuple[int, int]] = []

        def source(y: int, x: int, chunk: np.ndarray, task: Any = task, made: Any = made) -> np.ndarray:
            at = (task[0] * grid.block + y // grid.shard, task[1] * grid.block + x // grid.shard)
            if not made or made[-1] != at:
                made.append(at)
            chunk.fill(255)
            return chunk

        boxes = [grid.task_box(*task), *(grid.shard_box(level, *task) for level in grid.band_levels(0)[1:])]
        work.build(source, boxes, grid.shard)
        assert made == work.order(grid, *task)
        assert made[-1] == grid.last_shard(*task)


def test_a_task_of_which_an_object_is_not_stored_is_not_done(tmp_path: Path, remote: Remote) -> None:
    store, grid = Store(tmp_path), writer.grid_of(64, 128, PARAMS)
    slide = MemoryReader(np.full((64, 128, 3), 9, np.uint8))
    stored = remote._write

    def failing(verb: str, objects: Mapping[str, bytes]) -> None:
        if any("/1/c/0/0/1" in path for path in objects):
            raise OSError("503")
        stored(verb, objects)

    remote._write = failing  # type: ignore[method-assign]
    with pytest.raises(OSError, match="503"):
        writer.write_shards(slide, store, "p", grid, PARAMS, grid.tasks())
    assert not (tmp_path / "p/0/c/0/0/1").exists()


def test_a_slide_comes_through_a_faulty_network_as_from_a_disk(
    tmp_path: Path, faulty_s3: tuple[Bucket, FaultProxy]
) -> None:
    """Read ahead and stored in the background, over refusals, broken connections and half replies."""
    bucket, proxy = faulty_s3
    path, params = tmp_path / "a.svs", PyramidParams(32, 64, "source")
    jpegslides.write_slide(path, scene(301, 523), 32, jpegslides.jpeg)
    store = Store(bucket.uri)
    store.write_file("a.svs", path)
    proxy.faults = [
        Fault("unavailable", path="/p/0/c", times=2),
        Fault("lost_reply", path="/p/0/c", times=1),
        Fault("unavailable", path="/p/2/c", times=1),
        Fault("truncate", method="GET", path=r"/a\.svs", times=2),
        Fault("truncate", method="GET", path="/p/4/c", times=1),
    ]
    local = Store(tmp_path / "local")
    refs = []
    for place, uri in ((store, store.uri("a.svs")), (local, str(path))):
        with open_slide(uri, mpp=0.25, identity="1-a") as slide:
            refs.append(writer.convert(slide, place, "p", params, mpp=0.25))
    assert proxy.hits == {"unavailable": 3, "lost_reply": 1, "truncate": 3}
    assert refs[0] == refs[1]
    names = local.list("p", recursive=True)
    assert store.list("p", recursive=True) == names
    assert all(store.read_bytes(name) == local.read_bytes(name) for name in names)
