"""What a run read and wrote, as OpenLineage events: JSON beside the run, and to a server if one is named.

``OPENLINEAGE_URL`` names the server, ``OPENLINEAGE_ENDPOINT`` the path there and ``OPENLINEAGE_API_KEY`` its
key, as for every client of OpenLineage. A server that does not answer costs a run nothing but a warning.

References
----------
OpenLineage 2-0-2, https://openlineage.io/spec/2-0-2/OpenLineage.json
"""

from __future__ import annotations

import json
import logging
import os
import urllib.error
import urllib.request
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from her2core.lake.schema import TABLES
from her2core.lake.slide_files import FOLDER as TABLES_FOLDER
from her2core.storage.store import Store
from her2core.text import carries_secret, cleaned

log = logging.getLogger(__name__)

FOLDER = "lineage"
SPECIFICATION = "https://openlineage.io/spec/2-0-2/OpenLineage.json#/$defs/RunEvent"
FACETS = "https://openlineage.io/spec/facets"
PRODUCER = "https://pypi.org/project/her2cohort"
NAMESPACE = uuid.UUID("6f1d2a52-6f3c-4a0e-9d6c-3a54c3d1b7aa")
"""Of the run ids that we make of our names (ours, random)."""
PATIENCE_S = 5.0
"""How long a server is waited for. Ours."""


def event(
    kind: str, run_id: str, cohort: str, manifest: str, place: str | None, versions: Mapping[str, int | None]
) -> dict[str, Any]:
    """An event of a run.

    Parameters
    ----------
    kind
        ``START``, ``COMPLETE`` or ``ABORT``.
    manifest
        Its address, or its pseudonym.
    place
        Address of the output; None where places are hidden: tables are then named after the cohort.
    versions
        Version of every table that the run wrote, by name.
    """
    return {
        "eventType": kind,
        "eventTime": datetime.now(UTC).isoformat(),
        "producer": PRODUCER,
        "schemaURL": SPECIFICATION,
        "run": {"runId": str(uuid.uuid5(NAMESPACE, run_id)), "facets": {}},
        "job": {"namespace": "her2cohort", "name": cohort, "facets": {}},
        "inputs": [_dataset(manifest)],
        "outputs": [_table(place, cohort, name, number) for name, number in sorted(versions.items())],
    }


def report_event(store: Store, run_id: str, document: Mapping[str, Any]) -> None:
    """Leave an event beside the run, and send it to the server that the environment names."""
    path = f"{FOLDER}/{run_id}/{str(document['eventType']).lower()}.json"
    store.write_bytes(path, json.dumps(document).encode())  # one line: indented, it takes ten times as long
    url = os.environ.get("OPENLINEAGE_URL", "").rstrip("/")
    if not url:
        return
    if carries_secret(url) or not url.startswith(("http://", "https://")):
        log.warning("OPENLINEAGE_URL is no plain http(s) address; no lineage is sent")
        return
    endpoint = os.environ.get("OPENLINEAGE_ENDPOINT", "api/v1/lineage").lstrip("/")
    headers = {"Content-Type": "application/json"}
    if key := os.environ.get("OPENLINEAGE_API_KEY"):
        headers["Authorization"] = f"Bearer {key}"
    request = urllib.request.Request(
        f"{url}/{endpoint}", json.dumps(document).encode(), headers, method="POST"
    )
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE_S):
            pass
    except (urllib.error.URLError, OSError, ValueError) as error:
        log.warning("lineage was not sent to %s: %s", url, cleaned(str(error)))


def absolute(uri: str) -> str:
    """The address made absolute."""
    return uri if "://" in uri else os.path.abspath(uri)


def _dataset(uri: str) -> dict[str, Any]:
    """A place as OpenLineage names it: bucket and key, or ``file`` and path."""
    if uri.startswith("s3://"):
        bucket, _, key = uri.removeprefix("s3://").partition("/")
        return {"namespace": f"s3://{bucket}", "name": key or "/"}
    return {"namespace": "file", "name": uri.removeprefix("file://")}


def _table(place: str | None, cohort: str, name: str, number: int | None) -> dict[str, Any]:
    fields = [
        {"name": column.name, "type": str(column.type), "description": column.description}
        for column in TABLES[name].columns
    ]
    facets: dict[str, Any] = {
        "schema": _facet("1-1-1/SchemaDatasetFacet.json", {"fields": fields}),
        "storage": _facet(
            "1-0-1/StorageDatasetFacet.json", {"storageLayer": "delta", "fileFormat": "parquet"}
        ),
    }
    if number is not None:
        facets["version"] = _facet("1-0-1/DatasetVersionDatasetFacet.json", {"datasetVersion": str(number)})
    if place is None:
        return {"namespace": "her2cohort", "name": f"{cohort}/{name}", "facets": facets}
    return {**_dataset(f"{place}/{TABLES_FOLDER}/{name}"), "facets": facets}


def _facet(schema: str, values: Mapping[str, Any]) -> dict[str, Any]:
    return {"_producer": PRODUCER, "_schemaURL": f"{FACETS}/{schema}", **values}
