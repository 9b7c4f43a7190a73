"""What is told of a slide before it is scored."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import imagecodecs
import numpy as np
import numpy.typing as npt
import pytest
import tifffile

from her2core.errors import Reason, SlideError
from her2core.intake.inspect import describe, guess_assay, inspect_slide, require_scorable
from her2core.readers import MemoryReader
from her2core.records import Assay

SHARED = Path(__file__).parents[2] / "shared" / "data"
needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason="no ../shared/data beside the checkout")

GLASS, BLUE, BROWN = (240, 240, 240), (150, 150, 200), (140, 95, 60)


def field(
    stain: tuple[int, int, int], share: float, ground: tuple[int, int, int] = GLASS
) -> npt.NDArray[np.uint8]:
    """A slide of which a share is stained, in stripes that every sample field meets."""
    pixels = np.full((900, 1200, 3), ground, np.uint8)
    pixels[:, np.arange(1200) % 50 < 50 * share] = stain
    return pixels


@pytest.mark.parametrize(
    ("pixels", "guess"),
    [
        (field(BROWN, 0.2), "HER2-IHC"),
        (field(BLUE, 0.2), None),
        (field(GLASS, 0.2), None),
        (field((90, 60, 200), 0.2, ground=(8, 8, 12)), "HER2-FISH"),
    ],
    ids=["brown", "blue", "glass", "dark"],
)
def test_guess(pixels: npt.NDArray[np.uint8], guess: str | None) -> None:
    assert guess_assay(MemoryReader(pixels)) == guess


def test_guess_of_a_slide_smaller_than_a_sample() -> None:
    assert guess_assay(MemoryReader(field(BROWN, 0.5)[:20, :60])) == "HER2-IHC"


@needs_shared
@pytest.mark.parametrize(
    ("name", "guess"),
    [
        ("ihc_cores/3_a1f1510c-b91e-4995-ba59-596ca7ebb019.jpg", "HER2-IHC"),
        ("ihc_cores/2_0123a214-85b7-4804-86db-474b05a4ae57.jpg", "HER2-IHC"),
        ("ihc_cores/0_aa1da043-3ec9-4ad1-9ccc-3e25d3b5cfaf.jpg", None),
        ("wsi/cmu-1-small-region.svs", None),
        ("ish/DISH1.jpg", None),
        ("ish/FISH1.jpg", "HER2-FISH"),
        ("ish/FISH3.jpg", "HER2-FISH"),
    ],
)
def test_guess_of_real_images(name: str, guess: str | None) -> None:
    assert inspect_slide(SHARED / name, mpp=0.25).assay_guess == guess


def test_a_slide_without_scale_is_told_and_not_scorable(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(imagecodecs.jpeg8_encode(field(BROWN, 0.2)))
    info = inspect_slide(path)
    assert (info.mpp, info.mpp_source) == (None, None)
    assert info.problems == ("µm/px unknown: give it in the manifest column `mpp`",)
    with pytest.raises(SlideError, match="manifest column `mpp`") as error:
        require_scorable(info, Assay.IHC)
    assert error.value.reason is Reason.SCALE_UNKNOWN
    assert str(path) in error.value.message
    assert require_scorable(inspect_slide(path, mpp=0.25), Assay.IHC) == 0.25


@pytest.mark.parametrize(
    ("mpp", "fits"), [(0.0999, False), (0.1, True), (1.1, True), (1.11, False), (250.0, False)]
)
def test_plausible_scales(mpp: float, fits: bool) -> None:
    info = replace(MemoryReader(field(BLUE, 0.1)).info, mpp=mpp)
    if fits:
        assert require_scorable(info, Assay.IHC) == mpp
        return
    with pytest.raises(SlideError, match=f"{mpp:g} µm/px") as error:
        require_scorable(info, Assay.IHC)
    assert error.value.reason is Reason.SCALE_IMPLAUSIBLE


def test_headers_alone_do_not_touch_the_pixels(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(
        path, field(BROWN, 0.3), photometric="rgb", tile=(256, 256), compression="zlib", metadata=None
    )
    with tifffile.TiffFile(path) as file:
        start, length = file.pages[0].dataoffsets[0], file.pages[0].databytecounts[0]
    with path.open("r+b") as raw:
        raw.seek(start)
        raw.write(b"\x11" * length)
    info = inspect_slide(path, header_only=True)
    assert (info.width, info.height, info.assay_guess) == (1200, 900, None)
    assert info.identity == f"{path.stat().st_size}-unverified"
    with pytest.raises(SlideError, match="tile row 0 column 0"):
        inspect_slide(path)


def test_name_of_a_copy(tmp_path: Path) -> None:
    path = tmp_path / "copy.jpg"
    path.write_bytes(imagecodecs.jpeg8_encode(field(BLUE, 0.2)))
    assert inspect_slide(path, name="s3://bucket/a.jpg").uri == "s3://bucket/a.jpg"


def test_description() -> None:
    info = MemoryReader(field(BROWN, 0.2), uri="a1.svs").info
    text = describe(
        replace(info, format="aperio", objective_power=40.0, scenes=("0", "2"), scene="2",
                scene_sizes=((1500, 2100), (900, 1200)), assay_guess="HER2-IHC",
                problems=("the manifest says 0.25 µm/px, the file's aperio 0.5",))
    )  # fmt: skip
    assert text.splitlines() == [
        "a1.svs",
        "  aperio, 1200 x 900 px in tiles of 1200 x 900 (none), 1 level, 3.2 MB, read by memory",
        "  0.25 µm/px (manifest): 0.3 x 0.2 mm, objective 40x",
        "  scene 2 of 0 (2100 x 1500 px), 2 (1200 x 900 px)",
        "  looks like HER2-IHC",
        "  ! the manifest says 0.25 µm/px, the file's aperio 0.5",
    ]
