"""The report of a run: what it counts, what it leaves out, what it carries."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import subprocess
import sys
import threading
from contextlib import nullcontext
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable, write_deltalake
from typer.testing import CliRunner

from flows import nursery, report_process
from flows.report_process import ReportError, write_apart
from her2cli import app
from her2core.errors import ConfigError, Reason
from her2core.guidelines.rules_case import FLAGS as CASE_FLAGS
from her2core.guidelines.rules_case import HER2_CLASSES as CASE_CLASSES
from her2core.lake import finished
from her2core.lake.schema import HETEROGENEITY_WIDE, PATIENTS
from her2core.report import words
from her2core.report.batches import batch_tests
from her2core.report.build import page_path, review_order, write_report
from her2core.report.figures import exclusions, figure_tables, funnel, views
from her2core.report.page import as_json, columns
from her2core.report.quality import robust_scores
from her2core.report.run_tables import read_run
from her2core.report.slides import how_far, reader_differs
from her2core.storage.store import Store
from tests.conftest import ROOT, Bucket
from tests.helpers.report_run import FOLDER, RUN, blank, picture, slide, specimen, unscored, write_run

EVIL = "</script><script>window.stolen=1</script><img src=x onerror=window.stolen=1>"
MESSAGE = f"{FOLDER}/c.svs: is no slide; see s3://b/x?X-Amz-Signature=1"


@pytest.fixture
def run(tmp_path: Path) -> Store:
    """A run in which much went wrong."""
    return troubled(Store(tmp_path / "out"))


def troubled(store: Store) -> Store:
    named = {f"{kind}picture": f"pictures/a-{kind}1.png" for kind in ("", "fields_", "regions_")}
    slides = [
        slide("a", reader_score="2+", **named),
        slide("b", score="2+", her2_class="equivocal_2plus", antibody_clone="=cmd()"),
        unscored("c", "quarantined", "uncalibrated", "not_a_slide", message=MESSAGE),
        unscored("d", "indeterminate", "uncalibrated", "blur"),
        unscored("e", "skipped", "excluded"),
        slide(EVIL, case=EVIL),
    ]  # fmt: skip
    cases = [
        specimen(slides[:1]),
        specimen(slides[1:2], her2_status="Equivocal", her2_class="equivocal"),
        *(specimen([row], her2_status="Indeterminate", her2_class="indeterminate") for row in slides[2:5]),
        specimen(slides[5:], block_discordance=2),
    ]
    write_run(store, slides, cases, [blank(PATIENTS, patient_id="patient-case-a")])
    for path in named.values():
        store.write_bytes(path, picture("navy"))
    return store


def test_the_funnel_says_how_far_slides_came_and_why_no_further(run: Store) -> None:
    made = views(read_run(run))
    assert [(row["stage"], row["slides"], row["patients"]) for row in funnel(made.slides)] == [
        ("received", 6, 6),
        ("readable", 4, 4),
        ("scored", 3, 3),
        ("called", 2, 2),
    ]
    assert exclusions(made.slides) == [
        {"stage": "received", "why": "excluded by the manifest", "slides": 1},
        {"stage": "received", "why": "the file is not a slide", "slides": 1},
        {"stage": "readable", "why": "out of focus", "slides": 1},
        {"stage": "scored", "why": "IHC equivocal, no ISH result", "slides": 1},
    ]


@pytest.mark.parametrize(
    ("case", "why"),
    [
        ({"pending": "PENDING_IHC", "her2_status": "Indeterminate"}, "ISH waits for an IHC result"),
        ({"conflicts": ["positive and negative"]}, "statements contradict each other"),
        ({"borderline": True}, "more than one score is possible"),
        ({"incomplete": True}, "other slides of the specimen have no score"),
        ({}, "specimen indeterminate"),
    ],
)
def test_a_scored_slide_of_an_open_specimen_is_not_called(case: dict[str, Any], why: str) -> None:
    row = slide("a")
    assert how_far(row, specimen([row], **({"her2_status": "Indeterminate"} | case))) == (2, why)
    assert how_far(row, specimen([row], her2_status="Negative")) == (3, None)
    assert how_far(row, None) == (2, "no specimen")


def test_every_code_has_words() -> None:
    assert set(words.REASONS) == set(Reason)
    assert set(words.HER2_CLASSES) == set(CASE_CLASSES)
    assert set(CASE_FLAGS) <= set(words.FLAGS)


@pytest.mark.parametrize(
    ("reader", "score", "her2_class", "differs"),
    [
        ("0", "0", "null", False),
        ("0", "0", "ultralow", False),  # nobody split the reader's 0
        ("0_null", "0", "null", False),
        ("0_null", "0", "0_unresolved", False),
        ("0_null", "0", "ultralow", True),
        ("0_ultralow", "0", "null", True),
        ("0_ultralow", "0", "ultralow", False),
        ("0_ultralow", "1+", "low_1plus", True),
        ("0_null", "3+", "pos_IHC3", True),
        ("2+", "2+", "equivocal_2plus", False),
        (None, "2+", "equivocal_2plus", False),
        ("2+", None, None, False),
    ],
)
def test_reader_and_machine_agree_where_scores_do_and_nobody_splits_the_0_otherwise(
    reader: str | None, score: str | None, her2_class: str | None, differs: bool
) -> None:
    row = slide("a", score=score, her2_class=her2_class, reader_score=reader)
    assert (reader_differs(row) is not None) == differs


def test_reader_beside_machine_is_in_the_field_s_words_and_said_once(tmp_path: Path) -> None:
    rows = [
        slide("a", score="0", her2_class="ultralow", reader_score="0_null"),
        slide("b", score="3+", reader_score="0_null"),
    ]
    cases = [
        specimen(
            [row], conflicts=[f"{row['slide_id']}: reader 0_null, scored {computed}", "positive and negative"]
        )
        for row, computed in zip(rows, ("0 ultralow", "3+"), strict=True)
    ]
    store = Store(tmp_path / "out")
    write_run(store, rows, cases)
    tables = figure_tables(views(read_run(store)))
    assert tables["reader_machine"].to_pylist() == [
        {"reader": "0 null", "machine": "0 ultralow", "slides": 1},
        {"reader": "0 null", "machine": "3+", "slides": 1},
    ]
    assert [(row["between"], row["what"]) for row in tables["disagreements"].to_pylist()] == [
        ("reader and machine", "a: reader 0 null, machine 0 ultralow"),
        ("statements", "positive and negative"),
        ("reader and machine", "b: reader 0 null, machine 3+"),
        ("statements", "positive and negative"),
    ]


def test_of_a_specimen_that_nobody_measured_the_causes_are_those_of_its_slides(tmp_path: Path) -> None:
    pooled = ["insufficient_tumour", "uncalibrated", "blur"]
    lost, blurred = unscored("lost", "failed", "file_truncated"), unscored("blurred", "indeterminate", "blur")
    cases = [
        specimen([row], her2_status="Indeterminate", incomplete=True, reasons=pooled, n_scored=0)
        for row in (lost, blurred)
    ]
    store = Store(tmp_path / "out")
    write_run(store, [lost, blurred], cases)
    made = views(read_run(store))
    assert [row["why"] for row in made.specimens] == [
        ["blurred: out of focus", "too few tumour cells", "no stain control: uncalibrated"],
        ["lost: the file is cut off"],
    ]
    assert [row["n_scored"] for row in made.specimens] == [None, None]  # of no slide: not 0 cells found


def test_what_disagrees_is_named(run: Store) -> None:
    table = figure_tables(views(read_run(run)))["disagreements"].to_pylist()
    assert [(row["between"], row["what"]) for row in table] == [
        ("blocks", "IHC scores of blocks differ by 2"),
        ("reader and machine", "a: reader 2+, machine 3+"),
    ]


def test_outliers_are_counted_in_spreads_from_the_median() -> None:
    assert robust_scores([1, 2, 3]) == [None] * 3  # too few
    assert robust_scores([5.0] * 9) == [None] * 9  # all equal
    scores = robust_scores([1, 2, 3, 4, 5, 6, 7, 8, 40])  # median 5, median distance 2
    assert scores[-1] == pytest.approx(35 / (1.4826 * 2))
    mostly_equal = robust_scores([0.0] * 8 + [0.9])  # mean distance 0.1
    assert mostly_equal[-1] == pytest.approx(0.9 / (1.2533 * 0.1))


@pytest.mark.parametrize("by", ["scanner", "laboratory"])
def test_a_group_that_shifts_a_measure_is_found_and_one_that_does_not_is_not(by: str) -> None:
    rows = [
        slide(f"s{k}", **{"scanner": "A", by: "AB"[k % 2]}, fixative="XY"[k // 2 % 2], h_score=None,
              p_any_pct=None, membrane_od_mean=0.3 + 0.01 * k + (0.5 if k % 2 else 0), tissue_area_mm2=None)
        for k in range(40)
    ]  # fmt: skip
    found = {(test["factor"], test["measure"]): test for test in batch_tests(rows)}
    assert set(found) == {(by, "membrane OD"), ("fixative", "membrane OD")}
    assert found[by, "membrane OD"]["q"] < 1e-6
    assert found[by, "membrane OD"]["effect"] == pytest.approx(0.75, abs=0.01)  # 20 below 20: H = 29.27
    assert found["fixative", "membrane OD"]["q"] > 0.5
    assert batch_tests(rows[:8]) == []  # four of each


def test_nothing_from_outside_becomes_markup_and_no_address_is_shown(run: Store) -> None:
    made = write_report(run)
    page = run.read_bytes(made.path).decode()
    assert made.path == page_path(RUN)
    assert "<script>window.stolen" not in page
    assert page.count("</script>") == page.count("<script") == 5  # three of data, Plotly and ours
    assert "onerror=window" in page  # as text in the data
    shown = page + "".join(
        run.read_bytes(path).decode() for path in run.list(f"report/{RUN}/data") if path.endswith(".csv")
    )
    for secret in ("J. Doe", FOLDER, "Signature", str(run.root)):
        assert secret not in shown, secret
    (message,) = {row["message"] for row in views(read_run(run)).slides if row["message"]}
    assert message == "c.svs: is no slide; see x?…"


def test_data_of_the_page_survive_whatever_text_they_hold() -> None:
    rows = [{"a": EVIL, "b": float("nan")}, {"a": EVIL, "b": 1234567.0}, {"a": None, "b": 0.123456789}]
    text = as_json(columns(rows, ("a", "b")))
    assert not set("<>&") & set(text)
    assert json.loads(text) == {"a": {"d": [EVIL], "i": [0, 0, -1]}, "b": [None, 1234600, 0.12346]}


def test_the_data_of_every_figure_lie_beside_the_page_twice(run: Store) -> None:
    write_report(run)
    folder = f"report/{RUN}/data"
    tables = figure_tables(views(read_run(run)))
    names = {Path(path).name for path in run.list(folder)}
    assert names == {f"{name}.{kind}" for name in tables for kind in ("csv", "parquet")} | {"columns.csv"}
    for name, table in tables.items():
        rows = list(csv.reader(io.StringIO(run.read_bytes(f"{folder}/{name}.csv").decode())))
        stored = pq.read_table(io.BytesIO(run.read_bytes(f"{folder}/{name}.parquet")))
        assert stored.equals(table)
        assert rows[0] == table.column_names
        assert len(rows) == 1 + len(table)
    slides = {
        row["slide_id"]: row
        for row in csv.DictReader(io.StringIO(run.read_bytes(f"{folder}/slides.csv").decode()))
    }
    assert slides["b"]["antibody_clone"] == "'=cmd()"  # no formula
    meant = list(csv.DictReader(io.StringIO(run.read_bytes(f"{folder}/columns.csv").decode())))
    assert not [row for row in meant if not row["meaning"] and row["file"] not in ("coverage",)]


def test_a_report_on_a_real_s3_server_is_that_of_a_folder(run: Store, s3: Bucket, tmp_path: Path) -> None:
    bucket = troubled(Store(f"{s3.uri}/J. Doe/out", endpoint_url=s3.endpoint_url))
    here, there = write_report(run), write_report(bucket)
    assert there.uri.startswith(f"{s3.uri}/J. Doe/out/report/{RUN}/")
    assert bucket.read_bytes(there.path) == run.read_bytes(here.path)
    files = run.list(f"report/{RUN}", recursive=True)
    assert bucket.list(f"report/{RUN}", recursive=True) == files
    for path in files:
        assert bucket.read_bytes(path) == run.read_bytes(path), path
    elsewhere = write_report(bucket, into=Store(tmp_path / "here"))  # from a bucket into a folder
    assert Path(elsewhere.uri).stat().st_size == elsewhere.size_bytes


def test_pages_of_several_runs_in_one_folder_keep_their_own_data(tmp_path: Path) -> None:
    into = Store(tmp_path / "reports")
    for run_id, n in (("20260102T030405Z-abcdef", 1), ("20260203T030405Z-abcdef", 2)):
        store, of = Store(tmp_path / run_id), [slide(f"s{i}") for i in range(n)]
        write_run(store, of, [specimen([row]) for row in of], run_id=run_id)
        made = write_report(store, into=into)
        assert Path(made.data_uri).name == f"her2-report-{run_id}-data"
        assert f'"data_at":"her2-report-{run_id}-data"' in Path(made.uri).read_text()
    rows = [
        len(into.read_bytes(path).splitlines())
        for path in into.list(recursive=True)
        if path.endswith("/slides.csv")
    ]
    assert rows == [2, 3]


def test_who_has_outcome_and_rna_is_shown_where_their_tables_are_named(tmp_path: Path) -> None:
    store = Store(tmp_path / "out")
    of = [
        slide("a", specimen_id="core", site="primary"),
        slide("b", case="case-a", specimen_id="liver", site="metastasis"),
        slide("c"),
    ]
    write_run(store, of, [specimen([row]) for row in of])
    clinical, rna = tmp_path / "clinical.csv", tmp_path / "rna.csv"
    clinical.write_text(
        "patient_id,therapy_class,start,os_days,os_event\n"
        "patient-case-a,T-DM1,2020-01-01,90,1\npatient-case-c,T-DM1,2020-01-01,,\nq,TKI,2020-01-01,9,1\n"
    )
    rna.write_text("case_id,specimen_id,value,unit,platform\ncase-a,liver,5,TPM,seq\ncase-a,,5,TPM,seq\n")
    found = CliRunner().invoke(app, ["report", store.root, "--clinical", str(clinical), "--rna", str(rna)])
    assert "outcome: 2 of 3 specimens, by 1 of 3 rows" in found.output
    assert "RNA: 1 of 3 specimens, by 1 of 2 rows" in found.output
    rows = csv.DictReader(io.StringIO(store.read_bytes(f"report/{RUN}/data/coverage.csv").decode()))
    assert sorted((row["outcome"], row["RNA"], row["specimens"]) for row in rows) == [
        ("False", "False", "1"), ("True", "False", "1"), ("True", "True", "1")
    ]  # fmt: skip
    assert '"RNA"]' in store.read_bytes(page_path(RUN)).decode()
    write_report(store)
    assert "outcome" not in store.read_bytes(f"report/{RUN}/data/coverage.csv").decode()


def test_pictures_are_carried_until_the_budget_is_spent(run: Store, tmp_path: Path) -> None:
    full = write_report(run, into=Store(tmp_path / "full"))
    assert (full.n_pictured, full.n_thumbnails, full.n_full) == (1, 1, 1)
    page = Path(full.uri).read_text()
    assert page.count("data:image/webp;base64,") == 4
    none = write_report(run, into=Store(tmp_path / "none"), picture_bytes=0)
    assert (none.n_thumbnails, none.n_full) == (1, 0)
    assert '"pictures_at":null' in Path(none.uri).read_text()
    assert '"pictures_at":"../../"' in run.read_bytes(write_report(run, picture_bytes=0).path).decode()


def test_pictures_that_are_gone_are_left_out(run: Store) -> None:
    run.delete("pictures", recursive=True)
    made = write_report(run)
    assert (made.n_pictured, made.n_thumbnails) == (1, 0)


def test_an_earlier_run_is_reported_as_it_was(tmp_path: Path) -> None:
    store = Store(tmp_path)
    first = slide("a", score="1+", her2_class="low_1plus")
    write_run(store, [first], [specimen([first])], finished_at=_at(1))
    measures = [blank(HETEROGENEITY_WIDE, slide_id="a", case_id="case-a", shannon=0.5)]
    write_run(
        store,
        [slide("a")],
        [specimen([slide("a")])],
        (),
        measures,
        "20270102T030405Z-abcdef",
        finished_at=_at(2),
    )
    (last,) = read_run(store).slides
    (then,) = read_run(store, RUN).slides
    assert (last["score"], then["score"]) == ("3+", "1+")
    assert (read_run(store).measures["a"]["shannon"], read_run(store, RUN).measures) == (0.5, {})
    with pytest.raises(ConfigError, match=f"no finished run nothing; the last ones are {RUN}, 2027"):
        read_run(store, "nothing")
    with pytest.raises(ConfigError, match="holds no finished run"):
        read_run(Store(tmp_path / "empty"))


@pytest.mark.parametrize("state", ["running", "interrupted"])
def test_a_run_that_has_not_come_to_its_end_is_not_the_last(run: Store, state: str) -> None:
    later = "20270102T030405Z-abcdef"
    write_run(run, [slide("a")], [specimen([slide("a")])], run_id=later, state=state, finished_at=_at(9))
    assert read_run(run).run_id == RUN
    with pytest.raises(ConfigError, match=f"no finished run {later}"):
        read_run(run, later)


def test_a_run_of_an_older_version_is_reported_without_the_columns_it_lacks(run: Store) -> None:
    uri = run.delta_uri("tables/runs")
    older = DeltaTable(uri).to_pyarrow_table().drop_columns(["cohort"])
    write_deltalake(uri, older, mode="overwrite", schema_mode="overwrite")
    page = run.read_bytes(write_report(run).path).decode()
    assert "Cohort of manifest.csv" in page


def _at(day: int) -> datetime:
    return datetime(2026, 1, day, tzinfo=UTC)


def test_a_report_needs_neither_kernels_nor_readers() -> None:
    heavy = ["numba", "cv2", "matplotlib", "zarr", "dask", "prefect", "typer"]
    heavy += ["her2core.kernels", "her2core.readers"]
    code = f"import sys; import her2core.report.compare; print([m for m in {heavy} if m in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_the_page_forbids_every_script_but_its_own_and_every_connection(run: Store) -> None:
    page = run.read_bytes(write_report(run).path).decode()
    (policy,) = re.findall(r'http-equiv="Content-Security-Policy" content="([^"]+)"', page)
    assert policy.startswith("default-src &#x27;none&#x27;; script-src &#x27;sha256-")
    assert policy.count("sha256-") == 2
    assert "http" not in policy


def test_pictures_of_what_a_person_should_look_at_come_first(tmp_path: Path) -> None:
    slides = [slide("a1", case="a"), slide("a2", case="a"), slide("b1", case="b"), slide("c1", case="c")]
    cases = [
        specimen(slides[:2]),
        specimen(slides[2:3], borderline=True),
        specimen(slides[3:], pending="ADJUDICATE"),
    ]
    write_run(Store(tmp_path), slides, cases)
    made = views(read_run(Store(tmp_path)))
    assert [made.slides[at]["slide_id"] for at in review_order(made)] == ["b1", "c1", "a1", "a2"]


def test_the_command_line_writes_a_page_or_says_what_it_needs(run: Store, tmp_path: Path) -> None:
    def asked(*words: str) -> Any:
        return CliRunner().invoke(app, ["report", *words])

    made = json.loads(asked(f"{run.root}@{RUN}", "--out", str(tmp_path / "to"), "--json").output)
    assert Path(made["page"]).stat().st_size == made["bytes"]
    compared = json.loads(asked("--compare", run.root, run.root, "--json").output)
    assert (compared["slides_changed"], compared["specimens_changed"]) == (0, 0)
    assert str(asked("--compare", run.root).exception) == "1 runs given; --compare takes two runs"
    assert "2 runs given; one run a report" in str(asked(run.root, run.root).exception)
    assert "no finished run 20200102T030405Z-abcdef" in str(
        asked(f"{run.root}@20200102T030405Z-abcdef").exception
    )


@pytest.mark.parametrize("forked", [False, True])
def test_a_process_of_its_own_writes_the_same_report_and_says_what_hinders_it(
    run: Store, forked: bool
) -> None:
    with nursery.open_nursery() if forked else nullcontext():
        path = write_apart(run, RUN)
        page = run.read_bytes(path)
        assert page == run.read_bytes(write_report(run, RUN).path)
        with pytest.raises(ReportError, match=r"ConfigError: .* holds no finished run r9; the last ones are"):
            write_apart(run, "r9")


def test_the_process_of_a_report_ends_with_its_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    theirs, ours = os.pipe()
    ended: list[int] = []
    monkeypatch.setattr(report_process.os, "_exit", ended.append)
    watching = threading.Thread(target=report_process._end_with, args=(theirs,))
    watching.start()
    watching.join(0.05)
    assert watching.is_alive()
    os.close(ours)  # as the system does for a process that is killed
    watching.join(10)
    os.close(theirs)
    assert ended == [report_process.FAILED]


def test_what_its_process_says_before_it_began_is_shown_without_secrets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where a package cannot be imported."""
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho 'ImportError: from https://me:secret@host/simple' >&2\nexit 1\n")
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    with pytest.raises(ReportError, match=r"ImportError: from https://[^s@]*@host/simple"):
        write_apart(Store(tmp_path / "out"), "r1")


def test_of_other_runs_it_is_not_read_what_they_name(run: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every run names all of its slides: of ten thousand that is megabytes."""
    asked: list[str] = []
    select = finished.select
    monkeypatch.setattr(finished, "select", lambda delta, query: asked.append(query) or select(delta, query))
    assert "inputs" not in read_run(run).run
    (whole,) = [query for query in asked if '"inputs"' in query]
    assert f"run_id = '{RUN}'" in whole
