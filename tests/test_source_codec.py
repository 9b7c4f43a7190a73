"""Pyramids that hold a slide's own tiles: the same pixels, nothing of the patient, open to others."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from her2core.config import load_config
from her2core.errors import ConfigError, SlideError
from her2core.grid import EXACT_LEVEL
from her2core.params import PyramidParams
from her2core.phantom import PhantomSpec, render_field
from her2core.pyramid import writer
from her2core.pyramid.dataset import open_level, open_pyramid
from her2core.pyramid.labels import read_label, write_label
from her2core.pyramid.reader import PyramidReader, grid_of_ref
from her2core.pyramid.shards import ABSENT, index_bytes, read_index
from her2core.readers import SlideReader, open_slide
from her2core.readers.standalone import jpeg2000_tiles, jpeg_tiles
from her2core.readers.tiled import TiledReader
from her2core.readers.zarr_codecs import register_image_codecs
from her2core.records import Box, PyramidRef
from her2core.storage.store import Store
from tests.helpers import chain
from tests.helpers.jpegslides import (
    FLAVOURS,
    SECRET,
    SHARED_TABLES,
    jpeg,
    jpeg2000,
    segment,
    told,
    write_flavour,
    write_slide,
)

EDGE = 32


def scene(height: int, width: int) -> np.ndarray:
    """Soft colours with sharp edges, and a corner of white glass."""
    y, x = np.mgrid[:height, :width]
    image = np.stack([128 + 90 * np.sin(x / 9 + c) * np.cos(y / 13) for c in range(3)], axis=-1)
    image[(y // 16 + x // 16) % 5 == 0] -= 35
    image[: height // 2, : width // 2] = 255
    return np.clip(image, 0, 255).astype(np.uint8)


def convert(
    reader: SlideReader, folder: Path, codec: str, chunk: int = 64, shard: int = 256
) -> tuple[Store, PyramidRef]:
    store = Store(folder)
    return store, writer.convert(reader, store, "p", PyramidParams(chunk, shard, codec), mpp=0.25, name="S1")


def level_of(store: Store, ref: PyramidRef, level: int) -> np.ndarray:
    out = np.empty((*ref.shapes[level], 3), np.uint8)
    PyramidReader(store, ref).read(level, 0, 0, out)
    return out


def streams(store: Store, ref: PyramidRef) -> list[bytes]:
    """Every stream of level 0."""
    grid, found = grid_of_ref(ref), []
    side = grid.shard_px(0) // grid.chunk_px(0)
    for iy, ix in grid.tasks():
        shard = store.read_bytes(f"p/0/c/0/{iy}/{ix}")
        index = read_index(shard[-index_bytes(side) :], side).reshape(-1, 2).tolist()
        found += [shard[start : start + size] for start, size in index if start != ABSENT]
    return found


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_pixels_are_the_slides_and_all_levels_those_of_a_lossless_pyramid(
    flavour: str, tmp_path: Path
) -> None:
    path = write_flavour(tmp_path / "a.svs", scene(301, 523), EDGE, flavour)
    with open_slide(path, mpp=0.25) as reader:
        store, ref = convert(reader, tmp_path / "source", "source")
        exact, raw = convert(reader, tmp_path / "raw", "blosc-lz4")
        slide = np.empty((301, 523, 3), np.uint8)
        reader.read_region(0, 0, slide)
    native = "jpeg2000" if flavour == "JPEG 2000" else "jpeg"
    assert (ref.codec, ref.fallback, ref.tiles_encoded) == (f"source-{native}-32", "", 0)
    assert ref.shapes == raw.shapes
    assert np.array_equal(level_of(store, ref, 0), slide)
    for level in range(len(ref.shapes)):
        assert np.array_equal(level_of(store, ref, level), level_of(exact, raw, level))


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_nothing_of_the_patient_is_copied(flavour: str, tmp_path: Path) -> None:
    path = write_flavour(tmp_path / "a.svs", scene(128, 160), EDGE, flavour)
    assert (SECRET in path.read_bytes()) == (flavour != "no end, zeros behind")
    with open_slide(path, mpp=0.25) as reader:
        store, ref = convert(reader, tmp_path / "out", "source")
    for file in (tmp_path / "out").rglob("*"):
        assert not file.is_file() or SECRET not in file.read_bytes()
    assert len(streams(store, ref)) == 4 * 5 - 2 * 2  # white tiles are not stored at all


@pytest.mark.parametrize("flavour", [name for name in FLAVOURS if name != "JPEG 2000"])
def test_any_decoder_sees_the_right_colours(flavour: str, tmp_path: Path) -> None:
    """Pillow is told nothing of the slide: tables and colour transform are in the stream."""
    image = scene(EDGE, EDGE)
    image[:] = (200, 90, 40)
    with open_slide(write_flavour(tmp_path / "a.svs", image, EDGE, flavour), mpp=0.25) as reader:
        store, ref = convert(reader, tmp_path / "out", "source")
    (stream,) = streams(store, ref)
    seen = np.asarray(Image.open(io.BytesIO(stream)).convert("RGB")).astype(int)
    assert np.abs(seen - (200, 90, 40)).max() <= 3


def test_tiles_that_cannot_be_copied_are_stored_without_loss_and_counted(tmp_path: Path) -> None:
    """Some writers cut the tiles of the last row and column to the picture; some leave tiles out."""
    pixels = scene(100, 140)
    pixels[:64, :64] = 90
    cut = iter([(y, x) for y in range(0, 100, EDGE) for x in range(0, 140, EDGE)])

    def encode(tile: np.ndarray) -> bytes:
        y, x = next(cut)
        return b"" if (y, x) == (32, 64) else jpeg(tile[: 100 - y, : 140 - x])

    path = write_slide(tmp_path / "a.svs", pixels, EDGE, encode)
    with open_slide(path, mpp=0.25) as reader:
        store, ref = convert(reader, tmp_path / "source", "source")
        exact, raw = convert(reader, tmp_path / "raw", "zstd")
        assert ref == convert(reader, tmp_path / "source", "source")[1]  # again
    assert ref.tiles_encoded == 4 + 5 - 1
    assert store.read_json("p/zarr.json")["attributes"]["her2core"]["tiles_encoded"] == 8
    assert store.read_json("p/encoded/0-0.json")["tiles"][-1] == [3, 4]
    assert ref.bytes_written == sum(f.stat().st_size for f in (tmp_path / "source").rglob("*") if f.is_file())
    assert (level_of(store, ref, 0)[32:64, 64:96] == 255).all()
    for level in range(len(ref.shapes)):
        assert np.array_equal(level_of(store, ref, level), level_of(exact, raw, level))
    register_image_codecs()
    level = zarr.open_group(store.zarr_store("p"), mode="r")["0"]
    assert np.array_equal(np.moveaxis(np.asarray(level[:]), 0, -1), level_of(exact, raw, 0))


@pytest.mark.parametrize("how", ["deflate", "strips", "odd tiles"])
def test_a_slide_whose_tiles_do_not_fit_is_stored_without_loss_and_says_so(how: str, tmp_path: Path) -> None:
    import tifffile

    options = {
        "deflate": {"tile": (32, 32), "compression": "zlib"},
        "strips": {"rowsperstrip": 16, "compression": "jpeg"},
        "odd tiles": {"tile": (48, 64), "compression": "jpeg"},
    }[how]
    tifffile.imwrite(tmp_path / "a.tif", scene(100, 140), photometric="rgb", metadata=None, **options)
    with open_slide(tmp_path / "a.tif", mpp=0.25) as reader:
        store, ref = convert(reader, tmp_path / "out", "source")
        slide = np.empty((100, 140, 3), np.uint8)
        reader.read_region(0, 0, slide)
        assert not writer.settle(reader.info, PyramidParams(codec="zstd")).fallback
    assert ref.codec == "blosc-lz4"
    assert "tiles of" in ref.fallback
    note = store.read_json("p/zarr.json")["attributes"]["her2core"]
    assert note == {"codec": "source", "stored": "blosc-lz4", "why": ref.fallback}
    assert np.array_equal(level_of(store, ref, 0), slide)


@given(
    height=st.integers(1, 300),
    width=st.integers(1, 300),
    edge=st.sampled_from([16, 48, 64, 80]),
    chunk=st.sampled_from([16, 32, 64]),
    side=st.sampled_from([2, 4, 8]),
    seed=st.integers(0, 9),
)
@settings(max_examples=15, deadline=None)
def test_any_size_and_layout_reads_as_the_slide_halved(
    height: int,
    width: int,
    edge: int,
    chunk: int,
    side: int,
    seed: int,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    folder = tmp_path_factory.mktemp("any")
    path = write_slide(folder / "a.svs", scene(height, width), edge, jpeg)
    with open_slide(path, mpp=0.25) as reader:
        store, ref = convert(reader, folder / "out", "source", chunk, chunk * side)
        want = np.empty((height, width, 3), np.uint8)
        reader.read_region(0, 0, want)
    rng = np.random.default_rng(seed)
    for level, (rows, columns) in enumerate(ref.shapes):
        y0, x0 = int(rng.integers(-20, rows)), int(rng.integers(-20, columns))
        out = np.empty((50, 61, 3), np.uint8)
        PyramidReader(store, ref).read(level, y0, x0, out)
        around = np.pad(want, ((20, 70), (20, 90), (0, 0)), constant_values=255)
        assert np.array_equal(out, around[y0 + 20 :, x0 + 20 :][:50, :61])
        want = chain_halve(want)


def chain_halve(level: np.ndarray) -> np.ndarray:
    even = np.pad(level, ((0, level.shape[0] % 2), (0, level.shape[1] % 2), (0, 0)), mode="edge").astype(int)
    return ((even[::2, ::2] + even[1::2, ::2] + even[::2, 1::2] + even[1::2, 1::2] + 2) >> 2).astype(np.uint8)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Store, PyramidRef, Store, PyramidRef]:
    """A slide of several shards and bands, copied and without loss."""
    folder = tmp_path_factory.mktemp("made")
    path = write_flavour(folder / "a.svs", scene(700, 900), EDGE, SHARED_TABLES)
    with open_slide(path, mpp=0.25) as reader:
        return *convert(reader, folder / "source", "source", 16), *convert(reader, folder / "raw", "zstd", 16)


def test_others_read_it_level_0_and_overviews_bit_by_bit(
    made: tuple[Store, PyramidRef, Store, PyramidRef],
) -> None:
    store, _, exact, raw = made
    levels = [int(path) for path in open_pyramid(store.uri("p")).children]
    assert levels == [0, 2, 4, 6]
    for level in levels:
        seen = open_level(store.uri("p"), level).transpose("y", "x", "c").values
        want = level_of(exact, raw, level)
        if level == 2:
            assert 0 < np.abs(seen.astype(int) - want).mean() < 8
        else:
            assert np.array_equal(seen, want)
    inner = [
        store.read_json(f"p/{level}/zarr.json")["codecs"][0]["configuration"]["codecs"][-1]["name"]
        for level in levels
    ]
    assert inner == ["imagecodecs_jpeg"] * 2 + ["zstd"] * 2
    assert store.read_json("p/0/zarr.json")["codecs"][0]["configuration"]["chunk_shape"] == [3, EDGE, EDGE]


def test_the_level_that_is_viewed_does_not_depend_on_shards(tmp_path: Path) -> None:
    path = write_slide(tmp_path / "a.svs", scene(500, 700), 64, jpeg)
    seen = []
    with open_slide(path, mpp=0.25) as reader:
        for shard in (64, 128, 1024):
            store, _ = convert(reader, tmp_path / f"{shard}", "source", 64, shard)
            seen.append(open_level(store.uri("p"), 2).values)
    assert all(np.array_equal(seen[0], other) for other in seen[1:])


def test_ome_zarr_py_and_labels(made: tuple[Store, PyramidRef, Store, PyramidRef]) -> None:
    from ome_zarr.io import parse_url
    from ome_zarr.reader import Reader
    from ome_zarr_models.v05 import Image as Model

    store, ref, exact, raw = made
    for level in (1, 3, 4, 6, 5):  # two of them are stored
        rows, columns = (np.arange(size) for size in ref.shapes[level])
        mask = (np.add.outer(rows, columns) % 7 < 3).astype(np.uint8)
        write_label(store, ref, "tissue", mask, level)
        found, downsample = read_label(store, ref, "tissue")
        assert np.array_equal(found, mask)
        assert downsample == 2**level
    register_image_codecs()
    location = parse_url(store.uri("p"))
    assert location is not None
    nodes = list(Reader(location)())
    assert np.array_equal(np.moveaxis(nodes[0].data[0].compute(), 0, -1), level_of(exact, raw, 0))
    image = Model.from_zarr(zarr.open_group(store.zarr_store("p"), mode="r"))
    label = zarr.open_group(store.zarr_store("p/labels/tissue"), mode="r").attrs["ome"]
    paths = [dataset.path for dataset in image.ome_attributes.multiscales[0].datasets]
    assert paths == [dataset["path"] for dataset in label["multiscales"][0]["datasets"]] == list("0246")


def test_a_pyramid_of_copied_tiles_is_a_slide_again(
    made: tuple[Store, PyramidRef, Store, PyramidRef],
) -> None:
    store, _, exact, raw = made
    with open_slide(store.uri("p"), mpp=0.25) as reader:
        out = np.empty((*raw.shapes[0], 3), np.uint8)
        reader.read_region(0, 0, out)
        assert (reader.info.compression, reader.info.native) == ("jpeg", "")
    assert np.array_equal(out, level_of(exact, raw, 0))


def test_regions_of_levels_that_are_made_again(made: tuple[Store, PyramidRef, Store, PyramidRef]) -> None:
    store, ref, exact, raw = made
    for level, y0, x0 in ((1, -7, 101), (2, 33, -5), (3, 1, 80), (5, -3, 2)):
        mine, theirs = (np.zeros((90, 121, 3), np.uint8) for _ in range(2))
        PyramidReader(store, ref).read(level, y0, x0, mine)
        PyramidReader(exact, raw).read(level, y0, x0, theirs)
        assert np.array_equal(mine, theirs)
    out = np.zeros((40, 40, 3), np.uint8)
    PyramidReader(store, ref).read(2, 0, 0, out, lambda box: False)
    assert (out == 255).all()


def test_cells_are_those_of_a_lossless_pyramid_in_any_layout(tmp_path: Path) -> None:
    spec = PhantomSpec(seed=11, height_px=700, width_px=760, mix=(0.3, 0.2, 0.1, 0.2, 0.2))
    path = write_flavour(tmp_path / "a.svs", render_field(spec)[0], 64, "422, shared tables, no marker")
    with open_slide(path, mpp=0.125) as reader:  # finer than the kernel's: cells are looked for at level 1
        want = chain.score(reader, tmp_path / "raw", PyramidParams(512, 512, "zstd"))
        assert len(want[1]) > 10
        for chunk, shard in ((128, 512), (256, 1024)):
            params = PyramidParams(chunk, shard, "source")
            profile, table, _ = chain.score(reader, tmp_path / f"{chunk}", params, order=chunk)
            assert profile.stain == want[0].stain
            assert profile.quality == want[0].quality
            assert table.equals(want[1])


def test_a_tile_that_decodes_otherwise_by_itself_stops_the_slide(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_slide(tmp_path / "a.svs", scene(64, 64) // 2, EDGE, jpeg)
    wrong = jpeg(np.zeros((EDGE, EDGE, 3), np.uint8))
    with open_slide(path, mpp=0.25) as reader:
        assert isinstance(reader, TiledReader)
        assert reader.native is not None
        monkeypatch.setattr(reader, "native", type(reader.native)("jpeg", lambda data, edge: wrong))
        with pytest.raises(SlideError, match="decodes to other pixels"):
            convert(reader, tmp_path / "out", "source")


def test_streams_with_what_nobody_knows_are_not_copied() -> None:
    stream = jpeg(scene(EDGE, EDGE))
    alone = jpeg_tiles(6).alone
    plain = alone(memoryview(stream), EDGE)
    assert alone(memoryview(told(stream)), EDGE) == plain
    assert np.array_equal(imagecodecs.jpeg8_decode(plain), imagecodecs.jpeg8_decode(stream))
    strange = stream[:2] + segment(0xF5, b"x") + stream[2:]
    for odd in (strange, b"\xff\xd8\x00" + stream[2:], stream[:200], b""):
        with pytest.raises(ValueError, match=r"segment|frame"):
            alone(memoryview(odd), EDGE)
    with pytest.raises(ValueError, match="frame is"):
        alone(memoryview(stream), 2 * EDGE)


def test_what_a_tile_becomes_does_not_depend_on_the_tiles_before_it() -> None:
    tile, other = jpeg(scene(EDGE, EDGE)), jpeg(scene(EDGE, EDGE) // 2)
    cut = tile[:-2]
    streams = (tile, other, told(other), cut, cut + bytes(3), tile + bytes(5), tile[:-40], tile)
    kept = jpeg_tiles(6).alone
    for stream in streams:
        alone = jpeg_tiles(6).alone
        assert kept(memoryview(stream), EDGE) == alone(memoryview(stream), EDGE)
        assert alone(memoryview(other), EDGE) == kept(memoryview(other), EDGE)
    assert len({kept(memoryview(stream), EDGE) for stream in streams}) == 3


def test_jpeg_2000_that_is_cut_or_holds_a_comment_inside_is_not_copied() -> None:
    stream = jpeg2000(scene(EDGE, EDGE)).removesuffix(SECRET)
    alone = jpeg2000_tiles().alone
    plain = alone(memoryview(stream), EDGE)
    assert SECRET in stream
    assert SECRET not in plain
    assert np.array_equal(imagecodecs.jpeg2k_decode(plain), scene(EDGE, EDGE))
    for end in range(len(plain)):
        with pytest.raises(ValueError, match=r"codestream|tile-part|marker"):
            alone(memoryview(plain[:end]), EDGE)
    part = plain.index(b"\xff\x90")
    (length,) = struct.unpack(">I", plain[part + 6 : part + 10])
    note = struct.pack(">HHH", 0xFF64, len(SECRET) + 4, 1) + SECRET
    longer = plain[: part + 6] + struct.pack(">I", length + len(note)) + plain[part + 10 : part + 12]
    with pytest.raises(ValueError, match="comment in the tile-part"):
        alone(memoryview(longer + note + plain[part + 12 :]), EDGE)
    with pytest.raises(ValueError, match="YCbCr"):
        jpeg2000_tiles(ycbcr=True).alone(memoryview(imagecodecs.jpeg2k_encode(
            scene(EDGE, EDGE), level=0, codecformat="j2k", mct=False)), EDGE)  # fmt: skip


def test_configuration_knows_source_alone(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("pyramid: {codec: source}")
    assert load_config(str(tmp_path / "c.yaml")).pyramid.codec == "source"
    (tmp_path / "c.yaml").write_text("pyramid: {codec: source-jpeg-256}")
    with pytest.raises(ConfigError, match="expected source, blosc-lz4"):
        load_config(str(tmp_path / "c.yaml"))


def test_only_what_is_exact_is_read(made: tuple[Store, PyramidRef, Store, PyramidRef]) -> None:
    grid = grid_of_ref(made[1])
    assert [grid.exact_from(level) for level in range(7)] == [0, 0, 0, 0, 4, 4, 6]
    assert (grid.chunk_px(EXACT_LEVEL), grid.shard_px(EXACT_LEVEL)) == (16, 128)
    assert grid.shard_box(EXACT_LEVEL, 0, 0) == Box(0, 0, 44, 57)
