"""A data contract for every table, by the Open Data Contract Standard 3.1, from the schema that is written.

References
----------
Open Data Contract Standard 3.1.0, https://bitol-io.github.io/open-data-contract-standard/
"""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

import pyarrow as pa
import yaml

from her2core.lake.schema import Column, Table
from her2core.lake.slide_files import FOLDER

STANDARD = "v3.1.0"
PURPOSE = "HER2 IHC and ISH of whole-slide images, measured and scored."
LIMITS = "Research use only, not for diagnosis. Ids are those of the manifest, which should be pseudonyms."
USAGE = (
    "Go by a row of the table runs and read every table at the version that it names; the newest version may "
    "hold a run that is still at work."
)


def contract(table: Table) -> dict[str, Any]:
    """The contract of a table, as data."""
    key = {name: number for number, name in enumerate(table.key, 1)}
    return {
        "apiVersion": STANDARD,
        "kind": "DataContract",
        "id": f"her2cohort.{table.name}",
        "name": table.name,
        "version": version("her2cohort"),
        "status": "active",
        "domain": "pathology",
        "dataProduct": "her2cohort",
        "description": {"purpose": PURPOSE, "usage": USAGE, "limitations": LIMITS},
        "schema": [
            {
                "name": table.name,
                "physicalName": f"{FOLDER}/{table.name}",
                "physicalType": "delta table",
                "logicalType": "object",
                "description": table.description,
                "dataGranularityDescription": f"One row for each {', '.join(table.key)}.",
                "properties": [_property(column, key.get(column.name)) for column in table.columns],
            }
        ],
    }


def as_yaml(table: Table) -> str:
    """The contract of a table as a YAML document."""
    text: str = yaml.safe_dump(contract(table), sort_keys=False, allow_unicode=True, width=110)
    return text


def _property(column: Column, key: int | None) -> dict[str, Any]:
    found: dict[str, Any] = {"name": column.name, **_type(column.type), "description": column.description}
    found["required"] = column.required
    if key is not None:
        found |= {"primaryKey": True, "primaryKeyPosition": key}
    if column.unit:
        found["customProperties"] = [{"property": "unit", "value": column.unit}]
    return found


def _type(of: pa.DataType) -> dict[str, Any]:
    """Logical and physical type, and what an array or structure holds."""
    if pa.types.is_list(of):
        return {"logicalType": "array", "physicalType": "array", "items": _type(of.value_type)}
    if pa.types.is_struct(of):
        fields = [{"name": field.name, **_type(field.type)} for field in of]
        return {"logicalType": "object", "physicalType": "struct", "properties": fields}
    for holds, logical, physical in (
        (pa.types.is_string, "string", "string"),
        (pa.types.is_boolean, "boolean", "boolean"),
        (pa.types.is_int64, "integer", "long"),
        (pa.types.is_int16, "integer", "short"),
        (pa.types.is_float64, "number", "double"),
        (pa.types.is_float32, "number", "float"),
        (pa.types.is_timestamp, "timestamp", "timestamp"),
    ):
        if holds(of):
            return {"logicalType": logical, "physicalType": physical}
    raise TypeError(f"{of} has no type in a data contract; add it to lake/contract")
