"""An output of an older version, whose tables lack columns, is read, kept up and taken further by runs."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import duckdb
import polars as pl
import pyarrow as pa
import pytest
from deltalake import DeltaTable, Field
from deltalake.schema import PrimitiveType

from her2core import publish as publishing
from her2core.errors import StoreError
from her2core.lake import batches
from her2core.lake import tables as lake
from her2core.lake.finished import finished_rows
from her2core.lake.maintain import compact
from her2core.lake.schema import CELLS, HETEROGENEITY, SLIDES, TABLES
from her2core.lake.tables import check_tables, commit_rows, open_table, read_rows
from her2core.lake.unused import find_unused
from her2core.lake.views import create_views
from her2core.publish import Publisher
from her2core.report.compare import slide_changes
from her2core.report.run_tables import read_run
from her2core.stages.finished import SlideFinished
from her2core.stages.unchanged import divide
from her2core.storage.store import Store
from tests.helpers.older import make_older
from tests.test_lake import _failed_row, anywhere
from tests.test_maintain import look_after
from tests.test_publish import COMPARED, made, quick, result, slide_row

__all__ = ["anywhere", "quick"]

LACKING: dict[str, tuple[str, ...]] = {
    "cells": ("bare_fraction", "qc_flag", "seed_source"),
    "slides": ("contours", "laboratory", "mpp_source", "p_od"),
    "heterogeneity": ("high",),
    "cases": ("ish_comment", "slides"),
    "runs": ("columns_added", "regions_version"),
}
"""Columns of an older layout: numbers, words, lists, and those that name versions and slides."""
ADDED = sorted(f"{table}.{column}" for table, columns in LACKING.items() for column in columns)
LEFT_ALONE = ("s0", "s1", "s2", "s3", "c0", "c1")
"""Slides and cases that the next run does not touch."""
ROWS = [slide_row(f"s{number}", f"c{number // 2}") for number in range(6)]


def run(store: Store, run_id: str, results: Sequence[SlideFinished], division: Any = None) -> None:
    """A run as `open_run` begins it."""
    rows = tuple(ROWS) + tuple(r.outcome.slide for r in results if r.outcome.slide not in ROWS)
    begun = replace(made(run_id, store, rows), columns_added=tuple(check_tables(store)))
    publisher = Publisher(begun, None, division)
    publisher.begin()
    for each in results:
        publisher.add(each)
    publisher.finish()


@pytest.fixture(scope="module")
def once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An output of one run of an older version."""
    store = Store(tmp_path_factory.mktemp("older"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(publishing, "cohort_picture", lambda cases: b"")
        patch.setattr(publishing, "_between", lambda *_: dict(COMPARED))
        run(store, "r1", [result(store, row) for row in ROWS])
    make_older(store, LACKING)
    return Path(store.root)


@pytest.fixture
def store(once: Path, tmp_path: Path) -> Store:
    shutil.copytree(once, tmp_path / "out")
    return Store(tmp_path / "out")


def read(store: Store, name: str, version: int | None = None) -> pl.DataFrame:
    """A table as Polars sees it, sorted by its key."""
    uri, options = store.delta_uri(f"tables/{name}"), store.storage_options()
    return pl.read_delta(uri, version=version, storage_options=options).sort(TABLES[name].key)


def recalled(store: Store, number: int) -> SlideFinished:
    """What the record of an older run has of a slide: its file of cells is as that run wrote it."""
    found = result(Store(f"{store.uri()}-beside" if store.is_local else store.uri("beside")), ROWS[number])
    assert found.cells is not None
    size = store.size(f"tables/cells/{found.cells.path}")
    return replace(found, cells=replace(found.cells, size_bytes=size))


def test_a_new_only_run_adds_columns_and_older_rows_are_null_there(anywhere: Store, once: Path) -> None:
    store = anywhere
    store.write_many({str(p.relative_to(once)): p.read_bytes() for p in once.rglob("*") if p.is_file()})
    assert sorted(check_tables(store)) == ADDED
    before = {name: read(store, name) for name in LACKING}
    new = slide_row("t1", "c2")
    division = divide(made("r2", store, [*ROWS, new]))
    assert [row.slide_id for row in division.work] == ["t1"]
    run(store, "r2", [recalled(store, 4), recalled(store, 5), result(store, new)], division)

    assert check_tables(store) == []
    for name, was in before.items():
        now = read(store, name)
        if name == "runs":
            first, last = now.sort("finished_at").to_dicts()
            assert (first["columns_added"], sorted(last["columns_added"])) == (None, ADDED)
            continue
        older_ones = pl.col(TABLES[name].replaces).is_in(list(LEFT_ALONE))
        mine = now.filter(older_ones)
        assert mine.select(was.columns).equals(was.filter(older_ones))
        assert mine.select(pl.col(LACKING[name]).is_null().all()).row(0) == (True,) * len(LACKING[name])
    assert read(store, "slides").filter(slide_id="s4")["mpp_source"].null_count() == 0  # its case was pooled
    assert read(store, "cells").filter(slide_id="t1")["seed_source"].null_count() == 0
    assert read(store, "cases")["case_id"].to_list() == ["c0", "c1", "c2"]
    assert divide(made("r3", store, [*ROWS, new])).is_idle
    for name in LACKING.keys() - {"runs"}:
        assert read(store, name, first[f"{name}_version"]).equals(before[name])
    one, other = read_run(store, "r1"), read_run(store, "r2")
    assert [row["mpp_source"] for row in one.slides] == [None] * 6
    assert len(other.slides) == 7
    assert slide_changes(one, other)[0]["name"] == "t1"


@pytest.mark.parametrize("after", [1, 5])
def test_a_run_that_died_while_columns_were_added_is_taken_up(
    store: Store, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    """After so many commits of rows, behind that of the next table's columns."""
    results = [result(store, row, 2.0, "n") for row in ROWS]
    commits, committed = iter(range(after)), DeltaTable.create_write_transaction

    def dying(*given: Any, **named: Any) -> None:
        if next(commits, None) is None:
            raise KeyboardInterrupt
        committed(*given, **named)

    with monkeypatch.context() as patch:
        patch.setattr(DeltaTable, "create_write_transaction", dying)
        with pytest.raises(KeyboardInterrupt):
            run(store, "r2", results)
    run(store, "r3", results)
    assert check_tables(store) == []
    assert read(store, "runs")["run_id"].to_list() == ["r1", "r2", "r3"]
    assert read(store, "cells").group_by("slide_id").len()["len"].to_list() == [3] * 6
    assert set(read(store, "heterogeneity")["value"]) == {2.0}
    assert read(store, "slides")["mpp_source"].null_count() == 0
    assert read(store, "cases")["slides"].to_list() == [["s0", "s1"], ["s2", "s3"], ["s4", "s5"]]


def test_upkeep_and_readers_take_an_older_layout_as_it_is(store: Store) -> None:
    before = {name: read(store, name) for name in LACKING}
    assert find_unused(store, days=0) == []
    connection = duckdb.connect()
    create_views(connection, store)
    assert connection.execute("SELECT count(*), count(laboratory) FROM slides").fetchone() == (6, 0)
    assert [row["laboratory"] for row in finished_rows(store, SLIDES, ("slide_id", "laboratory"))] == [
        None
    ] * 6
    assert look_after(store)["cells"] == (6, 1)
    for name, was in before.items():
        assert read(store, name).select(was.columns).equals(was)
    assert look_after(store)["cells"] == (1, 1)
    assert find_unused(store, days=0) == []


def test_files_of_several_layouts_are_joined_with_all_their_columns(store: Store) -> None:
    """An older one with a column that someone added, and one of this version."""
    delta = open_table(store, CELLS)
    delta.alter.add_columns([Field("note", PrimitiveType("string"), nullable=True)])
    delta.update(updates={"note": "'seen'"}, predicate="slide_id = 's1'")
    file = result(store, slide_row("t1", "c9")).cells
    assert file is not None
    batches.commit_files(store, CELLS, [file], ["t1"])
    before = read(store, "cells")
    compact(store, CELLS)
    assert len(open_table(store, CELLS).file_uris()) == 1
    assert read(store, "cells").equals(before)
    assert dict(before.select("slide_id", "note").unique().iter_rows())["s1"] == "seen"
    assert before.filter(slide_id="t1")["seed_source"].null_count() == 0


def test_nothing_is_removed_by_columns_that_were_not_written(store: Store) -> None:
    make_older(store, {"slides": ["pyramid"]})
    assert "slides.pyramid" in check_tables(store)
    with pytest.raises(
        StoreError, match=r"slides: is of an older version, without pyramid.*nothing is removed"
    ):
        find_unused(store)


def test_another_writer_may_add_the_columns_first(store: Store) -> None:
    came: list[int] = []

    def plan(current: DeltaTable) -> lake.Change:
        if not came:
            came.append(commit_rows(store, SLIDES, [_failed_row("other")]))
        assert ("other" in read_rows(store, SLIDES, ["slide_id"])["slide_id"].to_pylist()) is True
        return lake.Change([], lake.active_paths(current))

    version = lake.commit(store, SLIDES, plan)
    assert version == came[0] + 1
    assert read(store, "slides").is_empty()


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda f: None if f.name == "state" else f, "state string, never null"),
        (lambda f: None if f.name == "slide_id" else f, "slide_id string, never null"),
        (lambda f: f.with_type(pa.int64()) if f.name == "score" else f, "score int64, score string"),
        (
            lambda f: f.with_nullable(False) if f.name == "score" else f,
            "score string, score string, never null",
        ),
    ],
)
def test_what_cannot_be_added_is_refused(
    tmp_path: Path, change: Callable[[pa.Field], pa.Field | None], named: str
) -> None:
    """A column that is never null, one by which rows are told apart, and another type."""
    other = Store(tmp_path / "out")
    fields = [
        change(field) if field.name in ("state", "slide_id", "score") else field for field in SLIDES.schema
    ]
    DeltaTable.create(other.delta_uri("tables/slides"), pa.schema([f for f in fields if f is not None]))
    with pytest.raises(StoreError, match=rf"other columns than this version writes \({named}\)"):
        check_tables(other)
    with pytest.raises(StoreError, match="move the old tables away"):
        commit_rows(other, SLIDES, [_failed_row("s1")])


def test_a_column_of_a_key_is_not_added(tmp_path: Path) -> None:
    other = Store(tmp_path / "out")
    lacking = pa.schema([field for field in HETEROGENEITY.schema if field.name != "scale_um"])
    DeltaTable.create(other.delta_uri("tables/heterogeneity"), lacking)
    with pytest.raises(StoreError, match="scale_um double"):
        check_tables(other)
