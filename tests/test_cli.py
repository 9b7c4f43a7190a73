"""What the command line says and how it ends: tables, exit codes, drafts, one slide, mistakes with S3."""

from __future__ import annotations

import csv
import io
import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile
from botocore.exceptions import ClientError, EndpointConnectionError
from rich.console import Console
from typer.testing import CliRunner

import her2cli as cli
import her2core
from flows.show import row_table, showing_progress
from her2core.cohort import preview
from her2core.intake.draft import find_slides, is_folder
from her2core.intake.manifest import read_manifest
from her2core.pipeline import not_scored, record_failure
from her2core.records import Assay, SlideRow, SlideState
from her2core.stages.failures import failure_of
from her2core.stages.run import open_run
from her2core.storage.journal import write_status
from her2core.storage.store import Store
from tests.helpers.jpegslides import JFIF, write_flavour

Her2 = Callable[..., tuple[int, str, str]]
ROOT = Path(__file__).parent.parent


@pytest.fixture
def her2(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Her2:
    """Runs the command line in this process: exit code, and what it printed."""

    def run(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["her2", *words])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        printed = capsys.readouterr()
        return int(ended.value.code or 0), printed.out, printed.err

    return run


def slide_file(path: Path, mpp: float | None = 0.25) -> Path:
    """A brown slide."""
    pixels = np.full((300, 400, 3), 240, np.uint8)
    pixels[:, ::3] = (140, 95, 60)
    path.parent.mkdir(parents=True, exist_ok=True)
    scale = {} if mpp is None else {"resolution": (1e4 / mpp, 1e4 / mpp), "resolutionunit": "CENTIMETER"}
    tifffile.imwrite(path, pixels, photometric="rgb", tile=(256, 256), metadata=None, **scale)  # type: ignore[arg-type]
    return path


def manifest_of(folder: Path, *slides: Path, **more: str) -> str:
    path = folder / "manifest.csv"
    head = "slide_id,case_id,uri,assay" + "".join(f",{name}" for name in more)
    rows = [f"{slide.stem},C1,{slide},HER2-IHC" + "".join(f",{v}" for v in more.values()) for slide in slides]
    path.write_text("\n".join([head, *rows]) + "\n")
    return str(path)


# tables


def row(**cells: str) -> dict[str, str]:
    return {"slide": "B17-A1-2021-04-11", "case": "B17", "state": "scored", "score": "3+"} | cells


WIDE = {"class": "pos_IHC2_ISHpos", "cells": "123,456", "3+ %": "88.4", "≥2+ %": "90.1", "stained %": "99.3",
        "H-score": "281.2", "ISH group": "1", "HER2/CEP17": "3.40", "HER2 copies": "7.04"}  # fmt: skip


@pytest.mark.parametrize("width", [60, 80, 100, 120, 200])
def test_a_table_fits_its_terminal_without_cutting_ids_or_numbers(width: int) -> None:
    why = "its region of interest lies mostly off the slide, at y 3500 to 9000; draw it again on this one"
    rows = [row(**WIDE, why=why), row(slide="[/x] odd", **WIDE, why="")]
    console = Console(width=width, file=io.StringIO(), color_system=None)
    console.print(row_table(rows, width))
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    assert max(len(line) for line in shown.splitlines()) <= width
    for text in ("B17-A1-2021-04-11", "[/x] odd", "scored", "3+"):
        assert text in shown
    assert " ".join(why.split()[:2]) in shown
    assert ("H-score" in shown) is (width >= 200)
    assert "…" not in shown


def test_a_plan_s_problems_are_read_at_eighty_columns() -> None:
    plan = {"slide": "dish_macrometastasis", "size": "60000 × 40000", "µm/px": "0.250", "shards": "15"}
    plan |= {"source": "1.3 GB", "pyramid": "531.0 kB (×97.0)", "CPU": "1.7 s"}
    why = "the preview of a MIRAX slide, whose pixels lie in the folder 'lonely' beside it"
    console = Console(width=80, file=io.StringIO(), color_system=None)
    console.print(row_table([plan | {"why": ""}, dict.fromkeys(plan, "–") | {"why": why}], 80))
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    assert all(word in shown for word in why.split())
    assert len(shown.splitlines()) <= 6


# one slide, and what ISH is called


@pytest.fixture
def out(tmp_path: Path) -> Path:
    store = Store(tmp_path / "out")
    for name, assay, score in (("a", Assay.IHC, "2+"), ("b", Assay.FISH, "5"), ("c", Assay.DISH, "")):
        slide = SlideRow(name, f"case-{name}", f"{name}.tif", assay)
        if score:
            write_status(store, "run", slide, SlideState.SCORED, "slide", score=score)
        else:
            traceback = "Traceback (most recent call last):\n  line [7]"
            write_status(store, "run", slide, SlideState.FAILED, "cells", reason="internal_error",
                 message="ValueError: odd [/x]", details=traceback)  # fmt: skip
    return tmp_path / "out"


def test_status_names_what_ihc_and_ish_slides_were_scored_as(out: Path, her2: Her2) -> None:
    code, text, _ = her2("status", str(out))
    header, *lines = text.splitlines()
    place = {name: header.index(name) for name in ("slide", "state", "score", "ISH group", "why")}
    ihc, fish, dish = lines[:3]
    assert code == 0
    assert (ihc[place["score"] :][:2], ihc[place["ISH group"] :][:1]) == ("2+", "–")
    assert (fish[place["score"] :][:1], fish[place["ISH group"] :][:1]) == ("–", "5")
    assert "internal_error: ValueError:" in dish
    assert "odd [/x]" in " ".join(lines[2:4])  # the table wraps where the terminal ends
    entries = {entry["slide_id"]: entry for entry in json.loads(her2("status", str(out), "--json")[1])}
    assert (entries["a"]["score"], entries["a"]["ish_group"]) == ("2+", "")
    assert (entries["b"]["score"], entries["b"]["ish_group"], entries["b"]["assay"]) == ("", "5", "HER2-FISH")


def test_status_of_one_slide_shows_its_traceback(out: Path, her2: Her2) -> None:
    code, text, _ = her2("status", str(out), "c")
    assert code == 0
    assert "message  ValueError: odd [/x]" in text
    assert text.endswith("Traceback (most recent call last):\n  line [7]\n")
    (entry,) = json.loads(her2("status", str(out), "c", "--json")[1])
    assert entry["details"].startswith("Traceback")


@pytest.mark.parametrize("words", [(), ("--json",)])
def test_status_of_nothing_ends_alike_in_text_and_json(
    out: Path, tmp_path: Path, her2: Her2, words: tuple[str, ...]
) -> None:
    code, text, said = her2("status", str(tmp_path / "empty"), *words)
    assert (code, text.strip()) == (2, "[]" if words else "")
    assert "holds no run yet" in said
    code, text, said = her2("status", str(out), "aa", *words)
    assert (code, text.strip()) == (2, "[]" if words else "")
    assert "holds no slide aa; did you mean a?" in said


# the same checks before a run, a dry run and a plan


@pytest.mark.parametrize("verb", ["plan", "dry run", "run"])
@pytest.mark.parametrize(
    ("config", "code", "words"),
    [
        ("ihc_score: {strong_od: yes}", 2, "line 1: 'yes' means different things"),
        ("ihc_score: {detect_od: 0.12}", 2, "ihc_score.detect_od is 0.12; expected one of ihc.ladder_od"),
        ("ihc: {strong_od: 0.65}", 2, "ihc.strong_od is 0.65; expected one of ihc.ladder_od"),
        ("run: {endpoint_url: 'http://127.0.0.1:9'}", 3, "refuses us: tried to read it without credentials"),
    ],
)
def test_plan_dry_run_and_run_refuse_the_same(
    tmp_path: Path, her2: Her2, verb: str, config: str, code: int, words: str
) -> None:
    (tmp_path / "c.yaml").write_text(config)
    slide = slide_file(tmp_path / "s.tif") if code == 2 else Path("s3://b/s.tif")
    manifest = manifest_of(tmp_path, slide).replace("s3:/b", "s3://b")
    Path(manifest).write_text(Path(manifest).read_text().replace("s3:/b", "s3://b"))
    if verb == "plan":
        ended = her2("plan", manifest, "-c", str(tmp_path / "c.yaml"))
    else:
        more = ["--dry-run"] if verb == "dry run" else []
        ended = her2("run", manifest, "-o", str(tmp_path / "out"), "-c", str(tmp_path / "c.yaml"), *more)
    assert ended[0] == code, ended
    assert words in ended[2]
    assert len(ended[2].strip().splitlines()) == 1


@pytest.mark.parametrize("dry", [(), ("--dry-run",)])
@pytest.mark.parametrize(
    ("cluster", "words"),
    [
        ("nowhere", "expected local, tcp://HOST:PORT"),
        ("tcp://host", "expected local"),
        ("tcp://a:b@h:1", "user"),
    ],
)
def test_a_cluster_that_is_none_is_refused_before_a_run_and_a_dry_run(
    tmp_path: Path, her2: Her2, dry: tuple[str, ...], cluster: str, words: str
) -> None:
    manifest = manifest_of(tmp_path, slide_file(tmp_path / "s.tif"))
    code, _, said = her2("run", manifest, "-o", str(tmp_path / "out"), "--cluster", cluster, *dry)
    assert (code, words in said, "a:b" in said) == (2, True, False)


def test_a_plan_finds_what_would_end_a_slide(tmp_path: Path, her2: Her2) -> None:
    (tmp_path / "roi.geojson").write_text("[]")
    good = slide_file(tmp_path / "good.tif")
    manifest = manifest_of(tmp_path, good, roi_uri="roi.geojson")
    code, text, _ = her2("plan", manifest, "--json")
    (slide,) = json.loads(text)["slides"]
    assert code == 1
    assert slide["problem"].startswith("[roi_invalid] region of interest")
    code, text, _ = her2("plan", manifest)
    assert code == 1
    assert "1 with problems" in text


def test_a_plan_tells_what_to_look_at(tmp_path: Path, her2: Her2) -> None:
    corner = {"type": "Polygon", "coordinates": [[[10, 10], [90, 10], [90, 70], [10, 70]]]}
    (tmp_path / "roi.geojson").write_text(json.dumps(corner))
    manifest = manifest_of(tmp_path, slide_file(tmp_path / "good.tif"), roi_uri="roi.geojson")
    code, text, _ = her2("plan", manifest, "--json")
    (slide,) = json.loads(text)["slides"]
    assert (code, slide["problem"]) == (0, "")
    assert slide["doubt"].startswith("region doubtful: all of it is in the upper left corner")


def test_an_error_that_nobody_expected_leaves_its_traceback_in_journal_log_and_status(
    tmp_path: Path, her2: Her2, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hushhush")
    run = open_run(manifest_of(tmp_path, slide_file(tmp_path / "one.tif")), str(tmp_path / "out"))

    def odd() -> None:
        raise ZeroDivisionError("of /home/jane/slide.svs with hushhush")

    with caplog.at_level(logging.INFO, "her2core"):
        try:
            odd()
        except ZeroDivisionError as error:
            finished = record_failure(run, run.rows[0], error)
    assert (finished.outcome.state, finished.outcome.reason) == ("failed", "internal_error")
    code, text, _ = her2("status", str(tmp_path / "out"), "one")
    assert code == 0
    for told in (text, caplog.text):
        assert "Traceback (most recent call last)" in told
        assert "in odd" in told
        assert "ZeroDivisionError" in told
        assert "hushhush" not in told
        assert "/home/jane" not in told


def test_a_look_at_some_slides_commits_nothing(tmp_path: Path) -> None:
    manifest = manifest_of(tmp_path, slide_file(tmp_path / "one.tif"), slide_file(tmp_path / "two.tif"))
    run = open_run(manifest, str(tmp_path / "out"), only=["two"])
    assert [row.slide_id for row in run.rows] == ["two"]
    finished = not_scored(run, run.rows[0], failure_of(TimeoutError("slow")))
    summary = preview(run, [finished])
    assert (summary.committed, summary.cases, summary.complete) == (False, (), False)
    assert [row["slide_id"] for row in summary.slides] == ["two"]
    assert "The tables are as they were; run without --only" in "\n".join(summary.lines())
    assert not (tmp_path / "out" / "tables").exists()


def test_only_one_slide_that_is_there(tmp_path: Path, her2: Her2) -> None:
    manifest = manifest_of(tmp_path, slide_file(tmp_path / "one.tif"), slide_file(tmp_path / "two.tif"))
    words = ("run", manifest, "-o", str(tmp_path / "out"), "--dry-run", "--json")
    code, text, _ = her2(*words, "--only", "two")
    assert (code, [slide["slide_id"] for slide in json.loads(text)["slides"]]) == (0, ["two"])
    code, _, said = her2(*words, "--only", "tow")
    assert (code, "--only 'tow': the manifest has no such slide; did you mean two?" in said) == (2, True)


def test_ids_that_a_spreadsheet_changed_are_said_at_once(tmp_path: Path, her2: Her2) -> None:
    manifest = manifest_of(tmp_path, slide_file(tmp_path / "1E+05.tif"))
    code, _, said = her2("plan", manifest)
    assert code == 0
    assert "warning" in said
    assert "'1E+05' looks like a long number" in said


# mistakes with S3, an address with a secret


@pytest.mark.parametrize(
    "words",
    [("inspect", "s3://b/a.svs"), ("inspect", "s3://b/folder/"), ("plan", "s3://b/m.csv"), ("status", "s3://b/out"),
     ("manifest", "s3://b/slides"), ("run", "s3://b/m.csv", "-o", "OUT"), ("run", "MANIFEST", "-o", "s3://b/o"),
     ("run", "MANIFEST", "-o", "s3://b/o", "--dry-run"), ("plan", "MANIFEST", "-c", "s3://b/c.yaml"),
     ("clinical", "s3://b/table.csv")],
)  # fmt: skip
def test_every_verb_says_in_one_line_that_nobody_answers(
    tmp_path: Path, her2: Her2, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]
) -> None:
    names = {"OUT": str(tmp_path / "out"), "MANIFEST": manifest_of(tmp_path, slide_file(tmp_path / "s.tif"))}
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "x")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "mistyped")
    start = time.monotonic()
    code, text, said = her2(*(names.get(word, word) for word in words))
    assert (code, text) == (3, "")
    assert "at http://127.0.0.1:9 cannot be used: tried to" in said
    assert "correct AWS_ENDPOINT_URL" in said
    assert len(said.strip().splitlines()) == 1
    assert time.monotonic() - start < 20


@pytest.mark.parametrize(
    "words",
    [("inspect", "SIGNED"), ("plan", "SIGNED"), ("status", "SIGNED"), ("manifest", "SIGNED"),
     ("clinical", "SIGNED"), ("run", "SIGNED", "-o", "OUT"), ("run", "MANIFEST", "-o", "SIGNED"),
     ("plan", "MANIFEST", "-c", "SIGNED")],
)  # fmt: skip
@pytest.mark.parametrize(
    "address", ["s3://b/x?X-Amz-Signature=hush", "https://h/x.csv?sig=hush", "s3://u:hush@b/x"]
)
def test_an_address_with_a_secret_appears_nowhere(
    tmp_path: Path, her2: Her2, words: tuple[str, ...], address: str
) -> None:
    manifest = manifest_of(tmp_path, slide_file(tmp_path / "s.tif"))
    names = {"OUT": str(tmp_path / "out"), "MANIFEST": manifest, "SIGNED": address}
    code, text, said = her2(*(names.get(word, word) for word in words))
    assert code in (1, 2, 3)
    assert "carries a user name, a signature or a password" in said
    assert "hush" not in text + said


# a folder is enough


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "slides"
    slide_file(root / "B17 A1 HER2.tif")
    slide_file(root / "sub" / "B17-FISH.tif", mpp=None)
    slide_file(root / "sub" / "=cmd.tif")
    slide_file(root / "sub" / "b17 a1 her2.tiff")
    (root / "notes.txt").write_text("no slide")
    (root / ".hidden.tif").write_text("no slide")
    (root / "torn.svs").write_bytes(b"II*\0")
    (root / "m.mrxs").write_text("x")
    (root / "m").mkdir()
    (root / "m" / "Data0000.dat").write_text("x")
    slide_file(root / "m" / "inner.tif")
    zarr = root / "pyramid.ome.zarr"
    zarr.mkdir()
    (zarr / "zarr.json").write_text("{}")
    series = root / "series"
    series.mkdir()
    for number in range(2):
        (series / f"{number}.dcm").write_bytes(b"\0" * 128 + b"DICM")
    return root


def test_slides_of_a_folder(folder: Path) -> None:
    found = [str(Path(uri).relative_to(folder)) for uri in find_slides(str(folder))]
    assert found == sorted(
        ["B17 A1 HER2.tif", "m.mrxs", "pyramid.ome.zarr", "series", "torn.svs", "sub/B17-FISH.tif",
         "sub/=cmd.tif", "sub/b17 a1 her2.tiff"]
    )  # fmt: skip
    assert is_folder(str(folder))
    assert not is_folder(str(folder / "series"))
    assert not is_folder(str(folder / "pyramid.ome.zarr"))
    assert not is_folder(str(folder / "torn.svs"))
    assert not is_folder(str(folder / "gone"))


def test_a_draft_needs_but_its_cases_to_be_a_manifest(folder: Path, tmp_path: Path, her2: Her2) -> None:
    code, text, said = her2("manifest", str(folder))
    rows = {row["slide_id"]: row for row in csv.DictReader(io.StringIO(text))}
    assert code == 1  # some cannot be read
    assert "8 slides" in said
    assert set(rows) == {"B17 A1 HER2", "b17 a1 her2-2", "B17-FISH", "cmd", "m", "pyramid", "series", "torn"}
    first = rows["B17 A1 HER2"]
    assert (first["case_id"], first["assay"], first["x_assay_from"]) == ("", "HER2-IHC", "name")
    assert (first["x_size_px"], first["x_um_px"]) == ("400 x 300", "0.25 (tiff_resolution)")
    assert (rows["cmd"]["assay"], rows["cmd"]["x_assay_from"]) == ("HER2-IHC", "pixels")
    assert rows["B17-FISH"]["assay"] == "HER2-FISH"
    assert "mpp" in rows["B17-FISH"]["x_problem"]
    assert rows["torn"]["x_problem"].startswith("[not_a_slide]")
    assert not any(cell.startswith(("=", "+", "-", "@")) for row in rows.values() for cell in row.values())
    path = tmp_path / "completed.csv"
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(first))
        writer.writeheader()
        writer.writerows({**r, "case_id": "C1", "assay": r["assay"] or "HER2-IHC"} for r in rows.values())
    assert [r.slide_id for r in read_manifest(str(path))] == list(rows)


def test_plan_and_inspect_of_a_folder(folder: Path, her2: Her2) -> None:
    code, text, said = her2("plan", str(folder), "--json")
    slides = {slide["slide_id"]: slide for slide in json.loads(text)["slides"]}
    assert (code, len(slides)) == (1, 8)
    assert (slides["B17 A1 HER2"]["width_px0"], slides["B17 A1 HER2"]["problem"]) == (400, "")
    assert "is a folder" in said
    code, text, _ = her2("inspect", str(folder / "sub"), "--json")
    assert (code, len(json.loads(text))) == (0, 3)


def test_a_folder_that_links_to_itself_is_walked_once(tmp_path: Path) -> None:
    slide_file(tmp_path / "a" / "one.tif")
    (tmp_path / "a" / "loop").symlink_to(tmp_path)
    (tmp_path / "b").symlink_to(tmp_path / "a")
    assert find_slides(str(tmp_path)) == [str(tmp_path / "a" / "one.tif")]


def test_a_folder_without_slides_is_said(tmp_path: Path, her2: Her2) -> None:
    (tmp_path / "x.txt").write_text("x")
    code, _, said = her2("manifest", str(tmp_path))
    assert (code, "no slides in it; expected files such as .svs" in said) == (2, True)
    code, _, said = her2("manifest", str(tmp_path / "gone"))
    assert (code, "no folder that can be read" in said) == (2, True)
    other = slide_file(tmp_path / "other" / "one.tif")
    (tmp_path / "none").mkdir()
    (tmp_path / "none" / "x.txt").write_text("x")
    code, text, _ = her2("inspect", str(tmp_path / "none"), str(other), "--json")
    lacking, looked_at = json.loads(text)
    assert (code, looked_at["uri"]) == (1, str(other))
    assert "no slides in it" in lacking["error"]


# how much is said


@pytest.mark.parametrize(
    ("level", "heard"),
    [
        (logging.WARNING, ["bad"]),
        (logging.INFO, ["stage", "bad"]),
        (logging.DEBUG, ["detail", "stage", "bad"]),
    ],
)
def test_quiet_and_verbose(level: int, heard: list[str]) -> None:
    console, log = Console(file=io.StringIO(), width=80), logging.getLogger("her2core.x")
    with showing_progress(console, level):
        log.debug("detail")
        log.info("stage")
        log.warning("bad")
    said = console.file.getvalue()  # type: ignore[attr-defined]
    assert [word for word in ("detail", "stage", "bad") if word in said] == heard


@pytest.mark.parametrize(("words", "notes"), [((), True), (("-q",), False), (("-v",), True)])
def test_notes_are_not_said_with_q(folder: Path, her2: Her2, words: tuple[str, ...], notes: bool) -> None:
    code, text, said = her2(*words, "manifest", str(folder / "sub"))
    assert (code, text.count("\n")) == (0, 4)
    assert ("3 slides" in said) is notes


def test_help_loads_only_what_prints_it() -> None:
    code = "import sys, her2cli; print(*{name.partition('.')[0] for name in sys.modules})"
    loaded = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    heavy = {"botocore", "dask", "deltalake", "fsspec", "numpy", "prefect", "pyarrow", "pydantic", "zarr"}
    assert "typer" in loaded.stdout.split()
    assert not heavy & {*loaded.stdout.split()}


def test_an_outage_in_the_middle_of_a_verb_ends_in_words_and_other_errors_do_not(
    her2: Her2, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(error: Exception) -> None:
        def raising() -> None:
            raise error

        monkeypatch.setattr(cli, "app", raising)

    fail(EndpointConnectionError(endpoint_url="http://127.0.0.1:9"))
    code, _, said = her2("status", "s3://bucket/out")
    assert code == cli.UNUSABLE
    assert "the store at" in said
    refused = PermissionError(13, "Access Denied")
    refused.__cause__ = ClientError({"Error": {"Code": "AccessDenied"}}, "PutObject")
    no_folder = NotADirectoryError(20, "Not a directory", "/dev/null/x")
    for error, words in ((refused, "the bucket's policy (AccessDenied)"), (no_folder, "/dev/null/x: Not a")):
        fail(error)
        code, _, said = her2("export", "run", "csv")
        assert (code, words in said) == (cli.UNUSABLE, True)
    for other in (PermissionError(13, "Permission denied"), KeyError("slides token=hush")):
        fail(other)  # no code of a verb: 1 would mean that slides failed
        code, _, said = her2("export", "run", "csv")
        assert (code, "hush" in said) == (cli.INTERNAL, False)
        assert said.startswith("Traceback (most recent call last):")
        assert f"unexpected ({type(other).__name__}: " in said.splitlines()[-1]
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    monkeypatch.delenv("AWS_ENDPOINT_URL_S3", raising=False)
    monkeypatch.setenv("AWS_PROFILE", "nobody's")  # of no concern to an error of this machine
    fail(PermissionError(13, "Permission denied"))
    code, _, said = her2("export", "run", "csv")
    assert (code, "unexpected (PermissionError: " in said) == (cli.INTERNAL, True)


@pytest.mark.parametrize(
    "words",
    [
        "agreement run -o s3://b/x",
        "outcome run clinical.csv -o s3://b/x",
        "rna run rna.csv -o s3://b/x",
        "export run csv -o s3://b/x",
        "report run -o s3://b/x",
        "background run --manifest s3://b/m.csv -o s3://b/n.csv",
        "learn-tumour m.csv --run run -o s3://b/m.json",
        "pyramid s3://b/a.tif -o out",
        "metrics s3://b/out --port 0",
        "ingest slides -m s3://b/m.csv",
        "ingest s3://b/slides -m m.csv",
        "ingest s3://b/slides -m m.csv --dry-run",
    ],
)
def test_where_a_verb_writes_or_looks_is_asked_for_before_it_begins(
    words: str, her2: Her2, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "x")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "x")
    code, _, said = her2(*words.split())
    assert code == cli.UNUSABLE
    assert said.startswith("error s3://b")
    assert " at http://127.0.0.1:9 cannot be used: tried to " in said
    assert said.count("\n") == 1


def test_sigterm_ends_a_verb_as_ctrl_c_does(monkeypatch: pytest.MonkeyPatch) -> None:
    tidied = []

    def export() -> None:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(20)
        finally:
            tidied.append(signal.getsignal(signal.SIGTERM))

    monkeypatch.setattr(cli, "app", export)
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt):
        cli.main()
    assert tidied == [signal.SIG_DFL]
    assert signal.getsignal(signal.SIGTERM) == before


def test_help_tells_exit_codes_and_completion() -> None:
    for words in ([], ["run"], ["plan"], ["status"]):
        shown = " ".join(CliRunner().invoke(cli.app, [*words, "--help"]).stdout.split())
        assert "130 interrupted" in shown
    assert "--install-completion" in CliRunner().invoke(cli.app, ["--help"]).stdout
    shown = CliRunner().invoke(cli.app, ["run", "--help"]).stdout
    for option in ("--only", "--quiet", "--verbose", "-q", "-v"):
        assert option in shown


def test_pyramid_converts_alone(tmp_path: Path, her2: Her2) -> None:
    good = slide_file(tmp_path / "good slide.tif")
    (tmp_path / "bad.svs").write_bytes(b"no slide")
    slides, out = (str(good), str(tmp_path / "bad.svs")), str(tmp_path / "out")
    code, text, said = her2("pyramid", *slides, "-o", out, "--codec", "source", "--json")
    (made,) = json.loads(text)
    assert (code, "[not_a_slide]" in said) == (1, True)
    assert made["uri"] == f"{out}/good slide.zarr"
    assert her2core.open_level(made["uri"], 0).sizes["c"] == 3
    new = str(slide_file(tmp_path / "new.tif"))
    code, _, said = her2("pyramid", new, str(good), "-o", out)
    assert (code, "good slide.zarr is there already; delete it" in said) == (3, True)
    assert not (tmp_path / "out" / "new.zarr").exists()  # refused before anything is converted
    code, _, said = her2("pyramid", str(good), "-o", str(tmp_path / "b"), "--codec", "lz5")
    assert (code, "expected source, blosc-lz4" in said) == (2, True)


def test_a_plan_sets_codecs_side_by_side(tmp_path: Path, her2: Her2) -> None:
    copied = write_flavour(tmp_path / "copied.svs", np.full((1100, 700, 3), 90, np.uint8), 64, JFIF)
    manifest = manifest_of(tmp_path, copied, mpp="0.25")
    (tmp_path / "c.yaml").write_text("pyramid: {codec: jpeg-80}")
    code, text, _ = her2("plan", manifest, "-c", str(tmp_path / "c.yaml"), "--json")
    codecs = {one["codec"]: one for one in json.loads(text)["codecs"]}
    assert code == 0
    (chosen,) = (one for one in codecs.values() if one["chosen"])
    assert chosen["codec"] == "jpeg-80"
    (slide,) = json.loads(text)["slides"]
    assert slide["cpu_s"] == pytest.approx(chosen["cpu_hours"] * 3600)  # one estimate, not two
    assert codecs["source"]["fallbacks"] == 0
    assert codecs["source"]["stored_bytes"] < codecs["zstd"]["stored_bytes"]
    assert codecs["source"]["puts"] < codecs["zstd"]["puts"]
    one = codecs["source"]
    assert one["requests"] == pytest.approx(one["puts"] * 5e-6 + one["gets"] * 4e-7)
    assert one["cpu"] == pytest.approx(one["cpu_hours"] * 0.0504)
    assert one["month"] == pytest.approx(one["stored_bytes"] * 0.023e-9)
    _, text, _ = her2("plan", manifest)
    assert "jpeg-90" in text
    assert "$/month" in text
    (tmp_path / "c.yaml").write_text("prices: {currency: EUR, cpu_hour: 0, put_1000: 1, get_1000: 0}")
    _, text, _ = her2("plan", manifest, "-c", str(tmp_path / "c.yaml"), "--json")
    dear = {one["codec"]: one for one in json.loads(text)["codecs"]}["source"]
    assert (dear["cpu"], dear["currency"]) == (0, "EUR")
    assert dear["requests"] == pytest.approx(dear["puts"] / 1000)
    (tmp_path / "c.yaml").write_text("prices: {gb_month: -1}")
    code, _, said = her2("plan", manifest, "-c", str(tmp_path / "c.yaml"))
    assert (code, "prices.gb_month is -1" in said) == (2, True)
