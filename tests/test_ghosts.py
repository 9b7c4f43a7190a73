"""What manifests no longer say leaves the tables; other cohorts in the same output stay."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from her2core.cases.specimens import SlideOutcome
from her2core.config import load_config
from her2core.lake import batches
from her2core.lake import tables as lake
from her2core.lake.ghosts import PICTURES, clear_pictures, pictured
from her2core.lake.schema import CASES, PATIENTS, SLIDES
from her2core.lake.tables import read_rows
from her2core.publish import TRUE, publish
from her2core.records import Assay, SlideRow, SlideState
from her2core.stages.finished import SlideFinished
from her2core.stages.run import Run
from her2core.storage.store import Store

SHOWN = ("", "-regions", "-fields")
Named = tuple[str, str, str | None, str | None]
"""Slide, case, specimen, patient."""


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setattr("her2core.publish.cohort_picture", lambda cases: b"")
    return Store(tmp_path / "out")


def run(store: Store, manifest: str, slides: Sequence[Named], cohort: str | None = None) -> None:
    """A run whose slides are all recorded as failed: rows of every table without a pixel."""
    rows = tuple(
        SlideRow(name, case, f"{name}.tif", Assay.IHC, patient, specimen)
        for name, case, specimen, patient in slides
    )
    config = load_config(environment={} if cohort is None else {"HER2_RUN__COHORT": cohort})
    run.count += 1  # type: ignore[attr-defined]
    name = f"r{run.count:03d}"  # type: ignore[attr-defined]
    one = Run(name, "2026-01-01T00:00:00+00:00", manifest, "00", rows, store, config)
    publish(one, [SlideFinished(SlideOutcome(row, SlideState.FAILED, "timeout", "x"), None) for row in rows])


run.count = 0  # type: ignore[attr-defined]


def held(store: Store) -> tuple[list[str], list[str], list[str]]:
    """Slides, specimens and patients in the tables."""
    slides = sorted(read_rows(store, SLIDES, ("slide_id",))["slide_id"].to_pylist())
    cases = read_rows(store, CASES, ("case_id", "specimen_id")).to_pylist()
    for table in TRUE:
        if table.name.startswith("case_"):
            compared = read_rows(store, table, ("case_id", "specimen_id")).to_pylist()
            assert {str(row) for row in compared} == {str(row) for row in cases}
    patients = read_rows(store, PATIENTS, ("patient_id",))["patient_id"].to_pylist()
    for table in TRUE:
        if table.name.startswith("patient_"):
            assert set(read_rows(store, table, ("patient_id",))["patient_id"].to_pylist()) == set(patients)
    return slides, ["/".join(filter(None, row.values())) for row in cases], patients


FIRST: list[Named] = [("s1", "ONE", "core", "P1"), ("s2", "ONE", "core", "P1"), ("s3", "TWO", None, "P2")]
OTHER: list[Named] = [("t1", "FAR", None, "Q1"), ("t2", "FAR", None, "Q1")]
FAR = (["t1", "t2"], ["FAR"], ["Q1"])


ONE_FIXED: list[Named] = [(name, "ONEFIX", "core", "P1") for name in ("s1", "s2")]
CORRECTED: dict[str, tuple[list[Named], list[str], list[str]]] = {
    "case": ([*ONE_FIXED, FIRST[2]], ["ONEFIX/core", "TWO"], ["P1", "P2"]),
    "patient": (
        [("s1", "ONE", "core", "P9"), ("s2", "ONE", "core", "P9"), FIRST[2]],
        ["ONE/core", "TWO"],
        ["P2", "P9"],
    ),
    "specimen": (
        [("s1", "ONE", "x", "P1"), ("s2", "ONE", "x", "P1"), FIRST[2]],
        ["ONE/x", "TWO"],
        ["P1", "P2"],
    ),
    "merged": ([FIRST[0], FIRST[1], ("s3", "ONE", "core", "P1")], ["ONE/core"], ["P1"]),
    "patient emptied": ([*FIRST[:2], ("s3", "TWO", None, None)], ["ONE/core", "TWO"], ["P1", "TWO"]),
    "swapped": (
        [("s1", "TWO", None, "P2"), FIRST[1], ("s3", "ONE", "core", "P1")],
        ["ONE/core", "TWO"],
        ["P1", "P2"],
    ),
}


def test_corrected_ids_take_the_old_rows_with_them(store: Store) -> None:
    """Whether the manifest keeps its name or not; one after the other, into one output."""
    run(store, "other.csv", OTHER)
    for i, (what, (now, cases, patients)) in enumerate(CORRECTED.items()):
        run(store, "m.csv", FIRST)
        run(store, ("m.csv", "corrected.csv")[i % 2], now)
        expected = (["s1", "s2", "s3", *FAR[0]], sorted([*cases, *FAR[1]]), sorted([*patients, *FAR[2]]))
        assert held(store) == expected, what


def test_a_specimen_that_lost_a_slide_to_another_case_goes_until_its_manifest_is_run(store: Store) -> None:
    run(store, "m.csv", FIRST)
    run(store, "part.csv", [("s1", "NEW", None, "P1")])
    assert held(store) == (["s1", "s2", "s3"], ["NEW", "TWO"], ["P1", "P2"])
    run(store, "m.csv", [("s1", "NEW", None, "P1"), *FIRST[1:]])
    assert held(store) == (["s1", "s2", "s3"], ["NEW", "ONE/core", "TWO"], ["P1", "P2"])


def test_a_slide_that_its_manifest_no_longer_names_goes(store: Store) -> None:
    run(store, "m.csv", FIRST)
    run(store, "other.csv", OTHER)
    run(store, "m.csv", FIRST[:2])
    assert held(store) == (["s1", "s2", *FAR[0]], ["FAR", "ONE/core"], ["P1", "Q1"])


def test_a_slide_that_another_cohort_took_over_stays(store: Store) -> None:
    run(store, "m.csv", FIRST)
    run(store, "other.csv", [*OTHER, FIRST[2]])
    run(store, "m.csv", FIRST[:2])
    assert held(store) == (["s1", "s2", "s3", *FAR[0]], ["FAR", "ONE/core", "TWO"], ["P1", "P2", "Q1"])


def test_a_part_of_a_cohort_under_another_name_takes_nothing_away(store: Store) -> None:
    run(store, "m.csv", FIRST)
    run(store, "part.csv", FIRST[2:])
    assert held(store) == (["s1", "s2", "s3"], ["ONE/core", "TWO"], ["P1", "P2"])


def test_a_named_cohort_may_change_its_manifest_s_name(store: Store) -> None:
    run(store, "m.csv", FIRST, "alpha")
    run(store, "m2.csv", FIRST[:2], "alpha")
    run(store, "m2.csv", OTHER, "beta")
    assert held(store) == (["s1", "s2", *FAR[0]], ["FAR", "ONE/core"], ["P1", "Q1"])


def test_a_run_that_died_between_its_commits_leaves_no_ghosts(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(store, "m.csv", FIRST)
    fixed: list[Named] = [("s1", "FIX", None, "P7"), *FIRST[1:2]]
    committed = batches.commit
    for after in (0, 1, 2, 4, 6):
        commits = iter(range(after))

        def dying(*given: Any, commits: Iterator[int] = commits) -> int:
            if next(commits, None) is None:
                raise KeyboardInterrupt
            return committed(*given)

        with monkeypatch.context() as patch:
            patch.setattr(lake, "commit", dying)
            patch.setattr(batches, "commit", dying)
            with pytest.raises(KeyboardInterrupt):
                run(store, "m.csv", fixed)
    run(store, "m.csv", fixed)
    assert held(store) == (["s1", "s2"], ["FIX", "ONE/core"], ["P1", "P7"])


def test_the_address_of_a_manifest_is_not_written_down_in_a_cohort_s_name(store: Store) -> None:
    def cohort(manifest: str) -> str:
        return Run("r", "", manifest, "", (), store, load_config(environment={})).cohort

    here = cohort("m.csv")
    assert (
        here
        == cohort("./m.csv")
        == cohort(str(Path("m.csv").absolute()))
        == cohort(f"file://{Path('m.csv').absolute()}")
    )
    assert len({here, cohort("sub/m.csv"), cohort("s3://b/m.csv")}) == 3
    assert "m.csv" not in here


def test_pictures_of_earlier_results_go_with_their_records(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of the run's slides that have newer ones, whatever slides are called, and of dropped ones."""
    old, new, other = "0" * 8, "1" * 8, "2" * 8
    named = ["s1", "s1-regions", "s2", "t1"]
    for name in [*named, "gone"]:
        for shown in ("", "-regions", "-fields"):
            for key in (old, new):
                store.write_bytes(f"pictures/{name}{shown}-{key}.png", b"")
        store.write_bytes(f"pictures/{name}-fields-{old}.geojson", b"")
    for path in (
        "pictures/cohort.png",
        "pictures/notes-of-s1.png",
        *(f"stages/slide/{k}00.json" for k in (old, new, other)),
    ):
        store.write_bytes(path, b"")
    rows = [
        {"slide_id": name}
        | {c: f"pictures/{name}{shown}-{new}.png" for c, shown in zip(PICTURES, SHOWN, strict=True)}
        for name in named
    ]
    rows[2] |= dict.fromkeys(PICTURES)  # s2 fails now
    monkeypatch.setattr("her2core.lake.ghosts.read_rows", lambda *_: pa.Table.from_pylist(rows))
    assert (
        clear_pictures(store, pictured(store), ["s1", "s1-regions", "s2"], ["gone"]) == 4 + 3 + 7
    )  # s1's regions are named as s1-regions
    left = {path.removeprefix("pictures/").split(".")[0] for path in store.list("pictures")}
    assert left == {"cohort", "notes-of-s1"} | {
        f"{name}{shown}-{key}"
        for name in named
        for shown in SHOWN
        for key in (old, new)
        if key == new or name in ("s2", "t1")
    }
    assert store.list("stages/slide") == [f"stages/slide/{k}00.json" for k in (new, other)]
