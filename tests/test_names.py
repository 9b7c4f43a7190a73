"""Pseudonyms of files and folders: stable, apart from the results, and nothing slips by them."""

from __future__ import annotations

from pathlib import Path

import pytest

from her2core.errors import ConfigError, Reason, SlideError
from her2core.pipeline import record_failure
from her2core.stages.names import Names, open_names
from her2core.stages.run import open_run
from her2core.storage.store import Store

JANE = "/data/Jane Doe/Doe_1970.svs"


def test_pseudonyms_stay_the_same_and_say_nothing(tmp_path: Path) -> None:
    table, out = tmp_path / "apart" / "names.csv", Store(tmp_path / "out")
    first = open_names(str(table), [JANE, "s3://b/x.tif", JANE], out, None)
    again = open_names(str(table), ["s3://b/x.tif", "new.ndpi"], out, None)
    assert again.of(JANE) == first.of(JANE)
    assert again.of("s3://b/x.tif") == first.of("s3://b/x.tif") != first.of(JANE)
    assert first.of(JANE).endswith(".svs")
    assert "Doe" not in first.of(JANE)
    assert len(table.read_text().splitlines()) == 4
    assert open_names(None, [JANE], out, None).of(JANE) == JANE


def test_names_that_begin_like_formulas_are_harmless_in_the_table(tmp_path: Path) -> None:
    table, out, names = (
        tmp_path / "names.csv",
        Store(tmp_path / "out"),
        ["=cmd|x.csv", "'=x.csv", "'x.csv", "+1.csv"],
    )
    first = open_names(str(table), names, out, None)
    written = [line.partition(",")[2] for line in table.read_text().splitlines()[1:]]
    assert written == ["'=cmd|x.csv", "''=x.csv", "'x.csv", "'+1.csv"]
    assert open_names(str(table), names, out, None).pseudonyms == first.pseudonyms


@pytest.mark.parametrize(
    "text",
    [
        f"{JANE}: no such file; correct uri in the manifest",
        "Doe_1970.svs is broken",
        "cannot read '/data/Jane Doe/Doe_1970.svs' (bad header)",
        "[Errno 2] No such file or directory: '/data/Jane Doe/Doe_1970/Slidedat.ini'",
        "member Doe_0001.dcm of s3://lab/Jane/x has 3 frames",
        "…/Doe_1970.svs and /mnt/other/Doe.png",
    ],
)
def test_no_name_is_left_in_a_text(text: str) -> None:
    hidden = Names({JANE: "file-1.svs"}).hide(text, [JANE])
    assert "Doe" not in hidden
    assert "Jane" not in hidden
    assert ("file-1.svs" in hidden) == ("Doe_1970.svs" in text)
    assert Names().hide(text, [JANE]) == text


def test_words_that_are_no_names_stay() -> None:
    text = "0.25 µm/px; HER2/CEP17 of 3/4 and/or 1.5 at x=3: expected a fraction"
    assert Names({JANE: "file-1.svs"}).hide(text, [JANE]) == text


def test_the_table_lies_apart_and_is_one(tmp_path: Path) -> None:
    out = Store(tmp_path / "out")
    with pytest.raises(ConfigError, match="lies in the output"):
        open_names(str(tmp_path / "out" / "names.csv"), [JANE], out, None)
    (tmp_path / "names.csv").write_text("a,b\n1,2\n")
    with pytest.raises(ConfigError, match="expected the columns pseudonym, name"):
        open_names(str(tmp_path / "names.csv"), [JANE], out, None)


def test_a_run_shows_pseudonyms_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In rows, messages, journal and the configuration that is stored."""
    folder = tmp_path / "Doe"
    folder.mkdir()
    (folder / "manifest.csv").write_text("slide_id,case_id,uri,assay\ns1,c1,Jane.svs,HER2-IHC\n")
    monkeypatch.setenv("HER2_RUN__PSEUDONYMS", str(tmp_path / "names.csv"))
    run = open_run(str(folder / "manifest.csv"), str(tmp_path / "out"))
    (row,) = run.rows
    error = SlideError(Reason.FILE_MISSING, f"{row.uri}: no such file")
    told = [str(record_failure(run, row, error).outcome), (tmp_path / "out/journal/s1.json").read_text()]
    told += [
        str(record_failure(run, row, OSError(2, "No such file", row.uri)).outcome),
        str(run.configuration()),
    ]
    for text in told:
        assert "Jane" not in text
        assert "Doe" not in text
        assert str(tmp_path) not in text
    assert run.shown(row).uri in told[0]
    assert row.uri in (tmp_path / "names.csv").read_text()
