"""Bytes of a slide file by range: ``pread`` on a local file, ranged requests on a remote one."""

from __future__ import annotations

import os
from bisect import bisect_right
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from functools import partial
from typing import Any, Protocol

from her2core.buffers import ThreadBuffers
from her2core.errors import Reason, SlideError
from her2core.storage.waiting import begin

Span = tuple[int, int]
"""Half-open byte range ``(start, end)``."""

BLOCK_BYTES = 1 << 16
"""Header reads of a remote file are rounded up to this many bytes, and kept while it is opened."""
REQUEST_BYTES = 1 << 21
"""Most bytes of one request of what is read ahead: several share the way (2 MiB, ours)."""
BATCH_BYTES = 1 << 25
"""Most bytes of a remote file requested at once (32 MiB: what a region then holds beside its pixels)."""


class ByteSource(Protocol):
    """A file of known size, read by range. Thread-safe."""

    name: str
    size: int
    max_gap: int
    """Spans closer than this many bytes are cheaper to read as one."""
    waits: bool
    """Whether reading waits for a server."""

    def read(self, start: int, length: int) -> bytes:
        """``length`` bytes from ``start``; ``FILE_TRUNCATED`` where the file ends before."""
        ...

    def read_spans(self, spans: Sequence[Span]) -> Iterator[memoryview]:
        """The bytes of each span in turn; a view is valid until the next one is requested."""
        ...

    def begin(self, spans: Sequence[Span]) -> None:
        """Begin to read spans that will be requested, where reading waits.

        The last two lots are kept; of no span, both go.
        """
        ...

    def close(self) -> None: ...


def truncated(name: str, start: int, end: int, size: int) -> SlideError:
    """The error for bytes that a file refers to and does not have."""
    return SlideError(
        Reason.FILE_TRUNCATED,
        f"{name}: refers to bytes {start}-{end} but is {size} bytes long. The copy is incomplete: transfer "
        "it again",
    )


class LocalBytes:
    """A local file, read with ``pread`` into one buffer a thread. Not mapped: a file cut short while mapped
    would end the process with SIGBUS."""

    max_gap = 4096
    waits = False

    def __init__(self, path: str | os.PathLike[str], name: str | None = None) -> None:
        self.name = name or os.fspath(path)
        self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self.size = os.fstat(self._fd).st_size
        self._buffers = ThreadBuffers()

    def read(self, start: int, length: int) -> bytes:
        data = os.pread(self._fd, length, start) if start + length <= self.size else b""
        if len(data) != length:
            raise truncated(self.name, start, start + length, self.size)
        return data

    def read_spans(self, spans: Sequence[Span]) -> Iterator[memoryview]:
        for start, end in spans:
            view = self._buffers.flat("span", end - start).data
            done = 0
            while done < len(view):
                n = os.preadv(self._fd, [view[done:]], start + done)
                if n == 0:
                    raise truncated(self.name, start, end, start + done)
                done += n
            yield view

    def begin(self, spans: Sequence[Span]) -> None:
        pass

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


class JoinedBytes:
    """Several local files as one: each begins at a place of its own, apart from the one before.

    Parameters
    ----------
    name
        Name for messages.
    """

    max_gap = LocalBytes.max_gap
    waits = False

    def __init__(self, name: str, parts: Sequence[LocalBytes]) -> None:
        self.name = name
        self.starts: list[int] = []
        self._parts = parts
        self.size = 0
        for part in parts:
            self.starts.append(self.size)
            self.size += part.size + self.max_gap + 1  # so that no range is joined over two files

    def read(self, start: int, length: int) -> bytes:
        part, at = self._find(start)
        return part.read(at, length)

    def read_spans(self, spans: Sequence[Span]) -> Iterator[memoryview]:
        for start, end in spans:
            part, at = self._find(start)
            yield from part.read_spans([(at, at + end - start)])

    def begin(self, spans: Sequence[Span]) -> None:
        pass

    def _find(self, start: int) -> tuple[LocalBytes, int]:
        i = max(bisect_right(self.starts, start) - 1, 0)
        return self._parts[i], start - self.starts[i]

    def close(self) -> None:
        for part in self._parts:
            part.close()


class RemoteBytes:
    """An object read through fsspec: spans become concurrent ranged requests of bounded size."""

    max_gap = 1 << 16
    waits = True

    def __init__(self, fs: Any, path: str, name: str, size: int) -> None:
        self.name = name
        self.size = size
        self._fs = fs
        self._path = path
        self._blocks: dict[int, bytes] = {}
        self._begun: deque[_Begun] = deque(maxlen=2)

    def read(self, start: int, length: int) -> bytes:
        if start + length > self.size:
            raise truncated(self.name, start, start + length, self.size)
        if length > BLOCK_BYTES:
            return self._fetch([(start, start + length)])[0]
        first, last = start // BLOCK_BYTES, (start + max(length, 1) - 1) // BLOCK_BYTES
        for block in range(first, last + 1):
            if block not in self._blocks:
                span = (block * BLOCK_BYTES, min((block + 1) * BLOCK_BYTES, self.size))
                self._blocks[block] = self._fetch([span])[0]
        data = b"".join(self._blocks[block] for block in range(first, last + 1))
        return data[start - first * BLOCK_BYTES :][:length]

    def read_spans(self, spans: Sequence[Span]) -> Iterator[memoryview]:
        self._blocks.clear()
        begun = tuple(self._begun)
        batch: list[Span] = []
        pending = 0
        for span in spans:
            found = next((lot for lot in begun if lot.holds(span)), None)
            if batch and (found or pending + span[1] - span[0] > BATCH_BYTES):
                yield from (memoryview(part) for part in self._fetch(batch))
                batch, pending = [], 0
            if found:
                yield found.bytes_of(span)
            else:
                batch.append(span)
                pending += span[1] - span[0]
        if batch:
            yield from (memoryview(part) for part in self._fetch(batch))

    def begin(self, spans: Sequence[Span]) -> None:
        if not spans:
            self._begun.clear()
            return
        pieces = [piece for piece, _ in coalesce(spans, self.max_gap, REQUEST_BYTES)]
        self._begun.append(_Begun(pieces, begin(partial(self._fetch, pieces))))

    def _fetch(self, spans: Sequence[Span]) -> list[bytes]:
        starts, ends = [s for s, _ in spans], [e for _, e in spans]
        parts: list[bytes] = []
        for (start, end), part in zip(
            spans, self._fs.cat_ranges([self._path] * len(spans), starts, ends), strict=True
        ):
            if isinstance(part, BaseException):
                raise part
            if len(part) != end - start:
                raise OSError(f"{self.name}: requested bytes {start}-{end}, the store sent {len(part)}")
            parts.append(part)
        return parts

    def close(self) -> None:
        self._blocks.clear()
        self._begun.clear()


class _Begun:
    """Spans that are being read, in the order of the file."""

    def __init__(self, spans: Sequence[Span], parts: Future[list[bytes]]) -> None:
        self._spans, self._parts = spans, parts
        self._starts = [start for start, _ in spans]

    def holds(self, span: Span) -> bool:
        """Whether one of its spans contains this one."""
        found = bisect_right(self._starts, span[0]) - 1
        return found >= 0 and span[1] <= self._spans[found][1]

    def bytes_of(self, span: Span) -> memoryview:
        """The bytes of a span that it holds; what went wrong with reading them is raised here."""
        found = bisect_right(self._starts, span[0]) - 1
        start = self._starts[found]
        return memoryview(self._parts.result()[found])[span[0] - start : span[1] - start]


def coalesce(spans: Sequence[Span], max_gap: int, max_bytes: int) -> list[tuple[Span, list[int]]]:
    """Join byte ranges that lie close together.

    Returns
    -------
    list
        ``(joined span, indices into spans that it covers)``, in file order.
    """
    joined: list[tuple[Span, list[int]]] = []
    for i in sorted(range(len(spans)), key=lambda i: spans[i]):
        start, end = spans[i]
        if joined:
            (from_, to), members = joined[-1]
            if start - to <= max_gap and max(end, to) - from_ <= max_bytes:
                members.append(i)
                joined[-1] = ((from_, max(end, to)), members)
                continue
        joined.append(((start, end), [i]))
    return joined
