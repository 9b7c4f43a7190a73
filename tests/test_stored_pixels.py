"""Every layout of samples that a file states, pixel by pixel against truth, tifffile and OpenSlide."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import numpy.typing as npt
import openslide
import pytest
import tifffile

from her2core.errors import Reason, SlideError
from her2core.intake.inspect import inspect_slide
from her2core.readers import open_slide
from her2core.readers.base import composite

Pixels = npt.NDArray[np.uint8]
TILE = 64
HEIGHT, WIDTH = 150, 211

_y, _x = np.mgrid[:HEIGHT, :WIDTH]
TRUTH: Pixels = np.stack([_y + 20, _x + 10, 250 - (_x + _y) // 2], axis=-1).astype(np.uint8)
ALPHA = np.full((HEIGHT, WIDTH), 255, np.uint8)
ALPHA[20:90, 30:100] = 128
ALPHA[100:, :40] = 0


def read_all(path: Path, **options: Any) -> Pixels:
    with open_slide(path, **options) as reader:
        out = np.empty((reader.info.height, reader.info.width, 3), np.uint8)
        reader.read_region(0, 0, out)
        part = np.empty((70, 90, 3), np.uint8)
        reader.read_region(50, 30, part)
        np.testing.assert_array_equal(part, out[50:120, 30:120])
        return out


def tiles(pixels: Pixels = TRUTH) -> list[Pixels]:
    """Full tiles row by row, their edges repeated."""
    h, w = pixels.shape[:2]
    padded = np.pad(pixels, [(0, -h % TILE), (0, -w % TILE), (0, 0)], mode="edge")
    places = itertools.product(range(0, h, TILE), range(0, w, TILE))
    return [np.ascontiguousarray(padded[y : y + TILE, x : x + TILE]) for y, x in places]


def write_streams(path: Path, streams: Sequence[bytes], code: int, **options: Any) -> Path:
    """A tiled TIFF of ready streams."""
    kept = {"photometric": "rgb", "metadata": None} | options
    shape = kept.pop("shape", TRUTH.shape)
    with tifffile.TiffWriter(path) as file:
        file.write(iter(streams), shape=shape, dtype="uint8", tile=(TILE, TILE), compression=code, **kept)
    return path


# a fourth sample


def write_samples(path: Path, stored: Pixels, extra: Sequence[str], *, planar: bool) -> Path:
    pixels = np.ascontiguousarray(stored.transpose(2, 0, 1)) if planar else stored
    how = {"planarconfig": "separate"} if planar else {}
    tifffile.imwrite(
        path, pixels, photometric="rgb", extrasamples=extra, tile=(TILE, TILE), metadata=None, **how
    )
    return path


def over_white(colours: npt.NDArray[Any]) -> npt.NDArray[Any]:
    weight = ALPHA[..., None] / 255.0
    return colours * weight + 255 * (1 - weight)


@pytest.mark.parametrize("planar", [False, True], ids=["together", "in planes"])
@pytest.mark.parametrize("extra", ["assocalpha", "unassalpha"])
def test_alpha_is_what_the_file_calls_it(tmp_path: Path, extra: str, planar: bool) -> None:
    colours = TRUTH if extra == "unassalpha" else np.rint(TRUTH * (ALPHA[..., None] / 255.0)).astype(np.uint8)
    path = write_samples(tmp_path / "a.tif", np.dstack([colours, ALPHA]), [extra], planar=planar)
    ours = read_all(path)
    np.testing.assert_allclose(ours, over_white(TRUTH), atol=1.01)
    np.testing.assert_array_equal(ours[ALPHA == 255], TRUTH[ALPHA == 255])
    with openslide.OpenSlide(path) as slide:
        shown = np.asarray(slide.read_region((0, 0), 0, (WIDTH, HEIGHT)))
    theirs = np.empty_like(TRUTH)
    composite(shown, (255, 255, 255), theirs)
    np.testing.assert_allclose(ours, theirs, atol=2)


@pytest.mark.parametrize("planar", [False, True], ids=["together", "in planes"])
@pytest.mark.parametrize("stated", [["unspecified"], ["unspecified", "unspecified"], None])
def test_a_sample_of_unknown_meaning_leaves_the_colours_alone(
    tmp_path: Path, stated: list[str] | None, planar: bool
) -> None:
    more = 1 if stated is None else len(stated)
    stored = np.dstack([TRUTH, np.zeros((HEIGHT, WIDTH, more), np.uint8)])
    path = write_samples(tmp_path / "a.tif", stored, stated or ["unspecified"], planar=planar)
    if stated is None:
        rename_tag(path, 338, 65000)
    np.testing.assert_array_equal(read_all(path, mpp=0.25), TRUTH)
    theirs = tifffile.imread(path)
    np.testing.assert_array_equal((theirs.transpose(1, 2, 0) if planar else theirs)[..., :3], TRUTH)
    with open_slide(path, mpp=0.25) as reader:
        assert any("does not say what it is" in problem for problem in reader.info.problems)


def rename_tag(path: Path, old: int, new: int) -> None:
    """Make a tag one that nobody knows, in place; the entries' order is lost, which nobody minds."""
    with tifffile.TiffFile(path) as file:
        at = file.pages[0].tags[old].offset
    data = bytearray(path.read_bytes())
    data[at : at + 2] = new.to_bytes(2, "little")
    path.write_bytes(data)


def test_alpha_behind_a_mask_is_found(tmp_path: Path) -> None:
    stored = np.dstack([TRUTH, np.zeros_like(ALPHA), ALPHA])
    path = write_samples(tmp_path / "a.tif", stored, ["unspecified", "unassalpha"], planar=False)
    np.testing.assert_allclose(read_all(path), over_white(TRUTH), atol=0.51)


def test_planes_of_ycbcr_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, np.ascontiguousarray(TRUTH.transpose(2, 0, 1)), photometric="rgb",
                     planarconfig="separate", tile=(TILE, TILE), metadata=None)  # fmt: skip
    with tifffile.TiffFile(path, mode="r+b") as file:
        file.pages[0].tags[262].overwrite(6)
    with pytest.raises(SlideError, match="6 with 3 samples a pixel in planes"):
        open_slide(path)


def test_jpeg_of_four_samples_is_refused(tmp_path: Path) -> None:
    path = write_streams(
        tmp_path / "a.tif", [b"x"] * 12, 7, shape=(HEIGHT, WIDTH, 4), extrasamples=["unspecified"]
    )
    with tifffile.TiffFile(path, mode="r+b") as file:
        file.pages[0].tags[262].overwrite(2)
    with pytest.raises(SlideError, match="jpeg of 4 samples"):
        open_slide(path)


def test_bits_in_reverse_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, TRUTH, photometric="rgb", tile=(TILE, TILE), metadata=None,
                     extratags=[(65000, 3, 1, 2, True)])  # fmt: skip
    rename_tag(path, 65000, 266)
    with pytest.raises(SlideError, match="FillOrder 2"):
        open_slide(path)


# planes of an OME-TIFF


def write_planes(path: Path, order: str, names: Sequence[str] | None, xml: str = "") -> Path:
    """The truth's planes, one directory each, in an order such as ``BGR``."""
    planes = np.ascontiguousarray(TRUTH.transpose(2, 0, 1)[["RGB".index(c) for c in order]])
    about: dict[str, Any] = {"axes": "CYX"} | ({"Channel": {"Name": list(names)}} if names else {})
    tifffile.imwrite(path, planes, ome=True, photometric="minisblack", tile=(TILE, TILE), metadata=about)
    if xml:
        old = tifffile.tiffcomment(path)
        tifffile.tiffcomment(path, re.sub(r'(<Channel ID="Channel:0:(\d)")', xml, old).encode())
    return path


@pytest.mark.parametrize(
    ("order", "names"),
    [
        ("RGB", None),
        ("RGB", ["Channel 0", "Channel 1", "Channel 2"]),
        ("RGB", ["Red", "Green", "Blue"]),
        ("BGR", ["B", "G", "R"]),
        ("GRB", ["green channel", "red channel", "blue channel"]),
        ("BRG", ["Brightfield-Blue", "Brightfield-Red", "Brightfield-Green"]),
        ("GBR", ["G (green)", "B (blue)", "R (red)"]),
    ],
)
def test_ome_planes_are_the_colours_that_their_names_say(
    tmp_path: Path, order: str, names: list[str] | None
) -> None:
    path = write_planes(tmp_path / "a.ome.tif", order, names)
    np.testing.assert_array_equal(read_all(path), TRUTH)
    np.testing.assert_array_equal(
        tifffile.imread(path)[[order.index(c) for c in "RGB"]].transpose(1, 2, 0), TRUTH
    )
    with open_slide(path, mpp=0.25) as reader:
        said = any("taken as red, green and blue" in problem for problem in reader.info.problems)
    assert said == (names is None or names[0] == "Channel 0")


def test_ome_planes_are_the_colours_that_they_are_shown_in(tmp_path: Path) -> None:
    path = write_planes(tmp_path / "a.ome.tif", "BGR", None)
    packed = iter([0x0000FFFF, 0x00FF00FF, 0xFF0000FF - (1 << 32)])
    old = tifffile.tiffcomment(path)
    new = re.sub(r'(<Channel ID="Channel:0:\d")', lambda m: f'{m[1]} Color="{next(packed)}"', old)
    tifffile.tiffcomment(path, new.encode())
    np.testing.assert_array_equal(read_all(path), TRUTH)


@pytest.mark.parametrize(
    ("names", "says"),
    [
        (["DAPI", "FITC", "TRITC"], "'DAPI'.*HER2-FISH"),
        (["Texas Red", "Spectrum Green", "DAPI blue"], "no colours"),
        (["Red", "Green", "Camera 3"], "leave open"),
        (["Red", "Red", "Blue"], "leave open"),
    ],
)
def test_planes_that_are_no_colours_are_refused(tmp_path: Path, names: list[str], says: str) -> None:
    path = write_planes(tmp_path / "a.ome.tif", "RGB", names)
    with pytest.raises(SlideError, match=says) as error:
        open_slide(path)
    assert error.value.reason is Reason.FILE_UNREADABLE


def test_planes_with_fluorophores_are_refused_and_inspected_as_fluorescence(tmp_path: Path) -> None:
    path = write_planes(
        tmp_path / "a.ome.tif", "RGB", ["CEP17", "HER2", "DAPI"], r'\1 EmissionWavelength="500"'
    )
    with pytest.raises(SlideError, match="no colours"):
        open_slide(path)
    assert inspect_slide(path).source_channels == "DAPI=2;HER2=1;CEP17=0"


# JPEG 2000


def j2k_streams(*, transform: bool, ycbcr: bool = False, container: str = "j2k") -> list[bytes]:
    """Streams whose codestream states the colour transform, or whose components are YCbCr without a word."""
    found = []
    for tile in tiles():
        stored = to_ycbcr(tile) if ycbcr else tile
        found.append(bytes(imagecodecs.jpeg2k_encode(stored, level=0, codecformat=container, mct=transform)))
    return found


def to_ycbcr(rgb: Pixels) -> Pixels:
    """JFIF's transform (ITU-T T.871)."""
    r, g, b = (rgb[..., i].astype(float) for i in range(3))
    y = 0.299 * r + 0.587 * g + 0.114 * b
    return (
        np.rint(np.stack([y, 128 + (b - y) / 1.772, 128 + (r - y) / 1.402], -1)).clip(0, 255).astype(np.uint8)
    )


@pytest.mark.parametrize("container", ["j2k", "jp2"])
@pytest.mark.parametrize("transform", [True, False])
@pytest.mark.parametrize("code", [33003, 33004, 33005, 34712])
def test_jpeg2000_of_other_writers_is_rgb(tmp_path: Path, code: int, transform: bool, container: str) -> None:
    """Bio-Formats writes 33003 and 33004, which Aperio took for YCbCr, over RGB."""
    path = write_streams(tmp_path / "a.tif", j2k_streams(transform=transform, container=container), code)
    np.testing.assert_array_equal(read_all(path), TRUTH)
    np.testing.assert_array_equal(tifffile.imread(path), TRUTH)


@pytest.mark.parametrize("code", [33003, 33005])
def test_jpeg2000_of_aperio_has_the_colours_of_its_code(tmp_path: Path, code: int) -> None:
    path = write_streams(
        tmp_path / "a.svs",
        j2k_streams(transform=False, ycbcr=code == 33003),
        code,
        description="Aperio Image Library\r\n|AppMag = 40|MPP = 0.25",
    )
    ours = read_all(path)
    np.testing.assert_allclose(ours, TRUTH, atol=2)
    with openslide.OpenSlide(path) as slide:
        theirs = np.asarray(slide.read_region((0, 0), 0, (WIDTH, HEIGHT)).convert("RGB"))
    np.testing.assert_allclose(ours, theirs, atol=1)


def test_jpeg2000_that_undoes_its_transform_is_not_turned_again(tmp_path: Path) -> None:
    path = write_streams(
        tmp_path / "a.svs", j2k_streams(transform=True), 33003, description="Aperio|AppMag = 40|MPP = 0.25"
    )
    np.testing.assert_array_equal(read_all(path), TRUTH)
    np.testing.assert_array_equal(tifffile.imread(path), TRUTH)


@pytest.mark.parametrize(
    ("code", "description"),
    [(34712, "Aperio|AppMag = 40|MPP = 0.25"), (33004, "Aperio|MPP = 0.25"), (34712, "")],
)
def test_jpeg2000_tagged_as_ycbcr_is_turned(tmp_path: Path, code: int, description: str) -> None:
    """Also where a converter has left the scanner's description."""
    streams = j2k_streams(transform=False, ycbcr=True)
    path = write_streams(tmp_path / "a.tif", streams, code, description=description or None)
    with tifffile.TiffFile(path, mode="r+b") as file:
        file.pages[0].tags[262].overwrite(6)
    np.testing.assert_allclose(read_all(path), TRUTH, atol=2)


def test_jpeg2000_of_signed_samples_is_refused(tmp_path: Path) -> None:
    streams = [
        bytes(imagecodecs.jpeg2k_encode(t.astype(np.int8), level=0, codecformat="j2k")) for t in tiles()
    ]
    path = write_streams(tmp_path / "a.tif", streams, 34712)
    with pytest.raises(SlideError, match="signed of 8 bits"):
        read_all(path)


# WebP and JPEG XL


@pytest.mark.parametrize(("codec", "code"), [("webp", 50001), ("jpegxl", 50002), ("jpegxl", 52546)])
@pytest.mark.parametrize("alpha", [False, True])
def test_webp_and_jpeg_xl(tmp_path: Path, codec: str, code: int, alpha: bool) -> None:
    stored = np.dstack([TRUTH, ALPHA]) if alpha else TRUTH
    more = {"extrasamples": ["unassalpha"], "shape": stored.shape} if alpha else {}
    encode = getattr(imagecodecs, f"{codec}_encode")
    streams = [bytes(encode(tile, lossless=True)) for tile in tiles(stored)]
    path = write_streams(tmp_path / "a.tif", streams, code, **more)
    expected = over_white(TRUTH) if alpha else TRUTH
    np.testing.assert_allclose(read_all(path), expected, atol=0.51)
    if not alpha:
        np.testing.assert_array_equal(tifffile.imread(path), TRUTH)
    with open_slide(path) as reader:
        assert reader.info.compression == codec


# tiles as lenient writers store them


def cut_tiles() -> list[Pixels]:
    """Tiles of which those of the last column and row hold no more than the picture."""
    places = itertools.product(range(0, HEIGHT, TILE), range(0, WIDTH, TILE))
    return [np.ascontiguousarray(TRUTH[y : y + TILE, x : x + TILE]) for y, x in places]


def jpeg(tile: Pixels) -> bytes:
    return bytes(imagecodecs.jpeg8_encode(tile, level=95, subsampling="444"))


def predicted(tile: Pixels) -> bytes:
    return bytes(imagecodecs.zlib_encode(imagecodecs.delta_encode(tile, axis=1).tobytes()))


ENCODERS: dict[str, tuple[int, Any]] = {
    "raw": (1, lambda t: t.tobytes()),
    "lzw": (5, lambda t: bytes(imagecodecs.lzw_encode(t.tobytes()))),
    "deflate": (8, lambda t: bytes(imagecodecs.zlib_encode(t.tobytes()))),
    "packbits": (32773, lambda t: bytes(imagecodecs.packbits_encode(t.tobytes()))),
    "zstd": (50000, lambda t: bytes(imagecodecs.zstd_encode(t.tobytes()))),
    "jpeg": (7, jpeg),
    "jpeg2000": (33005, lambda t: bytes(imagecodecs.jpeg2k_encode(t, level=0, codecformat="j2k"))),
    "webp": (50001, lambda t: bytes(imagecodecs.webp_encode(t, lossless=True))),
    "jpegxl": (50002, lambda t: bytes(imagecodecs.jpegxl_encode(t, lossless=True))),
}


def close_to_truth(path: Path, codec: str) -> None:
    np.testing.assert_allclose(read_all(path), TRUTH, atol=6 if codec == "jpeg" else 0)


@pytest.mark.parametrize("codec", ENCODERS)
def test_edge_tiles_may_be_cut_to_the_picture(tmp_path: Path, codec: str) -> None:
    code, encode = ENCODERS[codec]
    path = write_streams(tmp_path / "a.tif", [encode(tile) for tile in cut_tiles()], code)
    close_to_truth(path, codec)
    if codec not in ("raw", "lzw", "packbits"):
        np.testing.assert_allclose(tifffile.imread(path), TRUTH, atol=6 if codec == "jpeg" else 0)


def test_cut_tiles_with_a_predictor(tmp_path: Path) -> None:
    path = write_streams(tmp_path / "a.tif", [predicted(tile) for tile in cut_tiles()], 8, predictor=2)
    np.testing.assert_array_equal(read_all(path), TRUTH)


@pytest.mark.parametrize("codec", ["raw", "lzw", "deflate", "zstd"])
def test_an_edge_tile_that_breaks_off_is_not_taken_for_a_cut_one(tmp_path: Path, codec: str) -> None:
    code, encode = ENCODERS[codec]
    whole = tiles()
    streams = [encode(tile) for tile in whole]
    streams[-1] = encode(whole[-1].reshape(-1)[: 64 * 50 * 3])
    path = write_streams(tmp_path / "a.tif", streams, code)
    with pytest.raises(SlideError, match="row 2 column 3") as error:
        read_all(path)
    assert error.value.reason is Reason.FILE_TRUNCATED


@pytest.mark.parametrize("codec", ["jpeg", "deflate", "lzw", "zstd"])
def test_the_last_strip_may_have_the_height_of_the_others(tmp_path: Path, codec: str) -> None:
    code, encode = ENCODERS[codec]
    rows = 64
    padded = np.pad(TRUTH, [(0, -HEIGHT % rows), (0, 0), (0, 0)], mode="edge")
    streams = [encode(np.ascontiguousarray(padded[y : y + rows])) for y in range(0, HEIGHT, rows)]
    path = tmp_path / "a.tif"
    with tifffile.TiffWriter(path) as file:
        file.write(iter(streams), shape=TRUTH.shape, dtype="uint8", rowsperstrip=rows, photometric="rgb",
                   compression=code, metadata=None)  # fmt: skip
    close_to_truth(path, codec)


@pytest.mark.parametrize("codec", [name for name in ENCODERS if name != "raw"])
def test_padding_after_a_tile_is_overlooked(tmp_path: Path, codec: str) -> None:
    code, encode = ENCODERS[codec]
    path = write_streams(tmp_path / "a.tif", [encode(tile) + bytes(2000) for tile in tiles()], code)
    close_to_truth(path, codec)


@pytest.mark.parametrize("tail", [b"", bytes(500)], ids=["bare", "padded"])
@pytest.mark.parametrize("subsampling", ["444", "420"])
def test_a_jpeg_without_end_mark_is_read_where_it_is_whole(
    tmp_path: Path, subsampling: str, tail: bytes
) -> None:
    whole = [bytes(imagecodecs.jpeg8_encode(t, level=90, subsampling=subsampling)) for t in tiles()]
    plain = write_streams(tmp_path / "plain.tif", whole, 7)
    bare = write_streams(tmp_path / "a.tif", [stream[:-2] + tail for stream in whole], 7)
    np.testing.assert_array_equal(read_all(bare), read_all(plain))


@pytest.mark.parametrize("lost", [3, 12, 60, 300])
@pytest.mark.parametrize("tail", [b"", bytes(500)], ids=["bare", "padded"])
def test_a_jpeg_that_breaks_off_is_refused(tmp_path: Path, lost: int, tail: bytes) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (TILE, TILE, 3), np.uint8)
    stream = jpeg(noise)
    path = write_streams(tmp_path / "a.tif", [stream[: -2 - lost] + tail] * 12, 7)
    with pytest.raises(SlideError, match="ends before its pixels do") as error:
        read_all(path)
    assert error.value.reason is Reason.FILE_TRUNCATED


def test_a_progressive_jpeg_without_end_mark_is_refused(tmp_path: Path) -> None:
    """Later scans may be missing, which nothing tells."""
    from io import BytesIO

    from PIL import Image

    buffer = BytesIO()
    Image.fromarray(tiles()[0]).save(buffer, "jpeg", progressive=True)
    path = write_streams(tmp_path / "a.tif", [buffer.getvalue()[:-2]] * 12, 7)
    with pytest.raises(SlideError, match="no end mark"):
        read_all(path)
