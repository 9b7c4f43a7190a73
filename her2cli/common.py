"""What every verb shares: the program, its consoles, common options, exit codes, printing of errors."""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import metadata
from types import FrameType
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

OK, PARTIAL, BAD_INPUT, UNUSABLE, INTERNAL, INTERRUPTED = 0, 1, 2, 3, 70, 130
EXIT_CODES = (
    f"Exit codes: {OK} no slide failed; {PARTIAL} done, but slides failed or were quarantined; "
    f"{BAD_INPUT} bad input, nothing was started; {UNUSABLE} a store, the Dask cluster or the Prefect server "
    f"cannot be used; {INTERNAL} an unexpected error; "
    f"{INTERRUPTED} interrupted, run again to resume."
)
PIPED_WIDTH = 200
"""Columns of what is written to a file or a pipe, unless COLUMNS is set. Ours."""

STOPS = (signal.SIGINT, signal.SIGTERM)

app = typer.Typer(
    name="her2",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Score HER2 IHC and ISH slide cohorts from object storage. Research use only, not for diagnosis.",
    epilog=EXIT_CODES,
)


def _width() -> int | None:
    """Columns of a console; None takes those of the terminal."""
    columns = os.environ.get("COLUMNS", "")
    if columns.isdecimal() and 0 < int(columns) < 10_000:
        return int(columns)
    return None if sys.stdout.isatty() else PIPED_WIDTH


@contextmanager
def ending_in_order(
    stops: Sequence[signal.Signals] = STOPS, then: signal.Handlers = signal.SIG_IGN
) -> Iterator[None]:
    """Let signals raise KeyboardInterrupt once, also where our parent process ignores them.

    Parameters
    ----------
    then
        What becomes of the next ones: nothing, since what is being ended takes its time, or the end at once.
    """

    def stop(number: int, frame: FrameType | None) -> None:
        for each in stops:
            signal.signal(each, then)
        raise KeyboardInterrupt

    before = {number: signal.signal(number, stop) for number in stops}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


console = Console(width=_width())
errors = Console(stderr=True, soft_wrap=True)

Json = Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")]
ConfigFile = Annotated[str | None, typer.Option("--config", "-c", help="YAML configuration (path or s3://).")]
RunOutput = Annotated[str, typer.Argument(metavar="RUN", help="Output of a finished run (path or s3://).")]
Endpoint = Annotated[str | None, typer.Option(help="S3 endpoint; by default from AWS_ENDPOINT_URL.")]


class Verbosity:
    """What is printed beside results: warnings and errors alone (-q), stages too, or all of the log (-v)."""

    level = logging.INFO


def _quiet(given: bool) -> None:
    if given:
        Verbosity.level = logging.WARNING


def _verbose(given: bool) -> None:
    if given:
        Verbosity.level = logging.DEBUG


Quiet = Annotated[
    bool, typer.Option("--quiet", "-q", callback=_quiet, help="Print results, warnings and errors alone.")
]
Verbose = Annotated[
    bool,
    typer.Option("--verbose", "-v", callback=_verbose, help="Print all of the log, tracebacks included."),
]


def _show_version(given: bool) -> None:
    if given:
        typer.echo(f"her2cohort {metadata.version('her2cohort')}")
        raise typer.Exit(OK)


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version.")
    ] = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    pass


def folder_of(uri: str) -> str:
    """Folder or prefix that holds a file."""
    return uri.rpartition("/")[0] or ("/" if uri.startswith("/") else ".")


def say(text: str) -> None:
    """A note on what is being done, on the error console; not with ``-q``."""
    if Verbosity.level <= logging.INFO:
        errors.print(text, markup=False, highlight=False)


def complain(word: str, text: str) -> None:
    """An error: its kind in red, and the text as it is, whatever brackets it holds."""
    errors.print(Text.assemble((word, "red"), " ", text), highlight=False)


class _Warnings(logging.Handler):
    """Warnings of our log on the error console, each once."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.shown: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if text not in self.shown:
            self.shown.add(text)
            errors.print(Text.assemble(("warning", "yellow"), " ", text), highlight=False)


@contextmanager
def showing_warnings() -> Iterator[None]:
    """Print the warnings of our log on the error console for the length of the block."""
    handler, log = _Warnings(), logging.getLogger("her2core")
    log.addHandler(handler)
    try:
        yield
    finally:
        log.removeHandler(handler)
