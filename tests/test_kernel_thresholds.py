"""Limits of the kernels on scale and colour, held by what lies just on either side of them."""

from __future__ import annotations

import numpy as np
import pytest

from her2core.columns import NucleusFlag
from her2core.kernels import stain
from her2core.kernels.ihc.kernel import IHCKernel
from her2core.kernels.ish.dish import REFERENCE_COUNTERSTAIN, REFERENCE_RED, estimate_dish
from her2core.kernels.ish.kernel import ISHKernel
from her2core.kernels.stain import VectorRules, angle_deg, estimate_vectors, reference_stain, unit
from her2core.params import IHCParams, ISHParams
from her2core.records import Box, Fluorescence

I0 = (243.0, 242.0, 240.0)
FISH = Fluorescence(("DAPI", "HER2"), (100.0, 100.0), (10.0, 10.0), dapi_low=100.0, dapi_high=1000.0)


def turned(vector: tuple[float, ...], degrees: float, towards: tuple[float, ...]) -> np.ndarray:
    """A direction so far from a vector, on the way to another."""
    one, other = unit(vector), unit(towards)
    aside = unit(other - (other @ one) * one)
    return np.asarray(np.cos(np.radians(degrees)) * one + np.sin(np.radians(degrees)) * aside)


def light(od: np.ndarray) -> np.ndarray:
    return np.rint(np.array(I0) * 10.0**-od).astype(np.uint8)


@pytest.mark.parametrize(
    ("mpp", "accepted"), [(0.099, False), (0.101, True), (1.09, True), (1.11, False), (0.34, True)]
)
def test_ihc_takes_pixels_of_a_tenth_to_eleven_tenths(mpp: float, accepted: bool) -> None:
    if not accepted:
        with pytest.raises(ValueError, match="pyramid level"):
            IHCKernel(IHCParams(), reference_stain(I0), mpp)
        return
    kernel = IHCKernel(IHCParams(), reference_stain(I0), mpp)
    assert kernel.geometry.bin == (2 if mpp < 0.35 else 1)


def test_ihc_bins_pixels_finer_than_35_hundredths() -> None:
    assert [IHCKernel(IHCParams(), reference_stain(I0), mpp).geometry.bin for mpp in (0.345, 0.355)] == [2, 1]


def test_a_cut_point_begins_at_the_nearest_grey() -> None:
    """A grey of DAB is 1/125 OD: 0.05 is 6.25 of them, 0.0848 are 10.6."""
    params = IHCParams(ladder_od=(0.05, 0.0848, 0.15, 0.2, 0.3, 0.4, 0.6, 0.8))
    ladder = IHCKernel(params, reference_stain(I0), 0.25)._sizes(10).ladder
    assert ladder.tolist() == [6, 11, 19, 25, 37, 50, 75, 100]


@pytest.mark.parametrize(("mpp", "accepted"), [(0.029, False), (0.031, True), (1.19, True), (1.21, False)])
def test_ish_takes_pixels_of_three_hundredths_to_twelve_tenths(mpp: float, accepted: bool) -> None:
    if accepted:
        assert ISHKernel(ISHParams(), FISH, mpp).factor == max(1, round(0.5 / mpp))
        return
    with pytest.raises(ValueError, match="um/px"):
        ISHKernel(ISHParams(), FISH, mpp)


# --- colour of IHC ------------------------------------------------------------------------------------


def field(hematoxylin: np.ndarray, dab: np.ndarray, brown: float, n: int = 4000) -> np.ndarray:
    """A quarter nuclei, on tissue of a third of their stain, and a share of brown pixels."""
    place = np.arange(n) / n
    blue = np.where(place < 0.25, 0.25, 0.08) * (1 + 0.1 * np.sin(np.arange(n)))
    stained = np.where(place >= 1 - brown, 0.5, 0.0)
    return light(blue[:, None] * hematoxylin + stained[:, None] * dab)


H, D = unit(stain.REFERENCE_HEMATOXYLIN), unit(stain.REFERENCE_DAB)


@pytest.mark.parametrize(("degrees", "believed"), [(13.0, True), (17.0, False)])
def test_a_stain_is_believed_within_15_degrees_of_its_reference(degrees: float, believed: bool) -> None:
    blue = turned(stain.REFERENCE_HEMATOXYLIN, degrees, (1.0, 0.2, 0.1))
    found = estimate_vectors(field(blue, D, 0.0), I0, VectorRules())
    assert (found.hematoxylin_angle_deg > 0) == believed
    brown = turned(stain.REFERENCE_DAB, degrees, (0.0, 0.2, 1.0))
    found = estimate_vectors(field(H, brown, 0.2), I0, VectorRules())
    assert (found.dab_angle_deg > 0) == believed


@pytest.mark.parametrize(("brown", "known"), [(0.0022, False), (0.0029, True)])
def test_dab_is_known_from_one_in_a_hundred_stained_pixels(brown: float, known: bool) -> None:
    """A quarter of the pixels are nuclei, the others too pale to be stained."""
    own = turned(stain.REFERENCE_DAB, 8.0, (0.0, 0.2, 1.0))
    found = estimate_vectors(field(H, own, brown, 40_000), I0, VectorRules())
    assert (found.dab_angle_deg > 0) == known


@pytest.mark.parametrize(("n", "known"), [(480, False), (540, True)])
def test_stains_are_known_from_500_pixels(n: int, known: bool) -> None:
    blue = turned(stain.REFERENCE_HEMATOXYLIN, 8.0, (1.0, 0.2, 0.1))
    assert (estimate_vectors(field(blue, D, 0.0, n), I0, VectorRules()).source != "reference") == known


@pytest.mark.parametrize(("apart", "kept"), [(21.0, True), (19.0, False)])
def test_stains_less_than_20_degrees_apart_are_one(apart: float, kept: bool) -> None:
    """Both lie between their references, which are 37 degrees apart."""
    aside = (angle_deg(H, D) - apart) / 2
    blue, brown = (turned(tuple(a), aside, tuple(b)) for a, b in ((H, D), (D, H)))
    found = estimate_vectors(field(blue, brown, 0.3), I0, VectorRules(min_dab_fraction=0.001))
    assert ("apart" not in (found.fallback or "")) == kept


def test_nuclei_differ_from_the_tint_around_them_by_four_hundredths() -> None:
    for contrast, known in ((0.03, False), (0.05, True)):
        od = np.where(np.arange(4000) < 1000, 0.06 + contrast, 0.06)[:, None]
        blue = turned(stain.REFERENCE_HEMATOXYLIN, 8.0, (1.0, 0.2, 0.1))
        found = estimate_vectors(light(od * blue), I0, VectorRules())
        assert (found.source != "reference") == known


def test_a_hundredth_of_an_od_is_tissue_and_less_is_glass_and_black_is_left_out() -> None:
    """Pixels with a channel below grey level 12 have no colour; haze below 0.01 OD is no tissue."""
    black, dark = (np.tile(np.array(grey, np.uint8), (3000, 1)) for grey in ((11, 60, 60), (13, 60, 60)))
    assert "0 stained pixels" in str(estimate_vectors(black, I0, VectorRules()).fallback)
    assert "stained pixels, 500" not in str(estimate_vectors(dark, I0, VectorRules()).fallback)
    glass, haze = (light(np.full((3000, 3), od)) for od in (0.007, 0.013))
    assert "0 stained pixels" in str(estimate_vectors(glass, I0, VectorRules()).fallback)
    assert "stained pixels, 500" not in str(estimate_vectors(haze, I0, VectorRules()).fallback)


# --- colour of DISH -----------------------------------------------------------------------------------


def dish(
    blue: np.ndarray, red: np.ndarray, n: int = 600, reds: int = 100, darkest: float = 0.5
) -> list[tuple[np.ndarray, np.ndarray]]:
    """A tile of ``n`` pixels of counterstain and ``reds`` of red signals on it."""
    od = np.concatenate([np.linspace(0.25, darkest, n)[:, None] * blue, np.full((reds, 1), 0.7) * red])
    pixels = light(od)[None]
    return [(pixels, np.ones(pixels.shape[:2], np.bool_))]


CH, CR = unit(REFERENCE_COUNTERSTAIN), unit(REFERENCE_RED)


@pytest.mark.parametrize(("degrees", "believed"), [(14.0, True), (16.0, False)])
def test_counterstain_is_believed_within_15_degrees(degrees: float, believed: bool) -> None:
    blue = turned(REFERENCE_COUNTERSTAIN, degrees, (1.0, 0.3, 0.0))
    found = estimate_dish(dish(blue, CR), I0, 0.5)
    assert ("hematoxylin" not in (found.fallback or "")) == believed


@pytest.mark.parametrize(("degrees", "believed"), [(29.0, True), (31.0, False)])
def test_red_is_believed_within_30_degrees(degrees: float, believed: bool) -> None:
    """Mixed with a counterstain that is darker, and far enough away that the mixture is still red."""
    blue = turned(REFERENCE_COUNTERSTAIN, 14.0, (1.0, 0.1, 0.0))
    mixed = turned(REFERENCE_RED, degrees, tuple(blue))
    found = estimate_dish(dish(blue, mixed, darkest=1.2), I0, 0.5)
    assert ("red: estimate" not in (found.fallback or "")) == believed


@pytest.mark.parametrize(
    ("n", "reds", "missing"), [(210, 55, ""), (190, 55, "hematoxylin"), (210, 45, "red")]
)
def test_colours_are_known_from_200_pixels_of_counterstain_and_50_of_red(
    n: int, reds: int, missing: str
) -> None:
    found = estimate_dish(dish(CH, CR, n, reds), I0, 0.5).fallback or ""
    assert found == (f"{missing}: too few pixels of it" if missing else "")


@pytest.mark.parametrize(("gap_px", "cut"), [(2, True), (4, False)])
@pytest.mark.parametrize("axis", [0, 1])
def test_a_nucleus_within_a_micrometre_of_the_far_edges_is_cut(gap_px: int, cut: bool, axis: int) -> None:
    """A disc of 20 px; pixels of 0.25 µm, and the outline is known to a bin of two."""
    edge, centre = 240, [120, 120]
    centre[axis] = edge - 1 - gap_px - 20
    y, x = np.mgrid[:edge, :edge]
    pixels = np.full((edge, edge, 2), 100, np.uint16)
    pixels[np.hypot(y - centre[0], x - centre[1]) <= 20, 0] = 1000
    kernel = ISHKernel(ISHParams(), FISH, 0.25, extent=(edge, edge))
    by = kernel.halo_px
    around = np.pad(pixels, ((by, by), (by, by), (0, 0)))
    nuclei, _ = kernel(around, (-by, -by), Box(0, 0, edge, edge))
    assert [bool(flags & NucleusFlag.TRUNCATED) for flags in nuclei["flags"]] == [cut]
