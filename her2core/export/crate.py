"""A run as an RO-Crate: its tables with how they came to be, as a Workflow Run Crate, and the same as W3C
PROV.

What went in is named by slide and digest, not by address. The crate can be given away whole.

References
----------
Workflow Run RO-Crate: https://w3id.org/ro/wfrun/workflow/0.5, https://w3id.org/ro/wfrun/process/0.5
PROV-JSON: https://www.w3.org/submissions/prov-json/
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from her2core.analysis.results import RESEARCH_ONLY
from her2core.export.finished import FinishedRun
from her2core.export.tables import export_csv
from her2core.extras import need
from her2core.storage.store import Store
from her2core.storage.temporary import temporary_folder

PROCESS_RUN = "https://w3id.org/ro/wfrun/process/0.5"
WORKFLOW_RUN = "https://w3id.org/ro/wfrun/workflow/0.5"
WORKFLOW = "https://w3id.org/workflowhub/workflow-ro-crate/1.0"
PROFILES = {
    PROCESS_RUN: ("Process Run Crate", "0.5"),
    WORKFLOW_RUN: ("Workflow Run Crate", "0.5"),
    WORKFLOW: ("Workflow RO-Crate", "1.0"),
}
"""Profiles that the crate conforms to, each with its name and version."""
PARAMETER = "https://bioschemas.org/profiles/FormalParameter/1.0-RELEASE"
COMPUTATIONAL_WORKFLOW = "https://bioschemas.org/profiles/ComputationalWorkflow/1.0-RELEASE"
CONFIGURATION, PROV, CRATE = "configuration.json", "prov.json", "ro-crate-metadata.json"
ENTRY_POINT = "workflow.py"
"""The flow that carried the run out, as a file of the crate."""


def export_crate(run: FinishedRun, out: Store, workflow: bytes) -> list[str]:
    """Write tables as CSV, the configuration, ``prov.json`` and ``ro-crate-metadata.json``, which is last.

    Parameters
    ----------
    workflow
        Source of the flow's entry point, in Python; named as of the installed version.
    """
    need("export", "rocrate")
    written = export_csv(run, out, addresses=False)
    configuration = json.dumps(_shared(run), indent=1).encode()
    out.write_bytes(CONFIGURATION, configuration)
    out.write_bytes(PROV, json.dumps(prov(run), indent=1).encode())
    out.write_bytes(ENTRY_POINT, workflow)
    out.write_bytes(CRATE, _crate(run, out, written))
    return [*written, CONFIGURATION, PROV, ENTRY_POINT, CRATE]


def _shared(run: FinishedRun) -> dict[str, Any]:
    """The configuration without the section on where and how a run was carried out."""
    return {k: v for k, v in json.loads(run.run["configuration"]).items() if k != "run"}


@dataclass(frozen=True, slots=True)
class _Input:
    """A file of a slide that went into the run and is not in the crate: size and digest identify it."""

    kind: str
    title: str
    slide: str
    identity: str
    description: str


def _inputs(run: FinishedRun) -> list[_Input]:
    """Slides, and the files of their regions of interest and of other programs' nuclei."""
    found = [
        _Input("slide", "Slide", s["slide_id"], s["identity"], "Whole-slide image")
        for s in run.slides
        if s["identity"]
    ]
    named = {s["slide_id"] for s in run.slides}
    for entry in json.loads(run.run["inputs"]):
        slide = entry["slide_id"]
        for kind, title, key, what in (
            ("roi", "Region of interest of slide", "roi", "Annotations"),
            ("outlines", "Nuclei of slide", "cells", "Outlines of nuclei by another program"),
        ):
            if slide in named and entry.get(key):
                found.append(_Input(kind, title, slide, entry[key], what))
    return found


def _crate(run: FinishedRun, out: Store, tables: list[str]) -> bytes:
    from rocrate.rocrate import ROCrate

    row = run.run
    crate = ROCrate(version="1.1")  # that of the profiles
    root = crate.root_dataset
    crate.name = f"HER2 of a cohort, run {row['run_id']}"
    crate.description = f"HER2 IHC and ISH of {row['n_slides']} slides, scored by her2cohort. {RESEARCH_ONLY}"
    crate.license = "Licence of the cohort's owner; not stated by the run."
    root["datePublished"] = row["finished_at"].isoformat()
    root["conformsTo"] = [
        _entity(crate, address, "CreativeWork", name=name, version=version)
        for address, (name, version) in PROFILES.items()
    ]
    crate.metadata["conformsTo"] = [{"@id": "https://w3id.org/ro/crate/1.1"}, {"@id": WORKFLOW}]
    workflow = _workflow(crate, run)
    crate.mainEntity = workflow
    manifest = _entity(
        crate,
        "#manifest",
        "PropertyValue",
        name="Manifest of the run",
        value=f"sha256:{row['manifest_sha256']}",
    )
    configuration = _file(crate, CONFIGURATION, "Configuration of the run", "application/json")
    slides = _entity(crate, "#slides", "Collection", name="Slides, and files that belong to them")
    slides["hasPart"] = [
        _entity(
            crate,
            f"#{each.kind}-{each.slide}",
            "CreativeWork",
            name=f"{each.title} {each.slide}",
            identifier=each.identity,
            description=f"{each.description}, not in the crate: size and digest of the file",
        )
        for each in _inputs(run)
    ]
    results = [
        _file(crate, path, f"Table {Path(path).stem}", "text/csv", contentSize=str(out.size(path)))
        for path in tables
    ]
    provenance = _file(crate, PROV, "Provenance, PROV-JSON", "application/json")
    workflow["input"] = [
        _parameter(
            crate, "input-manifest", "Text", "The slides of the cohort, by the digest of the table", manifest
        ),
        _parameter(crate, "input-config", "File", "Every value in force that decides results", configuration),
        _parameter(crate, "input-slides", "Collection", "What the manifest names", slides),
    ]
    workflow["output"] = [
        _parameter(crate, f"output-{Path(each.id).stem}", "File", f"{each['name']} of the run", each)
        for each in (*results, provenance)
    ]
    action = _entity(
        crate,
        f"#{row['run_id']}",
        "CreateAction",
        name=f"Run {row['run_id']}",
        startTime=row["started_at"].isoformat(timespec="seconds"),
        endTime=row["finished_at"].isoformat(timespec="seconds"),
        actionStatus="http://schema.org/CompletedActionStatus",
        description=f"{row['n_scored']} of {row['n_slides']} slides scored; state {row['state']}",
    )
    action["instrument"] = workflow
    action["object"] = [manifest, configuration, slides]
    action["result"] = [*results, provenance]
    root["mentions"] = [action, slides]
    with temporary_folder("her2-export-", "the bytes of an exported file") as folder:
        crate.metadata.write(folder)
        return (folder / CRATE).read_bytes()


def _entity(crate: Any, identifier: str, kind: str, /, **properties: Any) -> Any:
    from rocrate.model.contextentity import ContextEntity

    return crate.add(ContextEntity(crate, identifier, properties={"@type": kind} | properties))


def _file(crate: Any, path: str, name: str, form: str, /, **properties: Any) -> Any:
    properties |= {"name": name, "encodingFormat": form}
    return crate.add_file(dest_path=path, source=None, properties=properties, validate_url=False)


def _workflow(crate: Any, run: FinishedRun) -> Any:
    """The flow's entry point, with its language and the program whose part it is."""
    used = json.loads(run.run["versions"]).get("her2cohort", "unknown")
    mine = version("her2cohort")
    other = "" if used == mine else f" The file is of version {mine}; the run was carried out by {used}."
    python = _entity(
        crate,
        "#python",
        "ComputerLanguage",
        name="Python",
        identifier={"@id": "https://www.python.org/"},
        url={"@id": "https://www.python.org/"},
    )
    software = _entity(
        crate,
        "#her2cohort",
        "SoftwareApplication",
        name="her2cohort",
        softwareVersion=used,
        description="Scores cohorts of HER2 IHC and ISH whole-slide images. Research use only.",
    )
    return _file(
        crate,
        ENTRY_POINT,
        "her2-cohort",
        "text/x-python",
        **{"@type": ["File", "SoftwareSourceCode", "ComputationalWorkflow"]},
        version=mine,
        conformsTo={"@id": COMPUTATIONAL_WORKFLOW},
        description=f"Entry point of the Prefect flow that scores a cohort; it is part of her2cohort.{other} "
        "Its parameters out, cluster, only and new_only say where and how, and change no result.",
        programmingLanguage=python,
        isPartOf=software,
    )


def _parameter(crate: Any, place: str, kind: str, description: str, value: Any, /) -> Any:
    """A parameter of the workflow, ``input-NAME`` or ``output-NAME``, and the value that it had."""
    made = _entity(
        crate,
        f"#{place}",
        "FormalParameter",
        name=place.partition("-")[2],
        additionalType=kind,
        description=description,
        conformsTo={"@id": PARAMETER},
    )
    made["workExample"] = value
    value["exampleOfWork"] = made
    return made


def prov(run: FinishedRun) -> dict[str, Any]:
    """The run as PROV-JSON: slides and manifest used, tables at their versions generated, by the software."""
    row = run.run
    activity, agent = f"her2:run/{row['run_id']}", "her2:software"
    entities: dict[str, Any] = {
        "her2:manifest": {"prov:type": "her2:Manifest", "her2:sha256": row["manifest_sha256"]},
        "her2:configuration": {"prov:type": "her2:Configuration", "prov:value": json.dumps(_shared(run))},
    }
    entities |= {
        f"her2:{each.kind}/{each.slide}": {
            "prov:type": f"her2:{each.kind.capitalize()}",
            "her2:identity": each.identity,
        }
        for each in _inputs(run)
    }
    tables = {
        k.removesuffix("_version"): v for k, v in row.items() if k.endswith("_version") and v is not None
    }
    made = {
        f"her2:table/{name}/{v}": {"prov:type": "her2:Table", "her2:version": v} for name, v in tables.items()
    }
    used = {f"_:u{i}": {"prov:activity": activity, "prov:entity": e} for i, e in enumerate(entities)}
    generated = {f"_:g{i}": {"prov:entity": e, "prov:activity": activity} for i, e in enumerate(made)}
    derived = {
        f"_:d{i}": {"prov:generatedEntity": e, "prov:usedEntity": "her2:manifest", "prov:activity": activity}
        for i, e in enumerate(made)
    }
    return {
        "prefix": {"her2": "urn:her2cohort:", "prov": "http://www.w3.org/ns/prov#"},
        "entity": entities | made,
        "activity": {
            activity: {
                "prov:startTime": row["started_at"].isoformat(),
                "prov:endTime": row["finished_at"].isoformat(),
                "her2:state": row["state"],
            }
        },
        "agent": {
            agent: {
                "prov:type": "prov:SoftwareAgent",
                "prov:label": "her2cohort",
                "her2:versions": row["versions"],
            }
        },
        "used": used,
        "wasGeneratedBy": generated,
        "wasDerivedFrom": derived,
        "wasAssociatedWith": {"_:a": {"prov:activity": activity, "prov:agent": agent}},
    }
