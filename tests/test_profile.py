"""Everything slide-global: what it finds on phantoms, glass and real cores, and that no layout changes it."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from her2core.params import ProfileParams, PyramidParams
from her2core.phantom import PhantomSpec, render_field
from her2core.profile.build import build_profile
from her2core.profile.sampling import halved as halved_once
from her2core.profile.tissue import TissueMask, find_background, read_tissue
from her2core.pyramid import writer as pyramid
from her2core.pyramid.labels import write_label
from her2core.pyramid.reader import PyramidReader
from her2core.readers import MemoryReader
from her2core.records import Box, PyramidRef, SlideProfile
from her2core.storage.store import Store

RGB = npt.NDArray[np.uint8]
PARAMS = ProfileParams()
CORES = [
    "0_aa1da043-3ec9-4ad1-9ccc-3e25d3b5cfaf",
    "0_ccb66c10-0990-4da2-881e-b14b0a059e2a",
    "1_154ae963-bd2a-4a12-8fa9-815ba13922ae",
    "2_0123a214-85b7-4804-86db-474b05a4ae57",
    "2_726fa489-3deb-4d06-ae5c-8f20bd3f3025",
    "2_a5593c5e-5c9c-4499-bfab-3aebe3ef4b7f",
    "3_a1f1510c-b91e-4995-ba59-596ca7ebb019",
]


class OneLevel:
    """A pyramid that stores level 0 only."""

    def __init__(self, rgb: RGB) -> None:
        self.rgb = rgb

    def read(self, level: int, y0: int, x0: int, out: RGB) -> None:
        assert level == 0
        out.fill(255)
        part = self.rgb[y0 : y0 + out.shape[0], x0 : x0 + out.shape[1]]
        out[: part.shape[0], : part.shape[1]] = part


def profiled(rgb: RGB, mpp: float = 0.25, params: ProfileParams = PARAMS) -> tuple[SlideProfile, RGB]:
    ref = PyramidRef("p", "id", (rgb.shape[:2],), 512, 4096, mpp, "zstd", 0, 0)
    return build_profile(OneLevel(rgb), ref, params)


def published(rgb: RGB, folder: Path, chunk: int, shard: int) -> tuple[Store, PyramidRef]:
    store, params = Store(str(folder)), PyramidParams(chunk=chunk, shard=shard)
    grid = pyramid.grid_of(rgb.shape[0], rgb.shape[1], params)
    for task in grid.tasks():
        pyramid.write_shards(MemoryReader(rgb), store, "p", grid, params, [task])
    pyramid.write_top(store, "p", grid, params)
    return store, pyramid.finalise(store, "p", grid, params, identity="id", mpp=0.25)


@pytest.fixture(scope="module")
def island() -> tuple[RGB, npt.NDArray[np.void]]:
    """A 0.36 mm² piece of 2+ tumour on glass, with an odd number of pixels."""
    spec = PhantomSpec(
        seed=4, height_px=3001, width_px=3203, mix=(0.2, 0.1, 0.1, 0.6, 0.0), islands=((0.5, 0.5, 0.4, 0.4),)
    )
    return render_field(spec)


def test_phantom_is_found_as_it_was_made(island: tuple[RGB, npt.NDArray[np.void]]) -> None:
    rgb, truth = island
    profile, mask = profiled(rgb)
    stain, quality = profile.stain, profile.quality
    assert stain.i0_source == "glass"
    np.testing.assert_allclose(stain.i0, (243, 242, 240), atol=1)
    assert stain.source == "estimated"
    assert stain.hematoxylin_angle_deg < 3  # drawn with the reference vectors
    assert stain.dab_angle_deg < 6
    assert stain.hematoxylin_high_od == pytest.approx(np.median(truth["nucleus_od"]), rel=0.15)
    assert 0 < stain.hematoxylin_low_od < 0.1
    assert TissueMask(mask, 1).contains(truth["y_px0"], truth["x_px0"]).all()
    assert quality.tissue_area_mm2 == pytest.approx(np.pi * 0.4 * 0.4 * 3.001 * 3.203 / 16, rel=0.15)
    assert (quality.verdict, quality.reasons) == ("warn", ("insufficient_tissue",))
    assert quality.sharp_fraction == 1
    assert quality.pen_fraction == quality.fold_fraction == quality.bubble_fraction == 0


@pytest.mark.parametrize(("chunk", "shard"), [(256, 512), (512, 4096), (2048, 2048)])
def test_profile_does_not_depend_on_the_layout(
    island: tuple[RGB, npt.NDArray[np.void]], tmp_path: Path, chunk: int, shard: int
) -> None:
    rgb, truth = island
    expected, mask = profiled(rgb)
    store, ref = published(rgb, tmp_path, chunk, shard)
    profile, on_level = build_profile(PyramidReader(store, ref), ref, PARAMS)
    assert (profile.stain, profile.quality) == (expected.stain, expected.quality)
    write_label(store, ref, profile.tissue_label, on_level, profile.tissue_level)
    tissue = read_tissue(store, ref, profile)
    rng = np.random.default_rng(0)
    y, x = rng.uniform(-50, 3100, 2000), rng.uniform(-50, 3300, 2000)
    assert tissue.contains(y, x).tolist() == TissueMask(mask, 1).contains(y, x).tolist()
    assert tissue.contains(truth["y_px0"], truth["x_px0"]).all()


@pytest.mark.parametrize("i0", [(243.0, 242.0, 240.0), (180.0, 181.0, 178.0)])
def test_empty_glass_has_no_tissue(i0: tuple[float, float, float]) -> None:
    noise = np.random.default_rng(1).normal(0, 2, (2048, 2048, 3))
    noise += np.linspace(-2, 2, 2048)[:, None, None]  # uneven light
    profile, mask = profiled(np.rint(np.array(i0) + noise).astype(np.uint8))
    assert not mask.any()
    np.testing.assert_allclose(profile.stain.i0, i0, atol=3)
    assert (profile.quality.verdict, profile.quality.reasons) == ("fail", ("insufficient_tissue",))
    assert profile.stain.source == "reference"


@pytest.mark.parametrize("fill", [0, 255])
def test_unscanned_area_is_neither_glass_nor_tissue(
    island: tuple[RGB, npt.NDArray[np.void]], fill: int
) -> None:
    rgb, _ = island
    wider = np.full((3001, 5203, 3), fill, np.uint8)
    wider[:, :3203] = rgb
    profile, mask = profiled(wider)
    np.testing.assert_allclose(profile.stain.i0, (243, 242, 240), atol=1)
    assert not mask[:, 3300:].any()
    assert mask[:, :3203].any()


def test_overexposed_glass_is_white(island: tuple[RGB, npt.NDArray[np.void]]) -> None:
    rgb, _ = island
    brighter = np.clip(np.rint(rgb * 1.08), 0, 255).astype(np.uint8)
    profile, mask = profiled(brighter)
    assert (profile.stain.i0, profile.stain.i0_source) == ((255.0, 255.0, 255.0), "white")
    assert mask.mean() == pytest.approx(profiled(rgb)[1].mean(), rel=0.1)


def test_field_without_glass_says_so() -> None:
    rgb, _ = render_field(PhantomSpec(seed=2, mix=(0.0, 0.0, 0.0, 0.0, 1.0), tumour_fraction=0.95))
    profile, mask = profiled(rgb)
    assert profile.stain.i0_source == "bright_end"
    assert "background_unknown" in profile.quality.reasons
    np.testing.assert_allclose(profile.stain.i0, (243, 242, 240), atol=8)
    assert profile.stain.i0_brightest is not None
    assert profile.stain.i0_brightest >= 243
    assert mask.all()
    stated = ProfileParams(background=(243.0, 242.0, 240.0))
    profile, _ = profiled(rgb, params=stated)
    assert (profile.stain.i0, profile.stain.i0_source) == (stated.background, "stated")
    assert profile.stain.i0_brightest is None
    assert "background_unknown" not in profile.quality.reasons
    darker = ProfileParams(background=(200.0, 242.0, 240.0))  # of another light: its patches are brighter
    again, _ = profiled(rgb, params=darker)
    assert again.stain.i0_source == "bright_end"
    assert "background_unknown" in again.quality.reasons
    with pytest.raises(ValueError, match="three grey levels, 20 to 255"):
        ProfileParams(background=(243.0, 242.0, 10.0))


def crowded(gap: int, fringe: int) -> RGB:
    """Stroma (1024 px) with a gap 6 µm wide every 48 µm, and sharpened: dark and bright lines at edges."""
    rgb = np.full((1024, 1024, 3), 150, np.uint8)
    rgb += np.random.default_rng(3).integers(0, 40, rgb.shape, np.uint8)
    for y in range(20, 1000, 192):
        for x in range(20, 1000, 192):
            cv2.rectangle(rgb, (x - 2, y - 2), (x + 27, y + 27), (170, 170, 170), 2)
            cv2.rectangle(rgb, (x, y), (x + 25, y + 25), (fringe, fringe, fringe), 2)
            cv2.rectangle(rgb, (x + 2, y + 2), (x + 23, y + 23), (gap, gap, gap), -1)
    return rgb


def test_bright_fringes_are_no_background() -> None:
    profile, _ = profiled(crowded(gap=234, fringe=250))
    assert profile.stain.i0_source == "bright_end"
    np.testing.assert_allclose(profile.stain.i0, (234, 234, 234), atol=4)
    assert profile.stain.i0_brightest is not None
    assert profile.stain.i0_brightest > 245


def test_pale_smooth_tissue_is_no_glass() -> None:
    rgb = crowded(gap=234, fringe=236)
    rgb[400:640, 400:640] = (222, 221, 224)  # mucus, smooth as glass
    assert find_background(halved(rgb, 5), PARAMS) is not None
    profile, _ = profiled(rgb)
    assert profile.stain.i0_source == "bright_end"
    np.testing.assert_allclose(profile.stain.i0, (234, 234, 234), atol=4)


def halved(rgb: RGB, times: int) -> RGB:
    for _ in range(times):
        rgb = halved_once(rgb)
    return rgb


def test_square_millimetre_of_tissue_on_glass_passes() -> None:
    spec = PhantomSpec(seed=5, height_px=4100, width_px=4100, mpp=0.3, islands=((0.5, 0.5, 0.46, 0.46),))
    profile, _ = profiled(render_field(spec)[0], mpp=0.3)
    assert 0.95 < profile.quality.tissue_area_mm2 < 1.15
    assert (profile.quality.verdict, profile.quality.reasons) == ("pass", ())


def test_background_is_the_brightest_flat_area_not_the_largest() -> None:
    """A field of pale, smooth tissue with a few fat cells in it."""
    rgb = np.full((128, 128, 3), (172, 171, 167), np.uint8)
    for y, x in ((20, 20), (60, 90), (100, 40)):
        cv2.circle(rgb, (x, y), 9, (178, 178, 176), -1)
    found = find_background(rgb, PARAMS)
    assert found is not None
    assert found.i0 == (178.0, 178.0, 176.0)


masks = st.builds(
    lambda seed, h, w, share: (np.random.default_rng(seed).random((h, w)) < share).astype(np.uint8),
    st.integers(0, 2**16),
    st.integers(1, 12),
    st.integers(1, 12),
    st.sampled_from([0.0, 0.02, 0.3, 1.0]),
)


@settings(deadline=None)
@given(masks, st.sampled_from([1, 3, 8]), st.tuples(*[st.integers(-10, 100)] * 4))
def test_bounds_hold_all_tissue_of_a_box_and_no_more(
    mask: RGB, downsample: int, corners: tuple[int, int, int, int]
) -> None:
    tissue = TissueMask(mask, downsample)
    box = Box(min(corners[::2]), min(corners[1::2]), max(corners[::2]), max(corners[1::2]))
    yy, xx = np.mgrid[box.y0 : box.y1, box.x0 : box.x1]
    inside = tissue.contains(yy, xx)
    found = tissue.bounds(box)
    if found is None:
        assert not inside.any()
        return
    assert tissue.any(box)
    rows, columns = np.flatnonzero(inside.any(axis=1)), np.flatnonzero(inside.any(axis=0))
    assert found == Box(
        box.y0 + rows[0], box.x0 + columns[0], box.y0 + rows[-1] + 1, box.x0 + columns[-1] + 1
    )


@pytest.mark.parametrize("name", CORES)
def test_real_core_passes(shared_data: Path, name: str) -> None:
    image = cv2.imread(str(shared_data / "ihc_cores" / f"{name}.jpg"))
    assert image is not None
    profile, mask = profiled(np.ascontiguousarray(image[..., ::-1]).astype(np.uint8))
    stain, quality = profile.stain, profile.quality
    assert (quality.verdict, quality.reasons) == ("pass", ())
    assert 1.0 < quality.tissue_area_mm2 < 1.4
    np.testing.assert_allclose(stain.i0, (234, 234, 242), atol=3)
    assert stain.hematoxylin_angle_deg < 12
    has_brown = name.startswith(("3", "2_0123", "2_a559"))
    assert stain.source == ("estimated" if has_brown else "partly")
    assert 0.0 <= stain.hematoxylin_low_od < 0.06
    assert 0.08 < stain.hematoxylin_high_od < 0.16
    count, _ = cv2.connectedComponents(mask)
    assert count - 1 <= 3  # one piece of tissue, perhaps a crumb beside it
    corner = mask.shape[0] // 12
    assert not mask[:corner, :corner].any()
