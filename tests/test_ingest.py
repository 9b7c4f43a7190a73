"""What arrives in a folder or bucket becomes rows of the manifest, once; a person decides what is unclear."""

from __future__ import annotations

import csv
import io
import os
import resource
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tifffile

from her2core.errors import ConfigError, ManifestError
from her2core.intake import ingest as ingest_module
from her2core.intake.discover import discover, gather
from her2core.intake.identifiers import NamingRule, UnclearError, read_sidecar
from her2core.intake.ingest import IngestReport, Intake, Kind, ingest
from her2core.intake.manifest import read_manifest
from her2core.records import Assay
from her2core.storage.listing import Listed, uploads_in_flight, walk
from her2core.storage.sources import Scratch, file_identity
from her2core.storage.store import Store
from tests.conftest import Bucket

RULE = NamingRule.of(r"(?P<case_id>B\d+)-(?P<block_id>[A-Z]\d)(_(?P<assay>HER2|FISH))?")


def write_slide(path: Path, seed: int, mpp: float | None = 0.25) -> None:
    """A small bright-field slide; another seed is other content."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rgb = np.random.default_rng(seed).integers(200, 255, (256, 256, 3), dtype=np.uint8)
    scale = {"resolution": (1e4 / mpp, 1e4 / mpp), "resolutionunit": "CENTIMETER"} if mpp else {}
    tifffile.imwrite(path, rgb, photometric="rgb", tile=(128, 128), **scale)


@pytest.fixture
def intake(tmp_path: Path) -> Intake:
    (tmp_path / "slides").mkdir()
    scratch = Scratch(str(tmp_path / "scratch"), 2**30)
    return Intake(str(tmp_path / "slides"), str(tmp_path / "manifest.csv"), scratch, rule=RULE, settle_s=0)


def rows(intake: Intake) -> dict[str, dict[str, str]]:
    text = Store(Path(intake.manifest).parent).read_bytes(Path(intake.manifest).name).decode()
    return {row["slide_id"]: row for row in csv.DictReader(io.StringIO(text))}


def kinds(report: IngestReport) -> dict[str, Kind]:
    return {Path(entry.uri).name: entry.kind for entry in report.entries}


def test_a_manifest_is_built_and_then_extended_and_nothing_in_it_changes(intake: Intake) -> None:
    slides = Path(intake.place)
    write_slide(slides / "day1" / "B1-A1_HER2.tif", 1)
    first = ingest(intake)
    assert kinds(first) == {"B1-A1_HER2.tif": Kind.NEW}
    assert first.to_score == ("B1-A1_HER2",)
    (row,) = read_manifest(intake.manifest)
    assert (row.slide_id, row.case_id, row.block_id, row.assay) == ("B1-A1_HER2", "B1", "A1", "HER2-IHC")
    assert rows(intake)["B1-A1_HER2"]["x_identity"] == file_identity(row.uri)[1]

    body = Path(intake.manifest).read_text().splitlines()
    Path(intake.manifest).write_text(f"{body[0]},x_note\n{body[1]},-\n")
    inode = os.stat(intake.manifest).st_ino
    assert ingest(intake).entries == ()
    assert os.stat(intake.manifest).st_ino == inode  # not even written

    with open(intake.manifest) as before:  # as a run that has begun has it
        write_slide(slides / "day2" / "B2-A1_HER2.tif", 2)
        second = ingest(intake)
        assert len(before.read().splitlines()) == 2
    assert second.to_score == ("B2-A1_HER2",)
    assert rows(intake)["B1-A1_HER2"]["x_note"] == "-"
    assert [row.slide_id for row in read_manifest(intake.manifest)] == ["B1-A1_HER2", "B2-A1_HER2"]


def test_changed_vanished_and_doubled_slides_are_reported(intake: Intake) -> None:
    slides = Path(intake.place)
    for number in (1, 2, 3):
        write_slide(slides / f"B{number}-A1_HER2.tif", number)
    ingest(intake)
    write_slide(slides / "B1-A1_HER2.tif", 99)
    os.utime(slides / "B2-A1_HER2.tif")  # touched: the same content
    (slides / "B3-A1_HER2.tif").rename(slides.parent / "B3-A1_HER2.tif")
    shutil.copy(slides / "B2-A1_HER2.tif", slides / "B7-A1_HER2.tif")
    report = ingest(intake)
    assert kinds(report) == {
        "B1-A1_HER2.tif": Kind.CHANGED,
        "B3-A1_HER2.tif": Kind.VANISHED,
        "B7-A1_HER2.tif": Kind.DUPLICATE,
    }
    assert "B2-A1_HER2" in report.of(Kind.DUPLICATE)[0].why
    assert set(rows(intake)) == {"B1-A1_HER2", "B2-A1_HER2", "B3-A1_HER2"}
    assert rows(intake)["B1-A1_HER2"]["x_identity"] == file_identity(str(slides / "B1-A1_HER2.tif"))[1]
    assert {e.kind for e in ingest(intake).entries} == {Kind.VANISHED, Kind.DUPLICATE}


def test_a_slide_that_became_what_another_one_is_is_reported_until_a_person_decides(intake: Intake) -> None:
    slides = Path(intake.place)
    for number in (1, 2):
        write_slide(slides / f"B{number}-A1_HER2.tif", number)
    ingest(intake)
    old = (slides / "B1-A1_HER2.tif").read_bytes()
    shutil.copy(slides / "B2-A1_HER2.tif", slides / "B1-A1_HER2.tif")
    (slides / "B3-A1_HER2.tif").write_bytes(old)  # what B1 was is no double of what B1 is
    report = ingest(intake)
    assert [(e.kind, e.slide_id) for e in report.entries] == [
        (Kind.NEW, "B3-A1_HER2"),
        (Kind.CHANGED, "B1-A1_HER2"),
        (Kind.DUPLICATE, "B1-A1_HER2"),
    ]
    assert "same content as B2-A1_HER2" in report.of(Kind.DUPLICATE)[0].why
    again = ingest(intake)
    assert [(e.kind, e.slide_id) for e in again.entries] == [(Kind.DUPLICATE, "B2-A1_HER2")]
    assert again.needs_a_person
    manifest = Path(intake.manifest)
    header, *body = manifest.read_text().splitlines()
    marked = ["the wrong file" if row.startswith("B1-") else "" for row in body]
    lines = [f"{row},{why}" for row, why in zip(body, marked, strict=True)]
    manifest.write_text("\n".join([f"{header},exclude", *lines, ""]))
    assert ingest(intake).entries == ()


def test_slides_that_change_places_are_no_doubles_and_one_that_was_renamed_is_named(intake: Intake) -> None:
    slides = Path(intake.place)
    one, two = (slides / f"B{number}-A1_HER2.tif" for number in (1, 2))
    write_slide(one, 1)
    write_slide(two, 2)
    ingest(intake)
    was = one.read_bytes()
    one.write_bytes(two.read_bytes())
    two.write_bytes(was)
    assert [e.kind for e in ingest(intake).entries] == [Kind.CHANGED, Kind.CHANGED]
    two.rename(slides / "B20-A1_HER2.tif")
    report = ingest(intake)
    assert [e.kind for e in report.entries] == [Kind.VANISHED, Kind.DUPLICATE]
    assert "if it was renamed or moved, write this place into its row" in report.of(Kind.DUPLICATE)[0].why


def test_what_cannot_be_used_is_said_and_not_opened_again_until_it_changes(
    intake: Intake, monkeypatch: pytest.MonkeyPatch
) -> None:
    slides = Path(intake.place)
    write_slide(slides / "B1-A1_HER2.tif", 1)
    (slides / "B2-A1_HER2.svs").write_bytes(b"no slide at all")
    write_slide(slides / "B3-A1_HER2.tif", 3, mpp=None)
    write_slide(slides / "overview.tif", 4)
    report = ingest(intake)
    assert kinds(report) == {
        "B1-A1_HER2.tif": Kind.NEW,
        "B2-A1_HER2.svs": Kind.REFUSED,
        "B3-A1_HER2.tif": Kind.REFUSED,
        "overview.tif": Kind.NO_CASE,
    }
    why = {Path(entry.uri).name: entry.why for entry in report.entries}
    assert "scale_unknown" in why["B3-A1_HER2.tif"]
    assert "naming rule does not fit" in why["overview.tif"]
    assert report.needs_a_person

    opened: list[str] = []
    inspect = ingest_module.inspect_slide

    def counted(uri: str, **given: object) -> object:
        opened.append(Path(uri).name)
        return inspect(uri, **given)  # type: ignore[arg-type]

    monkeypatch.setattr(ingest_module, "inspect_slide", counted)
    again = ingest(intake)
    assert opened == []
    assert {e.uri: e.why for e in again.entries} == {
        e.uri: e.why for e in report.entries if e.kind != Kind.NEW
    }
    write_slide(slides / "B3-A1_HER2.tif", 3)
    assert ingest(intake).to_score == ("B3-A1_HER2",)
    assert opened == ["B3-A1_HER2.tif"]


def test_a_slide_that_is_still_being_written_waits(intake: Intake) -> None:
    write_slide(Path(intake.place) / "B1-A1_HER2.tif", 1)
    report = ingest(replace(intake, settle_s=600))
    assert kinds(report) == {"B1-A1_HER2.tif": Kind.WAITING}
    assert not report.written
    assert not Path(intake.manifest).exists()
    assert not report.needs_a_person


def test_an_assay_is_never_guessed_silently(intake: Intake) -> None:
    slides = Path(intake.place)
    for name in ("B1-A1_HER2", "B2-A1"):
        write_slide(slides / f"{name}.tif", len(name))
    report = ingest(replace(intake, rule=NamingRule.of(r"(?P<case_id>B\d+)-.*")))
    assert rows(intake)["B1-A1_HER2"]["x_assay_from"] == "name"
    assert report.guessed == {"name": 1}
    assert any("guessed" in line for line in report.lines())
    (unclear,) = report.of(Kind.UNCLEAR)
    assert "which assay" in unclear.why
    stated = ingest(replace(intake, rule=NamingRule.of(r"(?P<case_id>B\d+)-.*"), assay=Assay.IHC))
    assert (stated.to_score, stated.guessed) == (("B2-A1",), {})
    assert rows(intake)["B2-A1"]["x_assay_from"] == "stated"


def test_rule_and_table_that_contradict_leave_the_slide_to_a_person(intake: Intake, tmp_path: Path) -> None:
    write_slide(Path(intake.place) / "B1-A1_HER2.tif", 1)
    write_slide(Path(intake.place) / "B2-A1_HER2.tif", 2)
    table = tmp_path / "lis.csv"
    table.write_text("File;Case;Patient;Site\nB1-A1_HER2.tif;B9;p1;primary\nB2-A1_HER2.TIF;b2;p2;primary\n")
    sidecar = read_sidecar(str(table), {"case_id": "Case", "patient_id": "patient"}, None, None)
    assert sidecar.used == {"case_id": "case", "patient_id": "patient", "site": "site"}
    report = ingest(replace(intake, sidecar=sidecar))
    assert kinds(report) == {"B1-A1_HER2.tif": Kind.UNCLEAR, "B2-A1_HER2.tif": Kind.NEW}
    assert "'B1'" in report.of(Kind.UNCLEAR)[0].why
    assert (rows(intake)["B2-A1_HER2"]["patient_id"], rows(intake)["B2-A1_HER2"]["site"]) == ("p2", "primary")


def test_a_row_that_contradicts_the_manifest_stays_out_and_costs_no_other(
    intake: Intake, tmp_path: Path
) -> None:
    for seed, name in enumerate(("B1-A1_HER2", "B1-A2_HER2", "B2-A1_HER2")):
        write_slide(Path(intake.place) / f"{name}.tif", seed)
    table = tmp_path / "lis.tsv"
    table.write_text(
        "file\tpatient_id\nB1-A1_HER2\tp1\nB1-A2_HER2\tp2\nB2-A1_HER2\tp3\n"
    )  # one case of two patients
    report = ingest(replace(intake, sidecar=read_sidecar(str(table), {}, None, None)))
    assert kinds(report) == {
        "B1-A1_HER2.tif": Kind.NEW,
        "B1-A2_HER2.tif": Kind.UNCLEAR,
        "B2-A1_HER2.tif": Kind.NEW,
    }
    assert "patient_id" in report.of(Kind.UNCLEAR)[0].why


def test_a_spreadsheet_says_whose_slides_they_are(tmp_path: Path) -> None:
    openpyxl = pytest.importorskip("openpyxl")
    book = openpyxl.Workbook()
    book.active.append(["note"])
    sheet = book.create_sheet("Slides")
    sheet.append(["Filename", "case_id", "Collection date", "Remark"])
    sheet.append(["B1.svs", 4711.0, np.datetime64("2024-03-05").astype(object), None])
    sheet.append(["day2/B2.svs", "0815", None, "x"])
    book.save(tmp_path / "lis.xlsx")
    table = read_sidecar(f"{tmp_path}/lis.xlsx#Slides", {}, None, None)
    assert table.cells("day1/B1.svs", 1) == {"case_id": "4711", "collection_date": "2024-03-05"}
    assert table.cells("day2/B2.svs", 2) == {"case_id": "0815"}
    assert table.cells("day9/B2.svs", 2) is None
    with pytest.raises(UnclearError, match="2 slides"):
        table.cells("day1/B1.svs", 2)
    assert table.passed_over == ("Remark",)
    with pytest.raises(ManifestError, match="Slides"):
        read_sidecar(f"{tmp_path}/lis.xlsx#Other", {}, None, None)


def test_a_cell_far_from_all_others_makes_no_sheet_long(tmp_path: Path) -> None:
    """As where somebody gave a format to whole columns."""
    openpyxl = pytest.importorskip("openpyxl")
    book = openpyxl.Workbook()
    for row in (["file", "case_id"], ["B1.svs", "c1"]):
        book.active.append(row)
    book.active.cell(2**20, 2**14).number_format = "0.00"
    book.save(tmp_path / "lis.xlsx")
    begun = time.process_time()
    assert read_sidecar(f"{tmp_path}/lis.xlsx", {}, None, None).cells("B1.svs", 1) == {"case_id": "c1"}
    assert time.process_time() - begun < 10


@pytest.mark.parametrize("rule", ["(?P<case>.*)", "(", ".*", "(?P<uri>.*)"])
def test_a_rule_that_names_no_column_is_refused(rule: str) -> None:
    with pytest.raises(ConfigError, match="naming rule"):
        NamingRule.of(rule)


def test_a_rule_fits_a_whole_name_or_a_whole_path() -> None:
    assert RULE.cells("a/B12-A1_FISH.ome.tif") == {"case_id": "B12", "block_id": "A1", "assay": "FISH"}
    assert RULE.cells("a/B12-A1_FISH-again.ome.tif") is None
    assert NamingRule.of(r"(?P<case_id>[^/]+)/.*").cells("B12/x/y.svs") == {"case_id": "B12"}


FILES = (
    *("a.svs", "notes.txt", ".hidden.svs", "m.mrxs", "m/Data0001.dat", "m/Slidedat.ini", "m2.mrxs"),
    *("series/1.dcm", "series/2.dcm", "mixed/1.dcm", "mixed/x.svs", "deep/er/b.ndpi"),
    *("plain/.zgroup", "plain/0/c/1.tif", "w.ome.zarr/zarr.json", "w.ome.zarr/0/c/0"),
    *("out/pyramids/k/zarr.json", "out/stages/x.json", "out/pictures/p.png"),
    *("h/slide.vms", "h/one.jpg", "h/other.jpg"),
)
SLIDES = {
    "a.svs": 1, "m.mrxs": 3, "m2.mrxs": 1, "series": 2, "mixed/1.dcm": 1, "mixed/x.svs": 1,
    "deep/er/b.ndpi": 1, "plain": 2, "w.ome.zarr": 2, "h/slide.vms": 2, "h/other.jpg": 1,
}  # fmt: skip


def fill(store: Store) -> None:
    for path in FILES:
        store.write_bytes(path, b"[x]\nImageFile=one.jpg\n" if path.endswith(".vms") else path.encode())


def test_what_belongs_together_is_one_slide(tmp_path: Path) -> None:
    store = Store(tmp_path)
    fill(store)
    found = discover(store)
    assert {slide.path: slide.files for slide in found.slides} == SLIDES
    assert found.outputs == ("out",)
    assert len({slide.stamp for slide in found.slides}) == len(SLIDES)


def test_a_bucket_is_listed_like_a_folder_and_says_what_a_slide_is(s3: Bucket) -> None:
    store = Store(f"{s3.uri}/incoming")
    fill(store)
    bucket, key = store.root.split("/")[0], "incoming/m/Data0002.dat"
    store.fs.call_s3("create_multipart_upload", Bucket=bucket, Key=key)
    found = discover(store)
    assert {slide.path: slide.files for slide in found.slides} == SLIDES
    for slide in found.slides:
        assert slide.identity(store) == file_identity(store.uri(slide.path))[1], slide.path
    assert {s.path for s in found.slides if found.upload_of(s)} == {"m.mrxs"}
    assert uploads_in_flight(store) == {"m/Data0002.dat"}


def test_a_folder_that_goes_while_the_place_is_listed_costs_nothing_else(tmp_path: Path) -> None:
    for name in ("a/1.svs", "b/2.svs", "c/3.svs"):
        Store(tmp_path).write_bytes(name, b"x")
    listed = walk(Store(tmp_path))
    assert next(listed).path == "a/1.svs"
    shutil.rmtree(tmp_path / "b")
    assert [each.path for each in listed] == ["c/3.svs"]


def test_a_series_that_lies_in_the_place_itself_is_one_slide(tmp_path: Path) -> None:
    for name in ("1.dcm", "2.dcm"):
        (tmp_path / name).write_bytes(b"x")
    (found,) = discover(Store(tmp_path)).slides
    assert (found.path, found.files) == ("", 2)


def many(count: int) -> Iterator[Listed]:
    """Half of them chunks of OME-Zarrs, as a bucket lists them."""
    for number in range(count // 200):
        for chunk in range(100):
            yield Listed(f"day/{number:06d}.ome.zarr/0/c/{chunk:03d}", 1000, f"{number}{chunk}", 1.0)
        for slide in range(100):
            yield Listed(f"files/{number:06d}/note{slide:03d}.txt", 1000, f"{number}{slide}", 1.0)


def test_a_hundred_thousand_objects_take_seconds_and_no_memory() -> None:
    before, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    root = gather(many(100_000))
    assert (root.files, len(root.inner)) == (100_000, 500)
    assert time.process_time() - began < 20
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024 < 20


def test_a_manifest_that_somebody_edits_meanwhile_is_left_alone(
    intake: Intake, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_slide(Path(intake.place) / "B1-A1_HER2.tif", 1)
    inspect = ingest_module.inspect_slide

    def edited(uri: str, **given: object) -> object:
        Path(intake.manifest).write_text("slide_id,case_id,uri,assay\n")
        return inspect(uri, **given)  # type: ignore[arg-type]

    monkeypatch.setattr(ingest_module, "inspect_slide", edited)
    with pytest.raises(ManifestError, match="changed by another"):
        ingest(intake)
    assert Path(intake.manifest).read_text() == "slide_id,case_id,uri,assay\n"


def test_a_dry_run_writes_nothing(intake: Intake) -> None:
    write_slide(Path(intake.place) / "B1-A1_HER2.tif", 1)
    (Path(intake.place) / "B2-A1_HER2.svs").write_bytes(b"no slide")
    before = sorted(Path(intake.manifest).parent.iterdir())
    report = ingest(intake, dry_run=True)
    assert report.to_score == ("B1-A1_HER2",)
    assert sorted(Path(intake.manifest).parent.iterdir()) == before


def test_a_slide_that_cannot_be_reached_is_tried_again(
    intake: Intake, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_slide(Path(intake.place) / "B1-A1_HER2.tif", 1)

    def broken(failure: Exception) -> Callable[..., object]:
        def inspect(uri: str, **given: object) -> object:
            raise failure

        return inspect

    with monkeypatch.context() as patched:
        patched.setattr(ingest_module, "inspect_slide", broken(OSError("the network is down")))
        assert kinds(ingest(intake)) == {"B1-A1_HER2.tif": Kind.REFUSED}
    assert ingest(intake).to_score == ("B1-A1_HER2",)
