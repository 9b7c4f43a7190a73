"""TIFF directories, read with every count and offset checked against the file's size.

Classic and BigTIFF, both byte orders. Values are read when requested; nothing here decodes pixels.

References
----------
Adobe, TIFF Revision 6.0 (1992); Aperio/libtiff, The BigTIFF File Format (2007).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from her2core.encoding import decode_text
from her2core.errors import Reason, SlideError
from her2core.readers.bytesource import ByteSource
from her2core.readers.limits import MAX_TEXT_BYTES, MAX_TILES

MAX_IFDS = 4096
"""Most directories of one file; a whole slide has about ten."""
MAX_ENTRIES = 1024
"""Most tags of one directory; scanners write below 100."""

TYPE_DTYPES = {
    1: "u1", 2: "u1", 3: "u2", 4: "u4", 5: "u4", 6: "i1", 7: "u1", 8: "i2", 9: "i4", 10: "i4", 11: "f4",
    12: "f8", 13: "u4", 16: "u8", 17: "i8", 18: "u8",
}  # fmt: skip
RATIONALS = (5, 10)

NEW_SUBFILE_TYPE = 254
IMAGE_WIDTH = 256
IMAGE_LENGTH = 257
BITS_PER_SAMPLE = 258
COMPRESSION = 259
PHOTOMETRIC = 262
FILL_ORDER = 266
IMAGE_DESCRIPTION = 270
STRIP_OFFSETS = 273
ORIENTATION = 274
SAMPLES_PER_PIXEL = 277
ROWS_PER_STRIP = 278
STRIP_BYTE_COUNTS = 279
X_RESOLUTION = 282
Y_RESOLUTION = 283
PLANAR_CONFIGURATION = 284
PAGE_NAME = 285
RESOLUTION_UNIT = 296
SOFTWARE = 305
PREDICTOR = 317
TILE_WIDTH = 322
TILE_LENGTH = 323
TILE_OFFSETS = 324
TILE_BYTE_COUNTS = 325
SUB_IFDS = 330
EXTRA_SAMPLES = 338
SAMPLE_FORMAT = 339
JPEG_TABLES = 347
ICC_PROFILE = 34675
XMP = 700
HAMAMATSU_FORMAT = 65420


@dataclass(frozen=True, slots=True)
class Tag:
    """Where one tag's values lie in the file."""

    type: int
    count: int
    start: int

    @property
    def size(self) -> int:
        """Bytes of the values."""
        return self.count * np.dtype(TYPE_DTYPES[self.type]).itemsize * (2 if self.type in RATIONALS else 1)


@dataclass(frozen=True, slots=True)
class Ifd:
    """One image file directory: tags by number, values by request.

    Attributes
    ----------
    damaged
        Whether ``check`` refuses it.
    """

    source: ByteSource
    order: str
    tags: dict[int, Tag]
    damaged: bool = False

    def has(self, tag: int) -> bool:
        return tag in self.tags

    def check(self) -> None:
        """Refuse a directory in which what distinguishes a level from a label or macro cannot be read.

        Raises
        ------
        SlideError
            Naming the tag.
        """
        for tag in (NEW_SUBFILE_TYPE, IMAGE_WIDTH, IMAGE_LENGTH, SAMPLES_PER_PIXEL, TILE_WIDTH, TILE_LENGTH):
            self.ints(tag)
        for tag in (IMAGE_DESCRIPTION, PAGE_NAME):
            self.text(tag)
        for tag in (STRIP_OFFSETS, STRIP_BYTE_COUNTS, TILE_OFFSETS, TILE_BYTE_COUNTS, JPEG_TABLES):
            self._check(tag)

    def _check(self, tag: int) -> None:
        """Refuse values that lie beyond the file's end."""
        entry = self.tags.get(tag)
        if entry is not None and entry.start + entry.size > self.source.size:
            raise SlideError(
                Reason.FILE_TRUNCATED,
                f"{self.source.name}: TIFF tag {tag} needs {entry.size} bytes at byte {entry.start} of a "
                f"file of {self.source.size}. The copy is incomplete: transfer the slide again",
            )

    def raw(self, tag: int) -> npt.NDArray[np.generic]:
        """All values of a tag, shape ``(count,)`` (numerator and denominator in turn for rationals)."""
        self._check(tag)
        entry = self.tags[tag]
        return np.frombuffer(self.source.read(entry.start, entry.size), self.order + TYPE_DTYPES[entry.type])

    def ints(self, tag: int, default: tuple[int, ...] = ()) -> tuple[int, ...]:
        """The first few whole numbers of a tag."""
        if tag not in self.tags:
            return default
        entry = self.tags[tag]
        if entry.count > 256 or TYPE_DTYPES[entry.type][0] not in "ui" or entry.type in RATIONALS:
            raise SlideError(
                Reason.FILE_UNREADABLE, f"{self.source.name}: TIFF tag {tag} has an impossible type or count"
            )
        return tuple(int(v) for v in self.raw(tag))

    def number(self, tag: int, default: int = 0) -> int:
        """The first whole number of a tag."""
        values = self.ints(tag)
        return values[0] if values else default

    def index(self, tag: int) -> npt.NDArray[np.uint64]:
        """A tile or strip index: byte offsets or byte counts, shape ``(tile,)``."""
        if tag not in self.tags:
            raise SlideError(
                Reason.FILE_UNREADABLE, f"{self.source.name}: TIFF tag {tag}, the tile index, is missing"
            )
        self._check(tag)
        entry = self.tags[tag]
        if entry.count > MAX_TILES or entry.type not in (3, 4, 13, 16, 18):
            raise SlideError(
                Reason.FILE_BEYOND_LIMITS,
                f"{self.source.name}: TIFF tag {tag} lists {entry.count} tiles (type {entry.type}); accepted "
                f"are {MAX_TILES}",
            )
        return self.raw(tag).astype(np.uint64)

    def text(self, tag: int) -> str:
        """A text tag, or an empty string. Never to be shown: it can hold names."""
        entry = self.tags.get(tag)
        if entry is None or entry.type not in (1, 2, 7):
            return ""
        self._check(tag)
        if entry.count > MAX_TEXT_BYTES:
            raise SlideError(
                Reason.FILE_BEYOND_LIMITS,
                f"{self.source.name}: TIFF tag {tag} is {entry.count} bytes of text; accepted are "
                f"{MAX_TEXT_BYTES}",
            )
        return decode_text(self.data(tag))

    def data(self, tag: int) -> bytes:
        self._check(tag)
        entry = self.tags.get(tag)
        return b"" if entry is None else self.source.read(entry.start, entry.count)

    def head(self, tag: int, length: int) -> bytes:
        """The first bytes of a tag; empty where they cannot be read."""
        entry = self.tags.get(tag)
        if entry is None or entry.start + entry.size > self.source.size:
            return b""
        return self.source.read(entry.start, min(entry.size, length))

    def ratio(self, tag: int) -> float | None:
        """A positive number, be it stored as a ratio, a decimal or a whole one; None where it is not."""
        entry = self.tags.get(tag)
        if entry is None or entry.count < 1 or entry.start + entry.size > self.source.size:
            return None
        size = entry.size // entry.count
        one = np.frombuffer(self.source.read(entry.start, size), self.order + TYPE_DTYPES[entry.type])
        numerator, denominator = float(one[0]), float(one[1]) if entry.type in RATIONALS else 1.0
        if not (numerator > 0 and denominator > 0 and math.isfinite(numerator)):
            return None
        return numerator / denominator


@dataclass(frozen=True, slots=True)
class _Layout:
    """Sizes that differ between classic TIFF and BigTIFF."""

    order: str
    offset: str  # dtype of an offset and of an entry's count
    count: str  # dtype of a directory's number of entries
    entry_bytes: int


def is_tiff(head: bytes) -> bool:
    """Whether a file that begins with ``head`` is a TIFF or BigTIFF."""
    return head[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


@dataclass(frozen=True, slots=True)
class Chain:
    """The directories of a file's main chain that can be reached.

    Attributes
    ----------
    broken
        Whether the link behind the last one leads nowhere.
    """

    ifds: list[Ifd]
    broken: bool

    @property
    def problems(self) -> tuple[str, ...]:
        """Notes on directories that are not read."""
        odd = [
            f"its TIFF directory {i} is damaged and left out"
            for i, ifd in enumerate(self.ifds, 1)
            if ifd.damaged
        ]
        if self.broken:
            n = len(self.ifds)
            odd.append(f"the link behind its TIFF directory {n} is broken: what may follow is not read")
        return tuple(odd)


def read_chain(source: ByteSource) -> Chain:
    """Every directory of the main chain that can be reached.

    A link that leads nowhere, as an aborted writer leaves it, ends the chain; the directories before it, and
    their pixels, are whole.

    Raises
    ------
    SlideError
        Where the first directory cannot be read, ``FILE_BEYOND_LIMITS`` where the chain does not end.
    """
    head = source.read(0, min(16, source.size))
    if not is_tiff(head) or len(head) < 8:
        raise SlideError(Reason.NOT_A_SLIDE, f"{source.name}: no TIFF header; expected a slide file")
    order = "<" if head[:2] == b"II" else ">"
    big = head[2:4] in (b"+\0", b"\0+")
    layout = _Layout(order, "u8", "u8", 20) if big else _Layout(order, "u4", "u2", 12)
    start = 8 if big else 4
    at = int(np.frombuffer(source.read(start, 8 if big else 4), order + layout.offset)[0])
    chain: list[Ifd] = []
    seen: set[int] = set()
    broken = False
    while at and not broken:
        if len(seen) >= MAX_IFDS:
            raise SlideError(
                Reason.FILE_BEYOND_LIMITS,
                f"{source.name}: more than {MAX_IFDS} TIFF directories; expected one slide",
            )
        try:
            _visit(source, at, seen)
            ifd, at = _read_ifd(source, layout, at)
        except SlideError:
            if not chain:
                raise
            broken = True
            continue
        if ifd.has(HAMAMATSU_FORMAT):
            return Chain([*chain, ifd], broken=False)  # NDPI: offsets beyond 4 GiB are stored its own way
        if not chain:
            ifd.check()
        chain.append(ifd)
    if not chain:
        raise SlideError(Reason.NOT_A_SLIDE, f"{source.name}: a TIFF without any image")
    return Chain(chain, broken)


def read_sub_ifds(parent: Ifd, big: bool) -> list[Ifd]:
    """The directories that ``parent`` lists as its reduced levels; one that cannot be read is left out.

    No pixel is read from them.
    """
    layout = _Layout(parent.order, "u8", "u8", 20) if big else _Layout(parent.order, "u4", "u2", 12)
    seen: set[int] = set()
    found = []
    with suppress(SlideError):
        for at in parent.ints(SUB_IFDS):
            _visit(parent.source, at, seen)
            found.append(_read_ifd(parent.source, layout, at)[0])
    return found


def is_big(source: ByteSource) -> bool:
    return source.read(2, 2) in (b"+\0", b"\0+")


def _visit(source: ByteSource, at: int, seen: set[int]) -> None:
    if at in seen:
        raise SlideError(Reason.FILE_UNREADABLE, f"{source.name}: its TIFF directories loop at byte {at}")
    seen.add(at)


def _read_ifd(source: ByteSource, layout: _Layout, at: int) -> tuple[Ifd, int]:
    """The directory at byte ``at`` and the place of the next one (0: none)."""
    count_dtype, offset_dtype = np.dtype(layout.order + layout.count), np.dtype(layout.order + layout.offset)
    n = int(np.frombuffer(source.read(at, count_dtype.itemsize), count_dtype)[0])
    if not 1 <= n <= MAX_ENTRIES:
        raise SlideError(
            Reason.FILE_UNREADABLE,
            f"{source.name}: the TIFF directory at byte {at} has {n} tags; expected 1-{MAX_ENTRIES}. The "
            "file is damaged",
        )
    first = at + count_dtype.itemsize
    table = source.read(first, n * layout.entry_bytes + offset_dtype.itemsize)
    tags = dict(_entries(layout, table, first, n))
    following = int(np.frombuffer(table[-offset_dtype.itemsize :], offset_dtype)[0])
    found = Ifd(source, layout.order, tags)
    try:
        found.check()
    except SlideError:
        found = replace(found, damaged=True)
    return found, following


def _entries(layout: _Layout, table: bytes, first: int, n: int) -> Iterable[tuple[int, Tag]]:
    entry = np.dtype(
        [("tag", layout.order + "u2"), ("type", layout.order + "u2"), ("count", layout.order + layout.offset),
         ("value", layout.order + layout.offset)]
    )  # fmt: skip
    for i, row in enumerate(np.frombuffer(table, entry, count=n)):
        tag, kind, count, value = (int(v) for v in row.tolist())
        if kind not in TYPE_DTYPES:
            continue  # readers skip unknown types (TIFF 6.0, page 16)
        inline = Tag(kind, count, 0).size <= entry["value"].itemsize
        start = first + i * layout.entry_bytes + entry.fields["value"][1] if inline else value  # type: ignore[index]
        yield tag, Tag(kind, count, start)
