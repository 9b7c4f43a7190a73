"""Temporary folders of this machine, and the message when their disk is full.

A process holds a lock on each of its folders, so that what a killed one leaves behind is known and removed by
the next.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

from her2core.errors import DiskFullError, StoreError
from her2core.storage.store import FULL

REMEDY = "set TMPDIR to a folder with space"
SUFFIX = ".tmp"
"""How the names of our folders end, by which they are found again."""


def temporary_place() -> Path:
    """The machine's temporary folder.

    Raises
    ------
    StoreError
        If none of those that are looked at can be written to.
    """
    try:
        return Path(tempfile.gettempdir())
    except FileNotFoundError as error:
        raise StoreError(
            f"no temporary folder can be written to ({error.strerror}): their disks are full or read-only; "
            f"free some space or {REMEDY}"
        ) from None


@contextmanager
def temporary_folder(prefix: str, needs: str) -> Iterator[Path]:
    """A folder of one's own in the temporary one, gone when the block ends.

    Parameters
    ----------
    needs
        How much is written to it, for the message.

    Raises
    ------
    DiskFullError
        If its disk is full: which folder, what is needed, and the remedy.
    """
    place = temporary_place()
    clear_left(place)
    try:
        folder, lock = _locked_folder(prefix, place)
    except OSError as error:
        raise full(error, place, needs) or error from None
    try:
        yield folder
    except OSError as error:
        if (shown := full(error, place, needs)) is None:
            raise
        raise shown from None
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def _locked_folder(prefix: str, place: Path) -> tuple[Path, int]:
    """A new folder, and a file descriptor that holds its lock."""
    while True:
        folder = tempfile.mkdtemp(prefix=prefix, suffix=SUFFIX, dir=place)
        try:
            lock = os.open(folder, os.O_RDONLY)
        except FileNotFoundError:  # another process took it for left behind, before it was locked
            continue
        with suppress(OSError):  # a disk without locks: then nobody removes it either
            fcntl.flock(lock, fcntl.LOCK_SH)
        if os.path.isdir(folder):  # nor while it was being locked
            return Path(folder), lock
        os.close(lock)


@cache
def clear_left(place: Path) -> None:
    """Remove folders of ours that killed processes left behind; looked for once a process."""
    for folder in place.glob(f"her2-*{SUFFIX}"):
        with suppress(OSError):  # somebody else's, or gone just now
            lock = os.open(folder, os.O_RDONLY | os.O_NOFOLLOW | os.O_DIRECTORY)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
            finally:
                os.close(lock)


def full(error: OSError, place: Path, needs: str) -> DiskFullError | None:
    """The message for an error of a full temporary folder; None for any other error."""
    if error.errno not in FULL:
        return None
    free = ""
    with suppress(OSError):
        disk = os.statvfs(place)
        files = "" if disk.f_favail or not disk.f_files else ", and no more files fit on it"
        free = f" ({disk.f_bavail * disk.f_frsize} bytes are free{files})"
    return DiskFullError(
        f"the temporary folder {place}: {FULL[error.errno]}{free}, and {needs} are needed; free "
        f"some or {REMEDY}, and run the same command again to resume"
    )
