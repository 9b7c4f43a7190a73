"""Exports, each opened by what it was made for."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import subprocess
import sys
import uuid
import warnings
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import zarr
from shapely.geometry import shape
from typer.testing import CliRunner

from her2cli import app
from her2core.cases.clinical_words import READER_SCORES, STATUSES
from her2core.errors import ConfigError
from her2core.export.cbioportal import export_cbioportal
from her2core.export.crate import CRATE, ENTRY_POINT, PROFILES, export_crate, prov
from her2core.export.dicom import export_dicom, uid
from her2core.export.dicom_sr import ENDS, MEASURED, evaluations_of, measurements_of
from her2core.export.finished import FinishedRun, Selection, export_each
from her2core.export.labels import export_labels
from her2core.export.qupath import export_qupath, hexagon_px0
from her2core.export.single_cell import export_anndata, export_spatialdata
from her2core.export.tables import FHIR, LOINC, SMALL, export_csv, export_xlsx
from her2core.guidelines.rules_ihc import SCORES
from her2core.lake.schema import CELLS, PATIENTS, SLIDES, TABLES
from her2core.lake.tables import commit_rows
from her2core.storage.store import Store
from tests.helpers.cbioportal import faults, rows
from tests.helpers.lakes import write_run, write_scored_run
from tests.helpers.report_run import blank
from tests.tools.helm import FOLDER as TOOLS

SECRET = "Anna_Smith"
SOURCE = b"def cohort(): ...\n"
"""Part of the slide's and the manifest's addresses, which nothing that is given away may hold."""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> FinishedRun:
    return FinishedRun(Store(write_scored_run(tmp_path_factory.mktemp("run"))))


@pytest.fixture(scope="module")
def cells(run: FinishedRun) -> list[dict[str, Any]]:
    return run.rows(CELLS)


@pytest.fixture
def out(tmp_path: Path) -> Store:
    return Store(tmp_path / "out")


def texts(out: Store) -> Iterator[tuple[str, bytes]]:
    for path in out.list(recursive=True):
        yield path, out.read_bytes(path)


def read_csv(out: Store, name: str) -> list[dict[str, str]]:
    csv.field_size_limit(10**7)
    return list(csv.DictReader(out.read_bytes(name).decode().splitlines()))


def test_csv_keeps_every_column_and_row(run: FinishedRun, cells: list[dict[str, Any]], out: Store) -> None:
    written = export_csv(run, out, cells=True)
    assert {"slides.csv", "cells.csv", "dictionary.csv"} <= set(written)
    [slide] = read_csv(out, "slides.csv")
    assert list(slide) == [c.name for c in SLIDES.columns]
    [mine] = run.slides
    for name, text in slide.items():
        value = mine[name]
        if isinstance(value, float):
            assert float(text) == value
        elif isinstance(value, list):
            assert json.loads(text) == value
        elif value is None:
            assert text == ""
    found = read_csv(out, "cells.csv")
    assert [int(row["cell_id"]) for row in found] == [row["cell_id"] for row in cells]
    assert [float(row["membrane_od_mean"]) for row in found] == [row["membrane_od_mean"] for row in cells]
    described = {(row["table"], row["column"]) for row in read_csv(out, "dictionary.csv")}
    assert described >= {(t, c.name) for t in SMALL if out.exists(f"{t}.csv") for c in TABLES[t].columns}


def test_codes_are_of_columns_that_are_there_and_of_words_that_they_hold() -> None:
    for table, column in (*LOINC, *FHIR):
        assert column in TABLES[table].schema.names
    assert all(re.match(r"\d{4,5}-\d ", text) for text in LOINC.values())
    coded = {
        word for word, _ in re.findall(r"([\w+]+) (?:is )?(LA\d+-\d|\d{8,9})\b", " ".join(FHIR.values()))
    }
    assert coded == {*SCORES, *STATUSES}
    assert all(score in FHIR["slides", "reader_score"] for score in READER_SCORES)
    quantities = {at for at, element in FHIR.items() if element == "Observation.valueQuantity"}
    assert quantities == {
        (t, f"ish_{n}") for t in ("slides", "cases") for n in ("ratio", "her2_mean", "cep17_mean")
    }
    assert quantities < LOINC.keys()


def test_xlsx_opens_with_all_columns(run: FinishedRun, out: Store, tmp_path: Path) -> None:
    import openpyxl

    export_xlsx(run, out)
    book = openpyxl.load_workbook(tmp_path / "out" / "her2.xlsx", read_only=True)
    assert book.sheetnames[:1] == ["dictionary"]
    header, first = list(book["slides"].iter_rows(values_only=True))
    assert list(header) == [c.name for c in SLIDES.columns]
    [mine] = run.slides
    assert first[header.index("h_score")] == pytest.approx(mine["h_score"])
    assert first[header.index("slide_id")] == "s1"
    book.close()


def test_formulas_are_text_in_spreadsheets(tmp_path: Path, out: Store) -> None:
    import openpyxl

    formula = '=HYPERLINK("x")'
    folder = write_run(tmp_path / "run", [{"case_id": "c", "specimen_id": formula, "her2_class": "null"}])
    export_csv(FinishedRun(Store(folder)), out)
    export_xlsx(FinishedRun(Store(folder)), out)
    [row] = read_csv(out, "cases.csv")
    assert row["specimen_id"] == f"'{formula}"
    book = openpyxl.load_workbook(tmp_path / "out" / "her2.xlsx")
    assert f"'{formula}" in [cell.value for cell in book["cases"][2]]


def features(out: Store, name: str = "s1.geojson") -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(out.read_bytes(name))["features"]
    return found


def test_qupath_points_are_every_cell_once(run: FinishedRun, cells: list[dict[str, Any]], out: Store) -> None:
    export_qupath(run, out, Selection())
    found = features(out)
    assert len(found) == len(cells) == len({f["id"] for f in found})
    assert {str(uuid.UUID(f["id"])) for f in found} == {f["id"] for f in found}
    for feature, cell in zip(found, cells, strict=True):
        assert feature["geometry"]["coordinates"] == [cell["x_px0"] + 0.5, cell["y_px0"] + 0.5]
        measured = feature["properties"]["measurements"]
        assert measured["membrane_od_mean"] == pytest.approx(cell["membrane_od_mean"])
    assert SECRET.encode() not in out.read_bytes("s1.geojson")


def test_qupath_contours_are_those_that_were_measured(
    run: FinishedRun, cells: list[dict[str, Any]], out: Store
) -> None:
    export_qupath(run, out, Selection(), contours=True, regions_um=100.0)
    found = features(out)
    of_cells = {
        f["properties"]["metadata"]["cell_id"]: f for f in found if f["properties"]["objectType"] == "cell"
    }
    assert len(of_cells) == len(cells)
    mpp, errors = run.slides[0]["mpp"], []
    for cell in cells:
        feature = of_cells[str(cell["cell_id"])]
        contour, nucleus = shape(feature["geometry"]), shape(feature["nucleusGeometry"])
        errors.append(contour.area * mpp**2 / cell["cell_area_um2"] - 1)
        assert nucleus.buffer(4).contains(nucleus.centroid)
        assert abs(nucleus.centroid.x - cell["x_px0"] - 0.5) < 8
    assert abs(np.median(errors)) < 0.02
    hexagons = [f for f in found if f["properties"]["objectType"] == "annotation"]
    assert hexagons
    assert all(
        shape(h["geometry"]).area * mpp**2 == pytest.approx(100**2 * 3**0.5 / 2, rel=1e-3) for h in hexagons
    )


def test_a_selection_by_class_and_box(run: FinishedRun, cells: list[dict[str, Any]], out: Store) -> None:
    export_qupath(run, out, Selection(classes=("3",), box=(0, 0, 320, 640)))
    wanted = [c for c in cells if c["cell_class"] == "3" and c["x_px0"] + 0.5 < 320]
    assert len(features(out)) == len(wanted) > 0
    with pytest.raises(ConfigError, match="s2: not in this run"):
        export_qupath(run, out, Selection(slides=("s2",)))


def test_a_slide_of_which_no_cell_is_chosen_is_written_empty(run: FinishedRun, out: Store) -> None:
    import anndata
    import highdicom

    none = Selection(box=(0, 0, 1, 1))
    for contours in (False, True):
        export_qupath(run, out, none, contours=contours)
        assert features(out) == []
    export_labels(run, out, none)
    level = zarr.open_array(out.zarr_store("s1.ome.zarr/labels/cells/0"), mode="r")
    assert not np.any(level[:])
    export_anndata(run, out, none)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert anndata.read_h5ad(Path(out.root) / "cells.h5ad").n_obs == 0
    export_dicom(run, out, none)
    read = highdicom.ann.annread(Path(out.root) / "s1.ann.dcm")
    assert not read.get_annotation_groups()
    with pytest.raises(ConfigError, match="s1: no cell is chosen"):
        export_spatialdata(run, out, none)


@pytest.mark.parametrize(
    ("form", "option"),
    [("csv", "--slide s1"), ("ro-crate", "--case c1"), ("xlsx", "--box 0,0,1,1"), ("cbioportal", "--tumour"),
     ("csv", "--cell-class 3"), ("dicom", "--contours"), ("anndata", "--cells"),
     ("labels", "--regions-um 100"), ("qupath", "--viewer https://v.example/{slide_id}")],
)  # fmt: skip
def test_an_option_that_a_form_does_not_take_is_refused(
    run: FinishedRun, out: Store, form: str, option: str
) -> None:
    words = ["export", run.store.uri(), form, "--out", out.uri(), *option.split()]
    found = CliRunner().invoke(app, words).exception
    assert isinstance(found, ConfigError)
    assert f"{option.split()[0]} does nothing for {form}" in str(found)
    assert not out.list()


def test_hexagons_touch_without_overlap() -> None:
    """Two of 100 µm whose centres are 100 µm apart share a side."""
    a, b = (
        shape({"type": "Polygon", "coordinates": [hexagon_px0(0, x, 100, 0.25)[:, ::-1].tolist()]})
        for x in (0, 100)
    )
    assert a.intersection(b).area == pytest.approx(0, abs=1e-6)
    assert a.distance(b) == pytest.approx(0, abs=1e-9)


def test_labels_hold_every_cell_and_open_as_ome_zarr(
    run: FinishedRun, cells: list[dict[str, Any]], out: Store, tmp_path: Path
) -> None:
    from ome_zarr_models.v05 import ImageLabel

    export_labels(run, out, Selection())
    group = zarr.open_group(str(tmp_path / "out" / "s1.ome.zarr" / "labels" / "cells"), mode="r")
    ImageLabel.from_zarr(group)
    values = np.asarray(group["0"][:])
    properties = group.attrs["ome"]["image-label"]["properties"]  # type: ignore[index,call-overload]
    assert len(properties) == len(cells)
    by_label = {one["label-value"]: one["cell_id"] for one in properties}
    right = [
        by_label.get(int(values[round(c["y_px0"]), round(c["x_px0"])])) == str(c["cell_id"]) for c in cells
    ]
    assert np.mean(right) > 0.97  # crowded cells overlap
    assert np.asarray(group["1"][:]).shape == (320, 320)
    assert (np.asarray(group["1"][:]) == values[::2, ::2]).all()


def test_anndata_opens_with_places_and_units(
    run: FinishedRun, cells: list[dict[str, Any]], out: Store, tmp_path: Path
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import anndata

        export_anndata(run, out, Selection())
        data = anndata.read_h5ad(tmp_path / "out" / "cells.h5ad")
    assert data.n_obs == len(cells)
    assert data.var.loc["membrane_od_mean", "unit"] == "OD"
    column = data.var_names.get_loc("membrane_od_mean")
    assert data.X[:, column] == pytest.approx([c["membrane_od_mean"] for c in cells])
    assert data.obsm["spatial"][:, 0] == pytest.approx([c["x_um"] for c in cells])
    assert data.obs["cell_class"].astype(object).where(data.obs["cell_class"].notna(), None).tolist() == [
        c["cell_class"] for c in cells
    ]


def test_spatialdata_opens_with_shapes_that_its_table_annotates(
    run: FinishedRun, cells: list[dict[str, Any]], out: Store, tmp_path: Path
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import spatialdata

        export_spatialdata(run, out, Selection(), contours=True)
        data = spatialdata.read_zarr(tmp_path / "out" / "s1.spatialdata.zarr")
        joined, table = spatialdata.join_spatialelement_table(
            sdata=data, spatial_element_names=["cells"], table_name="table", how="inner"
        )
    assert len(joined["cells"]) == table.n_obs == len(cells)
    areas = joined["cells"].geometry.area.to_numpy()
    assert np.median(areas / [c["cell_area_um2"] for c in cells]) == pytest.approx(1, abs=0.02)


def test_dicom_annotations_are_read_back(
    run: FinishedRun, cells: list[dict[str, Any]], out: Store, tmp_path: Path
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import highdicom as hd

        export_dicom(run, out, Selection())
        found = hd.ann.annread(tmp_path / "out" / "s1.ann.dcm")
        groups = found.get_annotation_groups()
        counts = {g.label: len(g.get_graphic_data("2D")) for g in groups}
        strong = next(g for g in groups if g.label == "HER2 class 3")
        points = np.array(strong.get_graphic_data("2D")).reshape(-1, 2)
        names, values, _ = strong.get_measurements()
    wanted = [c for c in cells if c["cell_class"] == "3"]
    assert counts["HER2 class 3"] == len(wanted)
    assert sum(counts.values()) == len(cells)
    assert points[:, 0] == pytest.approx([c["x_px0"] + 0.5 for c in wanted])
    column = [n.meaning for n in names].index("membrane od mean")
    assert values[:, column] == pytest.approx([c["membrane_od_mean"] for c in wanted])
    assert found.PatientID == "p1"
    assert SECRET.encode() not in out.read_bytes("s1.ann.dcm")
    assert uid("a") == uid("a") != uid("b")
    assert len(uid("a")) <= 64


def test_the_scores_of_a_slide_are_read_back_from_a_structured_report(
    run: FinishedRun, out: Store, tmp_path: Path
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import highdicom as hd

        assert export_dicom(run, out, Selection()) == ["s1.sr.dcm", "s1.ann.dcm"]
        first = out.read_bytes("s1.sr.dcm")
        export_dicom(run, out, Selection())
        found = hd.sr.srread(tmp_path / "out" / "s1.sr.dcm")
        cells = hd.ann.annread(tmp_path / "out" / "s1.ann.dcm")
        [group] = found.content.get_image_measurement_groups()
        values = {m.name.value: (m.value, m.unit.value) for m in group.get_measurements()}
        answers = {
            q.name.value: (q.value.value, q.value.meaning) for q in group.get_qualitative_evaluations()
        }
    [slide] = run.slides
    for name in ("n_scored", "p3_pct", "p3_low_pct", "p_any_high_pct", "h_score", "membrane_od_mean"):
        assert values[name.upper()][0] == pytest.approx(slide[name])
    assert values["P3_PCT"][1] == "%"
    score = slide["score"]
    assert answers["85319-2"] == (
        (f"IHC_{score}", f"IHC {score}") if score else ("IHC_INDETERMINATE", "indeterminate")
    )
    assert answers["REASON"][0].lower() in slide["reasons"]
    assert answers["USE"] == ("RESEARCH_USE", "Research use only, not for diagnosis")
    assert (found.VerificationFlag, found.PreliminaryFlag) == ("UNVERIFIED", "PRELIMINARY")
    assert found.SoftwareVersions == cells.SoftwareVersions == "0.1.0"
    algorithm = cells.AnnotationGroupSequence[0].AnnotationGroupAlgorithmIdentificationSequence[0]
    assert algorithm.AlgorithmVersion == "0.1.0"
    same = ("StudyInstanceUID", "PatientID")
    assert [found[name].value for name in same] == [cells[name].value for name in same]
    reference = found.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence[0]
    [image] = reference.ReferencedSOPSequence
    assert image.ReferencedSOPInstanceUID == uid("slide", slide["identity"])
    assert SECRET.encode() not in first
    assert out.read_bytes("s1.sr.dcm") == first


@pytest.mark.parametrize(
    ("given", "answer"),
    [
        ({"assay": "HER2-IHC", "score": None, "her2_class": None}, "IHC_INDETERMINATE"),
        ({"assay": "HER2-IHC", "score": "3+", "her2_class": "pos_IHC3"}, "POS_IHC3"),
        ({"assay": "HER2-IHC", "score": "0", "her2_class": "0_unresolved"}, "IHC_0"),
        ({"assay": "HER2-FISH", "ish_group": "4"}, "ISH_4"),
        ({"assay": "HER2-DISH", "ish_group": None}, "ISH_INDETERMINATE"),
    ],
)
def test_a_report_answers_what_was_asked_and_never_guesses(given: dict[str, Any], answer: str) -> None:
    names = ("tumour_type", "qc_verdict", "reasons", "score", "her2_class", "ish_group")
    slide = dict.fromkeys(names) | {"tumour_type": "gastric"} | given
    found = {value[0]: name for name, value in evaluations_of(slide)}
    assert answer in found
    if answer.startswith("IHC"):
        assert found[answer] == ("18474-7", "LN", "HER2 [Presence] in Tissue by Immune stain")
    assert measurements_of(slide) == []
    all_names = {meaning for meaning, *_ in MEASURED.values()} | {
        f"{meaning}, {end}" for meaning, *_ in MEASURED.values() for end in ENDS.values()
    }
    assert max(map(len, all_names)) <= 64  # DICOM takes no more


def test_a_crate_names_what_went_in_and_no_address(run: FinishedRun, out: Store, tmp_path: Path) -> None:
    from rocrate.rocrate import ROCrate

    written = export_crate(run, out, SOURCE)
    crate = ROCrate(tmp_path / "out")
    assert {profile.id for profile in crate.root_dataset["conformsTo"]} == set(PROFILES)
    [action] = crate.get_by_type("CreateAction")
    assert action["instrument"] is crate.mainEntity
    assert crate.mainEntity.id == ENTRY_POINT
    assert crate.mainEntity["isPartOf"]["name"] == "her2cohort"
    assert crate.mainEntity["version"] == version("her2cohort")
    assert out.read_bytes(ENTRY_POINT) == SOURCE
    assert [e.id for e in action["object"]] == ["#manifest", "configuration.json", "#slides"]
    assert {e.id for e in crate.dereference("#slides")["hasPart"]} >= {"#slide-s1"}
    for each in (*crate.mainEntity["input"], *crate.mainEntity["output"]):
        assert each["workExample"]["exampleOfWork"] is each
    assert [e["workExample"].id for e in crate.mainEntity["input"]] == [e.id for e in action["object"]]
    assert {e["workExample"].id for e in crate.mainEntity["output"]} == {e.id for e in action["result"]}
    assert {e.id for e in action["result"]} >= {"slides.csv", "cases.csv", "prov.json"}
    assert {e.id for e in crate.data_entities} == set(written) - {CRATE}
    for path, data in texts(out):
        assert SECRET.encode() not in data, path
        assert str(tmp_path).encode() not in data, path


def validated(*folders: Path) -> list[list[str]]:
    """What the validator of RO-Crates finds in each; the test is skipped where it is not installed."""
    if not (TOOLS / "rocrate_validator").exists():
        pytest.skip(f"no roc-validator at {TOOLS}; make tools installs it")
    environment = os.environ | {"PYTHONPATH": str(TOOLS)}
    program = str(Path(__file__).parent / "tools" / "crates.py")
    asked = [sys.executable, program, "workflow-run-crate", *map(str, folders)]
    done = subprocess.run(asked, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return list(json.loads(done.stdout.splitlines()[-1]))


def test_a_crate_is_a_workflow_run_crate_to_its_validator(
    run: FinishedRun, out: Store, tmp_path: Path
) -> None:
    export_crate(run, out, SOURCE)
    shutil.copytree(tmp_path / "out", tmp_path / "broken")
    broken = json.loads(out.read_bytes(CRATE))
    for entity in broken["@graph"]:
        entity.pop("instrument", None)
    (tmp_path / "broken" / CRATE).write_text(json.dumps(broken))
    found_whole, found_broken = validated(tmp_path / "out", tmp_path / "broken")
    assert found_whole == []
    assert any("instrument" in issue for issue in found_broken)


def test_files_of_regions_and_nuclei_are_named_by_their_digests(run: FinishedRun) -> None:
    entry = {
        "slide_id": "s1",
        "roi_uri": f"{SECRET}.geojson",
        "roi": "5-abc",
        "cells_uri": "x",
        "cells": "6-def",
    }
    others = [{"slide_id": "s2", "roi": "7-not-exported"}, {"slide_id": "s1", "roi": None, "cells": None}]
    given: Any = SimpleNamespace(slides=run.slides, run=run.run | {"inputs": json.dumps([entry, *others])})
    entities = prov(given)["entity"]
    assert entities["her2:roi/s1"] == {"prov:type": "her2:Roi", "her2:identity": "5-abc"}
    assert entities["her2:outlines/s1"] == {"prov:type": "her2:Outlines", "her2:identity": "6-def"}
    assert not [name for name in entities if "s2" in name]
    assert SECRET not in json.dumps(entities)


def test_prov_refers_to_what_it_names(run: FinishedRun) -> None:
    document = prov(run)
    named = set(document["entity"]) | set(document["activity"]) | set(document["agent"])
    for relation in ("used", "wasGeneratedBy", "wasDerivedFrom", "wasAssociatedWith"):
        for one in document[relation].values():
            assert {v for k, v in one.items() if k.startswith("prov:")} <= named
    assert {"her2:slide/s1", "her2:table/slides/0"} <= set(document["entity"])


def study(out: Store) -> dict[str, str]:
    return {path: data.decode() for path, data in texts(out)}


def test_a_study_is_what_cbioportal_takes(run: FinishedRun, out: Store) -> None:
    export_cbioportal(run, out, "her2", "HER2", viewer="https://viewer.example/{slide_id}")
    files = study(out)
    assert faults(files) == []
    assert files["case_lists/cases_all.txt"].splitlines()[-1] == "case_list_ids: c1-core-primary"
    header, metric = (line.split("\t") for line in files["data_heterogeneity.txt"].splitlines())
    assert header[3:] == ["c1-core-primary"]
    assert (metric[0], metric[-1]) == ("rao_q", "0.25")
    assert files["data_timeline_specimen.txt"].splitlines()[1].split("\t")[:5] == [
        "p1", "0", "", "SPECIMEN", "c1-core-primary"
    ]  # fmt: skip
    assert "https://viewer.example/s1" in files["data_resource_sample.txt"]
    assert all(SECRET not in text for text in files.values())
    for name in ("her 2", "HER2"):
        with pytest.raises(ConfigError, match="expected small letters, digits and underscores"):
            export_cbioportal(run, out, name, "HER2")


@pytest.mark.parametrize(
    ("path", "old", "new"),
    [
        ("meta_study.txt", "name: ", "add_global_case_list: true\nname: "),
        ("meta_study.txt", "her2\n", "HER2\n"),
        ("meta_heterogeneity.txt", "stable_id", "stabel_id"),
        ("data_clinical_sample.txt", "c1-core-primary", f"c1-{'x' * 61}"),
        ("data_clinical_sample.txt", "primary\tcore", "primary\tMAR-7"),
        ("data_clinical_patient.txt", "p1", "NA"),
        ("data_heterogeneity.txt", "0.25", "inf"),
        ("data_heterogeneity.txt", "rao q", "'rao q'"),
        ("data_timeline_specimen.txt", "\t0\t", "\t2020-03-04\t"),
        ("data_resource_sample.txt", "HER2_SLIDE", "SLIDE"),
        ("case_lists/cases_all.txt", "c1-core", "c2-core"),
    ],
)
def test_the_rules_of_cbioportal_find_what_breaks_them(
    broken: dict[str, str], path: str, old: str, new: str
) -> None:
    assert old in broken[path]
    assert faults(broken | {path: broken[path].replace(old, new)})


@pytest.fixture(scope="module")
def broken(run: FinishedRun, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A study, to be broken."""
    out = Store(tmp_path_factory.mktemp("study"))
    export_cbioportal(run, out, "her2", "HER2", viewer="https://viewer.example/{slide_id}")
    return study(out)


def test_words_that_cbioportal_misreads_are_written_otherwise(tmp_path: Path, out: Store) -> None:
    cases = [
        {"case_id": "MAR-7", "specimen_id": None, "her2_class": "null", "metrics": {("rao_q", None): np.inf}},
        {"case_id": "c", "specimen_id": "\"left\" \t'breast'", "her2_class": "null", "site": "oct-2"},
    ]
    folder = write_run(tmp_path / "run", cases)
    commit_rows(Store(folder), PATIENTS, [blank(PATIENTS, patient_id="p")])
    export_cbioportal(FinishedRun(Store(folder)), out, "her2", "x" * 300, viewer="https://v.org/{slide_id}")
    files = study(out)
    assert faults(files) == []
    assert [row["SAMPLE_ID"] for row in rows(files["data_clinical_sample.txt"])] == [
        "MAR_7", "c-_left_breast_-oct-2"
    ]  # fmt: skip
    assert "data_resource_sample.txt" not in files  # no slide has a pyramid
    assert "data_heterogeneity.txt" not in files


@pytest.mark.parametrize("case", ["NA", "x" * 64])
def test_ids_that_cbioportal_does_not_take_are_refused(tmp_path: Path, out: Store, case: str) -> None:
    folder = write_run(tmp_path / "run", [{"case_id": case, "her2_class": "null"}])
    with pytest.raises(ConfigError, match="no id to cBioPortal"):
        export_cbioportal(FinishedRun(Store(folder)), out, "her2", "HER2")
    with pytest.raises(ConfigError, match="no specimen"):
        export_cbioportal(FinishedRun(Store(write_run(tmp_path / "none", []))), out, "her2", "HER2")


def test_ids_that_become_one_are_refused(tmp_path: Path, out: Store) -> None:
    folder = write_run(tmp_path / "run", [{"case_id": c, "her2_class": "null"} for c in ("a b", "a_b")])
    with pytest.raises(ConfigError, match="one id to cBioPortal"):
        export_cbioportal(FinishedRun(Store(folder)), out, "her2", "HER2")


def test_specimens_whose_names_run_together_are_refused(tmp_path: Path, out: Store) -> None:
    of = {"case_id": "a", "her2_class": "null"}
    cases = [of | {"specimen_id": "b-c"}, of | {"specimen_id": "b", "site": "c"}]
    folder = write_run(tmp_path / "run", cases)
    with pytest.raises(ConfigError, match="a-b-c, a-b-c: one id to cBioPortal"):
        export_cbioportal(FinishedRun(Store(folder)), out, "her2", "HER2")


def test_one_slide_that_cannot_be_written_does_not_keep_the_others(out: Store) -> None:
    def write(slide: dict[str, Any]) -> str:
        if slide["slide_id"] == "bad":
            raise ConfigError("bad: has no pyramid")
        out.write_bytes(slide["slide_id"], b"x")
        return str(slide["slide_id"])

    with pytest.raises(ConfigError, match=r"1 of 3 slides are not exported, 2 are:\nbad: has no pyramid"):
        export_each([{"slide_id": name} for name in ("a", "bad", "b")], write)
    assert sorted(out.list()) == ["a", "b"]
