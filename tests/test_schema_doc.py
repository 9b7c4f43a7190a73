"""docs/schema.md against the tables as they are written."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from deltalake import DeltaTable

from her2core.columns import CELL_DTYPE
from her2core.lake.schema import CELLS, LADDER_STEPS, TABLES, Table, document
from her2core.lake.tables import commit_rows
from her2core.params import IHCParams
from her2core.storage.store import Store

PAGE = Path(__file__).parents[1] / "docs" / "schema.md"


def documented(table: str) -> dict[str, tuple[str, str, str]]:
    """Column -> (type, unit, meaning) of one table of the page; in a wide one, of every ending as well."""
    section = PAGE.read_text(encoding="utf-8").split(f"\n## {table}\n")[1].split("\n## ")[0]
    lines = [line.strip("|").split(" | ") for line in section.splitlines() if line.startswith("| `")]
    columns: dict[str, tuple[str, str, str]] = {}
    for short, kind, unit, text in ([part.strip(" `") for part in line] for line in lines):
        before, _, rest = short.partition("{")
        sizes, _, after = rest.partition("}")
        for name in (f"{before}{size}{after}" for size in sizes.split(",")):
            columns[name] = (kind, unit, text)
            if table.endswith("_wide") and kind == "double":
                columns[f"{name}_low"] = (kind, unit, "Lower end of its 95 % interval.")
                columns[f"{name}_high"] = (kind, unit, "Upper end of its 95 % interval.")
                columns[f"{name}_status"] = ("string", "", "Its status.")
                if "the label is" in text:
                    columns[f"{name}_label"] = ("string", "", "Its label.")
    return columns


@pytest.mark.parametrize("table", TABLES.values(), ids=lambda t: t.name)
def test_the_page_describes_the_table_as_it_is_written(tmp_path: Path, table: Table) -> None:
    store = Store(tmp_path)
    commit_rows(store, table, [])
    written = pa.schema(DeltaTable(store.delta_uri(f"tables/{table.name}")).schema().to_arrow())
    page = documented(table.name)
    assert list(page) == written.names
    for field in written:
        kind, unit, meaning = page[field.name]
        plain = (
            str(field.type).replace("list<element: ", "list<").replace("timestamp[us, tz=UTC]", "timestamp")
        )
        assert kind == plain + ("" if field.nullable else ", required"), field.name
        metadata = {k.decode(): v.decode() for k, v in (field.metadata or {}).items()}
        assert (metadata.get("unit", ""), metadata["comment"]) == (unit, meaning), field.name
        assert meaning.endswith(".")


def test_the_page_is_the_generated_one() -> None:
    assert PAGE.read_text(encoding="utf-8") == document()


def test_every_kernel_column_is_kept_at_its_precision() -> None:
    schema = CELLS.schema
    for name in CELL_DTYPE.names or ():
        assert name in schema.names, name
        kind = CELL_DTYPE[name]
        if kind.kind in "fb":
            assert schema.field(name).type == pa.from_numpy_dtype(kind), name
        else:
            assert kind == np.uint8
    assert len(IHCParams().ladder_od) == LADDER_STEPS
