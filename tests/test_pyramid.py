"""Pyramids hold the right pixels, whatever their layout, and open with programs that know nothing of ours."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from ome_zarr.io import parse_url
from ome_zarr.reader import Reader
from ome_zarr_models.v05 import Image, ImageLabel

from her2core.errors import StoreError
from her2core.params import PyramidParams
from her2core.pyramid import reader as pyramid_reader
from her2core.pyramid.dataset import open_level
from her2core.pyramid.labels import list_labels, read_label, write_label
from her2core.pyramid.reader import PyramidReader
from her2core.pyramid.writer import (
    estimate_size,
    finalise,
    grid_of,
    shards_done,
    write_shards,
    write_top,
)
from her2core.readers.memory import MemoryReader
from her2core.readers.zarr_codecs import register_image_codecs
from her2core.records import Box, LevelInfo, PyramidRef, SlideInfo
from her2core.storage.store import Store
from tests.conftest import Bucket

PATH = "pyramids/key"


def picture(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Tissue-like noise with a white, a grey and a dark patch."""
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    image[: height // 3, : width // 2] = 255
    image[height // 2 :, width // 2 :] = (243, 241, 240)
    return image


def convert(
    reader: MemoryReader, store: Store, chunk: int = 16, shard: int = 64, codec: str = "blosc-lz4"
) -> PyramidRef:
    params = PyramidParams(chunk, shard, codec)
    grid = grid_of(reader.info.height, reader.info.width, params)
    for task in reversed(grid.tasks()):
        write_shards(reader, store, PATH, grid, params, [task])
    write_top(store, PATH, grid, params)
    return finalise(store, PATH, grid, params, identity=reader.info.identity, mpp=0.25)


def halved(level: np.ndarray) -> np.ndarray:
    """One output pixel at a time, by the definition."""
    height, width = level.shape[:2]
    out = np.empty(((height + 1) // 2, (width + 1) // 2, 3), np.uint8)
    for y in range(out.shape[0]):
        for x in range(out.shape[1]):
            rows, columns = (2 * y, min(2 * y + 1, height - 1)), (2 * x, min(2 * x + 1, width - 1))
            out[y, x] = (sum(level[r, c].astype(int) for r in rows for c in columns) + 2) >> 2
    return out


def stored(store: Store, level: int) -> np.ndarray:
    """A level as zarr-python reads it, (y, x, c)."""
    register_image_codecs()
    array = zarr.open_group(store.zarr_store(PATH), mode="r")[str(level)]
    return np.moveaxis(np.asarray(array[:]), 0, -1)


@given(
    height=st.integers(1, 90),
    width=st.integers(1, 90),
    chunk=st.sampled_from([2, 8, 16, 32]),
    side=st.sampled_from([1, 2, 4]),
    codec=st.sampled_from(["blosc-lz4", "zstd", "htj2k"]),
)
@settings(max_examples=40, deadline=None)
def test_every_level_is_the_mean_of_the_one_above_for_any_layout(
    height: int, width: int, chunk: int, side: int, codec: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    want = picture(height, width)
    store = Store(tmp_path_factory.mktemp("pyramid"))
    ref = convert(MemoryReader(want), store, chunk, chunk * side, codec)
    for level in range(len(ref.shapes)):
        assert np.array_equal(stored(store, level), want)
        want = halved(want)
    assert max(ref.shapes[-1]) <= chunk
    assert len(ref.shapes) == 1 or max(ref.shapes[-2]) > chunk


def test_writing_again_gives_the_same_bytes_in_any_order(tmp_path: Path) -> None:
    image = picture(150, 130)
    store, params = Store(tmp_path), PyramidParams(16, 64)
    ref = convert(MemoryReader(image), store)
    before = {name: store.read_bytes(name) for name in store.list(PATH, recursive=True)}
    grid = grid_of(150, 130, params)
    with ThreadPoolExecutor(3) as pool:
        list(
            pool.map(
                lambda task: write_shards(MemoryReader(image), store, PATH, grid, params, [task]),
                grid.tasks(),
            )
        )
    assert finalise(store, PATH, grid, params, identity=ref.identity, mpp=0.25) == ref
    assert {name: store.read_bytes(name) for name in store.list(PATH, recursive=True)} == before


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Store, PyramidRef, np.ndarray]:
    store, image = Store(tmp_path_factory.mktemp("made")), picture(201, 333)
    return store, convert(MemoryReader(image), store), image


def test_indexes_are_remembered_up_to_a_number_of_bytes(
    made: tuple[Store, PyramidRef, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    store, ref, image = made
    kept = pyramid_reader._Indexes(most=3 * 16 * 4 * 4)  # of three shards of 4 x 4 chunks
    monkeypatch.setattr(pyramid_reader, "_known", kept)
    out = np.empty_like(image)
    for _ in range(2):
        PyramidReader(store, ref).read(0, 0, 0, out)
        assert np.array_equal(out, image)
        assert len(kept._kept) == 3
        assert kept._bytes == sum(index.nbytes for index in kept._kept.values())


@given(
    level=st.integers(0, 5),
    y0=st.integers(-40, 220),
    x0=st.integers(-40, 350),
    height=st.integers(1, 120),
    width=st.integers(1, 120),
)
@settings(max_examples=200, deadline=None)
def test_any_region_is_read_right(
    made: tuple[Store, PyramidRef, np.ndarray], level: int, y0: int, x0: int, height: int, width: int
) -> None:
    store, ref, image = made
    for _ in range(level):
        padded = np.pad(
            image, ((0, image.shape[0] % 2), (0, image.shape[1] % 2), (0, 0)), mode="edge"
        ).astype(int)
        image = (
            (padded[::2, ::2] + padded[1::2, ::2] + padded[::2, 1::2] + padded[1::2, 1::2] + 2) >> 2
        ).astype(np.uint8)
    around = np.pad(image, ((200, 500), (200, 500), (0, 0)), constant_values=255)
    out = np.zeros((height, width + 2, 3), np.uint8)[:, 1:-1]  # rows that do not lie end to end
    PyramidReader(store, ref).read(level, y0, x0, out)
    assert np.array_equal(out, around[y0 + 200 : y0 + 200 + height, x0 + 200 : x0 + 200 + width])


def test_chunks_that_are_not_wanted_are_left_out(made: tuple[Store, PyramidRef, np.ndarray]) -> None:
    store, ref, image = made
    want, asked = image[80:128, :48].copy(), []

    def wanted(chunk: Box) -> bool:
        asked.append((chunk.y0, chunk.x0, chunk.height, chunk.width))
        return asked[-1][:2] != (96, 32)

    out = np.zeros_like(want)
    PyramidReader(store, ref).read(0, 80, 0, out, wanted)
    want[16:32, 32:] = 255
    assert np.array_equal(out, want)
    assert sorted(asked) == [(y, x, 16, 16) for y in (80, 96, 112) for x in (0, 16, 32)]


def test_threads_share_a_reader(made: tuple[Store, PyramidRef, np.ndarray]) -> None:
    store, ref, image = made
    reader = PyramidReader(store, ref)

    def read(at: int) -> bool:
        out = np.empty((50, 60, 3), np.uint8)
        reader.read(0, at, 2 * at, out)
        return np.array_equal(out, image[at : at + 50, 2 * at : 2 * at + 60])

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(read, [*range(0, 130, 3)] * 3))


def test_levels_lie_over_each_other_in_micrometres(made: tuple[Store, PyramidRef, np.ndarray]) -> None:
    store, ref, _ = made
    multiscale = store.read_json(f"{PATH}/zarr.json")["attributes"]["ome"]["multiscales"][0]
    assert [axis["name"] for axis in multiscale["axes"]] == ["c", "y", "x"]
    for level, dataset in enumerate(multiscale["datasets"]):
        scale, translation = dataset["coordinateTransformations"]
        # The corner of the first pixel, half a pixel before its centre, is the same place at every level.
        for axis in (1, 2):
            assert scale["scale"][axis] == 0.25 * 2**level
            assert translation["translation"][axis] - scale["scale"][axis] / 2 == -0.125
    assert len(multiscale["datasets"]) == len(ref.shapes)


def test_an_independent_package_finds_image_and_label_valid(tmp_path: Path) -> None:
    store = Store(tmp_path)
    ref = convert(MemoryReader(picture(100, 140)), store)
    mask = (np.add.outer(np.arange(50), np.arange(70)) % 7 < 3).astype(np.uint8)
    write_label(store, ref, "tissue", mask, 1)
    image = Image.from_zarr(zarr.open_group(store.zarr_store(PATH), mode="r"))
    assert len(image.ome_attributes.multiscales[0].datasets) == len(ref.shapes)
    assert image.labels is not None
    assert image.labels.label_paths == ["tissue"]
    label = ImageLabel.from_zarr(zarr.open_group(store.zarr_store(f"{PATH}/labels/tissue"), mode="r"))
    assert len(label.ome_attributes.multiscales[0].datasets) == len(ref.shapes)


@pytest.mark.parametrize("codec", ["blosc-lz4", "zstd"])
def test_chunks_need_no_codec_that_viewers_lack(codec: str, tmp_path: Path) -> None:
    """Viv 0.21 and ome-zarr.js stand on a zarrita that fails on ``transpose``; pixels are planar instead."""
    store = Store(tmp_path)
    ref = convert(MemoryReader(picture(100, 140)), store, codec=codec)
    write_label(store, ref, "tissue", np.ones(ref.shapes[1], np.uint8), 1)
    arrays = [f"{PATH}/{level}" for level in range(len(ref.shapes))] + [f"{PATH}/labels/tissue/0"]
    for array in arrays:
        (sharding,) = store.read_json(f"{array}/zarr.json")["codecs"]
        inner = [step["name"] for step in sharding["configuration"]["codecs"]]
        assert inner == ["bytes", "blosc" if codec == "blosc-lz4" and "labels" not in array else "zstd"]


@pytest.mark.parametrize("filled", [True, False])
def test_strict_readers_find_what_they_ask_for(filled: bool, tmp_path: Path) -> None:
    """What the strict schemas of OME-NGFF 0.5 add, also of a slide without tissue."""
    store, params = Store(tmp_path), PyramidParams(16, 64)
    ref = convert(MemoryReader(picture(100, 140)), store)
    grid = grid_of(100, 140, params)
    write_label(store, ref, "tissue", np.full(ref.shapes[1], filled, np.uint8), 1)
    finalise(store, PATH, grid, params, identity="1-x", mpp=0.25, name="CASE-7 A1")  # as a retry does
    image, label = (
        store.read_json(f"{PATH}{place}/zarr.json")["attributes"]["ome"] for place in ("", "/labels/tissue")
    )
    assert image["multiscales"][0]["name"] == "CASE-7 A1"
    for ome in (image, label):
        assert {"name", "type", "metadata"} <= set(ome["multiscales"][0])
    assert [colour["label-value"] for colour in label["image-label"]["colors"]] == [1]
    ImageLabel.from_zarr(zarr.open_group(store.zarr_store(f"{PATH}/labels/tissue"), mode="r"))

    consolidated = zarr.open_group(store.zarr_store(PATH), mode="r", use_consolidated=True)
    whole = zarr.open_group(store.zarr_store(PATH), mode="r", use_consolidated=False)
    names = [
        sorted((name, dict(node.attrs)) for name, node in group.members(None))
        for group in (consolidated, whole)
    ]
    assert names[0] == names[1]
    assert len(names[0]) == 2 * len(ref.shapes) + 2
    assert (np.asarray(consolidated["labels/tissue/0"]) == filled).all()


def test_ome_zarr_py_opens_image_and_label(tmp_path: Path) -> None:
    store, image = Store(tmp_path), picture(100, 140)
    ref = convert(MemoryReader(image), store)
    write_label(store, ref, "tissue", np.ones(ref.shapes[2], np.uint8), 2)
    location = parse_url(store.uri(PATH))
    assert location is not None
    nodes = list(Reader(location)())
    assert [level.shape[1:] for level in nodes[0].data] == list(ref.shapes)
    assert np.array_equal(np.moveaxis(nodes[0].data[0].compute(), 0, -1), image)
    assert any(node.zarr.path.endswith("labels/tissue") or "tissue" in str(node.zarr) for node in nodes)


def test_lossy_jpeg_stays_close_and_shrinks(tmp_path: Path) -> None:
    ramp = np.add.outer(np.arange(300), np.arange(300))[..., None] // [2, 3, 4]
    image = (255 - ramp % 200).astype(np.uint8)
    exact, lossy = Store(tmp_path / "exact"), Store(tmp_path / "lossy")
    raw = convert(MemoryReader(image), exact, 64, 256, "zstd")
    small = convert(MemoryReader(image), lossy, 64, 256, "jpeg-95")
    for level in range(len(raw.shapes)):
        assert np.abs(stored(lossy, level).astype(int) - stored(exact, level)).mean() < 3
    assert small.codec == "jpeg-95"


def test_reported_size_is_what_lies_in_the_store(tmp_path: Path) -> None:
    store = Store(tmp_path)
    ref = convert(MemoryReader(picture(150, 90)), store)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert ref.objects == len(files)
    assert ref.bytes_written == sum(path.stat().st_size for path in files)


def header(size_bytes: int, height: int, width: int, compression: str) -> SlideInfo:
    return SlideInfo("slide", "1-x", size_bytes, "tiff", "tiff", (LevelInfo(height, width, 1.0),), 256, 256,
                     compression, 0.25, "manifest", ("0",), None, None, None)  # fmt: skip


def test_estimate_counts_objects_exactly_and_follows_tissue() -> None:
    params = PyramidParams()
    pixels = 40_000 * 30_000
    tissue, glass, raw = (
        estimate_size(header(size, 30_000, 40_000, kind), params)
        for size, kind in ((pixels // 4, "JPEG"), (pixels // 30, "JPEG"), (3 * pixels, "none"))
    )
    assert tissue.objects == grid_of(30_000, 40_000, params).objects
    assert 1.33 * pixels < tissue.pixels < 1.34 * pixels
    assert 2.0 < tissue.stored_bytes / tissue.pixels < 3.0  # little is to be had from tissue without loss
    assert glass.stored_bytes < 0.3 * tissue.stored_bytes
    assert glass.stored_bytes < raw.stored_bytes < tissue.stored_bytes
    smaller = estimate_size(header(pixels // 4, 30_000, 40_000, "JPEG"), PyramidParams(codec="jpeg-90"))
    assert smaller.stored_bytes < 0.2 * tissue.stored_bytes


def test_half_a_pyramid_cannot_be_opened_or_finalised(tmp_path: Path) -> None:
    store, reader = Store(tmp_path), MemoryReader(picture(150, 130))
    params = PyramidParams(16, 64)
    grid = grid_of(150, 130, params)
    for task in grid.tasks()[:-1]:
        write_shards(reader, store, PATH, grid, params, [task])
    with pytest.raises(FileNotFoundError):
        zarr.open_group(store.zarr_store(PATH), mode="r")
    with pytest.raises(StoreError, match=r"lacks \d+ of \d+ shards"):
        finalise(store, PATH, grid, params, identity="1-x", mpp=0.25)
    assert not store.exists(f"{PATH}/zarr.json")
    with pytest.raises(StoreError, match=r"0/c/0/2/2|/c/0/2/2"):
        write_top(store, PATH, grid, params)


class Killed(BaseException):
    """Stands for the end of the process."""


def test_a_task_that_died_before_its_last_write_is_not_seen_as_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, reader = Store(tmp_path), MemoryReader(picture(64, 64))
    params = PyramidParams(16, 64)
    grid = grid_of(64, 64, params)
    write_bytes = Store.write_bytes
    writes: list[str] = []
    allowed = 0

    def dying(self: Store, path: str, data: memoryview) -> None:
        if len(writes) == allowed:
            raise Killed
        writes.append(path)
        write_bytes(self, path, data)

    monkeypatch.setattr(Store, "write_bytes", dying)
    for survived in range(grid.band):
        allowed = survived
        writes.clear()
        with pytest.raises(Killed):
            write_shards(reader, store, PATH, grid, params, [(0, 0)])
        assert (0, 0) not in shards_done(store, PATH, grid)
    allowed = grid.band
    writes.clear()
    write_shards(reader, store, PATH, grid, params, [(0, 0)])
    assert (0, 0) in shards_done(store, PATH, grid)
    assert writes[-1] == f"{PATH}/0/c/0/0/0"
    assert {path.split("/")[2] for path in writes} == {"0", "1", "2"}


def test_killed_in_the_middle_the_done_shards_are_whole(tmp_path: Path) -> None:
    script = textwrap.dedent(
        f"""
        import numpy as np
        from her2core.params import PyramidParams
        from her2core.pyramid.writer import grid_of, write_shards
        from her2core.readers.memory import MemoryReader
        from her2core.storage.store import Store

        reader = MemoryReader(np.random.default_rng(0).integers(0, 256, (2048, 2048, 3), dtype=np.uint8))
        params, store = PyramidParams(64, 256), Store({str(tmp_path)!r})
        grid = grid_of(2048, 2048, params)
        for task in grid.tasks():
            write_shards(reader, store, {PATH!r}, grid, params, [task])
            print(task, flush=True)
        """
    )
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    for _ in range(12):
        process.stdout.readline()
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()
    image = np.random.default_rng(0).integers(0, 256, (2048, 2048, 3), dtype=np.uint8)
    store, params = Store(tmp_path), PyramidParams(64, 256)
    grid = grid_of(2048, 2048, params)
    done = shards_done(store, PATH, grid)
    assert 12 <= len(done) < len(grid.tasks())
    ref = PyramidRef(PATH, "", grid.shapes, 64, 256, 0.25, "blosc-lz4", 0, 0)
    for task in done:
        box = grid.shard_box(0, *task)
        out = np.empty((256, 256, 3), np.uint8)
        PyramidReader(store, ref).read(0, box.y0, box.x0, out)
        assert np.array_equal(out, image[box.y0 : box.y1, box.x0 : box.x1])
        assert all(store.exists(f"{PATH}/{level}/c/0/{task[0]}/{task[1]}") for level in range(grid.band))


def test_missing_and_damaged_shards_are_named(tmp_path: Path) -> None:
    store = Store(tmp_path)
    ref = convert(MemoryReader(picture(100, 100)), store)
    out = np.empty((10, 10, 3), np.uint8)
    reader = PyramidReader(store, ref)
    data = bytearray(store.read_bytes(f"{PATH}/0/c/0/1/1"))
    reader.read(0, 45, 5, out)
    for gone in ("0/0", "0/1"):  # with its index remembered, and without
        store.delete(f"{PATH}/0/c/0/{gone}")
        with pytest.raises(StoreError, match=rf"{PATH}/0/c/0/{gone}, .* is missing"):
            reader.read(0, 45, 5 if gone == "0/0" else 80, out)
    store.write_bytes(f"{PATH}/0/c/0/1/0", data[:40])
    with pytest.raises(StoreError, match=re.escape(f"{PATH}/0/c/0/1/0 is damaged")):
        reader.read(0, 80, 5, out)
    data[:64] = bytes(64)  # the first chunk's header
    store.write_bytes(f"{PATH}/0/c/0/1/1", data)
    with pytest.raises(StoreError, match=re.escape(f"{PATH}/0/c/0/1/1 is damaged: chunk at byte 0")):
        reader.read(0, 64, 64, out)


@pytest.mark.parametrize("level", [0, 2, 4])
def test_labels_come_back_and_overlay_every_level(level: int, tmp_path: Path) -> None:
    store = Store(tmp_path)
    ref = convert(MemoryReader(picture(203, 151)), store)
    mask = np.random.default_rng(1).integers(0, 3, ref.shapes[level], dtype=np.uint8)
    write_label(store, ref, "tissue", mask, level)
    write_label(store, ref, "roi", (mask > 0), level)
    back, downsample = read_label(store, ref, "tissue")
    assert np.array_equal(back, mask)
    assert downsample == 2**level
    assert list_labels(store, ref) == ["roi", "tissue"]
    for other, (height, width) in enumerate(ref.shapes):
        got = np.asarray(zarr.open_array(store.zarr_store(f"{PATH}/labels/tissue/{other}"), mode="r")[:])
        rows = np.arange(height) * 2**other // 2**level
        columns = np.arange(width) * 2**other // 2**level
        assert np.array_equal(got, mask[np.ix_(rows, columns)])
    document = store.read_json(f"{PATH}/labels/tissue/zarr.json")
    image = store.read_json(f"{PATH}/zarr.json")
    places = [
        [
            d["coordinateTransformations"][0]["scale"][-2:]
            for d in doc["attributes"]["ome"]["multiscales"][0]["datasets"]
        ]
        for doc in (document, image)
    ]
    assert places[0] == places[1]


def test_labels_of_the_wrong_shape_or_name_are_refused(made: tuple[Store, PyramidRef, np.ndarray]) -> None:
    store, ref, _ = made
    with pytest.raises(ValueError, match="level 1"):
        write_label(store, ref, "tissue", np.zeros((3, 3), np.uint8), 1)
    with pytest.raises(StoreError, match="no such label"):
        read_label(store, ref, "nothing")


def test_on_s3(s3: Bucket) -> None:
    store, image = Store(f"{s3.uri}/out", endpoint_url=s3.endpoint_url), picture(300, 260)
    params = PyramidParams(32, 128)
    grid = grid_of(300, 260, params)
    for task in grid.tasks():
        assert task not in shards_done(store, PATH, grid)
        write_shards(MemoryReader(image), store, PATH, grid, params, [task])
        assert task in shards_done(store, PATH, grid)
    write_top(store, PATH, grid, params)
    ref = finalise(store, PATH, grid, params, identity="1-x", mpp=0.25)
    assert ref.objects == len(store.list(PATH, recursive=True))
    assert ref.bytes_written == sum(store.size(name) for name in store.list(PATH, recursive=True))
    out = np.empty((150, 200, 3), np.uint8)
    PyramidReader(store, ref).read(0, 100, 30, out)
    assert np.array_equal(out, image[100:250, 30:230])
    mask = np.ones(ref.shapes[1], np.uint8)
    write_label(store, ref, "tissue", mask, 1)
    assert np.array_equal(read_label(store, ref, "tissue")[0], mask)
    level = open_level(store.uri(PATH), 0, {"endpoint_url": s3.endpoint_url})
    assert np.array_equal(level.transpose("y", "x", "c").values, image)
    for gone, at in (("1/1", 130), ("2/2", 258)):  # with its index remembered, and without
        store.delete(f"{PATH}/0/c/0/{gone}")
        with pytest.raises(StoreError, match=rf"{PATH}/0/c/0/{gone}, .* is missing"):
            PyramidReader(store, ref).read(0, at, at, out[:9, :9])


def test_nothing_but_pixels_leaves_the_slide(shared_data: Path, tmp_path: Path) -> None:
    """A real Aperio file holds a label, a macro picture and a header with a file name, user and date."""
    from her2core.readers import open_slide

    source = shared_data / "wsi" / "cmu-1-small-region.svs"
    store, params = Store(tmp_path), PyramidParams()
    with open_slide(source) as reader:
        grid = grid_of(reader.info.height, reader.info.width, params)
        for task in grid.tasks():
            write_shards(reader, store, PATH, grid, params, [task])
        write_top(store, PATH, grid, params)
        ref = finalise(store, PATH, grid, params, identity=reader.info.identity, mpp=reader.info.mpp or 0.5)
        whole = np.empty((reader.info.height, reader.info.width, 3), np.uint8)
        reader.read_region(0, 0, whole)
    assert np.array_equal(stored(store, 0), whole)
    documents = [
        json.loads(store.read_bytes(n)) for n in store.list(PATH, recursive=True) if n.endswith("zarr.json")
    ]
    shapes = [tuple(d["shape"][1:]) for d in documents if d["node_type"] == "array"]
    assert sorted(shapes) == sorted(ref.shapes)
    text = json.dumps(documents)
    assert not re.search(r"Aperio|CMU|ScanScope|Filename|User|Date|label|macro", text.replace('"label":', ""))
    groups = [d["attributes"] for d in documents if d["node_type"] == "group"]
    assert [set(g) for g in groups] == [{"ome"}]
    assert set(groups[0]["ome"]) == {"version", "multiscales", "omero"}
    assert all(d["attributes"] == {} for d in documents if d["node_type"] == "array")
