"""Verbs that look after an output, ``gc`` and ``lake``, and after a machine, ``warm``."""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from her2cli.common import EXIT_CODES, Endpoint, Json, app, console, say, showing_warnings

if TYPE_CHECKING:
    from her2core.storage.store import Store

Out = Annotated[str, typer.Argument(metavar="URI", help="The output folder or s3:// URI of runs.")]

lake = typer.Typer(no_args_is_help=True, help="Look after the tables of an output.")
app.add_typer(lake, name="lake")


def _owner(what: str) -> str:
    return f"{what}-{datetime.now(UTC):%Y%m%dT%H%M%SZ}"


def _checked(out: str, endpoint_url: str | None) -> Store:
    """The store of an output whose tables this version may write."""
    from her2core.lake.tables import check_tables
    from her2core.storage.store import Store

    store = Store(out, endpoint_url=endpoint_url)
    store.reach()
    check_tables(store)
    return store


@app.command("warm", epilog=EXIT_CODES)
def warm_command(
    processes: Annotated[
        int | None, typer.Option(min=1, help="Processes at a time; one a processor by default.")
    ] = None,
) -> None:
    """Compile all kernels for this machine, once: for images, and before a first run without waiting."""
    from flows.show import showing_progress
    from her2core.errors import Her2Error
    from her2core.stages.compiled import PARTS, make_ready, missing

    lacking = missing()
    with showing_progress(console):
        failed = make_ready(lacking, processes)
    if failed:
        raise Her2Error(f"{', '.join(failed)}: could not be compiled; the error is printed above")
    say("compiled" if lacking else f"nothing to compile: {', '.join(PARTS)} are ready, or no cache is kept")


@app.command("gc", epilog=EXIT_CODES)
def gc_command(
    out: Out,
    remove: Annotated[bool, typer.Option("--remove", help="Remove it; without, it is only listed.")] = False,
    runs: Annotated[int, typer.Option(min=1, help="Last runs of each cohort that are kept.")] = 1,
    days: Annotated[
        float, typer.Option("--older-than", min=0, help="Days; what was written since is kept.")
    ] = 7.0,
    endpoint_url: Endpoint = None,
    as_json: Json = False,
) -> None:
    """List, or remove, records of stages, pyramids and parts that no result rests on any more."""
    from her2core.lake.unused import Unused, find_unused, summed
    from her2core.lake.unused import remove as remove_unused
    from her2core.storage.lease import held

    store = _checked(out, endpoint_url)

    def show_removed(each: Unused) -> None:
        say(f"removed {each.path}")

    with showing_warnings():
        if remove:
            with held(store, _owner("gc"), "gc") as lease:
                found = find_unused(store, runs=runs, days=days)
                remove_unused(store, found, lease, show_removed)
        else:
            found = find_unused(store, runs=runs, days=days)
    if as_json:
        typer.echo(
            json.dumps([{"path": e.path, "bytes": e.size, "objects": e.objects} for e in found], indent=1)
        )
        return
    if not remove:
        for each in found:
            console.print(f"{each.size / 1e6:12,.1f} MB  {each.path}", markup=False, highlight=False)
    for what, (number, objects, size) in summed(found).items():
        line = f"{what}: {number:,} ({objects:,} objects, {size / 1e6:,.1f} MB)"
        console.print(line, markup=False, highlight=False)
    if not found:
        console.print("nothing is unused")
    elif not remove:
        console.print("Nothing was removed; her2 gc --remove does it.")


@lake.command("maintain", epilog=EXIT_CODES)
def maintain_command(
    out: Out,
    days: Annotated[
        float, typer.Option("--keep-days", min=0, help="Days that files which left a table are kept.")
    ] = 30.0,
    endpoint_url: Endpoint = None,
    as_json: Json = False,
) -> None:
    """Put small files together, checkpoint the logs, and remove files that no table or run names any more."""
    from flows.show import row_table
    from her2core.lake.maintain import maintain
    from her2core.storage.lease import held

    store = _checked(out, endpoint_url)
    with showing_warnings(), held(store, _owner("maintain"), "maintain") as lease:
        done = maintain(store, lease, days=days)
    if as_json:
        typer.echo(json.dumps([asdict(each) for each in done], indent=1))
        return
    rows = [
        {
            "table": each.table,
            "files before": f"{each.files_before:,}",
            "files": f"{each.files:,}",
            "removed": f"{each.removed:,}",
            "version": str(each.version),
        }
        for each in done
    ]
    console.print(row_table(rows, console.width) if rows else f"{out} holds no tables yet")


@lake.command("contract", epilog=EXIT_CODES)
def contract_command(
    tables: Annotated[
        list[str] | None, typer.Argument(metavar="[TABLE...]", help="All tables without any.")
    ] = None,
) -> None:
    """Print the data contract of tables (ODCS 3.1, YAML), made from the schema that is written."""
    from her2core.errors import ConfigError
    from her2core.lake.contract import as_yaml
    from her2core.lake.schema import TABLES

    for name in tables or ():
        if name not in TABLES:
            raise ConfigError(f"no table {name}; expected some of {', '.join(TABLES)}")
    typer.echo("---\n".join(as_yaml(TABLES[name]) for name in tables or TABLES), nl=False)


@app.command("register", epilog=EXIT_CODES)
def register_command(
    out: Out,
    engine: Annotated[
        str, typer.Option(help="spark (also Databricks), trino or duckdb.", metavar="ENGINE")
    ] = "spark",
    schema: Annotated[str, typer.Option(help="Schema of the catalog.")] = "her2",
    endpoint_url: Endpoint = None,
    as_json: Json = False,
) -> None:
    """Print what a catalog needs to register the tables: statements of an engine, or JSON."""
    from her2core.errors import ConfigError
    from her2core.lake.register import registered
    from her2core.storage.store import Store

    if engine not in ("spark", "trino", "duckdb"):
        raise ConfigError(f"--engine {engine}: expected spark, trino or duckdb")
    if not schema.isidentifier():
        raise ConfigError(f"--schema {schema}: expected letters, digits and _")
    store = Store(out, endpoint_url=endpoint_url)
    store.reach()
    found = registered(store)
    if as_json:
        typer.echo(json.dumps([asdict(each) for each in found], indent=1))
        return
    for each in found:
        typer.echo(getattr(each, engine)(schema))
    if not found:
        console.print(f"{out} holds no tables yet")
