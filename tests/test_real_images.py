"""Real slides: seven HER2 IHC cores as one cohort, and whole-slide files.

Separating positive from negative cores proves little (a crude threshold on brown does it too); what is held
here is that the chain runs on real pixels, finds the cells, and puts the cores in the right order.
"""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import xarray as xr

from her2core.errors import Reason, SlideError
from her2core.intake.inspect import inspect_slide, require_scorable
from her2core.params import PyramidParams
from her2core.pyramid.dataset import open_level
from her2core.pyramid.writer import convert, finalise, grid_of, write_shards, write_top
from her2core.readers import open_slide
from her2core.records import Assay
from her2core.storage.store import Store
from tests.helpers import cohorts

EXPRESSION = ("p3_pct", "p2_pct", "p_any_pct", "h_score", "membrane_od_mean", "completeness_mean")


@pytest.fixture(scope="module")
def cores(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[dict[str, object]]]:
    """Slide rows of the seven cores, by ``3+``, ``2+ positive`` and ``negative``."""
    folder = tmp_path_factory.mktemp("cores")
    with (shared_data / "ihc_cores" / "labels.csv").open(newline="") as file:
        labels = list(csv.DictReader(file))
    with (folder / "manifest.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["slide_id", "case_id", "uri", "assay", "mpp", "reader_score"])
        for row in labels:
            uri = shared_data / "ihc_cores" / row["file"]
            table.writerow([uri.stem, uri.stem, uri, "HER2-IHC", "0.25", row["ihc_score"]])
    (folder / "config.yaml").write_text("score: {rules: gastric_resection}\nrun: {workers: 2}\n")
    out = folder / "out"
    done = cohorts.her2(
        "run", str(folder / "manifest.csv"), "--out", str(out), "-c", str(folder / "config.yaml")
    )
    assert done.returncode == 0, done.stderr
    rows = {row["slide_id"]: row for row in pl.read_delta(f"{out}/tables/slides").to_dicts()}
    groups: dict[str, list[dict[str, object]]] = {"3+": [], "2+ positive": [], "negative": []}
    for row in labels:
        kind = "negative" if row["her2_status"] == "negative" else row["ihc_score"]
        groups[kind if kind in groups else "2+ positive"].append(rows[Path(row["file"]).stem])
    assert [len(group) for group in groups.values()] == [1, 2, 4]
    return groups


@pytest.mark.timeout(600)
@pytest.mark.parametrize("measure", EXPRESSION)
def test_cores_stand_in_order(cores: dict[str, list[dict[str, object]]], measure: str) -> None:
    """The 3+ core above all others, the two positive 2+ cores above all negative ones."""
    strong, positive, negative = (np.array([row[measure] for row in group]) for group in cores.values())
    assert strong.min() > positive.max()
    assert positive.min() > negative.max()


def test_thousands_of_cells_are_found_on_every_core(cores: dict[str, list[dict[str, object]]]) -> None:
    """On these cores QuPath's defaults find 26 to 4600 cells, where several thousand are to be seen.

    Fewest lie in 2_726f, which is fibrous: 28 certain and 88 uncertain marks in its four fields, which makes
    1 200 to 5 000 in all of it.
    """
    for row in (row for group in cores.values() for row in group):
        if not str(row["slide_id"]).startswith("2_726f"):  # fibrous, with hardly any tumour in it
            assert row["state"] == "scored"
        assert 2000 < int(str(row["n_cells"])) < 20_000


def test_scores_of_the_clear_cores(cores: dict[str, list[dict[str, object]]]) -> None:
    (strong,) = cores["3+"]
    assert strong["score"] == "3+"
    assert {row["score"] for row in cores["2+ positive"]} == {"2+"}


def test_a_whole_slide_file_converts_and_opens(shared_data: Path, tmp_path: Path) -> None:
    store, params = Store(tmp_path), PyramidParams()
    with open_slide(shared_data / "wsi" / "cmu-1-small-region.svs") as reader:
        info = reader.info
        grid = grid_of(info.height, info.width, params)
        for task in grid.tasks():
            write_shards(reader, store, "p", grid, params, [task])
        source = np.empty((64, 64, 3), np.uint8)
        reader.read_region(1000, 800, source)
    write_top(store, "p", grid, params)
    finalise(store, "p", grid, params, identity=info.identity, mpp=info.mpp or 0)
    level = open_level(store.uri("p"), 0)
    assert isinstance(level, xr.DataArray)
    assert level.shape == (3, info.height, info.width)
    assert float(level.y[1] - level.y[0]) == pytest.approx(0.499)
    stored = level[:, 1000:1064, 800:864].transpose("y", "x", "c").to_numpy()
    assert np.array_equal(stored, source)


@pytest.mark.parametrize(
    ("name", "codec"),
    [
        ("cmu-1-small-region.svs", "source-jpeg-240"),
        ("tcga-cr-7395-01a-01-ts1.svs", "source-jpeg2000-256"),
    ],
)
def test_a_pyramid_of_a_real_slides_tiles_is_no_larger_than_the_slide(
    name: str, codec: str, shared_data: Path, tmp_path: Path
) -> None:
    store, path = Store(tmp_path), shared_data / "wsi" / name
    with open_slide(path, mpp=0.499) as reader:
        ref = convert(reader, store, "p", PyramidParams(), mpp=0.499)
        source = np.empty((700, 900, 3), np.uint8)
        reader.read_region(1000, 800, source)
    assert (ref.codec, ref.tiles_encoded) == (codec, 0)
    assert ref.bytes_written < path.stat().st_size
    stored = open_level(store.uri("p"), 0)[:, 1000:1700, 800:1700].transpose("y", "x", "c").to_numpy()
    assert np.array_equal(stored, source)


def test_what_cannot_be_scored_is_refused_in_words(shared_data: Path) -> None:
    with pytest.raises(SlideError, match=r"broken\.svs") as broken:
        inspect_slide(shared_data / "wsi" / "broken.svs")
    assert broken.value.reason == Reason.NOT_A_SLIDE
    info = inspect_slide(shared_data / "wsi" / "tcga-cr-7395-01a-01-ts1.svs")
    with pytest.raises(SlideError, match="mpp") as unscaled:
        require_scorable(info, Assay.IHC)
    assert unscaled.value.reason == Reason.SCALE_UNKNOWN
