"""Results reach the lake while a run goes on, and what is as it was is left alone."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import polars as pl
import pyarrow as pa
import pytest

from her2core import publish as publishing
from her2core.cases.comparisons import Comparison
from her2core.cohort import CohortSummary
from her2core.config import load_config
from her2core.heterogeneity.metrics import Metric, Status
from her2core.lake import packed, tables
from her2core.lake.batches import SlideTable, read_members
from her2core.lake.schema import CELLS, HETEROGENEITY, PATIENT_HETEROGENEITY_WIDE, SLIDES, Table
from her2core.lake.tables import kept_open, open_table
from her2core.publish import Publisher
from her2core.records import Assay, OutlinesUsed, RoiUsed, SlideInfo, SlideRow, SlideState
from her2core.stages.finished import SlideFinished
from her2core.stages.run import Run
from her2core.stages.unchanged import divide, input_of
from her2core.storage.lease import LeaseLostError, held
from her2core.storage.store import Store
from tests.conftest import Bucket
from tests.test_lake import _outcome, written
from tests.tools.faultproxy import FaultProxy

METRICS = ("shannon_entropy", "simpson_index")


def slide_row(name: str, case: str) -> SlideRow:
    return SlideRow(name, case, f"{name}.svs", Assay.IHC)


def made(run_id: str, store: Store, rows: Sequence[SlideRow], **changed: Any) -> Run:
    """A run over slides that ingest has taken in."""
    identities = {row.slide_id: f"1-{row.slide_id}" for row in rows}
    config = load_config(environment={})
    run = Run(run_id, "2026-01-01T00:00:00+00:00", "m.csv", "00", tuple(rows), store, config)
    return replace(run, identities=identities, **changed)


def result(store: Store, row: SlideRow, value: float = 1.0, key: str = "k") -> SlideFinished:
    """A measured slide without a score, with two metrics and a file of cells."""
    whole = _outcome(row.slide_id)
    info = replace(whole.info, identity=f"1-{row.slide_id}") if isinstance(whole.info, SlideInfo) else None
    outcome = replace(
        whole,
        slide=row,
        info=info,
        state=SlideState.INDETERMINATE,
        score=None,
        score_key=f"{key}{row.slide_id}",
    )
    measured = {"n": 5, "scale_um": None, "status": Status.OK}
    metrics = tuple(Metric(name, value, None, None, **measured) for name in METRICS)
    cells = written(store, row.slide_id, f"{key}{row.slide_id}", 3)
    return SlideFinished(outcome, cells, None, metrics, rests_on=(f"stages/slide/{key}{row.slide_id}.json",))


BETWEEN: Any = publishing._between
COMPARED: dict[Table, list[Any]] = {
    table: [] for table in publishing.TRUE if table.name not in ("cases", "patients")
}


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publishing, "cohort_picture", lambda cases: b"")
    monkeypatch.setattr(publishing, "BATCH_SLIDES", 2)
    monkeypatch.setattr(publishing, "_between", lambda *_: dict(COMPARED))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "out")


def table(store: Store, name: str, version: int | None = None) -> pl.DataFrame:
    return pl.read_delta(store.uri(f"tables/{name}"), version=version)


def runs(store: Store) -> list[dict[str, Any]]:
    return table(store, "runs").sort("finished_at").to_dicts()


def ids(frame: pl.DataFrame) -> list[str]:
    return sorted(frame["slide_id"].unique().to_list())


def files(store: Store) -> dict[str, int]:
    """Everything in the store and when it was written."""
    root = Path(store.root)
    return {str(p.relative_to(root)): p.stat().st_mtime_ns for p in root.rglob("*") if p.is_file()}


ROWS = [slide_row(f"s{number}", f"c{number // 2}") for number in range(5)]


def test_batches_are_seen_while_the_run_goes_on_and_never_by_who_goes_by_runs(store: Store) -> None:
    first = Publisher(made("r1", store, ROWS[:2]))
    first.begin()
    for row in ROWS[:2]:
        first.add(result(store, row))
    first.finish()

    second = Publisher(made("r2", store, ROWS))
    second.begin()
    for row in ROWS[:4]:
        second.add(result(store, row))
    assert ids(table(store, "slides")) == ["s0", "s1", "s2", "s3"]
    assert ids(table(store, "cells")) == ["s0", "s1", "s2", "s3"]
    done, going = runs(store)
    assert (done["state"], going["state"]) == ("partial", "running")
    assert (going["n_slides"], going["n_indeterminate"]) == (5, 4)
    for name in ("slides", "cells", "heterogeneity"):
        assert ids(table(store, name, going[f"{name}_version"])) == ["s0", "s1"]
    second.add(result(store, ROWS[4]))
    second.finish()
    *_, going = runs(store)
    assert (len(runs(store)), going["state"]) == (2, "partial")
    assert ids(table(store, "slides", going["slides_version"])) == [row.slide_id for row in ROWS]


def test_a_run_that_died_is_said_to_be_interrupted_by_the_next(store: Store) -> None:
    with held(store, "r1") as lease:
        Publisher(made("r1", store, ROWS), lease).begin()
    with held(store, "r2") as lease:
        second = Publisher(made("r2", store, ROWS), lease)
        second.begin()
        for row in ROWS:
            second.add(result(store, row))
        second.finish()
    assert {run["run_id"]: run["state"] for run in runs(store)} == {"r1": "interrupted", "r2": "partial"}


@pytest.mark.parametrize("kept", [False, True])
def test_a_run_that_was_overtaken_before_its_commit_commits_nothing(
    store: Store, monkeypatch: pytest.MonkeyPatch, kept: bool
) -> None:
    """It was suspended behind its look at the lease; meanwhile another took over and came to its end."""
    plain = tables._actions

    def overtaken(change: tables.Change) -> Any:
        monkeypatch.setattr(tables, "_actions", plain)
        store.write_bytes("lease/00000002.json", store.read_bytes("lease/00000001.json"))
        Path(store.root).with_name("elsewhere").symlink_to(store.root)
        other = Publisher(made("r2", Store(Path(store.root).with_name("elsewhere")), ROWS))
        for row in ROWS:
            other.add(result(store, row, 2.0, "other"))
        other.finish()
        return plain(change)

    with kept_open(store) if kept else nullcontext(), held(store, "r1") as lease:
        first = Publisher(made("r1", store, ROWS), lease)
        first.begin()
        first.add(result(store, ROWS[0]))
        monkeypatch.setattr(tables, "_actions", overtaken)
        with pytest.raises(LeaseLostError, match="another run has taken over"):
            first.add(result(store, ROWS[1]))
    assert set(table(store, "heterogeneity")["value"]) == {2.0}
    assert table(store, "cells").height == 3 * len(ROWS)
    assert {run["run_id"]: run["state"] for run in runs(store)}["r2"] == "partial"


def test_rows_of_a_shared_file_are_replaced_once_at_the_end(store: Store) -> None:
    """Slides scored again: no row is doubled meanwhile, and the shared files are rewritten once."""
    for key, value in (("a", 1.0), ("b", 2.0)):
        again = Publisher(made(f"r{key}", store, ROWS))
        for row in ROWS:
            again.add(result(store, row, value, key))
            seen = (
                table(store, "heterogeneity")
                if (Path(store.root) / "tables/heterogeneity").exists()
                else None
            )
            if seen is not None:
                assert not seen.select("slide_id", "metric").is_duplicated().any()
        again.finish()
    assert set(table(store, "heterogeneity")["value"]) == {2.0}
    assert table(store, "cells").height == 3 * len(ROWS)
    history = open_table(store, HETEROGENEITY).history()
    assert len(history) == 1 + 3 + 1  # created, three batches, one commit of the second run


def test_a_slide_that_comes_again_leaves_the_others_their_rows(store: Store) -> None:
    run = Publisher(made("r1", store, ROWS))
    run.begin()
    for number in (0, 1, 0, 2, 3, 4):
        run.add(result(store, ROWS[number]))
    assert [row["slide_id"] for row in run.finish().slides] == [row.slide_id for row in ROWS]


def test_a_result_that_stands_is_written_nowhere(store: Store) -> None:
    def all_over(run_id: str) -> None:
        publisher = Publisher(made(run_id, store, ROWS))
        for row in ROWS:
            publisher.add(result(store, row))
        publisher.finish()

    all_over("r1")
    versions = {name: open_table(store, t).version() for name, t in publishing.schema.COMMITTED.items()}
    all_over("r2")
    after = {name: open_table(store, t).version() for name, t in publishing.schema.COMMITTED.items()}
    assert after == versions


@pytest.fixture(scope="module")
def once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cohort of fifty slides in twenty-five cases, as a run left it."""
    store = Store(tmp_path_factory.mktemp("scored"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(publishing, "cohort_picture", lambda cases: b"")
        patch.setattr(publishing, "_between", lambda *_: dict(COMPARED))
        patch.setattr(publishing, "BATCH_SLIDES", 25)
        publisher = Publisher(made("r1", store, FIFTY))
        for row in FIFTY:
            publisher.add(result(store, row))
        publisher.finish()
    return Path(store.root)


@pytest.fixture
def scored(once: Path, tmp_path: Path) -> Store:
    shutil.copytree(once, tmp_path / "scored")
    return Store(tmp_path / "scored")


FIFTY = [slide_row(f"s{number:02d}", f"c{number // 2}") for number in range(50)]
NEW = [slide_row("t1", "c3"), slide_row("t2", "new")]


def test_two_new_slides_in_fifty_touch_their_cases_alone(scored: Store) -> None:
    run = made("r2", scored, [*FIFTY, *NEW])
    division = divide(run)
    assert [row.slide_id for row in division.work] == ["t1", "t2"]
    assert [(row.slide_id, key) for row, key in division.beside] == [("s06", "ks06"), ("s07", "ks07")]
    assert len(division.carried) == 48

    beside = [result(scored, row) for row, _ in division.beside]  # their records are read, nothing else
    new = [result(scored, row) for row in division.work]
    before = files(scored)
    publisher = Publisher(run, None, division)
    publisher.begin()
    for each in [*beside, *new]:
        publisher.add(each)
    summary = publisher.finish()
    after = files(scored)
    assert {path for path in before if after.get(path) != before[path]} <= {"pictures/cohort.png"}
    made_now = {path.split("/")[1] for path in after.keys() - before.keys() if path.endswith(".parquet")}
    assert made_now == {"slides", "heterogeneity", "heterogeneity_wide", "cases", "patients", "runs"}
    assert [row["slide_id"] for row in summary.slides] == ["s06", "s07", "t1", "t2"]
    assert ids(table(scored, "slides")) == sorted(row.slide_id for row in [*FIFTY, *NEW])
    cases = dict(table(scored, "cases").select("case_id", "slides").iter_rows())
    assert sorted(cases["c3"]) == ["s06", "s07", "t1"]
    assert len(cases) == 26
    last = runs(scored)[-1]
    assert (last["n_slides"], last["n_cells"]) == (52, 52 * 3)
    assert {entry["slide_id"] for entry in json.loads(last["inputs"])} == {r.slide_id for r in [*FIFTY, *NEW]}
    assert divide(made("r3", scored, [*FIFTY, *NEW])).is_idle


def test_two_new_slides_in_fifty_cost_no_request_for_the_others(
    once: Path, faulty_s3: tuple[Bucket, FaultProxy]
) -> None:
    """Every request for tables and records, Delta Lake's included."""
    bucket, proxy = faulty_s3
    store = Store(bucket.uri)
    store.write_many({str(p.relative_to(once)): p.read_bytes() for p in once.rglob("*") if p.is_file()})
    run = made("r2", store, [*FIFTY, *NEW])
    proxy.asked.clear()
    with kept_open(store):
        division = divide(run)
        publisher = Publisher(run, None, division)
        publisher.begin()
        for row in [*(row for row, _ in division.beside), *division.work]:
            publisher.add(result(store, row))
        publisher.finish()
    looked = {path for _, path in proxy.asked}
    left_alone = {f"/ks{number:02d}." for number in range(50)} - {"/ks06.", "/ks07."}
    assert {"/kt1.", "/ks06."} <= {f"/{path.rpartition('/')[2].split('.')[0]}." for path in looked}
    assert not {key for key in left_alone if any(key in path for path in looked)}
    assert len({path for path in looked if path.endswith(".parquet")}) <= 22
    assert proxy.asked.total() < 400  # 293, of them 42 PUT; a loaded machine asks some again


def test_what_changed_is_worked_on_again(scored: Store) -> None:
    rows = [*FIFTY]
    run = made("r2", scored, rows)
    assert divide(run).is_idle
    idle = CohortSummary("r2", scored.uri(), (), ())
    assert (idle.lines(), idle.complete) == (["run r2: nothing new; the tables are as they were"], True)
    other = {**run.identities, "s10": "2-other"}
    assert [row.slide_id for row in divide(replace(run, identities=other)).work] == ["s10"]
    assert len(divide(replace(run, identities={})).work) == 50  # nobody says what the slides are now
    moved = [replace(rows[0], case_id="c9"), *rows[1:]]
    division = divide(made("r2", scored, moved))
    assert [row.slide_id for row in division.work] == ["s00"]
    assert {row.slide_id for row, _ in division.beside} == {"s01", "s18", "s19"}  # where it was, where it is
    assert not divide(made("r2", scored, rows[1:])).is_idle  # s00 has to go
    settings = load_config(environment={"HER2_IHC_SCORE__STRONG_OD": "0.9"})
    assert len(divide(replace(run, config=settings)).work) == 50


def test_an_interrupted_run_leaves_nothing_to_rely_on(scored: Store) -> None:
    Publisher(made("r2", scored, FIFTY)).begin()
    assert len(divide(made("r3", scored, FIFTY)).work) == 50


def test_a_reader_of_one_slide_opens_one_file(scored: Store) -> None:
    for held_by in (CELLS, SLIDES, HETEROGENEITY):
        actions = pa.table(open_table(scored, held_by).get_add_actions(flatten=True)).to_pylist()
        hits = [a for a in actions if a["min.slide_id"] <= "s33" <= a["max.slide_id"]]
        assert len(hits) == 1, held_by.name


def test_the_footer_says_whose_rows_a_file_holds(scored: Store) -> None:
    slides = SlideTable(scored, SLIDES)
    assert set(slides.place) == {row.slide_id for row in FIFTY}
    path = slides.place["s33"]
    size = scored.size(f"tables/slides/{path}")
    assert set(read_members(scored, SLIDES, path, size)) == {f"s{number}" for number in range(25, 50)}


def test_rows_that_somebody_removed_cost_their_slide_alone(store: Store) -> None:
    publisher = Publisher(made("r1", store, ROWS))
    for row in ROWS:
        finished = result(store, row)
        store.write_bytes(f"stages/slide/k{row.slide_id}.json", b"{}")
        if row.slide_id == "s3":
            store.delete("tables/cells/ks3.parquet")
        publisher.add(finished)
    publisher.finish()
    states = dict(table(store, "slides").select("slide_id", "state").iter_rows())
    assert states.pop("s3") == "failed"
    assert set(states.values()) == {"indeterminate"}
    assert "stages/slide/ks3.json" not in store.list("stages/slide")  # the next run makes it again
    assert len(store.list("stages/slide")) == 4


def test_a_run_names_the_files_of_regions_and_nuclei_with_their_identities(tmp_path: Path) -> None:
    store = Store(tmp_path)
    row = replace(slide_row("a", "c"), roi_uri="a.geojson", cells_uri="a.nuclei.geojson")
    plain = result(store, row)
    roi, nuclei = RoiUsed("a.geojson", "5-abc", (), (), 1.0), OutlinesUsed("a.nuclei.geojson", "6-def", 3)
    said = input_of(replace(plain, outcome=replace(plain.outcome, roi=roi, outlines=nuclei)), "digest", {})
    wanted = {"roi_uri": "a.geojson", "roi": "5-abc", "cells_uri": "a.nuclei.geojson", "cells": "6-def"}
    assert {name: said[name] for name in wanted} == wanted
    unread = input_of(plain, "digest", {})
    assert (unread["roi_uri"], unread["roi"], unread["cells"]) == ("a.geojson", None, None)


def test_portions_keep_cases_and_patients_together() -> None:
    def row(slide: str, case: str, patient: str | None = None) -> SlideRow:
        return SlideRow(slide, case, "x", Assay.IHC, patient_id=patient)

    rows = [row("a", "c1"), row("b", "c2", "p"), row("c", "c3"), row("d", "c1", "p"), row("e", "c4", "c3")]
    assert list(publishing._together(rows, 2)) == [["a", "b", "d"], ["c", "e"]]
    assert list(publishing._together(rows, 100)) == [["a", "b", "d", "c", "e"]]
    assert list(publishing._together([], 2)) == []


def test_rows_that_are_kept_packed_come_back_as_they_were(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packed, "CHUNK_ROWS", 32)
    gathered = packed.Gathered(HETEROGENEITY)
    rows = [
        {"slide_id": f"s{n}", "case_id": "c", "metric": "m", "value": n / 7, "low": None, "high": None,
         "n": n, "status": "ok", "scale_um": None, "label": None}
        for n in range(70)
    ]  # fmt: skip
    for start in range(0, 70, 10):
        gathered.add(rows[start : start + 10])
    found = packed.ArrowRows(gathered.rows())
    assert list(found) == rows
    assert (found[3], found[-1], found[1:3], len(found)) == (rows[3], rows[-1], rows[1:3], 70)
    with pytest.raises(IndexError):
        found[70]
    with pytest.raises(ValueError, match="columns"):
        gathered.add([{"slide_id": "s"}] * 40)
    one: packed.Packed[SlideRow] = packed.Packed()
    one["s0"] = ROWS[0]
    assert (one["s0"], "s0" in one, "s1" in one, len(one)) == (ROWS[0], True, False, 1)


def test_regions_of_several_patients_are_read_at_the_same_time(monkeypatch: pytest.MonkeyPatch) -> None:
    pair = threading.Barrier(2, timeout=30)

    class Comparing:
        def __init__(self, **how: Any) -> None: ...

        def compare(self, cases: Any) -> Comparison:
            pair.wait()
            return Comparison((), ())

    monkeypatch.setattr(publishing, "Comparer", Comparing)
    monkeypatch.setattr(publishing, "by_patient", lambda _: {"p1": (), "p2": ()})
    bucket: Any = SimpleNamespace(is_local=False)
    found = BETWEEN(SimpleNamespace(store=bucket, config=load_config(environment={})), [], [])
    assert [row["patient_id"] for row in found[PATIENT_HETEROGENEITY_WIDE]] == ["p1", "p2"]
