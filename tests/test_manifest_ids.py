"""Ids of a manifest: slips are refused, empty cells take the one answer that the rows of a case leave."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from her2core.errors import ManifestError
from her2core.intake.manifest import read_manifest
from her2core.records import SlideRow

COLUMNS = ("slide_id", "case_id", "patient_id", "specimen_id", "site", "block_id", "ish_source", "ish_status")


def read(folder: Path, *rows: str) -> tuple[SlideRow, ...]:
    """A manifest of rows ``case, patient, specimen, site, ...``; empty cells may be left out at the end."""
    path = folder / "m.csv"
    with path.open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow([*COLUMNS, "uri", "assay"])
        for i, row in enumerate(rows, start=1):
            cells = [f"s{i}", *(cell.strip(" ") for cell in row.split(","))]
            table.writerow([*cells, *[""] * (len(COLUMNS) - len(cells)), f"s{i}.tif", "HER2-IHC"])
    return read_manifest(str(path))


def problems(folder: Path, *rows: str) -> list[str]:
    with pytest.raises(ManifestError) as caught:
        read(folder, *rows)
    return [line.strip() for line in str(caught.value).splitlines()[1:]]


@pytest.mark.parametrize(
    ("rows", "column"),
    [
        (("TWO", "two"), "case_id"),
        (("A 1", "A1"), "case_id"),
        (("A 1", "A  1"), "case_id"),
        (("A-1", "A\u20111"), "case_id"),  # a hyphen that does not break, as word processors write it
        (("A-1", "A\u20131"), "case_id"),
        (("Ａ1", "A1"), "case_id"),
        (("A-1", "A_1"), "case_id"),
        (("A_1", "a 1"), "case_id"),
        (("a,P-1", "b,p-1"), "patient_id"),
        (("a,P 1", "b,P1"), "patient_id"),
        (("a,,core", "a,,Core"), "specimen_id"),
        (("a,,,primary,B1", "a,,,primary,b 1"), "block_id"),
        (("a,,,,,Lab A,positive", "a,,,,,lab a,negative"), "ish_source"),
    ],
)
def test_ids_that_differ_in_case_or_spaces_alone_are_refused(
    tmp_path: Path, rows: tuple[str, str], column: str
) -> None:
    (problem,) = problems(tmp_path, *rows)
    assert problem.startswith(f"row 3, {column}: ")
    assert problem.endswith("of row 2 only in letter case, spaces, dashes or underscores; write it one way")


def test_ids_whose_parts_differ_are_others(tmp_path: Path) -> None:
    assert len(read(tmp_path, "S19-1", "S1-91", "S191", "S19_10")) == 4


def test_names_within_a_case_may_be_written_differently_in_another(tmp_path: Path) -> None:
    rows = read(tmp_path, "a,,core,,B1", "b,,Core,,b1")
    assert [row.specimen_id for row in rows] == ["core", "Core"]


def test_a_slide_named_twice_with_other_spaces_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.csv"
    path.write_text("slide_id,case_id,uri,assay\nA 1,c,a.tif,HER2-IHC\na1,c,b.tif,HER2-IHC\n")
    with pytest.raises(ManifestError, match=r"row 3, slide_id: 'a1' is also in row 2"):
        read_manifest(str(path))


@pytest.mark.parametrize(
    ("rows", "places"),
    [
        # specimen and site filled in one row and empty in the other
        (("c,,core,primary", "c,,core"), ["core/primary"] * 2),
        (("c,,core,primary", "c,,,primary"), ["core/primary"] * 2),
        (("c,,core,primary", "c"), ["core/primary"] * 2),
        (("c,,core", "c,,,primary"), ["core/primary"] * 2),
        (("c", "c"), ["", ""]),
        (("c,,core", "c"), ["core", "core"]),
        # of several the one that fits
        (("c,,core,primary", "c,,liver,metastasis", "c,,,metastasis"),
         ["core/primary", *["liver/metastasis"] * 2]),
        (("c,,a", "c,,b", "c,,b,primary"), ["a", "b/primary", "b/primary"]),
        # an organ, however written
        (("c,,,metastasis:Liver", "c,,,metastasis: liver"), ["/metastasis:liver"] * 2),
        (("c,,m,metastasis:liver", "c,,m,metastasis"), ["m/metastasis:liver"] * 2),
        # sites that contradict each other stay apart
        (("c,,,primary", "c,,,metastasis"), ["/primary", "/metastasis"]),
        (("c,,x,primary", "c,,x,metastasis"), ["x/primary", "x/metastasis"]),
        # a site that is known to be unknown is empty only where the specimen is named
        (("c,,x,primary", "c,,x,unknown"), ["x/primary"] * 2),
        (("c,,x,unknown", "c,,x"), ["x/unknown"] * 2),
        (("c,,x,unknown", "c"), ["x/unknown"] * 2),
        (("c,,,unknown", "c"), ["/unknown"] * 2),
        (("c,,,primary", "c,,,unknown"), ["/primary", "/unknown"]),
        (("c,,x,unknown", "c,,y,primary"), ["x/unknown", "y/primary"]),
        # other cases say nothing of this one
        (("c,,core,primary", "d"), ["core/primary", ""]),
    ],
)  # fmt: skip
def test_an_empty_cell_takes_the_one_answer_of_its_case(
    tmp_path: Path, rows: tuple[str, ...], places: list[str]
) -> None:
    for order in (1, -1):
        found = read(tmp_path, *rows[::order])[::order]
        said = [(row.specimen_id or "") + (f"/{row.site}" if row.site else "") for row in found]
        assert said == places


@pytest.mark.parametrize(
    ("rows", "problem"),
    [
        (("c,,,primary", "c,,,metastasis", "c"),
         "row 4, site: case 'c' has metastasis, primary; write which one it is"),
        (("c,,a", "c,,b", "c"), "row 4, specimen_id: case 'c' has a, b; write which one it is"),
        (("c,,a,primary", "c,,b,primary", "c,,,primary"),
         "row 4, specimen_id: case 'c' has a/primary, b/primary; write which one it is"),
        (("c,,a,primary", "c,,a,metastasis", "c,,a"),
         "row 4, site: case 'c' has a/metastasis, a/primary; write which one it is"),
        (("c,,,metastasis:liver", "c,,,metastasis:bone", "c,,,metastasis"),
         "row 4, site: case 'c' has metastasis:bone, metastasis:liver; write which one it is"),
    ],
)  # fmt: skip
def test_an_empty_cell_with_several_answers_is_refused(
    tmp_path: Path, rows: tuple[str, ...], problem: str
) -> None:
    assert problems(tmp_path, *rows) == [problem]


def test_what_was_taken_over_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    read(tmp_path, "c,P1,core,primary", "c,,core", "d")
    (said,) = [record.getMessage() for record in caplog.records if "taken over" in record.getMessage()]
    assert said.endswith("from other rows of their case: row 3 (patient_id P1, site primary)")
    caplog.clear()
    read(tmp_path, *["c,P1,core,primary"] * 3, *["c"] * 30)
    assert "row 24 " in caplog.text
    assert "row 25 " not in caplog.text
    assert caplog.text.strip().endswith("and 10 more")


def test_a_patient_is_that_of_the_whole_case(tmp_path: Path) -> None:
    rows = read(tmp_path, "c,,core,primary", "c,P1,liver,metastasis")
    assert [row.patient_id for row in rows] == ["P1", "P1"]


@pytest.mark.parametrize(
    ("case", "spelling"), [("X", "X"), ("X", "x"), ("X", " x"), ("X-1", "X_1"), ("X 1", "x-1"), ("X1", "X 1")]
)
def test_a_case_that_is_called_as_another_s_patient_needs_its_own(
    tmp_path: Path, case: str, spelling: str
) -> None:
    assert problems(tmp_path, case, f"Y,{spelling}", case) == [
        f"row 2, patient_id: empty, so the patient is taken to be {case!r}, but in row 3 "
        f"{spelling.strip()!r} is the patient of case 'Y'; write the patient of {case!r}"
    ]
    assert [row.patient_id for row in read(tmp_path, "X,X", "Y,X")] == ["X", "X"]
    assert [row.patient_id for row in read(tmp_path, "X,P", "Y,X")] == ["P", "X"]
    assert [row.patient_id for row in read(tmp_path, "X,X", "X")] == ["X", "X"]


def test_many_specimens_of_one_case_are_read_at_once(tmp_path: Path) -> None:
    rows = read(tmp_path, *(f"c,P,core {i},primary" for i in range(3000)), "d")
    assert len({row.specimen_id for row in rows}) == 3001
