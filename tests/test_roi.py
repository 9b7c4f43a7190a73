"""Regions of interest: what counts, what is cut out, and what is refused with what words."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from her2core.errors import Reason, SlideError
from her2core.records import Box
from her2core.roi import PolygonRoi, read_roi

HEIGHT, WIDTH = 1000, 2000


def square(y0: float, x0: float, y1: float, x1: float) -> list[list[float]]:
    return [[x0, y0], [x1, y0], [x1, y1], [x0, y1], [x0, y0]]


def feature(*rings: list[list[float]], kind: str = "Polygon", **properties: Any) -> dict[str, Any]:
    coordinates: Any = list(rings) if kind == "Polygon" else [[ring] for ring in rings]
    geometry = {"type": kind, "coordinates": coordinates}
    return {"type": "Feature", "geometry": geometry, "properties": {"objectType": "annotation", **properties}}


def written(folder: Path, document: Any) -> str:
    path = folder / "roi.geojson"
    path.write_text(document if isinstance(document, str) else json.dumps(document))
    return str(path)


def test_polygon_with_a_hole_contains_points_exactly(tmp_path: Path) -> None:
    document = {
        "type": "FeatureCollection",
        "features": [feature(square(10, 20, 110, 220), square(40, 60, 50, 70))],
    }
    roi = read_roi(written(tmp_path, document), HEIGHT, WIDTH)
    y = np.array([10.0, 9.0, 9.6, 45.0, 109.0, 110.0, 60.0])
    x = np.array([20.0, 20.0, 20.0, 65.0, 219.0, 219.0, 219.6])
    # a centroid of 10.0 is the centre of pixel 10, half a pixel inside an edge drawn at 10
    assert roi.contains(y, x).tolist() == [True, False, True, False, True, False, False]


def test_containment_does_not_depend_on_how_points_are_grouped(tmp_path: Path) -> None:
    ring = [[1000 + 400 * np.cos(t), 500 + 300 * np.sin(3 * t)] for t in np.linspace(0.1, 5.9, 40)]
    roi = read_roi(written(tmp_path, [feature([*ring, ring[0]])]), HEIGHT, WIDTH)
    rng = np.random.default_rng(0)
    y, x = rng.uniform(0, HEIGHT, 500), rng.uniform(0, WIDTH, 500)
    whole = roi.contains(y, x)
    assert 0 < whole.sum() < 500
    assert [bool(roi.contains(y[k : k + 1], x[k : k + 1])[0]) for k in range(500)] == whole.tolist()
    assert pickle.loads(pickle.dumps(roi)).contains(y, x).tolist() == whole.tolist()


@pytest.mark.parametrize(
    "classification",
    [{"name": "Ignore*", "colorRGB": -1}, {"names": ["Exclude necrosis"]}, {"name": "ignore"}],
)
def test_ignored_annotations_are_cut_out(tmp_path: Path, classification: dict[str, Any]) -> None:
    tumour = feature(square(0, 0, 100, 100), classification={"name": "Tumor"})
    ignored = feature(square(0, 50, 100, 100), classification=classification)
    roi = read_roi(written(tmp_path, [ignored, tumour]), HEIGHT, WIDTH)
    assert roi.contains([50, 50], [25, 75]).tolist() == [True, False]


def test_annotations_add_up_and_detections_are_not_annotations(tmp_path: Path) -> None:
    cell = feature(square(500, 500, 600, 600), objectType="detection")
    two = feature(square(0, 0, 10, 10), square(20, 20, 30, 30), kind="MultiPolygon")
    roi = read_roi(written(tmp_path, [two, feature(square(5, 5, 25, 25)), cell]), HEIGHT, WIDTH)
    assert roi.contains([2, 15, 28, 550], [2, 15, 28, 550]).tolist() == [True, True, True, False]
    assert roi.any(Box(0, 0, 4, 4))
    assert not roi.any(Box(400, 400, 700, 700))


@pytest.mark.parametrize("wrap", [lambda f: f, lambda f: [f], lambda f: f["geometry"]])
def test_single_feature_list_and_bare_geometry(tmp_path: Path, wrap: Any) -> None:
    roi = read_roi(written(tmp_path, wrap(feature(square(0, 0, 10, 10)))), HEIGHT, WIDTH)
    assert roi.contains([5], [5]).all()


def test_outline_that_crosses_itself_keeps_both_lobes(tmp_path: Path) -> None:
    bow = [[0.0, 0.0], [100.0, 100.0], [100.0, 0.0], [0.0, 100.0], [0.0, 0.0]]
    roi = read_roi(written(tmp_path, [feature(bow)]), HEIGHT, WIDTH)
    assert isinstance(roi, PolygonRoi)
    assert roi.area.area == pytest.approx(5000)
    assert roi.contains([50, 50], [10, 90]).all()


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ("{", "not JSON"),
        ('"text"', "expected a GeoJSON FeatureCollection"),
        ([], "no annotation to score"),
        ([{"type": "Feature", "geometry": None}], "feature 0 is a None; expected Polygon"),
        ([feature(square(0, 0, 9, 9)), {"type": "Point"}], "feature 1 is 'Point'"),
        (
            [{"type": "Feature", "geometry": {"type": "LineString"}, "properties": {"name": "ruler"}}],
            r"feature 0 \(ruler\) is a LineString",
        ),
        ([feature([[0, 0], [1, 1]])], "feature 0 cannot be read"),
        ([feature(square(5, 5, 5, 50))], "area 0"),
        (
            [feature(square(0, 0, 9, 9)), feature(square(0, 0, 9, 9), classification={"name": "Ignore*"})],
            "nothing",
        ),
        ([feature(square(0, 3000, 100, 3100))], r"x 3000 to 3100; the slide at y 0 to 1000, x 0 to 2000"),
    ],
)
def test_what_cannot_be_used_is_refused_by_name(tmp_path: Path, document: Any, words: str) -> None:
    with pytest.raises(SlideError, match=words) as caught:
        read_roi(written(tmp_path, document), HEIGHT, WIDTH)
    assert caught.value.reason is Reason.ROI_INVALID
    assert "roi.geojson" in caught.value.message


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(SlideError, match=r"gone\.geojson: there is no such file"):
        read_roi(str(tmp_path / "gone.geojson"), HEIGHT, WIDTH)


@pytest.mark.parametrize(("zarr_format", "depth"), [(2, 5), (3, 2)])
def test_ome_zarr_label_of_either_version(tmp_path: Path, zarr_format: Any, depth: int) -> None:
    path = tmp_path / "tumour"
    mask = np.zeros((125, 250), np.int32)
    mask[10:20, 30:40] = 7
    group = zarr.open_group(path, mode="w", zarr_format=zarr_format)
    group.create_array("0", data=mask.reshape((1,) * (depth - 2) + mask.shape))
    multiscales = [{"datasets": [{"path": "0"}]}]
    group.attrs.update(
        {"ome": {"multiscales": multiscales}} if zarr_format == 3 else {"multiscales": multiscales}
    )
    roi = read_roi(str(path), HEIGHT, WIDTH)
    assert roi.contains([80, 79, 159, 160], [240, 240, 319, 319]).tolist() == [True, False, True, False]
    with pytest.raises(SlideError, match="125 x 250 pixels; expected those of the slide"):
        read_roi(str(path), HEIGHT, HEIGHT)


def test_neither_geojson_nor_label(tmp_path: Path) -> None:
    with pytest.raises(SlideError, match="neither GeoJSON nor an OME-Zarr label"):
        read_roi(str(tmp_path), HEIGHT, WIDTH)
