"""Little is waited for one thing after the other where a bucket has to be waited for."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from her2core.params import ProfileParams, PyramidParams
from her2core.profile.sampling import SampledSlide
from her2core.pyramid import reader as pyramid_reader
from her2core.pyramid import writer
from her2core.pyramid.reader import PyramidReader
from her2core.readers import MemoryReader
from her2core.records import PyramidRef
from her2core.storage.store import Store

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
    writer.write_shard(slide, Store(tmp_path), "p", writer.grid_of(64, 64, PARAMS), PARAMS, (0, 0))
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
