"""Contours drawn by eye are whole: closed around their nuclei, in their windows, one grade an arc."""

from __future__ import annotations

import csv
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

ROWS = list(csv.DictReader((Path(__file__).parent / "data" / "contours_by_eye.csv").read_text().splitlines()))
DRAWN = [row for row in ROWS if row["contour"]]


def polygon(text: str) -> NDArray[np.float32]:
    """Corners (y, x) of a polygon."""
    return np.array([[float(v) for v in point.split()] for point in text.split(";")], np.float32)


def area(points: NDArray[np.float32]) -> float:
    return cv2.contourArea(points - points[0])


def test_every_image_has_one_scale_and_every_field_one_window() -> None:
    assert len({(r["image"], r["mpp"]) for r in ROWS}) == len({r["image"] for r in ROWS})
    windows = {(r["image"], r["field"], *(r[k] for k in r if k.startswith("window_"))) for r in ROWS}
    assert len(windows) == len({r["field"] for r in ROWS})
    assert len({(r["field"], r["cell"]) for r in ROWS}) == len(ROWS)


def test_every_window_holds_cells() -> None:
    inside = {
        r["field"]
        for r in DRAWN
        if 0 <= float(r["y_px0"]) - int(r["window_y0"]) < int(r["window_height"])
        and 0 <= float(r["x_px0"]) - int(r["window_x0"]) < int(r["window_width"])
    }
    assert inside == {r["field"] for r in ROWS}


@pytest.mark.parametrize("row", ROWS, ids=lambda r: f"{r['field']}/{r['cell']}")
def test_a_nucleus_is_closed_around_its_centre(row: dict[str, str]) -> None:
    nucleus, centre = polygon(row["nucleus"]), (float(row["y_px0"]), float(row["x_px0"]))
    assert cv2.pointPolygonTest(nucleus, centre, measureDist=False) > 0
    assert 4 < area(nucleus) * float(row["mpp"]) ** 2 < 200
    assert bool(row["contour"]) == bool(row["arcs"])


@pytest.mark.parametrize("row", DRAWN, ids=lambda r: f"{r['field']}/{r['cell']}")
def test_a_contour_is_closed_around_its_nucleus(row: dict[str, str]) -> None:
    nucleus, contour = polygon(row["nucleus"]), polygon(row["contour"])
    outside = min(cv2.pointPolygonTest(contour, (float(y), float(x)), measureDist=True) for y, x in nucleus)
    assert (
        outside * float(row["mpp"]) > -0.75
    )  # a membrane may lie on the nucleus: both are lines of some width
    assert 1 < area(contour) / area(nucleus) < 8
    assert len(row["arcs"]) == 16
    assert set(row["arcs"]) <= set("0123")


def test_no_nucleus_is_drawn_twice() -> None:
    for image in {r["image"] for r in ROWS}:
        own = [r for r in ROWS if r["image"] == image]
        place = np.array([[float(r["y_px0"]), float(r["x_px0"])] for r in own])
        apart = np.hypot(*(place[:, None] - place[None]).transpose(2, 0, 1)) * float(own[0]["mpp"])
        assert apart[~np.eye(len(own), dtype=bool)].min() > 1.5


def test_what_was_drawn_again_is_in_both_files() -> None:
    path = Path(__file__).parent / "data" / "contours_by_eye_second.csv"
    first = {(r["field"], r["cell"]): r for r in DRAWN}
    for again in csv.DictReader(path.read_text().splitlines()):
        row = first[again["field"], again["cell"]]
        centre = (float(row["y_px0"]), float(row["x_px0"]))
        assert cv2.pointPolygonTest(polygon(again["contour"]), centre, measureDist=False) > 0
        assert len(again["arcs"]) == 16
