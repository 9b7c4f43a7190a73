"""Open readers shared by the tasks of one process: the header of a slide is parsed once, not once a task."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from her2core.readers.base import SlideReader
from her2core.readers.opening import open_slide
from her2core.records import Assay

MAX_IDLE = 4
"""Readers kept open without a borrower; each holds a file descriptor and its tile index."""
MAX_IDLE_BYTES = 1 << 28
"""Decoded pixels that idle readers of plain images keep, bytes (256 MiB)."""

_Key = tuple[object, ...]


@dataclass(slots=True)
class _Loan:
    reader: SlideReader
    borrowers: int


_loans: dict[_Key, _Loan] = {}  # in order of last use
_lock = threading.Lock()


@contextmanager
def shared_reader(
    source: str | os.PathLike[str],
    *,
    identity: str,
    scene: str | None = None,
    mpp: float | None = None,
    uri: str | None = None,
    assay: Assay | None = None,
    channels: str | None = None,
    endpoint_url: str | None = None,
) -> Iterator[SlideReader]:
    """The process's shared reader of a slide; do not close it.

    Parameters are those of ``open_slide``; the identity is required, because it is what makes two requests
    the same slide. Readers without a borrower are closed, the longest unused first, when there are more
    than ``MAX_IDLE`` of them or they keep more than ``MAX_IDLE_BYTES``.
    """
    key = (os.getpid(), os.fspath(source), identity, scene, mpp, uri, assay, channels, endpoint_url)
    with _lock:  # held while opening: tasks that start together wait for one header parse
        loan = _loans.pop(key, None)
        if loan is None:
            reader = open_slide(
                source,
                scene=scene,
                mpp=mpp,
                uri=uri,
                identity=identity,
                assay=assay,
                channels=channels,
                endpoint_url=endpoint_url,
            )
            loan = _Loan(reader, 0)
        loan.borrowers += 1
        _loans[key] = loan
    try:
        yield loan.reader
    finally:
        with _lock:
            loan.borrowers -= 1
            surplus = [_loans.pop(k).reader for k in _surplus()]
        for unused in surplus:
            unused.close()


def _surplus() -> list[_Key]:
    """Idle readers to close, the longest unused first; the last used one always stays."""
    idle = [(key, _held_bytes(loan.reader)) for key, loan in _loans.items() if not loan.borrowers]
    closing = []
    while len(idle) > 1 and (len(idle) > MAX_IDLE or sum(held for _, held in idle) > MAX_IDLE_BYTES):
        closing.append(idle.pop(0)[0])
    return closing


def _held_bytes(reader: SlideReader) -> int:
    return int(getattr(reader, "held_bytes", 0))
