"""Lake tables: one commit, replaced and never doubled, and read by Polars and DuckDB without our code."""

from __future__ import annotations

import dataclasses
import json
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable, Field, QueryBuilder
from deltalake.schema import PrimitiveType
from pydantic import TypeAdapter

from her2core.cases.specimens import SlideOutcome, score_cases
from her2core.columns import CELL_DTYPE
from her2core.errors import StoreError
from her2core.guidelines.rules_ihc import CellClass, load_rules, stratum
from her2core.lake import slide_files
from her2core.lake import tables as lake
from her2core.lake.batches import SlideTable, commit_files
from her2core.lake.finished import finished_batches, finished_rows
from her2core.lake.rows import RunRecord, case_row, run_row, slide_row
from her2core.lake.rows_cells import cell_ids, cell_places, cell_rows, classes_of
from her2core.lake.schema import CASES, CELLS, HETEROGENEITY, RUNS, SLIDES, Column, Table
from her2core.lake.slide_files import DataFile, write_slide_file
from her2core.lake.tables import check_tables, commit_rows, kept_open, make_tables, open_table, read_rows
from her2core.params import IHCParams, ScoreParams
from her2core.records import (
    Assay,
    LevelInfo,
    PyramidRef,
    Quality,
    SlideInfo,
    SlideProfile,
    SlideRow,
    SlideState,
    StainProfile,
)
from her2core.scoring.ihc import MeasuredCells, classify, score_columns, score_slide
from her2core.storage.store import Store
from tests.conftest import ROOT, Bucket
from tests.tools.faultproxy import Fault, FaultProxy

PARAMS, LADDER = ScoreParams(), IHCParams().ladder_od
RULES = load_rules(PARAMS.rules)
MPP = 0.25
STAIN = StainProfile(
    i0=(240.0, 241.0, 242.0),
    i0_source="glass",
    hematoxylin=(0.65, 0.70, 0.29),
    dab=(0.27, 0.57, 0.78),
    source="partly",
    fallback="no DAB",
    hematoxylin_angle_deg=3.0,
    dab_angle_deg=0.0,
    hematoxylin_low_od=0.1,
    hematoxylin_high_od=0.5,
)


def kernel_cells(n: int, seed: int = 0) -> pa.Table:
    """Rows as the kernel makes them and neighbours complete them, sorted by place."""
    rng = np.random.default_rng(seed)
    rows = np.zeros(n, CELL_DTYPE)
    for name in CELL_DTYPE.names or ():
        rows[name] = rng.random(n)
    rows["y_px0"] = np.sort(rng.choice(200_000 * 16, n, replace=False)) / 16
    rows["x_px0"] = rng.integers(0, 100_000 * 16, n) / 16
    rows["evaluable_fraction"] = rng.random(n) * 1.2
    rows["seed_source"] = rng.integers(0, 2, n)
    columns = {name: rows[name] for name in CELL_DTYPE.names or ()}
    later = {"neighbour_strong_fraction": rng.random(n), "tumour_probability": rng.random(n)}
    columns |= {name: values.astype(np.float32) for name, values in later.items()}
    flags = {"stained_nest": rng.random(n) < 0.1, "tumour_rule": rng.random(n) < 0.8}
    places = {
        "y_um": columns["y_px0"] * MPP,
        "x_um": columns["x_px0"] * MPP,
        "is_tumour": np.ones(n, np.bool_),
    }
    measured = MeasuredCells.of(columns | places, PARAMS, LADDER)
    return pa.table(columns | flags | {"cell_class": classify(measured, PARAMS, RULES)})


def slide(slide_id: str, **more: Any) -> SlideRow:
    return SlideRow(
        slide_id=slide_id, case_id=f"case of {slide_id}", uri=f"{slide_id}.svs", assay=Assay.IHC, **more
    )


def rows(slide_id: str, n: int = 300, seed: int = 0) -> pa.Table:
    return cell_rows(kernel_cells(n, seed), slide(slide_id), MPP, None, "completeness_01")


def written(store: Store, slide_id: str, key: str, n: int = 300, seed: int = 0) -> DataFile:
    file = write_slide_file(store, CELLS, key, [rows(slide_id, n, seed)])
    assert file is not None
    return file


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "out")


@pytest.fixture(params=["folder", pytest.param("s3", marks=pytest.mark.slow)])
def anywhere(request: pytest.FixtureRequest) -> Store:
    """A folder, then a bucket on a real S3 server."""
    if request.param == "folder":
        return Store(request.getfixturevalue("tmp_path") / "out")
    bucket = request.getfixturevalue("s3")
    return Store(f"{bucket.uri}/some/prefix", endpoint_url=bucket.endpoint_url)


def read(store: Store, table: Table, version: int | None = None) -> pl.DataFrame:
    """A table as Polars sees it."""
    uri, options = store.delta_uri(f"tables/{table.name}"), store.storage_options()
    return pl.read_delta(uri, version=version, storage_options=options)


def cell_counts(store: Store) -> dict[str, int]:
    frame = read(store, CELLS)
    return dict(sorted(frame.group_by("slide_id").len().iter_rows()))


# rows of cells


def test_a_cell_row_keeps_every_measurement_and_says_what_became_of_it() -> None:
    kernel = kernel_cells(300)
    made = cell_rows(kernel, slide("s1"), MPP, None, "completeness_01")
    assert made.schema.equals(CELLS.schema, check_metadata=True)
    for name in set(kernel.column_names) - {"seed_source", "qc_flag", "cell_class"}:
        assert made[name].equals(kernel[name]), name
    assert made["y_um"].to_numpy().tolist() == (kernel["y_px0"].to_numpy() * MPP).tolist()
    assert made["completeness"].equals(kernel["completeness_01"])  # the ladder's 0.10
    assert set(made["seed_source"].to_pylist()) == {"hematoxylin", "membrane"}
    assert set(made["tumour_mask"].to_pylist()) == {"model"}
    assert made["is_tumour"].equals(kernel["tumour_rule"])
    evaluable = kernel["evaluable_fraction"].to_numpy() >= np.float32(0.5)
    assert [c is not None for c in made["cell_class"].to_pylist()] == evaluable.tolist()
    assert classes_of(made).tolist() == kernel["cell_class"].to_pylist()


def test_a_region_of_interest_restricts_the_tumour() -> None:
    kernel, inside = kernel_cells(300), np.arange(300) % 2 == 0
    made = cell_rows(kernel, slide("s1"), MPP, inside, "completeness_01")
    assert made["in_roi"].to_numpy().tolist() == inside.tolist()
    assert made["is_tumour"].equals(made["in_roi"])  # a person drew it: all inside count
    assert set(made["tumour_mask"].to_pylist()) == {"roi"}


def test_scores_can_be_made_again_from_the_cells_table(store: Store) -> None:
    commit_files(store, CELLS, [written(store, "s1", "k1")], ["s1"])
    frame = read(store, CELLS)
    again = MeasuredCells.of({c: frame[c] for c in score_columns(PARAMS, LADDER)}, PARAMS, LADDER)
    labels = [CellClass(c).label for c in classify(again, PARAMS, RULES)]
    assert labels == frame["cell_class"].to_list()
    stricter = dataclasses.replace(PARAMS, detect_od=0.60, weak_od=0.7, moderate_od=0.8, strong_od=0.9)
    other = MeasuredCells.of({c: frame[c] for c in score_columns(stricter, LADDER)}, stricter, LADDER)
    assert [CellClass(c).label for c in classify(other, stricter, RULES)] != labels


def test_cell_ids_sort_by_place_and_start_at_the_corner() -> None:
    y, x = np.array([-0.5, -0.5, 0.0, 199_999.5]), np.array([-0.5, 0.0, -0.5, 99_999.5])
    ids = cell_ids(y, x)
    assert ids.tolist() == [0, 8, 8 << 32, (3_200_000 << 32) + 1_600_000]
    assert cell_places(ids).tolist() == [[0, 0], [0, 8], [8, 0], [3_200_000, 1_600_000]]


# files


def test_the_file_of_a_slide_does_not_depend_on_how_its_rows_came(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slide_files, "ROW_GROUP", 100)
    whole = rows("s1", 300)
    first = write_slide_file(store, CELLS, "a", [whole])
    bands = [
        whole.slice(0, 7),
        whole.slice(7, 0),
        whole.slice(7, 200).take(list(range(199, -1, -1))),
        whole.slice(207),
    ]
    second = write_slide_file(store, CELLS, "b", bands)
    assert first is not None
    assert second is not None
    one, two = (store.read_bytes(f"tables/cells/{file.path}") for file in (first, second))
    assert one == two
    assert dataclasses.replace(first, path="") == dataclasses.replace(second, path="")
    assert first.size_bytes == len(one)
    with pq.ParquetFile(store.uri(f"tables/cells/{first.path}")) as file:
        assert [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)] == [100, 100, 100]
        assert file.metadata.row_group(0).column(0).compression == "ZSTD"
        assert file.read().equals(whole)


@pytest.mark.parametrize("bands", [[(0, 300), (299, 1)], [(100, 200), (0, 100)], [(0, 10), (9, 10)]])
def test_a_cell_that_comes_twice_is_refused_and_leaves_nothing(
    store: Store, bands: list[tuple[int, int]]
) -> None:
    whole = rows("s1", 300)
    with pytest.raises(ValueError, match="ascend strictly"):
        write_slide_file(store, CELLS, "a", [whole.slice(*band) for band in bands])
    with pytest.raises(ValueError, match="ascend strictly"):
        write_slide_file(store, CELLS, "a", [pa.concat_tables([whole, whole.slice(5, 1)])])
    assert store.list("tables/cells") == []


def test_a_slide_without_cells_has_no_file(store: Store) -> None:
    assert write_slide_file(store, CELLS, "a", [rows("s1").slice(0, 0)]) is None
    assert store.list("tables/cells") == []


# commits of cells


def test_a_slide_scored_again_replaces_its_cells_and_no_others(anywhere: Store) -> None:
    first = commit_files(
        anywhere,
        CELLS,
        [written(anywhere, "s'1", "k1", 300), written(anywhere, "s2", "k2", 200)],
        ["s'1", "s2"],
    )
    assert cell_counts(anywhere) == {"s'1": 300, "s2": 200}
    second = commit_files(anywhere, CELLS, [written(anywhere, "s'1", "k3", 250, seed=3)], ["s'1"])
    assert cell_counts(anywhere) == {"s'1": 250, "s2": 200}
    assert second == first + 1
    old = read(anywhere, CELLS, version=first)
    assert len(old) == 500  # what an earlier run said stays readable at the version that its row names


def test_committing_twice_changes_nothing(anywhere: Store) -> None:
    files = [written(anywhere, "s1", "k1"), written(anywhere, "s2", "k2")]
    assert commit_files(anywhere, CELLS, files, ["s1", "s2"]) == commit_files(
        anywhere, CELLS, files, ["s1", "s2"]
    )
    assert cell_counts(anywhere) == {"s1": 300, "s2": 300}


def test_going_back_to_an_earlier_result_brings_its_file_back(store: Store) -> None:
    before, after = written(store, "s1", "k1", 300), written(store, "s1", "k2", 250)
    for file in (before, after, before):
        commit_files(store, CELLS, [file], ["s1"])
        assert cell_counts(store) == {"s1": file.rows}


def test_a_slide_that_fails_now_loses_the_cells_it_had(store: Store) -> None:
    commit_files(store, CELLS, [written(store, "s1", "k1"), written(store, "s2", "k2")], ["s1", "s2"])
    commit_files(store, CELLS, [], ["s1"])
    assert cell_counts(store) == {"s2": 300}


def test_a_file_that_is_gone_or_changed_is_refused_before_the_commit(anywhere: Store) -> None:
    file = written(anywhere, "s1", "k1")
    with pytest.raises(StoreError, match=rf"k1\.parquet: expected {file.size_bytes + 1} bytes"):
        commit_files(anywhere, CELLS, [dataclasses.replace(file, size_bytes=file.size_bytes + 1)], ["s1"])
    anywhere.delete("tables/cells/k1.parquet")
    with pytest.raises(StoreError, match="no file"):
        commit_files(anywhere, CELLS, [file], ["s1"])
    assert cell_counts(anywhere) == {}


def test_a_compacted_table_is_read_and_stays_writable(anywhere: Store) -> None:
    first = [written(anywhere, slide_id, key) for slide_id, key in (("s1", "k1"), ("s2", "k2"), ("s4", "k4"))]
    commit_files(anywhere, CELLS, first, ["s1", "s2", "s4"])
    before = read(anywhere, CELLS).sort("slide_id", "cell_id")
    open_table(anywhere, CELLS).optimize.compact()
    (compacted,) = open_table(anywhere, CELLS).file_uris()

    commit_files(
        anywhere, CELLS, [written(anywhere, "s3", "k3", 50)], ["s3"]
    )  # between s2 and s4: not inside
    assert compacted in open_table(anywhere, CELLS).file_uris()
    commit_files(anywhere, CELLS, [written(anywhere, "s1", "k5", 100, 7)], ["s1"])
    assert cell_counts(anywhere) == {"s1": 100, "s2": 300, "s3": 50, "s4": 300}
    others = pl.col("slide_id").is_in(["s2", "s4"])
    after = read(anywhere, CELLS).filter(others).sort("slide_id", "cell_id")
    assert after.equals(before.filter(others))
    version = commit_files(anywhere, CELLS, first[1:], ["s2", "s4"])  # as a run that resumes does
    assert cell_counts(anywhere) == {"s1": 100, "s2": 300, "s3": 50, "s4": 300}
    assert commit_files(anywhere, CELLS, first[1:], ["s2", "s4"]) == version


def test_small_tables_stay_writable_when_they_are_compacted(store: Store) -> None:
    for slide_id in ("s1", "s2"):
        commit_rows(store, SLIDES, [_failed_row(slide_id)])
    open_table(store, SLIDES).optimize.z_order(["slide_id"])
    commit_rows(store, SLIDES, [_failed_row("s1", "another")])
    assert read(store, SLIDES)["slide_id"].to_list() == ["s1", "s2"]


def test_a_column_that_someone_added_ends_no_run_and_is_kept(store: Store) -> None:
    commit_files(store, CELLS, [written(store, "s1", "k1"), written(store, "s2", "k2")], ["s1", "s2"])
    commit_rows(store, SLIDES, [_failed_row("s1"), _failed_row("s2")])
    for table in (CELLS, SLIDES):
        delta = open_table(store, table)
        delta.alter.add_columns([Field("Reader's note", PrimitiveType("string"), nullable=True)])
        delta.update(updates={'"Reader\'s note"': "'seen'"}, predicate="slide_id = 's2'")
    check_tables(store)
    commit_files(store, CELLS, [written(store, "s1", "k3", 100)], ["s1"])
    commit_rows(store, SLIDES, [_failed_row("s1", "another"), _failed_row("s2")])  # as runs do, all of them
    assert cell_counts(store) == {"s1": 100, "s2": 300}
    for table in (CELLS, SLIDES):
        notes = read(store, table).select("slide_id", "Reader's note").unique().sort("slide_id").rows()
        assert notes == [("s1", None), ("s2", "seen")]


def test_an_added_column_that_is_never_null_is_refused(store: Store) -> None:
    required = pa.field("batch", pa.string(), nullable=False)
    DeltaTable.create(store.delta_uri("tables/slides"), SLIDES.schema.append(required))
    with pytest.raises(
        StoreError, match=r"other columns than this version writes \(batch string, never null\)"
    ):
        check_tables(store)


READS_AND_ENDS = """
from her2core.lake.schema import SLIDES
from her2core.lake.tables import read_rows
from her2core.storage.store import Store
print(len(read_rows(Store({root!r}), SLIDES, [column.name for column in SLIDES.columns])))
"""


def test_a_process_that_reads_tables_ends_well(store: Store) -> None:
    """Those that read by PyArrow datasets of delta-rs die at their end, now and then, with exit code 134."""
    commit_rows(store, SLIDES, [_failed_row(f"s{i}") for i in range(9)])
    script = READS_AND_ENDS.format(root=store.uri())
    for _ in range(3):
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout, done.stderr) == (0, "9\n", "")
    ours = [path for folder in ("her2core", "flows") for path in (ROOT / folder).rglob("*.py")]
    for path in (*ours, ROOT / "README.md", *(ROOT / "docs").glob("*.md")):
        assert not re.search(r"\.to_pyarrow_(table|dataset)\(", path.read_text(encoding="utf-8")), path


def test_a_table_of_other_columns_is_refused_in_words(store: Store) -> None:
    DeltaTable.create(store.delta_uri("tables/slides"), pa.schema([pa.field("slide_id", pa.string())]))
    with pytest.raises(StoreError, match="other columns"):
        commit_rows(store, SLIDES, [slide_row(SlideOutcome(slide("s1"), SlideState.FAILED), PARAMS, LADDER)])


def test_tables_of_another_version_are_refused_before_a_run_begins(anywhere: Store) -> None:
    check_tables(anywhere)
    commit_files(anywhere, CELLS, [written(anywhere, "s1", "k1")], ["s1"])
    check_tables(anywhere)
    DeltaTable.create(
        anywhere.delta_uri("tables/regions"),
        pa.schema([pa.field("slide_id", pa.string())]),
        storage_options=anywhere.storage_options() or None,
    )
    with pytest.raises(StoreError, match=r"regions: holds other columns"):
        check_tables(anywhere)


@pytest.mark.parametrize("kept", [False, True])
def test_a_commit_that_came_between_is_neither_lost_nor_doubled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kept: bool
) -> None:
    store = Store(tmp_path / "out")
    (tmp_path / "elsewhere").symlink_to(store.root)
    other = Store(tmp_path / "elsewhere")  # as another process opens it
    ours, theirs = written(store, "s1", "k1", 300), written(store, "s1", "k2", 200)
    plain = lake._actions

    def between(commit: Callable[[], int]) -> None:
        """Let another driver commit once, after our next plan and before its commit."""

        def late(change: lake._Change) -> Any:
            monkeypatch.setattr(lake, "_actions", plain)
            commit()
            return plain(change)

        monkeypatch.setattr(lake, "_actions", late)

    with kept_open(store) if kept else nullcontext():
        between(lambda: commit_files(other, CELLS, [theirs], ["s1"]))
        commit_files(store, CELLS, [ours], ["s1"])
        assert cell_counts(store) == {"s1": 300}
        between(lambda: commit_rows(other, SLIDES, [_failed_row("s2")]))
        commit_rows(store, SLIDES, [_failed_row("s1")])
        assert read(store, SLIDES)["slide_id"].to_list() == ["s1", "s2"]
        commit_rows(other, SLIDES, [_failed_row("s3")])
        assert read_rows(store, SLIDES, ("slide_id",))["slide_id"].to_pylist() == ["s1", "s2", "s3"]


def test_what_is_planned_unread_is_refused_where_another_committed(store: Store, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").symlink_to(store.root)
    other = Store(tmp_path / "elsewhere")  # as another process opens it
    ours, theirs = written(store, "s1", "k1", 300), written(store, "s1", "k2", 200)
    with kept_open(store):
        slides = SlideTable(store, CELLS)
        slides.add_files({"s1": ours})
        assert slides.commit() == 1
        open_table(store, CELLS)
        commit_files(other, CELLS, [theirs], ["s1"])
        assert cell_counts(store) == {"s1": 200}
        assert commit_files(store, CELLS, [ours], ["s1"]) == 3
        commit_rows(store, SLIDES, [_failed_row("s1")])
        open_table(store, SLIDES)
        commit_rows(other, SLIDES, [_failed_row("s2")])
        assert commit_rows(store, SLIDES, [_failed_row("s3")]) == 3
        assert read(store, SLIDES)["slide_id"].to_list() == ["s1", "s2", "s3"]
        open_table(store, SLIDES)
        commit_rows(other, SLIDES, [_failed_row("s4")])
        assert commit_rows(store, SLIDES, []) == 4  # nothing to do, in the newest


def test_a_commit_to_a_table_kept_open_reads_its_log_once(
    faulty_s3: tuple[Bucket, FaultProxy],
) -> None:
    bucket, proxy = faulty_s3
    store = Store(bucket.uri)
    with kept_open(store):
        make_tables(store, [SLIDES])
        proxy.asked.clear()
        commit_rows(store, SLIDES, [_failed_row("s1")])
    assert proxy.asked.total() < 10, proxy.asked  # 6: rows, newest version, commit, three that read it again


def test_a_table_that_is_opened_is_told_by_few_files_of_its_log(store: Store) -> None:
    for number in range(12):
        commit_rows(store, SLIDES, [_failed_row(f"s{number}")])
    log = Path(store.root) / "tables/slides/_delta_log"
    assert json.loads((log / "_last_checkpoint").read_text())["version"] == 9
    assert len(list(log.glob("*.json"))) == 1 + 12  # by which each version is found


def test_tables_that_are_kept_open_lose_and_double_nothing_of_several_threads(store: Store) -> None:
    def drive(number: int) -> int:
        commit_rows(store, SLIDES, [_failed_row(f"s{number}")])
        return len(read_rows(store, SLIDES, ("slide_id",)))

    with kept_open(store), ThreadPoolExecutor(4) as pool:
        seen = list(pool.map(drive, range(8)))
    assert read(store, SLIDES)["slide_id"].to_list() == [f"s{number}" for number in range(8)]
    assert max(seen) == 8


def test_a_driver_that_always_loses_gives_up_in_words(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    file, plain, keys = written(store, "s1", "k0"), lake._actions, iter(range(1, 100))

    def late(change: lake._Change) -> Any:
        with monkeypatch.context() as patch:
            patch.setattr(lake, "_actions", plain)
            commit_files(store, CELLS, [written(store, "s1", f"k{next(keys)}")], ["s1"])
        return plain(change)

    monkeypatch.setattr(lake, "_actions", late)
    monkeypatch.setattr(lake, "ATTEMPTS", 3)
    with pytest.raises(StoreError, match="3 commits lost"):
        commit_files(store, CELLS, [file], ["s1"])
    assert cell_counts(store) == {"s1": 300}


def test_four_drivers_at_once_lose_and_double_nothing(anywhere: Store) -> None:
    """Each commits its own files of the same three slides, tables not being there yet."""
    files = {i: [written(anywhere, f"s{j}", f"k{i}-{j}", 100 + i) for j in range(3)] for i in range(4)}
    start = threading.Barrier(len(files))

    def drive(i: int) -> None:
        start.wait()
        commit_files(anywhere, CELLS, files[i], ["s0", "s1", "s2"])
        commit_rows(anywhere, SLIDES, [_failed_row(f"s{i}"), _failed_row("s-all")])

    with ThreadPoolExecutor(len(files)) as pool:
        list(pool.map(drive, files))
    counts = cell_counts(anywhere)
    assert set(counts) == {"s0", "s1", "s2"}
    assert len(set(counts.values())) == 1
    assert counts["s0"] in {100, 101, 102, 103}
    assert read(anywhere, SLIDES)["slide_id"].to_list() == ["s-all", "s0", "s1", "s2", "s3"]


# small tables


def _failed_row(slide_id: str, message: str = "cut short") -> dict[str, Any]:
    gone = SlideOutcome(slide(slide_id), SlideState.QUARANTINED, reason="file_truncated", message=message)
    return slide_row(gone, PARAMS, LADDER)


def _outcome(slide_id: str) -> SlideOutcome:
    quality = Quality("warn", ("stain_fallback",), 0.1, 0.9, 0.01, 0.02, 0.03, 0.04, 0.05)
    info = SlideInfo(
        uri=f"{slide_id}.svs",
        identity="123-abc",
        size_bytes=123,
        format="svs",
        reader="tiff",
        levels=(LevelInfo(4000, 5000, 1.0),),
        tile_height=256,
        tile_width=256,
        compression="jpeg",
        mpp=MPP,
        mpp_source="aperio",
        scenes=(),
        scene=None,
        objective_power=40.0,
        assay_guess=None,
    )
    measured = MeasuredCells.of(rows(slide_id), PARAMS, LADDER)
    return SlideOutcome(
        slide(slide_id, mpp=0.2, reader_score="1+", specimen_id="sp"),
        SlideState.SCORED,
        info=info,
        pyramid=PyramidRef("pyramids/k", "123-abc", ((4000, 5000),), 512, 4096, MPP, "blosc-lz4", 99, 7),
        profile=SlideProfile(STAIN, quality, 4, "tissue"),
        score=score_slide(measured, PARAMS, RULES, quality, MPP),
        tumour_mask="rule",
        picture="pictures/s.png",
        score_key="k",
    )


ISH_COLUMNS = {
    name
    for name in SLIDES.schema.names
    if name.startswith(
        (
            "ish_",
            "n_ish",
            "n_nuclei",
            "n_areas",
            "her2_spots",
            "cep17_spots",
            "gh_",
            "copies_",
            "population_",
            "probes",
            "channels",
            "external_",
            "regions_picture",
            "fields_picture",
            "contours",
        )
    )
}


TREATMENT_COLUMNS = {
    *("tumour_type", "specimen_type", "cold_ischaemia_min", "fixative", "fixation_h"),
    *("antibody_clone", "section_age_days", "block_date", "preanalytic", "laboratory"),
}


def test_a_slide_row_holds_what_is_known() -> None:
    outcome = _outcome("s1")
    row = slide_row(outcome, PARAMS, LADDER)
    assert set(row) == set(SLIDES.schema.names)
    empty = {name for name, value in row.items() if value is None and not name.startswith(("roi_", "cells_"))}
    assert empty <= {"patient_id", "block_id", "site", "collection_date", "scanner", "message", "scene",
                     "background", "null_excludes_pct"} | ISH_COLUMNS | TREATMENT_COLUMNS  # fmt: skip
    assert (row["mpp"], row["mpp_source"]) == (0.25, "aperio")  # as found, not as the manifest says
    assert (row["reader_score"], row["codec"], row["source_bytes"]) == ("1+", "blosc-lz4", 123)
    assert row["reasons"] == [
        "stain_fallback",
        "uncalibrated",
        *(["unusual_pattern"] if row["patterns"] else []),
    ]
    assert row["uncalibrated"] is True
    assert row["n_scored"] == row["n0"] + row["n1"] + row["n2"] + row["n2u"] + row["n3"]
    assert row["p3_pct"] == row["intense_complete_pct"] == 100 * row["n3"] / row["n_scored"]
    assert row["consensus_score"] == stratum(RULES, row["her2_class"])


def test_an_outcome_survives_json() -> None:
    adapter, outcome = TypeAdapter(SlideOutcome), _outcome("s1")
    reported = dataclasses.replace(
        outcome.slide, ish_ratio=Decimal("2.10"), fixation_h=8.5, background=(243.0, 243.0, 242.5)
    )
    outcome = dataclasses.replace(outcome, slide=reported)
    again = adapter.validate_json(adapter.dump_json(outcome))
    assert again == outcome
    assert str(again.slide.ish_ratio) == "2.10"  # the decimals say how it was rounded
    assert slide_row(again, PARAMS, LADDER)["external_ish_ratio"] == 2.1
    assert slide_row(again, PARAMS, LADDER)["background"] == (243.0, 243.0, 242.5)


def test_a_failed_slide_is_a_row_with_its_reason_and_no_measure() -> None:
    row = _failed_row("s1")
    known = {name for name, value in row.items() if value is not None}
    assert known == {"slide_id", "case_id", "assay", "uri", "state", "reasons", "message"}
    assert (row["state"], row["reasons"], row["message"]) == ("quarantined", ["file_truncated"], "cut short")


def test_rows_replace_their_slide_and_stay_sorted(anywhere: Store) -> None:
    commit_rows(anywhere, SLIDES, [_failed_row("s2"), _failed_row("s1")])
    version = commit_rows(anywhere, SLIDES, [_failed_row("s0"), slide_row(_outcome("s2"), PARAMS, LADDER)])
    frame = read(anywhere, SLIDES)
    assert frame["slide_id"].to_list() == ["s0", "s1", "s2"]
    assert frame["state"].to_list() == ["quarantined", "quarantined", "scored"]
    assert commit_rows(anywhere, SLIDES, [_failed_row("s0")]) == version  # nothing new, no new version
    assert len(open_table(anywhere, SLIDES).file_uris()) == 1


def test_a_table_does_not_depend_on_how_many_runs_it_took(tmp_path: Path) -> None:
    """Bit by bit: the file is named by its content."""
    rows = [_failed_row(f"s{i}") for i in range(5)]
    once, often = Store(tmp_path / "once"), Store(tmp_path / "often")
    commit_rows(once, SLIDES, rows)
    for part in ([rows[3]], [rows[1], _failed_row("s4", "other words")], rows[3:], rows[:3]):
        commit_rows(often, SLIDES, part)
    one, other = (open_table(store, SLIDES).get_add_actions() for store in (once, often))
    assert pa.table(one)["path"].to_pylist() == pa.table(other)["path"].to_pylist()


def test_all_specimens_of_a_case_are_replaced_together(store: Store) -> None:
    def cases(*specimens: str | None) -> list[dict[str, Any]]:
        outcomes = [
            SlideOutcome(dataclasses.replace(slide(f"s{i}"), case_id="c", specimen_id=s), SlideState.FAILED)
            for i, s in enumerate(specimens)
        ]
        return [case_row(case, RULES) for case in score_cases(outcomes, PARAMS, RULES)]

    commit_rows(store, CASES, cases("a", "b", None))
    assert read(store, CASES)["specimen_id"].to_list() == ["a", "b", None]
    commit_rows(store, CASES, cases("b"))
    frame = read(store, CASES)
    assert frame["specimen_id"].to_list() == ["b"]
    assert frame["her2_status"].to_list() == ["Indeterminate"]
    assert frame["slides_failed"].to_list() == [["s0"]]


def test_rows_with_odd_columns_or_one_key_twice_are_refused(store: Store) -> None:
    row = _failed_row("s1")
    with pytest.raises(ValueError, match=r"\['scored'\]"):
        commit_rows(store, SLIDES, [row | {"scored": 1}])
    with pytest.raises(ValueError, match=r"\['message'\]"):
        commit_rows(store, SLIDES, [{k: v for k, v in row.items() if k != "message"}])
    with pytest.raises(ValueError, match=r"one key \(slide_id\)"):
        commit_rows(store, SLIDES, [row, row])
    assert read(store, SLIDES).is_empty()


def test_who_decides_what_stays_may_refuse_the_first_commit_too(store: Store) -> None:
    """A run looks at its lease there, and an empty table is one that another run may be filling."""

    def refuse(before: pa.Table) -> pa.BooleanArray:
        raise StoreError(f"{len(before)} rows")

    with pytest.raises(StoreError, match="0 rows"):
        commit_rows(store, SLIDES, [_failed_row("s1")], keep=refuse)
    assert not len(read_rows(store, SLIDES, ["slide_id"]))


def test_no_rows_are_no_commit(store: Store) -> None:
    assert commit_rows(store, CASES, []) == commit_rows(store, CASES, []) == 0


def test_rows_of_slides_that_have_none_now_go(store: Store) -> None:
    row = dict.fromkeys(HETEROGENEITY.schema.names) | {"case_id": "c1", "metric": "x", "n": 5, "status": "ok"}
    commit_rows(store, HETEROGENEITY, [row | {"slide_id": name} for name in ("s1", "s2", "s3")])
    held = commit_rows(store, HETEROGENEITY, [row | {"slide_id": "s2", "n": 6}], ["s1", "s2"])
    rows = read(store, HETEROGENEITY).to_dicts()
    assert [(r["slide_id"], r["n"]) for r in rows] == [("s2", 6), ("s3", 5)]
    assert commit_rows(store, HETEROGENEITY, [], ["s1"]) == held
    assert commit_rows(store, HETEROGENEITY, [], ["s3"]) == held + 1
    assert read(store, HETEROGENEITY)["slide_id"].to_list() == ["s2"]


def run_record(**more: Any) -> RunRecord:
    now = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    counts = {
        f"n_{s}": 0
        for s in ("slides", "scored", "indeterminate", "failed", "quarantined", "skipped", "cells", "nuclei")
    }
    texts = {
        "run_id": "r1",
        "state": "partial",
        "cohort": "c",
        "manifest_uri": "m.csv",
        "manifest_sha256": "00",
    }
    rest = {
        "table_versions": {"cells": 1},
        "configuration": {"score": {"rules": "x"}},
        "versions": {"her2cohort": "0.1.0"},
        "inputs": [{"slide_id": "s1"}],
    }
    return RunRecord(started_at=now, finished_at=now, **(counts | texts | rest | more))  # type: ignore[arg-type]


def test_a_run_is_one_row_however_often_it_is_written(store: Store) -> None:
    for state in ("partial", "complete"):
        commit_rows(store, RUNS, [run_row(run_record(state=state))])
    frame = read(store, RUNS)
    assert frame["state"].to_list() == ["complete"]
    assert frame["finished_at"].to_list() == [datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)]
    assert frame["configuration"].str.json_path_match("$.score.rules").to_list() == ["x"]


# other readers


def rows_of(found: Any) -> list[tuple[Any, ...]]:
    return [tuple(row.values()) for row in pa.table(found).to_pylist()]


def test_duckdb_polars_and_delta_rs_agree(anywhere: Store) -> None:
    commit_files(
        anywhere,
        CELLS,
        [written(anywhere, "s1", "k1", 300), written(anywhere, "s2", "k2", 200)],
        ["s1", "s2"],
    )
    commit_files(anywhere, CELLS, [written(anywhere, "s2", "k3", 100)], ["s2"])
    commit_rows(anywhere, SLIDES, [slide_row(_outcome("s1"), PARAMS, LADDER), _failed_row("s2")])
    query = """SELECT slide_id, cell_class, count(*), sum(cell_id)
               FROM cells WHERE is_tumour GROUP BY slide_id, cell_class ORDER BY 1, 2"""
    shown = "SELECT slide_id, {}(p_od), reasons[1] FROM slides ORDER BY 1"
    delta_rs = QueryBuilder()
    for table in (CELLS, SLIDES):
        delta_rs.register(table.name, open_table(anywhere, table))
    by_delta_rs = rows_of(delta_rs.execute(query))
    grid = rows_of(delta_rs.execute(shown.format("cardinality")))
    if anywhere.is_local:
        cells, slides = (duckdb.read_parquet(open_table(anywhere, t).file_uris()) for t in (CELLS, SLIDES))
        assert cells.query("cells", query).fetchall() == by_delta_rs
        assert slides.query("slides", shown.format("len")).fetchall() == grid
    frame = pl.scan_delta(
        anywhere.delta_uri("tables/cells"), storage_options=anywhere.storage_options()
    ).filter(pl.col("is_tumour"))
    by_polars = frame.group_by("slide_id", "cell_class").agg(pl.len(), pl.col("cell_id").sum()).collect()
    assert sorted(by_polars.rows(), key=str) == sorted(
        ((a, b, n, int(s)) for a, b, n, s in by_delta_rs), key=str
    )
    assert grid == [("s1", len(PARAMS.grid_od), "stain_fallback"), ("s2", None, "file_truncated")]


def test_a_file_carries_statistics_that_readers_skip_by(store: Store) -> None:
    commit_files(store, CELLS, [written(store, "s1", "k1"), written(store, "s2", "k2")], ["s1", "s2"])
    actions = pa.table(open_table(store, CELLS).get_add_actions(flatten=True)).to_pylist()
    by_path = {action["path"]: action for action in actions}
    assert by_path["k1.parquet"]["num_records"] == 300
    assert (by_path["k1.parquet"]["min.slide_id"], by_path["k1.parquet"]["max.slide_id"]) == ("s1", "s1")
    y = rows("s1")["y_um"].to_numpy()
    assert (by_path["k1.parquet"]["min.y_um"], by_path["k1.parquet"]["max.y_um"]) == (y.min(), y.max())


@pytest.mark.parametrize("folder", ["out", "J. Doe, é"])
def test_the_examples_of_the_documentation_run(tmp_path: Path, folder: str) -> None:
    store = Store(tmp_path / folder)
    commit_files(store, CELLS, [written(store, "s1", "k1")], ["s1"])
    version = commit_rows(store, SLIDES, [_failed_row("s1")])
    commit_rows(store, RUNS, [run_row(run_record(table_versions={SLIDES.name: version}))])
    commit_rows(store, SLIDES, [_failed_row("s2")])
    page = (Path(__file__).parents[1] / "docs" / "schema.md").read_text(encoding="utf-8")
    found: dict[str, Any] = {}
    for block in page.split("```python\n")[1:]:
        if folder == "out" or "polars" not in block.split("```")[0]:
            exec(block.split("```")[0].replace("OUT", store.uri()), found)
    assert found["counts"] is not None
    if folder != "out":
        return
    assert found["as_of_run"]["slide_id"].to_list() == ["s1"]
    assert found["slides"]["slide_id"].to_list() == ["s1", "s2"]


def test_broken_replies_to_the_tables_client_are_outlasted_and_then_told(
    faulty_s3: tuple[Bucket, FaultProxy], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Truncated answers, which Delta Lake's client gives up at, and a commit whose answer is lost."""
    bucket, proxy = faulty_s3
    monkeypatch.setattr("her2core.lake.tables.PAUSES_S", (0.0, 0.0, 0.0))
    store = Store(bucket.uri)
    proxy.faults = [
        Fault("truncate", method="GET", path="_delta_log", times=2),
        Fault("lost_reply", path="_delta_log", times=2),
    ]
    commit_rows(store, SLIDES, [_failed_row("s1")])
    commit_rows(store, SLIDES, [_failed_row("s1")])
    proxy.faults = [
        Fault("shorten", method="GET", path="json$", times=2),
        Fault("empty", method="GET", path="json$", times=2),
    ]
    commit_rows(store, SLIDES, [_failed_row("s1")])
    assert proxy.hits == {"truncate": 2, "lost_reply": 2, "shorten": 2, "empty": 2}
    assert read_rows(store, SLIDES, ["slide_id"])["slide_id"].to_pylist() == ["s1"]
    broken = [OSError("Generic S3 error")]

    def select(delta: DeltaTable, query: str) -> pa.Table:
        if broken:
            raise broken.pop()
        return lake.select(delta, query)

    monkeypatch.setattr("her2core.lake.finished.select", select)
    assert finished_rows(store, SLIDES, ["slide_id"]) == [{"slide_id": "s1"}]
    assert not broken
    for place, pauses in (("_delta_log", (0.0,)), (".parquet", ())):  # each try of its client takes seconds
        monkeypatch.setattr("her2core.lake.tables.PAUSES_S", pauses)
        proxy.faults = [Fault("truncate", method="GET", path=place)]
        with pytest.raises(StoreError, match="the store breaks off"):
            commit_rows(store, SLIDES, [_failed_row("s1")])


def test_cells_that_are_streamed_go_on_where_the_store_broke_off(
    faulty_s3: tuple[Bucket, FaultProxy], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever was handed on already is not handed on again."""
    monkeypatch.setattr("her2core.lake.tables.PAUSES_S", (0.0, 0.0, 0.0))
    store, ids = Store(faulty_s3[0].uri), range(0, 60_000, 2)
    columns = (Column("slide_id", pa.string(), "", ""), Column("id", pa.int64(), "", ""))
    table = Table("cells", "", "slide_id", ("slide_id", "id"), columns)
    commit_rows(store, table, pa.table({"slide_id": ["s1"] * len(ids), "id": pa.array(ids, pa.int64())}))
    breaks = [2, 0, 1, 0]

    class Breaking(QueryBuilder):
        """Whose stream ends in an error after some batches."""

        def execute(self, sql: str) -> Any:
            found = pa.RecordBatchReader.from_stream(super().execute(sql))
            after = breaks.pop(0) if breaks else None

            def batches() -> Iterator[pa.RecordBatch]:
                for number, batch in enumerate(found):
                    if number == after:
                        raise OSError("Generic S3 error: error decoding response body")
                    yield batch

            return pa.RecordBatchReader.from_batches(found.schema, batches())

    monkeypatch.setattr("her2core.lake.finished.QueryBuilder", Breaking)
    streamed = finished_batches(store, table, ["id", "not_there"], "slide_id = 's1'")
    assert streamed.schema.names == ["id"]
    assert streamed.read_all()["id"].to_pylist() == list(ids)
    assert not breaks
    breaks[:] = [1, 0, 0, 0, 0]
    with pytest.raises(StoreError, match="the store breaks off"):
        finished_batches(store, table, ["id"], "slide_id = 's1'").read_all()
