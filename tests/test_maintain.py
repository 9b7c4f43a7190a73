"""Upkeep changes no row: fewer files, older versions that runs name, and tables that stay writable."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from polars.testing import assert_frame_equal

from her2core import publish as publishing
from her2core.errors import StoreError
from her2core.lake.batches import commit_files
from her2core.lake.maintain import compact, maintain
from her2core.lake.schema import CELLS, SLIDES
from her2core.lake.tables import check_tables, commit_rows, open_table
from her2core.publish import Publisher
from her2core.storage.lease import held
from her2core.storage.store import Store
from tests.test_lake import _failed_row, written
from tests.test_publish import ROWS, made, quick, result, runs, table

__all__ = ["quick"]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "out")


@pytest.fixture(autouse=True)
def whole(quick: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """One batch a run."""
    monkeypatch.setattr(publishing, "BATCH_SLIDES", 100)


def run(store: Store, run_id: str, value: float = 1.0, key: str = "k") -> None:
    publisher = Publisher(made(run_id, store, ROWS))
    for row in ROWS:
        publisher.add(result(store, row, value, key))
    publisher.finish()


def look_after(store: Store, days: float = 0) -> dict[str, tuple[int, int]]:
    with held(store, "maintain", "maintain") as lease:
        return {each.table: (each.files_before, each.files) for each in maintain(store, lease, days=days)}


def test_small_files_become_few_and_no_row_changes(store: Store) -> None:
    run(store, "r1")
    names = ("cells", "slides", "heterogeneity")
    before = {name: table(store, name) for name in names}
    assert look_after(store)["cells"] == (5, 1)
    for name in names:
        key = ["slide_id", *(c for c in ("cell_id", "metric") if c in before[name].columns)]
        assert_frame_equal(table(store, name).sort(key), before[name].sort(key))
        assert len(open_table(store, publishing.schema.TABLES[name]).file_uris()) == 1
    (path,) = open_table(store, CELLS).file_uris()
    footer = pq.read_metadata(path)
    slides = [footer.row_group(i).column(0).statistics for i in range(footer.num_row_groups)]
    assert [(each.min, each.max) for each in slides] == [(row.slide_id, row.slide_id) for row in ROWS]


def test_a_compacted_and_vacuumed_table_stays_writable_and_is_left_alone_by_results_that_stand(
    store: Store,
) -> None:
    run(store, "r1")
    look_after(store)
    look_after(store)  # files that left go now
    assert [p.name for p in (Path(store.root) / "tables/cells").glob("k*.parquet")] != []  # r1 names them
    version = open_table(store, CELLS).version()
    run(store, "r2")
    assert open_table(store, CELLS).version() == version
    run(store, "r3", 2.0, "n")
    assert table(store, "cells").height == 3 * len(ROWS)
    assert set(table(store, "heterogeneity")["value"]) == {2.0}


def test_what_runs_name_can_be_read_however_old_and_the_rest_goes(store: Store) -> None:
    for number, key in enumerate("abc"):
        run(store, f"r{number}", float(number), key)
    look_after(store)
    for number, row in enumerate(runs(store)):
        assert set(table(store, "heterogeneity", row["heterogeneity_version"])["value"]) == {float(number)}
        assert table(store, "cells", row["cells_version"]).height == 3 * len(ROWS)


def test_files_that_no_run_names_go_with_their_records(store: Store) -> None:
    commit_files(store, CELLS, [written(store, "s1", "k1")], ["s1"])
    store.write_bytes("stages/slide/k1.json", b"{}")
    commit_files(store, CELLS, [written(store, "s1", "k2")], ["s1"])
    store.write_bytes("stages/slide/k2.json", b"{}")
    look_after(store)
    assert store.list("stages/slide") == ["stages/slide/k2.json"]
    assert not store.exists("tables/cells/k1.parquet")


def test_a_slide_is_never_parted_and_files_have_a_bound(store: Store) -> None:
    files = [written(store, f"s{number}", f"k{number}", 200) for number in range(6)]
    commit_files(store, CELLS, files, [f"s{number}" for number in range(6)])
    compact(store, CELLS, target_bytes=2 * files[0].size_bytes + 100)
    actions = pa.table(open_table(store, CELLS).get_add_actions(flatten=True)).to_pylist()
    assert sorted((a["min.slide_id"], a["max.slide_id"]) for a in actions) == [
        ("s0", "s1"),
        ("s2", "s3"),
        ("s4", "s5"),
    ]


def test_deletion_vectors_are_refused_in_words(store: Store) -> None:
    commit_rows(store, SLIDES, [_failed_row("s1")])
    log = Path(store.root) / "tables/slides/_delta_log"
    features = {"minReaderVersion": 3, "minWriterVersion": 7, "readerFeatures": ["deletionVectors"]}
    protocol = {"protocol": features | {"writerFeatures": ["deletionVectors"]}}
    number = len(list(log.glob("*.json")))
    (log / f"{number:020d}.json").write_text(json.dumps(protocol) + "\n")
    with pytest.raises(StoreError, match="deletion vectors are on"):
        check_tables(store)


def test_every_table_is_read_by_scan_delta(store: Store) -> None:
    run(store, "r1")
    names = [name for name in publishing.schema.TABLES if store.exists(f"tables/{name}/_delta_log")]
    before = {name: table(store, name).height for name in names}
    assert (before["cells"], before["slides"], before["runs"]) == (3 * len(ROWS), len(ROWS), 1)
    look_after(store)
    for name in names:
        scan = pl.scan_delta(store.uri(f"tables/{name}"))
        assert scan.select(pl.len()).collect().item() == before[name]
