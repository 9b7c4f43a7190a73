"""Open readers shared by the tasks of one process: the header of a slide is parsed once, not once a task."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from her2core.readers.base import SlideReader
from her2core.readers.opening import open_slide

MAX_IDLE = 4
"""Readers kept open without a borrower; each holds a file descriptor and its tile index."""

_Key = tuple[object, ...]


@dataclass(slots=True)
class _Loan:
    reader: SlideReader
    borrowers: int


_loans: dict[_Key, _Loan] = {}  # in order of last use
_lock = threading.Lock()


@contextmanager
def borrow_slide(
    source: str | os.PathLike[str],
    *,
    identity: str,
    scene: str | None = None,
    mpp: float | None = None,
    uri: str | None = None,
    endpoint_url: str | None = None,
) -> Iterator[SlideReader]:
    """Lend the process's reader of a slide; do not close it.

    Parameters are those of ``open_slide``; the identity is required, because it is what makes two requests
    the same slide. Readers without a borrower are closed, the longest unused first, when more than
    ``MAX_IDLE`` are open.
    """
    key = (os.getpid(), os.fspath(source), identity, scene, mpp, uri, endpoint_url)
    with _lock:  # held while opening: tasks that start together wait for one header parse
        loan = _loans.pop(key, None)
        if loan is None:
            reader = open_slide(
                source, scene=scene, mpp=mpp, uri=uri, identity=identity, endpoint_url=endpoint_url
            )
            loan = _Loan(reader, 0)
        loan.borrowers += 1
        _loans[key] = loan
    try:
        yield loan.reader
    finally:
        with _lock:
            loan.borrowers -= 1
            idle = [k for k, held in _loans.items() if not held.borrowers]
            closing = [_loans.pop(k) for k in idle[: max(len(idle) - MAX_IDLE, 0)]]
        for held in closing:
            held.reader.close()
