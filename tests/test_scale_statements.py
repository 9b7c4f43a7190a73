"""Every way in which a file that others read says that a pixel is 0.25 µm."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from her2core.encoding import decode_text
from her2core.readers import open_slide
from her2core.readers.scale import length_um, read_number

PIXELS = np.full((64, 64, 3), 200, np.uint8)
RATIONAL, FLOAT, DOUBLE, LONG, SHORT = 5, 11, 12, 4, 3
APERIO = "Aperio Image Library v10.0.51\r\n64x64 (64x64) RAW|AppMag = 40|MPP = {}|User = 7"
OME = (
    '<?xml version="1.0" encoding="{}"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06">'
    '<Image ID="Image:0"><Pixels ID="Pixels:0" DimensionOrder="XYCZT" Type="uint8" SizeX="64" SizeY="64" '
    'SizeC="3" SizeZ="1" SizeT="1" PhysicalSizeX="0.25" PhysicalSizeXUnit="{}" PhysicalSizeY="0.25" '
    'PhysicalSizeYUnit="{}"><Channel ID="Channel:0:0" SamplesPerPixel="3"/><TiffData IFD="0"/></Pixels>'
    "</Image></OME>"
)


def write(
    path: Path, text: bytes = b"", resolution: tuple[int, Any] | None = None, unit: int | None = None
) -> Path:
    more: list[tuple[Any, ...]] = [(270, 7, len(text), text, True)] if text else []
    if resolution is not None:
        kind, value = resolution
        more += [(tag, kind, 1, value, True) for tag in (65282, 65283)]
    more += [] if unit is None else [(65296, 3, 1, unit, True)]
    tifffile.imwrite(
        path, PIXELS, photometric="rgb", tile=(64, 64), metadata=None, description=None, extratags=more,
        software=False, resolution=None,
    )  # fmt: skip
    data = bytearray(path.read_bytes())
    with tifffile.TiffFile(path) as file:
        places = {tag.code: tag.offset for tag in file.pages[0].tags}
    for real, written in ((282, 65282), (283, 65283), (296, 65296)):
        if real in places:  # the writer's own one makes way
            data[places[real] : places[real] + 2] = (65000 + real).to_bytes(2, "little")
        if written in places:
            data[places[written] : places[written] + 2] = real.to_bytes(2, "little")
    path.write_bytes(data)
    return path


def mpp_of(path: Path) -> tuple[float | None, str | None]:
    with open_slide(path) as reader:
        return reader.info.mpp, reader.info.mpp_source


@pytest.mark.parametrize(
    ("resolution", "unit"),
    [
        ((RATIONAL, (40_000, 1)), 3),
        ((RATIONAL, (101_600, 1)), 2),
        ((RATIONAL, (101_600, 1)), None),
        ((FLOAT, 40_000.0), 3),
        ((DOUBLE, 40_000.0), 3),
        ((LONG, 40_000), 3),
        ((SHORT, 40_000), 3),
    ],
)
def test_resolution_in_any_type_of_number(
    tmp_path: Path, resolution: tuple[int, Any], unit: int | None
) -> None:
    assert mpp_of(write(tmp_path / "a.tif", resolution=resolution, unit=unit)) == (0.25, "tiff_resolution")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 0.0, -40_000.0, 1e-300])
def test_a_resolution_without_sense_is_none(tmp_path: Path, value: float) -> None:
    assert mpp_of(write(tmp_path / "a.tif", resolution=(DOUBLE, value), unit=3)) == (None, None)


@pytest.mark.parametrize(
    ("unit", "per_unit"),
    [("micron", (4, 1)), ("um", (4, 1)), (r"\u00B5m", (4, 1)), ("µm", (4, 1)), ("microns", (4, 1)),
     ("nm", (4, 1000)), ("mm", (4000, 1)), ("cm", (40_000, 1)), ("inch", (101_600, 1))],
)  # fmt: skip
def test_imagej_states_its_unit_in_words(tmp_path: Path, unit: str, per_unit: tuple[int, int]) -> None:
    text = f"ImageJ=1.54f\nimages=1\nunit={unit}\nloop=false\n".encode()
    path = write(tmp_path / "a.tif", text, (RATIONAL, per_unit), 1)
    mpp, source = mpp_of(path)
    assert (mpp, source) == (pytest.approx(0.25), "imagej")


def test_imagej_in_pixels_states_nothing(tmp_path: Path) -> None:
    text = b"ImageJ=1.54f\nunit=pixel\n"
    assert mpp_of(write(tmp_path / "a.tif", text, (RATIONAL, (4, 1)), 1)) == (None, None)


@pytest.mark.parametrize(
    "text",
    [
        APERIO.format("0.2500").encode(),
        APERIO.format(".2500").encode(),
        APERIO.format("0,25").encode(),
        APERIO.format("2.5e-1").encode(),
        APERIO.format("+0.25 \u00b5m").encode("latin-1"),
        APERIO.format("0.25").encode("utf-8-sig"),
        APERIO.format("0.25").encode("utf-16"),
        APERIO.format("0.25").encode("utf-16-le"),
        APERIO.format("0.25").encode("utf-16-be"),
        APERIO.replace("MPP = ", "MPP=").format("0.25").encode(),
        APERIO.replace("MPP = ", "\u00a0MPP\t=\u00a0").format("0.25").encode(),
        APERIO.replace("|MPP = ", ";mpp : ").format("0.25").encode(),
        APERIO.replace("|MPP = ", "\r\nMPP = ").format("0.25").encode(),
    ],
)
def test_aperio_however_it_is_written(tmp_path: Path, text: bytes) -> None:
    assert mpp_of(write(tmp_path / "a.svs", text + b"\0")) == (0.25, "aperio")


@pytest.mark.parametrize(
    ("declared", "stored", "unit"),
    [
        ("UTF-8", "utf-8", "µm"),
        ("UTF-8", "utf-8-sig", "µm"),
        ("UTF-8", "latin-1", "µm"),
        ("UTF-8", "utf-8", "Âµm"),
        ("ISO-8859-1", "latin-1", "µm"),
        ("iso-8859-15", "iso-8859-15", "µm"),
        ("windows-1252", "cp1252", "µm"),
        ("UTF-16", "utf-16", "µm"),
        ("utf-16", "utf-8", "μm"),
        ("UTF-16LE", "utf-16-le", "µm"),
        ("nobody-knows-this", "utf-8", "micron"),
    ],
)
def test_ome_xml_in_any_encoding(tmp_path: Path, declared: str, stored: str, unit: str) -> None:
    for zeros in (b"\0\0", b"\0", b""):  # some writers end a text of two bytes a sign with a single zero
        path = write(tmp_path / "a.tif", OME.format(declared, unit, unit).encode(stored) + zeros)
        assert mpp_of(path) == (0.25, "ome")


def test_units_and_numbers() -> None:
    assert length_um("250", "NM") == pytest.approx(0.25)
    assert length_um("0.25", "furlong") is None
    assert read_number("٣") is None
    assert [read_number(text) for text in ("1.", ",5", "+2", "..2", "e5")] == [1.0, 0.5, 2.0, None, None]


def test_bytes_that_no_encoding_fits_are_text_all_the_same() -> None:
    assert decode_text(b"\x81\xff\xfe MPP") == "\ufffdÿþ MPP"
    assert decode_text(b"") == ""
    assert decode_text(b"\xff\xfeA") == "\ufffd"


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_an_orientation_is_told_and_pixels_are_as_stored(tmp_path: Path, orientation: int) -> None:
    path = tmp_path / "a.tif"
    pixels = np.arange(64 * 64 * 3, dtype=np.uint32).reshape(64, 64, 3).astype(np.uint8)
    tifffile.imwrite(path, pixels, photometric="rgb", tile=(64, 64), metadata=None,
                     extratags=[(274, 3, 1, orientation, True)])  # fmt: skip
    with open_slide(path, mpp=0.25) as reader:
        out = np.empty((64, 64, 3), np.uint8)
        reader.read_region(0, 0, out)
        told = reader.info.problems
    np.testing.assert_array_equal(out, tifffile.imread(path))
    assert [f"orientation tag is {orientation}" in problem for problem in told] == [True] * (orientation > 1)


def test_the_orientation_of_a_photograph_is_told(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[274] = 6
    Image.fromarray(PIXELS).save(tmp_path / "a.jpg", exif=exif)
    with open_slide(tmp_path / "a.jpg", mpp=0.25) as reader:
        assert [problem.startswith("its orientation tag is 6") for problem in reader.info.problems] == [True]
    Image.fromarray(PIXELS).save(tmp_path / "b.jpg")
    with open_slide(tmp_path / "b.jpg", mpp=0.25) as reader:
        assert reader.info.problems == ()
