"""Regions of interest: what counts, what is cut out, and what is refused with what words."""

from __future__ import annotations

import json
import pickle
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import zarr

from her2core import versions
from her2core.cases.specimens import SlideOutcome
from her2core.errors import Reason, SlideError
from her2core.guidelines.rules_ihc import load_rules
from her2core.intake.roi import PolygonRoi, ReadRoi, roi_identity
from her2core.intake.roi import read_roi as read
from her2core.intake.roi.shapes import MAX_RINGS
from her2core.lake.rows import slide_row
from her2core.params import HeterogeneityParams, IHCParams, RoiParams, ScoreParams
from her2core.readers import MemoryReader
from her2core.records import Assay, Box, CellsRef, PyramidRef, SlideRow, SlideState
from her2core.scoring.tumour import load_model
from her2core.stages import prepare
from her2core.stages.slide import SlideJob, result_key
from her2core.storage.sources import Scratch
from her2core.storage.store import Store, content_key

HEIGHT, WIDTH = 1000, 2000
MPP = 1.0
"""So coarse that micrometres and pixels are the same, and tell nothing apart."""


def read_roi(uri: str, height: int, width: int, mpp: float = MPP) -> Any:
    return read(uri, height, width, mpp).region


def read_class(folder: Path, *features: dict[str, Any], mpp: float = MPP, **params: Any) -> ReadRoi:
    return read(written(folder, list(features)), HEIGHT, WIDTH, mpp, RoiParams(**params))


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
    old = {**feature(square(700, 700, 800, 800)), "id": "PathCellObject"}  # as QuPath 0.2 wrote it
    old["properties"] = {}
    two = feature(square(0, 0, 10, 10), square(20, 20, 30, 30), kind="MultiPolygon")
    roi = read_roi(written(tmp_path, [two, feature(square(5, 5, 25, 25)), cell, old]), HEIGHT, WIDTH)
    assert roi.contains([2, 15, 28, 550, 750], [2, 15, 28, 550, 750]).tolist() == [True] * 3 + [False] * 2
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
        ("[" * 100_000, "nested too deep"),
        ('"text"', "found 'str'; expected a GeoJSON FeatureCollection"),
        ("[" * 12 + "]" * 12, "more than 8 collections inside each other"),
        ([], "no annotation to score: it holds nothing"),
        ([{"type": "Feature", "geometry": None}], "holds 1 feature without geometry, and no area"),
        ([feature(square(0, 0, 9, 9)), {"type": "Cloud"}], "found 'Cloud'; expected a GeoJSON"),
        (
            [{"type": "Feature", "geometry": {"type": "LineString", "coordinates": []}}],
            "holds 1 LineString, and no area",
        ),
        (
            [feature([["1", "x"], [1, 1]], classification="Ink")],
            r"feature 0 \('Ink'\) cannot be read: a corner is not two",
        ),
        ([feature([[0, 0], [9, 0], [9, 1e999]])], "a corner is not finite"),
        ([feature([[0, 0], [1, 1]])], "holds 1 outline without area"),
        ([feature(square(5, 5, 5, 50))], "holds 1 outline without area"),
        ([feature(*[square(i, i, i + 9, i + 9) for i in range(MAX_RINGS + 1)])], "Simplify the annotations"),
        (
            [feature([[(7919 * i) % 1999, (104729 * i) % 997] for i in range(2000)])],
            "crosses itself thousands of times",
        ),
        (
            [feature(square(0, 0, 9, 9)), feature(square(0, 0, 9, 9), classification={"name": "Ignore*"})],
            r"nothing is left after Ignore\* was cut out",
        ),
        ([feature(square(0, 3000, 100, 3100))], r"x 3000 to 3100; the slide at y 0 to 1000, x 0 to 2000"),
        ([feature(square(0, 1900, 100, 2200))], r"67 % of it off the slide"),
        ([feature(square(0, 0, 1, 1))], "1 µm², less than a nucleus"),
        ([feature(square(0, 0, 9, 9), classification={"name": "Stroma"})], r"all are cut out \(Stroma\)"),
        (
            [feature(square(0, 0, 9, 9), classification={"name": "Area 51"})],
            r"classes Area 51: neither .* roi.include or roi.exclude",
        ),
    ],
)
def test_what_cannot_be_used_is_refused_by_name(tmp_path: Path, document: Any, words: str) -> None:
    with pytest.raises(SlideError, match=words) as caught:
        read_roi(written(tmp_path, document), HEIGHT, WIDTH)
    assert caught.value.reason is Reason.ROI_INVALID
    assert "roi.geojson" in caught.value.message


def test_rulers_points_and_stray_clicks_beside_areas_are_passed_over(tmp_path: Path) -> None:
    ruler = {"type": "Feature", "geometry": {"type": "LineString", "coordinates": [[1, 1], [50, 50]]}}
    points = {"type": "Feature", "geometry": {"type": "MultiPoint", "coordinates": [[1, 1], [5, 5]]}}
    click = feature([[7, 7], [7, 7], [7, 7], [7, 7]])
    area = feature(square(0, 0, 100, 100), [[5, 5], [5, 5]])
    empty = {"type": "Feature", "geometry": {"type": "Polygon", "coordinates": []}}
    found = read_class(tmp_path, ruler, area, points, click, empty, {"type": "Feature", "geometry": None})
    assert found.region.contains([50, 5], [50, 5]).tolist() == [True, True]
    assert found.used.area_mm2 == pytest.approx(0.01)
    assert found.used.notes == (
        "passed over: 1 LineString, 1 MultiPoint, 1 feature without geometry, 2 outline without area",
    )
    assert found.used.doubts == ()


def test_nested_collections_and_open_rings_are_read(tmp_path: Path) -> None:
    opened = feature(square(0, 0, 100, 100)[:-1])
    inner = feature(square(200, 200, 300, 300))
    inner["geometry"] = {"type": "GeometryCollection", "geometries": [inner["geometry"]]}
    nested = {"type": "FeatureCollection", "features": [{"type": "FeatureCollection", "features": [inner]}]}
    found = read_class(tmp_path, opened, nested)
    assert found.region.contains([50, 250, 150], [50, 250, 150]).tolist() == [True, True, False]


def test_overlapping_holes_are_all_holes(tmp_path: Path) -> None:
    holes = [square(10, 10, 30, 30), square(20, 20, 40, 40)]
    found = read_class(tmp_path, feature(square(0, 0, 100, 100), *holes))
    assert found.region.contains([15, 25, 35, 50], [15, 25, 35, 50]).tolist() == [False, False, False, True]


@pytest.mark.parametrize(
    "name", ["DCIS", "Necrosis", "Stroma", "Normal", "normal epithelium", "Ignore*", "Tumor: Ignore*",
             "Tumor stroma", "Ductal carcinoma in situ", "Immune cells"],
)  # fmt: skip
@pytest.mark.parametrize("form", ["name", "names", "text"])
def test_what_is_no_invasive_tumour_is_cut_out(tmp_path: Path, name: str, form: str) -> None:
    classification: Any = {"name": {"name": name}, "names": {"names": name.split(": ")}, "text": name}[form]
    tumour = feature(square(0, 0, 100, 100), classification={"name": "Tumor"})
    found = read_class(tmp_path, tumour, feature(square(0, 50, 100, 100), classification=classification))
    assert found.region.contains([50, 50], [25, 75]).tolist() == [True, False]
    assert (found.used.classes, found.used.excluded) == (("Tumor",), (name,))
    assert found.used.area_mm2 == pytest.approx(0.005)


def test_beside_tumour_what_has_no_such_class_does_not_count(tmp_path: Path) -> None:
    whole = feature(square(0, 0, 1000, 2000))
    other = feature(square(500, 500, 600, 600), classification={"name": "Region*"})
    second = feature(square(700, 700, 800, 800), classification={"names": ["Hotspot"]})
    tumour = feature(square(0, 0, 100, 100), classification={"names": ["Tumor", "Positive"]})
    found = read_class(tmp_path, whole, other, second, tumour)
    assert found.region.contains([50, 550, 750], [50, 550, 750]).tolist() == [True, False, False]
    assert found.used.classes == ("Tumor: Positive",)
    assert found.used.notes == ("not used: Hotspot, Region*, unclassified",)
    alone = read_class(tmp_path, whole, other)
    assert alone.used.classes == ("Region*", "unclassified")


def test_the_laboratory_names_its_own_classes(tmp_path: Path) -> None:
    features = [
        feature(square(0, 0, 100, 100), classification={"name": "Ca"}),
        feature(square(0, 0, 100, 50), classification={"name": "Fat"}),
    ]
    found = read_class(tmp_path, *features, include=("ca",), exclude=("f*",))
    assert found.region.contains([50, 50], [25, 75]).tolist() == [False, True]


def test_micrometres_and_an_edge_off_the_slide_are_doubted(tmp_path: Path) -> None:
    corner = read_class(tmp_path, feature(square(10, 10, 200, 400)), mpp=0.25)
    assert [doubt.split(":")[0] for doubt in corner.used.doubts] == [
        "all of it is in the upper left corner, where coordinates in micrometres would lie"
    ]
    edge = read_class(tmp_path, feature(square(500, 1000, 600, 2100)), mpp=0.25)
    assert [doubt.split(":")[0] for doubt in edge.used.doubts] == ["9 % of it is off the slide"]
    assert read_class(tmp_path, feature(square(500, 1000, 600, 2010)), mpp=0.25).used.doubts == ()


HALO = """<Annotations><Annotation Name="Tumor"><Regions>
<Region Type="Polygon" NegativeROA="0"><Vertices>
  <V X="0" Y="0"/><V X="100" Y="0"/><V X="100" Y="100"/><V X="0" Y="100"/></Vertices></Region>
<Region Type="Rectangle" NegativeROA="1"><Vertices><V X="50" Y="0"/><V X="100" Y="50"/></Vertices></Region>
<Region Type="Ruler" NegativeROA="0"><Vertices><V X="0" Y="0"/><V X="9" Y="9"/></Vertices></Region>
</Regions></Annotation><Annotation Name="Layer 2"><Regions/></Annotation></Annotations>"""
IMAGESCOPE = """<?xml version="1.0"?><Annotations MicronsPerPixel="0.5"><Annotation Id="1" Name="">
<Regions><RegionAttributeHeaders/>
<Region Id="1" Type="1" NegativeROA="0"><Vertices><Vertex X="0" Y="0" Z="0"/><Vertex X="100" Y="0" Z="0"/>
<Vertex X="100" Y="100" Z="0"/><Vertex X="0" Y="100" Z="0"/></Vertices></Region>
<Region Id="2" Type="2" NegativeROA="0"><Vertices><Vertex X="200" Y="200"/><Vertex X="300" Y="400"/>
</Vertices></Region></Regions></Annotation></Annotations>"""


def test_halo_is_read(tmp_path: Path) -> None:
    path = tmp_path / "slide.annotations"
    path.write_text(HALO)
    found = read(str(path), HEIGHT, WIDTH, MPP)
    assert found.region.contains([25, 25, 75], [25, 75, 75]).tolist() == [True, False, True]
    assert (found.used.classes, found.used.excluded) == (("Tumor",), ("Tumor",))
    assert found.used.notes == ("passed over: 1 region of type 'Ruler'",)


def test_imagescope_is_read(tmp_path: Path) -> None:
    path = tmp_path / "slide.xml"
    path.write_text(IMAGESCOPE)
    found = read(str(path), HEIGHT, WIDTH, MPP)
    assert found.region.contains([50, 300, 202], [50, 250, 202]).tolist() == [True, True, False]
    assert found.used.area_mm2 == pytest.approx((1e4 + np.pi * 50 * 100) / 1e6, rel=1e-3)
    assert found.used.doubts == ("drawn on a slide of 0.5 µm/px, and this one has 1",)


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("a.xml", "<ASAP_Annotations/>", "XML of 'ASAP_Annotations', not the Annotations of HALO"),
        ("a.xml", "<Annotations/>", "not the Annotations of HALO or ImageScope"),
        ("a.xml", "<a>", "cannot be read as XML"),
        ("a.annotations", '<!DOCTYPE a [<!ENTITY b "c">]><Annotations/>', "declares a document type"),
        ("a.annotations", "<a>" * 100, "nested too deep"),
        ("a.annotations", HALO.replace('X="100" Y="0"', 'X="wide" Y="0"'), "a corner is not two numbers"),
        ("a.annotations", HALO.replace('Type="Rectangle"', 'Type="Ellipse"').replace('<V X="50" Y="0"/>', ""),
         "an ellipse of 1 corners; expected the two of its frame"),
        ("a.qpdata", "", "QuPath's own data, which is not read. Export annotations as GeoJSON"),
        ("a.ndpa", "", "annotations of NDP.view, which is not read"),
    ],
)  # fmt: skip
def test_other_files_are_refused_in_words_that_help(tmp_path: Path, name: str, text: str, words: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(SlideError, match=words) as caught:
        read_roi(str(tmp_path / name), HEIGHT, WIDTH)
    assert caught.value.reason is Reason.ROI_INVALID


def test_a_message_does_not_grow_with_the_file(tmp_path: Path) -> None:
    long = "x" * 1_000_000
    for bad in (
        feature([["a", 0]], name=long),
        feature(square(0, 0, 9, 9), classification={"name": long}),
        {"type": long},
    ):
        with pytest.raises(SlideError) as caught:
            read_class(tmp_path, bad)
        assert len(caught.value.message) < 600


def test_what_was_used_stands_in_the_row_of_the_slide(tmp_path: Path) -> None:
    tumour = feature(square(500, 1000, 600, 2100), classification={"name": "Tumor"})
    necrosis = feature(square(500, 1000, 600, 1500), classification={"name": "Necrosis"})
    used = read_class(tmp_path, tumour, necrosis, feature(square(0, 0, 9, 9))).used
    slide = SlideRow("s1", "c1", "s1.tif", Assay.IHC)
    row = slide_row(SlideOutcome(slide, SlideState.SCORED, roi=used), ScoreParams(), IHCParams().ladder_od)
    assert row["roi_source"] == str(tmp_path / "roi.geojson")
    assert (row["roi_classes"], row["roi_excluded"]) == (["Tumor"], ["Necrosis"])
    assert row["roi_area_mm2"] == pytest.approx(0.05)
    assert row["reasons"] == ["roi_doubtful"]
    assert [note.split(":")[0] for note in row["roi_notes"]] == ["17 % of it is off the slide", "not used"]
    without = slide_row(SlideOutcome(slide, SlideState.SCORED), ScoreParams(), IHCParams().ladder_od)
    assert {without[name] for name in row if name.startswith("roi_")} == {None}


@pytest.mark.parametrize("name", ["Non-tumor", "non tumour", "Nontumorous", "No tumor", "Tumor-free"])
@pytest.mark.parametrize("form", ["a.geojson", "a.annotations"])
def test_what_is_named_no_tumour_is_cut_out_of_it(tmp_path: Path, name: str, form: str) -> None:
    corners = "".join(f'<V X="{x}" Y="{y}"/>' for x, y in ((0, 0), (100, 0), (100, 100), (0, 100)))
    layer = f'<Annotation Name="{name}"><Regions><Region Type="Polygon"><Vertices>{corners}'
    layer = f"<Annotations>{layer}</Vertices></Region></Regions></Annotation></Annotations>"
    drawn = json.dumps([feature(square(0, 0, 100, 100), classification={"name": name})])
    path = tmp_path / form
    path.write_text(layer if form.endswith("annotations") else drawn, encoding="utf-8")
    with pytest.raises(SlideError, match="no annotation to score: all are cut out"):
        read_roi(str(path), HEIGHT, WIDTH)


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


@pytest.mark.parametrize(
    ("dtype", "chunks", "complaint"),
    [
        ("u1", (40_000, 40_000), r"chunks of \(40000, 40000\), 1600000000 bytes each; accepted are"),
        ("U20", (125, 250), "values of type <U20; expected numbers"),
    ],
)
def test_a_label_is_bounded_before_it_is_decoded(
    tmp_path: Path, dtype: str, chunks: tuple[int, int], complaint: str
) -> None:
    group = zarr.open_group(tmp_path / "tumour", mode="w", zarr_format=2)
    group.create_array("0", shape=(125, 250), chunks=chunks, dtype=dtype)
    group.attrs["ome"] = {"multiscales": [{"datasets": [{"path": "0"}]}]}
    with pytest.raises(SlideError, match=complaint) as caught:
        read_roi(str(tmp_path / "tumour"), HEIGHT, WIDTH)
    assert caught.value.reason is Reason.ROI_INVALID


def test_neither_geojson_nor_label(tmp_path: Path) -> None:
    with pytest.raises(SlideError, match="neither GeoJSON nor an OME-Zarr label"):
        read_roi(str(tmp_path), HEIGHT, WIDTH)


@pytest.mark.parametrize("ome", [[], {"multiscales": {}}, {"multiscales": [{"datasets": [{"path": [1]}]}]}])
def test_label_metadata_of_another_kind(tmp_path: Path, ome: Any) -> None:
    zarr.open_group(tmp_path / "tumour", mode="w").attrs["ome"] = ome
    with pytest.raises(SlideError, match="neither GeoJSON nor an OME-Zarr label"):
        read_roi(str(tmp_path / "tumour"), HEIGHT, WIDTH)


def test_a_slide_s_region_is_looked_at_before_its_cells_are_measured(tmp_path: Path) -> None:
    pixels = np.full((300, 400, 3), 240, np.uint8)
    tifffile.imwrite(tmp_path / "s.tif", pixels, photometric="rgb", metadata=None)
    where = written(tmp_path, [feature(square(0, 3000, 100, 3100))])
    row = SlideRow("s", "c", str(tmp_path / "s.tif"), Assay.IHC, mpp=0.25, roi_uri=where)
    with pytest.raises(SlideError, match="the slide at y 0 to 300, x 0 to 400") as caught:
        prepare.inspect(row, Scratch(str(tmp_path), 1), None, RoiParams())
    assert caught.value.reason is Reason.ROI_INVALID


def test_what_is_told_of_a_region_bears_its_pseudonym(tmp_path: Path) -> None:
    where = written(tmp_path, [feature(square(0, 0, 100, 100))])
    reader = MemoryReader(np.full((1000, 2000, 3), 240, np.uint8), MPP)
    ref = PyramidRef("p", "1-x", ((1000, 2000),), 512, 512, MPP, "zstd", 1, 1)
    row = SlideRow("s", "c", "file-7", Assay.IHC, roi_uri="file-8")
    profile: Any = None
    given = (Store(tmp_path), row, reader.info, ref, profile, CellsRef((), 0))
    job = SlideJob(*given, ScoreParams(), IHCParams(), None, HeterogeneityParams(), roi_at=where)
    found = job.roi()
    assert found is not None
    assert (found.used.source, found.used.classes) == ("file-8", ("unclassified",))
    assert found.used.digest == roi_identity(where, None)
    Path(where).unlink()
    with pytest.raises(SlideError, match=r"no such file. Correct roi_uri in the manifest"):
        job.region_digest()


def test_a_laboratory_enters_a_result_s_key_where_there_is_one() -> None:
    row = SlideRow("s", "c", "s.tif", Assay.IHC, scanner="A")
    params, *rest = ScoreParams(), HeterogeneityParams(), RoiParams()
    rules, model = load_rules(params.rules), load_model(params.tumour_model)
    before = [f"{f.name}={getattr(row, f.name)}" for f in fields(row) if f.name != "laboratory"]
    inputs = ["k", "", f"{rules.name} {rules.version}", *map(str, rest), *before]
    inputs.append(f"tumour model {model.version}")
    key = result_key(row, "k", params, *rest, "")
    assert key == content_key("slide", versions.SLIDE, params, inputs)
    assert result_key(replace(row, laboratory="North"), "k", params, *rest, "") != key
