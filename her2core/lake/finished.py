"""Finished tables of a run as they stand, also those of an older version, which has fewer columns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa
from deltalake import DeltaTable

from her2core.errors import StoreError
from her2core.lake.schema import Table
from her2core.lake.tables import find_table, outlasting, select, sql_name
from her2core.storage.store import Store


def finished_rows(store: Store, table: Table, columns: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """Rows of a run's table, sorted by its key.

    Parameters
    ----------
    columns
        Columns wanted, all by default; null where this output's version did not write them.

    Raises
    ------
    StoreError
        If there is no such table.
    """
    rows: list[dict[str, Any]] = finished_table(store, table, columns).to_pylist()
    return rows


def finished_table(
    store: Store, table: Table, columns: Sequence[str] | None = None, where: str = ""
) -> pa.Table:
    """As `finished_rows`, in Arrow.

    Parameters
    ----------
    where
        Condition in SQL on the rows.
    """
    delta = opened(store, table)
    there = {field.name: field for field in pa.schema(delta.schema().to_arrow())}
    wanted = list(columns) if columns is not None else list(there)
    held = [name for name in wanted if name in there]
    order = ", ".join(sql_name(name) for name in table.key)
    query = f"SELECT {', '.join(sql_name(name) for name in held)} FROM stored"
    query += f" WHERE {where}" if where else ""
    try:
        found = outlasting(store, lambda: select(delta, f"{query} ORDER BY {order}"))
    except OSError as error:
        raise StoreError(f"{store.uri(f'tables/{table.name}')}: cannot be read: {error}") from error
    own = {c.name: c.type for c in table.columns}
    columns_ = [
        found[name] if name in held else pa.nulls(len(found), own.get(name, pa.null())) for name in wanted
    ]
    return pa.table(dict(zip(wanted, columns_, strict=True)))


def opened(store: Store, table: Table) -> DeltaTable:
    """One of a run's tables.

    Raises
    ------
    StoreError
        If it is not there.
    """
    delta = find_table(store, table)
    if delta is None:
        raise StoreError(
            f"{store.uri(f'tables/{table.name}')}: no such table; expected the output of a finished run "
            "(her2 run ... --out)"
        )
    return delta
