"""The rules of cBioPortal's validator (``validateData.py`` of its core) for the files that we write."""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Iterator, Mapping
from urllib.parse import urlsplit

Files = Mapping[str, str]

CLINICAL = {"cancer_study_identifier", "genetic_alteration_type", "datatype", "data_filename"}
RESOURCE = {"cancer_study_identifier", "resource_type", "data_filename"}
ASSAY = CLINICAL | {"generic_assay_type", "stable_id", "profile_name", "profile_description",
                    "show_profile_in_analysis_tab"}  # fmt: skip
FIELDS: dict[str, tuple[set[str], set[str]]] = {
    "meta_study.txt": (
        {"cancer_study_identifier", "type_of_cancer", "name", "description"},
        {"citation", "pmid", "groups", "add_global_case_list", "tags_file", "reference_genome"},
    ),
    "meta_clinical_patient.txt": (CLINICAL, set()),
    "meta_clinical_sample.txt": (CLINICAL, set()),
    "meta_timeline_specimen.txt": (CLINICAL, set()),
    "meta_heterogeneity.txt": (
        ASSAY,
        {"generic_entity_meta_properties", "pivot_threshold_value", "value_sort_order", "patient_level"},
    ),
    "meta_resource_definition.txt": (RESOURCE, set()),
    "meta_resource_sample.txt": (RESOURCE, set()),
    "case_lists/cases_all.txt": (
        {"cancer_study_identifier", "stable_id", "case_list_name", "case_list_description", "case_list_ids"},
        {"case_list_category"},
    ),
}
"""Fields that a file must have, and those that it may."""
LONGEST = {"cancer_study_identifier": 255, "type_of_cancer": 63, "name": 255, "description": 1024}
MISSING = (
    "[not applicable]",
    "[not available]",
    "[pending]",
    "[discrepancy]",
    "[completed]",
    "[null]",
    "",
    "na",
)
NO_ID = re.compile(r"[^A-Za-z0-9._()\[\]',+\-:;]")
MONTHS = {"jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"}


def faults(files: Files) -> list[str]:
    """What the validator would name an error, or warn of and we can help."""
    return [*_metas(files), *_tables(files), *_clinical(files), *_others(files)]


def meta(text: str) -> dict[str, str]:
    """A meta file or case list."""
    return dict(line.split(": ", 1) for line in text.splitlines())


def rows(text: str) -> list[dict[str, str]]:
    """A data file, after the lines that begin with #."""
    lines = [line.split("\t") for line in text.splitlines() if not line.startswith("#")]
    return [dict(zip(lines[0], line, strict=True)) for line in lines[1:]]


def _metas(files: Files) -> Iterator[str]:
    metas = {path: meta(text) for path, text in files.items() if not path.startswith("data_")}
    study = metas["meta_study.txt"]
    name = study["cancer_study_identifier"]
    if not re.fullmatch("[a-z0-9_]+", name):
        yield f"study {name}"
    for path, found in metas.items():
        needed, more = FIELDS[path]
        if not needed <= set(found) <= needed | more:
            yield f"{path}: fields {sorted(set(found) ^ needed)}"
        if found["cancer_study_identifier"] != name:
            yield f"{path}: another study"
    yield from (f"{k} is too long" for k, most in LONGEST.items() if len(study[k]) > most)
    named = {found["data_filename"] for found in metas.values() if "data_filename" in found}
    if named != {path for path in files if path.startswith("data_")}:
        yield f"data files {sorted(named)}"
    cases = metas["case_lists/cases_all.txt"]
    if cases["stable_id"] != f"{name}_all" or study.get("add_global_case_list") == "true":
        yield "the list of all cases is missing or given twice"
    if cases["case_list_category"] != "all_cases_in_study":
        yield "the category of the case list"


def _tables(files: Files) -> Iterator[str]:
    for path, text in files.items():
        if not path.startswith("data_"):
            continue
        lines = [line for line in text.splitlines() if not line.startswith("#")]
        head = lines[0].split("\t")
        if len(lines) < 2 or len(set(head)) < len(head) or {len(x.split("\t")) for x in lines} != {len(head)}:
            yield f"{path}: no rows, or of another length, or columns of one name"
        sample = "\n".join(lines[:6]) + "\n"
        dialect = csv.Sniffer().sniff(sample, "\t")
        if dialect.quotechar == "'" or '\t"' in sample or '"\t' in sample:
            yield f"{path}: quotes"


def _clinical(files: Files) -> Iterator[str]:
    columns: set[str] = set()
    for kind, keys in (("patient", ["PATIENT_ID"]), ("sample", ["PATIENT_ID", "SAMPLE_ID"])):
        lines = [x.split("\t") for x in files[f"data_clinical_{kind}.txt"].splitlines()]
        heads, names = [[x[0].removeprefix("#"), *x[1:]] for x in lines[:4]], lines[4]
        if {x[0][0] for x in lines[:4]} != {"#"} or {len(head) for head in heads} != {len(names)}:
            yield f"{kind}: lines before the names"
        if any(cell.lower() in MISSING for head in heads for cell in head) or heads[3] != ["1"] * len(names):
            yield f"{kind}: words of an attribute"
        if names[: len(keys)] != keys or any(not re.fullmatch("[A-Z0-9_]+", n) for n in names):
            yield f"{kind}: names {names}"
        if columns & set(names[len(keys) :]) or {"MUTATION_COUNT", "FRACTION_GENOME_ALTERED"} & set(names):
            yield f"{kind}: attributes given twice or kept for cBioPortal"
        columns |= set(names[len(keys) :])
        for row in lines[5:]:
            yield from (
                f"{kind}: {n} {v}" for n, t, v in zip(names, heads[2], row, strict=True) if not _fits(t, v)
            )
            yield from (
                f"{kind}: id {v}" for v in row[: len(keys)] if NO_ID.search(v) or v.lower() in MISSING
            )
    samples, patients = (rows(files[f"data_clinical_{kind}.txt"]) for kind in ("sample", "patient"))
    ids = [row["SAMPLE_ID"] for row in samples]
    if len(set(ids)) < len(ids) or max(map(len, ids)) > 63:
        yield "ids of samples are given twice or too long"
    if sorted({row["PATIENT_ID"] for row in samples}) != sorted(row["PATIENT_ID"] for row in patients):
        yield "patients of samples and of patients differ"
    if sorted(meta(files["case_lists/cases_all.txt"])["case_list_ids"].split("\t")) != sorted(ids):
        yield "cases of the list"


def _fits(kind: str, value: str) -> bool:
    parts = value.lower().split("-")
    if len(parts) == 2 and not set(",.:;") & set(value) and MONTHS & set(parts):
        return False
    if value.lower() in MISSING:
        return True
    if kind == "NUMBER":
        return math.isfinite(float(value))
    return kind == "STRING" or (kind == "BOOLEAN" and value in ("TRUE", "FALSE"))


def _others(files: Files) -> Iterator[str]:
    of = {row["SAMPLE_ID"]: row["PATIENT_ID"] for row in rows(files["data_clinical_sample.txt"])}
    timeline = rows(files.get("data_timeline_specimen.txt", "PATIENT_ID\tSTART_DATE\tSTOP_DATE\tEVENT_TYPE"))
    for row in timeline:
        if list(row)[:4] != ["PATIENT_ID", "START_DATE", "STOP_DATE", "EVENT_TYPE"]:
            yield f"timeline: names {list(row)}"
        if not row["START_DATE"].lstrip("-").isdigit() or of.get(row["SAMPLE_ID"]) != row["PATIENT_ID"]:
            yield f"timeline: {row}"
    assay = rows(files.get("data_heterogeneity.txt", "ENTITY_STABLE_ID"))
    for row in assay:
        first = ["ENTITY_STABLE_ID", "NAME", "DESCRIPTION"]
        if [*row][:3] != first or set([*row][3:]) != set(of) or NO_ID.search(row["ENTITY_STABLE_ID"]):
            yield f"assay: {row}"
        yield from (f"assay: {v}" for v in [*row.values()][3:] if v != "NA" and not math.isfinite(float(v)))
    if len({row["ENTITY_STABLE_ID"] for row in assay}) < len(assay):
        yield "assay: measures given twice"
    links = rows(files.get("data_resource_sample.txt", "RESOURCE_ID"))
    defined = rows(files.get("data_resource_definition.txt", "RESOURCE_ID"))
    for row in defined:
        if row["RESOURCE_TYPE"] != "SAMPLE" or row["OPEN_BY_DEFAULT"].lower() not in ("true", "false"):
            yield f"resource: {row}"
    for row in links:
        where = urlsplit(row["URL"])
        if not where.scheme or not where.netloc or of.get(row["SAMPLE_ID"]) != row["PATIENT_ID"]:
            yield f"link: {row}"
    if {row["RESOURCE_ID"] for row in links} != {row["RESOURCE_ID"] for row in defined}:
        yield "resources that are not defined, or have no link"
    if len({(row["SAMPLE_ID"], row["URL"]) for row in links}) < len(links):
        yield "links given twice"
