"""Nuclei of another program in place of our own: read, judged, and measured on like ours."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import shapely
import tifffile
import zarr

from her2core.errors import Reason, SlideError
from her2core.intake.outlines import check_outlines, outlines_identity, read_outlines
from her2core.intake.outlines.geojson import SHRUNK
from her2core.intake.outlines.plane import collect, cut_tiles
from her2core.intake.outlines.read import ReadOutlines
from her2core.kernels.ihc.kernel import IHCKernel
from her2core.kernels.nuclei import Given
from her2core.kernels.polar import MAX_BEND, N_RAYS
from her2core.lake.rows import slide_row
from her2core.params import IHCParams, PyramidParams, ScoreParams
from her2core.phantom import PhantomSpec, plant, render_field
from her2core.phantom.spec import EMPTY
from her2core.records import Assay, Box, SlideRow
from her2core.stages import prepare
from her2core.storage.sources import Scratch
from her2core.storage.store import Store
from tests.conftest import Bucket
from tests.helpers import chain
from tests.test_ihc_kernel import cut, pairs, profiled
from tests.tools.faultproxy import FaultProxy

MPP = 0.25
SPEC = PhantomSpec(seed=11, height_px=700, width_px=760, mix=(0.3, 0.2, 0.1, 0.2, 0.2), loose_fraction=0.0)
PARAMS = IHCParams()
Ring = npt.NDArray[np.float64]


def circle(y: float, x: float, radius: float) -> Ring:
    """Corners (x, y) of a circle, level-0 pixels."""
    turn = np.linspace(0, 2 * np.pi, 73)
    return np.stack([x + radius * np.cos(turn), y + radius * np.sin(turn)], axis=1)


def feature(ring: Ring, kind: str | None = "detection", nucleus: Ring | None = None) -> dict[str, Any]:
    made: dict[str, Any] = {"type": "Feature", "geometry": polygon(ring), "properties": {}}
    if kind:
        made["properties"]["objectType"] = kind
    if nucleus is not None:
        made["nucleusGeometry"] = polygon(nucleus)
    return made


def polygon(ring: Ring) -> dict[str, Any]:
    return {"type": "Polygon", "coordinates": [ring.tolist()]}


def written(folder: Path, document: Any, name: str = "cells.geojson") -> str:
    (folder / name).write_text(document if isinstance(document, str) else json.dumps(document))
    return str(folder / name)


def collection(features: list[dict[str, Any]]) -> dict[str, Any]:
    return {"type": "FeatureCollection", "features": features}


def labelled(folder: Path, labels: npt.NDArray[Any]) -> str:
    tifffile.imwrite(folder / "labels.tif", labels, compression="zlib")
    return str(folder / "labels.tif")


def zarr_label(
    folder: Path,
    labels: npt.NDArray[Any],
    version: str = "0.5",
    *,
    axes: str = "yx",
    um: float | None = MPP,
    smaller: tuple[int, ...] = (),
    chunks: int = 100,
    name: str = "nuclei",
) -> str:
    """``image.zarr/labels/nuclei``, and further levels by dropping pixels; the image itself is not needed."""
    old = version == "0.4"
    place = folder / "image.zarr" / "labels" / name
    listed = folder / "image.zarr" / "labels"
    for group in (folder / "image.zarr", listed, place):
        zarr.open_group(str(group), mode="a", zarr_format=2 if old else 3)
    datasets = []
    for level, factor in enumerate((1, *smaller)):
        made = labels[..., ::factor, ::factor]
        where = zarr.create_array(
            str(place / str(level)), shape=made.shape, dtype=made.dtype, overwrite=True,
            zarr_format=2 if old else 3, chunks=(*(1,) * (made.ndim - 2), chunks, chunks),
        )  # fmt: skip
        where[...] = made
        scale = [1.0 if axis not in "yx" or um is None else um * factor for axis in axes]
        datasets.append(
            {"path": str(level), "coordinateTransformations": [{"type": "scale", "scale": scale}]}
        )
    kinds = {"y": "space", "x": "space", "z": "space", "c": "channel"}
    about = [
        {"name": axis, "type": kinds[axis]}
        | ({"unit": "micrometer"} if um is not None and axis in "yx" else {})
        for axis in axes
    ]
    meta = {
        "multiscales": [{"version": version, "name": "label", "axes": about, "datasets": datasets}],
        "image-label": {"version": version, "source": {"image": "../../"}},
    }
    names = [*labels_of(listed, old), name]
    zarr.open_group(str(place), mode="a").attrs.update(meta if old else {"ome": {"version": version, **meta}})
    found = {"labels": sorted(set(names))}
    zarr.open_group(str(listed), mode="a").attrs.update(
        found if old else {"ome": found | {"version": version}}
    )
    return str(place)


def labels_of(listed: Path, old: bool) -> list[str]:
    about = dict(zarr.open_group(str(listed), mode="r").attrs)
    found: list[str] = (about if old else about.get("ome", {})).get("labels", [])
    return found


def read(uri: str, height: int = 700, width: int = 760, mpp: float = MPP) -> ReadOutlines:
    return read_outlines(uri, height, width, mpp, PARAMS)


def planted_nuclei(spec: PhantomSpec) -> list[Ring]:
    """Outlines of the planted nuclei, level-0 pixels from the slide's corner."""
    cells = plant(spec).cells
    turn = np.linspace(0, 2 * np.pi, 49)
    rings = []
    for i in np.flatnonzero(cells.kind != EMPTY):
        two, three, phase_2, phase_3 = cells.lobes[i]
        rho = 1 + two * np.cos(2 * turn + phase_2) + three * np.cos(3 * turn + phase_3)
        u, v = cells.semi[i, 0] * rho * np.cos(turn), cells.semi[i, 1] * rho * np.sin(turn)
        cos, sin = np.cos(cells.angle[i]), np.sin(cells.angle[i])
        y, x = cells.nucleus[i]
        rings.append(np.stack([x + u * cos - v * sin, y + u * sin + v * cos], axis=1) / spec.mpp)
    size = (spec.width_px, spec.height_px)
    return [ring for ring in rings if (ring.mean(axis=0) > 0).all() and (ring.mean(axis=0) < size).all()]


def drawn(rings: list[Ring], height: int, width: int) -> npt.NDArray[np.uint32]:
    """A label image of outlines."""
    labels = np.zeros((height, width), np.uint32)
    for number, ring in enumerate(rings, 1):
        x0, y0 = np.maximum(np.floor(ring.min(axis=0)).astype(int), 0)
        x1, y1 = np.ceil(ring.max(axis=0)).astype(int) + 1
        part = labels[y0:y1, x0:x1]
        y, x = np.mgrid[y0 : y0 + part.shape[0], x0 : x0 + part.shape[1]] + 0.5
        part[shapely.contains_xy(shapely.Polygon(ring), x, y)] = number
    return labels


@pytest.fixture(scope="module")
def field() -> npt.NDArray[np.uint8]:
    return render_field(SPEC)[0]


# --- reading ------------------------------------------------------------------------------------------


def test_a_circle_is_the_same_however_it_is_stored(tmp_path: Path) -> None:
    """Both ways to the centre's place within a slide (pixel centres at whole numbers) and to its radius."""
    ring = circle(100.0, 200.0, 16.0)
    by_label = read(labelled(tmp_path, drawn([ring], 700, 760)))
    half = read(labelled(tmp_path, drawn([ring / 2], 350, 380)))
    by_ring = read(written(tmp_path, [feature(ring)]))
    for found, close in ((by_ring, 0.02), (by_label, 0.13), (half, 0.35)):
        assert (found.y_px0[0], found.x_px0[0]) == pytest.approx((99.5, 199.5), abs=1e-6)
        np.testing.assert_allclose(found.radius_um, 16.0 * MPP, atol=close)
        assert found.used.count == 1
        assert not found.used.doubts


def test_rays_go_from_x_towards_y_and_to_the_outermost_edge(tmp_path: Path) -> None:
    corners = np.array([(180.0, 88.0), (220.0, 88.0), (220.0, 112.0), (180.0, 112.0)])
    for uri in (written(tmp_path, [feature(corners)]), labelled(tmp_path, drawn([corners], 700, 760))):
        radius = read(uri).radius_um[0] / MPP
        np.testing.assert_allclose(radius[[0, 9, 18, 27]], [20, 12, 20, 12], atol=0.51)
        assert radius[3] == pytest.approx(20 / np.cos(np.pi / 6), abs=0.8)  # 30 degrees, towards +y
        assert radius[4] == pytest.approx(12 / np.sin(np.pi * 40 / 180), abs=0.8)
    bent = np.array([(0, 0), (40, 0), (40, 30), (20, 4), (0, 30)], np.float64) + 100  # like a kidney
    assert (read(written(tmp_path, [feature(bent)])).radius_um >= 0).all()


def test_a_cell_s_nucleus_wins_and_without_one_it_is_drawn_in(tmp_path: Path) -> None:
    cell, nucleus = circle(100, 100, 30), circle(102, 101, 14)
    found = read(written(tmp_path, collection([feature(cell, "cell", nucleus)])))
    np.testing.assert_allclose(found.radius_um, 14 * MPP, atol=0.02)
    assert not found.used.notes
    found = read(written(tmp_path, collection([feature(cell, "cell")])))
    np.testing.assert_allclose(found.radius_um, SHRUNK * 30 * MPP, atol=0.02)
    assert found.used.notes == ("1 cell without a nucleus: 0.6 of their radii taken for it",)


def test_annotations_are_nuclei_only_where_nothing_else_is(tmp_path: Path) -> None:
    region, nucleus = circle(300, 300, 250), circle(100, 100, 14)
    found = read(written(tmp_path, [feature(region, "annotation"), feature(nucleus, None)]))
    assert (found.used.count, found.used.notes) == (1, ("passed over: 1 annotation",))
    assert read(written(tmp_path, [feature(nucleus, "annotation")])).used.count == 1
    old = feature(region) | {"id": "PathAnnotationObject", "properties": {}}
    assert read(written(tmp_path, [old, feature(nucleus)])).used.notes == ("passed over: 1 annotation",)


def test_what_is_no_nucleus_is_left_out_and_counted(tmp_path: Path) -> None:
    """8 to 250 µm² are 128 to 4000 px²; of one given twice the larger is used; one lies off the slide."""
    good = [circle(100, 100 + 60 * i, 16) for i in range(9)]
    odd = [circle(300, 100, 5), circle(300, 300, 50), circle(101, 101, 14), circle(720, 100, 16)]
    line = np.array([(0.0, 0.0), (9.0, 9.0), (0.0, 0.0)])
    found = read(written(tmp_path, [feature(ring) for ring in (*odd, *good, line)]))
    np.testing.assert_allclose(found.x_px0, [99.5 + 60 * i for i in range(9)], atol=1e-6)
    np.testing.assert_allclose(found.radius_um, 16 * MPP, atol=0.02)
    assert found.used.notes == (
        "1 of 13 outlines not used: smaller than 8 µm²",
        "1 of 13 outlines not used: larger than 250 µm²",
        "1 of 13 outlines not used: off the slide",
        "1 of 13 outlines not used: within 2 µm of a larger one",
        "passed over: 1 feature without area",
    )
    assert found.used.doubts == ("8 % of the outlines lie off the slide",)


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ("", "0 bytes"),
        ("{", "not JSON"),
        ("[" * 100_000, "nested too deep"),
        ("7", "expected a GeoJSON FeatureCollection"),
        ({"type": "FeatureCollection"}, "expected a GeoJSON FeatureCollection"),
        ([], "no outline of a nucleus or cell: it holds nothing"),
        ([feature(circle(9, 9, 9), "tile")], "it holds 1 tile"),
        ([feature(circle(100, 100, 200), "annotation")], "none of 1 outlines is of a nucleus's size"),
        ([feature(circle(100, 100, 16) * MPP)], "their median area is 3.1"),
        ([feature(circle(100, 1000, 16))], "1 of 1 outlines lie off the slide"),
        ([feature(circle(0, 0, 9)) | {"geometry": {"type": "Polygon"}}], "feature 0 cannot be read"),
        ([feature(np.array([(1e300, 0), (1, 1), (0, 1)]))], "expected level-0 pixels"),
        (
            '[{"type":"Feature","geometry":{"type":"Polygon","coordinates":[[[NaN,1],[2,3],[4,9]]]}}]',
            "level-0",
        ),
        (
            '[{"type":"Feature","geometry":{"type":"Polygon","coordinates":[["ab",[2,3],[4]]]}}]',
            "two numbers",
        ),
    ],
)
def test_geojson_that_cannot_be_used(tmp_path: Path, document: Any, words: str) -> None:
    uri = written(tmp_path, document)
    with pytest.raises(SlideError, match=words) as caught:
        read(uri)
    assert caught.value.reason is Reason.CELLS_INVALID
    assert uri in str(caught.value)


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        (np.zeros((700, 760), np.uint16), "no outline of a nucleus or cell: it holds nothing"),
        (np.ones((700, 760), np.uint16), "none of 1 outlines is of a nucleus's size"),
        (np.ones((600, 760), np.uint16), "600 x 760 pixels; expected those of the slide"),
        (np.ones((87, 95), np.uint16), "2 µm/px; at most 1"),
        (np.ones((2, 700, 760), np.uint16), "expected one"),
        (np.ones((700, 760), np.float32), "numbers of type float32"),
        (np.full((700, 760), -1, np.int32), "labels from -1 on; expected 0"),
    ],
)
def test_label_images_that_cannot_be_used(tmp_path: Path, labels: npt.NDArray[Any], words: str) -> None:
    with pytest.raises(SlideError, match=words) as caught:
        read(labelled(tmp_path, labels))
    assert caught.value.reason is Reason.CELLS_INVALID


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_an_ome_zarr_label_gives_the_bits_of_a_tiff(tmp_path: Path, version: str) -> None:
    """Nuclei across the edges of chunks and tiles, numbers of any size, and one that comes in two places."""
    rings = planted_nuclei(SPEC)
    labels = drawn(rings, 700, 760)
    labels[labels > 0] = labels[labels > 0] * 7919 % 2**31 + 5
    labels[40:50, 40:50] = labels[600:610, 700:710] = 7  # 140 µm apart: two nuclei, or none
    by_tiff = read(labelled(tmp_path, labels))
    uri = zarr_label(tmp_path, labels, version, smaller=(2, 4))
    assert len(by_tiff.y_px0) > 0.9 * len(rings)
    assert by_tiff.used.notes[-1] == "passed over: 1 number in pieces apart"
    image = str(tmp_path / "image.zarr")
    for address in (uri, f"{uri}/", image, f"{image}/labels"):
        found = read(address)
        for mine, theirs in zip(found[:3], by_tiff[:3], strict=True):
            np.testing.assert_array_equal(mine, theirs)
        assert (found.used.count, found.used.notes) == (by_tiff.used.count, by_tiff.used.notes)
        assert outlines_identity(address) == outlines_identity(uri)


def test_tiles_of_any_size_give_the_same_outlines() -> None:
    labels = drawn(planted_nuclei(SPEC), 700, 760)
    whole = collect("x", partial(cut_tiles, labels, 1000), 1, MPP, 250.0)
    cut_up = collect("x", partial(cut_tiles, labels, 33), 1, MPP, 250.0)
    assert (whole.y, whole.x, whole.area) == (cut_up.y, cut_up.x, cut_up.area)
    np.testing.assert_array_equal(whole.radius, cut_up.radius)
    numbers, counts = np.unique(labels[labels > 0], return_counts=True)
    assert len(numbers) == len(whole.area)
    np.testing.assert_array_equal(whole.area, counts)
    y, x = np.nonzero(labels == numbers[9])
    assert (whole.y[9], whole.x[9]) == pytest.approx((y.mean() + 0.5, x.mean() + 0.5), abs=1e-9)


def test_the_finest_level_that_states_its_size_is_read(tmp_path: Path) -> None:
    """Here the second, half the size: a writer that did not know the first one's states none."""
    labels = drawn([circle(100.0, 200.0, 16.0)], 700, 760)
    uri = zarr_label(tmp_path, labels, smaller=(2,))
    group = zarr.open_group(uri, mode="a")
    about: Any = group.attrs["ome"]
    del about["multiscales"][0]["datasets"][0]["coordinateTransformations"]
    group.attrs["ome"] = about
    half = read(labelled(tmp_path, labels[::2, ::2]))
    np.testing.assert_array_equal(read(uri).radius_um, half.radius_um)
    unknown = zarr_label(tmp_path / "none", labels, um=None)  # no level states one: the finest
    np.testing.assert_array_equal(read(unknown).radius_um, read(labelled(tmp_path, labels)).radius_um)
    tczyx = zarr_label(tmp_path / "axes", labels[None, None], axes="czyx")
    np.testing.assert_array_equal(read(tczyx).radius_um, read(labelled(tmp_path, labels)).radius_um)


def test_a_label_in_a_bucket(tmp_path: Path, faulty_s3: tuple[Bucket, FaultProxy]) -> None:
    """By its own address and by its image's; another chunk is another identity."""
    labels = drawn([circle(100.0 + 60 * i, 349.0, 16.0) for i in range(6)], 700, 760)
    here = zarr_label(tmp_path, labels, chunks=350)
    bucket = Store(faulty_s3[0].uri)
    bucket.write_many(
        {f"a/{p.relative_to(tmp_path)}": p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    )
    image = f"{faulty_s3[0].uri}/a/image.zarr"
    check_outlines(image)
    for address in (image, f"{image}/labels/nuclei"):
        found = read(address)
        for mine, local in zip(found[:3], read(here)[:3], strict=True):
            np.testing.assert_array_equal(mine, local)
    before = outlines_identity(image)
    assert before == outlines_identity(f"{image}/labels/nuclei")
    bucket.write_bytes("a/image.zarr/labels/nuclei/0/c/0/0", b"another")
    assert outlines_identity(image) != before
    with pytest.raises(SlideError, match="nothing of these lies there"):
        check_outlines(f"{faulty_s3[0].uri}/a/other")


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ({"labels": np.ones((700, 760), np.float32)}, "numbers of type float32"),
        ({"labels": np.ones((2, 700, 760), np.uint16), "axes": "cyx"}, "expected one .y, x. plane of nuclei"),
        ({"labels": np.ones((600, 760), np.uint16)}, "600 x 760 pixels; expected those of the slide"),
        ({"um": 0.5}, "states 0.5 µm/px along y, where its size beside the slide's implies 0.25"),
        ({"labels": np.ones((87, 95), np.uint16), "um": 2.0}, "2 µm/px; at most 1"),
        ({"labels": np.full((700, 760), -3, np.int16)}, "labels from -3 on"),
        ({"labels": np.zeros((700, 760), np.uint8)}, "it holds nothing"),
        ({"version": "0.3"}, "version 0.3; read are 0.4 and 0.5"),
    ],
)
def test_ome_zarr_labels_that_cannot_be_used(tmp_path: Path, how: dict[str, Any], words: str) -> None:
    ones = np.ones((700, 760), np.uint16)
    uri = zarr_label(tmp_path, **{"labels": ones, **how})
    with pytest.raises(SlideError, match=words) as caught:
        read(uri)
    assert caught.value.reason is Reason.CELLS_INVALID
    assert caught.value.message.startswith(f"outlines of cells {uri}: ")


def test_an_address_that_means_no_label_or_several(tmp_path: Path) -> None:
    labels = drawn([circle(100.0, 200.0, 16.0)], 700, 760)
    zarr_label(tmp_path, labels)
    zarr_label(tmp_path, labels, name="cells")
    image = f"{tmp_path}/image.zarr"
    with pytest.raises(SlideError, match=rf"holds 2 labels \(.*\); name one, as {image}/labels/NAME"):
        check_outlines(image)
    zarr.open_group(f"{tmp_path}/bare.zarr", mode="w")
    with pytest.raises(SlideError, match=r"without labels\. Name a label, as IMAGE\.zarr/labels/NAME"):
        check_outlines(f"{tmp_path}/bare.zarr")
    (tmp_path / "bad.zarr").mkdir()
    (tmp_path / "bad.zarr" / "zarr.json").write_text("{")
    with pytest.raises(SlideError, match="metadata cannot be read") as caught:
        check_outlines(f"{tmp_path}/bad.zarr")
    assert caught.value.reason is Reason.CELLS_INVALID
    uri = zarr_label(tmp_path / "cut", labels, chunks=350)
    chunk = next(path for path in (Path(uri) / "0" / "c").rglob("*") if path.is_file())
    chunk.write_bytes(b"no chunk")
    with pytest.raises(SlideError, match="cannot be decoded"):
        read(uri)


def test_files_that_cannot_be_used(tmp_path: Path) -> None:
    for name, text, words in (
        ("cells.csv", "x,y", "expected .geojson or .json of QuPath, a label image as .tif, or an OME-Zarr"),
        ("no.tif", "no picture", "cannot be read as TIFF"),
    ):
        (tmp_path / name).write_text(text)
        with pytest.raises(SlideError, match=words):
            read(str(tmp_path / name))
    whole = Path(labelled(tmp_path, drawn([circle(100, 100, 16)], 700, 760))).read_bytes()
    (tmp_path / "cut.tif").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(SlideError, match="cannot be read as TIFF"):
        read(str(tmp_path / "cut.tif"))
    row = SlideRow(
        "s", "c", str(tmp_path / "s.tif"), Assay.IHC, mpp=MPP, cells_uri=str(tmp_path / "gone.tif")
    )
    pixels = np.full((300, 400, 3), 240, np.uint8)
    tifffile.imwrite(tmp_path / "s.tif", pixels, photometric="rgb", metadata=None)
    with pytest.raises(SlideError, match=r"no such file. Correct cells_uri in the manifest"):
        prepare.inspect(row, Scratch(str(tmp_path), 1), None, prepare.RoiParams())


# --- the kernel ---------------------------------------------------------------------------------------


def test_outlines_on_the_grid_keep_their_place_and_turn_no_sharper_than_ours() -> None:
    spiky = np.full((1, N_RAYS), 3.0, np.float32)
    spiky[0, 5] = 30.0
    given = Given(np.array([10.5]), np.array([21.0]), spiky)
    found = given.on_grid(2, 0.5, 3, 18)
    assert (found.y[0], found.x[0]) == (5, 10)
    assert np.abs(np.diff(found.path[0], append=found.path[0, 0])).max() <= MAX_BEND
    assert found.path[0, 5] == min(found.path[0, 4], found.path[0, 6]) + MAX_BEND > 6
    hollow = Given(np.array([10.5]), np.array([21.0]), np.zeros((1, N_RAYS), np.float32))
    assert (hollow.on_grid(2, 0.5, 3, 18).path == 3).all()


@pytest.mark.parametrize("stored", ["geojson", "label"])
def test_membranes_of_given_nuclei_are_those_of_our_own(
    field: npt.NDArray[np.uint8], tmp_path: Path, stored: str
) -> None:
    """Every nucleus that was given is a cell in its place; its membrane reads as around our own."""
    rings = planted_nuclei(SPEC)
    if stored == "geojson":
        uri = written(tmp_path, collection([feature(ring) for ring in rings]))
    else:
        uri = labelled(tmp_path, drawn(rings, *field.shape[:2]))
    found = read(uri)
    kernel = IHCKernel(PARAMS, profiled(field, MPP), MPP)
    core = Box(0, 0, *field.shape[:2])
    around = core.grown(kernel.halo_px)
    rgb = cut(field, around)
    own = kernel(rgb, (around.y0, around.x0), core)
    given = Given(found.y_px0, found.x_px0, found.radius_um)
    cells, lines = kernel.outline(rgb, (around.y0, around.x0), core, given)
    assert len(cells) == found.used.count
    assert set(cells["seed_source"]) == {2}
    at = np.stack([cells["y_px0"], cells["x_px0"]], axis=1)
    match = pairs(at, np.stack([found.y_px0, found.x_px0], axis=1), 2.0)
    assert len(match) == len(cells)
    off = np.abs(at[match[:, 0]] - np.stack([found.y_px0, found.x_px0], axis=1)[match[:, 1]])
    assert np.median(off) < 0.4
    assert np.median(np.abs(lines.nucleus_um[match[:, 0]] - found.radius_um[match[:, 1]])) < 0.3
    both = pairs(at, np.stack([own["y_px0"], own["x_px0"]], axis=1), 8.0)
    assert len(both) > 0.9 * len(own)
    for name, close in (("membrane_od_mean", 0.02), ("completeness_01", 0.06)):
        difference = np.abs(cells[name][both[:, 0]] - own[name][both[:, 1]])
        assert difference.mean() < close


# --- a slide ------------------------------------------------------------------------------------------


def test_any_cut_gives_the_same_cells_on_given_nuclei(field: npt.NDArray[np.uint8], tmp_path: Path) -> None:
    rings = planted_nuclei(SPEC)
    uri = written(tmp_path, collection([feature(ring) for ring in rings]))
    row = SlideRow("s1", "c1", "memory", Assay.IHC, cells_uri="file-9")
    tables = []
    for name, params, lines in (
        ("one", PyramidParams(chunk=1024, shard=1024), None),
        ("many", PyramidParams(chunk=64, shard=256), chain.at_lines([222, 223, 401], [99, 350, 611])),
    ):
        reader = chain.memory_slide(field, MPP)
        more = {} if lines is None else {"cut": lines}
        _, table, finished = chain.score(reader, tmp_path / name, params, row=row, cells_uri=uri, **more)
        tables.append(table)
    assert tables[0].equals(tables[1])
    assert set(tables[0]["seed_source"].to_pylist()) == {"given"}
    assert 0.9 * len(rings) < len(tables[0]) <= len(rings)
    made = slide_row(finished.outcome, ScoreParams(), PARAMS.ladder_od)
    assert (made["cells_source"], made["cells_notes"]) == ("file-9", [])
    assert made["cells_given"] >= len(tables[0])
    assert made["cells_digest"].startswith(f"{Path(uri).stat().st_size}-")
    pictured = json.loads(next((tmp_path / "one" / "pictures").glob("*.geojson")).read_text())
    centres = [shapely.Polygon(f["nucleusGeometry"]["coordinates"][0]).centroid for f in pictured["features"]]
    places = np.stack([tables[0]["y_px0"].to_numpy(), tables[0]["x_px0"].to_numpy()], axis=1)
    drawn_at = np.array([(point.y - 0.5, point.x - 0.5) for point in centres])
    assert len(pairs(drawn_at, places, 1.5)) == len(drawn_at) > 0
