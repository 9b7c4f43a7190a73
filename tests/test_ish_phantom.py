"""The truth generator of ISH: what it says is planted is what it draws."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest
import tifffile
from shapely.geometry import Point, Polygon

from her2core.phantom import ISHSpec, PlantedISH, Population, plant_ish, render_ish, synth_cohort
from her2core.phantom.cohort import PLAN, PlannedSlide, case_truth
from her2core.phantom.ish_cohort import ISH_PLAN, ish_truth_row
from her2core.phantom.ish_render import BLACK_OD, GLASS, RED, SIGNAL_LEVEL
from her2core.phantom.slides import write_fluorescence, write_slide
from her2core.records import Box

HER2, CEP17 = 0, 1
SIDE = 1100  # px: more than two drawing tiles
PAIRS = {"overlapping": 0.3, "touching": 0.3}


def field(modality: str, **more: object) -> PlantedISH:
    given = {"height_px": SIDE, "width_px": SIDE, "populations": (Population(1.0, 6.0, 2.0),)} | more
    return plant_ish(ISHSpec(modality, 5, **given))  # type: ignore[arg-type]


def whole(planted: PlantedISH) -> np.ndarray:
    return render_ish(planted, Box(0, 0, planted.spec.height_px, planted.spec.width_px))


def table(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))


def outlines(planted: PlantedISH) -> list[Polygon]:
    return [Polygon(planted.outline(row)) for row in range(len(planted.nuclei))]


@pytest.mark.parametrize("modality", ["FISH", "DISH"])
def test_same_spec_same_pixels_other_seed_other_pixels(modality: str) -> None:
    one, again = field(modality), field(modality)
    np.testing.assert_array_equal(one.nuclei, again.nuclei)
    np.testing.assert_array_equal(one.spots, again.spots)
    box = Box(400, 400, 700, 700)
    np.testing.assert_array_equal(render_ish(one, box), render_ish(again, box))
    other = plant_ish(replace(one.spec, seed=6))
    assert (render_ish(other, box) != render_ish(one, box)).mean() > 0.5


@pytest.mark.parametrize(("modality", "dtype"), [("FISH", np.uint16), ("DISH", np.uint8)])
def test_any_box_shows_the_pixels_of_the_whole(modality: str, dtype: type) -> None:
    """Boxes before, on and across the seams of the drawing tiles, blurred and with clusters."""
    planted = field(modality, defocus_um=0.4, populations=(Population(1.0, 14.0, 2.0, True),))
    pixels = whole(planted)
    assert (pixels.shape, pixels.dtype) == ((SIDE, SIDE, 3), dtype)
    for box in (Box(0, 0, 9, 9), Box(500, 300, 530, SIDE), Box(SIDE - 80, SIDE - 90, SIDE, SIDE - 7)):
        np.testing.assert_array_equal(render_ish(planted, box), pixels[box.y0 : box.y1, box.x0 : box.x1])


def test_copies_of_a_nucleus_are_those_of_its_signals() -> None:
    planted = field("FISH", populations=(Population(0.5, 2.0, 2.0), Population(0.5, 16.0, 3.0, True)))
    for row, nucleus in enumerate(planted.nuclei):
        for probe, name in ((HER2, "her2"), (CEP17, "cep17")):
            own = (planted.spots["nucleus"] == row) & (planted.spots["probe"] == probe)
            assert planted.spots["copies"][own].sum() == nucleus[name]
            assert nucleus["population"] == 1 or (planted.spots["copies"][own] == 1).all()
    clustered = planted.nuclei["population"] == 1
    assert clustered.sum() >= 8
    assert planted.nuclei["her2"][clustered].mean() == pytest.approx(16, rel=0.08)
    assert planted.nuclei["her2"][~clustered].mean() == pytest.approx(2, rel=0.08)
    assert planted.spots["copies"].max() >= 5


@pytest.mark.parametrize("modality", ["FISH", "DISH"])
def test_signals_lie_in_their_nucleus_more_than_a_diameter_apart(modality: str) -> None:
    planted = field(modality, populations=(Population(1.0, 12.0, 4.0),), stray=0.5)
    shapes, spots = outlines(planted), planted.spots
    outside = spots[spots["nucleus"] < 0]
    assert len(outside) > 5
    for spot in outside:
        assert not any(shape.contains(Point(spot["y_px0"], spot["x_px0"])) for shape in shapes)
    for row, shape in enumerate(shapes):
        own = spots[spots["nucleus"] == row]
        assert all(shape.contains(Point(s["y_px0"], s["x_px0"])) for s in own)
        for probe in (HER2, CEP17):
            at = np.stack([own[c][own["probe"] == probe] for c in ("y_px0", "x_px0")], 1) * planted.spec.mpp
            apart = np.hypot(*(at[:, None] - at).transpose(2, 0, 1))[np.triu_indices(len(at), 1)]
            assert (apart > 1.9 * planted.spec.spot_um).all()


def test_exactly_the_flagged_nuclei_overlap() -> None:
    """By counting pixels that two outlines cover."""
    planted = field("FISH", height_px=1500, width_px=1500, **PAIRS)
    covers = np.zeros((1500, 1500), np.uint8)
    masks = []
    for row in range(len(planted.nuclei)):
        mask = np.zeros_like(covers)
        cv2.fillPoly(mask, [np.rint(planted.outline(row)[:, ::-1]).astype(np.int32)], 1)
        masks.append(mask > 0)
        covers += mask
    shared = np.array([(covers[mask] > 1).mean() for mask in masks])
    flagged = planted.nuclei["overlapped"]
    assert 0.1 < flagged.mean() < 0.9
    assert shared[flagged].min() > 0.005
    assert shared[~flagged].max() < 0.02, "touching ones share the pixels of a rim"
    clear = field("FISH", overlapping=0.0, touching=0.0)
    assert not clear.nuclei["overlapped"].any()
    crowded = field("FISH", overlapping=0.0, touching=0.0, spacing_um=11.0)
    assert len(crowded.nuclei) > 2 * len(clear.nuclei)
    assert crowded.nuclei["overlapped"].mean() > 0.2


def test_nuclei_are_drawn_where_and_as_large_as_truth_says() -> None:
    """DAPI at half its level inside each outline, against the outline's own area and the truth's."""
    planted = field("FISH", noise=0.0, haze=0.0, overlapping=0.0, touching=0.0, stray=0.0)
    dapi = whole(planted)[..., 0].astype(float) - 180.0
    for row, nucleus in enumerate(planted.nuclei):
        outline = planted.outline(row)
        um2 = Polygon(outline).area * planted.spec.mpp**2
        assert um2 == pytest.approx(nucleus["area_um2"], rel=0.01)
        grown = np.zeros(dapi.shape, np.uint8)
        cv2.fillPoly(grown, [np.rint(outline[:, ::-1]).astype(np.int32)], 1)
        near = cv2.dilate(grown, np.ones((15, 15), np.uint8)) > 0
        bright = near & (dapi > 0.5 * np.median(dapi[grown > 0]))
        assert bright.sum() * planted.spec.mpp**2 == pytest.approx(um2, rel=0.02)
        y, x = np.nonzero(bright)
        assert np.hypot(y.mean() - nucleus["y_px0"], x.mean() - nucleus["x_px0"]) < 3.5, "px of 0.1 um"


def test_light_of_a_signal_is_that_of_its_copies() -> None:
    """Sum over a probe's channel, less the nuclei alone: a copy's Gaussian integral each."""
    planted = field("FISH", noise=0.0, haze=0.0, populations=(Population(1.0, 12.0, 2.0, True),))
    bare = PlantedISH(planted.spec, planted.nuclei, planted.spots[:0])
    light = whole(planted).astype(float) - whole(bare)
    variance = (planted.spec.spot_um / planted.spec.mpp) ** 2 / (8 * np.log(2))
    assert not light[..., 0].any()
    for probe, level in enumerate(SIGNAL_LEVEL):
        copies = planted.spots["copies"][planted.spots["probe"] == probe].sum()
        single = light[..., 1 + probe].sum() / copies
        assert single == pytest.approx(2 * np.pi * variance * level, rel=0.03)


def test_silver_is_neutral_and_red_is_red() -> None:
    """Colours at the places of signals in bright field, against the same nuclei without signals."""
    planted = field("DISH", noise=0.0, depth_um=0.0, populations=(Population(1.0, 2.0, 2.0),), stray=0.0)
    bare = PlantedISH(planted.spec, planted.nuclei, planted.spots[:0])
    od = np.log10(whole(bare).astype(float)) - np.log10(np.maximum(whole(planted).astype(float), 1))
    y, x = (np.rint(planted.spots[name]).astype(int) for name in ("y_px0", "x_px0"))
    alone = np.array(
        [np.sort(np.hypot(planted.spots["y_px0"] - a, planted.spots["x_px0"] - b))[1] > 20
         for a, b in zip(y, x, strict=True)]
    )  # fmt: skip
    black, red = (od[y, x][alone & (planted.spots["probe"] == probe)] for probe in (HER2, CEP17))
    assert min(len(black), len(red)) > 10
    assert np.ptp(black, axis=1).max() < 0.12
    assert black.mean() == pytest.approx(BLACK_OD, rel=0.1)
    direction = red.mean(0) / np.linalg.norm(red.mean(0))
    assert np.degrees(np.arccos(direction @ np.asarray(RED))) < 3
    corner = whole(field("DISH", haze=0.0, noise=0.0))[:40, :40].reshape(-1, 3)
    assert np.abs(corner.mean(0) - GLASS).max() < 6


def test_defocus_noise_and_depth_do_what_they_say() -> None:
    box = Box(300, 300, 800, 800)
    clean, noisy, soft = (
        render_ish(field("FISH", **kind), box)[..., 1].astype(float)
        for kind in ({"noise": 0.0}, {"noise": 1.0}, {"noise": 0.0, "defocus_um": 0.6})
    )
    difference = noisy - clean
    assert abs(difference.mean()) < 0.5
    assert 8 < difference.std() < 20, "read noise of 8 levels, and shot noise"
    assert soft.max() - np.median(soft) < 0.5 * (clean.max() - np.median(clean))
    deep = render_ish(field("FISH", noise=0.0, depth_um=0.3), box)[..., 1].astype(float)
    flat = render_ish(field("FISH", noise=0.0, depth_um=0.0), box)[..., 1].astype(float)
    assert np.abs(deep - flat).max() > 100
    assert deep.sum() == pytest.approx(flat.sum(), rel=1e-3), "a blurred signal keeps its light"


def test_a_section_loses_copies() -> None:
    full, cut = (field("FISH", height_px=2200, width_px=2200, retention=part) for part in (1.0, 0.7))
    ratio = cut.nuclei["her2"].sum() / full.nuclei["her2"].sum()
    assert ratio == pytest.approx(0.7, abs=0.05)


def test_a_single_probe_has_no_second() -> None:
    planted = field("FISH", dual=False, stray=0.5)
    assert set(planted.spots["probe"]) == {HER2}
    assert not planted.nuclei["cep17"].any()
    assert whole(planted).shape == (SIDE, SIDE, 2)


def test_populations_apart_lie_from_left_to_right() -> None:
    clone = (Population(0.7, 2.0, 2.0), Population(0.3, 12.0, 2.0))
    apart = field("FISH", height_px=2200, width_px=2200, populations=clone, islands=True).nuclei
    x = apart["x_px0"] / 2200
    assert x[apart["population"] == 1].min() > x[apart["population"] == 0].max() - 0.1
    mixed = field("FISH", height_px=2200, width_px=2200, populations=clone).nuclei
    assert (mixed["population"] == 1).mean() == pytest.approx(0.3, abs=0.1)
    assert mixed["x_px0"][mixed["population"] == 1].min() < 700


@pytest.mark.parametrize(
    "wrong", [{"modality": "CISH"}, {"populations": (Population(0.5, 2.0, 2.0),)}, {"populations": ()}]
)
def test_a_spec_that_cannot_be_planted_is_refused(wrong: dict[str, object]) -> None:
    given: dict[str, object] = {"modality": "FISH", "seed": 1, "height_px": 500, "width_px": 500} | wrong
    with pytest.raises(ValueError, match=r"expected|must"):
        ISHSpec(**given)  # type: ignore[arg-type]


def test_truth_of_a_slide_is_the_ratio_of_sums_over_countable_nuclei() -> None:
    planted = field("FISH")
    nuclei = planted.nuclei[:5].copy()
    nuclei["overlapped"] = (False, False, False, True, False)
    nuclei["her2"], nuclei["cep17"] = (10, 2, 6, 50, 3), (2, 2, 2, 1, 0)  # the last has one colour only
    row = ish_truth_row(PlantedISH(planted.spec, nuclei, planted.spots))
    assert row["n_nuclei"] == 3
    assert (row["ish_ratio"], row["ish_her2_mean"], row["ish_cep17_mean"]) == (3.0, 6.0, 2.0)
    assert row["ish_group"] == "1"


def test_cohort_needs_ish_and_gets_it() -> None:
    """The plan as it is written for users, planted and not drawn: groups, and the specimens' classes."""
    groups, counted = {}, []
    for i, slide in enumerate(ISH_PLAN):
        spec = ISHSpec(slide.assay.removeprefix("HER2-"), 1100 + i, slide.side_px - 20, slide.side_px - 20,
                       slide.mpp, slide.populations)  # fmt: skip
        row = ish_truth_row(plant_ish(spec))
        groups[slide.case] = row["ish_group"]
        counted.append(row["n_nuclei"])
    assert groups == {"TWO": "1", "TWONEG": "5", "WAITING": "4"}
    assert {str(slide.assay) for slide in ISH_PLAN} == {"HER2-FISH", "HER2-DISH"}
    assert min(counted) >= 100

    ihc = [{"planted_score": "2+" if p.case.startswith("TWO") else "0", "her2_class": "null"} for p in PLAN]
    cases = {
        row["case_id"]: (row["her2_status"], row["her2_class"]) for row in case_truth(ihc, PLAN, ISH_PLAN)
    }
    assert cases["TWO"] == ("Positive", "pos_IHC2_ISHpos")
    assert cases["TWONEG"] == ("Negative", "low_2plus")
    assert cases["WAITING"][0] == "Indeterminate"
    assert cases["NULL"] == ("Negative", "null")


def test_cohort_files_of_ish(tmp_path: Path) -> None:
    ihc = (PlannedSlide("TWO", "A1", (0.0, 0.0, 0.0, 1.0, 0.0)),)
    ish = tuple(replace(slide, side_px=1000) for slide in ISH_PLAN)
    manifest = synth_cohort(tmp_path, side_px=600, plan=ihc, ish_plan=ish)
    rows = {row["slide_id"]: row for row in table(manifest)}
    assert list(rows) == ["TWO-A1", "TWO-A1-FISH", "TWONEG-A1-DISH", "WAITING-A1-FISH"]
    assert [row["assay"] for row in rows.values()] == ["HER2-IHC", "HER2-FISH", "HER2-DISH", "HER2-FISH"]
    of_one_block = ("case_id", "patient_id", "specimen_id", "block_id", "site")
    assert [rows["TWO-A1"][name] for name in of_one_block] == [rows["TWO-A1-FISH"][n] for n in of_one_block]
    assert all((manifest.parent / row["uri"]).stat().st_size > 10_000 for row in rows.values())
    truth = table(tmp_path / "truth_ish.csv")
    nuclei = pq.read_table(tmp_path / "truth_nuclei.parquet").to_pandas()
    for row in truth:
        own = nuclei[(nuclei["slide_id"] == row["slide_id"]) & ~nuclei["overlapped"]]
        ratio = own["her2"].sum() / own["cep17"].sum()
        assert float(row["ish_ratio"]) == pytest.approx(ratio, abs=1e-4)
    cases = table(tmp_path / "truth_cases.csv")
    assert {row["case_id"]: row["her2_class"] for row in cases}["TWO"] == "pos_IHC2_ISHpos"


@pytest.mark.parametrize("z_planes", [1, 3])
def test_fluorescence_slide_is_named_scaled_and_lossless(tmp_path: Path, z_planes: int) -> None:
    planted = field("FISH", height_px=520, width_px=610)
    write_fluorescence(tmp_path / "f.ome.tif", planted, z_planes=z_planes)
    with tifffile.TiffFile(tmp_path / "f.ome.tif") as slide:
        series = slide.series[0]
        levels = [level.shape[-2:] for level in series.levels]
        pixels = series.asarray()
        page = slide.pages.first
        assert slide.is_ome
        assert page.compression.name == "ADOBE_DEFLATE"
        about = slide.ome_metadata
    assert levels[0] == (520, 610)
    assert levels[1] == (130, 153)
    stack = pixels if z_planes == 1 else pixels.max(axis=1)
    np.testing.assert_array_equal(np.moveaxis(stack, 0, -1), whole(planted))
    assert [f'Name="{name}"' in about for name in ("DAPI", "HER2", "CEP17")] == [True] * 3
    assert 'PhysicalSizeX="0.1"' in about


def test_bright_field_slide_is_the_drawn_field(tmp_path: Path) -> None:
    planted = field("DISH", height_px=520, width_px=610, mpp=0.11)
    write_slide(tmp_path / "d.tif", planted, quality=90)
    with tifffile.TiffFile(tmp_path / "d.tif") as slide:
        assert "MPP = 0.11" in slide.pages.first.description
        stored = slide.series[0].levels[0].asarray().astype(float)
    drawn = whole(planted).astype(float)
    assert np.sqrt(((stored - drawn) ** 2).mean()) < 6, "JPEG alone stands between them"
