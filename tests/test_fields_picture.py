"""The six fields of a slide that are shown at full resolution."""

from __future__ import annotations

import dataclasses
import json

import imagecodecs
import numpy as np
import pytest

from her2core.guidelines.rules_ihc import CellClass
from her2core.params import ScoreParams
from her2core.pictures.fields import FieldCells, PicturedField, fields_picture
from her2core.scoring.ihc import MeasuredCells
from her2core.stages.fields_ihc import FIELD_UM, ChosenField, choose_fields, fields_geojson


def cells(n: int, squares: int, seed: int = 1) -> tuple[MeasuredCells, np.ndarray]:
    """``n`` cells in a row of squares; their stain rises from square to square."""
    rng = np.random.default_rng(seed)
    x = rng.uniform(0, squares * FIELD_UM, n)
    od = (0.1 + 0.1 * np.floor(x / FIELD_UM)).astype(np.float32)
    tumour = x < (squares - 2) * FIELD_UM  # the last two squares hold none
    measured = MeasuredCells(
        y_um=rng.uniform(0, FIELD_UM, n),
        x_um=x,
        completeness=np.full(n, 0.5, np.float32),
        intensity_od=od,
        membrane_od=od,
        cytoplasm_od=np.zeros(n, np.float32),
        evaluable=np.ones(n, np.bool_),
        tumour=tumour,
        brownness=np.ones(n, np.float32),
        dark_od=od,
    )
    return measured, np.full(n, CellClass.C1, np.int8)


def test_fields_are_what_their_names_say() -> None:
    measured, classes = cells(2000, 10)
    chosen = {one.name: one for one in choose_fields(measured, classes, ScoreParams())}
    assert set(chosen) == {"strongest", "typical", "borderline", "excluded", "dense", "random"}
    assert len({(one.y_um, one.x_um) for one in chosen.values()}) == 6
    assert chosen["strongest"].x_um == 7 * FIELD_UM
    assert chosen["typical"].x_um in (3 * FIELD_UM, 4 * FIELD_UM)
    assert chosen["excluded"].x_um >= 8 * FIELD_UM


def test_fields_do_not_depend_on_the_order_of_rows() -> None:
    measured, classes = cells(2000, 10)
    turn = np.random.default_rng(3).permutation(2000)
    other = MeasuredCells(*(getattr(measured, name)[turn] for name in MeasuredCells.__slots__))
    assert choose_fields(measured, classes, ScoreParams()) == choose_fields(other, classes, ScoreParams())


def test_a_slide_without_cells_has_no_fields() -> None:
    assert choose_fields(*cells(0, 10), ScoreParams()) == ()


@pytest.fixture
def field() -> PicturedField:
    turn = 2 * np.pi * np.arange(36) / 36
    ring = np.stack([np.sin(turn), np.cos(turn)], 1)
    outline = np.array([20.0, 30.0]) + ring[None] * 5
    arcs = np.zeros((1, 36), np.int8)
    arcs[0, :18] = 4
    one = FieldCells(outline * 1.0, outline + ring[None] * 3, arcs, np.array([False]), np.array([True]))
    return PicturedField("typical", np.full((256, 256, 3), 240, np.uint8), 0.25, one)


def test_contours_are_drawn_in_the_colour_of_their_stain(field: PicturedField) -> None:
    picture = imagecodecs.jpeg_decode(fields_picture("one", [field]))
    red = np.all(abs(picture[..., :3].astype(int) - (0xD6, 0x27, 0x28)) < 40, axis=-1)
    assert red.sum() > 50
    assert red[:-60].sum() > 0.5 * red.sum()  # in the field, and not in the legend alone


def test_outlines_are_kept_in_level_0_pixels(field: PicturedField) -> None:
    found = json.loads(fields_geojson([(ChosenField("typical", 64.0, 128.0), field)], 0.25))
    (feature,) = found["features"]
    ring = np.array(feature["geometry"]["coordinates"][0])
    assert np.array_equal(ring[0], ring[-1])
    x, y = ring[:-1].mean(0)
    assert (x, y) == pytest.approx(((128 + 30) / 0.25, (64 + 20) / 0.25), abs=0.5)
    assert feature["properties"]["measurements"]["stained rays"] == 18
    assert feature["properties"]["classification"]["name"] == "Tumor"


def test_outlines_lie_on_the_pixels_that_were_read(field: PicturedField) -> None:
    """A field begins at a whole pixel, also where its place in um is none."""
    field = dataclasses.replace(field, um_px=0.3)
    found = json.loads(fields_geojson([(ChosenField("typical", 64.0, 128.0), field)], 0.3))
    ring = np.array(found["features"][0]["geometry"]["coordinates"][0])
    corner = ring[:-1].mean(0) - np.array([30.0, 20.0]) / 0.3
    assert corner == pytest.approx((427, 213), abs=0.1)  # 128 / 0.3 = 426.67, 64 / 0.3 = 213.33
