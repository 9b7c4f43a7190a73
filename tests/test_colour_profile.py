"""Colour profiles: reported for every kind of file, carried into the pyramid, and never applied."""

from __future__ import annotations

import json
from base64 import b64decode
from pathlib import Path

import numpy as np
import openslide
import pytest
import tifffile
from PIL import Image, ImageCms

from her2core.intake.inspect import describe, inspect_slide
from her2core.params import PyramidParams
from her2core.pyramid import writer
from her2core.readers import open_slide
from her2core.readers.icc import profile_name
from her2core.readers.openslide import open_openslide
from her2core.records import Assay, SlideRow
from her2core.stages import prepare
from her2core.storage.sources import Scratch, file_stamp
from her2core.storage.store import Store
from tests.test_dicom import RAW, save, whole_slide

PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
PIXELS = np.random.default_rng(0).integers(0, 255, (150, 211, 3), np.uint8)


def write(path: Path) -> Path:
    if path.suffix == ".tif":
        tifffile.imwrite(path, PIXELS, photometric="rgb", tile=(64, 64), metadata=None, iccprofile=PROFILE)
    elif path.suffix == ".dcm":
        slide = whole_slide(np.ascontiguousarray(PIXELS), RAW)
        slide.OpticalPathSequence[0].ICCProfile = PROFILE + bytes(len(PROFILE) % 2)
        save(path, slide)
    else:
        Image.fromarray(PIXELS).save(path, icc_profile=PROFILE, quality=95)
    return path


@pytest.mark.parametrize("suffix", ["tif", "dcm", "png", "jpg"])
def test_a_profile_is_reported_and_not_applied(tmp_path: Path, suffix: str) -> None:
    path = write(tmp_path / f"a.{suffix}")
    info = inspect_slide(path, mpp=0.25)
    assert info.colour_profile == f"sRGB built-in, {len(PROFILE)} bytes"
    assert "colour profile sRGB built-in" in describe(info)
    with open_slide(path) as reader:
        assert getattr(reader, "icc_profile", b"").rstrip(b"\0") == PROFILE.rstrip(b"\0")
        out = np.empty_like(PIXELS)
        reader.read_region(0, 0, out)
    shown = np.asarray(Image.open(path)) if suffix == "jpg" else PIXELS
    np.testing.assert_array_equal(out, shown)


def test_openslide_hands_its_profile_on(tmp_path: Path) -> None:
    from her2core.readers.base import OpenRequest

    path = write(tmp_path / "a.tif")
    with openslide.OpenSlide(path) as slide:
        assert slide.color_profile is not None
    with open_openslide(path, OpenRequest("a", "1-x", 1, mpp=0.25)) as reader:
        assert reader.icc_profile == PROFILE


def test_a_slide_without_profile_has_none(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, PIXELS, photometric="rgb", tile=(64, 64), metadata=None)
    assert inspect_slide(path, mpp=0.25).colour_profile is None


def test_the_pyramid_carries_the_profile(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tif")
    info = inspect_slide(path, mpp=0.25)
    params, store = PyramidParams(chunk=64, shard=128), Store(str(tmp_path / "out"))
    row = SlideRow("s", "c", str(path), Assay.IHC, mpp=0.25)
    source = prepare.Source(
        info, row, Scratch(str(tmp_path / "scratch"), 1 << 30), None, file_stamp(str(path))
    )
    grid = writer.grid_of(info.height, info.width, params)
    for task in grid.tasks():
        prepare.shard(source, store, "p", grid, params, task)
    prepare.finish_pyramid(source, store, "p", grid, writer.settle(info, params))
    attributes = json.loads(store.read_bytes("p/zarr.json"))["attributes"]
    assert b64decode(attributes["icc_profile"]) == PROFILE
    assert attributes["ome"]["version"] == "0.5"


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (b"abc", "no ICC profile, 3 bytes"),
        (bytes(36) + b"acsp" + bytes(88) + b"\xff\xff\xff\xff", "without a name, 132 bytes"),
        (
            bytes(36) + b"acsp" + bytes(88) + b"\0\0\0\1desc\xff\xff\xff\xff\0\0\0\1",
            "without a name, 144 bytes",
        ),
    ],
)
def test_profiles_that_are_none(data: bytes, name: str) -> None:
    assert profile_name(data) == name


def test_descriptions_of_version_2() -> None:
    desc = b"desc" + bytes(4) + (13).to_bytes(4, "big") + b"Scanner <X>\0\0"
    data = bytes(36) + b"acsp" + bytes(88) + (1).to_bytes(4, "big")
    data += b"desc" + (144).to_bytes(4, "big") + len(desc).to_bytes(4, "big") + desc
    assert profile_name(data) == f"Scanner X, {len(data)} bytes"
