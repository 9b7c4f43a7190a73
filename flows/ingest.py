"""The ingest flow: what arrived is taken in, and the cohort flow is started for what no run has seen.

It runs on a schedule, by an event, or looks for a marker object; see `deploy/prefect.yaml`.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from prefect import flow
from prefect.artifacts import create_table_artifact
from prefect.client.schemas.objects import State
from prefect.deployments import run_deployment
from prefect.states import Completed

from flows.cohort import cohort
from her2core.config import load_config
from her2core.intake.ingest import SETTLE_S, IngestReport, ingest
from her2core.intake.marker import Marker
from her2core.intake.request import open_intake
from her2core.stages.run import open_run
from her2core.stages.unchanged import divide
from her2core.text import counted

log = logging.getLogger("her2core.ingest")

ARTIFACT = "her2-ingest"
MOST_SHOWN = 500
"""Most slides that the artifact lists. Ours."""


@flow(name="her2-ingest", persist_result=False)
def ingest_slides(
    place: str,
    manifest: str,
    out: str,
    rule: str | None = None,
    table: str | None = None,
    mapping: Mapping[str, str] | None = None,
    file_column: str | None = None,
    assay: str | None = None,
    settle_s: float = SETTLE_S,
    config: str | None = None,
    cluster: str = "local",
    deployment: str | None = None,
    marker: str | None = None,
) -> State[Any]:
    """Take in what arrived, and score what no run has seen.

    Parameters
    ----------
    place, manifest, rule, table, mapping, file_column, assay, settle_s
        See `her2core.intake.request.open_intake`.
    out, config, cluster
        See `flows.cohort.cohort`.
    deployment
        Deployment of the cohort flow to start, ``her2-cohort/NAME``; without, the cohort is scored by this
        process.
    marker
        Object without which nothing is looked at; it is removed when all that lay there has been taken in.

    Returns
    -------
    The final state; its message names what was found and started.
    """
    given = open_intake(
        place,
        manifest,
        rule=rule,
        table=table,
        mapping=mapping,
        file_column=file_column,
        assay=assay,
        settle_s=settle_s,
        config=config,
    )
    flag = None if marker is None else Marker(marker, given.endpoint_url)
    if flag is not None and not flag.is_there():
        return Completed(message=f"no marker {marker}: nothing to look at")
    report = ingest(given)
    hidden = load_config(config).run.pseudonyms is not None
    show(report, hidden=hidden)
    started = start_cohort(report, manifest, out, config, cluster, deployment)
    if flag is not None and not report.is_waiting:
        flag.clear()
    return Completed(message=f"{_found(report, hidden)}; {started}", data=report.as_dict())


def start_cohort(
    report: IngestReport,
    manifest: str,
    out: str,
    config: str | None,
    cluster: str,
    deployment: str | None,
) -> str:
    """Start the cohort flow if a manifest holds what no run has tried; what was done, in words."""
    if not report.rows:
        return "the manifest is empty"
    division = divide(open_run(manifest, out, config))
    if not division.fresh and not division.dropped:
        return "nothing to score"
    parameters: dict[str, Any] = {
        "manifest": manifest,
        "out": out,
        "config": config,
        "cluster": cluster,
        "only": [],
        "new_only": True,
    }
    summary = f"{counted(len(division.fresh), 'slide')} to score"
    if deployment is not None:
        run_deployment(deployment, parameters=parameters, timeout=0)
        return f"{summary}: {deployment} started"
    state = cohort(**parameters, return_state=True)
    return f"{summary}: {state.name}, {state.message}"


def show(report: IngestReport, *, hidden: bool = False) -> None:
    """Publish what became of the slides as a table.

    Parameters
    ----------
    hidden
        Leave out where slides lie, since Prefect's database is not to hold names of files.
    """
    rows = [
        {"what": str(entry.kind), "slide": entry.slide_id}
        | ({} if hidden else {"uri": entry.uri, "why": entry.why})
        for entry in report.entries[:MOST_SHOWN]
    ]
    found = _found(report, hidden)
    log.info("%s", found)
    create_table_artifact(rows or [{"what": "nothing new"}], key=ARTIFACT, description=found)


def _found(report: IngestReport, hidden: bool) -> str:
    """What an ingest found, in a line."""
    line = report.lines()[0]
    return line.removeprefix(f"{report.place}: ") if hidden else line
