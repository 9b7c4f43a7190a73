"""The ``her2`` command line; ``her2 --help`` lists its verbs.

Exit codes
----------
0
    Everything requested was done; for ``run``, no slide failed. A slide may still be *indeterminate*
    (read, measured, and not scorable for a stated reason) or *skipped* (the manifest excludes it).
1
    ``run``, ``inspect`` and ``plan``: done, but one or more slides failed or were quarantined.
2
    Bad input: command line, manifest or configuration. Nothing was started.
3
    The output store, the Dask cluster or the Prefect server cannot be used.
70
    An unexpected error, with its traceback on the error console.
130
    Interrupted. Run the same command again to resume.
"""

from __future__ import annotations

import errno
import logging
import os
import signal
import sys
import traceback
from importlib.util import find_spec

if missing := [name for name in ("prefect", "rich", "typer") if find_spec(name) is None]:
    sys.exit(f"her2: the command line needs {', '.join(missing)}: pip install 'her2cohort[cli,flow]'")

from her2cli import look, run  # noqa: F401  # each adds its verbs, in the order of --help

# isort: split
from her2cli import (  # noqa: F401
    answers,
    background,
    clinical,
    export,
    ingest,
    learn,
    metrics,
    pyramid,
    report,
    serve,
    synth,
    upkeep,
    view,
)

# isort: split
from flows.environment import ServerError
from her2cli.common import (
    BAD_INPUT,
    INTERNAL,
    INTERRUPTED,
    OK,
    PARTIAL,
    UNUSABLE,
    Verbosity,
    app,
    complain,
    ending_in_order,
)
from her2core.errors import ClusterError, ConfigError, Her2Error, ManifestError, SlideError, StoreError
from her2core.text import cleaned, cut

__all__ = ["BAD_INPUT", "INTERNAL", "INTERRUPTED", "OK", "PARTIAL", "UNUSABLE", "app", "main"]

UNFIT = frozenset({
    errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.ELOOP,
})  # fmt: skip
"""Errors of a folder or file that a user named, who can correct it."""


def main() -> None:
    """Entry point: turn the errors that a user can act on into one line and an exit code."""
    logging.getLogger("her2core").addHandler(logging.NullHandler())
    Verbosity.level = logging.INFO
    try:
        with ending_in_order((signal.SIGTERM,), then=signal.SIG_DFL):  # as Ctrl-C: what is half-written goes
            app()
    except (ConfigError, ManifestError, SlideError) as error:
        _fail(error, BAD_INPUT)
    except (StoreError, ClusterError, ServerError) as error:
        _fail(error, UNUSABLE)
    except Exception as error:  # noqa: BLE001, the last place where an error becomes words
        gone = _outage(error)
        if gone is not None:
            _fail(gone, UNUSABLE)
        sys.stderr.write(cleaned("".join(traceback.format_exception(error))))
        why = cleaned(f"{type(error).__name__}: {error}")
        complain("error", f"unexpected ({cut(why)}); the traceback above shows where it happened")
        sys.exit(INTERNAL)


def _outage(error: Exception) -> StoreError | None:
    """The message for a store that went away or refused us in the middle of a verb; None for other errors.

    Its client is loaded now, and not on the way to every verb.
    """
    from botocore.exceptions import BotoCoreError

    from her2core.storage.s3 import endpoint_from_environment
    from her2core.storage.s3check import outage, refusal

    if not isinstance(error, OSError | BotoCoreError):
        return None
    if isinstance(error, OSError) and error.errno in UNFIT and error.filename is not None:
        return StoreError(
            f"{error.filename}: {os.strerror(error.errno)}; correct the address, or see that it can be used"
        )
    try:
        endpoint = endpoint_from_environment()
    except StoreError:  # of AWS_PROFILE: then no store was opened either
        return None
    return outage(error, "the store", endpoint) or refusal(error, "the store", endpoint)


def _fail(error: Her2Error, code: int) -> None:
    complain("error", cleaned(str(error)))
    sys.exit(code)
