"""The answer does not depend on the layout: the promise that everything else rests on."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from her2core.params import PyramidParams
from her2core.phantom import ISHSpec, PhantomSpec, Population, plant_ish, render_field, render_ish
from her2core.profile.tissue import TissueMask
from her2core.records import Assay, Box, SlideProfile
from tests.helpers import chain

SPEC = PhantomSpec(
    seed=11,
    height_px=1100,
    width_px=1250,
    mix=(0.3, 0.2, 0.1, 0.2, 0.2),
    pattern="mosaic",
    islands=((0.5, 0.5, 0.47, 0.47),),
)
COMMON = settings(
    max_examples=6,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    phases=[Phase.explicit, Phase.generate],  # an example takes seconds: no shrinking
    derandomize=True,
)


HETEROGENEOUS = (Population(0.6, 2.0, 2.0), Population(0.4, 9.0, 2.5, clustered=True))


@dataclass(frozen=True)
class Slide:
    """A slide in memory, and its answer in one piece: one chunk, one shard, one work unit."""

    assay: Assay
    pixels: np.ndarray
    mpp: float
    profile: SlideProfile
    table: pa.Table

    def score(self, folder: Path, params: PyramidParams, **how: Any) -> tuple[SlideProfile, pa.Table]:
        reader = chain.memory_slide(self.pixels, self.mpp)
        return chain.score(reader, folder, params, assay=self.assay, **how)[:2]


@pytest.fixture(scope="module", params=list(Assay))
def slide(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Slide:
    assay, mpp, least = request.param, 0.25, 150
    if assay == Assay.IHC:
        pixels = render_field(SPEC)[0]
    else:
        mpp, least = 0.12, 30
        spec = ISHSpec(assay.removeprefix("HER2-"), 5, 1100, 1250, mpp, HETEROGENEOUS, overlapping=0.2)
        pixels = render_ish(plant_ish(spec), Box(0, 0, 1100, 1250))
    params = PyramidParams(chunk=2048, shard=2048)
    folder = tmp_path_factory.mktemp("whole")
    profile, table, _ = chain.score(chain.memory_slide(pixels, mpp), folder, params, assay=assay)
    assert len(table) > least
    return Slide(assay, pixels, mpp, profile, table)


@COMMON
@given(chunk=st.sampled_from([64, 128, 256]), ratio=st.sampled_from([1, 2, 4]), order=st.integers(0, 99))
def test_any_chunk_shard_and_order_gives_the_same_cells(
    slide: Slide, chunk: int, ratio: int, order: int
) -> None:
    params = PyramidParams(chunk=chunk, shard=chunk * max(ratio, 256 // chunk))
    with tempfile.TemporaryDirectory() as folder:
        profile, table = slide.score(Path(folder), params, order=order)
    assert (profile.stain, profile.quality) == (slide.profile.stain, slide.profile.quality)
    assert table.equals(slide.table)


@COMMON
@given(
    rows=st.lists(st.integers(1, 1099), max_size=3),
    columns=st.lists(st.integers(1, 1249), max_size=3),
    order=st.integers(0, 99),
)
def test_any_cut_into_work_units_gives_the_same_cells(
    slide: Slide, rows: list[int], columns: list[int], order: int
) -> None:
    cut = chain.at_lines(rows, columns)
    params = PyramidParams(chunk=256, shard=512)
    with tempfile.TemporaryDirectory() as folder:
        _, table = slide.score(Path(folder), params, order=order, cut=cut)
    assert table.equals(slide.table)


def test_a_slide_of_one_chunk_is_worked_on_below_its_coarsest_level(tmp_path: Path) -> None:
    """At 0.12 um/px cells are measured at level 1, which a slide that fits one chunk does not store."""
    spec = PhantomSpec(seed=2, height_px=480, width_px=500, mpp=0.12, mix=(0.0, 0.0, 0.0, 0.0, 1.0))
    reader = chain.memory_slide(render_field(spec)[0], 0.12)
    stored = chain.score(reader, tmp_path / "stored", PyramidParams(chunk=64, shard=128))[1]
    made = chain.score(reader, tmp_path / "made", PyramidParams(chunk=512, shard=512))[1]
    assert len(made) > 10
    assert made.equals(stored)


@pytest.mark.parametrize("where", ["centroid", "beside", "corner"])
def test_a_cell_on_a_seam_is_counted_once(slide: Slide, tmp_path: Path, where: str) -> None:
    """Seams through a cell's own centroid pixel, one pixel beside it, and a corner of four units in it."""
    centroids = slide.table.select(["y_px0", "x_px0"]).to_pylist()
    cell = min(centroids, key=lambda c: abs(c["y_px0"] - 550) + abs(c["x_px0"] - 625))
    y, x = int(np.ceil(cell["y_px0"])), int(np.ceil(cell["x_px0"]))
    rows, columns = {"centroid": ([y], []), "beside": ([y - 1, y + 1], []), "corner": ([y], [x])}[where]
    cut = chain.at_lines(rows, columns)
    _, table = slide.score(tmp_path, PyramidParams(chunk=256, shard=512), cut=cut)
    assert table.equals(slide.table)


def test_chunks_far_from_tissue_are_not_read_and_change_no_cell(
    slide: Slide, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tissue that ends amid cells. Of one chunk everything is read, of small ones only those near tissue."""
    mask = np.zeros((110, 125), np.uint8)
    mask[50:80, 60:100] = 1
    monkeypatch.setattr("her2core.stages.cells.read_tissue", lambda *asked: TissueMask(mask, 10))
    _, one = slide.score(tmp_path / "one", PyramidParams(chunk=2048, shard=2048))
    _, many = slide.score(tmp_path / "many", PyramidParams(chunk=32, shard=2048))
    assert 4 < len(one) < len(slide.table) / 3
    assert many.equals(one)


def test_a_real_core_gives_the_same_cells_regions_and_metrics(shared_data: Path, tmp_path: Path) -> None:
    path = min((shared_data / "ihc_cores").glob("2_*.jpg"))
    rgb = imagecodecs.imread(path)[1200:3700, 1500:4100]
    cells, regions, metrics = [], [], []
    for name, params in (
        ("one", PyramidParams(chunk=512, shard=4096)),
        ("many", PyramidParams(chunk=128, shard=512)),
    ):
        reader = chain.memory_slide(np.ascontiguousarray(rgb))
        _, table, finished = chain.score(reader, tmp_path / name, params, order=7)
        assert finished.regions is not None
        cells.append(table)
        regions.append(pq.read_table(tmp_path / name / "tables" / "regions" / finished.regions.path))
        metrics.append(finished.metrics)
    assert len(cells[0]) > 1000
    assert cells[0].equals(cells[1])
    assert set(regions[0]["scale_um"].to_pylist()) == {100.0, 250.0, 500.0}
    assert regions[0].equals(regions[1])
    assert metrics[0] == metrics[1]
    assert {metric.name for metric in metrics[0] if metric.status == "ok"} >= {
        "shannon",
        "eta2",
        "moran_i_od",
    }
