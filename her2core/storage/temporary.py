"""Temporary folders of this machine, and what to say when their disk is full."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from her2core.errors import DiskFullError, StoreError
from her2core.storage.store import FULL

REMEDY = "set TMPDIR to a folder with space"


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
    try:
        folder = Path(tempfile.mkdtemp(prefix=prefix, dir=place))
    except OSError as error:
        raise full(error, place, needs) or error from None
    try:
        yield folder
    except OSError as error:
        if (told := full(error, place, needs)) is None:
            raise
        raise told from None
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def full(error: OSError, place: Path, needs: str) -> DiskFullError | None:
    """What to say where an error is that of a full temporary folder; None for any other."""
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
