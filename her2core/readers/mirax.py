"""MIRAX: a small preview, ``x.mrxs``, beside the folder ``x`` that holds the slide itself."""

from __future__ import annotations

import os
import re
from pathlib import Path

from her2core.errors import Reason, SlideError

SUFFIX = ".mrxs"
HEADER = "Slidedat.ini"
MAX_HEADER_BYTES = 1 << 22
"""Longest header that is searched for the names of its files (ours); slides have below 200 kB."""
_MEMBER = re.compile(rb"^\s*(?:INDEXFILE|FILE_\d+)\s*=\s*([^\s\0][^\r\n\0]{0,199}?)\s*$", re.MULTILINE)


def is_mirax(path: str) -> bool:
    """Whether a name is that of a MIRAX slide."""
    return path.lower().endswith(SUFFIX)


def check_parts(path: str, name: str) -> None:
    """Refuse a local MIRAX slide of which a file is missing: all that is left may be the preview.

    Raises
    ------
    SlideError
        ``FILE_MISSING``, naming the first part that is not there.
    """
    file = Path(path)
    folder = file.with_suffix("")
    if not folder.is_dir():
        raise _missing(name, folder.name, "that folder is missing")
    if not path.endswith(SUFFIX):
        raise SlideError(
            Reason.FILE_UNREADABLE,
            f"{name}: a MIRAX slide is read under a name in small letters only; rename it to "
            f"{folder.name}{SUFFIX}",
        )
    header = folder / HEADER
    if not header.is_file():
        raise _missing(name, folder.name, f"{HEADER} is missing in it")
    with header.open("rb") as opened:
        listed = _MEMBER.findall(opened.read(MAX_HEADER_BYTES))
    absent = [part for part in listed if b"/" in part or not (folder / os.fsdecode(part)).is_file()]
    if absent:
        first = os.fsdecode(absent[0])[:40]
        raise _missing(name, folder.name, f"{len(absent)} of its {len(listed)} files are missing: {first!r}")


def _missing(name: str, folder: str, what: str) -> SlideError:
    return SlideError(
        Reason.FILE_MISSING,
        f"{name}: the preview of a MIRAX slide, whose pixels lie in the folder {folder!r} beside it; {what}. "
        "Transfer the folder to the same place",
    )
