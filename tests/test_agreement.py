"""Agreement: statistics against independent code and published examples, and what the summary reports."""

from __future__ import annotations

import csv
import random
import warnings
from datetime import date
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from her2core.analysis.agreement import compute_agreement, majority
from her2core.analysis.agreement_report import report_agreement
from her2core.analysis.kappa import (
    LINEAR,
    QUADRATIC,
    UNWEIGHTED,
    agree_all,
    cohens_kappa,
    fleiss,
    fleiss_terms,
    icc_agreement,
    icc_terms,
)
from her2core.analysis.reads import Read, Reads, gather, machine_read, read_table
from her2core.analysis.resampling import Resampled
from her2core.analysis.results import Answer, write_answer
from her2core.errors import ManifestError
from her2core.storage.store import Store

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from statsmodels.stats.inter_rater import cohens_kappa as their_kappa
    from statsmodels.stats.inter_rater import fleiss_kappa as their_fleiss

FLEISS_1971 = np.array(
    [
        [0, 0, 0, 6, 0], [0, 3, 0, 0, 3], [0, 1, 4, 0, 1], [0, 0, 0, 0, 6], [0, 3, 0, 3, 0], [2, 0, 4, 0, 0],
        [0, 0, 4, 0, 2], [2, 0, 3, 1, 0], [2, 0, 0, 4, 0], [0, 0, 0, 0, 6], [1, 0, 0, 5, 0], [1, 1, 0, 4, 0],
        [0, 3, 3, 0, 0], [1, 0, 0, 5, 0], [0, 2, 0, 3, 1], [0, 0, 5, 0, 1], [3, 0, 0, 1, 2], [5, 1, 0, 0, 0],
        [0, 2, 0, 4, 0], [1, 0, 2, 0, 3], [0, 0, 0, 0, 6], [0, 1, 0, 5, 0], [0, 2, 0, 1, 3], [2, 0, 0, 4, 0],
        [1, 0, 0, 4, 1], [0, 5, 0, 1, 0], [4, 0, 0, 0, 2], [0, 2, 0, 4, 0], [1, 0, 5, 0, 0], [0, 0, 0, 0, 6],
    ],
    np.float64,
)  # fmt: skip
"""30 patients, 6 psychiatrists, 5 diagnoses; kappa 0.430 (Fleiss 1971, table 1)."""
SHROUT_FLEISS_1979 = np.array(
    [[9, 2, 5, 8], [6, 1, 3, 2], [8, 4, 6, 8], [7, 1, 2, 6], [10, 5, 6, 9], [6, 2, 4, 7]], np.float64
)
"""Six targets, four judges; ICC(2,1) 0.29 (Shrout and Fleiss 1979, tables 2 and 4)."""


def test_kappas_are_those_of_statsmodels() -> None:
    rng = np.random.default_rng(3)
    a = rng.integers(0, 4, 200)
    b = np.where(rng.random(200) < 0.6, a, rng.integers(0, 4, 200))
    table = np.zeros((4, 4))
    np.add.at(table, (a, b), 1)
    for weight, theirs in ((UNWEIGHTED, None), (LINEAR, "linear"), (QUADRATIC, "quadratic")):
        assert cohens_kappa(a, b, 4, weight) == pytest.approx(
            their_kappa(table, wt=theirs, return_results=False), abs=1e-12
        )
    assert np.isnan(cohens_kappa(np.zeros(5, int), np.zeros(5, int), 4))


def test_cohen_1960() -> None:
    """Cohen's example of 200 patients: observed 0.70, by chance 0.41, kappa 0.492."""
    counts = ((88, 14, 18), (10, 40, 10), (2, 6, 12))
    pairs = [(i, j) for i, row in enumerate(counts) for j, n in enumerate(row) for _ in range(n)]
    a, b = np.array(pairs).T
    assert cohens_kappa(a, b, 3, UNWEIGHTED) == pytest.approx(0.492, abs=5e-4)


def test_fleiss_1971_and_statsmodels() -> None:
    ours = float(fleiss(fleiss_terms(FLEISS_1971).sum(0)[None])[0])
    assert ours == pytest.approx(0.430, abs=5e-4)
    assert ours == pytest.approx(their_fleiss(FLEISS_1971), abs=1e-12)


def test_shrout_and_fleiss_1979() -> None:
    assert float(icc_agreement(icc_terms(SHROUT_FLEISS_1979).sum(0)[None])[0]) == pytest.approx(
        0.29, abs=5e-3
    )


def test_onest_is_the_mean_over_all_orders_of_readers() -> None:
    """Against drawing the readers: of slides with (3, 0), (2, 1) readers two agree always, and in one of
    three."""
    counts = np.array([[3.0, 0.0], [2.0, 1.0]])
    assert agree_all(counts, 2).tolist() == pytest.approx([1.0, 1 / 3])
    assert agree_all(counts, 3).tolist() == [1.0, 0.0]


def test_intervals_know_that_slides_of_a_patient_are_alike() -> None:
    """Ten copies of every slide, of the same patients: the interval must not shrink."""
    rng = np.random.default_rng(0)
    x = (rng.random((40, 1)) < 0.7).astype(np.float64)
    names = [f"p{i}" for i in range(40)]
    one = Resampled.of(np.hstack([x, np.ones_like(x)]), names).share(0, 1)
    ten = Resampled.of(np.hstack([np.repeat(x, 10, 0), np.ones((400, 1))]), np.repeat(names, 10).tolist())
    assert ten.share(0, 1).high - ten.share(0, 1).low == pytest.approx(one.high - one.low)
    assert one.low < one.value < one.high


def panel(n: int = 60, readers: int = 4, noise: float = 0.3, seed: int = 1) -> list[tuple[str, str, str]]:
    """Slide, reader, score: readers that stray by one level with some chance."""
    rng = random.Random(seed)
    words = ("0_null", "0_ultralow", "1+", "2+", "3+")
    rows = []
    for i in range(n):
        truth = rng.randrange(5)
        for r in range(readers):
            level = truth + (rng.choice((-1, 1)) if rng.random() < noise else 0)
            rows.append((f"s{i:02d}", f"reader{r}", words[min(max(level, 0), 4)]))
    return rows


def write(path: Path, header: str, rows: list[tuple[str, ...]]) -> str:
    with path.open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(header.split(","))
        table.writerows(rows)
    return str(path)


def test_the_same_reads_in_any_order_give_the_same_bytes(tmp_path: Path) -> None:
    rows = panel(24, 3)
    answers = []
    for place, order in enumerate((rows, rows[::-1])):
        uri = write(tmp_path / f"{place}.csv", "slide_id,reader,score", order)
        answers.append(report_agreement(compute_agreement(gather({}, uri))))
    assert answers[0].text == answers[1].text
    assert [t.csv() for t in answers[0].tables] == [t.csv() for t in answers[1].tables]
    assert answers[0].figures == answers[1].figures


def test_panel_figures_agree_with_independent_code(tmp_path: Path) -> None:
    uri = write(tmp_path / "reads.csv", "slide_id,reader,score", panel())
    found = compute_agreement(gather({}, uri))
    five = next(p for p in found.panels if p.scheme == "five tiers")
    words = ["0_null", "0_ultralow", "1+", "2+", "3+"]
    counts = np.zeros((60, 5))
    for slide, _, score in panel():
        counts[int(slide[1:]), words.index(score)] += 1
    assert five.fleiss.value == pytest.approx(their_fleiss(counts), abs=1e-12)
    assert five.fleiss.low < five.fleiss.value < five.fleiss.high
    assert five.agree_all.value == (counts.max(1) == 4).mean()
    assert [k for k, _ in five.onest] == [2, 3, 4]
    assert five.onest[-1][1].value == pytest.approx(five.agree_all.value)
    curve = [v.value for _, v in five.onest]
    assert curve == sorted(curve, reverse=True)
    assert {o.rater for o in found.left_out} == {f"reader{i}" for i in range(4)}


def test_a_wide_table_is_a_long_one(tmp_path: Path) -> None:
    rows = panel(readers=2)
    wide = [(a[0], a[2], b[2]) for a, b in zip(rows[::2], rows[1::2], strict=True)]
    long_ = read_table(write(tmp_path / "long.csv", "slide_id,reader,score", rows))
    assert long_ == read_table(
        write(tmp_path / "wide.csv", "slide_id,x_reader_reader0,x_reader_reader1", wide)
    )


def level(slide: str, rater: str, word: str | None, **more: object) -> Read:
    return Read(slide, rater, word, None if word else "indeterminate", **more)  # type: ignore[arg-type]


def test_indeterminates_and_unsplit_zeros_are_counted_and_in_no_rate() -> None:
    truth = ["null", "ultralow", "ultralow", "0", "1+", "3+", "2+", "ultralow"]
    said = ["null", "null", "ultralow", "null", "1+", None, "3+", "0"]
    reads = [level(f"s{i}", "anna", x) for i, x in enumerate(truth)]
    reads += [level(f"s{i}", "machine", x) for i, x in enumerate(said)]
    found = compute_agreement(
        Reads(tuple(reads), {f"s{i}": f"p{i}" for i in range(8)}, ("anna",), ("machine",))
    )
    counts = {rater: levels for rater, _, levels in found.counts}
    assert counts["machine"] == {"null": 3, "ultralow": 1, "1+": 1, "indeterminate": 1, "3+": 1, "0": 1}
    four, five = (next(p for p in found.pairs if p.scheme == s) for s in ("four tiers", "five tiers"))
    assert (four.n, four.agreement.value) == (7, 6 / 7)
    assert (five.n, five.agreement.value) == (5, 3 / 5)
    [ultralow] = found.ultralow
    assert (ultralow.null.n, ultralow.null.value, ultralow.called["0"]) == (2, 0.5, 1)
    cuts = {c.cut: c for c in found.cuts}
    assert (cuts["null|ultralow"].overall.n, cuts["null|ultralow"].unsplit) == (5, 2)
    assert (cuts["2+|3+"].positive.n, cuts["2+|3+"].negative.value) == (0, 6 / 7)
    text = report_agreement(found).text
    assert "indeterminate" in text
    assert "50.0 %" in text


def test_majority_wants_more_than_half() -> None:
    a, b, c, d = ({"s": x} for x in ("null", "ultralow", "ultralow", "1+"))
    assert majority([a, b, c, d]) == ({"s": "ultralow"}, 0)
    assert majority([a, b]) == ({"s": "0"}, 0)
    assert majority([a, d]) == ({}, 1)
    assert majority([a]) == ({}, 1)


def test_repeated_reads_and_cap(tmp_path: Path) -> None:
    """60 slides read twice, two weeks apart, of which two differ: 96.7 %; and one a day too early."""
    rows = []
    for i in range(60):
        rows.append((f"s{i}", "anna", "2+", "2026-01-01", "glass"))
        later = date(2026, 1, 14 if i == 59 else 15).isoformat()
        rows.append((f"s{i}", "anna", "3+" if i < 2 else "2+", later, "digital"))
    uri = write(tmp_path / "reads.csv", "slide_id,reader,score,date,modality", rows)
    found = compute_agreement(gather({}, uri))
    assert {(i.washed_out, i.pair.n) for i in found.intra} == {(True, 59), (False, 1)}
    met = {c.requirement: c.met for c in found.cap}
    assert met["60 cases for one application"] is False
    assert met["wash-out of at least 14 days"] is False
    kept = write(tmp_path / "more.csv", "slide_id,reader,score,date,modality", [
        (s, r, x, d.replace("01-14", "01-15"), m) for s, r, x, d, m in rows
    ])  # fmt: skip
    checks = compute_agreement(gather({}, kept)).cap
    assert [c.met for c in checks] == [True, None, True, True, True]
    assert checks[4].found == "60 pairs of reads of two modalities"
    assert "96.7 %" in checks[3].found


def test_cap_counts_cases(tmp_path: Path) -> None:
    """Two slides of one case are one; two cases of a patient are two; without cases patients count."""
    of = (("s1", "p1", "c1"), ("s2", "p1", "c1"), ("s3", "p1", "c2"), ("s4", "p2", ""))
    rows = [
        (slide, "anna", "2+", day, patient, case)
        for slide, patient, case in of
        for day in ("2026-01-01", "2026-02-01")
    ]
    uri = write(tmp_path / "reads.csv", "slide_id,reader,score,date,patient_id,case_id", rows)
    first, more, *_ = compute_agreement(gather({}, uri)).cap
    assert (first.found, first.met, more.met) == ("3 cases read twice with the wash-out", False, False)
    uri = write(tmp_path / "other.csv", "slide_id,reader,score,date,patient_id", [row[:5] for row in rows])
    assert compute_agreement(gather({}, uri)).cap[0].found == "2 cases read twice with the wash-out"
    several = [*rows, ("s1", "ben", "2+", "", "p1", "c9")]
    uri = write(tmp_path / "two.csv", "slide_id,reader,score,date,patient_id,case_id", several)
    with pytest.raises(ManifestError, match="slide s1 is of case c1 and of c9"):
        gather({}, uri)


def test_assisted_reads_are_a_panel_of_their_own(tmp_path: Path) -> None:
    rows = [
        (f"s{i}", reader, score, assisted)
        for i in range(10)
        for reader, assisted, score in (
            ("anna", "no", "0_null"), ("ben", "no", "0_ultralow"), ("cleo", "no", "0_ultralow"),
            ("anna", "yes", "0_ultralow"), ("ben", "yes", "0_ultralow"),
        )
    ]  # fmt: skip
    found = compute_agreement(gather({}, write(tmp_path / "r.csv", "slide_id,reader,score,assisted", rows)))
    null = {u.rater: u.null.value for u in found.ultralow}
    assert null["anna"] == 1.0
    assert null["anna, assisted"] == 0.0
    assert {p.name for p in found.panels} == {"readers", "readers, assisted"}


@pytest.mark.parametrize(
    ("header", "rows", "said"),
    [
        ("slide_id,reader,score", [("s1", "anna", "4+")], "row 2: score is '4+'"),
        ("slide_id,reader,score", [("s1", "anna", "1+"), ("s1", "anna", "2+")], "anna read s1 2 times"),
        (
            "slide_id,reader,score,round,date",
            [("s1", "anna", "1+", "2", ""), ("s1", "anna", "2+", "", "2026-01-01")],
            "anna read s1 2 times",
        ),
        ("slide_id,reader,score,date", [("s1", "anna", "1+", "1.2.2026")], "expected YYYY-MM-DD"),
        ("slide_id,score", [("s1", "1+")], "expected the columns slide_id, reader and score"),
        ("slide_id,reader,score", [("", "anna", "1+")], "no slide_id"),
    ],
)
def test_tables_that_cannot_be_used_are_refused_in_words(
    tmp_path: Path, header: str, rows: list[tuple[str, ...]], said: str
) -> None:
    with pytest.raises(ManifestError, match=r"cannot be used|expected the columns") as error:
        gather({}, write(tmp_path / "reads.csv", header, rows))
    assert said in str(error.value)


def test_what_a_run_says_of_a_slide() -> None:
    row = {"slide_id": "s", "state": "scored", "score": "0", "her2_class": "ultralow"}
    assert machine_read("m", row).level == "ultralow"
    assert machine_read("m", row | {"her2_class": "0_unresolved"}).level == "0"
    failed = machine_read("m", row | {"state": "failed", "score": None})
    assert (failed.level, failed.why) == (None, "failed")


def test_the_answer_is_written_as_tables_figures_and_text(tmp_path: Path) -> None:
    uri = write(tmp_path / "reads.csv", "slide_id,reader,score", panel(24, 3))
    answer = report_agreement(compute_agreement(gather({}, uri)))
    files = write_answer(Store(tmp_path / "out"), answer)
    assert {"summary.md", "pairs.csv", "pairs.parquet", "dictionary.csv", "figures/onest.png"} <= set(files)
    rows = pq.read_table(tmp_path / "out" / "pairs.parquet").to_pylist()
    assert len(rows) == len(answer.table("pairs").rows)
    described = {
        (r["table"], r["column"])
        for r in csv.DictReader((tmp_path / "out/dictionary.csv").read_text().splitlines())
    }
    assert described == {(t.name, c.name) for t in answer.tables for c in t.columns}
    text = (tmp_path / "out" / "summary.md").read_text()
    assert "Robbins 2023" in text
    assert "Research use only" in text
    (tmp_path / "out" / "figures" / "mine.png").write_bytes(b"mine")
    later = Answer(answer.title, answer.text, answer.tables[:1], {})
    assert "figures/onest.png" not in write_answer(Store(tmp_path / "out"), later)
    left = set(Store(tmp_path / "out").list(recursive=True))
    name = answer.tables[0].name
    assert left == {
        f"{name}.csv",
        f"{name}.parquet",
        "dictionary.csv",
        "summary.md",
        "files.txt",
        "figures/mine.png",
    }
    (tmp_path / "secret.csv").write_text("x")
    (tmp_path / "out" / "files.txt").write_text("../secret.csv\nfigures/../../secret.csv\n")
    write_answer(Store(tmp_path / "out"), later)
    assert (tmp_path / "secret.csv").exists()


def test_a_reader_of_few_slides_does_not_undo_the_panel(tmp_path: Path) -> None:
    rows = panel(24, 3)
    several = compute_agreement(gather({}, write(tmp_path / "a.csv", "slide_id,reader,score", rows)))
    few = [*rows, (rows[0][0], "guest", "3+")]
    found = compute_agreement(gather({}, write(tmp_path / "b.csv", "slide_id,reader,score", few)))
    [before, *_], [after, *_] = several.panels, found.panels
    assert after.absent == ("guest",)
    assert (after.raters, after.n, after.fleiss.value) == (before.raters, before.n, before.fleiss.value)
    text = report_agreement(found).text
    assert "In no panel, with a level of fewer than 50% of the slides of the busiest rater: guest" in text
    assert "In no panel" not in report_agreement(several).text
