"""Regions and cohort cubes on the store: opened lazily, by plain xarray too, as they were written."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from zarr.storage import MemoryStore, ZipStore

from her2core.errors import StoreError
from her2core.guidelines.rules_ihc import load_rules
from her2core.heterogeneity.dataset import map_of, to_map
from her2core.heterogeneity.metrics import insufficient, measured
from her2core.heterogeneity.regions import Regions, regions_of_cells
from her2core.lake import cube as cube_module
from her2core.lake.cube import (
    cohort_cube,
    open_cohort_cube,
    open_regions,
    write_cube_of_table,
    write_regions,
)
from her2core.lake.rows_metrics import metric_rows
from her2core.lake.schema import HETEROGENEITY
from her2core.lake.tables import commit_rows
from her2core.records import Assay, SlideRow
from her2core.scoring.ihc import MeasuredCells
from her2core.storage.store import Store
from tests.conftest import Bucket

RULES = load_rules("breast_asco_cap_2018")


def sweep(n: int = 400) -> tuple[Regions, ...]:
    random = np.random.default_rng(7)
    y, x = random.uniform(0, 900, (2, n))
    od = random.uniform(0, 1, n).astype(np.float32)
    yes = np.ones(n, np.bool_)
    cells = MeasuredCells(y, x, od, od, od, od, yes, yes, np.ones_like(od), od)
    classes = random.integers(0, 5, n).astype(np.int8)
    return tuple(regions_of_cells(cells, classes, size, RULES, 20) for size in (100.0, 250.0))


def rows() -> list[dict[str, Any]]:
    first = SlideRow(slide_id="a", case_id="case 1", uri="a.tif", assay=Assay.IHC)
    second = SlideRow(slide_id="longer name", case_id="case 2", uri="b.tif", assay=Assay.IHC)
    few = insufficient("moran_i_od", 12, scale_um=250.0)
    found = [measured("shannon", 0.5, 900, interval=(0.4, 0.6)), few]
    more = [measured("moran_i_od", 0.0, 40, scale_um=250.0), measured("moran_i_od", None, 80, scale_um=100.0)]
    return [*metric_rows(second, more), *metric_rows(first, found)]


def written(store: Store) -> None:
    commit_rows(store, HETEROGENEITY, rows())
    write(store)


def write(store: Store) -> None:
    assert write_regions(store, "key", sweep(), "slide 1") == "regions/key.zarr.zip"
    assert write_cube_of_table(store, "run-1", ["a", "longer name"]) == "cubes/run-1"


def test_regions_come_back_from_a_folder_as_they_were_and_lazily(tmp_path: Path) -> None:
    written(Store(tmp_path))
    for regions in sweep():
        opened = open_regions(str(tmp_path / "regions/key"), regions.grid.size_um)
        assert all(opened[name].chunks is not None for name in opened.data_vars)
        xr.testing.assert_identical(opened.load(), to_map(regions).assign_attrs(slide_id="slide 1"))
    assert opened["membrane_od_mean"].attrs["units"] == "OD"
    assert opened["y_um"].attrs["units"] == "micrometer"


def test_plain_xarray_opens_them_without_a_warning(tmp_path: Path) -> None:
    written(Store(tmp_path))
    zipped = ZipStore(tmp_path / "regions/key.zarr.zip", mode="r")
    plain = xr.open_zarr(zipped, group="250")
    assert int(plain["n"].sum()) == 400
    tree = xr.open_datatree(zipped, engine="zarr")  # type: ignore[arg-type]
    assert set(tree.children) == {"100", "250"}
    assert xr.open_zarr(tmp_path / "cubes/run-1").sizes == {"slide": 2, "metric": 2, "scale_um": 3}


def test_the_cube_says_every_value_and_why_others_are_not_there(tmp_path: Path) -> None:
    written(Store(tmp_path))
    cube = open_cohort_cube(str(tmp_path / "cubes/run-1"))
    assert cube["value"].chunks is not None
    assert cube.attrs["run_id"] == "run-1"
    assert cube["scale_um"].values.tolist() == [0.0, 100.0, 250.0]
    cube = cube.load()
    assert cube["case_id"].sel(slide="longer name").item() == "case 2"
    one = cube.sel(slide="a", metric="shannon", scale_um=0.0)
    assert [one[name].item() for name in ("value", "low", "high", "n", "status")] == [0.5, 0.4, 0.6, 900, 0]
    moran = cube.sel(metric="moran_i_od")
    assert moran["status"].values.tolist() == [[-1, -1, 1], [-1, 2, 0]]
    assert moran["n"].values.tolist() == [[0, 0, 12], [0, 80, 40]]
    assert moran["value"].sel(slide="longer name", scale_um=250.0).item() == 0.0
    assert int(np.isfinite(moran["value"]).sum()) == 1
    assert cube["status"].dtype == np.int8
    names = cube["status"].attrs["flag_meanings"].split()
    assert dict(zip(names, cube["status"].attrs["flag_values"], strict=True))["insufficient"] == 1


def test_both_open_from_s3(s3: Bucket) -> None:
    store = Store(f"{s3.uri}/out")
    written(store)
    opened = open_regions(store.uri("regions/key"), 100.0, {"endpoint_url": s3.endpoint_url})
    xr.testing.assert_identical(opened.load(), to_map(sweep()[0]).assign_attrs(slide_id="slide 1"))
    cube = open_cohort_cube(store.uri("cubes/run-1"), {"endpoint_url": s3.endpoint_url})
    xr.testing.assert_identical(cube.load(), cohort_cube(rows()).assign_attrs(run_id="run-1"))
    plain = xr.open_zarr(
        store.uri("cubes/run-1"), storage_options={"client_kwargs": {"endpoint_url": s3.endpoint_url}}
    )
    assert plain["n"].sel(slide="a", metric="shannon", scale_um=0).compute().item() == 900


def test_writing_again_changes_no_byte(tmp_path: Path) -> None:
    def all_bytes(root: Path) -> dict[str, bytes]:
        found = (p for folder in ("regions", "cubes") for p in (root / folder).rglob("*") if p.is_file())
        return {str(p.relative_to(root)): p.read_bytes() for p in found}

    for name in ("one", "two"):
        written(Store(tmp_path / name))
    assert len(all_bytes(tmp_path / "one")) > 2
    assert all_bytes(tmp_path / "one") == all_bytes(tmp_path / "two")


def test_the_root_is_written_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths: list[str] = []
    commit_rows(Store(tmp_path), HETEROGENEITY, rows())
    monkeypatch.setattr(Store, "write_bytes", lambda self, path, data: paths.append(path))
    write(Store(tmp_path))
    assert paths[0] == "regions/key.zarr.zip"
    cube = [path for path in paths if path.startswith("cubes/")]
    assert cube[-1] == "cubes/run-1/zarr.json"
    kinds = [path.endswith("zarr.json") for path in cube]
    assert kinds == sorted(kinds)


@pytest.mark.parametrize("n", [400, 3])
def test_regions_are_the_objects_that_xarray_writes(n: int) -> None:
    maps = {f"{each.grid.size_um:g}": to_map(each).assign_attrs(slide_id="s") for each in sweep(n)}
    objects: dict[str, Any] = {}
    for name, each in maps.items():
        whole = {v: {"chunks": each[v].shape} for v in each.variables}
        each.to_zarr(
            MemoryStore(objects), group=name, mode="a", zarr_format=3, consolidated=False, encoding=whole
        )
    plain = {f"{each.grid.size_um:g}": map_of(each) for each in sweep(n)}
    ours = cube_module._encoded(plain, {"slide_id": "s"})
    theirs = cube_module._consolidated({name: body.to_bytes() for name, body in objects.items()})
    assert ours.keys() == theirs.keys()
    arrays, chunks = ([name for name in ours if part in name] for part in ("/zarr.json", "/c/"))
    assert (len(arrays) - len(maps) > len(chunks)) == (n == 3)  # empty chunks are left out
    for name, body in ours.items():
        same = json.loads if name.endswith(".json") else bytes
        assert same(body) == same(theirs[name]), name


def test_regions_that_earlier_versions_wrote_as_a_folder_open_as_well(tmp_path: Path) -> None:
    written(Store(tmp_path))
    with zipfile.ZipFile(tmp_path / "regions/key.zarr.zip") as archive:
        archive.extractall(tmp_path / "regions/old")
    new, old = (open_regions(str(tmp_path / f"regions/{name}"), 250.0).load() for name in ("key", "old"))
    xr.testing.assert_identical(new, old)


def test_nothing_is_written_of_nothing_and_nothing_opens_where_nothing_is(tmp_path: Path) -> None:
    store = Store(tmp_path)
    assert write_regions(store, "key", sweep(0), "slide 1") is None
    assert write_cube_of_table(store, "run-1", []) is None
    assert store.list() == []
    written(store)
    with pytest.raises(StoreError, match="group 123 of"):
        open_regions(str(tmp_path / "regions/key"), 123.0)
    with pytest.raises(StoreError, match="no Zarr group"):
        open_cohort_cube(str(tmp_path / "cubes/other"))


def test_one_place_holds_one_row() -> None:
    with pytest.raises(ValueError, match="two rows"):
        cohort_cube([*rows(), rows()[0]])


def test_a_cube_written_chunk_by_chunk_is_the_cube_of_all_its_slides(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a table in two files, with a slide that is not asked for and one that has no metrics."""
    store, names = Store(tmp_path), [f"s{number}" for number in (4, 0, 3, 1, 2)]
    rows_of = [SlideRow(name, f"c {name}", "x", Assay.IHC) for name in names]
    each = {row.slide_id: metric_rows(row, _some(at)) for at, row in enumerate(rows_of)}
    for some in (names[:3], names[3:]):
        commit_rows(store, HETEROGENEITY, [row for name in some for row in each[name]])
    monkeypatch.setattr(cube_module, "SLIDES_CHUNK", 2)
    asked = [name for name in names if name != "s4"]
    assert write_cube_of_table(store, "run", [*asked, "nothing"]) == "cubes/run"
    found = open_cohort_cube(store.uri("cubes/run"))
    assert found["value"].chunks[0] == (2, 2)
    expected = cohort_cube([row for name in asked for row in each[name]]).assign_attrs(run_id="run")
    xr.testing.assert_identical(found.load(), expected)
    assert write_cube_of_table(store, "other", ["nothing"]) is None


def _some(number: int) -> list[Any]:
    """Metrics that not every slide has."""
    own = measured(f"metric {number}", float(number), 5, scale_um=100.0 * number)
    return [measured("shannon", number / 10, 900, interval=(0.0, 1.0)), own]
