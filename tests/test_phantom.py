"""The truth generator: what it says is planted is what it draws."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest
import tifffile
from scipy.ndimage import binary_fill_holes, map_coordinates
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from her2core.params import ScoreParams
from her2core.phantom import (
    LADDER_OD,
    TRUTH_DTYPE,
    PhantomSpec,
    Tissue,
    cell_class,
    plant,
    render_field,
    render_region,
    stain_layers,
    synth_cohort,
)
from her2core.phantom.cohort import MANIFEST_COLUMNS, PLAN, PlannedSlide, planted_score, slide_spec, truth_row
from her2core.records import Box

VECTORS = np.array([(0.651, 0.701, 0.290), (0.269, 0.568, 0.778)])  # QuPath's hematoxylin and DAB
WHOLE = Box(0, 0, 640, 640)
EVEN = (0.15, 0.25, 0.10, 0.30, 0.20)


@pytest.fixture(scope="module")
def clean() -> Tissue:
    """Cells of every class, to be drawn without noise and JPEG."""
    return plant(PhantomSpec(seed=4, height_px=640, width_px=640, mix=EVEN, noise_sd=0, jpeg_quality=None))


def dab_of(rgb: np.ndarray, i0: tuple[float, float, float]) -> np.ndarray:
    """DAB OD by least squares on the two stains, as one would do by hand."""
    stains = VECTORS / np.linalg.norm(VECTORS, axis=1, keepdims=True)
    od = -np.log10(np.maximum(rgb, 1) / np.array(i0))
    return np.asarray((od @ np.linalg.pinv(stains))[..., 1])


def whole_tumour_cells(tissue: Tissue) -> list[int]:
    """Truth rows of the tumour cells whose contour lies inside the image."""
    size = np.array((tissue.spec.height_px, tissue.spec.width_px)) * tissue.spec.mpp
    rows = np.flatnonzero(tissue.truth["kind"] == "tumour")
    return [r for r in rows if (tissue.contour(r)[0] > 1).all() and (tissue.contour(r)[0] < size - 1).all()]


def test_contour_carries_the_stain_that_truth_says(clean: Tissue) -> None:
    """Walk around each cell in the drawn picture and measure the stained part of the way."""
    dab = dab_of(render_region(clean, WHOLE), clean.spec.i0)
    cut = LADDER_OD.index(0.15)
    rows = whole_tumour_cells(clean)
    drawn, mean_od = np.empty(len(rows)), np.full(len(rows), np.nan)
    for i, row in enumerate(rows):
        at, _ = clean.contour(row)
        path = np.vstack([at, at[:1]])
        steps = np.hypot(*np.diff(path, axis=0).T)
        middle = (path[1:] + path[:-1]) / 2 / clean.spec.mpp - 0.5
        seen = map_coordinates(dab, middle.T, order=1)
        drawn[i] = steps[seen >= 0.15].sum() / steps.sum()
        if drawn[i] > 0.2:
            mean_od[i] = np.average(seen[seen >= 0.15], weights=steps[seen >= 0.15])
    truth = clean.truth[rows]
    assert len(rows) > 60
    error = drawn - truth[f"completeness_{cut:02d}"]
    assert np.abs(error).mean() < 0.04
    assert np.corrcoef(drawn, truth["completeness"])[0, 1] > 0.97
    known = np.isfinite(mean_od)
    assert np.abs(mean_od - truth["membrane_od"])[known].mean() < 0.04


def test_neighbours_in_a_nest_share_one_line(clean: Tissue) -> None:
    contours = clean.contours
    owners = np.bincount(contours.sample, minlength=len(contours.at))
    nest_pairs = clean.cells.nest[contours.owner] & (owners[contours.sample] == 2)
    assert set(owners) == {1, 2}
    assert nest_pairs.sum() == 2 * (owners == 2).sum(), "only cells of nests share a line"


def test_a_negative_cell_inherits_the_stain_of_its_neighbours() -> None:
    """All planted 3+ but a few: those few carry their neighbours' lines."""
    spec = PhantomSpec(seed=2, height_px=800, width_px=800, mix=(0.05, 0, 0, 0, 0.95), loose_fraction=0.0)
    tissue = plant(spec)
    truth, own = tissue.truth, tissue.cells.cls[tissue.row_cell]
    inside = (truth["kind"] == "tumour") & (own == 0)
    assert inside.sum() >= 3
    assert truth["completeness"][inside].mean() > 0.6


@pytest.mark.parametrize(("index", "name", "least"), [(0, "0", 0.0), (3, "2", 0.94), (4, "3", 0.97)])
def test_a_pure_mix_gives_its_class(index: int, name: str, least: float) -> None:
    mix = tuple(float(i == index) for i in range(5))
    truth = plant(PhantomSpec(seed=3, height_px=900, width_px=900, mix=mix)).truth  # type: ignore[arg-type]
    tumour = truth[truth["kind"] == "tumour"]
    assert (tumour["cell_class"] == name).mean() > 0.99
    assert tumour["completeness"].min() >= least - 0.02
    if name == "0":
        assert tumour["membrane_od"].max() == 0


def test_stain_strength_scales_every_membrane() -> None:
    spec = PhantomSpec(seed=3, height_px=600, width_px=600, mix=EVEN)
    weak, strong = plant(spec).truth, plant(replace(spec, stain_strength=1.5)).truth
    np.testing.assert_allclose(strong["membrane_od"], 1.5 * weak["membrane_od"], rtol=1e-5)
    np.testing.assert_array_equal(strong["completeness"], weak["completeness"])


def test_truth_follows_from_the_contour(clean: Tissue) -> None:
    """One cell by hand, from its contour points alone."""
    row = next(r for r in whole_tumour_cells(clean) if clean.truth["cell_class"][r] == "1")
    at, carried = clean.contour(row)
    around = np.hypot(*np.diff(np.vstack([at[-1:], at, at[:1]]), axis=0).T)
    length = (around[1:] + around[:-1]) / 2
    cell = clean.row_cell[row]
    planted = clean.contours.od[clean.contours.sample[slice(*clean.contours.first[cell : cell + 2])]]
    assert clean.truth["completeness"][row] == pytest.approx(
        length[planted > 0].sum() / length.sum(), abs=0.02
    )
    expected = np.average(planted[planted > 0], weights=length[planted > 0])
    assert clean.truth["membrane_od"][row] == pytest.approx(expected, abs=0.01)
    for k, cut in enumerate(LADDER_OD):
        drawn = length[carried >= cut].sum() / length.sum()
        assert clean.truth[f"completeness_{k:02d}"][row] == pytest.approx(drawn, abs=0.02)
    stained = np.repeat(carried, np.rint(100 * length).astype(int))  # as often as it is long
    expected = np.median(stained[stained >= 0.10])
    assert clean.truth["membrane_od_median"][row] == pytest.approx(expected, abs=0.02)


def test_a_line_lends_its_foot_to_its_own_contour_alone(clean: Tissue) -> None:
    """Between the ends of a stained arc the OD falls as the line's profile does; nothing is lost."""
    contours, (sample, first) = clean.contours, (clean.contours.sample, clean.contours.first)
    assert (clean.carried >= contours.od[sample]).all()
    bare = (contours.od[sample] == 0) & (clean.carried > 0.2)
    assert bare.any()
    for pair in np.flatnonzero(bare)[::20]:
        cell = contours.owner[pair]
        own = sample[first[cell] : first[cell + 1]]
        away = np.hypot(*(contours.at[own] - contours.at[sample[pair]]).T) / contours.width[own]
        expected = (contours.od[own] * np.exp(-4 * np.log(2) * away**2))[away < 1.3].max()
        assert clean.carried[pair] == pytest.approx(expected)


def test_nuclei_lie_where_truth_says_and_are_as_large(clean: Tissue) -> None:
    hematoxylin, _ = stain_layers(clean, WHOLE)
    yy, xx = np.mgrid[: WHOLE.height, : WHOLE.width]
    ratio, apart = [], []
    for row in whole_tumour_cells(clean):
        truth, (outline, _) = clean.truth[row], clean.contour(row)
        cell = np.zeros(hematoxylin.shape, np.uint8)
        cv2.fillPoly(cell, [np.rint(outline[:, ::-1] / clean.spec.mpp - 0.5).astype(np.int32)], 1)
        dark = binary_fill_holes((cell > 0) & (hematoxylin > 0.65 * truth["nucleus_od"]))
        ratio.append(dark.sum() * clean.spec.mpp**2 / truth["nucleus_area_um2"])
        apart.append(np.hypot(yy[dark].mean() - truth["y_px0"], xx[dark].mean() - truth["x_px0"]))
    assert np.median(ratio) == pytest.approx(1, abs=0.03)
    assert np.abs(np.array(ratio) - 1).mean() < 0.08
    assert np.mean(apart) < 0.7, "pixels of 0.25 um"


def test_tumour_nuclei_have_the_sizes_of_breast_cancer() -> None:
    truth = plant(PhantomSpec(seed=8, height_px=1500, width_px=1500)).truth
    area = truth["nucleus_area_um2"][truth["kind"] == "tumour"]
    assert area.min() >= 25
    assert area.max() < 112
    assert 40 < np.median(area) < 60
    small = truth["kind"] == "lymphocyte"
    assert truth["nucleus_area_um2"][small].max() < 30
    assert np.median(truth["nucleus_od"][small]) > 1.5 * np.median(truth["nucleus_od"][~small])


def test_same_spec_same_pixels_other_seed_other_pixels() -> None:
    spec = PhantomSpec(seed=11, height_px=300, width_px=400, mix=EVEN)
    (rgb, truth), (again, truth_again) = render_field(spec), render_field(spec)
    np.testing.assert_array_equal(rgb, again)
    np.testing.assert_array_equal(truth, truth_again)
    assert (rgb.shape, rgb.dtype, truth.dtype) == ((300, 400, 3), np.uint8, TRUTH_DTYPE)
    other, _ = render_field(replace(spec, seed=12))
    assert (other != rgb).mean() > 0.5


@pytest.mark.parametrize(("mpp", "side"), [(0.25, 1100), (0.5, 560)])
def test_any_box_shows_the_pixels_of_the_whole(mpp: float, side: int) -> None:
    """Boxes on, before and across the seams of the drawing tiles (1024 and 512 scan pixels)."""
    tissue = plant(PhantomSpec(seed=6, height_px=side, width_px=side, mpp=mpp, mix=EVEN))
    whole = render_region(tissue, Box(0, 0, side, side))
    for box in (Box(0, 0, 10, 10), Box(40, side - 99, 60, side), Box(side - 90, side - 80, side, side - 7)):
        part = render_region(tissue, box)
        np.testing.assert_array_equal(part, whole[box.y0 : box.y1, box.x0 : box.x1])


def test_coarser_scans_show_the_same_tissue() -> None:
    """At 0.5 um/px the same places hold the same light, averaged, and truth moves by the pixel size alone."""
    fine = PhantomSpec(seed=6, height_px=512, width_px=512, mix=EVEN, noise_sd=0)
    coarse = replace(fine, height_px=256, width_px=256, mpp=0.5)
    small = render_region(plant(coarse), Box(0, 0, 256, 256)).astype(float)
    large = render_region(plant(fine), Box(0, 0, 512, 512)).astype(float)
    averaged = large.reshape(256, 2, 256, 2, 3).mean((1, 3))
    assert np.abs(small - averaged).max() < 1.01
    np.testing.assert_allclose(plant(coarse).truth["y_px0"] * 2 + 0.5, plant(fine).truth["y_px0"])


def test_glass_is_the_background_and_holds_no_cells() -> None:
    spec = PhantomSpec(seed=1, height_px=2048, width_px=2048, islands=((0.5, 0.5, 0.3, 0.3),), noise_sd=0)
    rgb, truth = render_region(tissue := plant(spec), Box(0, 0, 2048, 2048)), tissue.truth
    assert (np.abs(rgb[:60].astype(int) - spec.i0) <= 1).all()
    assert len(truth) > 100
    assert np.hypot(truth["y_px0"] / 2048 - 0.5, truth["x_px0"] / 2048 - 0.5).max() < 0.45


@pytest.mark.parametrize(
    ("pattern", "part", "expected"),
    [("scattered", 0.02, "scattered"), ("mosaic", 0.30, "mosaic"), ("cluster", 0.30, "cluster")],
)
def test_patterns_are_those_of_the_literature(pattern: str, part: float, expected: str) -> None:
    """Components of 3+ cells linked within 25 um, judged by the rules of spec §5.3."""
    mix = (1 - part, 0.0, 0.0, 0.0, part)
    truth = plant(PhantomSpec(seed=3, height_px=3600, width_px=3600, mix=mix, pattern=pattern)).truth
    tumour = truth[truth["kind"] == "tumour"]
    strong = tumour[tumour["cell_class"] == "3"]
    assert len(strong) == pytest.approx(part * len(tumour), rel=0.05)

    at = np.stack([strong["y_px0"], strong["x_px0"]], 1) * 0.25
    link = cKDTree(at).query_pairs(25, output_type="ndarray")
    graph = coo_array((np.ones(len(link)), (link[:, 0], link[:, 1])), (len(at), len(at)))
    _, component = connected_components(graph)
    size = np.bincount(component)
    if size.max() >= max(20, 0.1 * len(tumour)):
        found = "cluster"
    else:
        found = "scattered" if (size[component] <= 3).mean() >= 0.8 else "mosaic"
    assert found == expected


@pytest.mark.parametrize(
    ("completeness", "od", "expected"),
    [
        (0.05, 0.90, "0"),
        (0.50, 0.09, "0"),
        (0.10, 0.10, "1"),
        (0.50, 0.15, "1"),
        (0.95, 0.15, "1"),
        (0.50, 0.30, "1"),
        (0.95, 0.30, "2"),
        (0.50, 0.50, "2u"),
        (0.95, 0.50, "2"),
        (0.50, 0.90, "2u"),
        (0.89, 0.90, "2u"),
        (0.90, 0.60, "3"),
    ],
)
def test_cell_class_follows_the_table(completeness: float, od: float, expected: str) -> None:
    assert ScoreParams().complete_fraction == 0.90, "the table below is for the default cut-offs"
    assert cell_class(np.array([completeness]), np.array([od]))[0] == expected


@pytest.mark.parametrize(
    ("n3", "n2", "stained", "expected"),
    [
        (101, 101, 101, "3+"),
        (100, 100, 100, "2+"),
        (10, 10, 10, "2+"),
        (9, 101, 101, "2+"),
        (9, 100, 101, "1+"),
        (0, 0, 101, "1+"),
        (9, 100, 100, "0"),
        (0, 0, 0, "0"),
    ],
)
def test_planted_score_at_its_boundaries(n3: int, n2: int, stained: int, expected: str) -> None:
    assert planted_score(1000, n3, n2, stained) == expected


@pytest.mark.parametrize(
    "wrong", [{"pattern": "stripes"}, {"mix": (0.5, 0.2, 0, 0, 0)}, {"mix": (1.2, -0.2, 0, 0, 0)}]
)
def test_a_spec_that_cannot_be_planted_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="expected"):
        PhantomSpec(**wrong)  # type: ignore[arg-type]


def test_cohort_covers_every_score() -> None:
    """The plan as it is written for users, planted smaller and not drawn."""
    truth = [truth_row(plant(slide_spec(p, seed=1000 + i, side_px=3000)).truth) for i, p in enumerate(PLAN)]
    by_case = {p.case: t["planted_score"] for p, t in zip(PLAN, truth, strict=True) if p.case != "MIXED"}
    assert by_case == {"NULL": "0", "ULTRALOW": "0", "ONE": "1+", "TWO": "2+", "TWONEG": "2+", "THREE": "3+"}
    assert [t["her2_class"] for t in truth[:3]] == ["null", "ultralow", "low_1plus"]
    assert [t["planted_score"] for p, t in zip(PLAN, truth, strict=True) if p.case == "MIXED"] == ["3+", "1+"]
    assert min(t["n_tumour"] for t in truth if t["planted_score"] == "0") >= 598, (
        "fewer cannot tell null from ultralow (spec §1.2.2)"
    )


def test_cohort_files(tmp_path: Path) -> None:
    plan = (PlannedSlide("A", "A1", (1.0, 0, 0, 0, 0)), PlannedSlide("B", "A1", (0, 0, 0, 0, 1.0)))
    manifest = synth_cohort(tmp_path, side_px=1040, plan=plan, ish_plan=())
    rows = list(csv.DictReader(manifest.read_text(encoding="utf-8").splitlines()))
    assert tuple(rows[0]) == MANIFEST_COLUMNS
    assert [r["slide_id"] for r in rows] == ["A-A1", "B-A1"]
    assert {(r["assay"], r["mpp"]) for r in rows} == {("HER2-IHC", "")}

    truth = list(csv.DictReader((tmp_path / "truth.csv").read_text(encoding="utf-8").splitlines()))
    assert [(t["planted_score"], t["her2_class"]) for t in truth] == [("0", "null"), ("3+", "pos_IHC3")]
    cells = pq.read_table(tmp_path / "truth_cells.parquet")
    tumour = [k == "tumour" for k in cells["kind"].to_pylist()]
    assert sum(tumour) == sum(int(t["n_tumour"]) for t in truth)

    with tifffile.TiffFile(manifest.parent / rows[1]["uri"]) as slide:
        assert [level.shape[:2] for level in slide.series[0].levels] == [(1032, 1016), (258, 254), (64, 63)]
        assert (slide.pages.first.tile, slide.pages.first.compression.name) == ((256, 256), "JPEG")
        assert "MPP = 0.25" in slide.pages.first.description
        top, low = slide.series[0].levels[0].asarray(), slide.series[0].levels[1].asarray()
    averaged = top.reshape(258, 4, 254, 4, 3).mean((1, 3))
    assert np.corrcoef(averaged.ravel(), low.ravel())[0, 1] > 0.97
