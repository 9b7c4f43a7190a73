"""Clinical HER2 tables: every cell ends as a value or a reason, every row as an outcome."""

from __future__ import annotations

import csv
import json
import tempfile
from collections import Counter
from pathlib import Path

import pytest
from typer.testing import CliRunner

from her2cli import app
from her2core.cases.clinical import (
    ClinicalRow,
    clean,
    manifest_columns,
    read_clinical_table,
    summarise,
)
from her2core.cases.clinical_cells import REASONS, read_cell
from her2core.cases.external import external_ish
from her2core.errors import ManifestError
from her2core.guidelines.rules_case import case_rules_for
from her2core.guidelines.rules_ish import load_ish_rules
from her2core.intake.manifest import read_manifest

TABLE = "clinical/tcga_brca_clinical_patient.txt"


def row(**cells: str) -> ClinicalRow:
    return clean({"patient_id": "p1", "ihc_status": "", "ish_status": ""} | cells)


def read_clinical(uri: str) -> tuple[ClinicalRow, ...]:
    return read_clinical_table(uri).rows


def parse_clinical(text: str, mapping: dict[str, str] | None = None) -> tuple[ClinicalRow, ...]:
    with tempfile.TemporaryDirectory() as folder:
        table = Path(folder) / "table.txt"
        table.write_text(text)
        return read_clinical_table(str(table), mapping).rows


@pytest.mark.parametrize(
    ("column", "text", "value", "reason"),
    [
        ("ish_ratio", "1.13", 1.13, None),
        ("ish_ratio", "1,13", 1.13, None),
        ("ish_ratio", "0", None, "implausible"),
        ("ish_ratio", "51", None, "implausible"),
        ("ish_ratio", "1.8-2.2", None, "range"),
        ("ish_ratio", "HER2/CEP17 2.1", 2.1, None),
        ("ish_ratio", "HER2:CEP17 ratio = 2,1", 2.1, None),
        ("ish_ratio", "2.1 (amplified)", 2.1, None),
        ("ish_ratio", "2.1:1", 2.1, None),
        ("ish_ratio", "132/60", 2.2, None),
        ("ish_ratio", "≥2.0", None, "range"),
        ("ish_ratio", "HER2/CEP17 ratio: >= 2.0", None, "range"),
        ("ish_ratio", "at least 2", None, "range"),
        ("ish_ratio", "2.0+", None, "range"),
        ("ish_ratio", "≤ 1.8", None, "range"),
        ("ish_ratio", "~2.1", None, "approximate"),
        ("ish_ratio", "2.1 (60 cells)", None, "text_in_number"),
        ("ish_her2", "HER2/CEP17 2.1", None, "text_in_number"),
        ("ish_her2", "CEP17 2.1", None, "text_in_number"),
        ("ish_her2", "66 signals in 20 nuclei", 3.3, None),
        ("ish_her2", "mean 4.5 signals per nucleus", 4.5, None),
        ("ish_her2", "1,234", None, "ambiguous"),
        ("ish_cep17", "CEP17: 2.2", 2.2, None),
        ("n_nuclei", "60 nuclei counted", 60, None),
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
        ("ihc_score", "2+/3+", None, "ambiguous"),
        ("ihc_score", "2+ (equivocal)", "2+", None),
        ("ihc_score", "HER2: 2 +", "2+", None),
        (
            "ihc_score",
            "IHC score 3(+), strong complete membrane staining in 90 % of tumour cells",
            "3+",
            None,
        ),
        ("ihc_score", "1", "1+", None),
        ("ihc_score", "0", "0", None),
        ("ihc_score", "+++", "3+", None),
        ("ihc_score", "0+", "0_ultralow", None),
        ("ihc_score", "1+ (HER2-low)", "1+", None),
        ("ihc_score", "HER2 ultra-low, 0", "0_ultralow", None),
        ("ihc_score", "HER2 low positive", None, "unknown_text"),
        ("ihc_score", "FISH: not amplified", None, "unknown_text"),
        ("ihc_status", "not amplified", None, "unknown_text"),
        ("ish_status", "IHC negative", None, "unknown_text"),
        ("ihc_score", "IHC 2+, FISH not amplified", "2+", None),
        ("ihc_score", "2+ (FISH negative)", "2+", None),
        ("ihc_status", "IHC 3+ / D-ISH not done", "Positive", None),
        ("ihc_score", "2+, FISH: pending", "2+", None),
        ("ihc_score", "2+, FISH: low-level gain", None, "unknown_text"),  # or half of it would be lost
        ("ish_status", "IHC 2+/FISH amplified (HER2/CEP17 2.4)", "Positive", None),
        ("ish_status", "IHC 2+ FISH amplified", None, "unknown_text"),  # which word is whose?
        ("ihc_score", "-1", None, "unknown_text"),
        ("ihc_score", "not 3+", None, "unknown_text"),
        ("ihc_score", "3+ (negative)", None, "contradicted"),
        ("ihc_score", "Negative", None, "no_score"),
        ("ihc_status", "2+ (equivocal)", "Equivocal", None),
        ("ihc_status", "HER2-positive (3+)", "Positive", None),
        ("ihc_status", "1", None, "unknown_text"),  # may be a code for positive
        ("ihc_status", "0", None, "unknown_text"),
        ("ish_status", "FISH: not amplified", "Negative", None),
        ("ish_status", "HER2 gene amplification present", "Positive", None),
        ("ish_status", "no evidence of amplification", "Negative", None),
        ("ish_status", "Amplification: not detected", "Negative", None),
        ("ish_status", "Non-amplified (HER2/CEP17 1.1)", "Negative", None),
        ("ish_status", "not clearly amplified", None, "unknown_text"),
        ("ish_status", "not negative", None, "unknown_text"),
        ("ish_status", "positive (not amplified)", None, "contradicted"),
        ("ish_status", "-", None, "unknown_text"),
        ("ish_status", "not done", None, "not_performed"),
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


def test_whole_numbers_that_no_mean_reaches_are_totals() -> None:
    alone = row(ish_her2="66", n_nuclei="20")
    assert (alone.ish_her2, alone.derived) == (3.3, ("ish_her2 3.30 = 66 signals / 20 nuclei",))
    assert row(ish_her2="66").reasons["ish_her2"] == "total_without_cells"
    assert row(ish_her2="45.3", n_nuclei="20").ish_her2 == 45.3  # no total has decimals
    assert row(ish_her2="6", n_nuclei="20").ish_her2 == 6.0  # nor fewer signals than nuclei
    either = row(ish_her2="30", n_nuclei="20")
    assert (either.ish_her2, either.reasons["ish_her2"], either.unread) == (
        None,
        "total_or_mean",
        {"ish_her2": "30"},
    )
    mixed = row(ish_her2="66", ish_cep17="2.1", n_nuclei="20")
    assert (mixed.ish_her2, mixed.ish_cep17) == (3.3, 2.1)


def test_what_one_cell_says_fills_another_that_is_empty() -> None:
    found = row(
        ihc_status="2+ (equivocal)", ihc_score="[Not Available]", ish_status="Not amplified (ratio 1.1)"
    )
    assert (found.ihc_status, found.ihc_score, found.ish_status, found.ish_ratio) == (
        "Equivocal", "2+", "Negative", 1.1,
    )  # fmt: skip
    assert found.derived == ("ihc_score 2+ from the IHC status", "ish_ratio 1.1 from the ISH status")
    assert row(ihc_score="3+").ihc_status == "Positive"
    both = row(ihc_score="IHC 2+; FISH: not amplified, HER2/CEP17 1.3")
    assert (both.ihc_score, both.ihc_status, both.ish_status) == ("2+", "Equivocal", "Negative")
    assert both.ish_ratio == 1.3
    other = row(ish_status="IHC 2+ and FISH amplified", ihc_score="[Not Available]")
    assert (other.ihc_score, other.ish_status) == ("2+", "Positive")
    denied = row(ihc_score="2+ (FISH not amplified)", ish_status="Positive")
    assert (denied.ish_status, denied.reasons["ish_status"]) == (None, "contradicted")
    assert denied.conflicts == ("IHC score '2+ (FISH not amplified)', ISH status Positive",)
    assert row(ish_ratio="2.3 (amplified)").ish_status == "Positive"
    assert row(ihc_status="Positive (3+)", ihc_score="1+").conflicts == (
        "IHC status 'Positive (3+)', IHC score 1+",
    )


@pytest.mark.parametrize(
    ("cells", "conflict"),
    [
        ({"ish_status": "Negative", "ish_ratio": "≥2.0"}, "ISH status Negative, ratio ≥2.0"),
        ({"ish_status": "FISH: not amplified", "ish_her2": ">6"}, "ISH status Negative, HER2 copies >6"),
        ({"ish_status": "Positive", "ish_ratio": "<1.8"}, "ISH status Positive, ratio <1.8"),
        ({"ish_status": "Negative", "ish_ratio": "~2.4"}, "ISH status Negative, ratio ~2.4"),
        ({"ish_status": "Negative", "ish_ratio": "210"}, "ISH status Negative, ratio 210"),
        (
            {"ish_status": "not amplified (ratio 1.1)", "ish_ratio": "2.4"},
            "ISH status 'not amplified (ratio 1.1)', ratio 2.4",
        ),
        (
            {"ish_status": "Negative", "ish_ratio": "2.1 (amplified)"},
            "ISH status Negative, ratio '2.1 (amplified)'",
        ),
    ],
)
def test_a_status_that_an_inequality_denies_is_left_to_a_person(cells: dict[str, str], conflict: str) -> None:
    """The manifest has no place for an inequality: the word alone would pass for the result."""
    found = row(**cells)
    assert conflict in found.conflicts
    assert (found.ish_status, found.reasons["ish_status"]) == (None, "contradicted")
    assert manifest_columns(found, "registry")["ish_status"] == ""


def test_an_inequality_beside_a_status_that_it_bears_out_leaves_the_status() -> None:
    found = row(ish_status="Positive", ish_ratio="≥2.0")
    assert (found.ish_status, found.ish_ratio, found.conflicts) == ("Positive", None, ())
    assert (found.unread, found.reasons["ish_ratio"]) == ({"ish_ratio": "≥2.0"}, "range")


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
    with pytest.raises(ManifestError, match="expected a table separated by tabs, semicolons or commas"):
        parse_clinical("")
    with pytest.raises(ManifestError, match="no such file; expected a clinical table"):
        read_clinical(str(tmp_path / "none.txt"))


HEADER = ("PATIENT_ID", "HER2_IHC_SCORE", "HER2_FISH_STATUS", "HER2_CENT17_RATIO")
ROWS = (("p1", "2+", 'nicht verfügbar, 5" Tumor', "1,9"), ("p2", "3+", "", "≥2.0"))


def written(delimiter: str, quote: str = "", end: str = "\n") -> str:
    lines = ((cell.replace('"', '""') if quote else cell for cell in line) for line in (HEADER, *ROWS))
    return end.join(delimiter.join(f"{quote}{cell}{quote}" for cell in line) for line in lines) + end


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "cp1252"])
@pytest.mark.parametrize(
    ("delimiter", "quote", "end"),
    [
        ("\t", "", "\n"),
        ("\t", "", "\r"),
        ("\t", '"', "\r\n"),
        (";", "", "\n"),
        (",", '"', "\r"),
        ("|", "", "\r\n"),
    ],
)
def test_tables_are_read_however_they_were_saved(
    tmp_path: Path, encoding: str, delimiter: str, quote: str, end: str
) -> None:
    text = written(delimiter, quote, end)
    if encoding == "cp1252":
        text = text.replace("≥", ">=")
    (tmp_path / "t.txt").write_bytes(text.encode(encoding))
    one, two = read_clinical(str(tmp_path / "t.txt"))
    assert (one.patient_id, one.ihc_score, one.ish_ratio) == ("p1", "2+", 1.9)
    assert one.unread == {"ish_status": 'nicht verfügbar, 5" Tumor'}
    assert (two.row, two.ihc_score, two.ish_ratio, two.reasons["ish_ratio"]) == (3, "3+", None, "range")


def test_a_separator_line_is_no_header() -> None:
    assert [r.patient_id for r in parse_clinical("sep=;\n" + written(";"))] == ["p1", "p2"]


def test_columns_of_other_names_are_read_by_a_mapping() -> None:
    text = "Fallnummer;HER2 (IHC);FISH  Ergebnis\nA1;2+ (equivocal);not amplified\n"
    with pytest.raises(ManifestError, match="a mapping such as patient_id=NAME"):
        parse_clinical(text)
    mapping = {"patient_id": "fallnummer", "ihc_score": "HER2 (IHC)", "ish_status": "FISH Ergebnis"}
    (found,) = parse_clinical(text, mapping=mapping)
    assert (found.patient_id, found.ihc_score, found.ish_status) == ("A1", "2+", "Negative")
    with pytest.raises(
        ManifestError, match=r"no column 'FISH result' for ish_status; did you mean 'FISH Ergebnis'"
    ):
        parse_clinical(text, mapping=mapping | {"ish_status": "FISH result"})
    with pytest.raises(ManifestError, match=r"found 'fish' mapped; expected one of patient_id, ihc_status"):
        parse_clinical(text, mapping=mapping | {"fish": "FISH Ergebnis"})
    other_way = {
        "Fallnummer": "patient_id",
        "HER2 (IHC)": "reader_score",
        "her2_fish_status": "FISH Ergebnis",
    }
    assert parse_clinical(text, mapping=other_way) == (found,)
    with pytest.raises(ManifestError, match=r"ish_status is mapped twice: to 'FISH Ergebnis' and 'x'"):
        parse_clinical(text, mapping=mapping | {"her2_fish_status": "x"})
    with pytest.raises(ManifestError, match=r"ihc_score and ish_status are mapped to one column"):
        parse_clinical(text, mapping=mapping | {"ish_status": "HER2 (IHC)"})


def test_a_column_that_stands_twice_is_refused_where_it_is_read() -> None:
    twice = "patient_id\tnote\tnote\tHER2_FISH_status\ther2_fish_status\np1\t\t\tNegative\tPositive\n"
    with pytest.raises(ManifestError, match=r"'HER2_FISH_status' stands more than once \(columns 4, 5\)"):
        parse_clinical(twice)
    two = twice.replace("HER2_FISH_status", "ish_status")
    with pytest.raises(ManifestError, match=r"'her2_fish_status' and 'ish_status' both hold ish_status"):
        parse_clinical(two)
    (found,) = parse_clinical(two, mapping={"ish_status": "her2_fish_status"})
    assert found.ish_status == "Positive"


def test_a_row_with_more_cells_than_the_header_is_refused() -> None:
    with pytest.raises(
        ManifestError, match=r"rows with more cells than the header's 2: 3; .* in double quotes"
    ):
        parse_clinical("patient_id,ihc_score\np1,2+\np2,Smith,3+\n")


def test_rows_of_one_patient_that_differ_are_left_to_a_person() -> None:
    text = (
        "patient_id\tihc_score\tish_status\nA-1\t3+\tNegative\n a-1\t0\tNegative\n"
        "B\t2+\t\nb\t2+ (equivocal)\t[Not Available]\nB\t\t\n\t1+\t\n"
    )
    one, two, same, nobody = parse_clinical(text)
    assert (one.others, two.others) == ((3,), (2,))
    assert one.conflicts == ("the patient's row 3 holds something else",)
    assert set(manifest_columns(one, "x").values()) == set(manifest_columns(two, "x").values()) == {""}
    assert (same.patient_id, same.row, same.conflicts) == ("B", 4, ())
    assert nobody.conflicts == ("no patient is named",)


def test_slips_of_one_patient_s_name_are_one_patient() -> None:
    written = (
        "CASE-1\t3+",
        "case_1\t0",
        "Case 1\t0",
        "CASE\u20111\t3+",
        "CASE1\t3+",
        "CASE 11\t1+",
        "NA\t2+",
    )
    text = "\n".join(("patient_id\tihc_score", *written))
    *slips, other, nobody = parse_clinical(text)
    assert [(row.row, row.others) for row in slips] == [(2, (3,)), (3, (2,))]  # CASE1 as CASE 1, by letters
    assert (other.patient_id, other.conflicts) == ("CASE 11", ())
    assert nobody.conflicts == ("no patient is named",)


@pytest.mark.parametrize(
    ("text", "score"),
    [
        *((text, "0_null") for text in ("0/absent", "0 (absent membrane staining)", "IHC 0, no staining")),
        *((text, "0_ultralow") for text in ("0+/with membrane staining", "0 with faint staining")),
        *((text, "0_ultralow") for text in ("HER2-ultralow", "Score 0+ (ultralow)", "0+ (HER2-ultralow)")),
        *((text, None) for text in ("0+ (absent)", "1+ no staining", "absent", "1+ (ultralow)")),
        ("0 null ultralow", None),
        ("0", "0"),
    ],
)
def test_the_words_of_the_consensus_split_the_zero(text: str, score: str | None) -> None:
    assert row(ihc_score=text).ihc_score == score


def test_a_note_of_any_length_is_kept_and_not_read() -> None:
    note = "amplified " * 20_000
    found = row(ish_status=note, ish_ratio=note, ihc_score="2+ " * 60_000)
    assert (found.ish_status, found.ish_ratio, found.ihc_score) == (None, None, None)
    assert found.reasons["ish_status"] == found.reasons["ihc_score"] == "unknown_text"
    assert found.ish_outcome == "unknown_text"


def test_the_manifest_reads_the_same_words(tmp_path: Path) -> None:
    manifest = tmp_path / "m.csv"
    head = "slide_id,case_id,uri,assay,reader_score,ish_status,ish_ratio\ns1,c1,a.svs,HER2-IHC,"
    manifest.write_text(head + "2+ (equivocal),FISH: not amplified,HER2/CEP17 1.1\n")
    (found,) = read_manifest(str(manifest))
    assert (found.reader_score, found.ish_status, str(found.ish_ratio)) == ("2+", "negative", "1.1")
    manifest.write_text(head + "2-3+,not clearly amplified,≥2.0\n")
    with pytest.raises(ManifestError) as refused:
        read_manifest(str(manifest))
    for words in ("found '2-3+'", "found 'not clearly amplified'", "'≥2.0'; expected a HER2/CEP17 ratio"):
        assert words in str(refused.value)
    assert "an inequality, range or estimate is no number: leave it empty" in str(refused.value)


def test_the_verb_reads_a_table_and_writes_the_manifests_cells(tmp_path: Path) -> None:
    table, out = tmp_path / "t.csv", tmp_path / "cells.csv"
    table.write_text("Fall;Score;FISH\n=cmd|x;2+ (equivocal);not amplified\nB;3+ (negative);≥2.0\n", "utf-8")
    mapping = ["--map", "patient_id=Fall", "--map", "ihc_score=Score", "--map", "ish_status=FISH"]
    result = CliRunner().invoke(app, ["clinical", str(table), *mapping, "--source", "lab", "-o", str(out)])
    assert result.exit_code == 0, result.output
    assert "ihc_score from 'Score'" in result.output
    with out.open(encoding="utf-8", newline="") as file:
        one, two = csv.DictReader(file)
    assert (one["patient_id"], one["reader_score"], one["ish_status"], one["ish_source"]) == (
        "'=cmd|x", "2+", "Negative", "lab",
    )  # fmt: skip
    assert (two["reader_score"], two["ish_status"]) == ("", "")
    assert two["x_unread"] == "ihc_score: 3+ (negative) (contradicted); ish_status: ≥2.0 (unknown_text)"
    as_json = CliRunner().invoke(app, ["clinical", str(table), *mapping, "--json"])
    assert [r["manifest"]["ish_status"] for r in json.loads(as_json.output)["rows"]] == ["Negative", ""]
    wrong = CliRunner().invoke(app, ["clinical", str(table), "--map", "FISH"])
    assert isinstance(wrong.exception, ManifestError)


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
