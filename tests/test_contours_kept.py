"""Outlines of all cells, kept as an option: exactly those that were measured, whatever the layout."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from her2core.errors import ConfigError, StoreError
from her2core.export.finished import FinishedRun, Selection
from her2core.export.qupath import export_qupath
from her2core.lake.schema import SLIDES
from her2core.lake.tables import commit_rows
from her2core.params import PyramidParams, ScoreParams
from her2core.phantom import PhantomSpec, render_field
from her2core.records import Box
from her2core.stages.contours import (
    CellOutlines,
    ContoursPart,
    ContoursRef,
    open_contours,
    outlines_by_part,
    outlines_within,
    read_part,
)
from her2core.storage.store import Store
from tests.helpers import chain
from tests.helpers.lakes import write_scored_run

SPEC = PhantomSpec(seed=11, height_px=620, width_px=700, mix=(0.3, 0.2, 0.1, 0.2, 0.2))
COLUMNS = ("ids", "start_px0", "nucleus_um", "contour_um", "dab_od", "evaluable")


@pytest.fixture(scope="module")
def field() -> npt.NDArray[np.uint8]:
    return render_field(SPEC)[0]


def same(one: CellOutlines, other: CellOutlines) -> bool:
    return all(np.array_equal(getattr(one, name), getattr(other, name)) for name in COLUMNS)


def everything(folder: Path) -> CellOutlines:
    store = Store(str(folder))
    return outlines_within(store, open_contours(store, "contours/k"), Box(0, 0, 10_000, 10_000))


def test_every_cell_of_the_table_has_its_outline_whatever_the_layout(
    field: npt.NDArray[np.uint8], tmp_path: Path
) -> None:
    found = []
    for name, params, cut in (
        ("one", PyramidParams(chunk=1024, shard=1024), tuple),
        ("many", PyramidParams(chunk=64, shard=256), chain.at_lines([222, 223, 401], [99, 350, 611])),
    ):
        reader = chain.memory_slide(field)
        _, table, finished = chain.score(reader, tmp_path / name, params, order=3, cut=cut, keep=True)
        assert finished.outcome.contours == "contours/k"
        kept = everything(tmp_path / name)
        assert kept.ids.tolist() == table["cell_id"].to_pylist()
        found.append((table, kept))
    (table, kept), (_, again) = found
    assert same(kept, again)
    corners = np.concatenate([kept.contour_px0, kept.contour_px0[:, :1]], axis=1)
    y, x = corners[..., 0], corners[..., 1]
    area = np.abs((x[:, :-1] * y[:, 1:] - x[:, 1:] * y[:, :-1]).sum(axis=1)) / 2 * kept.mpp**2
    np.testing.assert_allclose(area, table["cell_area_um2"].to_numpy(), rtol=0.03)
    assert (kept.dab_od[~kept.evaluable] == 0).all()
    stained = (kept.dab_od >= ScoreParams().detect_od).sum(axis=1) / np.maximum(kept.evaluable.sum(axis=1), 1)
    assert np.abs(stained - table["completeness"].to_numpy()).max() < 0.15  # which weighs rays by arc


def test_cells_are_the_same_bits_with_and_without(field: npt.NDArray[np.uint8], tmp_path: Path) -> None:
    """And a unit that was measured before outlines were kept is measured again, to the same rows."""
    params = PyramidParams(chunk=256, shard=256)
    tables = [
        chain.score(chain.memory_slide(field), tmp_path / "out", params, keep=keep)[1]
        for keep in (False, True)
    ]
    assert tables[0].equals(tables[1])
    assert len(everything(tmp_path / "out")) == len(tables[0])


def test_a_fine_scan_keeps_them_in_level_0_pixels(tmp_path: Path) -> None:
    """At 0.12 µm/px cells are measured at level 1."""
    spec = PhantomSpec(seed=2, height_px=480, width_px=500, mpp=0.12, mix=(0.0, 0.0, 0.0, 0.0, 1.0))
    reader = chain.memory_slide(render_field(spec)[0], 0.12)
    table = chain.score(reader, tmp_path, PyramidParams(chunk=128, shard=256), keep=True)[1]
    kept = everything(tmp_path)
    assert kept.ids.tolist() == table["cell_id"].to_pylist()
    middle = kept.nucleus_px0.mean(axis=1)
    place = np.stack([table["y_px0"].to_numpy(), table["x_px0"].to_numpy()], axis=1) + 0.5
    assert np.abs(middle - place).max() < 4.5 / 0.12
    assert np.median(np.abs(middle - place)) < 3


def test_a_box_takes_the_cells_whose_centroid_it_holds(field: npt.NDArray[np.uint8], tmp_path: Path) -> None:
    params = PyramidParams(chunk=64, shard=128)
    table = chain.score(chain.memory_slide(field), tmp_path, params, keep=True)[1]
    store = Store(str(tmp_path))
    ref = open_contours(store, "contours/k")
    assert len(ref.parts) > 4
    box = Box(150, 190, 420, 600)
    y, x = table["y_px0"].to_numpy() + 0.5, table["x_px0"].to_numpy() + 0.5
    inside = (y >= 150) & (y < 420) & (x >= 190) & (x < 600)
    found = outlines_within(store, ref, box)
    assert found.ids.tolist() == table["cell_id"].to_numpy()[inside].tolist()
    near = ContoursRef(tuple(part for part in ref.parts if part.box.y0 < 420 and part.box.y1 > 150))
    assert same(outlines_within(store, near, box), found)  # files elsewhere are not wanted
    assert sum(len(part) for part in outlines_by_part(store, ref)) == len(table)
    assert len(outlines_within(store, ref, Box(-90, 0, 0, 900))) == 0


def test_what_is_gone_or_damaged_is_named(field: npt.NDArray[np.uint8], tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    with pytest.raises(StoreError, match="gone; run again to make the outlines"):
        open_contours(store, "contours/k")
    store.write_bytes("stages/contours/k.json", b'{"other": 1}')
    with pytest.raises(StoreError, match="of another version"):
        open_contours(store, "contours/k")
    part = ContoursPart("contours/k/0.parquet", Box(0, 0, 9, 9))
    with pytest.raises(StoreError, match="cannot be read"):
        read_part(store, part)
    pq.write_table(pa.table({"cell_id": [1]}), tmp_path / "x.parquet")
    store.write_file(part.path, tmp_path / "x.parquet")
    with pytest.raises(StoreError, match="cannot be read"):
        read_part(store, part)


def test_exports_take_the_stored_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are the same as those that are outlined again, and need no pyramid, also on given nuclei."""
    run = FinishedRun(Store(write_scored_run(tmp_path / "run", keep=True)))
    [slide] = run.slides
    assert slide["contours"] == "contours/k"
    out = Store(tmp_path / "stored")
    export_qupath(run, out, Selection(), contours=True)
    stored = json.loads(out.read_bytes("s1.geojson"))

    def exported(**changed: Any) -> Any:
        commit_rows(run.store, SLIDES, [slide | changed])
        export_qupath(FinishedRun(run.store), Store(tmp_path / "again"), Selection(), contours=True)
        return json.loads((tmp_path / "again" / "s1.geojson").read_bytes())

    assert exported(contours=None) == stored
    assert all("nucleusGeometry" in feature for feature in stored["features"])
    assert exported(cells_source="given.geojson") == stored
    kinds = {f["properties"]["objectType"] for f in exported(cells_source="x", contours=None)["features"]}
    assert kinds == {"detection"}
    ref = open_contours(run.store, "contours/k")
    first = pq.read_table(Path(run.store.root) / ref.parts[0].path)
    pq.write_table(first.slice(1), Path(run.store.root) / ref.parts[0].path)
    with pytest.raises(ConfigError, match="not found again: 1 cell of the table"):
        exported()
