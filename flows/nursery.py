"""A process that loads what workers and the report of a run need, once, and is forked for each of them.

It is `multiprocessing`'s fork server: a program of its own with one thread of Python, started before a run
looks at anything, so that it loads beside the run. It ends with the run, however that ends. Where nobody has
opened it (a cluster elsewhere, a system that cannot fork) workers and report are started as programs.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from multiprocessing import forkserver, get_all_start_methods, get_context
from multiprocessing.resource_tracker import ensure_running
from typing import Final

from flows.environment import WORKER_ENVIRONMENT

METHOD: Final = "forkserver"
LOADED = "flows.loaded"
"""The module that loads the others."""
MODULES = (
    "distributed",
    "her2core.stages.tasks",
    "her2core.stages.prepare",
    "her2core.intake.inspect",
    "her2core.stages.cells",
    "her2core.stages.slide",
    "her2core.stages.slide_ihc",
    "her2core.stages.slide_ish",
    "her2core.report.build",
)
"""What a worker has loaded when it has taken a slide through its stages, and what writes a report."""

_opened = False


@contextmanager
def open_nursery(also: Sequence[str] = ()) -> Iterator[None]:
    """Start it, if it can be had here, for a block; it loads while others go on.

    Parameters
    ----------
    also
        Further modules to load.
    """
    global _opened
    if METHOD in get_all_start_methods():
        get_context(METHOD).set_forkserver_preload([LOADED, *also])
        with _environment(WORKER_ENVIRONMENT), terminal_signals_blocked():
            forkserver.ensure_running()
        _opened = True
    try:
        yield
    finally:
        _opened = False


def is_open() -> bool:
    """Whether processes can be forked from it."""
    return _opened


@contextmanager
def terminal_signals_blocked() -> Iterator[None]:
    """Begin processes that a terminal's signals do not reach: whom they are begun by has these blocked."""
    ensure_running()  # multiprocessing's tracker unblocks signals where it is started
    mine = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGHUP})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mine)


@contextmanager
def _environment(variables: Mapping[str, object]) -> Iterator[None]:
    before = dict(os.environ)
    os.environ.update({name: str(value) for name, value in variables.items()})
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
