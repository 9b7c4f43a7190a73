"""How an error becomes a row: state, reason and words, without paths, secrets or Dask's keys."""

from __future__ import annotations

import re
import tempfile
import traceback
from collections.abc import Callable, Iterable

from her2core.errors import (
    ClusterError,
    DiskFullError,
    Her2Error,
    Reason,
    ScratchError,
    SlideError,
    StoreError,
)
from her2core.records import SlideState
from her2core.stages.fanout import RunOverError, TooLongError, WorkersDiedError
from her2core.storage.lease import LeaseLostError
from her2core.storage.store import FULL
from her2core.text import cleaned as without_secrets

LONGEST_MESSAGE = 1000
"""Characters of a message that are kept (ours): libraries repeat their input in theirs."""
LONGEST_DETAILS = 8000
"""Characters of a traceback that are kept, from its end (ours)."""

_QUOTED_PATH = re.compile(r"""(['"])(?:s3:/|file:/)?/[^'"\n]*?([^/'"\n]*)\1""")
_PATH = re.compile(
    r"""(?<![\w/.:…])(?:s3://|file:///?|/)[^\s'"<>()\[\]{}|,;:=]*/([^\s'"<>()\[\]{}|,;:/=]+)/?"""
)


class SlideFailedError(Her2Error):
    """Why a slide ended without a result, fit for tables, journal and Prefect's database.

    Attributes
    ----------
    message
        One line for people.
    details
        A traceback, where nobody meant the error; cleaned as the message is.
    again
        Whether trying again at once may help.
    trouble
        What is wrong with disk, store or cluster rather than with the slide, if that is it.
    ends_run
        Whether no other slide can be done now either.
    """

    def __init__(
        self,
        state: SlideState,
        reason: Reason,
        message: str,
        *,
        details: str = "",
        again: bool = False,
        trouble: Her2Error | None = None,
        ends_run: bool = False,
    ) -> None:
        super().__init__(f"[{reason}] {message}")
        self.state, self.reason, self.message, self.details = state, reason, message, details
        self.again, self.trouble, self.ends_run = again, trouble, ends_run

    @property
    def store_is_gone(self) -> bool:
        """Whether the output store cannot be used at all; a full disk still takes a little."""
        return (
            self.ends_run
            and isinstance(self.trouble, StoreError)
            and not isinstance(self.trouble, DiskFullError)
        )

    def hiding(self, hide: Callable[[str], str]) -> SlideFailedError:
        """The same failure with its texts passed through ``hide``."""
        return SlideFailedError(
            self.state,
            self.reason,
            hide(self.message),
            details="\n".join(map(hide, self.details.splitlines())),
            again=self.again,
            trouble=self.trouble,
            ends_run=self.ends_run,
        )


def failure_of(error: BaseException, known: Iterable[str] = ()) -> SlideFailedError:
    """State in words what an error means for a slide.

    Parameters
    ----------
    known
        Paths that a text may hold and that no pattern distinguishes from prose, such as those with spaces.
    """
    match error:
        case SlideFailedError():
            return error
        case SlideError():
            skipped = error.reason == Reason.EXCLUDED
            state = SlideState.SKIPPED if skipped else SlideState.QUARANTINED
            return SlideFailedError(state, error.reason, error.message[:LONGEST_MESSAGE])
        case WorkersDiedError():
            return _of_deaths(error)
        case TooLongError():
            why = "not done within run.slide_timeout_s; raise it or run again"
            return SlideFailedError(SlideState.FAILED, Reason.TIMEOUT, why, again=not error.at_work)
        case RunOverError() | ClusterError() | DiskFullError() | LeaseLostError():
            why = f"not done when the run ended: {error}"
            return SlideFailedError(SlideState.FAILED, Reason.RUN_ENDED, why, trouble=error, ends_run=True)
        case ScratchError():
            return SlideFailedError(SlideState.FAILED, Reason.NO_SPACE, str(error), trouble=error)
    if (full := disk_full(error)) is not None:
        return failure_of(full)
    text = cleaned(f"{type(error).__name__}: {error}", known)
    lines = "".join(traceback.format_exception(error))
    details = "\n".join(cleaned(line, known) for line in lines[-LONGEST_DETAILS:].splitlines())
    return SlideFailedError(SlideState.FAILED, Reason.INTERNAL, text, details=details, again=True)


def _of_deaths(error: WorkersDiedError) -> SlideFailedError:
    how = f"{error.deaths} worker processes died at work on it, {error.alone} times with nothing beside it"
    if error.guilty:
        why = (
            f"{how}: it needs more memory than a worker has, or crashes a library. Give workers more memory "
            "(fewer run.workers), export the slide anew, or exclude it"
        )
        return SlideFailedError(SlideState.QUARANTINED, Reason.WORKER_LOST, why)
    why = (
        f"{how}; but other workers died as well, so that it is not known whether it is the cause. Run again "
        "when the machines are quiet"
    )
    return SlideFailedError(SlideState.FAILED, Reason.WORKER_LOST, why)


def disk_full(error: BaseException | None) -> DiskFullError | None:
    """The full disk behind an error, also one that a library has wrapped, or None."""
    seen = 0
    while error is not None and seen < 20:
        if isinstance(error, DiskFullError):
            return error
        number = getattr(error, "errno", None)
        if number not in FULL and (found := re.search(r"os error (\d+)", str(error))):  # as Rust words it
            number = int(found[1])
        if number in FULL:
            where = f"that of the output or of temporary files ({tempfile.tempdir or 'TMPDIR'})"
            return DiskFullError(
                f"{FULL[number]}, {where}: free some, and run the same command again to resume"
            )
        error, seen = error.__cause__ or error.__context__, seen + 1
    return None


def cleaned(text: str, known: Iterable[str] = ()) -> str:
    """A text without passwords, signatures and keys, on one line, and with file names in place of paths."""
    text = text[: 4 * LONGEST_MESSAGE]  # what is looked through is bounded as well
    for path in sorted(filter(None, known), key=len, reverse=True):
        text = text.replace(path, "…/" + path.rstrip("/").rpartition("/")[2])
    text = without_secrets(text)
    text = _QUOTED_PATH.sub(r"\1…/\2\1", text)
    text = _PATH.sub(r"…/\1", text)
    text = " ".join(text.split()) if not text.startswith(" ") else text
    return text if len(text) <= LONGEST_MESSAGE else text[: LONGEST_MESSAGE - 1] + "…"
