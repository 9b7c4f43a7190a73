"""Quality: artefacts planted and found, stains not taken for ink, and the verdict's rules."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from her2core.kernels.stain import REFERENCE_DAB, REFERENCE_HEMATOXYLIN, unit
from her2core.params import ProfileParams
from her2core.phantom import PhantomSpec, render_field
from her2core.profile import qc
from her2core.profile.build import build_profile
from her2core.profile.excluded import excluded_areas
from her2core.profile.sampling import halved
from her2core.records import PyramidRef, SlideProfile
from tests.test_profile import OneLevel

RGB = npt.NDArray[np.uint8]
PARAMS = ProfileParams()
I0 = (240.0, 240.0, 240.0)
INKS = {
    "blue": (1.1, 0.75, 0.15),
    "green": (1.0, 0.45, 0.80),
    "red": (0.05, 0.90, 0.75),
    "black": (1.2, 1.15, 1.10),
    "violet": (0.5, 0.90, 0.30),
    "thin blue": (0.6, 0.45, 0.05),
}
GOOD = qc.Measures(1.2, 1.0, 0.0, 0.0, 0.0, 0.0, 0.02, background_known=True, vectors_distrusted=False)


@pytest.fixture(scope="module", params=["null", "3+"])
def field(request: pytest.FixtureRequest) -> RGB:
    mix = (1.0, 0.0, 0.0, 0.0, 0.0) if request.param == "null" else (0.0, 0.0, 0.0, 0.0, 1.0)
    return render_field(PhantomSpec(seed=8, mix=mix, islands=((0.5, 0.5, 0.45, 0.45),)))[0]


@pytest.fixture(scope="module")
def clean(field: RGB) -> SlideProfile:
    return profiled(field)


def profiled(rgb: RGB) -> SlideProfile:
    ref = PyramidRef("p", "id", (rgb.shape[:2],), 512, 4096, 0.25, "zstd", 0, 0)
    return build_profile(OneLevel(rgb), ref, PARAMS)[0]


@pytest.mark.parametrize("ink", INKS)
def test_ink_is_found_and_cut_out(field: RGB, clean: SlideProfile, ink: str) -> None:
    stroke = np.zeros(field.shape[:2], np.uint8)
    cv2.line(stroke, (0, 800), (2048, 1300), 1, 200)
    inked = field.astype(np.float64)
    inked[stroke > 0] *= 10.0 ** -np.array(INKS[ink])
    profile = profiled(np.rint(inked).astype(np.uint8))
    tissue = clean.quality.tissue_area_mm2
    under = 200 * 1850 * 0.0625e-6 / tissue  # the stroke's length over tissue is about 1850 px
    # cut out with a margin of 50 µm (200 px) on either side: three times as broad
    assert 2 * under < profile.quality.pen_fraction < 3.3 * under
    assert profile.quality.tissue_area_mm2 == pytest.approx(
        tissue * (1 - profile.quality.pen_fraction), rel=0.06
    )
    np.testing.assert_allclose(profile.stain.hematoxylin, clean.stain.hematoxylin, atol=0.05)


def test_no_mixture_of_stains_is_taken_for_ink() -> None:
    h, d = np.meshgrid(np.linspace(0, 0.35, 15), np.linspace(0, 1.4, 29))
    for bend in (-0.04, 0.0, 0.04):  # stains vary: tilt both vectors towards red or blue
        tilt = np.array([bend, 0.0, -bend])
        od = h[..., None] * unit(unit(REFERENCE_HEMATOXYLIN) + tilt) + d[..., None] * unit(
            unit(REFERENCE_DAB) + tilt
        )
        rgb = np.rint(240 * 10.0**-od).astype(np.uint8).repeat(20, axis=0).repeat(20, axis=1)
        assert not qc.find_pen(rgb, I0, 8.0, PARAMS).any()


def test_fold_in_counterstained_tissue_is_found() -> None:
    spec = PhantomSpec(seed=8, spacing_um=10.5, islands=((0.5, 0.5, 0.45, 0.45),))
    rgb = render_field(spec)[0]
    assert profiled(rgb).quality.fold_fraction == 0
    crease = np.zeros(rgb.shape[:2], np.uint8)
    cv2.line(crease, (500, 700), (1500, 1500), 1, 250)
    threefold = rgb * (np.roll(rgb, (400, 100), (0, 1)) / 242.0) * (np.roll(rgb, (-300, 200), (0, 1)) / 242.0)
    folded = np.where(crease[..., None] > 0, threefold, rgb).astype(np.uint8)
    share = float(crease.mean()) / (np.pi * 0.45 * 0.45)
    assert 0.2 * share < profiled(folded).quality.fold_fraction < 1.5 * share


def test_bubble_is_found_by_its_rim(field: RGB, clean: SlideProfile) -> None:
    with_bubble = field.copy()
    cv2.circle(with_bubble, (1000, 1100), 500, (110, 111, 112), 80)
    quality = profiled(with_bubble).quality
    share = np.pi * 540**2 * 0.0625e-6 / clean.quality.tissue_area_mm2
    assert quality.bubble_fraction == pytest.approx(share, rel=0.15)
    assert clean.quality.bubble_fraction == 0


def test_blur_is_found(field: RGB, clean: SlideProfile) -> None:
    assert clean.quality.sharp_fraction > 0.9
    blurred = np.asarray(cv2.GaussianBlur(field, (0, 0), 5.0), np.uint8)  # 1.25 µm
    quality = profiled(blurred).quality
    assert quality.sharp_fraction < 0.1
    assert (quality.verdict, quality.reasons[0]) == ("fail", "blur")


def test_sharpness_hardly_depends_on_how_strongly_it_is_stained(field: RGB) -> None:
    tile = halved(field[768:1280, 768:1280])
    pale = np.rint(240 - (240 - tile.astype(np.float64)) * 0.5).astype(np.uint8)
    tissue = np.ones(tile.shape[:2], np.bool_)
    assert qc.sharpness(pale, tissue, 0.5) == pytest.approx(qc.sharpness(tile, tissue, 0.5), rel=0.2)
    assert qc.sharpness(tile, np.zeros_like(tissue), 0.5) == 0


@pytest.mark.parametrize(
    ("change", "verdict", "reason"),
    [
        ({}, "pass", None),
        ({"tissue_area_mm2": 0.9}, "pass", None),
        ({"tissue_area_mm2": 0.89}, "warn", "insufficient_tissue"),
        ({"tissue_area_mm2": 0.09}, "fail", "insufficient_tissue"),
        ({"sharp_fraction": 0.8}, "pass", None),
        ({"sharp_fraction": 0.79}, "warn", "blur"),
        ({"sharp_fraction": 0.39}, "fail", "blur"),
        ({"pen_fraction": 0.2}, "pass", None),
        ({"pen_fraction": 0.21}, "warn", "artefact"),
        ({"fold_fraction": 0.21}, "warn", "artefact"),
        ({"bubble_fraction": 0.21}, "warn", "artefact"),
        ({"saturated_fraction": 0.06}, "warn", "saturation"),
        ({"residual_p95_od": 0.16}, "warn", "stain_fallback"),
        ({"vectors_distrusted": True}, "warn", "stain_fallback"),
        ({"background_known": False}, "warn", "background_unknown"),
    ],
)
def test_verdict_and_its_reason(change: dict[str, Any], verdict: str, reason: str | None) -> None:
    quality = qc.judge(replace(GOOD, **change), I0, 0.25, PARAMS)
    assert (quality.verdict, quality.reasons) == (verdict, (reason,) if reason else ())


def test_dark_background_and_coarse_slide() -> None:
    assert qc.judge(GOOD, (201.0, 199.0, 230.0), 0.25, PARAMS).reasons == ("background_dark",)
    assert qc.judge(GOOD, (99.0, 120.0, 120.0), 0.25, PARAMS).verdict == "fail"
    assert qc.judge(GOOD, I0, 0.5, PARAMS).reasons == ("resolution_low",)


def test_excluded_areas_are_those_behind_the_fractions_of_the_profile(field: RGB) -> None:
    marked = field.astype(np.float64)
    stroke = np.zeros(field.shape[:2], np.uint8)
    cv2.line(stroke, (0, 800), (2048, 1300), 1, 200)
    marked[stroke > 0] *= 10.0 ** -np.array(INKS["blue"])
    rgb = np.rint(marked).astype(np.uint8)
    rgb[1400:] = cv2.GaussianBlur(rgb[1400:], (0, 0), 8)
    ref = PyramidRef("p", "id", (rgb.shape[:2],), 512, 4096, 0.25, "zstd", 0, 0)
    profile, mask = build_profile(OneLevel(rgb), ref, PARAMS)
    found = excluded_areas(OneLevel(rgb), ref, profile, PARAMS)
    assert found is not None
    recorded = profile.quality
    taken = found.pen | found.folds | found.bubbles
    whole = np.count_nonzero(taken) + np.count_nonzero(mask) / found.step**2
    for area, fraction in (
        (found.pen, recorded.pen_fraction),
        (found.folds, recorded.fold_fraction),
        (found.bubbles, recorded.bubble_fraction),
    ):
        assert np.count_nonzero(area) / whole == pytest.approx(fraction, abs=2e-3)
    assert recorded.pen_fraction is not None
    assert recorded.pen_fraction > 0.1
    assert 1 - len(found.blurred) / found.sampled == pytest.approx(recorded.sharp_fraction, abs=1e-4)
    assert found.blurred
    assert all(box.y1 > 1400 for box in found.blurred)
