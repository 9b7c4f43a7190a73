"""What every verb shares: the program, its consoles, common options and exit codes."""

from __future__ import annotations

import sys
from importlib import metadata
from typing import Annotated

import typer
from rich.console import Console

app = typer.Typer(
    name="her2",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Score HER2 IHC and ISH slide cohorts from object storage. Research use only, not for diagnosis.",
)
console = Console(width=None if sys.stdout.isatty() else 200)
errors = Console(stderr=True, soft_wrap=True)

Json = Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")]
ConfigFile = Annotated[str | None, typer.Option("--config", "-c", help="YAML configuration (path or s3://).")]
Endpoint = Annotated[str | None, typer.Option(help="S3 endpoint; by default from AWS_ENDPOINT_URL.")]

OK, PARTIAL, BAD_INPUT, UNUSABLE, INTERRUPTED = 0, 1, 2, 3, 130


def _show_version(asked: bool) -> None:
    if asked:
        typer.echo(f"her2cohort {metadata.version('her2cohort')}")
        raise typer.Exit(OK)


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    pass
