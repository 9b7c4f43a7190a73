"""Readers against the array that was written, and against independent readers of the same file."""

from __future__ import annotations

import itertools
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import fsspec
import imagecodecs
import numpy as np
import numpy.typing as npt
import openslide
import pytest
import tifffile
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from her2core.errors import Reason, SlideError
from her2core.readers import (
    MemoryReader,
    SlideReader,
    needs_local_copy,
    open_slide,
    reader_cache,
    shared_reader,
)
from her2core.readers.base import OpenRequest, composite
from her2core.readers.bytesource import RemoteBytes, coalesce
from her2core.readers.image import WholeReader
from her2core.readers.limits import MAX_TILE_PX
from her2core.readers.openslide import OpenSlideReader, open_openslide
from her2core.readers.scale import Scale, length_um, read_number, resolve_scale
from her2core.readers.tiff.reader import open_tiff
from her2core.storage.s3 import s3_filesystem
from tests.conftest import Bucket

SHARED = Path(__file__).parents[2] / "shared" / "data"
needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason="no ../shared/data beside the checkout")

HEIGHT, WIDTH, TILE = 150, 211, 64
Pixels = npt.NDArray[np.uint8]


def picture(height: int = HEIGHT, width: int = WIDTH) -> Pixels:
    """Smooth colours with a little noise; no two pixels of a row alike enough to hide a shift."""
    y, x = np.mgrid[:height, :width]
    waves = np.stack([np.sin(x / 17 + y / 40), np.cos(x / 31 - y / 11), np.sin((x + y) / 23)], axis=-1)
    noise = np.random.default_rng(1).integers(0, 12, waves.shape)
    return (120 + 90 * waves + noise).astype(np.uint8)


TRUTH = picture()


def read(reader: SlideReader, y0: int, x0: int, h: int, w: int) -> Pixels:
    out = np.full((h, w, 3), 77, np.uint8)
    reader.read_region(y0, x0, out)
    return out


def cut(truth: Pixels, y0: int, x0: int, h: int, w: int) -> Pixels:
    """The rectangle of an array that is surrounded by 255."""
    out = np.full((h, w, 3), 255, np.uint8)
    rows = [y for y in range(h) if 0 <= y0 + y < truth.shape[0]]
    columns = [x for x in range(w) if 0 <= x0 + x < truth.shape[1]]
    if rows and columns:
        out[np.ix_(rows, columns)] = truth[np.ix_([y0 + y for y in rows], [x0 + x for x in columns])]
    return out


def whole(reader: SlideReader) -> Pixels:
    return read(reader, 0, 0, reader.info.height, reader.info.width)


TILED = {"tile": (TILE, TILE)}
LOSSLESS: dict[str, dict[str, Any]] = {
    "tiled": TILED,
    "tiled-lzw": TILED | {"compression": "lzw"},
    "tiled-lzw-predictor": TILED | {"compression": "lzw", "predictor": True},
    "tiled-deflate": TILED | {"compression": "zlib"},
    "tiled-deflate-predictor": TILED | {"compression": "zlib", "predictor": True},
    "tiled-zstd": TILED | {"compression": "zstd"},
    "tiled-packbits": TILED | {"compression": "packbits"},
    "tiled-jpeg2000": TILED | {"compression": "jpeg2000", "compressionargs": {"level": 0}},
    "tiled-planar": TILED | {"planarconfig": "separate"},
    "tiled-planar-deflate-predictor": TILED
    | {"planarconfig": "separate", "compression": "zlib", "predictor": True},
    "tiled-big": TILED | {"bigtiff": True, "compression": "zlib"},
    "tiled-big-endian": TILED | {"byteorder": ">", "compression": "lzw"},
    "strips-one": {},
    "strips": {"rowsperstrip": 7},
    "strips-lzw": {"rowsperstrip": 7, "compression": "lzw"},
    "strips-one-zstd": {"rowsperstrip": HEIGHT, "compression": "zstd"},
    "strips-planar": {"rowsperstrip": 50, "planarconfig": "separate"},
    "strips-planar-lzw": {"rowsperstrip": 50, "planarconfig": "separate", "compression": "lzw"},
}


def write_tiff(path: Path, pixels: Pixels = TRUTH, **options: Any) -> Path:
    big, order = options.pop("bigtiff", False), options.pop("byteorder", "<")
    data = np.ascontiguousarray(pixels.transpose(2, 0, 1)) if options.get("planarconfig") else pixels
    with tifffile.TiffWriter(path, bigtiff=big, byteorder=order) as file:
        file.write(data, photometric="rgb", metadata=None, **options)
    return path


@pytest.fixture(scope="module")
def lossless(tmp_path_factory: pytest.TempPathFactory) -> dict[str, SlideReader]:
    folder = tmp_path_factory.mktemp("lossless")
    return {name: open_slide(write_tiff(folder / f"{name}.tif", **how)) for name, how in LOSSLESS.items()}


@pytest.mark.parametrize("name", LOSSLESS)
def test_tiff_gives_back_what_was_written(lossless: dict[str, SlideReader], name: str) -> None:
    reader = lossless[name]
    assert (reader.info.reader, reader.info.height, reader.info.width) == ("tiff", HEIGHT, WIDTH)
    np.testing.assert_array_equal(whole(reader), TRUTH)


boxes = st.tuples(st.integers(-90, 240), st.integers(-90, 300), st.integers(1, 220), st.integers(1, 300))


@settings(max_examples=150, deadline=None)
@given(name=st.sampled_from(sorted(LOSSLESS)), box=boxes)
def test_any_rectangle_is_the_same_cut_of_the_slide(
    lossless: dict[str, SlideReader], name: str, box: tuple[int, int, int, int]
) -> None:
    np.testing.assert_array_equal(read(lossless[name], *box), cut(TRUTH, *box))


def test_output_may_be_a_window_of_a_larger_array(lossless: dict[str, SlideReader]) -> None:
    canvas = np.full((300, 300, 3), 9, np.uint8)
    lossless["tiled-lzw"].read_region(-5, 3, canvas[20:180, 40:250])
    np.testing.assert_array_equal(canvas[20:180, 40:250], cut(TRUTH, -5, 3, 160, 210))
    canvas[20:180, 40:250] = 9
    assert (canvas == 9).all()


@pytest.mark.parametrize("level", [60, 90])
@pytest.mark.parametrize("subsampling", ["444", "422", "420"])
@pytest.mark.parametrize("layout", [TILED, {"rowsperstrip": 16}], ids=["tiles", "strips"])
def test_jpeg_tiles_equal_an_independent_reader(
    tmp_path: Path, level: int, subsampling: str, layout: dict[str, Any]
) -> None:
    sub = {"444": (1, 1), "422": (2, 1), "420": (2, 2)}[subsampling]
    path = write_tiff(
        tmp_path / "a.tif", compression="jpeg", compressionargs={"level": level}, subsampling=sub, **layout
    )
    with open_slide(path) as reader:
        pixels = whole(reader)
        np.testing.assert_array_equal(pixels, tifffile.imread(path))
        assert np.abs(pixels.astype(int) - TRUTH).mean() < 12
        for box in [(3, 5, 40, 70), (60, 60, 80, 9), (-4, 190, 33, 60)]:
            np.testing.assert_array_equal(read(reader, *box), cut(pixels, *box))


def test_jpeg_stored_as_rgb_is_not_converted(tmp_path: Path) -> None:
    """Aperio stores bare RGB components; a reader that takes them for YCbCr shows green tissue."""
    streams = []
    for y, x in itertools.product(range(0, HEIGHT, TILE), range(0, WIDTH, TILE)):
        tile = np.full((TILE, TILE, 3), 255, np.uint8)
        part = TRUTH[y : y + TILE, x : x + TILE]
        tile[: part.shape[0], : part.shape[1]] = part
        stream = imagecodecs.jpeg8_encode(tile, level=95, colorspace="RGB", outcolorspace="RGB")
        streams.append(without_markers(stream))
    path = tmp_path / "rgb.tif"
    with tifffile.TiffWriter(path) as file:
        file.write(iter(streams), shape=TRUTH.shape, dtype="uint8", tile=(TILE, TILE), photometric="rgb",
                   compression="jpeg", metadata=None)  # fmt: skip
    with tifffile.TiffFile(path, mode="r+b") as file:
        file.pages[0].tags[262].overwrite(2)
    with open_slide(path) as reader:
        assert np.abs(whole(reader).astype(int) - TRUTH).mean() < 4


def test_jpeg_with_a_jfif_marker_is_ycbcr_whatever_the_tag_says(tmp_path: Path) -> None:
    """Bio-Formats tags its YCbCr streams as RGB."""
    path = write_tiff(tmp_path / "a.tif", compression="jpeg", compressionargs={"level": 95}, **TILED)
    with tifffile.TiffFile(path, mode="r+b") as file:
        assert file.pages[0].jpegtables is None
        file.pages[0].tags[262].overwrite(2)
    with open_slide(path) as reader:
        assert np.abs(whole(reader).astype(int) - TRUTH).mean() < 4


def without_markers(stream: bytes) -> bytes:
    """A JPEG stream without APP segments and with component ids 1, 2, 3: nothing in it tells its colour."""
    at, kept = 2, bytearray(stream[:2])
    while stream[at + 1] != 0xDA:
        length = 2 + int.from_bytes(stream[at + 2 : at + 4], "big")
        segment = bytearray(stream[at : at + length])
        if segment[1] == 0xC0:
            for i in range(3):
                segment[10 + 3 * i] = i + 1
        if not 0xE0 <= segment[1] <= 0xEF:
            kept += segment
        at += length
    scan = bytearray(stream[at:])
    for i in range(3):
        scan[5 + 2 * i] = i + 1
    return bytes(kept + scan)


@pytest.mark.parametrize("code", [33003, 33005])
def test_aperio_jpeg2000_equals_openslide(tmp_path: Path, code: int) -> None:
    path = tmp_path / "a.svs"
    streams = []
    for y, x in itertools.product(range(0, HEIGHT, TILE), range(0, WIDTH, TILE)):
        tile = np.full((TILE, TILE, 3), 255, np.uint8)
        part = TRUTH[y : y + TILE, x : x + TILE]
        tile[: part.shape[0], : part.shape[1]] = part
        streams.append(imagecodecs.jpeg2k_encode(tile, level=0, codecformat="j2k", mct=False))
    with tifffile.TiffWriter(path) as file:
        file.write(iter(streams), shape=TRUTH.shape, dtype="uint8", tile=(TILE, TILE), photometric="rgb",
                   compression=code, metadata=None, description="Aperio|MPP = 0.25")  # fmt: skip
    with open_slide(path) as reader, openslide.OpenSlide(path) as slide:
        theirs = np.asarray(slide.read_region((0, 0), 0, (WIDTH, HEIGHT)).convert("RGB")).astype(int)
        assert np.abs(whole(reader) - theirs).max() <= 1


def test_alpha_is_laid_over_glass(tmp_path: Path) -> None:
    alpha = np.zeros((HEIGHT, WIDTH, 1), np.uint8)
    alpha[:, 50:] = 255
    alpha[10, 60] = 128
    path = tmp_path / "rgba.tif"
    rgba = np.concatenate([TRUTH, alpha], axis=2)
    tifffile.imwrite(path, rgba, photometric="rgb", extrasamples=["unassalpha"], metadata=None, **TILED)
    with open_slide(path) as reader:
        pixels = whole(reader)
    assert (pixels[:, :50] == 255).all()
    np.testing.assert_array_equal(pixels[11:, 50:], TRUTH[11:, 50:])
    half = (TRUTH[10, 60].astype(float) * 128 + 255 * 127) / 255
    np.testing.assert_allclose(pixels[10, 60], half, atol=0.51)


def test_composite_is_exact_at_both_ends() -> None:
    rgba = np.array([[[10, 20, 30, 255], [10, 20, 30, 0]]], np.uint8)
    out = np.empty((1, 2, 3), np.uint8)
    composite(rgba, (200, 210, 220), out)
    assert out.tolist() == [[[10, 20, 30], [200, 210, 220]]]


def test_absent_tiles_are_glass_and_reported(tmp_path: Path) -> None:
    path = write_tiff(tmp_path / "sparse.tif", **TILED)
    with tifffile.TiffFile(path, mode="r+b") as file:
        tag = file.pages[0].tags[325]
        tag.overwrite((0, *tag.value[1:]))
    with open_slide(path, mpp=0.25) as reader:
        assert reader.info.problems == ("1 of 12 tiles are absent: read as glass",)
        pixels = whole(reader)
    assert (pixels[:TILE, :TILE] == 255).all()
    np.testing.assert_array_equal(pixels[TILE:], TRUTH[TILE:])


# levels, scenes, pictures


def write_pyramid(path: Path, description: str | None = None, **options: Any) -> Path:
    with tifffile.TiffWriter(path) as file:
        for step in (1, 2, 4):
            file.write(
                TRUTH[::step, ::step],
                photometric="rgb",
                metadata=None,
                description=description,
                **TILED,
                **options,
            )
    return path


APERIO = "Aperio Image Library v12\r\n211x150 (64x64) JPEG/RGB Q=70|AppMag = 40|MPP = 0.2527|User = Jane Doe"


def test_aperio_levels_scale_and_pictures(tmp_path: Path) -> None:
    path = tmp_path / "a.svs"
    with tifffile.TiffWriter(path) as file:
        file.write(TRUTH, photometric="rgb", metadata=None, description=APERIO, **TILED)
        file.write(TRUTH[:50, :70], photometric="rgb", metadata=None, description="Aperio thumbnail")
        file.write(TRUTH[::4, ::4], photometric="rgb", metadata=None, description=APERIO, **TILED)
        file.write(TRUTH[:40, :40], photometric="rgb", metadata=None, description="Aperio\r\nlabel 40x40")
        file.write(
            TRUTH[:30, :90],
            photometric="rgb",
            metadata=None,
            description="Aperio\r\nmacro 90x30",
            subfiletype=9,
        )
    with open_slide(path) as reader:
        info = reader.info
    assert (info.format, info.mpp, info.mpp_source, info.objective_power) == (
        "aperio",
        0.2527,
        "aperio",
        40.0,
    )
    assert [(v.height, v.width) for v in info.levels] == [(150, 211), (38, 53)]
    assert info.levels[1].downsample == pytest.approx(4, rel=0.01)
    assert info.scenes == ("0",)
    assert "Doe" not in repr(info)


def test_plain_pyramid_is_one_scene(tmp_path: Path) -> None:
    with open_slide(write_pyramid(tmp_path / "a.tif")) as reader:
        assert [v.height for v in reader.info.levels] == [150, 75, 38]
        assert reader.info.scene is None


def test_images_that_are_no_levels_are_scenes(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    other = TRUTH[::-1]
    with tifffile.TiffWriter(path) as file:
        for pixels in (TRUTH, other, TRUTH[::2, ::2]):
            file.write(pixels, photometric="rgb", metadata=None, **TILED)
    with pytest.raises(
        SlideError, match=r"2 scenes: 0 \(211 x 150 px\), 1 \(211 x 150 px\)\. .*column `scene`"
    ) as error:
        open_slide(path)
    assert error.value.reason is Reason.SCENE_AMBIGUOUS
    with open_slide(path, scene="1") as reader:
        assert (reader.info.scene, reader.info.scenes) == ("1", ("0", "1"))
        np.testing.assert_array_equal(whole(reader), other)
    with pytest.raises(SlideError, match="has no scene '7'") as error:
        open_slide(path, scene="7")
    assert error.value.reason is Reason.SCENE_UNKNOWN


OME_SCALE = {
    "PhysicalSizeX": 0.25,
    "PhysicalSizeXUnit": "µm",
    "PhysicalSizeY": 250.0,
    "PhysicalSizeYUnit": "nm",
}


@pytest.mark.parametrize("how", ["interleaved", "planar", "pages"])
@pytest.mark.parametrize("tile", [TILED, {}], ids=["tiles", "strips"])
def test_ome_tiff(tmp_path: Path, how: str, tile: dict[str, Any]) -> None:
    path = tmp_path / "a.ome.tif"
    cyx = np.ascontiguousarray(TRUTH.transpose(2, 0, 1))
    pixels, options = {
        "interleaved": (TRUTH, {"photometric": "rgb", "metadata": OME_SCALE | {"axes": "YXS"}}),
        "planar": (
            cyx,
            {"photometric": "rgb", "planarconfig": "separate", "metadata": OME_SCALE | {"axes": "SYX"}},
        ),
        "pages": (cyx, {"photometric": "minisblack", "metadata": OME_SCALE | {"axes": "CYX"}}),
    }[how]
    with tifffile.TiffWriter(path, ome=True, bigtiff=True) as file:
        file.write(pixels, subifds=1, compression="zlib", **options, **tile)
        file.write(pixels[::2, ::2] if how == "interleaved" else pixels[:, ::2, ::2], subfiletype=1,
                   compression="zlib", **(options | {"metadata": None}), **tile)  # fmt: skip
    with open_slide(path) as reader:
        assert (reader.info.format, reader.info.mpp, reader.info.mpp_source) == ("ome-tiff", 0.25, "ome")
        assert [v.height for v in reader.info.levels] == [150, 75]
        np.testing.assert_array_equal(whole(reader), TRUTH)
        np.testing.assert_array_equal(read(reader, 30, -8, 70, 100), cut(TRUTH, 30, -8, 70, 100))


def test_ome_scenes_leave_label_and_macro_out(tmp_path: Path) -> None:
    path = tmp_path / "a.ome.tif"
    with tifffile.TiffWriter(path, ome=True) as file:
        for name, pixels in {
            "left": TRUTH,
            "right": TRUTH[::-1],
            "label image": TRUTH,
            "macro": TRUTH,
        }.items():
            file.write(pixels, photometric="rgb", metadata={"axes": "YXS", "Name": name}, **TILED)
    with pytest.raises(SlideError, match=r"2 scenes: 0 \(211 x 150 px\), 1 \(211 x 150 px\)\.") as error:
        open_slide(path)
    assert "left" not in error.value.message
    with open_slide(path, scene="1") as reader:
        assert (reader.info.scene, reader.info.scenes) == ("1", ("0", "1"))
        assert "right" not in repr(reader.info)
        np.testing.assert_array_equal(whole(reader), TRUTH[::-1])


def test_ome_z_stack_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.ome.tif"
    tifffile.imwrite(
        path, np.stack([TRUTH] * 3), ome=True, photometric="rgb", metadata={"axes": "ZYXS"}, **TILED
    )
    with pytest.raises(SlideError, match="3 focal planes"):
        open_slide(path)


@pytest.mark.parametrize(
    ("pixels", "options", "says"),
    [
        (TRUTH.astype(np.uint16), {"photometric": "rgb"}, "16 bits"),
        (TRUTH[..., 0], {"photometric": "minisblack"}, "photometric interpretation 1"),
        (
            TRUTH[..., 0],
            {"photometric": "palette", "colormap": np.zeros((3, 256), np.uint16)},
            "interpretation 3",
        ),
        (np.concatenate([TRUTH, TRUTH[..., :1]], 2), {"photometric": "separated"}, "interpretation 5"),
        (TRUTH, {"photometric": "rgb", "compression": "lzma"}, "compression 34925"),
    ],
)
def test_other_pixels_are_refused_in_words(
    tmp_path: Path, pixels: npt.NDArray[Any], options: dict[str, Any], says: str
) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, pixels, metadata=None, **TILED, **options)
    with pytest.raises(SlideError, match=says) as error:
        open_slide(path)
    assert error.value.reason is Reason.FILE_UNREADABLE
    assert str(path) in error.value.message


# scale


def test_manifest_goes_before_metadata_and_disagreement_is_told(tmp_path: Path) -> None:
    path = write_pyramid(tmp_path / "a.svs", APERIO)
    with open_slide(path, mpp=0.25) as reader:
        assert (reader.info.mpp, reader.info.mpp_source, reader.info.problems) == (0.25, "manifest", ())
    with open_slide(path, mpp=0.5) as reader:
        assert reader.info.mpp == 0.5
        assert reader.info.problems == ("the manifest says 0.5 µm/px, the file's aperio 0.2527",)


@pytest.mark.parametrize(
    ("resolution", "unit", "mpp"),
    [
        ((40000, 40000), "CENTIMETER", 0.25),
        ((101600, 101600), "INCH", 0.25),
        ((72, 72), "INCH", None),
        ((96, 96), "INCH", None),
        ((300, 300), "INCH", None),
        ((40000, 40000), "NONE", None),
    ],
)
def test_resolution_tags_count_only_where_plausible(
    tmp_path: Path, resolution: tuple[int, int], unit: str, mpp: float | None
) -> None:
    with open_slide(write_pyramid(tmp_path / "a.tif", resolution=resolution, resolutionunit=unit)) as reader:
        assert reader.info.mpp == (None if mpp is None else pytest.approx(mpp))
        assert reader.info.mpp_source == (None if mpp is None else "tiff_resolution")


def test_scale_rules() -> None:
    aperio, ome = Scale("aperio", 0.5, 0.5), Scale("ome", 0.25, 0.25)
    assert resolve_scale("s", None, [aperio, ome]).source == "aperio"
    assert resolve_scale("s", None, [Scale("aperio", 0.0, 0.0), ome]).source == "ome"
    assert resolve_scale("s", None, [Scale("ome", float("nan"), 0.25)]).mpp is None
    assert "manifest column `mpp`" in resolve_scale("s", None, []).problems[0]
    assert "outside 0.1-1.1" in resolve_scale("s", None, [Scale("ome", 352.8, 352.8)]).problems[0]
    assert resolve_scale("s", None, [Scale("ome", 0.2525, 0.25)]).mpp == pytest.approx(0.2512, abs=1e-4)


def test_pixels_that_are_not_square_are_refused_unless_the_manifest_overrules() -> None:
    uneven = Scale("ome", 0.25, 0.26)
    with pytest.raises(SlideError, match=r"0\.26 µm/px in x and 0\.25 in y") as error:
        resolve_scale("s", None, [uneven])
    assert error.value.reason is Reason.SCALE_ANISOTROPIC
    resolved = resolve_scale("s", 0.25, [uneven])
    assert resolved.mpp == 0.25
    assert "not square" in resolved.problems[0]


@pytest.mark.parametrize(
    ("value", "unit", "um"),
    [
        ("0.25", None, 0.25),
        ("250", "nm", 0.25),
        ("0,25", "µm", 0.25),
        ("2.5e-4", "mm", 0.25),
        ("1", "pixel", None),
        ("-0.25", "µm", None),
        ("nan", "µm", None),
        ("", "µm", None),
        ("1e999", "µm", None),
        (None, "µm", None),
    ],
)
def test_lengths_with_units(value: str | None, unit: str | None, um: float | None) -> None:
    assert length_um(value, unit) == (None if um is None else pytest.approx(um))


def test_numbers_stop_at_the_first_word() -> None:
    assert read_number(" 0.2527 |User = 7") == 0.2527
    assert read_number("about 3") is None


# plain images and memory


@pytest.mark.parametrize("alpha", [False, True])
def test_png(tmp_path: Path, alpha: bool) -> None:
    path = tmp_path / "a.png"
    shown = np.dstack([TRUTH, np.full((HEIGHT, WIDTH), 255, np.uint8)]) if alpha else TRUTH
    path.write_bytes(imagecodecs.png_encode(shown))
    with open_slide(path, mpp=0.25) as reader:
        assert (reader.info.reader, reader.info.format, len(reader.info.levels)) == ("image", "png", 1)
        np.testing.assert_array_equal(read(reader, -3, 100, 70, 150), cut(TRUTH, -3, 100, 70, 150))


def test_png_with_a_transparent_colour_lies_on_glass(tmp_path: Path) -> None:
    path, pixels = tmp_path / "a.png", TRUTH.copy()
    pixels[5:9, 7:20] = (1, 2, 3)
    Image.fromarray(pixels).save(path, transparency=(1, 2, 3))
    clear = np.all(pixels == (1, 2, 3), axis=2)
    with open_slide(path, mpp=0.25) as reader:
        np.testing.assert_array_equal(whole(reader), np.where(clear[..., None], 255, pixels))


@pytest.mark.parametrize("progressive", [False, True])
def test_jpeg(tmp_path: Path, progressive: bool) -> None:
    path = tmp_path / "a.jpg"
    Image.fromarray(TRUTH).save(path, quality=90, progressive=progressive)
    with open_slide(path, mpp=0.25) as reader:
        pixels = whole(reader)
        np.testing.assert_array_equal(pixels, np.asarray(Image.open(path)))
        np.testing.assert_array_equal(read(reader, 9, 9, 20, 20), pixels[9:29, 9:29])


def test_whole_images_are_decoded_once() -> None:
    calls: list[int] = []

    def load() -> Pixels:
        calls.append(1)
        return TRUTH

    reader = WholeReader(MemoryReader(TRUTH).info, load)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda i: read(reader, i, i, 5, 5), range(20)))
    assert len(calls) == 1


@pytest.mark.parametrize("how", ["png16", "png-grey", "jpeg-grey"])
def test_plain_images_that_are_not_rgb_are_refused(tmp_path: Path, how: str) -> None:
    path = tmp_path / "a"
    grey = np.ascontiguousarray(TRUTH[..., 0])
    path.write_bytes(
        {
            "png16": lambda: imagecodecs.png_encode(TRUTH.astype(np.uint16) * 256),
            "png-grey": lambda: imagecodecs.png_encode(grey),
            "jpeg-grey": lambda: imagecodecs.jpeg8_encode(grey),
        }[how]()
    )
    with pytest.raises(SlideError, match="expected 8-bit RGB") as error:
        open_slide(path)
    assert error.value.reason is Reason.FILE_UNREADABLE


def test_one_huge_compressed_strip_is_decoded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("her2core.readers.tiff.grid.MAX_TILE_PX", HEIGHT * WIDTH - 1)
    with open_slide(write_tiff(tmp_path / "a.tif", rowsperstrip=HEIGHT, compression="zstd")) as reader:
        assert isinstance(reader, WholeReader)
        np.testing.assert_array_equal(read(reader, 100, 100, 80, 150), cut(TRUTH, 100, 100, 80, 150))
    assert MAX_TILE_PX > HEIGHT * WIDTH


@settings(max_examples=50, deadline=None)
@given(box=boxes)
def test_memory_reader(box: tuple[int, int, int, int]) -> None:
    np.testing.assert_array_equal(read(MemoryReader(TRUTH), *box), cut(TRUTH, *box))


# OpenSlide


@pytest.fixture(scope="module")
def openslide_reader(tmp_path_factory: pytest.TempPathFactory) -> OpenSlideReader:
    path = write_tiff(tmp_path_factory.mktemp("os") / "a.tif", compression="lzw", **TILED)
    return open_openslide(path, OpenRequest("a", "1-x", 1, mpp=0.25))


@settings(max_examples=40, deadline=None)
@given(box=boxes)
def test_openslide_reader(openslide_reader: OpenSlideReader, box: tuple[int, int, int, int]) -> None:
    np.testing.assert_array_equal(read(openslide_reader, *box), cut(TRUTH, *box))


def test_openslide_reads_in_blocks(
    openslide_reader: OpenSlideReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("her2core.readers.openslide.BLOCK_PX", 37)
    np.testing.assert_array_equal(read(openslide_reader, -5, -5, 170, 230), cut(TRUTH, -5, -5, 170, 230))


class Canvas:
    """A slide of two scanned areas, the second half transparent, as OpenSlide shows it."""

    dimensions = (WIDTH, HEIGHT)
    level_downsamples = (1.0, 4.0)
    color_profile = None
    properties = {  # noqa: RUF012
        "openslide.vendor": "leica", "openslide.mpp-x": "0.25", "openslide.mpp-y": "0.25",
        "openslide.background-color": "F0E0D0",
        "openslide.region[0].x": "0", "openslide.region[0].y": "0",
        "openslide.region[0].width": "80", "openslide.region[0].height": "90",
        "openslide.region[1].x": "100", "openslide.region[1].y": "20",
        "openslide.region[1].width": "60", "openslide.region[1].height": "40",
    }  # fmt: skip

    def __init__(self, path: object) -> None:
        alpha = np.full((HEIGHT, WIDTH, 1), 255, np.uint8)
        alpha[:, 130:] = 0
        self.rgba = np.concatenate([TRUTH, alpha], axis=2)

    def read_region(self, location: tuple[int, int], level: int, size: tuple[int, int]) -> Pixels:
        return self.rgba[location[1] : location[1] + size[1], location[0] : location[0] + size[0]]

    def close(self) -> None: ...


def test_openslide_regions_are_scenes_over_their_background(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.scn"
    path.write_bytes(bytes(99))
    monkeypatch.setattr(openslide, "OpenSlide", Canvas)
    with pytest.raises(SlideError, match="2 scenes: 0 "):
        open_openslide(path, OpenRequest("a.scn", "1-x", 1))
    reader = open_openslide(path, OpenRequest("a.scn", "1-x", 1, scene="1"))
    assert (reader.info.height, reader.info.width, reader.info.mpp, reader.info.mpp_source) == (
        40,
        60,
        0.25,
        "leica",
    )
    expected = np.full((40, 60, 3), (0xF0, 0xE0, 0xD0), np.uint8)
    expected[:, :30] = TRUTH[20:60, 100:130]
    np.testing.assert_array_equal(read(reader, -2, -2, 44, 64), cut(expected, -2, -2, 44, 64))


@needs_shared
@pytest.mark.parametrize("name", ["cmu-1-small-region.svs", "tcga-cr-7395-01a-01-ts1.svs"])
def test_real_svs_equals_openslide(name: str) -> None:
    path = SHARED / "wsi" / name
    with open_slide(path) as reader, openslide.OpenSlide(path) as slide:
        assert (reader.info.reader, reader.info.width, reader.info.height) == ("tiff", *slide.dimensions)
        assert reader.info.mpp == (0.499 if name.startswith("cmu") else None)
        for y, x in [(0, 0), (1000, 700), (2900, 2000), (reader.info.height - 100, reader.info.width - 300)]:
            ours = read(reader, y, x, 100, 300).astype(int)
            theirs = np.asarray(slide.read_region((x, y), 0, (300, 100)))
            inside = theirs[..., 3] == 255
            assert np.abs(ours - theirs[..., :3])[inside].max() <= 2
            assert (ours[~inside] == 255).all()


@needs_shared
def test_real_files_that_must_be_refused() -> None:
    with pytest.raises(SlideError) as error:
        open_slide(SHARED / "wsi" / "broken.svs")
    assert error.value.reason is Reason.NOT_A_SLIDE
    with pytest.raises(SlideError, match="order of its 42 frames") as error:
        open_slide(
            SHARED / "wsi" / "small_dicom.dcm"
        )  # stored column by column, which its header does not tell
    assert error.value.reason is Reason.FILE_UNREADABLE


# OME-Zarr


def write_omezarr(path: Path, zarr_format: int, pixels: Pixels, axes: str = "cyx") -> Path:
    shape = {"c": 3, "y": pixels.shape[0], "x": pixels.shape[1], "t": 1, "z": 1}
    order = {"y": 0, "x": 1, "c": 2}
    data = pixels.transpose([order[a] for a in axes if a in order]).reshape([shape[a] for a in axes])
    group = zarr.open_group(path, mode="w", zarr_format=zarr_format)
    for name, step in (("0", 1), ("1", 2)):
        part = data[tuple(slice(None, None, step if a in "yx" else 1) for a in axes)]
        group.create_array(name, data=part, chunks=tuple(50 if a in "yx" else shape[a] for a in axes))
    kinds = {"c": "channel", "t": "time"}
    multiscale = {
        "axes": [
            {"name": a, "type": kinds.get(a, "space")} | ({"unit": "micrometer"} if a in "yx" else {})
            for a in axes
        ],
        "datasets": [
            {"path": name, "coordinateTransformations": [
                {"type": "scale", "scale": [0.25 * step if a in "yx" else 1 for a in axes]}]}
            for name, step in (("0", 1), ("1", 2))
        ],
    }  # fmt: skip
    content = {"multiscales": [multiscale]}
    group.attrs.update({"ome": content | {"version": "0.5"}} if zarr_format == 3 else content)
    return path


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize("axes", ["cyx", "tczyx", "yxc"])
def test_omezarr(tmp_path: Path, zarr_format: int, axes: str) -> None:
    path = write_omezarr(tmp_path / "a.zarr", zarr_format, TRUTH, axes)
    with open_slide(path) as reader:
        info = reader.info
        assert (info.format, info.mpp, info.mpp_source) == (
            f"ome-zarr-0.{zarr_format + 2 if zarr_format == 3 else 4}", 0.25, "ome-zarr",
        )  # fmt: skip
        assert [v.height for v in info.levels] == [150, 75]
        assert (info.tile_height, info.tile_width) == (50, 50)
        for box in [(0, 0, HEIGHT, WIDTH), (-9, 30, 70, 300), (49, 49, 2, 2)]:
            np.testing.assert_array_equal(read(reader, *box), cut(TRUTH, *box))


def test_omezarr_series_are_scenes(tmp_path: Path) -> None:
    root = zarr.open_group(tmp_path / "a.zarr", mode="w", zarr_format=2)
    root.attrs["bioformats2raw.layout"] = 3
    write_omezarr(tmp_path / "a.zarr" / "0", 2, TRUTH)
    write_omezarr(tmp_path / "a.zarr" / "1", 2, TRUTH[::-1])
    with pytest.raises(SlideError, match="2 scenes"):
        open_slide(tmp_path / "a.zarr")
    with open_slide(tmp_path / "a.zarr", scene="1") as reader:
        np.testing.assert_array_equal(whole(reader), TRUTH[::-1])
    pixels = '<Pixels SizeX="211" SizeY="150" SizeC="3" SizeZ="1" SizeT="1" Type="uint8"/>'
    (tmp_path / "a.zarr" / "OME").mkdir()
    (tmp_path / "a.zarr" / "OME" / "METADATA.ome.xml").write_text(
        f'<OME><Image Name="label image">{pixels}</Image><Image Name="case 7">{pixels}</Image></OME>'
    )
    with open_slide(tmp_path / "a.zarr") as reader:
        assert reader.info.scenes == ("1",)
        np.testing.assert_array_equal(whole(reader), TRUTH[::-1])


def test_other_zarr_groups_are_refused(tmp_path: Path) -> None:
    zarr.open_group(tmp_path / "a.zarr", mode="w")
    with pytest.raises(SlideError, match="without OME `multiscales`") as error:
        open_slide(tmp_path / "a.zarr")
    assert error.value.reason is Reason.NOT_A_SLIDE


# threads, reader_cache, identity


def test_threads_see_the_same_pixels(lossless: dict[str, SlideReader]) -> None:
    reader = lossless["tiled-deflate-predictor"]
    places = [(y, x) for y in range(-20, 140, 9) for x in range(-20, 200, 13)]
    with ThreadPoolExecutor(8) as pool:
        for (y, x), got in zip(places, pool.map(lambda p: read(reader, *p, 70, 70), places), strict=True):
            np.testing.assert_array_equal(got, cut(TRUTH, y, x, 70, 70))


@pytest.fixture
def counted_opens(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    opened: list[str] = []

    def counting(source: Any, **options: Any) -> SlideReader:
        opened.append(str(source))
        return open_slide(source, **options)

    monkeypatch.setattr(reader_cache, "open_slide", counting)
    monkeypatch.setattr(reader_cache, "_loans", {})
    return opened


def test_a_process_parses_a_header_once(tmp_path: Path, counted_opens: list[str]) -> None:
    path = write_tiff(tmp_path / "a.tif", **TILED)
    start = threading.Barrier(8)

    def task(_: int) -> Pixels:
        start.wait()
        with shared_reader(path, identity="1-x") as reader:
            return read(reader, 0, 0, 9, 9)

    with ThreadPoolExecutor(8) as pool:
        assert all((got == TRUTH[:9, :9]).all() for got in pool.map(task, range(8)))
    with shared_reader(path, identity="1-x"):
        pass
    assert len(counted_opens) == 1
    with shared_reader(path, identity="2-y") as reader:
        assert reader.info.identity == "2-y"
    assert len(counted_opens) == 2


def test_idle_readers_are_bounded_and_borrowed_ones_stay_open(
    tmp_path: Path, counted_opens: list[str]
) -> None:
    paths = [write_tiff(tmp_path / f"{i}.tif", **TILED) for i in range(reader_cache.MAX_IDLE + 3)]
    with shared_reader(paths[0], identity="1-x") as held:
        for path in paths[1:]:
            with shared_reader(path, identity="1-x"):
                pass
        assert len(reader_cache._loans) == reader_cache.MAX_IDLE + 1
        np.testing.assert_array_equal(whole(held), TRUTH)
    assert len(reader_cache._loans) == reader_cache.MAX_IDLE


def test_idle_pixels_are_bounded_but_the_last_image_stays(
    tmp_path: Path, counted_opens: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = [tmp_path / f"{i}.png" for i in range(3)]
    for path in paths:
        path.write_bytes(imagecodecs.png_encode(TRUTH))
        with shared_reader(path, identity="1-x") as reader:
            read(reader, 0, 0, 5, 5)
    assert len(reader_cache._loans) == 3
    monkeypatch.setattr(reader_cache, "MAX_IDLE_BYTES", 1)
    for _ in range(2):
        with shared_reader(paths[2], identity="1-x") as reader:
            assert reader.held_bytes == TRUTH.nbytes
        assert [key[1] for key in reader_cache._loans] == [str(paths[2])]
    assert len(counted_opens) == 3


def test_identity_follows_content(tmp_path: Path) -> None:
    a, b = write_tiff(tmp_path / "a.tif"), write_tiff(tmp_path / "b.tif")
    other = write_tiff(tmp_path / "c.tif", TRUTH[::-1])
    identities = [open_slide(p).info.identity for p in (a, b, other)]
    assert identities[0] == identities[1] != identities[2]
    assert identities[0].startswith(f"{a.stat().st_size}-")


# remote


class CountingStore:
    """An fsspec file system that counts its requests."""

    def __init__(self) -> None:
        self.fs = fsspec.filesystem("file")
        self.requests: list[tuple[int, int]] = []

    def cat_ranges(self, paths: list[str], starts: list[int], ends: list[int]) -> list[bytes]:
        self.requests += zip(starts, ends, strict=True)
        return list(self.fs.cat_ranges(paths, starts, ends))


def test_a_remote_tiff_is_read_by_few_ranges(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (2048, 2048, 3), np.uint8)
    path = write_tiff(
        tmp_path / "a.tif", pixels, tile=(256, 256), compression="jpeg", compressionargs={"level": 95}
    )
    size = path.stat().st_size
    store = CountingStore()
    source = RemoteBytes(store, str(path), "s3://b/a.tif", size)
    with open_slide(path) as local, open_tiff(source, OpenRequest("s3://b/a.tif", "1-x", size)) as remote:
        assert len(store.requests) <= 3
        store.requests.clear()
        for box in [(0, 0, 2048, 2048), (300, 700, 512, 512), (0, 0, 256, 256)]:
            np.testing.assert_array_equal(read(remote, *box), read(local, *box))
        full, middle, one = (
            1,
            3,
            1,
        )  # the whole file lies end to end; a window of 3 x 3 tiles is a range a row
        assert len(store.requests) == full + middle + one
        assert sum(e - s for s, e in store.requests[1:]) < 0.3 * size


def test_a_short_reply_of_the_store_is_no_slide_error(tmp_path: Path) -> None:
    path = write_tiff(tmp_path / "a.tif", **TILED)

    class Short(CountingStore):
        def cat_ranges(self, paths: list[str], starts: list[int], ends: list[int]) -> list[bytes]:
            return [part[:-1] for part in super().cat_ranges(paths, starts, ends)]

    with pytest.raises(OSError, match="the store sent"):
        open_tiff(
            RemoteBytes(Short(), str(path), "s3://b/a", path.stat().st_size),
            OpenRequest("s3://b/a", "1-x", 1),
        )


@given(
    st.lists(
        st.tuples(st.integers(0, 500), st.integers(1, 60)).map(lambda p: (p[0], p[0] + p[1])), max_size=20
    ),
    st.integers(0, 40),
)
def test_joined_ranges_cover_each_span_once(spans: list[tuple[int, int]], gap: int) -> None:
    joined = coalesce(spans, gap, 100)
    assert sorted(i for _, members in joined for i in members) == list(range(len(spans)))
    for (start, end), members in joined:
        assert start == min(spans[i][0] for i in members)
        assert end == max(spans[i][1] for i in members)
        assert end - start <= 100 or len(members) == 1


def test_a_local_slide_never_needs_a_copy(tmp_path: Path) -> None:
    assert not needs_local_copy(str(write_tiff(tmp_path / "a.tif")))


def put(bucket: Bucket, name: str, path: Path) -> str:
    """Copy a file or folder into the bucket; its URI there."""
    fs = s3_filesystem(bucket.endpoint_url)
    for file in [p for p in path.rglob("*") if p.is_file()] if path.is_dir() else [path]:
        inside = f"/{file.relative_to(path)}" if path.is_dir() else ""
        fs.pipe_file(f"{bucket.uri.removeprefix('s3://')}/{name}{inside}", file.read_bytes())
    return f"{bucket.uri}/{name}"


def test_slides_in_a_bucket(tmp_path: Path, s3: Bucket) -> None:
    """TIFF, OME-Zarr and plain images are read from the store itself; the rest asks for a local copy."""
    jpeg = tmp_path / "a.jpg"
    Image.fromarray(TRUTH).save(jpeg)
    for path in (
        write_tiff(tmp_path / "a.svs", description=APERIO, compression="lzw", **TILED),
        write_tiff(tmp_path / "strips.tif", compression="lzw", rowsperstrip=9),
        write_omezarr(tmp_path / "a.zarr", 3, TRUTH),
        jpeg,
    ):
        uri = put(s3, path.name, path)
        assert not needs_local_copy(uri)
        with open_slide(path, mpp=0.25) as local, open_slide(uri, mpp=0.25) as remote:
            assert remote.info.uri == uri
            assert remote.info.size_bytes == local.info.size_bytes
            assert remote.info.levels == local.info.levels
            for box in [(0, 0, HEIGHT, WIDTH), (-9, 30, 70, 300), (63, 63, 2, 2)]:
                np.testing.assert_array_equal(read(remote, *box), read(local, *box))


def test_remote_formats_that_need_a_copy_say_so(tmp_path: Path, s3: Bucket) -> None:
    dicom, noise = tmp_path / "a.dcm", tmp_path / "b.svs"
    dicom.write_bytes(bytes(128) + b"DICM" + bytes(99))
    noise.write_bytes(b"no slide at all" * 999)
    vendor = write_tiff(tmp_path / "c.tif", extratags=[(65420, 4, 1, 1, True)], **TILED)
    for name, path in {"a.dcm": dicom, "c.tif": vendor, "a.ndpi": vendor, "a.mrxs": dicom}.items():
        uri = put(s3, name, path)
        assert needs_local_copy(uri)
        with pytest.raises(SlideError, match="local copy"):
            open_slide(uri)
    uri = put(s3, "b.svs", noise)
    assert not needs_local_copy(uri)
    with pytest.raises(SlideError, match="no slide format"):
        open_slide(uri)
    with pytest.raises(SlideError, match="no such file") as error:
        open_slide(f"{s3.uri}/none.svs")
    assert error.value.reason is Reason.FILE_MISSING
