"""Finished tables of a run as they stand, also those of an older version, which has fewer columns."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa
from deltalake import DeltaTable, QueryBuilder
from deltalake.exceptions import DeltaError

from her2core.errors import StoreError
from her2core.lake.ghosts import FINISHED
from her2core.lake.schema import RUNS, Table
from her2core.lake.tables import find_table, outlasting, select, sql_name, sql_text
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


def finished_runs(store: Store) -> list[str]:
    """Runs that came to their end, the last one last. What each of them names, every slide, is not read."""
    found = finished_rows(store, RUNS, ("run_id", "state", "finished_at"))
    ended = [(row["finished_at"], row["run_id"]) for row in found if row["state"] in FINISHED]
    return [run_id for _, run_id in sorted(ended)]


def whole_run(store: Store, run_id: str) -> dict[str, Any]:
    """All that the row of a run holds."""
    names = [column.name for column in RUNS.columns]
    row: dict[str, Any]
    (row,) = finished_table(store, RUNS, names, f"run_id = {sql_text(run_id)}").to_pylist()
    return row


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
        raise _unreadable(store, table, error) from error
    own = {c.name: c.type for c in table.columns}
    columns_ = [
        found[name] if name in held else pa.nulls(len(found), own.get(name, pa.null())) for name in wanted
    ]
    return pa.table(dict(zip(wanted, columns_, strict=True)))


def finished_batches(
    store: Store, table: Table, columns: Sequence[str], where: str, delta: DeltaTable | None = None
) -> pa.RecordBatchReader:
    """Rows of one slide in the order of their ids, a few thousand at a time; absent columns are left out.

    A stream that the store breaks off goes on behind the last row that came. Text is of the kind that Arrow
    can select rows of.

    Parameters
    ----------
    where
        Condition in SQL on the rows; ids are unique among those that it takes.
    delta
        The table where it is open already (`opened`), so that several slides are of one version of it.
    """
    delta = delta or opened(store, table)
    there = {field.name: field for field in pa.schema(delta.schema().to_arrow())}
    schema = pa.schema([_selectable(there[name]) for name in columns if name in there])
    return pa.RecordBatchReader.from_batches(schema, _outlasting_batches(store, delta, table, schema, where))


def _outlasting_batches(
    store: Store, delta: DeltaTable, table: Table, schema: pa.Schema, where: str
) -> Iterator[pa.RecordBatch]:
    key = sql_name(table.key[-1])
    names = ", ".join(map(sql_name, schema.names))
    after, stream = "", None

    def following() -> pa.RecordBatch | None:
        nonlocal stream
        try:
            if stream is None:
                query = f"SELECT {key} AS her2_order, {names} FROM stored WHERE {where}{after} ORDER BY {key}"
                found = QueryBuilder().register("stored", delta).execute(query)
                stream = iter(pa.RecordBatchReader.from_stream(found))
            return next(stream, None)
        except (pa.ArrowException, DeltaError, OSError) as error:  # of the store as well
            stream = None
            raise OSError(str(error)) from error

    while True:
        try:
            batch = outlasting(store, following)
        except OSError as error:
            raise _unreadable(store, table, error) from error
        if batch is None:
            return
        if len(batch):
            after = f" AND {key} > {batch.column(0)[-1].as_py()}"
            yield batch.select(schema.names).cast(schema)


def _selectable(field: pa.Field) -> pa.Field:
    return field.with_type(pa.string()) if pa.types.is_string_view(field.type) else field


def _unreadable(store: Store, table: Table, error: OSError) -> StoreError:
    return StoreError(f"{store.uri(f'tables/{table.name}')}: cannot be read: {error}")


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
