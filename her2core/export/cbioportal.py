"""A run as a study of cBioPortal: patients, samples, specimens in time, and heterogeneity as a generic assay.

A sample is a specimen. Ids keep letters, digits, points, dashes and underscores. What cBioPortal's validator
refuses or warns of is kept out of the files, or refused here in words. Two of its warnings stay: a run knows
no survival, and a measure may be a whole number.

References
----------
https://docs.cbioportal.org/file-formats/
https://github.com/cBioPortal/cbioportal-core/blob/main/scripts/importer/validateData.py
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from typing import Any, TypeVar
from urllib.parse import quote

from her2core.analysis.treatments import days_of
from her2core.errors import ConfigError
from her2core.export.finished import FinishedRun, Row
from her2core.heterogeneity.catalogue import SLIDE_METRICS
from her2core.lake.schema import CASES, HETEROGENEITY, PATIENTS, Table
from her2core.records import Assay
from her2core.storage.store import Store
from her2core.text import check_viewer

Specimen = tuple[str, str | None, str | None]
Key = TypeVar("Key", str, Specimen)

CANCER = {"breast": "brca", "gastric": "stad"}
"""Types of cancer in cBioPortal (OncoTree)."""
PATIENT_COLUMNS = (
    "index_status",
    "index_class",
    "primary_metastasis",
    "primary_metastasis_change",
    "ever_low_or_higher",
)
SAMPLE_COLUMNS = (
    *("her2_status", "score", "her2_class", "consensus_score", "borderline", "p3_pct", "p2_pct"),
    *("p_any_pct", "h_score", "membrane_od_mean", "completeness_mean", "n_scored", "ish_result"),
    *("ish_group", "ish_ratio", "ish_her2_mean", "ish_cep17_mean", "site", "specimen_id"),
)
ASSAY_ID = "HER2_HETEROGENEITY"
LONGEST_ID = 63
"""Characters that cBioPortal's validator allows in the id of a sample; its tables hold no longer ones."""
LONGEST_NAME = 255
"""Characters of a study's identifier and name."""
NO_ID = ("", "na")
"""What cBioPortal reads as a value that is missing, in any case."""
MONTHS = frozenset(["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"])
QUOTES = str.maketrans({"'": "\u2019", '"': "\u201d"})
"""Straight quotes, which cBioPortal would take for those of a CSV."""
KINDS = {"string": "STRING", "bool": "BOOLEAN", "double": "NUMBER", "int64": "NUMBER"}


def export_cbioportal(
    run: FinishedRun, out: Store, study: str, name: str, cancer: str | None = None, viewer: str | None = None
) -> list[str]:
    """Write the files of a study.

    Parameters
    ----------
    study
        Its identifier: small letters, digits and underscores.
    cancer
        Type of cancer of cBioPortal; by default that of the slides' ``tumour_type``, else brca.
    viewer
        Address of a viewer with ``{slide_id}`` in it, as a resource of every sample.

    Raises
    ------
    ConfigError
        If there is no specimen, or ids are none that cBioPortal takes, or collide once they are.
    """
    if not re.fullmatch(rf"[a-z0-9_]{{1,{LONGEST_NAME}}}", study):
        raise ConfigError(f"--study {study}: expected small letters, digits and underscores")
    if viewer is not None:
        try:
            check_viewer(viewer, "--viewer")
        except ValueError as error:
            raise ConfigError(str(error)) from None
    cases = run.cases
    if not cases:
        raise ConfigError("the run has no specimen; a study of cBioPortal needs one")
    samples = _ids({_specimen(c): "-".join(str(part) for part in _specimen(c) if part) for c in cases})
    patients = _ids({_patient(c): _patient(c) for c in cases})
    kinds = {s["tumour_type"] for s in run.slides if s.get("tumour_type")}
    cancer = cancer or (CANCER.get(kinds.pop(), "mixed") if len(kinds) == 1 else "mixed" if kinds else "brca")
    files = {
        "meta_study.txt": _meta(
            type_of_cancer=cancer,
            cancer_study_identifier=study,
            name=" ".join(name.split())[:LONGEST_NAME],
            description="HER2 by IHC and ISH of whole slides, scored by her2cohort. Research use only.",
        )
    }
    of = {"cancer_study_identifier": study, "genetic_alteration_type": "CLINICAL"}
    rows_of_patients = {row["patient_id"]: row for row in run.rows(PATIENTS)}
    known = sorted({_patient(c) for c in cases})
    of_patients = [((patients[p],), rows_of_patients.get(p, {})) for p in known]
    files |= _pair(
        "clinical_patient",
        of | {"datatype": "PATIENT_ATTRIBUTES"},
        _clinical(PATIENTS, PATIENT_COLUMNS, ("PATIENT_ID",), of_patients),
    )
    of_samples = [((patients[_patient(c)], samples[_specimen(c)]), c) for c in cases]
    files |= _pair(
        "clinical_sample",
        of | {"datatype": "SAMPLE_ATTRIBUTES"},
        _clinical(CASES, SAMPLE_COLUMNS, ("PATIENT_ID", "SAMPLE_ID"), of_samples),
    )
    timeline = _timeline(cases, patients, samples)
    if timeline:
        files |= _pair("timeline_specimen", of | {"datatype": "TIMELINE"}, timeline)
    assay = _assay(run, cases, samples)
    if assay:
        meta = {
            "cancer_study_identifier": study, "genetic_alteration_type": "GENERIC_ASSAY",
            "generic_assay_type": ASSAY_ID, "datatype": "LIMIT-VALUE", "stable_id": ASSAY_ID.lower(),
            "profile_name": "HER2 heterogeneity", "profile_description": "Metrics of the slides of a "
            "specimen, weighted by cells.", "generic_entity_meta_properties": "NAME,DESCRIPTION",
            "show_profile_in_analysis_tab": "true",
        }  # fmt: skip
        files |= _pair("heterogeneity", meta, assay)
    resources = _resources(run, viewer, patients, samples) if viewer is not None else ""
    if resources:
        source = {"cancer_study_identifier": study}
        files |= _pair("resource_definition", source | {"resource_type": "DEFINITION"}, DEFINITION)
        files |= _pair("resource_sample", source | {"resource_type": "SAMPLE"}, resources)
    ids = "\t".join(sorted(samples.values()))
    files["case_lists/cases_all.txt"] = _meta(
        cancer_study_identifier=study,
        stable_id=f"{study}_all",
        case_list_name="All samples",
        case_list_description=f"All samples ({len(samples)})",
        case_list_category="all_cases_in_study",
        case_list_ids=ids,
    )
    for path, text in files.items():
        out.write_bytes(path, text.encode())
    return list(files)


def _patient(case: Row) -> str:
    return str(case["patient_id"] or case["case_id"])


def _specimen(row: Row) -> Specimen:
    """What a slide and its specimen have in common."""
    return row["case_id"], row["specimen_id"], row["site"]


def _ids(names: Mapping[Key, str]) -> dict[Key, str]:
    """What cBioPortal calls each; refused where it takes none, or two become one."""
    found = {key: _no_date(re.sub(r"[^A-Za-z0-9._-]+", "_", name)) for key, name in names.items()}
    refused = [names[key] for key, made in found.items() if made.lower() in NO_ID or len(made) > LONGEST_ID]
    if refused:
        raise ConfigError(
            f"{', '.join(refused[:4])}: no id to cBioPortal, which takes up to {LONGEST_ID} characters and "
            "reads NA as missing; shorten the case, specimen or patient in the manifest"
        )
    counts = Counter(found.values())
    twice = sorted(names[key] for key, made in found.items() if counts[made] > 1)
    if twice:
        raise ConfigError(
            f"{', '.join(twice[:4])}: one id to cBioPortal, which takes letters, digits and ._- alone"
        )
    return found


def _meta(**lines: str) -> str:
    return "".join(f"{name}: {value}\n" for name, value in lines.items())


def _pair(name: str, meta: Mapping[str, str], data: str) -> dict[str, str]:
    return {
        f"meta_{name}.txt": _meta(**meta, data_filename=f"data_{name}.txt"),
        f"data_{name}.txt": data,
    }


def _clinical(
    table: Table, columns: Sequence[str], keys: Sequence[str], rows: Iterable[tuple[tuple[str, ...], Row]]
) -> str:
    """A clinical file: four lines that begin with #, names, values."""
    of = {c.name: c for c in table.columns}
    there = [name for name in columns if name in of]
    titles = [k.replace("_", " ").capitalize() for k in keys] + [
        n.replace("_", " ").capitalize() for n in there
    ]
    meanings = ["Identifier"] * len(keys) + [
        f"{of[n].description}{f' Unit: {of[n].unit}.' if of[n].unit else ''}" for n in there
    ]
    kinds = ["STRING"] * len(keys) + [KINDS.get(str(of[n].type), "STRING") for n in there]
    lines = ["#" + _line(part) for part in (titles, meanings, kinds, ["1"] * len(titles))]
    lines.append(_line([*keys, *(n.upper() for n in there)]))
    lines += [_line([*ids, *(_value(row.get(n)) for n in there)]) for ids, row in rows]
    return "\n".join(lines) + "\n"


def _line(cells: Iterable[str]) -> str:
    return "\t".join(re.sub(r"[\t\r\n]+", " ", cell) for cell in cells)


def _value(value: Any) -> str:
    if value is None:
        return "NA"
    if isinstance(value, bool):
        return "TRUE" if value else "FALSE"
    if isinstance(value, float):
        return f"{value:.6g}" if math.isfinite(value) else "NA"
    return _no_date(str(value).translate(QUOTES)) if isinstance(value, str) else str(value)


def _no_date(text: str) -> str:
    """The text, with an underscore where cBioPortal takes it for a date of a spreadsheet, such as MAR-7."""
    parts = text.strip().lower().split("-")
    dated = len(parts) == 2 and not set(",.:;") & set(text) and not MONTHS.isdisjoint(parts)
    return text.replace("-", "_") if dated else text


def _timeline(cases: Sequence[Row], patients: Mapping[str, str], samples: Mapping[Specimen, str]) -> str:
    """Specimens in days from the first one of their patient; those of a known day alone."""
    days: dict[str, list[tuple[date, Row]]] = {}
    for case in cases:
        if case["collection_date"]:
            first, last = days_of(case["collection_date"])
            if first == last:
                days.setdefault(_patient(case), []).append((first, case))
    lines = ["PATIENT_ID\tSTART_DATE\tSTOP_DATE\tEVENT_TYPE\tSAMPLE_ID\tSITE\tHER2_CLASS"]
    for patient, found in sorted(days.items()):
        start = min(day for day, _ in found)
        for day, case in sorted(found, key=lambda one: (one[0], samples[_specimen(one[1])])):
            cells = (str((day - start).days), "", "SPECIMEN", samples[_specimen(case)])
            lines.append(_line([patients[patient], *cells, _value(case["site"]), _value(case["her2_class"])]))
    return "\n".join(lines) + "\n" if len(lines) > 1 else ""


def _assay(run: FinishedRun, cases: Sequence[Row], samples: Mapping[Specimen, str]) -> str:
    """Metrics by specimen; NA where there is none."""
    cells = {s["slide_id"]: s["n_scored"] or 0 for s in run.slides if s["assay"] == Assay.IHC}
    specimen = {s["slide_id"]: _specimen(s) for s in run.slides}
    sums: dict[tuple[str, Specimen], tuple[float, float]] = {}
    for row in run.rows(HETEROGENEITY, ("slide_id", "metric", "scale_um", "value")):
        weight = cells.get(row["slide_id"], 0)
        if row["value"] is None or not math.isfinite(row["value"]) or not weight:
            continue
        name = row["metric"] + (f"_{row['scale_um']:g}um" if row["scale_um"] is not None else "")
        total, of = sums.get((name, specimen[row["slide_id"]]), (0.0, 0.0))
        sums[name, specimen[row["slide_id"]]] = total + weight * row["value"], of + weight
    meanings = {column: m.meaning for m in SLIDE_METRICS for column in m.columns.values()}
    names = sorted({name for name, _ in sums})
    if not names:
        return ""
    keys = [_specimen(c) for c in cases]
    lines = [_line(["ENTITY_STABLE_ID", "NAME", "DESCRIPTION", *(samples[key] for key in keys)])]
    for name in names:
        found = (sums.get((name, key)) for key in keys)
        values = ["NA" if one is None else f"{one[0] / one[1]:.6g}" for one in found]
        lines.append(
            _line([name, name.replace("_", " "), meanings.get(name, name).translate(QUOTES), *values])
        )
    return "\n".join(lines) + "\n"


DEFINITION = (
    "RESOURCE_ID\tDISPLAY_NAME\tRESOURCE_TYPE\tDESCRIPTION\tOPEN_BY_DEFAULT\tPRIORITY\n"
    "HER2_SLIDE\tSlide\tSAMPLE\tThe slide with its cells\tFALSE\t1\n"
)


def _resources(
    run: FinishedRun, viewer: str, patients: Mapping[str, str], samples: Mapping[Specimen, str]
) -> str:
    """A link to the viewer for every slide of a sample that it can show; empty where there is none."""
    specimen = {_specimen(c): c for c in run.cases}
    lines = ["PATIENT_ID\tSAMPLE_ID\tRESOURCE_ID\tURL"]
    for slide in run.slides:
        case = specimen.get(_specimen(slide))
        if case is not None and slide["pyramid"]:
            url = viewer.replace("{slide_id}", quote(slide["slide_id"], safe=""))
            lines.append(_line([patients[_patient(case)], samples[_specimen(case)], "HER2_SLIDE", url]))
    return "\n".join(lines) + "\n" if len(lines) > 1 else ""
