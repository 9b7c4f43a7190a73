"""Manifests as people really export them, and every refusal in words with its row."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from her2core.errors import ManifestError, StoreError
from her2core.intake.manifest import COLUMNS, MAX_SHOWN, _Row, read_manifest, require_rules
from her2core.params import ISHScoreParams, ScoreParams
from her2core.preanalytic import preanalytic_notes
from her2core.records import Assay, SlideRow, keyed_fields
from her2core.scoring.keyed import Judging
from tests.conftest import Bucket

HEADER = "slide_id,case_id,uri,assay"


def write(folder: Path, text: str | bytes, name: str = "manifest.csv") -> str:
    path = folder / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return str(path)


def problems(folder: Path, text: str | bytes) -> list[str]:
    with pytest.raises(ManifestError) as caught:
        read_manifest(write(folder, text))
    return [line.strip() for line in str(caught.value).splitlines()[1:]] or [str(caught.value)]


def test_the_columns_are_those_of_the_record() -> None:
    assert list(SlideRow.__slots__) == list(COLUMNS)


def test_a_full_row(tmp_path: Path) -> None:
    text = (
        f"{HEADER},patient_id,specimen_id,block_id,site,collection_date,scanner,mpp,scene,roi_uri,"
        "reader_score,x_note\n"
        "S1,C1,slides/S1.svs,HER2-IHC,P1,SP1,A2,metastasis:liver,2021-05,AT2,0.2525,1,roi/S1.geojson,2+,mine\n"
    )
    assert read_manifest(write(tmp_path, text)) == (
        SlideRow("S1", "C1", f"{tmp_path}/slides/S1.svs", Assay.IHC, "P1", "SP1", "A2", "metastasis:liver",
                 "2021-05", "AT2", 0.2525, "1", f"{tmp_path}/roi/S1.geojson", "2+"),
    )  # fmt: skip


def test_a_row_names_the_laboratory_that_stained_it(tmp_path: Path) -> None:
    text = f"{HEADER},laboratory\na,c,a.tif,HER2-IHC, North \nb,c,b.tif,HER2-IHC,\n"
    assert [row.laboratory for row in read_manifest(write(tmp_path, text))] == ["North", None]


def test_an_empty_laboratory_leaves_keys_as_they_were_before_there_was_one() -> None:
    row = SlideRow("S1", "C1", "s.tif", Assay.IHC)
    assert list(keyed_fields(row)) == [name for name in COLUMNS if name != "laboratory"]
    assert list(keyed_fields(replace(row, laboratory="North"))) == list(COLUMNS)


def test_a_row_names_the_nuclei_of_another_program(tmp_path: Path) -> None:
    text = f"{HEADER},cells_uri\na,c,s.tif,HER2-IHC,cells/a.geojson\nb,c,s.tif,HER2-IHC,s3://lab/b.tif\n"
    first, second = read_manifest(write(tmp_path, text))
    assert (first.cells_uri, second.cells_uri) == (f"{tmp_path}/cells/a.geojson", "s3://lab/b.tif")
    text = f"{HEADER},cells_uri\na,c,a.tif,HER2-FISH,a.tif\n"
    assert problems(tmp_path, text) == [
        "row 2, cells_uri: found outlines for HER2-FISH; only slides of HER2-IHC are measured on them"
    ]


def test_a_row_says_how_its_tissue_was_treated(tmp_path: Path) -> None:
    columns = "tumour_type,specimen_type,cold_ischaemia_min,fixative,fixation_h,antibody_clone"
    text = (
        f"{HEADER},{columns},section_age_days,block_date\n"
        'S1,C1,S1.tif,HER2-IHC,Breast,Biopsy,45,10 % NBF,"8,5",4B5,42,2024-05\n'
        "S2,C1,S2.tif,HER2-IHC,,,61,,80,,43,\n"
    )
    first, second = read_manifest(write(tmp_path, text))
    assert (first.tumour_type, first.specimen_type, first.antibody_clone) == ("breast", "biopsy", "4B5")
    assert (first.cold_ischaemia_min, first.fixation_h, first.section_age_days) == (45.0, 8.5, 42.0)
    assert (first.fixative, first.block_date) == ("10 % NBF", "2024-05")
    assert preanalytic_notes(first) == []
    assert preanalytic_notes(second) == [
        "cold ischaemia 61 min, recommended at most 60",
        "fixation 80 h, recommended 6 to 72",
        "section 43 days old, recommended at most 42",
    ]
    text = f"{HEADER},tumour_type,specimen_type,fixation_h\na,c,a.tif,HER2-IHC,colon,smear,-1\n"
    assert problems(tmp_path, text) == [
        "row 2, tumour_type: found 'colon'; expected one of breast, gastric",
        "row 2, specimen_type: found 'smear'; expected one of biopsy, resection",
        "row 2, fixation_h: found -1; expected hours, from 0 up to 10000",
    ]


def test_a_row_may_state_its_background(tmp_path: Path) -> None:
    text = (
        f"{HEADER},background\na,c,a.tif,HER2-IHC,243\nb,c,b.tif,HER2-DISH,243;242.5;240\n"
        'c,c,c.tif,HER2-IHC,"242,5 242 240"\nd,c,d.tif,HER2-IHC,\n'
    )
    assert [row.background for row in read_manifest(write(tmp_path, text))] == [
        (243.0, 243.0, 243.0),
        (243.0, 242.5, 240.0),
        (242.5, 242.0, 240.0),
        None,
    ]
    text = (
        f"{HEADER},background\na,c,a.tif,HER2-IHC,white\nb,c,b.tif,HER2-IHC,243;242\n"
        "c,c,c.tif,HER2-IHC,256\nd,c,d.tif,HER2-FISH,12\n"
    )
    expected = "expected grey levels of empty glass, 20 to 255, such as 243 or 243;243;242"
    assert problems(tmp_path, text) == [
        f"row 2, background: found 'white'; {expected}",
        f"row 3, background: found '243;242'; {expected}",
        f"row 4, background: found '256'; {expected}",
        "row 5, background: found '12' for HER2-FISH; only bright-field slides have one to state",
    ]


def test_rules_go_by_tumour_and_specimen(tmp_path: Path) -> None:
    text = (
        f"{HEADER},tumour_type,specimen_type\n"
        "a,a,a.tif,HER2-IHC,gastric,biopsy\n"
        "b,b,b.tif,HER2-IHC,gastric,resection\n"
        "c,c,c.tif,HER2-IHC,breast,resection\n"
        "d,d,d.tif,HER2-IHC,,biopsy\n"
        "e,e,e.tif,HER2-IHC,,\n"
        "f,a,f.tif,HER2-FISH,,\n"  # of the specimen of slide a
    )
    rows = read_manifest(write(tmp_path, text))

    def rules(configured: str, tumour_s: str) -> list[tuple[str, str]]:
        judging = Judging(ScoreParams(rules=configured), ISHScoreParams(rules=tumour_s))
        require_rules(rows, judging)
        return [(by.score.rules, by.ish.rules) for by in map(judging.of, rows)]

    toga, asco = "ish_gastric_toga", "ish_asco_cap_2018"
    biopsy, resection = ("gastric_biopsy", toga), ("gastric_resection", toga)
    breast, consensus = ("breast_asco_cap_2018", asco), ("breast_consensus_2026", asco)
    assert rules("breast_asco_cap_2018", asco) == [biopsy, resection, breast, breast, breast, biopsy]
    assert rules("breast_consensus_2026", asco) == [
        biopsy,
        resection,
        consensus,
        consensus,
        consensus,
        biopsy,
    ]
    assert rules("gastric_resection", toga) == [biopsy, resection, breast, biopsy, resection, biopsy]


def test_what_has_no_rules_is_refused(tmp_path: Path) -> None:
    rows = read_manifest(write(tmp_path, f"{HEADER},tumour_type\na,c,a.tif,HER2-IHC,gastric\n"))
    with pytest.raises(ManifestError) as caught:
        require_rules(rows, Judging(ScoreParams(), ISHScoreParams()), "m.csv")
    assert str(caught.value).splitlines()[1].strip() == (
        "slide a: gastric has the rule sets gastric_biopsy, gastric_resection, and ihc_score.rules is "
        "breast_asco_cap_2018; write its specimen_type, or set ihc_score.rules to one of them"
    )
    text = f"{HEADER},tumour_type\na,c,a.tif,HER2-IHC,gastric\nb,c,b.tif,HER2-FISH,breast\n"
    assert problems(tmp_path, text) == [
        "row 3, tumour_type: 'breast', but row 2 of its specimen has 'gastric'"
    ]


@pytest.mark.parametrize(
    ("written", "read"),
    [("0+", "0_ultralow"), ("0_absent", "0_null"), ("0_unspecified", "0"), ("0", "0"), ("2", "2+")],
)
def test_words_of_a_reader(tmp_path: Path, written: str, read: str) -> None:
    (row,) = read_manifest(write(tmp_path, f"{HEADER},reader_score\na,b,c.tif,HER2-IHC,{written}\n"))
    assert row.reader_score == read


def test_a_row_that_is_left_out_says_why(tmp_path: Path) -> None:
    text = f"{HEADER},exclude\nS1,C1,S1.tif,HER2-IHC,wrong block\nS2,C1,S2.tif,HER2-IHC,\n"
    assert [row.exclude for row in read_manifest(write(tmp_path, text))] == ["wrong block", None]
    for word in ("yes", "No", "0", "TRUE"):
        (problem,) = problems(tmp_path, f"{HEADER},exclude\nS1,C1,S1.tif,HER2-IHC,{word}\n")
        assert problem.startswith(f"row 2, exclude: found {word!r}; leave it empty, or write why")


def test_a_row_of_ish(tmp_path: Path) -> None:
    text = (
        f"{HEADER},mpp,channels,ish_ratio,ish_her2,ish_cep17,ish_status,ish_source\n"
        'S1,C1,S1.tif,HER2-FISH,0.065,"DAPI=2; HER2=Cy3; CEP17=1",2.1,6,"2,9",Positive,"Lab 7, FISH"\n'
        "S2,C1,S2.tif,HER2-DISH,0.05,,,0,,,\n"
        "S3,C1,S3.tif,HER2-IHC,,,,,,EQUIVOCAL,\n"
    )
    first, second, third = read_manifest(write(tmp_path, text))
    assert (first.mpp, first.channels) == (0.065, "DAPI=2; HER2=Cy3; CEP17=1")
    assert [str(n) for n in (first.ish_ratio, first.ish_her2, first.ish_cep17)] == ["2.1", "6", "2.9"]
    assert (first.ish_status, first.ish_source) == ("positive", "Lab 7, FISH")
    assert (second.mpp, second.ish_her2, second.ish_ratio) == (0.05, 0.0, None)
    assert third.ish_status == "equivocal"


def test_problems_of_ish(tmp_path: Path) -> None:
    text = (
        f"{HEADER},mpp,channels,ish_ratio,ish_her2,ish_cep17,ish_status\n"
        "a,c,a.tif,HER2-FISH,0.03,DAPI=1,0,-1,0,polysomy\n"
        "b,c,b.tif,HER2-IHC,0.05,DAPI=1;HER2=0,inf,101,many,\n"
        "d,c,d.tif,HER2-DISH,,0,100.1,,,\n"
        "e,c,e.tif,HER2-FISH,,DAPI=1;HER2=1;CEP17=0,,,,\n"
        "f,c,f.tif,HER2-FISH,,blue,,,,\n"
        "g,c,g.tif,fish,0.05,DAPI=1;HER2=0,,,,\n"
    )
    assert problems(tmp_path, text) == [
        "row 2, mpp: found 0.03; expected 0.04 to 1.1 micrometres a pixel",
        "row 2, channels: does not say which channel is HER2, as in DAPI=2;HER2=0;CEP17=1",
        "row 2, ish_ratio: found 0; expected a HER2/CEP17 ratio, above 0 and up to 100",
        "row 2, ish_her2: found -1; expected HER2 copies a nucleus, from 0 up to 100",
        "row 2, ish_cep17: found 0; expected CEP17 copies a nucleus, above 0 and up to 100",
        "row 2, ish_status: found 'polysomy'; expected one of positive, equivocal, negative",
        "row 3, mpp: found 0.05; expected 0.1 to 1.1 micrometres a pixel",
        "row 3, channels: found 'DAPI=1;HER2=0' for HER2-IHC; only slides of HER2-FISH have channels to name",
        "row 3, ish_ratio: found 'inf'; expected a HER2/CEP17 ratio, such as 2.1",
        "row 3, ish_her2: found 101; expected HER2 copies a nucleus, from 0 up to 100",
        "row 3, ish_cep17: found 'many'; expected CEP17 copies a nucleus, such as 2.1",
        "row 4, channels: found '0' for HER2-DISH; only slides of HER2-FISH have channels to name",
        "row 4, ish_ratio: found 100.1; expected a HER2/CEP17 ratio, above 0 and up to 100",
        "row 5, channels: gives one channel of the file to two of DAPI, HER2 and CEP17",
        "row 6, channels: found 'blue'; expected a text such as DAPI=2;HER2=0;CEP17=1",
        "row 7, assay: found 'fish'; expected one of HER2-IHC, HER2-DISH, HER2-FISH; did you mean HER2-FISH?",
    ]


@pytest.mark.parametrize(
    "text",
    [
        "slide_id,case_id,uri,assay,mpp,reader_score\nÄ 1,C,a.svs,her2-ihc,0.25,2\n",
        "\ufeffslide_id;case_id;uri;assay;mpp;reader_score\r\n\r\nÄ 1;C;a.svs;HER2-IHC;0,25;2+\r\n;;;;;\r\n",
        "slide_id\tcase_id\turi\tassay\tmpp\treader_score\nA\u0308 1\tC\ta.svs\tHER2-IHC\t0.25\t2+".encode(
            "utf-16"
        ),
        'slide_id,case_id,uri,assay,mpp,reader_score,site\n"Ä 1", C ,"a.svs",HER2-IHC,"0,25",2+,[Unknown]\n',
    ],
    ids=["plain", "european-excel", "utf16-tabs-decomposed", "quoted"],
)
def test_the_same_table_in_other_dialects(tmp_path: Path, text: str | bytes) -> None:
    (row,) = read_manifest(write(tmp_path, text))
    assert row == SlideRow("Ä 1", "C", f"{tmp_path}/a.svs", Assay.IHC, mpp=0.25, reader_score="2+")


@pytest.mark.parametrize(
    "text",
    [
        "sep=;\nslide_id;case_id;uri;assay\nS1;C1;a.tif;HER2-IHC\n",
        "\ufeffsep=;\r\nslide_id;case_id;uri;assay\r\nS1;C1;a.tif;HER2-IHC\r\n",
        '"sep=|"\nslide_id|case_id|uri|assay\nS1|C1|a.tif|HER2-IHC\n',
        "sep=\t\nslide_id\tcase_id\turi\tassay\nS1\tC1\ta.tif\tHER2-IHC\n",
        f"{HEADER},,,\nS1,C1,a.tif,HER2-IHC,,,\n",
        f"{HEADER},mpp,site,,\nS1,C1,a.tif,HER2-IHC\n",
        f"{HEADER}\nS1,C1,a.tif,HER2-IHC,,,,\n",
        "Slide ID, Case-ID ,URI,Assay\nS1,C1,a.tif,HER2-IHC\n",
        "slide_id,case_id,,uri,assay\nS1,C1,,a.tif,HER2-IHC\n",
        f"{HEADER},patient_id,mpp\nS1,C1,a.tif,HER2-IHC,-,#N/A\n",
        f"{HEADER}\rS1,C1,a.tif,HER2-IHC\r",
    ],
)
def test_tables_as_spreadsheets_leave_them(tmp_path: Path, text: str) -> None:
    assert read_manifest(write(tmp_path, text)) == (SlideRow("S1", "C1", f"{tmp_path}/a.tif", Assay.IHC),)


def test_rows_are_numbered_as_the_spreadsheet_shows_them(tmp_path: Path) -> None:
    text = "sep=;\nslide_id;case_id;uri;assay;;\nS1;C1;a.tif;HER2-IHC;;lost\nS2;C1\nS3;C1;a;HER2-IHC;;;9\n"
    assert problems(tmp_path, text) == [
        "row 2: found 'lost' in column 6, which has no name; name it (x_... if it is your own)",
        "row 3: 2 cells, but the header has 6",
        "row 4: 7 cells, but the header has 6; put cells that hold ';' in quotation marks",
    ]


def test_names_that_differ_in_case_are_one_column(tmp_path: Path) -> None:
    assert problems(tmp_path, f"{HEADER},Site,SITE\na,b,c,HER2-IHC,,\n") == ["column site appears twice"]


@pytest.mark.parametrize(
    ("ids", "words"),
    [
        (["1E+05"], "row 2, slide_id: '1E+05' looks like a long number that a spreadsheet has shortened"),
        (["1,23457E+11"], "looks like a long number"),
        (["00123", "123"], "row 3, slide_id: '123' and '00123' of row 2 differ in zeros before them"),
        (["2-Mar"], "looks like a date"),
        (["01. Mrz"], "looks like a date"),
        (["Sep-02"], "looks like a date"),
        (["3.4.2021"], "looks like a date"),
        (["123456789012345000"], "has kept 15 digits"),
        (["4711.0"], "a whole number that became one with decimals"),
    ],
)
def test_ids_that_a_spreadsheet_changed_are_warned_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, ids: list[str], words: str
) -> None:
    rows = "".join(f'"{name}",C{place},{place}.tif,HER2-IHC\n' for place, name in enumerate(ids))
    assert [row.slide_id for row in read_manifest(write(tmp_path, f"{HEADER}\n{rows}"))] == ids
    (record,) = caplog.records
    assert words in record.getMessage()


@pytest.mark.parametrize(
    ("second", "warned"),
    [
        (
            "s2,B,a.svs,HER2-IHC,b.geojson",
            "row 3, uri: the same slide as in row 2, of case 'A'; its tissue counts",
        ),
        (
            "s2,A,a.svs,HER2-IHC,b.geojson",
            "row 3, uri: the same slide as in row 2; its tissue counts for both",
        ),
        ("s2,B,other.svs,HER2-IHC,b.geojson", ""),
    ],
)
def test_a_slide_that_counts_twice_is_warned_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, second: str, warned: str
) -> None:
    read_manifest(write(tmp_path, f"{HEADER},roi_uri\ns1,A,a.svs,HER2-IHC,\n{second}\n"))
    assert warned in caplog.text
    assert bool(caplog.records) == bool(warned)


def test_two_regions_of_one_slide_are_not_warned_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    read_manifest(
        write(tmp_path, f"{HEADER},roi_uri\ns1,A,a.svs,HER2-IHC,a.geojson\ns2,B,a.svs,HER2-IHC,b.geojson\n")
    )
    assert not caplog.records


def test_plain_ids_are_not_warned_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    names = ["B17-A1", "12345", "0099", "12-34567", "1E5", "mars-2", "2021-04", "123456789012345"]
    rows = "".join(f"{name},{name},{name}.tif,HER2-IHC\n" for name in names)
    read_manifest(write(tmp_path, f"{HEADER}\n{rows}"))
    assert caplog.records == []


@pytest.mark.parametrize("text", ["=cmd|' /C calc'!A0", "@SUM(1)", "+cmd|x", "-cmd|x", "=1+1"])
@pytest.mark.parametrize("column", ["case_id", "patient_id", "specimen_id", "scanner", "exclude"])
def test_what_a_spreadsheet_would_run_is_refused(tmp_path: Path, text: str, column: str) -> None:
    header = f"slide_id,uri,assay,{column}" + ("" if column == "case_id" else ",case_id")
    (problem,) = problems(tmp_path, f'{header}\nS1,a.tif,HER2-IHC,"{text}",C1\n'.replace(
        ",C1\n", "\n" if column == "case_id" else ",C1\n"))  # fmt: skip
    assert f"row 2, {column}: found {text!r}, which a spreadsheet may run as a formula" in problem


def test_an_error_of_the_spreadsheet_is_no_id(tmp_path: Path) -> None:
    (problem,) = problems(tmp_path, f"{HEADER}\nS1,########,a.tif,HER2-IHC\n")
    assert "found '########', which a spreadsheet writes where a column is too narrow" in problem
    (problem,) = problems(tmp_path, f"{HEADER}\nS1,#REF!,a.tif,HER2-IHC\n")
    assert problem == "row 2, case_id: found '#REF!', an error of the spreadsheet; expected its value"


@pytest.mark.parametrize(
    "address",
    [
        "s3://b/k.tif?X-Amz-Signature=hush",
        "https://h/k.tif?sig=hush",
        "s3://me:hush@b/k.tif",
        "k.tif?token=hush",
    ],
)
def test_an_address_with_a_secret_is_refused_and_not_repeated(tmp_path: Path, address: str) -> None:
    for text in (
        f"{HEADER}\nS1,C1,{address},HER2-IHC\n",
        f"{HEADER},roi_uri\nS1,C1,a,HER2-IHC,{address}\n",
        f"{HEADER},cells_uri\nS1,C1,a,HER2-IHC,{address}\n",
    ):
        (problem,) = problems(tmp_path, text)
        assert "carries a user name, a signature or a password" in problem
        assert "hush" not in problem


def test_a_manifest_whose_own_address_has_a_secret_is_refused_and_not_repeated() -> None:
    with pytest.raises(StoreError, match="carries a user name") as caught:
        read_manifest("s3://b/manifest.csv?X-Amz-Signature=hush")
    assert "hush" not in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        ",".join(f"x_{i}" for i in range(100_000)) + "\n",
        ",".join(["slide_id"] * 100_000) + "\n",
        ",".join(f"c{i}" for i in range(900)) + "\n",
        f"{HEADER},{'x' * 100_000}\na,b,c,HER2-IHC,\n",
        f"{HEADER},site,mpp,collection_date\n{'a' * 99_000},b,{'c' * 99_000},{'d' * 99_000},{'e' * 99_000},"
        f"{'f' * 99_000},{'g' * 99_000}\n",
    ],
)
def test_a_message_does_not_grow_with_the_manifest(tmp_path: Path, text: str) -> None:
    start = time.monotonic()
    with pytest.raises(ManifestError) as caught:
        read_manifest(write(tmp_path, text))
    assert len(str(caught.value)) < 150 * MAX_SHOWN
    assert time.monotonic() - start < 5


def test_a_folder_is_told_from_a_manifest(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match=rf"a folder; .* her2 manifest {tmp_path} > manifest.csv"):
        read_manifest(str(tmp_path))


def test_a_tilde_of_nobody_is_a_name(tmp_path: Path) -> None:
    home, nobody = read_manifest(write(
        tmp_path, f"{HEADER}\nS1,C1,~/a.tif,HER2-IHC\nS2,C1,~nobody-here/a.tif,HER2-IHC\n"
    ))  # fmt: skip
    assert home.uri == str(Path.home() / "a.tif")
    assert nobody.uri == f"{tmp_path}/~nobody-here/a.tif"


@pytest.mark.parametrize("empty", ["", "NA", "n/a", "NaN", "[Not Available]", "None"])
def test_every_spelling_of_empty(tmp_path: Path, empty: str) -> None:
    (row,) = read_manifest(
        write(tmp_path, f"{HEADER},mpp,site,scene\na,b,c,HER2-IHC,{empty},{empty},{empty}\n")
    )
    assert (row.mpp, row.site, row.scene) == (None, None, None)


def test_all_problems_come_at_once_with_their_rows(tmp_path: Path) -> None:
    text = (
        f"{HEADER},mpp,site,collection_date,reader_score\n"
        "../a,,c.svs,IHC,250,liver,1.2.2020,4+\n"
        "\n"
        "d\x07e,b,http://x/y,,abc,,2020-13,\n"
        "x,y\n"
        "q,c,c.svs,HER2-IHC,,,2020,\n"
        "Q,c,c.svs,HER2-IHC,,,,\n"
        f"{'z' * 200},c,d\\e.svs,HER2-IHC,nan,,,\n"
    )
    assert problems(tmp_path, text) == [
        "row 2, slide_id: found '../a', which cannot name files and links; use letters, digits, spaces and "
        ". _ - +, and begin with a letter or digit",
        "row 2, case_id: empty; a value is required",
        "row 2, assay: found 'IHC'; expected one of HER2-IHC, HER2-DISH, HER2-FISH",
        "row 2, site: found 'liver'; expected one of primary, lymph_node, metastasis, recurrence, unknown",
        "row 2, collection_date: found '1.2.2020'; expected YYYY-MM-DD, YYYY-MM or YYYY, as in 2020-02-01",
        "row 2, mpp: found 250; expected 0.04 to 1.1 micrometres a pixel",
        "row 2, reader_score: found '4+'; expected one of 0, 0_null, 0_ultralow, 1+, 2+, 3+",
        "row 4, slide_id: found 'd\\x07e'; expected text without control characters",
        "row 4, uri: found the scheme 'http'; expected a path or s3://bucket/key",
        "row 4, assay: empty; a value is required",
        "row 4, collection_date: found '2020-13'; expected YYYY-MM-DD, YYYY-MM or YYYY",
        "row 4, mpp: found 'abc'; expected micrometres a pixel, such as 0.25",
        "row 5: 2 cells, but the header has 8",
        "row 7, slide_id: 'Q' is also in row 6",
        "row 7, uri: the same slide, scene, region and nuclei as in row 6",
        "row 8, slide_id: 200 characters; expected 128 at most",
        "row 8, uri: found 'd\\\\e.svs'; expected folders separated by '/' and no control characters",
    ]


def test_problems_of_the_header(tmp_path: Path) -> None:
    assert problems(tmp_path, "slide_id,case_id,url,mp,mpp,mpp\n1,2,3,4,5,6\n") == [
        "column uri is missing",
        "column assay is missing",
        "column mpp appears twice",
        "column 'url' is unknown; did you mean uri? (name your own columns x_...)",
        "column 'mp' is unknown; did you mean mpp? (name your own columns x_...)",
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "empty; expected a header with slide_id, case_id, uri, assay"),
        (HEADER + "\n", "no rows; expected one a slide"),
        (
            HEADER + '\n"a,b,c,HER2-IHC\n',
            "not a CSV file; line 2: unexpected end of data. Close its quotation marks",
        ),
        (HEADER + '\na,"b"c,c,HER2-IHC\n', "not a CSV file; line 2: "),
        (HEADER.replace(",", "|") + "\na|b|c|HER2-IHC\n", "expected comma, semicolon or tab between columns"),
        (
            HEADER.replace(",", ";") + ";channels\na;b;c;HER2-FISH;DAPI=2;HER2=0;CEP17=1\n",
            "row 2: 7 cells, but the header has 5; put cells that hold ';' in quotation marks",
        ),
        (HEADER.encode() + b"\n\xe4,b,c,HER2-IHC\n", "row 2 is not UTF-8; save the sheet as 'CSV UTF-8'"),
        (
            f"{HEADER}\na,\0b,c,HER2-IHC\n",
            "row 2, case_id: found '\\x00b'; expected text without control characters",
        ),
        (
            f"{HEADER}\na,b,s3://key:secret@bucket/c,HER2-IHC\n",
            "expected s3://bucket/key, without credentials",
        ),
        (f"{HEADER},mpp\na,b,c,HER2-IHC,11\n", "found 11; expected 0.1 to 1.1"),
        *(
            (f"{HEADER},mpp\na,b,c,HER2-IHC,{text}\n", f"found '{text}'; expected micrometres")
            for text in ("inf", "2_5", "0x1", "1e-1", "\u0662")
        ),
    ],
)
def test_files_that_are_no_manifest(tmp_path: Path, text: str | bytes, message: str) -> None:
    (problem,) = problems(tmp_path, text)
    assert message in problem
    assert "secret" not in problem


def test_a_slide_may_be_called_none(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    text = f"{HEADER}\nnone,c,a.tif,HER2-IHC\nNaN,c,b.tif,HER2-IHC\nnull,c,c.tif,HER2-IHC\n"
    assert [row.slide_id for row in read_manifest(write(tmp_path, text))] == ["none", "NaN", "null"]
    assert "row 2, slide_id: 'none' is taken for the slide's name" in caplog.text
    assert problems(tmp_path, f"{HEADER}\n-,none,a.tif,HER2-IHC\n") == [
        "row 2, slide_id: empty; a value is required; '-' means an empty cell",
        "row 2, case_id: empty; a value is required; 'none' means an empty cell",
    ]


def test_a_missing_manifest_is_refused_in_words(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="no such file"):
        read_manifest(str(tmp_path / "none.csv"))


def test_a_flood_of_problems_is_cut_and_counted(tmp_path: Path) -> None:
    found = problems(tmp_path, HEADER + "\n" + "a,b,c,IHC\n" * 1000)
    assert len(found) == MAX_SHOWN + 1
    assert found[-1] == f"... and {1000 - MAX_SHOWN} more"


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("a.svs", "{folder}/a.svs"),
        ("../b/a.svs", "{parent}/b/a.svs"),
        ("/data/a.svs", "/data/a.svs"),
        ("file:///data/a.svs", "/data/a.svs"),
        ("s3://bucket/a.svs", "s3://bucket/a.svs"),
    ],
)
def test_addresses_beside_a_local_manifest(tmp_path: Path, uri: str, expected: str) -> None:
    (row,) = read_manifest(write(tmp_path, f"{HEADER}\na,b,{uri},HER2-IHC\n"))
    assert row.uri == expected.format(folder=tmp_path, parent=tmp_path.parent)


def test_addresses_beside_a_remote_manifest(s3: Bucket) -> None:
    from her2core.storage.store import Store

    lines = [
        f"{i},c,{uri},HER2-IHC"
        for i, uri in enumerate(["x.svs", "../y.svs", "../../../z.svs", "/data/w.svs"])
    ]
    Store(s3.uri).write_bytes("lab/m.csv", "\n".join([HEADER, *lines]).encode())
    rows = read_manifest(f"{s3.uri}/lab/m.csv", endpoint_url=s3.endpoint_url)
    assert [r.uri for r in rows] == [
        f"{s3.uri}/lab/x.svs",
        f"{s3.uri}/y.svs",
        f"{s3.uri}/z.svs",
        "/data/w.svs",
    ]
    Store(s3.uri).write_bytes("m.csv", "\n".join([HEADER, *lines]).encode())
    assert read_manifest(f"{s3.uri}/m.csv")[0].uri == f"{s3.uri}/x.svs"
    with pytest.raises(ManifestError, match=rf"/gone.csv at {s3.endpoint_url}: no such file"):
        read_manifest(f"{s3.uri}/gone.csv")


def test_one_file_may_hold_several_scenes_and_regions(tmp_path: Path) -> None:
    places = ["0,", "1,", "1,r.geojson"]
    text = f"{HEADER},scene,roi_uri\n" + "".join(f"{i},c,s.czi,HER2-IHC,{p}\n" for i, p in enumerate(places))
    assert [r.scene for r in read_manifest(write(tmp_path, text))] == ["0", "1", "1"]


@given(st.text(max_size=12))
def test_an_accepted_slide_name_is_one_file_name(name: str) -> None:
    try:
        row = _Row(slide_id=name, case_id="c", uri="u", assay="HER2-IHC")  # type: ignore[arg-type]
    except ValueError:
        return
    path = Path("/store/pictures") / f"{row.slide_id}.png"
    assert path.parent == Path("/store/pictures")
    assert path.resolve() == path
    assert not row.slide_id.startswith(".")
