"""A run as an RO-Crate: its tables with how they came to be, as a Workflow Run Crate, and the same as W3C
PROV.

What went in is named by slide and digest, not by address. The crate can be given away whole.

References
----------
Workflow Run RO-Crate, Provenance of processes: https://w3id.org/ro/wfrun/process/0.5
PROV-JSON: https://www.w3.org/submissions/prov-json/
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from her2core.analysis.results import RESEARCH_ONLY
from her2core.export.finished import FinishedRun
from her2core.export.tables import export_csv
from her2core.extras import need
from her2core.storage.store import Store
from her2core.storage.temporary import temporary_folder

PROCESS_RUN = "https://w3id.org/ro/wfrun/process/0.5"
CONFIGURATION, PROV, CRATE = "configuration.json", "prov.json", "ro-crate-metadata.json"


def export_crate(run: FinishedRun, out: Store) -> list[str]:
    """Write tables as CSV, the configuration, ``prov.json`` and ``ro-crate-metadata.json``, which is last."""
    need("export", "rocrate")
    written = export_csv(run, out, addresses=False)
    configuration = json.dumps(_shared(run), indent=1).encode()
    out.write_bytes(CONFIGURATION, configuration)
    out.write_bytes(PROV, json.dumps(prov(run), indent=1).encode())
    out.write_bytes(CRATE, _crate(run, out, written))
    return [*written, CONFIGURATION, PROV, CRATE]


def _shared(run: FinishedRun) -> dict[str, Any]:
    """The configuration without the section that says where and how a run was carried out."""
    return {k: v for k, v in json.loads(run.run["configuration"]).items() if k != "run"}


@dataclass(frozen=True, slots=True)
class _Input:
    """A file of a slide that went into the run and is not in the crate: size and digest say which it was."""

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
    from rocrate.model.contextentity import ContextEntity
    from rocrate.rocrate import ROCrate

    row, versions = run.run, json.loads(run.run["versions"])
    crate = ROCrate(version="1.1")  # that of the profile
    root = crate.root_dataset
    crate.name = f"HER2 of a cohort, run {row['run_id']}"
    crate.description = f"HER2 IHC and ISH of {row['n_slides']} slides, scored by her2cohort. {RESEARCH_ONLY}"
    crate.license = "Licence of the cohort's owner; not stated by the run."
    root["datePublished"] = row["finished_at"].isoformat()
    profile = crate.add(
        ContextEntity(
            crate,
            PROCESS_RUN,
            properties={"@type": "CreativeWork", "name": "Process Run Crate", "version": "0.5"},
        )
    )
    root["conformsTo"] = profile
    software = crate.add(
        ContextEntity(
            crate,
            "#her2cohort",
            properties={
                "@type": "SoftwareApplication",
                "name": "her2cohort",
                "softwareVersion": versions.get("her2cohort", "unknown"),
                "description": "Scores cohorts of HER2 IHC and ISH whole-slide images. Research use only.",
            },
        )
    )
    configuration = crate.add_file(
        dest_path=CONFIGURATION,
        source=None,
        properties={"name": "Configuration of the run", "encodingFormat": "application/json"},
        validate_url=False,
    )
    inputs = [
        crate.add(
            ContextEntity(
                crate,
                f"#{each.kind}-{each.slide}",
                properties={
                    "@type": "CreativeWork",
                    "name": f"{each.title} {each.slide}",
                    "identifier": each.identity,
                    "description": f"{each.description}, not in the crate: size and digest of the file",
                },
            )
        )
        for each in _inputs(run)
    ]
    manifest = crate.add(
        ContextEntity(
            crate,
            "#manifest",
            properties={
                "@type": "CreativeWork",
                "name": "Manifest of the run",
                "identifier": f"sha256:{row['manifest_sha256']}",
            },
        )
    )
    results = [
        crate.add_file(
            dest_path=path,
            source=None,
            properties={
                "name": f"Table {Path(path).stem}",
                "encodingFormat": "text/csv",
                "contentSize": str(out.size(path)),
            },
        )
        for path in tables
    ]
    provenance = crate.add_file(
        dest_path=PROV,
        source=None,
        properties={"name": "Provenance, PROV-JSON", "encodingFormat": "application/json"},
    )
    action = crate.add(
        ContextEntity(
            crate,
            f"#{row['run_id']}",
            properties={
                "@type": "CreateAction",
                "name": f"Run {row['run_id']}",
                "startTime": row["started_at"].isoformat(),
                "endTime": row["finished_at"].isoformat(),
                "actionStatus": "http://schema.org/CompletedActionStatus",
                "description": f"{row['n_scored']} of {row['n_slides']} slides scored; state {row['state']}",
            },
        )
    )
    action["instrument"] = software
    action["object"] = [manifest, configuration, *inputs]
    action["result"] = [*results, provenance]
    root["mentions"] = action
    with temporary_folder("her2-export-", "the bytes of an exported file") as folder:
        crate.metadata.write(folder)
        return (folder / CRATE).read_bytes()


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
