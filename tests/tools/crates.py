"""The validator of RO-Crates: ``python tests/tools/crates.py PROFILE FOLDER...`` prints what crates lack.

It runs in a process of its own with the packages of ``make tools``, and reaches no network: the terms of
RO-Crate 1.1 that the crate uses are answered from here.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

SCHEMA, BIOSCHEMAS = "http://schema.org/", "https://bioschemas.org/"
TERMS = {
    "File": f"{SCHEMA}MediaObject",
    "conformsTo": "http://purl.org/dc/terms/conformsTo",
    "ComputationalWorkflow": f"{BIOSCHEMAS}ComputationalWorkflow",
    "FormalParameter": f"{BIOSCHEMAS}FormalParameter",
    "input": f"{BIOSCHEMAS}ComputationalWorkflow#input",
    "output": f"{BIOSCHEMAS}ComputationalWorkflow#output",
}
"""Terms of https://w3id.org/ro/crate/1.1/context that are not schema.org's of the same name."""
SCHEMA_TERMS = (
    *("Collection", "ComputerLanguage", "CreateAction", "CreativeWork", "Dataset", "PropertyValue"),
    *("SoftwareApplication", "SoftwareSourceCode", "about", "actionStatus", "additionalType", "contentSize"),
    *("datePublished", "description", "encodingFormat", "endTime", "exampleOfWork", "hasPart", "identifier"),
    *("instrument", "isPartOf", "license", "mainEntity", "mentions", "name", "object", "programmingLanguage"),
    *("result", "softwareVersion", "startTime", "url", "value", "version", "workExample"),
)  # fmt: skip
CONTEXT = {"@context": {name: f"{SCHEMA}{name}" for name in SCHEMA_TERMS} | TERMS}


def found(folder: Path, profile: str) -> Iterator[str]:
    """What the crate lacks that its profile, and those it builds on, require."""
    import requests
    from rocrate_validator import models, services  # type: ignore[import-not-found]
    from rocrate_validator.utils.http import HttpRequester  # type: ignore[import-not-found]

    def get(self: Any, address: str, *args: Any, **options: Any) -> requests.Response:
        if address != "https://w3id.org/ro/crate/1.1/context":
            raise ConnectionError(address)
        answer = requests.Response()
        answer.status_code, answer.url = 200, address
        answer.headers["Content-Type"] = "application/ld+json"
        answer._content = json.dumps(CONTEXT).encode()
        return answer

    HttpRequester.get = get
    settings = services.ValidationSettings(
        rocrate_uri=str(folder), profile_identifier=profile, requirement_severity=models.Severity.REQUIRED
    )
    for issue in services.validate(settings).get_issues():
        yield f"{issue.check.identifier}: {issue.message}"


if __name__ == "__main__":
    print(json.dumps([list(found(Path(folder), sys.argv[1])) for folder in sys.argv[2:]]))
