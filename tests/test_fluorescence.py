"""Fluorescence from file to pyramid: the right channel at its brightest focus, to the bit; or refused."""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import numpy.typing as npt
import pytest
import tifffile
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from ome_zarr.io import parse_url
from ome_zarr.reader import Reader
from ome_zarr_models.v05 import Image
from typer.testing import CliRunner

from her2cli import app
from her2core.errors import Reason, SlideError
from her2core.intake.inspect import describe, inspect_slide, require_scorable
from her2core.params import PyramidParams
from her2core.pixels import PixelFormat
from her2core.pyramid import writer as pyramid
from her2core.pyramid.dataset import open_level, open_pyramid
from her2core.pyramid.reader import PyramidReader
from her2core.readers import MemoryReader, SlideReader, needs_local_copy, open_slide, shared_reader
from her2core.readers.channels import CHANNELS, map_channels, parse_channels
from her2core.readers.image import WholeReader
from her2core.readers.tiff import grid as tiffgrid
from her2core.readers.zarr_codecs import register_image_codecs
from her2core.records import RGB, Assay, PyramidRef
from her2core.storage.s3 import s3_filesystem
from her2core.storage.store import Store
from tests.conftest import Bucket

HEIGHT, WIDTH, TILE, FOCI = 150, 211, 64, 4
Pixels = npt.NDArray[Any]

STACK = np.random.default_rng(5).integers(0, 2**16, (3, FOCI, HEIGHT, WIDTH), dtype=np.uint16)
"""Three channels as a file holds them, (c, z, y, x): CEP17, HER2, DAPI."""
NAMES = ["CEP 17 (SpectrumGreen)", "ERBB2", "dapi"]
TRUTH = np.moveaxis(STACK.max(axis=1)[::-1], 0, -1)
"""What a reader gives: (y, x) of DAPI, HER2, CEP17 at their maximum."""
FLAT = STACK[:, 0]
FLAT_TRUTH = np.moveaxis(FLAT[::-1], 0, -1)
MAPPING = "DAPI=2;HER2=1;CEP17=0"
TILED: dict[str, Any] = {"tile": (TILE, TILE)}


def fish(path: Path, channels: str | None = None, **options: Any) -> SlideReader:
    return open_slide(path, assay=Assay.FISH, channels=channels, **options)


def read(reader: SlideReader, y0: int, x0: int, h: int, w: int) -> Pixels:
    out = np.full((h, w, len(reader.info.channels)), 77, reader.info.dtype)
    reader.read_region(y0, x0, out)
    return out


def whole(reader: SlideReader) -> Pixels:
    return read(reader, 0, 0, reader.info.height, reader.info.width)


def cut(truth: Pixels, y0: int, x0: int, h: int, w: int) -> Pixels:
    """The rectangle of an array that darkness surrounds."""
    padded = np.pad(truth, ((h, h), (w, w), (0, 0)))
    y, x = (min(max(at, -n), size) + n for at, n, size in ((y0, h, truth.shape[0]), (x0, w, truth.shape[1])))
    return padded[y : y + h, x : x + w]


def write_ome(
    path: Path, stack: Pixels = STACK, axes: str = "CZYX", names: Sequence[str] | None = NAMES, **how: Any
) -> Path:
    """An OME-TIFF with a reduced level in SubIFDs; ``axes`` orders the planes of a (c, z, y, x) stack."""
    metadata: dict[str, Any] = {"axes": axes, "PhysicalSizeX": 0.065, "PhysicalSizeY": 0.065}
    if names is not None:
        metadata["Channel"] = {"Name": list(names)}
    data = stack.transpose(["CZYX".index(axis) for axis in axes]) if stack.ndim == 4 else stack
    order = how.pop("byteorder", "<")
    with tifffile.TiffWriter(path, ome=True, byteorder=order) as file:
        file.write(data, photometric="minisblack", subifds=1, metadata=metadata, **how)
        file.write(data[..., ::2, ::2], photometric="minisblack", subfiletype=1, **how)
    return path


LAYOUTS: dict[str, dict[str, Any]] = {
    "tiled": TILED,
    "tiled-lzw": TILED | {"compression": "lzw"},
    "tiled-deflate-predictor": TILED | {"compression": "zlib", "predictor": True},
    "tiled-zstd-big-endian": TILED | {"compression": "zstd", "byteorder": ">"},
    "tiled-predictor-big-endian": TILED | {"compression": "lzw", "predictor": True, "byteorder": ">"},
    "tiled-big-endian": TILED | {"byteorder": ">"},
    "tiled-jpeg2000": TILED | {"compression": "jpeg2000", "compressionargs": {"level": 0}},
    "strips": {"rowsperstrip": 7},
    "strips-one": {},
    "strips-lzw": {"rowsperstrip": 40, "compression": "lzw"},
    "channels-in-focus": TILED | {"axes": "ZCYX"},
    "bytes": TILED | {"compression": "zlib"},
}


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[SlideReader, Pixels]]:
    folder = tmp_path_factory.mktemp("ome")
    found = {}
    for name, how in LAYOUTS.items():
        stack = (STACK >> 8).astype(np.uint8) if name == "bytes" else STACK
        path = write_ome(folder / f"{name}.ome.tif", stack, **how)
        found[name] = fish(path), (TRUTH >> 8).astype(np.uint8) if name == "bytes" else TRUTH
    return found


@pytest.mark.parametrize("name", LAYOUTS)
def test_ome_tiff(written: dict[str, tuple[SlideReader, Pixels]], name: str) -> None:
    reader, truth = written[name]
    info = reader.info
    assert (info.channels, info.dtype, info.z_planes) == (CHANNELS, truth.dtype.name, FOCI)
    assert (info.source_channels, info.mpp, info.mpp_source) == (MAPPING, 0.065, "ome")
    assert [(v.height, v.width) for v in info.levels] == [(150, 211), (75, 106)]
    assert info.problems == ("4 focal planes: each pixel is their maximum",)
    np.testing.assert_array_equal(whole(reader), truth)


@settings(max_examples=80, deadline=None)
@given(
    name=st.sampled_from(sorted(LAYOUTS)),
    box=st.tuples(st.integers(-90, 240), st.integers(-90, 300), st.integers(1, 220), st.integers(1, 300)),
)
def test_any_rectangle_is_the_same_cut(
    written: dict[str, tuple[SlideReader, Pixels]], name: str, box: tuple[int, int, int, int]
) -> None:
    reader, truth = written[name]
    np.testing.assert_array_equal(read(reader, *box), cut(truth, *box))


def with_xml(path: Path, pages: Pixels, pixels: str, channels: int = 3) -> Path:
    """Pages with an OME-XML written by hand."""
    named = "".join(f'<Channel ID="Channel:0:{i}" Name="{n}"/>' for i, n in enumerate(NAMES[:channels]))
    xml = (
        '<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"><Image ID="Image:0" Name="a">'
        f'<Pixels SizeX="{WIDTH}" SizeY="{HEIGHT}" Type="uint16" {pixels.replace("@", named, 1)}'
        "</Pixels></Image></OME>"
    )
    with tifffile.TiffWriter(path) as file:
        for i, page in enumerate(pages):
            file.write(page, photometric="minisblack", metadata=None, description=xml if i == 0 else None,
                       compression="zlib", **TILED)  # fmt: skip
    return path


ORDERS = ["XYCZT", "XYZCT", "XYZTC", "XYTZC", "XYCTZ", "XYTCZ"]


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("counted", [True, False])
def test_every_dimension_order(tmp_path: Path, order: str, counted: bool) -> None:
    stack = STACK[:, :2]
    pages = stack if order.index("Z") < order.index("C") else stack.transpose(1, 0, 2, 3)
    blocks = '<TiffData IFD="0" PlaneCount="6"/>' if counted else "<TiffData/>"
    sizes = f'SizeC="3" SizeZ="2" SizeT="1" DimensionOrder="{order}">@{blocks}'
    path = with_xml(tmp_path / "a.ome.tif", pages.reshape(-1, HEIGHT, WIDTH), sizes)
    with fish(path) as reader:
        np.testing.assert_array_equal(whole(reader), np.moveaxis(stack.max(axis=1)[::-1], 0, -1))


def test_directories_in_any_order(tmp_path: Path) -> None:
    listed = [(c, z) for c in (1, 0, 2) for z in (1, 0)]
    pages = np.stack([STACK[c, z] for c, z in listed])
    blocks = "".join(
        f'<TiffData FirstC="{c}" FirstZ="{z}" FirstT="0" IFD="{i}" PlaneCount="1"/>'
        for i, (c, z) in enumerate(listed)
    )
    sizes = f'SizeC="3" SizeZ="2" SizeT="1" DimensionOrder="XYCZT">@{blocks}'
    with fish(with_xml(tmp_path / "a.ome.tif", pages, sizes)) as reader:
        np.testing.assert_array_equal(whole(reader), np.moveaxis(STACK[:, :2].max(axis=1)[::-1], 0, -1))


@pytest.mark.parametrize("planar", ["contig", "separate"])
@pytest.mark.parametrize(("ome", "foci"), [(False, 1), (True, 1), (True, 3)])
def test_channels_as_samples(tmp_path: Path, planar: str, ome: bool, foci: int) -> None:
    stack = np.concatenate([STACK, STACK[:1, ::-1] // 2])[:, :foci]  # four samples, of which three are wanted
    data, axes = (
        (stack.transpose(1, 2, 3, 0), "ZYXS") if planar == "contig" else (stack.transpose(1, 0, 2, 3), "ZSYX")
    )
    path = tmp_path / "a.ome.tif"
    tifffile.imwrite(path, data if ome else data[0], ome=ome, photometric="minisblack", planarconfig=planar,
                     compression="zlib", extrasamples=["unspecified"] * 3,
                     metadata={"axes": axes} if ome else None, **TILED)  # fmt: skip
    with fish(path, MAPPING, mpp=0.1) as reader:
        np.testing.assert_array_equal(whole(reader), np.moveaxis(stack[:3].max(axis=1)[::-1], 0, -1))
        assert reader.info.z_planes == foci


def test_jpeg2000_as_bio_formats_marks_it(tmp_path: Path) -> None:
    path = write_ome(tmp_path / "a.ome.tif", compression="jpeg2000", compressionargs={"level": 0}, **TILED)
    marks = [struct.pack("<HHIHH", 259, 3, 1, code, 0) for code in (34712, 33003)]
    data = path.read_bytes()
    assert data.count(marks[0]) == 2 * 3 * FOCI
    path.write_bytes(data.replace(*marks))
    with fish(path) as reader:
        np.testing.assert_array_equal(whole(reader), TRUTH)


def test_one_huge_compressed_strip_is_decoded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiffgrid, "MAX_TILE_PX", 1000)
    path = write_ome(tmp_path / "a.ome.tif", compression="zlib", rowsperstrip=HEIGHT)
    with fish(path) as reader:
        assert isinstance(reader, WholeReader)
        np.testing.assert_array_equal(read(reader, -5, 30, 90, 300), cut(TRUTH, -5, 30, 90, 300))
        assert reader.held_bytes == TRUTH.nbytes


def test_colours_of_16_bits_are_channels(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, np.moveaxis(FLAT, 0, -1), photometric="rgb", compression="zlib", metadata=None)
    with fish(path, "dapi=b;her2=g;cep17=r") as reader:
        np.testing.assert_array_equal(whole(reader), FLAT_TRUTH)


def test_pages_of_a_plain_tiff_are_channels(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    with tifffile.TiffWriter(path) as file:
        for step in (1, 2):
            for page in FLAT:
                file.write(page[::step, ::step], photometric="minisblack", metadata=None, **TILED)
    with fish(path, MAPPING) as reader:
        np.testing.assert_array_equal(whole(reader), FLAT_TRUTH)
        assert [(v.height, v.width) for v in reader.info.levels] == [(150, 211), (75, 106)]
    with fish(path, "DAPI=2;HER2=0") as reader:
        assert reader.info.channels == ("DAPI", "HER2")
        np.testing.assert_array_equal(whole(reader), FLAT_TRUTH[..., [0, 2]])


def test_imagej_stack(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, STACK.transpose(1, 0, 2, 3), imagej=True, metadata={"axes": "ZCYX"})
    with fish(path, MAPPING) as reader:
        np.testing.assert_array_equal(whole(reader), TRUTH)
        assert reader.info.z_planes == FOCI


@pytest.mark.parametrize("axes", ["cyx", "czyx", "zcyx", "tczyx"])
@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize("together", [True, False])
def test_omezarr(tmp_path: Path, axes: str, zarr_format: int, together: bool) -> None:
    stack = STACK if "z" in axes else STACK[:, :1]
    data = stack.transpose(["czyx".index(a) for a in axes.replace("t", "") if a in "czyx"] if "z" in axes else
                           (0, 2, 3, 1))  # fmt: skip
    data = data[..., 0] if "z" not in axes else data
    data = data[None] if "t" in axes else data
    group = zarr.open_group(tmp_path / "a.zarr", mode="w", zarr_format=zarr_format)
    chunks = tuple(50 if a in "yx" else n if together else 1 for a, n in zip(axes, data.shape, strict=True))
    group.create_array("0", data=data, chunks=chunks)
    units = {"y": {"unit": "micrometer"}, "x": {"unit": "micrometer"}}
    scale = [0.1 if a in "yx" else 1.0 for a in axes]
    content: dict[str, Any] = {
        "multiscales": [
            {
                "axes": [{"name": a} | units.get(a, {}) for a in axes],
                "datasets": [{"path": "0", "coordinateTransformations": [{"type": "scale", "scale": scale}]}],
            }
        ],
        "omero": {"channels": [{"label": name} for name in NAMES]},
    }
    group.attrs.update({"ome": content} if zarr_format == 3 else content)
    with fish(tmp_path / "a.zarr") as reader:
        assert (reader.info.mpp, reader.info.source_channels) == (0.1, MAPPING)
        assert reader.info.z_planes == (FOCI if "z" in axes else 1)
        truth = TRUTH if "z" in axes else FLAT_TRUTH
        for box in [(0, 0, HEIGHT, WIDTH), (-9, 30, 70, 300), (49, 49, 2, 2)]:
            np.testing.assert_array_equal(read(reader, *box), cut(truth, *box))


# pictures in pseudo-colour

COLOURS = np.ascontiguousarray((STACK[:, 0] >> 8).astype(np.uint8).transpose(1, 2, 0))


@pytest.mark.parametrize("kind", ["jpeg", "png", "tiff", "tiff-jpeg", "tiff-pages"])
def test_pictures_in_pseudo_colour(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "a"
    if kind == "jpeg":
        path.write_bytes(imagecodecs.jpeg8_encode(COLOURS, level=90))
    elif kind == "png":
        path.write_bytes(imagecodecs.png_encode(COLOURS))
    elif kind == "tiff-pages":
        tifffile.imwrite(path, COLOURS.transpose(2, 0, 1).copy(), ome=True, photometric="minisblack", **TILED)
    else:
        how = {"compression": "jpeg"} if kind == "tiff-jpeg" else {}
        tifffile.imwrite(path, COLOURS, photometric="rgb", metadata=None, **TILED, **how)
    with open_slide(path) as plain, fish(path, MAPPING, mpp=0.1) as reader:
        rgb = whole(plain)
        assert (reader.info.channels, reader.info.dtype) == (CHANNELS, "uint8")
        np.testing.assert_array_equal(whole(reader), rgb[..., ::-1])
        np.testing.assert_array_equal(read(reader, -5, 100, 40, 200), cut(rgb[..., ::-1], -5, 100, 40, 200))
    if kind == "tiff-pages":
        return  # its channels have no names
    with pytest.raises(SlideError, match="0 'R', 1 'G', 2 'B'") as error:
        fish(path)
    assert error.value.reason is Reason.CHANNELS_UNKNOWN
    with fish(path, "DAPI=B;HER2=R") as reader:
        np.testing.assert_array_equal(whole(reader), rgb[..., [2, 0]])


def test_tall_pictures_are_read_in_strips(tmp_path: Path) -> None:
    tall = np.random.default_rng(0).integers(0, 255, (1500, 20, 3), np.uint8)
    (tmp_path / "a.png").write_bytes(imagecodecs.png_encode(tall))
    with fish(tmp_path / "a.png", "DAPI=B;HER2=R;CEP17=G") as reader:
        np.testing.assert_array_equal(whole(reader), tall[..., [2, 0, 1]])
        np.testing.assert_array_equal(read(reader, 300, 3, 900, 9), tall[300:1200, 3:12, [2, 0, 1]])


@pytest.mark.parametrize("kind", ["transparent", "absent"])
def test_what_a_picture_leaves_out_is_dark(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "a"
    if kind == "transparent":
        clear = np.concatenate([COLOURS, np.zeros_like(COLOURS[..., :1])], axis=2)
        path.write_bytes(imagecodecs.png_encode(clear))
    else:
        tifffile.imwrite(path, np.zeros((128, 128, 3), np.uint8), photometric="rgb", metadata=None, **TILED)
        data = bytearray(path.read_bytes())
        with tifffile.TiffFile(path) as file:
            counts = file.pages[0].tags[325]
        data[counts.valueoffset : counts.valueoffset + 4] = bytes(4)  # two of four tiles, counted in 16 bits
        path.write_bytes(data)
    with fish(path, MAPPING) as reader:
        assert not whole(reader).any()


def test_a_real_field(shared_data: Path) -> None:
    path = shared_data / "ish" / "FISH1.jpg"
    with open_slide(path, mpp=0.1) as plain, fish(path, "DAPI=B;HER2=R;CEP17=G", mpp=0.06) as reader:
        np.testing.assert_array_equal(whole(reader), whole(plain)[..., [2, 0, 1]])
        assert require_scorable(reader.info, Assay.FISH) == 0.06
    with pytest.raises(SlideError, match=r"0\.06 µm/px"):
        require_scorable(inspect_slide(path, mpp=0.06), Assay.IHC)


# which channel is which


@pytest.mark.parametrize(
    ("text", "names", "sources"),
    [
        ("DAPI=2;HER2=0;CEP17=1", ("DAPI", "HER2", "CEP17"), (2, 0, 1)),
        (" cep17 = fitc ; dapi=DAPI;erbb2=0; ", ("DAPI", "HER2", "CEP17"), (2, 0, 1)),
        ("HER2=Cy3;DAPI=2", ("DAPI", "HER2"), (2, 0)),
        ("CEN17=1;HER2=0;DAPI=3", ("DAPI", "HER2", "CEP17"), (3, 0, 1)),
    ],
)
def test_mappings(text: str, names: tuple[str, ...], sources: tuple[int, ...]) -> None:
    chosen = map_channels("a.tif", text, ["Cy3", "FITC", "dapi", ""])
    assert (chosen.names, chosen.sources) == (names, sources)
    assert map_channels("a.tif", str(chosen), ["Cy3", "FITC", "dapi", ""]) == chosen


@pytest.mark.parametrize(
    ("stored", "sources"),
    [
        (["DAPI", "HER2", "CEP17"], (0, 1, 2)),
        (["D17Z1-SpectrumGreen", "HER-2/neu", "DAPI 405"], (2, 1, 0)),
        (["autofluorescence", "LSI ERBB2", "CEN 17", "dapi"], (3, 1, 2)),
        (["dapi", "her2"], (0, 1)),
    ],
)
def test_names_in_the_metadata(stored: list[str], sources: tuple[int, ...]) -> None:
    assert map_channels("a.tif", None, stored).sources == sources


@pytest.mark.parametrize(
    ("text", "stored", "says"),
    [
        ("DAPI=0;HER2=1;CEP17=2", ["", ""], "no channel 2"),
        ("DAPI=0", ["", ""], "does not say which channel is HER2"),
        ("DAPI=0;HER2=0", ["", ""], "gives one channel of the file to two"),
        ("DAPI=0;HER2=a", ["A", "b"], "gives one channel of the file to two"),
        ("DAPI=0;HER2=cy3", ["a", "Cy3", "CY3"], "2 of its channels are named 'cy3'"),
        ("DAPI=0;HER2=cy5", ["a", "b"], "0 of its channels are named 'cy5'"),
        ("DAPI=0;HER2", ["a", "b"], "found 'HER2'"),
        ("DAPI=0;HER3=1", ["a", "b"], "found 'HER3=1'"),
        ("DAPI=0;HER2=1;ERBB2=2", ["a", "b", "c"], "names HER2 twice"),
        (None, ["", ""], "do not say which channel is DAPI and HER2"),
        (None, ["DAPI", "CEP17"], "do not say which channel is HER2"),
        (None, ["DAPI", "DAPI 2", "HER2"], "'DAPI 2' leaves open"),
        (None, ["DAPI", "HER2/CEP17"], "'HER2/CEP17' leaves open"),
        (None, ["blue", "red", "green"], "0 'blue', 1 'red', 2 'green'"),
    ],
)
def test_mappings_that_leave_something_open(text: str | None, stored: list[str], says: str) -> None:
    with pytest.raises(SlideError) as error:
        map_channels("a.tif", text, stored)
    assert error.value.reason is Reason.CHANNELS_UNKNOWN
    assert says in error.value.message
    assert "a.tif: " in error.value.message
    assert "manifest column `channels`" in error.value.message


@given(st.text(max_size=40))
def test_any_text_is_a_mapping_or_refused(text: str) -> None:
    try:
        found = parse_channels(text)
    except ValueError:
        return
    assert {"DAPI", "HER2"} <= set(found) <= set(CHANNELS)


# refusals


def test_the_assay_says_how_a_file_is_read(tmp_path: Path) -> None:
    path = write_ome(tmp_path / "a.ome.tif", FLAT, "CYX", **TILED)
    with pytest.raises(SlideError, match="its assay is HER2-FISH"):
        open_slide(path)
    with shared_reader(path, identity="1-x", assay=Assay.FISH) as reader:
        np.testing.assert_array_equal(whole(reader), FLAT_TRUTH)
    with shared_reader(path, identity="1-x", assay=Assay.FISH, channels="DAPI=0;HER2=1") as reader:
        np.testing.assert_array_equal(whole(reader), np.moveaxis(FLAT[:2], 0, -1))


@pytest.mark.parametrize(
    ("pixels", "options", "says"),
    [
        (FLAT.astype(np.float32), {}, "floating-point numbers of 32 bits"),
        (FLAT.astype(np.int32), {}, "signed whole numbers of 32 bits"),
        (FLAT.astype(np.int16), {}, "signed whole numbers of 16 bits"),
        (FLAT.astype(np.uint32), {}, "whole numbers of 32 bits"),
        (FLAT, {"photometric": "miniswhite"}, "photometric interpretation 0"),
    ],
)
def test_other_numbers_are_refused(
    tmp_path: Path, pixels: Pixels, options: dict[str, Any], says: str
) -> None:
    path = tmp_path / "a.tif"
    how = {"photometric": "minisblack"} | options
    tifffile.imwrite(path, pixels, metadata=None, **TILED, **how)
    with pytest.raises(SlideError, match=says) as error:
        fish(path, MAPPING)
    assert error.value.reason is Reason.PIXELS_UNSUPPORTED


@pytest.mark.parametrize("kind", ["ome", "imagej"])
def test_time_points_are_refused(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "a.tif"
    movie = np.stack([FLAT, FLAT])
    how = {"ome": True} if kind == "ome" else {"imagej": True}
    tifffile.imwrite(path, movie, photometric="minisblack", metadata={"axes": "TCYX"}, **how)
    with pytest.raises(SlideError, match="2 time points") as error:
        fish(path, MAPPING)
    assert error.value.reason is Reason.PIXELS_UNSUPPORTED


def test_omezarr_that_is_no_fluorescence(tmp_path: Path) -> None:
    for shape, axes, dtype, reason, says in (
        ((2, 3, 64, 64), "tcyx", "u2", Reason.PIXELS_UNSUPPORTED, "2 time points"),
        ((3, 64, 64), "cyx", "f4", Reason.PIXELS_UNSUPPORTED, "float32"),
        ((64, 64), "yx", "u2", Reason.FILE_UNREADABLE, "expected c, y, x"),
        ((9999, 1, 64, 64), "czyx", "u1", Reason.FILE_BEYOND_LIMITS, "9999 channels"),
    ):
        group = zarr.open_group(tmp_path / "a.zarr", mode="w", zarr_format=3)
        group.create_array("0", shape=shape, chunks=shape, dtype=dtype)
        datasets = [{"path": "0", "coordinateTransformations": []}]
        multiscale = {"axes": [{"name": a} for a in axes], "datasets": datasets}
        group.attrs["ome"] = {"multiscales": [multiscale]}
        with pytest.raises(SlideError, match=says) as error:
            fish(tmp_path / "a.zarr", "DAPI=0;HER2=1")
        assert error.value.reason is reason


def test_stacks_that_lie(tmp_path: Path) -> None:
    path = tmp_path / "a.ome.tif"
    one = '<TiffData IFD="0" PlaneCount="3"/>'
    for sizes, reason, says in (
        (
            f'SizeC="3" SizeZ="99999" SizeT="1" DimensionOrder="XYCZT">@{one}',
            Reason.FILE_BEYOND_LIMITS,
            "299997",
        ),
        (f'SizeC="3" SizeZ="2" SizeT="1" DimensionOrder="XYCZT">@{one}', Reason.FILE_TRUNCATED, "3 of 6"),
        ('SizeC="3" SizeZ="1" SizeT="1">@<TiffData IFD="7"/>', Reason.FILE_TRUNCATED, "directory 7 of 3"),
    ):
        with_xml(path, FLAT, sizes)
        with pytest.raises(SlideError, match=says) as error:
            fish(path)
        assert error.value.reason is reason
    path = tmp_path / "b.tif"
    with tifffile.TiffWriter(path) as file:
        file.write(FLAT[0], photometric="minisblack", metadata=None, **TILED)
        file.write(FLAT[1], photometric="minisblack", metadata=None, tile=(32, 32))
    with pytest.raises(SlideError, match="differ in size or layout"):
        fish(path, "DAPI=0;HER2=1")


def test_a_damaged_plane_is_named_and_its_output_bounded(tmp_path: Path) -> None:
    path = write_ome(tmp_path / "a.ome.tif", FLAT, "CYX", compression="zlib", **TILED)
    bomb = imagecodecs.zlib_encode(bytes(1 << 24))
    with tifffile.TiffFile(path) as file:
        page = file.pages[1]
        offsets, counts, order = page.tags[324], page.tags[325], file.byteorder
        starts = list(page.dataoffsets)
    data = bytearray(path.read_bytes())
    at = len(data)
    data += bomb
    width = 8 if len(starts) * 8 == counts.valueoffset - offsets.valueoffset else 4
    where = data.find(b"".join(s.to_bytes(width, "little") for s in starts))
    assert order == "<"
    assert where > 0
    data[where : where + width] = at.to_bytes(width, "little")
    path.write_bytes(data)
    with fish(path) as reader, pytest.raises(SlideError, match="tile row 0 column 0 plane 1") as error:
        whole(reader)
    assert error.value.reason in (Reason.FILE_UNREADABLE, Reason.FILE_TRUNCATED)


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    folder = tmp_path_factory.mktemp("good")
    small = STACK[..., :40, :50]
    write_ome(folder / "0", small, tile=(16, 16), compression="zlib", predictor=True)
    tifffile.imwrite(folder / "1", small.transpose(1, 0, 2, 3), imagej=True, metadata={"axes": "ZCYX"})
    for name, planar in (("2", "separate"), ("3", "contig")):
        data = small[:, 0] if planar == "separate" else np.moveaxis(small[:, 0], 0, -1)
        tifffile.imwrite(folder / name, data, photometric="minisblack", planarconfig=planar, metadata=None,
                         compression="lzw")  # fmt: skip
    return [(folder / str(i)).read_bytes() for i in range(4)]


@settings(max_examples=300, deadline=None)
@given(
    which=st.integers(0, 3),
    changes=st.lists(st.tuples(st.integers(-1500, 1500), st.integers(0, 255)), min_size=1, max_size=5),
    channels=st.sampled_from([None, "DAPI=0;HER2=1", MAPPING]),
)
def test_any_damage_is_read_or_refused(
    good: list[bytes],
    tmp_path_factory: pytest.TempPathFactory,
    which: int,
    changes: list[tuple[int, int]],
    channels: str | None,
) -> None:
    """Bytes changed in directories or OME-XML give pixels or a SlideError, never another exception."""
    data = bytearray(good[which])
    for at, value in changes:
        data[at % len(data)] = value
    path = tmp_path_factory.getbasetemp() / "damaged.tif"
    path.write_bytes(data)
    with suppress(SlideError), fish(path, channels, identity="1-x") as reader:
        read(reader, 0, 0, 60, 60)


@pytest.mark.parametrize(
    "pixels",
    [
        'SizeC="0" SizeZ="1" SizeT="1"><TiffData/>',
        'SizeC="3" SizeZ="1" SizeT="1"><TiffData FirstC="9" IFD="0"/>',
        'SizeC="3" SizeZ="1" SizeT="1" DimensionOrder="XYCCC">@<TiffData FirstZ="88888888888"/>',
    ],
)
def test_xml_that_makes_no_sense(tmp_path: Path, pixels: str) -> None:
    with pytest.raises(SlideError) as error:
        fish(with_xml(tmp_path / "a.tif", FLAT, pixels))
    assert error.value.reason in (Reason.CHANNELS_UNKNOWN, Reason.FILE_TRUNCATED)


# pyramids


def convert(
    reader: SlideReader, store: Store, chunk: int = 16, shard: int = 64, codec: str = "blosc-lz4"
) -> PyramidRef:
    params, form = PyramidParams(chunk, shard, codec), PixelFormat.of(reader.info)
    grid = pyramid.grid_of(reader.info.height, reader.info.width, params)
    for task in reversed(grid.tasks()):
        pyramid.write_shards(reader, store, "p", grid, params, [task])
    pyramid.write_top(store, "p", grid, params, pixels=form)
    return pyramid.finalise(
        store, "p", grid, params, identity=reader.info.identity, mpp=0.1, pixels=form
    )  # fmt: skip


def halved(level: Pixels) -> Pixels:
    """The mean of 2 x 2, halves up, the last row and column repeated: by the definition."""
    even = np.pad(level, ((0, level.shape[0] % 2), (0, level.shape[1] % 2), (0, 0)), mode="edge").astype(int)
    four = even[::2, ::2] + even[1::2, ::2] + even[::2, 1::2] + even[1::2, 1::2]
    return ((four + 2) >> 2).astype(level.dtype)


def field(height: int, width: int, channels: int, dtype: str, seed: int = 0) -> Pixels:
    """Noise, with a dark corner and a saturated one."""
    most = np.iinfo(dtype).max
    image = np.random.default_rng(seed).integers(0, most, (height, width, channels), dtype, endpoint=True)
    image[: height // 3, : width // 2] = 0
    image[height // 2 :, width // 2 :] = most
    return image


@given(
    height=st.integers(1, 90),
    width=st.integers(1, 90),
    chunk=st.sampled_from([2, 8, 16, 32]),
    side=st.sampled_from([1, 2, 4]),
    kind=st.sampled_from(
        [(c, d, k) for c in (2, 3) for d in ("uint8", "uint16") for k in ("blosc-lz4", "zstd", "htj2k")
         if c == 3 or k != "htj2k"]
    ),
)  # fmt: skip
@settings(max_examples=60, deadline=None)
def test_every_level_is_the_mean_of_the_one_above_for_any_layout(
    height: int,
    width: int,
    chunk: int,
    side: int,
    kind: tuple[int, str, str],
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    channels, dtype, codec = kind
    want = field(height, width, channels, dtype)
    store = Store(tmp_path_factory.mktemp("pyramid"))
    ref = convert(MemoryReader(want, channels=CHANNELS[:channels]), store, chunk, chunk * side, codec)
    assert (ref.channels, ref.dtype) == (CHANNELS[:channels], dtype)
    register_image_codecs()
    levels = zarr.open_group(store.zarr_store("p"), mode="r")
    for level in range(len(ref.shapes)):
        np.testing.assert_array_equal(np.moveaxis(np.asarray(levels[str(level)]), 0, -1), want)
        out = np.full((want.shape[0] + 9, want.shape[1] + 5, channels), 7, dtype)
        PyramidReader(store, ref).read(level, -4, -3, out)
        np.testing.assert_array_equal(out, cut(want, -4, -3, *out.shape[:2]))
        want = halved(want)


@pytest.fixture
def made(tmp_path: Path) -> tuple[Store, PyramidRef, Pixels]:
    image = field(201, 333, 3, "uint16")
    store = Store(tmp_path / "out")
    return store, convert(MemoryReader(image, channels=CHANNELS), store), image


def test_pyramids_open_with_independent_readers(made: tuple[Store, PyramidRef, Pixels]) -> None:
    store, ref, image = made
    Image.from_zarr(zarr.open_group(store.uri("p"), mode="r"))
    location = parse_url(store.uri("p"))
    assert location is not None
    (node, *_) = Reader(location)()
    assert node.metadata["channel_names"] == list(CHANNELS)
    assert [level.dtype for level in node.data] == [np.uint16] * len(ref.shapes)
    np.testing.assert_array_equal(np.moveaxis(np.asarray(node.data[0]), 0, -1), image)
    for level in range(len(ref.shapes)):
        document = json.loads(store.read_bytes(f"p/{level}/zarr.json"))
        assert (document["data_type"], document["fill_value"]) == ("uint16", 0)


def test_levels_name_their_channels(made: tuple[Store, PyramidRef, Pixels]) -> None:
    store, _, image = made
    level = open_level(store.uri("p"), 0)
    np.testing.assert_array_equal(level.sel(c="HER2").values, image[..., 1])
    tree = open_pyramid(store.uri("p"))
    assert [list(node["image"].c.values) for node in tree.children.values()] == [list(CHANNELS)] * 6
    assert tree["1"]["image"].dtype == np.uint16


def test_viewers_are_told_what_is_bright(tmp_path: Path) -> None:
    image = np.zeros((64, 64, 2), np.uint16)
    image[..., 0] = 900
    store = Store(tmp_path)
    convert(MemoryReader(image, channels=CHANNELS[:2]), store)
    omero = store.read_json("p/zarr.json")["attributes"]["ome"]["omero"]
    assert [c["window"] for c in omero["channels"]] == [
        {"min": 0, "max": 65535, "start": 0, "end": 900},
        {"min": 0, "max": 65535, "start": 0, "end": 1},
    ]


def test_viewers_are_told_where_background_ends(tmp_path: Path) -> None:
    """The camera's offset and the field's haze are black; nuclei, a seventh of the field, are not."""
    image = np.random.default_rng(0).normal((300, 800), 5, (96, 96, 2)).astype(np.uint16)
    for y in range(8, 96, 32):
        for x in range(8, 96, 32):
            image[y : y + 12, x : x + 12] += np.array([4000, 90], np.uint16)
    store = Store(tmp_path)
    convert(MemoryReader(image, channels=CHANNELS[:2]), store, 128, 128)
    omero = store.read_json("p/zarr.json")["attributes"]["ome"]["omero"]
    dapi, her2 = (channel["window"] for channel in omero["channels"])
    assert max(abs(dapi["start"] - 300), abs(her2["start"] - 800)) <= 2
    assert (dapi["end"], her2["end"]) == (image[..., 0].max(), image[..., 1].max())


def test_only_buffers_of_the_same_pixels_are_filled(made: tuple[Store, PyramidRef, Pixels]) -> None:
    store, ref, _ = made
    for buffer in (np.empty((9, 9, 3), np.uint8), np.empty((9, 9, 2), np.uint16)):
        with pytest.raises(ValueError, match="DAPI"):
            PyramidReader(store, ref).read(0, 0, 0, buffer)


@pytest.mark.parametrize(
    ("codec", "channels", "says"), [("jpeg-90", 3, "mixes channels"), ("htj2k", 2, "stores three channels")]
)
def test_codecs_that_cannot_store_fluorescence(tmp_path: Path, codec: str, channels: int, says: str) -> None:
    reader = MemoryReader(field(40, 40, channels, "uint16"), channels=CHANNELS[:channels], uri="a.tif")
    with pytest.raises(SlideError, match=says) as error:
        convert(reader, Store(tmp_path), codec=codec)
    assert error.value.reason is Reason.PIXELS_UNSUPPORTED
    assert "a.tif: pyramid.codec" in error.value.message
    with pytest.raises(SlideError, match=says):
        pyramid.estimate_size(reader.info, PyramidParams(codec=codec))


def test_the_key_digests_which_channel_is_which(tmp_path: Path) -> None:
    path = write_ome(tmp_path / "a.ome.tif", FLAT, "CYX", **TILED)
    keys = []
    for channels in (None, MAPPING, "DAPI=2;HER2=0;CEP17=1"):
        with fish(path, channels, identity="1-x") as reader:
            keys.append(pyramid.key_inputs(reader.info))
    assert keys[0] == keys[1] == ["1-x", "", "0.065", MAPPING]
    assert keys[2] != keys[1]
    assert pyramid.key_inputs(MemoryReader(COLOURS).info)[1:] == ["", "0.25"]


def test_size_is_estimated_for_the_pixels_at_hand() -> None:
    params = PyramidParams()
    three, two = (
        MemoryReader(field(999, 999, n, "uint16"), channels=CHANNELS[:n]).info for n in (3, 2)
    )  # fmt: skip
    sizes = [pyramid.estimate_size(info, params).stored_bytes for info in (three, two)]
    assert sizes[0] == pytest.approx(1.5 * sizes[1], rel=1e-6)
    assert (
        sizes[0] > pyramid.estimate_size(MemoryReader(field(999, 999, 3, "uint8")).info, params).stored_bytes
    )


def test_memory_reader_takes_the_three_kinds() -> None:
    for channels, dtype in ((RGB, "uint8"), (CHANNELS, "uint8"), (CHANNELS[:2], "uint16")):
        image = field(30, 20, len(channels), dtype)
        reader = MemoryReader(image, channels=channels)
        np.testing.assert_array_equal(whole(reader), image)
        assert read(reader, 40, 40, 1, 1)[0, 0, 0] == (255 if channels == RGB else 0)
    for image, channels in (
        (field(9, 9, 3, "uint16"), RGB),
        (field(9, 9, 2, "uint16"), CHANNELS),
        (field(9, 9, 2, "uint8"), ("HER2", "DAPI")),
        (field(9, 9, 3, "uint8").astype(np.float32), CHANNELS),
    ):
        with pytest.raises(ValueError, match="expected"):
            MemoryReader(image, channels=channels)


def test_in_a_bucket(tmp_path: Path, s3: Bucket) -> None:
    uri = f"{s3.uri}/a.ome.tif"
    s3_filesystem(s3.endpoint_url).put_file(
        str(write_ome(tmp_path / "a.ome.tif", compression="zlib", **TILED)), uri.removeprefix("s3://")
    )
    assert not needs_local_copy(uri)
    with open_slide(uri, assay=Assay.FISH, endpoint_url=s3.endpoint_url) as reader:
        np.testing.assert_array_equal(whole(reader), TRUTH)
        store = Store(f"{s3.uri}/out", endpoint_url=s3.endpoint_url)
        ref = convert(reader, store)
    out = np.empty((90, 70, 3), np.uint16)
    PyramidReader(store, ref).read(0, 30, 100, out)
    np.testing.assert_array_equal(out, TRUTH[30:120, 100:170])
    level = open_level(store.uri("p"), 1, {"endpoint_url": s3.endpoint_url})
    np.testing.assert_array_equal(np.moveaxis(level.values, 0, -1), halved(TRUTH))


# inspect


def test_inspect_shows_channels_and_focal_planes(tmp_path: Path) -> None:
    path = write_ome(tmp_path / "a.ome.tif", **TILED)
    info = inspect_slide(path, assay=Assay.FISH)
    assert info.assay_guess == "HER2-FISH"
    assert (
        "  channels DAPI=2;HER2=1;CEP17=0 of the file, uint16, 4 focal planes" in describe(info).splitlines()
    )
    shown = CliRunner().invoke(app, ["inspect", str(path), "--assay", "HER2-FISH", "--json"])
    (found,) = json.loads(shown.stdout)
    assert (found["channels"], found["dtype"], found["z_planes"]) == (list(CHANNELS), "uint16", FOCI)
    assert json.loads(CliRunner().invoke(app, ["inspect", str(path), "--json"]).stdout) == [found]
    shown = CliRunner().invoke(
        app, ["inspect", str(path), "--assay", "HER2-FISH", "--channels", "DAPI=0;HER2=7", "--json"]
    )
    assert json.loads(shown.stdout)[0]["reason"] == "channels_unknown"


def test_inspect_without_an_assay(tmp_path: Path) -> None:
    """A file is shown as what it can be, and what is wrong with it is told in the words that help."""
    nameless = write_ome(tmp_path / "a.ome.tif", names=None, **TILED)
    with pytest.raises(SlideError, match="say which is which") as error:
        inspect_slide(nameless)
    assert error.value.reason is Reason.CHANNELS_UNKNOWN
    assert inspect_slide(nameless, channels=MAPPING, header_only=True).channels == CHANNELS
    tifffile.imwrite(tmp_path / "c.tif", FLAT, photometric="minisblack", metadata=None)
    assert inspect_slide(tmp_path / "c.tif", channels=MAPPING).channels == CHANNELS
    tifffile.imwrite(tmp_path / "b.tif", FLAT[0].astype(np.float32), photometric="minisblack", metadata=None)
    with pytest.raises(SlideError, match="32 bits a sample; expected 8-bit RGB"):
        inspect_slide(tmp_path / "b.tif")


@pytest.mark.parametrize(
    ("assay", "mpp", "fits"),
    [
        (Assay.FISH, 0.039, False), (Assay.FISH, 0.04, True), (Assay.DISH, 0.0625, True),
        (Assay.DISH, 1.11, False), (Assay.IHC, 0.0625, False),
    ],
)  # fmt: skip
def test_ish_is_scanned_finer(tmp_path: Path, assay: Assay, mpp: float, fits: bool) -> None:
    (tmp_path / "a.png").write_bytes(imagecodecs.png_encode(COLOURS))
    info = inspect_slide(tmp_path / "a.png", mpp=mpp, assay=assay, channels=MAPPING)
    assert any("is outside" in problem for problem in info.problems) is not fits
    if fits:
        assert require_scorable(info, assay) == mpp
        return
    with pytest.raises(SlideError, match=f"{mpp:g} µm/px") as error:
        require_scorable(info, assay)
    assert error.value.reason is Reason.SCALE_IMPLAUSIBLE
