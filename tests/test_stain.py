"""Stain colour: hand-worked densities, vectors planted and found, and the range of the counterstain."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from her2core.kernels import stain
from her2core.records import StainProfile

I0 = (240.0, 238.0, 236.0)
RULES = stain.VectorRules()


def profile(
    hematoxylin: stain.Vector = stain.REFERENCE_HEMATOXYLIN, dab: stain.Vector = stain.REFERENCE_DAB
) -> StainProfile:
    return StainProfile(I0, hematoxylin, dab, "reference", None, 0.0, 0.0, 0.05, 0.25)


def light(
    h_od: npt.ArrayLike, d_od: npt.ArrayLike, h_vector: stain.Vector, d_vector: stain.Vector
) -> npt.NDArray[np.uint8]:
    """Pixels (n, 3) of given stain amounts."""
    od = np.multiply.outer(np.asarray(h_od), stain.unit(h_vector)) + np.multiply.outer(
        np.asarray(d_od), stain.unit(d_vector)
    )
    pixels: npt.NDArray[np.uint8] = np.clip(np.rint(np.array(I0) * 10.0**-od), 0, 255).astype(np.uint8)
    return pixels


def turned(vector: stain.Vector, degrees: float) -> stain.Vector:
    """The vector turned away from the plane of the two stains."""
    normal = stain.unit(np.cross(stain.REFERENCE_HEMATOXYLIN, stain.REFERENCE_DAB))
    angle = np.radians(degrees)
    new = np.cos(angle) * stain.unit(vector) + np.sin(angle) * normal
    return float(new[0]), float(new[1]), float(new[2])


def sampled(brown: float, h_vector: stain.Vector, d_vector: stain.Vector) -> npt.NDArray[np.uint8]:
    """Pixels of a field: half nuclei, half cytoplasm, a share of them with DAB, and sensor noise."""
    rng = np.random.default_rng(7)
    n = 20_000
    h = np.where(rng.random(n) < 0.5, rng.normal(0.3, 0.05, n), 0.04)
    d = np.where(rng.random(n) < brown, rng.uniform(0.3, 0.9, n), 0.0)
    noisy = light(h, d, h_vector, d_vector) + rng.normal(0, 1.5, (n, 3))
    return np.clip(np.rint(noisy), 0, 255).astype(np.uint8)


def test_optical_density_by_hand() -> None:
    table = stain.od_table((200.0, 100.0, 240.0))
    assert table[0, 20] == pytest.approx(1.0)  # a tenth of the light
    assert table[1, 100] == 0.0
    assert table[1, 200] == pytest.approx(-0.30103)  # brighter than glass stays negative
    assert table[2, 0] == table[2, 1] == pytest.approx(2.380211)


@pytest.mark.parametrize("dab_od", [0.2, 0.4, 0.6])
def test_dab_keeps_the_scale_of_published_cut_offs(dab_od: float) -> None:
    """Not one sixth of it, as scikit-image's rgb2hed gives."""
    pixel = light([0.1], [dab_od], stain.REFERENCE_HEMATOXYLIN, stain.REFERENCE_DAB)
    hematoxylin, dab, residual = stain.unmix(pixel, profile())[0]
    assert dab == pytest.approx(dab_od, abs=0.01)
    assert hematoxylin == pytest.approx(0.1, abs=0.01)
    assert residual == pytest.approx(0.0, abs=0.01)


@given(st.floats(0, 0.8), st.floats(0, 1.2), st.floats(-10, 10))
def test_unmixing_inverts_mixing(h_od: float, d_od: float, degrees: float) -> None:
    h_vector = turned(stain.REFERENCE_HEMATOXYLIN, degrees)
    amounts = stain.unmixing_matrix(h_vector, stain.REFERENCE_DAB)
    od = h_od * stain.unit(h_vector) + d_od * stain.unit(stain.REFERENCE_DAB)
    np.testing.assert_allclose(od @ amounts, (h_od, d_od, 0.0), atol=1e-12)


def test_table_gives_what_pixels_give() -> None:
    rgb = np.random.default_rng(0).integers(0, 256, (50, 3), dtype=np.uint8)
    table = stain.stain_table(profile())
    by_hand = stain.optical_density(rgb, I0).astype(np.float64) @ stain.unmixing_matrix(
        stain.REFERENCE_HEMATOXYLIN, stain.REFERENCE_DAB
    )
    summed = sum(table[c][rgb[:, c]] for c in range(3))
    np.testing.assert_allclose(summed, by_hand, atol=1e-6)


def test_what_a_guessed_background_may_hide_is_known_in_dab() -> None:
    assert stain.dab_doubt(profile()) == (0.0, 0.0)
    guessed = replace(profile(), i0=(223.0, 223.0, 223.0), i0_brightest=243.0)
    lost, hidden = stain.dab_doubt(guessed)
    step, column = np.log10(243 / 223), stain.unmixing_matrix(guessed.hematoxylin, guessed.dab)[:, 1]
    assert hidden == pytest.approx(step * column[column > 0].sum())
    assert lost == pytest.approx(step * column[column < 0].sum())
    blue_alone = stain.dab_doubt(replace(guessed, i0=(243.0, 243.0, 223.0)))
    assert blue_alone == pytest.approx((0.0, step * column[2]))
    black = stain.dab_doubt(replace(guessed, i0=(0.0, 0.0, 0.0), i0_brightest=2.0))
    assert black == pytest.approx(
        (np.log10(2) * column[column < 0].sum(), np.log10(2) * column[column > 0].sum())
    )


@pytest.mark.parametrize(("brown", "note"), [(0.2, None), (0.4, "hematoxylin: may hold haze")])
@pytest.mark.parametrize("degrees", [-9.0, 0.0, 9.0])
def test_planted_vectors_are_found(degrees: float, brown: float, note: str | None) -> None:
    h_vector = turned(stain.REFERENCE_HEMATOXYLIN, degrees)
    d_vector = turned(stain.REFERENCE_DAB, -degrees)
    found = stain.estimate_vectors(sampled(brown, h_vector, d_vector), I0, RULES)
    assert (found.source, found.distrusted) == ("estimated", False)
    assert found.fallback is None if note is None else (found.fallback or "").startswith(note)
    assert stain.angle_deg(found.hematoxylin, h_vector) < 3
    assert stain.angle_deg(found.dab, d_vector) < 5
    assert found.hematoxylin_angle_deg == pytest.approx(abs(degrees), abs=3)


def pale_field(level: float, haze: float, dab: stain.Vector) -> npt.NDArray[np.uint8]:
    """Pixels of nuclei, tinted cytoplasm and pale membranes on it, and haze over all."""
    rng = np.random.default_rng(5)
    n = 60_000
    kind = rng.random(n)
    h = np.where(kind < 0.25, rng.normal(0.18, 0.03, n), rng.normal(0.06, 0.02, n))
    d = np.where(kind > 0.85, level * rng.uniform(0.3, 1.2, n), 0.0)
    d += haze * rng.uniform(0.5, 1.5, n)
    sharper = 10.0 ** -(d * rng.normal(0, 0.2, n))  # a crest too dark for its colour, a flank too bright
    lit = light(h, d, OWN_HEMATOXYLIN, dab) * sharper[:, None] + rng.normal(0, 1.0, (n, 3))
    return np.clip(np.rint(lit), 0, 255).astype(np.uint8)


OWN_HEMATOXYLIN: stain.Vector = (0.655, 0.648, 0.389)  # of an unstained core, 6 degrees off the reference


@pytest.mark.parametrize("dab", [stain.REFERENCE_DAB, (0.227, 0.500, 0.836), (0.33, 0.60, 0.73)])
@pytest.mark.parametrize(("level", "haze"), [(0.28, 0.0), (0.28, 0.03), (0.48, 0.06), (0.95, 0.06)])
def test_vectors_of_pale_membranes_on_tinted_tissue(level: float, haze: float, dab: stain.Vector) -> None:
    """The cytoplasm under a membrane is no part of its colour, nor is haze part of the nuclei's."""
    found = stain.estimate_vectors(pale_field(level, haze, dab), I0, RULES)
    assert found.source == "estimated"
    assert stain.angle_deg(found.dab, dab) < 3
    assert stain.angle_deg(found.hematoxylin, OWN_HEMATOXYLIN) < 4


def on_counterstain(strength: float) -> npt.NDArray[np.uint8]:
    """Pixels of pale membranes on tissue whose tint varies, `strength` times a usual counterstain."""
    rng = np.random.default_rng(9)
    n = 60_000
    kind = rng.random(n)
    nucleus = rng.normal(0.25, 0.04, n)
    h = strength * np.where(kind < 0.3, nucleus, rng.uniform(0.02, 0.08, n))
    d = np.where(kind > 0.85, 0.28 * rng.uniform(0.3, 1.2, n), 0.0)
    lit = light(h, d, OWN_HEMATOXYLIN, stain.REFERENCE_DAB) + rng.normal(0, 1.0, (n, 3))
    return np.clip(np.rint(lit), 0, 255).astype(np.uint8)


@pytest.mark.parametrize(("strength", "doubtful"), [(1.0, False), (3.0, True)])
def test_dab_that_hangs_on_the_tint_is_noted(strength: float, doubtful: bool) -> None:
    found = stain.estimate_vectors(on_counterstain(strength), I0, RULES)
    assert ("DAB: in doubt" in (found.fallback or "")) == doubtful


@pytest.mark.parametrize(("brown", "hazy"), [(0.2, False), (0.9, True)])
def test_hematoxylin_that_may_hold_haze_is_noted(brown: float, hazy: bool) -> None:
    pixels = sampled(brown, stain.REFERENCE_HEMATOXYLIN, stain.REFERENCE_DAB)
    found = stain.estimate_vectors(pixels, I0, RULES)
    assert (found.source, found.distrusted) == ("estimated", False)
    assert ("hematoxylin: may hold haze" in (found.fallback or "")) == hazy


@pytest.mark.parametrize(("nuclear", "pale"), [(0.25, False), (0.10, True)])
def test_hematoxylin_that_hangs_on_the_tint_is_noted(nuclear: float, pale: bool) -> None:
    found = stain.estimate_vectors(on_grey_tint(nuclear), I0, RULES)
    assert ("degrees of tint" in (found.fallback or "")) == pale


def on_grey_tint(nuclear: float) -> npt.NDArray[np.uint8]:
    """Pixels of nuclei on tissue that is tinted grey, not blue."""
    rng = np.random.default_rng(4)
    n = 20_000
    tissue = rng.uniform(0.03, 0.05, n)
    h = np.where(rng.random(n) < 0.3, nuclear, 0.0)
    lit = light(h, np.zeros(n), OWN_HEMATOXYLIN, stain.REFERENCE_DAB) * 10.0 ** -tissue[:, None]
    return np.clip(np.rint(lit + rng.normal(0, 0.5, (n, 3))), 0, 255).astype(np.uint8)


def test_pale_counterstain_has_a_vector_of_its_own() -> None:
    rng = np.random.default_rng(6)
    h = np.where(rng.random(20_000) < 0.25, rng.normal(0.10, 0.01, 20_000), 0.03)
    lit = light(h, np.zeros(20_000), OWN_HEMATOXYLIN, stain.REFERENCE_DAB) + rng.normal(0, 1.0, (20_000, 3))
    found = stain.estimate_vectors(np.clip(np.rint(lit), 0, 255).astype(np.uint8), I0, RULES)
    assert found.source == "partly"
    assert stain.angle_deg(found.hematoxylin, OWN_HEMATOXYLIN) < 4


def test_tissue_without_nuclei_has_no_hematoxylin_of_its_own() -> None:
    rng = np.random.default_rng(8)
    lit = light(np.full(20_000, 0.06), np.zeros(20_000), OWN_HEMATOXYLIN, stain.REFERENCE_DAB)
    noisy = np.clip(np.rint(lit + rng.normal(0, 1.0, lit.shape)), 0, 255).astype(np.uint8)
    found = stain.estimate_vectors(noisy, I0, RULES)
    assert (found.source, found.distrusted) == ("reference", False)
    assert found.fallback is not None
    assert "hematoxylin: no nuclei" in found.fallback


def test_null_slide_has_no_dab_vector_of_its_own() -> None:
    h_vector = turned(stain.REFERENCE_HEMATOXYLIN, 8)
    found = stain.estimate_vectors(sampled(0.0, h_vector, stain.REFERENCE_DAB), I0, RULES)
    assert found.source == "partly"
    assert found.fallback == "DAB: 0 % of the stained pixels are brown"
    assert not found.distrusted
    assert found.dab == pytest.approx(tuple(stain.unit(stain.REFERENCE_DAB)))
    assert stain.angle_deg(found.hematoxylin, h_vector) < 3


def test_vector_far_from_the_reference_is_refused_and_said() -> None:
    h_vector = turned(stain.REFERENCE_HEMATOXYLIN, 25)
    found = stain.estimate_vectors(sampled(0.4, h_vector, stain.REFERENCE_DAB), I0, RULES)
    assert found.distrusted
    assert found.fallback is not None
    assert "hematoxylin: estimate" in found.fallback
    assert found.hematoxylin_angle_deg == 0


def test_empty_field_falls_back_to_the_reference() -> None:
    found = stain.estimate_vectors(np.full((5000, 3), 239, np.uint8), I0, RULES)
    assert found.source == "reference"
    assert found.fallback is not None
    assert "0 stained pixels, 500 needed" in found.fallback
    assert stain.estimate_vectors(np.empty((0, 3), np.uint8), I0, RULES) == found


def test_vectors_that_nearly_coincide_are_refused() -> None:
    rules = stain.VectorRules(min_separation_deg=40.0)  # the reference vectors are 37 degrees apart
    found = stain.estimate_vectors(sampled(0.4, stain.REFERENCE_HEMATOXYLIN, stain.REFERENCE_DAB), I0, rules)
    assert (found.source, found.distrusted) == ("reference", True)
    assert found.fallback is not None
    assert "degrees apart" in found.fallback


def test_otsu_splits_two_groups() -> None:
    histogram = np.zeros(100, np.int64)
    histogram[10:15], histogram[60:70] = 50, 20
    assert 14 <= stain.otsu(histogram) < 60
    assert stain.otsu(np.eye(1, 100, 30, dtype=np.int64)[0]) == 0  # one group: nothing to split


def nuclei(seed: int, low: float, high: float) -> npt.NDArray[np.float32]:
    """Field (256, 256) of hematoxylin OD at 0.5 µm/px with discs of 7 µm across."""
    rng = np.random.default_rng(seed)
    field = np.full((256, 256), low, np.float32)
    yy, xx = np.mgrid[:256, :256]
    for y in range(15, 256, 30):
        for x in range(15, 256, 30):
            field[(yy - y) ** 2 + (xx - x) ** 2 < 49] = high
    return np.asarray(field + rng.normal(0, 0.01, field.shape), np.float32)


@pytest.mark.parametrize(("low", "high"), [(0.02, 0.10), (0.05, 0.25), (0.10, 0.60)])
def test_hematoxylin_range_of_faint_and_strong_counterstain(low: float, high: float) -> None:
    measured = stain.HematoxylinRange()
    measured.add(nuclei(0, low, high), np.ones((256, 256), np.bool_), 0.5)
    found = measured.result()
    assert found is not None
    assert found[0] == pytest.approx(low, abs=0.01)
    assert found[1] == pytest.approx(high, rel=0.2)


def test_hematoxylin_range_does_not_depend_on_the_order_of_tiles() -> None:
    fields = [nuclei(seed, 0.05, 0.2 + seed / 20) for seed in range(4)]
    results = set()
    for order in ([0, 1, 2, 3], [3, 1, 0, 2]):
        measured = stain.HematoxylinRange()
        for k in order:
            measured.add(fields[k], np.ones((256, 256), np.bool_), 0.5)
        results.add(measured.result())
    assert len(results) == 1


@pytest.mark.parametrize(("pixels", "known"), [(990, False), (1010, True)])
def test_a_hematoxylin_range_is_known_from_1000_pixels(pixels: int, known: bool) -> None:
    row, column = np.mgrid[:60, :60] // 10
    od = np.where((row + column) % 2, 0.2, 0.05).astype(np.float32)
    levels = stain.HematoxylinRange()
    levels.add(od, (np.arange(3600) < pixels).reshape(60, 60), 0.5)
    assert (levels.result() is not None) == known


def test_hematoxylin_range_needs_tissue() -> None:
    measured = stain.HematoxylinRange()
    measured.add(nuclei(0, 0.05, 0.25), np.zeros((256, 256), np.bool_), 0.5)
    assert measured.result() is None


def test_a_black_background_gives_no_warning_and_no_stain() -> None:
    table = stain.od_table((0.0, 0.0, 240.0))
    assert np.isfinite(table).all()
    assert table[:2].max() == 0.0
    np.testing.assert_array_equal(table[2], stain.od_table((*I0[:2], 240.0))[2])
