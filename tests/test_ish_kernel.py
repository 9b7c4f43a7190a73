"""The ISH kernel: what it finds on phantoms, what it flags, and that no way of cutting a slide changes it.

Phantoms prove plumbing and arithmetic, not clinical validity.
"""

from __future__ import annotations

import math
from functools import cache
from itertools import pairwise
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from scipy.optimize import linear_sum_assignment
from scipy.spatial import ConvexHull

from her2core.columns import NUCLEUS_DTYPE, SPOT_DTYPE, NucleusFlag
from her2core.errors import Reason
from her2core.guidelines.rules_ish import load_ish_rules
from her2core.kernels.ish.dish import ZERO
from her2core.kernels.ish.distance_map import ONE_STEP, measure_depth
from her2core.kernels.ish.holes import fill_holes
from her2core.kernels.ish.kernel import (
    ISHKernel,
    hide,
    mend,
    resolvable,
    shrink_grey,
    shrink_rgb,
    warm,
)
from her2core.kernels.ish.polygon import outlines, paint
from her2core.kernels.polar import N_RAYS, new_ray_index
from her2core.lake.rows_nuclei import SingleSignals, Spots, kernel_table, nucleus_rows
from her2core.params import ISHParams, ISHScoreParams
from her2core.phantom.ish import ISHSpec, PlantedISH, Population, plant_ish
from her2core.phantom.ish_render import (
    DAPI_LEVEL,
    FIELD,
    GLASS,
    HEMATOXYLIN_OD,
    render_ish,
)
from her2core.records import Assay, Box, DishStain, Quality, SlideRow
from her2core.scoring.ish import score_ish
from her2core.scoring.ish_copies import cluster_copies, single_signal
from her2core.scoring.ish_nuclei import MeasuredNuclei
from tests.helpers.stains import stain_of

Pixels = npt.NDArray[Any]
Rows = np.ndarray[tuple[int], np.dtype[np.void]]
MODALITIES = ("FISH", "DISH")
PARAMS = ISHScoreParams(reserve_one_in=1000, min_nuclei=10, full_nuclei=20)  # a phantom is a small field
RULES = load_ish_rules(PARAMS.rules)
PASSED = Quality("pass", (), 1.0, *(None,) * 6)


def cut(pixels: Pixels, box: Box, outside: int) -> Pixels:
    """Part of a slide, ``outside`` beyond it."""
    out = np.full((box.height, box.width, pixels.shape[2]), outside, pixels.dtype)
    y0, x0 = max(box.y0, 0), max(box.x0, 0)
    y1, x1 = min(box.y1, pixels.shape[0]), min(box.x1, pixels.shape[1])
    if y0 < y1 and x0 < x1:
        out[y0 - box.y0 : y1 - box.y0, x0 - box.x0 : x1 - box.x0] = pixels[y0:y1, x0:x1]
    return out


def measured(
    kernel: ISHKernel, pixels: Pixels, core: Box, extra: tuple[int, int, int, int] = (0, 0, 0, 0)
) -> tuple[Rows, Rows]:
    """Rows of ``core`` from the least region that will do, grown by ``extra`` (top, left, bottom, right)."""
    need = core.grown(kernel.halo_px)
    box = Box(need.y0 - extra[0], need.x0 - extra[1], need.y1 + extra[2], need.x1 + extra[3])
    outside = 255 if isinstance(kernel.stain, DishStain) else 0
    return kernel(cut(pixels, box, outside), (box.y0, box.x0), core)


def pairs(a: Rows, b: Rows, reach: float) -> npt.NDArray[np.int64]:
    """One-to-one matches (k, 2) of places that are no farther apart than ``reach``, px."""
    if len(a) == 0 or len(b) == 0:
        return np.zeros((0, 2), np.int64)
    distance = np.hypot(a["y_px0"][:, None] - b["y_px0"], a["x_px0"][:, None] - b["x_px0"])
    rows, columns = linear_sum_assignment(np.where(distance <= reach, distance, 1e6))
    close = distance[rows, columns] <= reach
    return np.stack([rows[close], columns[close]], axis=1)


class Result:
    """A phantom, what the kernel makes of it, and how the two match."""

    def __init__(self, spec: ISHSpec, params: ISHParams | None = None) -> None:
        self.planted: PlantedISH = plant_ish(spec)
        self.spec = spec
        whole = Box(0, 0, spec.height_px, spec.width_px)
        self.pixels = render_ish(self.planted, whole)
        stain = stain_of(spec.modality, dual=spec.dual)
        size = (spec.height_px, spec.width_px)
        self.kernel = ISHKernel(params or ISHParams(), stain, spec.mpp, extent=size)
        self.nuclei, self.spots = measured(self.kernel, self.pixels, whole)
        self.pairs = pairs(self.planted.nuclei, self.nuclei, 3.0 / spec.mpp)
        overlapped = self.planted.nuclei["overlapped"][self.pairs[:, 0]]
        self.passed = self.pairs[~overlapped & (self.nuclei["flags"][self.pairs[:, 1]] == 0)]

    def flagged(self, flag: NucleusFlag, *, overlapped: bool) -> float:
        """Share of the matched nuclei, overlapped or not, that carry a flag."""
        of = self.planted.nuclei["overlapped"][self.pairs[:, 0]] == overlapped
        return float(((self.nuclei["flags"][self.pairs[of, 1]] & flag) > 0).mean())

    def signals(self) -> tuple[float, float]:
        """Recall and precision of signals, in nuclei that pass the gates."""
        hits = planted = found = 0
        for i, j in self.passed:
            for probe in range(2):
                a = self.planted.spots[
                    (self.planted.spots["nucleus"] == i) & (self.planted.spots["probe"] == probe)
                ]
                b = self.spots[(self.spots["nucleus"] == j) & (self.spots["probe"] == probe)]
                hits += len(pairs(a, b, 0.35 / self.spec.mpp))
                planted += len(a)
                found += len(b)
        return hits / planted, hits / found

    def copies(self, probe: int) -> float:
        """Copies counted over copies planted, in nuclei that pass the gates."""
        of = self.spots[self.spots["probe"] == probe]
        single = single_signal(of["integrated"])
        mine = of[np.isin(of["nucleus"], self.passed[:, 1])]
        planted = self.planted.nuclei[("her2", "cep17")[probe]][self.passed[:, 0]].sum()
        return float(cluster_copies(mine["integrated"], single).sum() / planted)


@cache
def result(modality: str, kind: str) -> Result:
    base: dict[str, Any] = {"height_px": 1000, "width_px": 1000, "mpp": 0.12}
    kinds: dict[str, dict[str, Any]] = {
        "amplified": {"seed": 1, "populations": (Population(1.0, 8.0, 2.0),)},
        "polysomic": {"seed": 2, "populations": (Population(1.0, 5.0, 5.0),)},
        "monosomic": {"seed": 3, "populations": (Population(1.0, 2.4, 3.0),)},
        "highest": {"seed": 4, "populations": (Population(1.0, 10.0, 1.25),)},
        "crowded": {"seed": 5, "overlapping": 0.2, "touching": 0.4},
        "noisy": {"seed": 6, "noise": 2.5},
        "fine": {"seed": 7, "mpp": 0.06, "height_px": 2000, "width_px": 2000},
        "coarse": {"seed": 8, "mpp": 0.17, "height_px": 700, "width_px": 700},
        "blurred": {"seed": 9, "defocus_um": 0.9},
        "single": {"seed": 10, "dual": False, "populations": (Population(1.0, 4.0, 0.0),)},
    }
    return Result(ISHSpec(modality, **{**base, **kinds[kind]}))


# --- parts ---------------------------------------------------------------------------------------------


def test_depth_is_the_distance_to_what_is_not_stained() -> None:
    rng = np.random.default_rng(1)
    stained = cv2.GaussianBlur(rng.random((120, 150)), (0, 0), 6) > 0.49
    stained[:2] = stained[-2:] = stained[:, :2] = stained[:, -2:] = False
    depth = np.where(stained, 255, 0).astype(np.uint8)
    measure_depth(depth, 60)
    exact = np.minimum(ndimage.distance_transform_edt(stained) * ONE_STEP, 60)
    np.testing.assert_allclose(depth, exact, rtol=0.09, atol=1.0)
    assert (depth[~stained] == 0).all()
    assert depth.max() == 60


def test_holes_are_regions_small_enough_for_their_shade() -> None:
    rng = np.random.default_rng(2)
    for k in range(40):
        shape = rng.integers(1, 120, 2)
        blobs = cv2.GaussianBlur(rng.random(shape), (0, 0), rng.uniform(0.3, 3))
        mask = np.where(blobs > np.quantile(blobs, rng.uniform(0.1, 0.9)), 255, 0).astype(np.uint8)
        grey = rng.integers(40 if k % 2 else 49, 100, shape).astype(np.uint8)
        expected = mask.copy()
        regions, _ = ndimage.label(mask == 0)
        for i, where in enumerate(ndimage.find_objects(regions), start=1):
            inside = regions[where] == i
            widest = 5 if (grey[where][inside] <= 48).any() else 12
            if max(inside.shape) <= widest:
                expected[where][inside] = 255
        fill_holes(mask, grey, 48, (5, 12))
        np.testing.assert_array_equal(mask, expected)


def test_shape_of_known_outlines() -> None:
    ray_index = new_ray_index(60)
    angle = 2 * np.pi * np.arange(N_RAYS) / N_RAYS
    ellipse = 20 * 10 / np.hypot(10 * np.cos(angle), 20 * np.sin(angle))
    bite = np.full(N_RAYS, 20.0)
    bite[5:14] = 4.0
    path = np.rint(np.stack([np.full(N_RAYS, 20), ellipse + 0.5, bite + 0.5])).astype(np.int32)
    at = np.zeros(3, np.int32)
    shape = outlines(at, at, path, ray_index)
    assert shape.area[0] == pytest.approx(np.pi * 19.5**2, rel=0.01)  # half a pixel inside
    assert shape.elongation[0] == pytest.approx(1.0, abs=0.01)
    assert shape.area[1] == pytest.approx(np.pi * 200, rel=0.03)
    assert shape.elongation[1] == pytest.approx(2.0, rel=0.08)  # corners are smoothed
    assert (shape.solidity[:2] > 0.97).all()
    assert shape.solidity[2] < 0.92
    for i in range(3):
        corners = shape.radius[i, :, None] * np.stack([ray_index.sin, ray_index.cos], axis=1)
        assert shape.solidity[i] == pytest.approx(shape.area[i] / ConvexHull(corners).volume)
    assert shape.centroid[2, 0] < -1.0  # the bite is at the bottom


def test_pixels_of_a_nucleus_fill_its_outline_and_rivals_share_fairly() -> None:
    ray_index = new_ray_index(60)
    at = np.array([20, 20], np.int32), np.array([16, 28], np.int32)
    shape = outlines(*at, np.full((2, N_RAYS), 10, np.int32), ray_index)
    labels = np.zeros((160, 200), np.int32)
    paint(labels, (0, 0), 1, shape, np.full(2, 16), np.array([1, -1], np.int32), 4, ray_index)
    area = 16 * shape.area
    both = (labels != 0).sum()
    assert area[0] < both < area.sum()
    assert (labels == 1).sum() == pytest.approx((labels == -1).sum(), rel=0.02)  # parted half-way
    np.testing.assert_array_equal(ndimage.label(labels == 1)[1], 1)
    middle = labels[80, 64:116]
    assert (np.flatnonzero(middle == 1) < np.flatnonzero(middle == -1).min()).all()


def test_haze_behind_a_nucleus_takes_none_of_its_pixels() -> None:
    ray_index = new_ray_index(60)
    shape = outlines(
        np.array([20, 20], np.int32),
        np.array([16, 28], np.int32),
        np.array([[10] * N_RAYS, [20] * N_RAYS], np.int32),
        ray_index,
    )
    labels = np.zeros((160, 240), np.int32)
    paint(labels, (0, 0), 1, shape, np.array([640, 320]), np.array([1, -1], np.int32), 4, ray_index)
    assert (labels == 1).sum() == pytest.approx(16 * shape.area[0], rel=0.03)
    labels[:] = 0
    paint(labels, (0, 0), 1, shape, np.array([640, 639]), np.array([1, -1], np.int32), 4, ray_index)
    assert (labels == 1).sum() < 15 * shape.area[0]


def test_a_dark_nucleus_is_as_dark_under_its_signals() -> None:
    """Which hide counterstain: a paler place in its midst would part it in two."""
    grey = np.full((30, 30), 160, np.uint8)
    red = np.full((30, 30), ZERO, np.uint8)
    grey[13:17, 13:17], red[13:17, 13:17] = 40, ZERO + 80
    black, clear, beside = np.zeros((30, 30), np.uint8), np.empty_like(grey), np.empty_like(grey)
    hide(black, red, grey, clear, beside)
    for plane in (clear, beside):
        cv2.blur(plane, (9, 9), dst=plane)
    mend(black, red, 128, (clear, beside), grey)
    assert (abs(grey.astype(int) - 160) <= 2).all()


def test_bins_average_and_show_saturation() -> None:
    pixels = np.zeros((8, 12, 2), np.uint16)
    pixels[:4, :4, 0] = 100
    pixels[:4, 4:8, 0] = np.arange(16).reshape(4, 4)
    pixels[4:, :4, 0] = 65535
    out = np.empty((2, 3), np.uint8)
    shrink_grey(pixels, 0, 4, (10.0, 1.0 / 16), 65535, out)
    np.testing.assert_array_equal(out, [[110, 18, 10], [255, 10, 10]])  # 7.5 rounds up


@pytest.mark.parametrize("factor", [1, 2, 3, 5, 8, 17])
def test_bins_of_colour_are_rounded_means(factor: int) -> None:
    rng = np.random.default_rng(factor)
    pixels = rng.integers(0, 256, (3 * factor, 40 * factor + 2, 3), np.uint8)
    pixels[:, : 9 * factor] |= 252  # nearly white, as glass
    out = np.empty((3, 40, 3), np.uint8)
    shrink_rgb(pixels, 2, factor, out)
    bins = pixels[:, 2:].reshape(3, factor, 40, factor, 3).astype(np.int64).sum(axis=(1, 3))
    np.testing.assert_array_equal(out, (2 * bins + factor**2) // (2 * factor**2))


# --- what is found -------------------------------------------------------------------------------------


@pytest.mark.parametrize("modality", MODALITIES)
@pytest.mark.parametrize(
    "kind", ["amplified", "polysomic", "monosomic", "highest", "crowded", "noisy", "fine", "coarse"]
)
def test_finds_nuclei_and_signals(modality: str, kind: str) -> None:
    found = result(modality, kind)
    assert len(found.pairs) >= 0.95 * len(found.planted.nuclei)
    assert len(found.pairs) >= 0.95 * len(found.nuclei)
    clean = (~found.planted.nuclei["overlapped"]).sum()
    assert len(found.passed) >= 0.95 * clean
    recall, precision = found.signals()
    assert recall >= 0.95
    assert precision >= 0.95
    her2, cep17 = found.copies(0), found.copies(1)
    assert her2 == pytest.approx(1.0, abs=0.05)
    assert cep17 == pytest.approx(1.0, abs=0.05)
    assert her2 / cep17 == pytest.approx(1.0, abs=0.05)


@pytest.mark.parametrize("modality", MODALITIES)
def test_measures_what_was_planted(modality: str) -> None:
    found = result(modality, "fine")
    i, j = found.pairs.T
    near = np.hypot(
        found.planted.nuclei["y_px0"][i] - found.nuclei["y_px0"][j],
        found.planted.nuclei["x_px0"][i] - found.nuclei["x_px0"][j],
    )
    clean = ~found.planted.nuclei["overlapped"][i]
    assert np.percentile(near[clean], 90) * found.spec.mpp < 0.3
    share = found.nuclei["nucleus_area_um2"][j][clean] / found.planted.nuclei["area_um2"][i][clean]
    assert share.mean() == pytest.approx(1.0, abs=0.08)
    assert share.std() < 0.06
    axes = (found.planted.nuclei["long_um"] / found.planted.nuclei["short_um"])[i][clean]
    assert np.abs(found.nuclei["elongation"][j][clean] / axes - 1).mean() < 0.06
    typical = DAPI_LEVEL if modality == "FISH" else HEMATOXYLIN_OD
    assert np.median(found.nuclei["counterstain"]) == pytest.approx(typical, rel=0.2)


@pytest.mark.parametrize("modality", MODALITIES)
def test_rows_hang_together(modality: str) -> None:
    found = result(modality, "amplified")
    nuclei, spots = found.nuclei, found.spots
    assert nuclei.dtype == NUCLEUS_DTYPE
    assert spots.dtype == SPOT_DTYPE
    assert (np.lexsort((nuclei["x_px0"], nuclei["y_px0"])) == np.arange(len(nuclei))).all()
    order = np.lexsort((spots["x_px0"], spots["y_px0"], spots["probe"], spots["nucleus"]))
    assert (order == np.arange(len(spots))).all()
    for probe, name in enumerate(("her2", "cep17")):
        of = spots[spots["probe"] == probe]
        np.testing.assert_array_equal(
            np.bincount(of["nucleus"], minlength=len(nuclei)), nuclei[f"{name}_spots"]
        )
        np.testing.assert_allclose(
            np.bincount(of["nucleus"], of["integrated"], len(nuclei)), nuclei[f"{name}_integrated"], rtol=1e-5
        )
    away = np.hypot(
        spots["y_px0"] - nuclei["y_px0"][spots["nucleus"]], spots["x_px0"] - nuclei["x_px0"][spots["nucleus"]]
    )
    assert away.max() * found.spec.mpp < 9.0


def test_a_single_probe_counts_no_other() -> None:
    found = result("FISH", "single")
    assert (found.spots["probe"] == 0).all()
    assert found.copies(0) == pytest.approx(1.0, abs=0.05)
    assert not found.nuclei["cep17_spots"].any()
    whole = Box(0, 0, 1000, 1000)
    dual = result("DISH", "amplified")
    black = ISHKernel(ISHParams(red_probe=None), stain_of("DISH"), 0.12)
    nuclei, spots = measured(black, dual.pixels, whole)
    np.testing.assert_array_equal(nuclei["her2_spots"], dual.nuclei["her2_spots"])
    assert not nuclei["cep17_spots"].any()
    assert (spots["probe"] == 0).all()


def test_which_colour_is_which_probe_is_configured() -> None:
    usual = result("DISH", "amplified")
    params = ISHParams(black_probe="CEP17", red_probe="HER2")
    nuclei, _ = measured(ISHKernel(params, stain_of("DISH"), 0.12), usual.pixels, Box(0, 0, 1000, 1000))
    np.testing.assert_array_equal(nuclei["cep17_spots"], usual.nuclei["her2_spots"])
    np.testing.assert_array_equal(nuclei["her2_spots"], usual.nuclei["cep17_spots"])


# --- what is flagged -----------------------------------------------------------------------------------


@pytest.mark.parametrize("modality", MODALITIES)
def test_flags_overlapping_nuclei_and_not_touching_ones(modality: str) -> None:
    found = result(modality, "crowded")
    assert found.flagged(NucleusFlag.OVERLAP, overlapped=True) >= 0.8
    assert found.flagged(NucleusFlag.OVERLAP, overlapped=False) <= 0.05


@pytest.mark.parametrize("modality", MODALITIES)
def test_flags_defocus(modality: str) -> None:
    assert result(modality, "blurred").flagged(NucleusFlag.BLURRED, overlapped=False) >= 0.95
    assert result(modality, "amplified").flagged(NucleusFlag.BLURRED, overlapped=False) == 0
    sharp, soft = result(modality, "amplified").nuclei, result(modality, "blurred").nuclei
    assert np.median(sharp["sharpness"]) > 1.5 * np.median(soft["sharpness"])


@pytest.mark.parametrize("modality", MODALITIES)
@pytest.mark.parametrize("ratio", [1.0, 3.0])
def test_counts_right_at_any_focus_or_says_that_it_is_lost(modality: str, ratio: float) -> None:
    """As a slide is read: accepted signals, in nuclei without a flag, unless too many are blurred."""
    read = []
    for tenths in range(11):
        found = Result(
            ISHSpec(
                modality,
                seed=21,
                height_px=1000,
                width_px=1000,
                mpp=0.12,
                defocus_um=tenths / 10,
                populations=(Population(1.0, 2 * ratio, 2.0),),
            )
        )
        table = kernel_table(found.nuclei, found.spots, np.ones(len(found.nuclei), np.bool_))
        row = SlideRow("s", "c", "u", Assay(f"HER2-{modality}"))
        spots = Spots.of(table)
        single = SingleSignals.of([spots], 0.12, bright_field=modality == "DISH")
        rows = nucleus_rows(table, row, 0.12, None, single, dual=True)
        score = score_ish(MeasuredNuclei.of(rows, dual=True), PARAMS, RULES, PASSED)
        assert (Reason.BLUR in score.verdict.reasons) == (score.verdict.group is None), tenths
        if score.verdict.group is None:
            continue
        read.append(tenths)
        copies = single.copies(spots)
        found.spots = found.spots[copies > 0]
        recall, precision = found.signals()
        assert recall >= 0.95, (tenths, recall)
        assert precision >= 0.95, (tenths, precision)
        planted = [found.planted.nuclei[name][found.passed[:, 0]].sum() for name in ("her2", "cep17")]
        counted = [rows[f"{name}_signals"].to_numpy()[found.passed[:, 1]].sum() for name in ("her2", "cep17")]
        assert counted[0] / planted[0] == pytest.approx(1.0, abs=0.05), tenths
        assert counted[1] / planted[1] == pytest.approx(1.0, abs=0.05), tenths
        assert counted[0] / counted[1] == pytest.approx(planted[0] / planted[1], rel=0.05), tenths
    assert read == [0, 1, 2, 3, 4]  # 0.4 µm of blur is twice that of a signal


@pytest.mark.parametrize("modality", MODALITIES)
def test_flags_what_the_edge_of_the_slide_cuts(modality: str) -> None:
    found = result(modality, "amplified")
    row = found.planted.nuclei[len(found.planted.nuclei) // 2]
    y, x = round(row["y_px0"]), round(row["x_px0"])
    part = found.pixels[:y, :x]  # through the middle of a nucleus, below and to the right
    kernel = ISHKernel(ISHParams(), stain_of(modality), 0.12, extent=part.shape[:2])
    nuclei, _ = measured(kernel, part, Box(0, 0, *part.shape[:2]))
    edge = np.minimum(y - nuclei["y_px0"], x - nuclei["x_px0"]) * 0.12
    cut_off = (nuclei["flags"] & NucleusFlag.TRUNCATED) > 0
    assert cut_off.any()
    assert (edge[cut_off] < 9).all()
    assert not cut_off[edge > 9].any()


def test_flags_size_shape_and_saturation() -> None:
    um, mpp = 70, 0.125
    field = np.full((round(2 * um / mpp), round(2 * um / mpp), 3), 150, np.uint16)
    size = field.shape[:2]

    def draw(y_um: float, x_um: float, axes_um: tuple[float, float], level: int) -> None:
        disc = np.zeros(size, np.uint8)
        centre = (round(x_um / mpp), round(y_um / mpp))
        cv2.ellipse(disc, centre, (round(axes_um[0] / mpp), round(axes_um[1] / mpp)), 0, 0, 360, 1, -1)
        field[disc > 0, 0] = level

    draw(30, 30, (5, 5), 1500)
    draw(30, 70, (2.2, 2.2), 1500)  # 15 um2
    draw(30, 110, (2.9, 2.9), 1500)  # 26 um2: as small as a nucleus that is scored can be, and sharp
    draw(80, 30, (10.5, 10.5), 1500)  # 346 um2
    draw(80, 75, (5, 5), 65535)
    draw(110, 75, (7.5, 3), 1500)
    draw(113, 75, (7.5, 3), 1500)
    draw(109, 75, (2.2, 2.6), 150)  # a bean
    kernel = ISHKernel(ISHParams(), stain_of("FISH"), mpp, extent=size)
    nuclei, _ = measured(kernel, field, Box(0, 0, *size))

    def flags_at(y_um: float, x_um: float) -> int:
        d = np.hypot(nuclei["y_px0"] * mpp - y_um, nuclei["x_px0"] * mpp - x_um)
        assert d.min() < 3, (y_um, x_um)
        return int(nuclei["flags"][d.argmin()])

    assert flags_at(30, 30) == 0
    assert flags_at(30, 70) & NucleusFlag.SIZE  # its radius is four pixels: sharp or not cannot be known
    assert flags_at(30, 110) == 0
    assert flags_at(80, 30) == NucleusFlag.SIZE
    assert flags_at(80, 75) == NucleusFlag.SATURATED
    large, _ = measured(
        ISHKernel(ISHParams(max_nucleus_um2=400.0), stain_of("FISH"), mpp), field, Box(0, 0, *size)
    )
    assert (large["nucleus_area_um2"] > 300).any()
    assert (large["flags"][large["nucleus_area_um2"] > 300] == 0).all()
    assert not nuclei["tumour_rule"][nuclei["nucleus_area_um2"] < 25].any()
    assert nuclei["tumour_rule"][nuclei["nucleus_area_um2"] > 60].all()


def test_says_when_pixels_are_too_coarse() -> None:
    params = ISHParams()
    assert resolvable(Assay.DISH, 0.2, params) is None
    assert resolvable(Assay.FISH, 0.3, params) is None
    for assay, mpp, limit in ((Assay.DISH, 0.25, "0.2"), (Assay.FISH, 0.5, "0.3")):
        text = resolvable(assay, mpp, params)
        assert text is not None
        assert f"{mpp:g}" in text
        assert limit in text
    for modality in MODALITIES:
        found = Result(ISHSpec(modality, seed=1, height_px=300, width_px=300, mpp=0.5))
        assert len(found.nuclei)
        assert (found.nuclei["flags"] & NucleusFlag.UNRESOLVED).all()


@pytest.mark.parametrize("modality", MODALITIES)
def test_nothing_is_found_on_nothing(modality: str) -> None:
    kernel = ISHKernel(ISHParams(), stain_of(modality), 0.2)
    rng = np.random.default_rng(1)
    size = (2 * kernel.halo_px + 200, 2 * kernel.halo_px + 200)
    if modality == "DISH":
        empty: Pixels = np.rint(rng.normal(np.array(GLASS), 2.0, (*size, 3))).clip(0, 255).astype(np.uint8)
    else:
        empty = np.rint(rng.normal(np.array(FIELD), 10.0, (*size, 3))).clip(0).astype(np.uint16)
    core = Box(0, 0, *size).grown(-kernel.halo_px)
    nuclei, spots = kernel(empty, (0, 0), core)
    assert len(nuclei) == 0
    assert len(spots) == 0
    nuclei, spots = measured(kernel, empty, Box(100, 100, 100, 100))  # a core of no pixel
    assert nuclei.dtype == NUCLEUS_DTYPE
    assert spots.dtype == SPOT_DTYPE
    assert len(nuclei) == len(spots) == 0


def test_refuses_what_it_cannot_work_with() -> None:
    kernel = ISHKernel(ISHParams(), stain_of("FISH"), 0.2)
    with pytest.raises(ValueError, match="does not cover"):
        kernel(np.zeros((300, 300, 3), np.uint16), (0, 0), Box(0, 0, 300, 300))
    with pytest.raises(ValueError, match="um/px"):
        ISHKernel(ISHParams(), stain_of("FISH"), 4.0)
    with pytest.raises(ValueError, match="HER3"):
        ISHKernel(ISHParams(black_probe="HER3"), stain_of("DISH"), 0.2)


def test_warms() -> None:
    warm()


# --- layout --------------------------------------------------------------------------------------------


SIZE = (700, 760)


@cache
def field(modality: str) -> tuple[ISHKernel, Pixels, Rows, Rows]:
    """Two phantoms one over the other: clumps of nuclei that touch and overlap, right to the edge."""
    parts = [
        render_ish(
            plant_ish(ISHSpec(modality, seed, *SIZE, mpp=0.2, overlapping=0.2, touching=0.4, margin_um=4.0)),
            Box(0, 0, *SIZE),
        ).astype(np.float64)
        for seed in (21, 22)
    ]
    if modality == "FISH":
        pixels = np.rint(parts[0] + parts[1] - np.array(FIELD)).clip(0).astype(np.uint16)
    else:
        pixels = np.rint(parts[0] * parts[1] / np.array(GLASS)).clip(0, 255).astype(np.uint8)
    kernel = ISHKernel(ISHParams(), stain_of(modality), 0.2, extent=SIZE)
    return kernel, pixels, *measured(kernel, pixels, Box(0, 0, *SIZE))


def joined(parts: list[tuple[Rows, Rows]]) -> tuple[Rows, Rows]:
    """Rows of several cores as if they were of one."""
    first = np.cumsum([0] + [len(nuclei) for nuclei, _ in parts])
    nuclei = np.concatenate([nuclei for nuclei, _ in parts])
    spots = np.concatenate([s for _, s in parts])
    spots["nucleus"] += np.repeat(first[:-1], [len(s) for _, s in parts]).astype(np.int32)
    order = np.lexsort((nuclei["x_px0"], nuclei["y_px0"]))
    spots["nucleus"] = np.argsort(order)[spots["nucleus"]]
    spots = spots[np.lexsort((spots["x_px0"], spots["y_px0"], spots["probe"], spots["nucleus"]))]
    return nuclei[order], spots


@pytest.mark.parametrize("modality", MODALITIES)
@settings(max_examples=6, deadline=None)
@given(
    rows=st.lists(st.integers(1, SIZE[0] - 1), max_size=2, unique=True),
    columns=st.lists(st.integers(1, SIZE[1] - 1), max_size=2, unique=True),
    extra=st.tuples(*[st.integers(0, 23)] * 4),
)
def test_no_cut_changes_a_bit(
    modality: str, rows: list[int], columns: list[int], extra: tuple[int, int, int, int]
) -> None:
    kernel, pixels, nuclei, spots = field(modality)
    ys, xs = [0, *sorted(rows), SIZE[0]], [0, *sorted(columns), SIZE[1]]
    parts = [
        measured(kernel, pixels, Box(y0, x0, y1, x1), extra)
        for y0, y1 in pairwise(ys)
        for x0, x1 in pairwise(xs)
    ]
    again, signals = joined(parts)
    assert len(nuclei) > 80
    assert len(spots) > 500
    assert again.tobytes() == nuclei.tobytes()
    assert signals.tobytes() == spots.tobytes()


@pytest.mark.parametrize("modality", MODALITIES)
def test_a_fresh_kernel_with_room_to_spare_gives_the_same(modality: str) -> None:
    kernel, pixels, nuclei, spots = field(modality)
    other = ISHKernel(ISHParams(), kernel.stain, 0.2, (1024, 1024), extent=SIZE)
    again, signals = measured(other, pixels, Box(0, 0, *SIZE))
    assert again.tobytes() == nuclei.tobytes()
    assert signals.tobytes() == spots.tobytes()


def test_halo_is_bounded() -> None:
    for mpp in (0.05, 0.1, 0.25):
        kernel = ISHKernel(ISHParams(), stain_of("FISH"), mpp)
        assert kernel.halo_px * mpp < 90
        assert math.isclose(kernel.um, 0.5, rel_tol=0.2)
