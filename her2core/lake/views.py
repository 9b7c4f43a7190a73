"""Views of DuckDB over the tables as one run left them, in a folder or on S3, without an extension of DuckDB.

DuckDB's own ``delta_scan`` is an extension that it downloads. Delta Lake's client also lists which files a
version of a table has, and DuckDB reads these, on S3 through the store's own file system.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from her2core.errors import ConfigError
from her2core.lake.ghosts import FINISHED
from her2core.lake.schema import RUNS, TABLES, Table
from her2core.lake.slide_files import FOLDER
from her2core.lake.tables import active_paths, find_table, read_present, sql_text
from her2core.storage.store import Store

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

_MAGIC = str.maketrans({character: f"[{character}]" for character in "[*?"})


def create_views(connection: DuckDBPyConnection, store: Store, run_id: str | None = None) -> str:
    """Make a view of every table as a run left it, and ``run``, the run's own row of ``runs``.

    Tables that the run did not write are empty; columns that its version did not have are null. The views are
    the connection's own and last as long as it does.

    Parameters
    ----------
    connection
        Of ``duckdb.connect()``.
    store
        Output of the run; on S3, DuckDB reads with its credentials.
    run_id
        Which run; the last one that came to its end if None.

    Returns
    -------
    str
        Name of the run.

    Raises
    ------
    ConfigError
        If the output holds no run that came to its end, or not this one.
    """
    run = _run(store, run_id)
    if not store.is_local and not connection.filesystem_is_registered("s3"):
        connection.register_filesystem(store.fs)
    for table in TABLES.values():
        newest = table.name == RUNS.name
        version = None if newest else run[f"{table.name}_version"]
        files = _files(store, table, version) if newest or version is not None else []
        _create(connection, table, files)
    connection.execute(
        f"CREATE OR REPLACE TEMP VIEW run AS SELECT * FROM runs WHERE run_id = {sql_text(run['run_id'])}"
    )
    return str(run["run_id"])


def _run(store: Store, run_id: str | None) -> dict[str, Any]:
    names = ["run_id", "state", "finished_at"]
    names += [column.name for column in RUNS.columns if column.name.endswith("_version")]
    runs = sorted(
        read_present(store, RUNS, names).to_pylist(), key=lambda run: (run["finished_at"], run["run_id"])
    )
    ended = [run for run in runs if run["state"] in FINISHED]
    found = [run for run in ended if run_id in (None, run["run_id"])]
    if found:
        return dict(found[-1])
    if not ended:
        raise ConfigError(
            f"{store.uri()} holds no finished run; start one with: her2 run MANIFEST --out {store.uri()}"
        )
    last = ", ".join(run["run_id"] for run in ended[-5:])
    raise ConfigError(f"{store.uri()} holds no finished run {run_id}; the last ones are {last}")


def _files(store: Store, table: Table, version: int | None) -> list[str]:
    """Addresses of the files of a version."""
    delta = find_table(store, table, version)
    paths = [] if delta is None else active_paths(delta)
    return [store.uri(f"{FOLDER}/{table.name}/{path}") for path in paths]


def _create(connection: DuckDBPyConnection, table: Table, files: list[str]) -> None:
    """The view of a table: rows of its files, with all columns of the schema."""
    columns = f"columns_of_{table.name}"
    connection.register(columns, table.schema.empty_table())
    rows = f"SELECT * FROM {columns}"
    if files:
        listed = ", ".join(sql_text(file.translate(_MAGIC)) for file in files)
        rows += f" UNION ALL BY NAME SELECT * FROM read_parquet([{listed}], union_by_name = true)"
    connection.execute(f"CREATE OR REPLACE TEMP VIEW {table.name} AS {rows}")
