"""Clinical HER2 tables: every cell ends as a value or a reason, every row as an outcome."""

from __future__ import annotations

import csv
from collections import Counter
from pathlib import Path

import pytest

from her2core.cases.clinical import (
    ClinicalRow,
    clean,
    manifest_columns,
    parse_clinical,
    read_clinical,
    summarise,
)
from her2core.cases.clinical_cells import REASONS, read_cell
from her2core.cases.external import external_ish
from her2core.errors import ManifestError
from her2core.guidelines.rules_case import case_rules_for
from her2core.guidelines.rules_ish import load_ish_rules
from her2core.manifest import read_manifest

TABLE = "clinical/tcga_brca_clinical_patient.txt"


def row(**cells: str) -> ClinicalRow:
    return clean({"patient_id": "p1", "ihc_status": "", "ish_status": ""} | cells)


@pytest.mark.parametrize(
    ("column", "text", "value", "reason"),
    [
        ("ish_ratio", "1.13", 1.13, None),
        ("ish_ratio", "1,13", 1.13, None),
        ("ish_ratio", "0", None, "implausible"),
        ("ish_ratio", "51", None, "implausible"),
        ("ish_ratio", "1.8-2.2", None, "range"),
        ("ish_her2", "240/60", 4.0, None),
        ("ish_her2", "4/0", None, "text_in_number"),
        ("ish_her2", "not amplified", None, "text_in_number"),
        ("ish_her2", ">6.0", None, "range"),
        ("ish_her2", "-2", None, "text_in_number"),
        ("ish_cep17", "polisomy", None, "text_in_number"),
        ("ish_cep17", "[Not Available]", None, "not_available"),
        ("n_nuclei", "60", 60, None),
        ("n_nuclei", "60.5", None, "implausible"),
        ("n_nuclei", "0", None, "implausible"),
        ("ihc_percent", "4/60", 100 * 4 / 60, None),
        ("ihc_percent", "15%", 15, None),
        ("ihc_percent", "120", None, "implausible"),
        ("ihc_percent", "<10%", None, "range"),
        ("ihc_percent", "30-39%", None, "range"),
        ("ihc_percent", "", None, "empty"),
    ],
)
def test_a_number_cell_ends_as_a_number_or_a_reason(
    column: str, text: str, value: float | None, reason: str | None
) -> None:
    reading = read_cell(column, text)
    assert reading.reason == reason
    assert (None if reading.value is None else float(reading.value)) == pytest.approx(value)


@pytest.mark.parametrize(
    ("column", "text", "word", "reason"),
    [
        ("ihc_status", "Negative", "Negative", None),
        ("ihc_status", "[Not Evaluated]", None, "not_evaluated"),
        ("ish_status", "POSITIVE", "Positive", None),
        ("ish_status", "Not Performed", None, "not_performed"),
        ("ish_status", "see report", None, "unknown_text"),
        ("ihc_score", "2+", "2+", None),
        ("ihc_score", "2-3+", None, "unknown_text"),
    ],
)
def test_a_word_cell_ends_as_a_known_word_or_a_reason(
    column: str, text: str, word: str | None, reason: str | None
) -> None:
    reading = read_cell(column, text)
    assert (reading.word, reading.reason) == (word, reason)


def test_a_percentage_keeps_its_range() -> None:
    assert [row(ihc_percent=p).ihc_percent for p in ("<10%", "30-39%", ">50%", "[Unknown]")] == [
        (0, 10),
        (30, 39),
        (50, 100),
        None,
    ]


def test_signal_totals_become_copies_a_nucleus() -> None:
    found = row(ish_her2="816", ish_cep17="51", n_nuclei="30", ish_ratio="16.0")
    assert (found.ish_her2, found.ish_cep17, found.ish_ratio) == (27.2, 1.7, 16.0)
    assert found.derived[0] == "ish_her2 27.20 = 816 signals / 30 nuclei"
    assert found.conflicts == ()
    few_copies_but_a_total = row(ish_her2="47", ish_cep17="63", n_nuclei="30")  # 47 alone could be a mean
    assert few_copies_but_a_total.ish_her2 == 47 / 30
    a_mean = row(ish_her2="21", ish_cep17="2", n_nuclei="20", ish_ratio="11")
    assert (a_mean.ish_her2, a_mean.ish_cep17, a_mean.derived) == (21.0, 2.0, ())


def test_totals_without_the_number_of_nuclei_give_a_ratio_and_no_copies() -> None:
    found = row(ish_her2="114", ish_cep17="74")
    assert (found.ish_her2, found.ish_cep17, found.ish_ratio) == (None, None, 114 / 74)
    assert found.reasons["ish_her2"] == found.reasons["ish_cep17"] == "total_without_cells"
    assert found.unread == {"ish_her2": "114", "ish_cep17": "74"}
    assert found.ish_outcome == "ratio"


def test_a_bound_is_kept_as_text_and_never_as_a_number() -> None:
    found = row(ish_status="Positive", ish_her2=">6.0", ish_ratio="2.2")
    assert (found.ish_her2, found.unread["ish_her2"], found.conflicts) == (None, ">6.0", ())


@pytest.mark.parametrize(
    ("cells", "conflict"),
    [
        ({"ish_status": "Negative", "ish_ratio": "3.1"}, "ISH status Negative, ratio 3.1"),
        ({"ish_status": "Negative", "ish_ratio": "2.0"}, "ISH status Negative, ratio 2"),
        ({"ish_status": "Negative", "ish_ratio": "1.99"}, None),
        ({"ish_status": "Positive", "ish_ratio": "1.4"}, "ISH status Positive, ratio 1.4"),
        ({"ish_status": "Positive", "ish_ratio": "1.4", "ish_her2": "6.1"}, None),
        (
            {"ish_status": "Negative", "ish_her2": "6.4", "ish_ratio": "1.3"},
            "ISH status Negative, 6.40 HER2 signals a nucleus",
        ),
        (
            {"ish_her2": "3.2", "ish_cep17": "2.7", "ish_ratio": "2.2"},
            "ratio 2.2, but HER2 3.2 / CEP17 2.7",
        ),
        ({"ish_her2": "5", "ish_cep17": "3.2", "ish_ratio": "1.6"}, None),  # 1.5625, rounded
        ({"ish_her2": "21", "ish_cep17": "2", "ish_ratio": "11"}, None),  # 8.2-14.3 by their own rounding
        (
            {"ish_status": "Positive", "ish_her2": "not amplified"},
            "ISH status Positive, HER2 copies 'not amplified'",
        ),
        ({"ish_status": "Negative", "ish_her2": "not amplified"}, None),
        ({"ish_status": "Negative", "ish_her2": "amplified"}, "ISH status Negative, HER2 copies 'amplified'"),
        ({"ihc_status": "Negative", "ihc_score": "3+"}, "IHC status Negative, IHC score 3+"),
        ({"ihc_status": "Equivocal", "ihc_score": "2+"}, None),
        ({"ihc_status": "Indeterminate", "ihc_score": "2+"}, None),
        ({"ihc_score": "3+", "ihc_percent": "<10%"}, "IHC score 3+, <10% of cells stained"),
        ({"ihc_score": "3+", "ihc_percent": "10-19%"}, None),
    ],
)
def test_statements_that_contradict_each_other_are_listed(
    cells: dict[str, str], conflict: str | None
) -> None:
    assert row(**cells).conflicts == ((conflict,) if conflict else ())


TEXT = """#note\tof the export
PATIENT_ID\tHER2_STATUS_BY_IHC\tHER2_FISH_STATUS\tHER2_CENT17_RATIO\tother
patient_id\tx\ty\tz\t
CDE_ID:1\tCDE_ID:2\t\t\t
p1\tEquivocal\tNegative\t1.1\tq

p2\t[Not Evaluated]
"""


def test_comments_and_sub_headers_are_no_patients_and_short_rows_are_empty() -> None:
    one, two = parse_clinical(TEXT)
    assert (one.patient_id, one.row, one.ish_ratio, one.reasons["ihc_score"]) == ("p1", 5, 1.1, "no_column")
    assert (two.ihc_outcome, two.ish_outcome, two.row) == ("not_evaluated", "empty", 7)


def test_a_table_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match=r"ihc_status.*her2_status_by_ihc or ihc_her2"):
        parse_clinical("patient_id\tage\np1\t50\n")
    with pytest.raises(ManifestError, match="expected a tab-separated table"):
        parse_clinical("")
    with pytest.raises(ManifestError, match="several rows: p1"):
        parse_clinical(TEXT.replace("p2", "p1"))
    with pytest.raises(ManifestError, match="cannot be read"):
        read_clinical(str(tmp_path / "none.txt"))


def test_a_status_that_the_row_denies_is_no_value() -> None:
    found = row(ish_status="Positive", ish_her2="not amplified")
    assert (found.ish_status, found.ish_outcome) == (None, "contradicted")
    assert found.unread == {"ish_status": "Positive", "ish_her2": "not amplified"}
    assert set(manifest_columns(found, "registry").values()) == {""}


def test_manifest_columns_hold_what_is_known_and_its_source() -> None:
    found = row(ihc_score="2+", ish_status="Positive", ish_ratio="3.2", ish_her2="172", ish_cep17="54",
                n_nuclei="20")  # fmt: skip
    assert manifest_columns(found, "registry") == {
        "reader_score": "2+",
        "ish_ratio": "3.2",
        "ish_her2": "8.6",
        "ish_cep17": "2.7",
        "ish_status": "Positive",
        "ish_source": "registry",
    }
    assert set(manifest_columns(row(), "registry").values()) == {""}


def test_every_row_of_the_tcga_table_ends_as_values_or_a_named_reason(shared_data: Path) -> None:
    """The figures of docs/cases.md."""
    rows = read_clinical(str(shared_data / TABLE))
    assert len(rows) == 1099 == len({r.patient_id for r in rows})
    counted = summarise(rows)
    assert counted["ihc"] == Counter(score=623, status=299, not_evaluated=169, not_available=8)
    assert counted["ish"] == Counter(
        ratio_and_copies=102,
        ratio=133,
        copies=1,
        status=183,
        contradicted=1,
        not_evaluated=596,
        not_available=82,
        not_performed=1,
    )
    assert {reason for r in rows for reason in r.reasons.values()} <= set(REASONS)
    for r in rows:  # every cell of every row: a value, or a reason
        for column in ("ihc_status", "ihc_score", "ish_status", "ish_ratio", "ish_her2", "ish_cep17"):
            assert (getattr(r, column) is None) == (column in r.reasons), (r.patient_id, column)
    by_id = {r.patient_id: r for r in rows}
    assert by_id["TCGA-E9-A1R2"].reasons["ish_her2"] == "total_without_cells"
    assert by_id["TCGA-A2-A1G1"].ish_her2 == 27.2
    assert by_id["TCGA-A7-A13H"].conflicts == (
        "ISH status Negative, ratio 2.2",
        "ratio 2.2, but HER2 3.2 / CEP17 2.7",
    )
    ish = sum(1 for r in rows if any(c.startswith(("ISH", "ratio")) for c in r.conflicts))
    assert (counted["conflicts"]["conflict"], ish) == (52, 7)


def test_the_tcga_table_becomes_a_manifest_and_ish_arms(shared_data: Path, tmp_path: Path) -> None:
    """The second table of docs/cases.md: reader's IHC and reported ISH, judged as specimens would be."""
    patients = read_clinical(str(shared_data / TABLE))
    manifest = tmp_path / "manifest.csv"
    with manifest.open("w", newline="") as file:
        names = ["slide_id", "case_id", "uri", "assay", *manifest_columns(patients[0], "TCGA")]
        table = csv.DictWriter(file, names)
        table.writeheader()
        for p in patients:
            ids = {"slide_id": p.patient_id, "case_id": p.patient_id, "uri": f"{p.patient_id}.svs"}
            table.writerow({**ids, "assay": "HER2-IHC", **manifest_columns(p, "TCGA")})
    ish_rules, case_rules = load_ish_rules("ish_asco_cap_2018"), case_rules_for("breast_asco_cap_2018")
    results: Counter[str | None] = Counter()
    classes: Counter[str | None] = Counter()
    conflicts = []
    for row in read_manifest(str(manifest)):
        found = external_ish([row], row.reader_score, ish_rules)
        conflicts += [sentence for e in found if e.decision is None for sentence in e.conflicts]
        decision = found[0].decision if found else None
        results[str(decision.result) if decision else "undecided" if found else None] += 1
        ihc = {"1+": "low_1plus", "0": "0"}.get(row.reader_score or "", "")
        answer = case_rules.decide(row.reader_score, ihc, decision.result if decision else None)
        classes[answer.her2_class] += 1
    assert sum(results.values()) == 1099
    assert results == Counter(
        {None: 684, "Negative": 325, "Positive": 78, "undecided": 6, "PENDING_IHC": 3, "PENDING_RECOUNT": 3}
    )
    assert conflicts == [
        "external ISH of TCGA: ratio 2.2, but HER2 3.2 / CEP17 2.7",
        "external ISH of TCGA: equivocal, but group 5",
    ]
    assert classes == Counter(
        {
            "pos_IHC3": 90,
            "pos_IHC2_ISHpos": 35,
            "pos_ISH_only": 3,
            "equivocal": 30,
            "low_2plus": 134,
            "low_1plus": 270,
            "0": 61,
            None: 109,
            "indeterminate": 367,
        }
    )
