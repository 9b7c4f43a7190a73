"""DICOM whole-slide images by their native frames: one file, or a folder with the files of one series.

References
----------
DICOM PS3.3, A.32.8 VL Whole Slide Microscopy Image; PS3.5, A.4 encapsulated pixel data.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt

from her2core.errors import Reason, SlideError
from her2core.readers.base import OpenRequest, choose_scene, focal_planes
from her2core.readers.bytesource import JoinedBytes, LocalBytes
from her2core.readers.dicom.header import DicomHeader, read_headers
from her2core.readers.limits import MAX_TILE_PX, MAX_TILES, check_size, check_tile_index
from her2core.readers.scale import resolve_scale
from her2core.readers.standalone import NativeTiles, joined_tiles, jpeg2000_tiles, jpeg_tiles
from her2core.readers.tiff.grid import absent_tiles
from her2core.readers.tilecodecs import (
    RGB,
    YCBCR,
    TileDecoder,
    fragments_decoder,
    htj2k_decoder,
    joined_fragments,
    jpeg2000_decoder,
    jpeg_decoder,
    jpegxl_decoder,
    uncompressed_decoder,
)
from her2core.readers.tiled import TiledReader, TileGrid
from her2core.records import LevelInfo, SlideInfo

JPEG_BASELINE = "1.2.840.10008.1.2.4.50"
JPEG_2000 = ("1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.4.91")
HTJ2K = ("1.2.840.10008.1.2.4.201", "1.2.840.10008.1.2.4.202", "1.2.840.10008.1.2.4.203")
JPEG_XL = ("1.2.840.10008.1.2.4.110", "1.2.840.10008.1.2.4.111", "1.2.840.10008.1.2.4.112")
IMPLICIT_LITTLE_ENDIAN = "1.2.840.10008.1.2"
UNCOMPRESSED = (IMPLICIT_LITTLE_ENDIAN, "1.2.840.10008.1.2.1")
MAX_FILES = 10_000
"""Most files of a DICOM folder."""
MAX_FRAGMENTS = 64
"""Most fragments of a frame, on average (ours)."""
UNDEFINED = 0xFFFFFFFF
ITEM_BYTES = 8
STREAM_STARTS = (b"\xff\xd8\xff", b"\xff\x4f\xff\x51", b"\xff\x0a", b"\0\0\0\x0c")
"""How a frame begins in JPEG, JPEG 2000 and JPEG XL, bare or boxed."""
PIXEL_DATA, ITEM, SEQUENCE_END = b"\xe0\x7f\x10\x00", b"\xfe\xff\x00\xe0", b"\xfe\xff\xdd\xe0"

Index = npt.NDArray[np.int64]


def open_dicom(path: str | os.PathLike[str], request: OpenRequest) -> TiledReader:
    """Reader of a DICOM file, or of a folder that holds one series.

    Raises
    ------
    SlideError
        ``NOT_A_SLIDE`` for other DICOM objects, ``FILE_UNREADABLE`` for all but one plane of 8-bit RGB.
    """
    files = sorted(p for p in Path(path).iterdir() if p.is_file()) if Path(path).is_dir() else [Path(path)]
    if len(files) > MAX_FILES:
        raise SlideError(
            Reason.FILE_BEYOND_LIMITS,
            f"{request.name}: {len(files)} files in the folder; accepted are {MAX_FILES}",
        )
    found = [header for header in read_headers(files, request.name) if header.is_level]
    if not found:
        raise SlideError(Reason.NOT_A_SLIDE, f"{request.name}: no DICOM whole-slide image (VOLUME) in it")
    series = sorted({header.series for header in found})
    sizes = {
        str(i): max((h.height, h.width) for h in found if h.series == one) for i, one in enumerate(series)
    }
    chosen, names = choose_scene(request.name, sizes, request.scene), tuple(sizes)
    levels = _levels([header for header in found if header.series == series[chosen]])
    first = levels[0]
    if len(levels) > 1 and (levels[1].height, levels[1].width) == (first.height, first.width):
        raise SlideError(
            Reason.FILE_UNREADABLE,
            f"{request.name}: several files hold the finest level (focal planes?); expected one, or the "
            "parts of one concatenation",
        )
    return _reader(request, levels, names, names[chosen])


@dataclass(frozen=True, slots=True)
class Level:
    """One level of a series: a file, or the parts of a concatenation in the order of their frames."""

    parts: tuple[DicomHeader, ...]

    @property
    def header(self) -> DicomHeader:
        """What all its parts state alike."""
        return self.parts[0]

    @property
    def height(self) -> int:
        return self.header.height

    @property
    def width(self) -> int:
        return self.header.width

    @property
    def frames(self) -> int:
        return sum(part.frames for part in self.parts)


def _levels(headers: Sequence[DicomHeader]) -> list[Level]:
    """Levels of a series, the finest first."""
    by_level: dict[str, list[DicomHeader]] = {}
    for header in headers:
        by_level.setdefault(header.part_of or str(header.path), []).append(header)
    levels = [Level(tuple(sorted(parts, key=lambda part: part.first_frame))) for parts in by_level.values()]
    return sorted(levels, key=lambda level: (level.height, level.width), reverse=True)


def _reader(request: OpenRequest, levels: Sequence[Level], names: tuple[str, ...], scene: str) -> TiledReader:
    level, first = levels[0], levels[0].header
    scale = resolve_scale(request.name, request.mpp, [first.scale] if first.scale else [], request.assay)
    check_size(request.name, first.height, first.width)
    compression, decode, native = _decoder(request.name, first)
    _check_level(request.name, level)
    parts = [LocalBytes(part.path, request.name) for part in level.parts]
    source = parts[0] if len(parts) == 1 else JoinedBytes(request.name, parts)
    try:
        grid = _grid(request.name, level, parts, getattr(source, "starts", [0]))
    except SlideError:
        source.close()
        raise
    odd = () if first.kind else ("the DICOM header has no ImageType: taken for slide pixels",)
    info = SlideInfo(
        uri=request.name,
        identity=request.identity,
        size_bytes=request.size_bytes,
        format="dicom",
        reader="dicom",
        levels=tuple(LevelInfo(v.height, v.width, first.width / v.width) for v in levels),
        tile_height=grid.tile_height,
        tile_width=grid.tile_width,
        compression=compression,
        mpp=scale.mpp,
        mpp_source=scale.source,
        scenes=names,
        scene=scene if len(names) > 1 or request.scene else None,
        objective_power=first.objective_power,
        problems=(*scale.problems, *odd, *absent_tiles(grid, "glass")),
    )
    return TiledReader(
        info,
        source,
        grid,
        fragments_decoder(decode) if grid.head_bytes else decode,
        request.outside,
        icc_profile=first.icc_profile,
        native=joined_tiles(native, joined_fragments) if native and grid.head_bytes else native,
    )


def _decoder(name: str, header: DicomHeader) -> tuple[str, TileDecoder, NativeTiles | None]:
    """Name of the compression, frame decoder and what makes a frame stand alone; only of 8-bit RGB."""
    if header.samples != 3 or header.bits != 8:
        raise SlideError(
            Reason.FILE_UNREADABLE,
            f"{name}: {header.samples} samples with {header.bits} bits a pixel; expected 8-bit RGB",
        )
    wavelet = header.photometric in ("RGB", "YBR_RCT", "YBR_ICT")
    if header.syntax == JPEG_BASELINE:
        photometric = RGB if header.photometric == "RGB" else YCBCR
        return "jpeg", jpeg_decoder(photometric), jpeg_tiles(photometric)
    if header.syntax in JPEG_2000 and wavelet:
        return "jpeg2000", jpeg2000_decoder(), jpeg2000_tiles()
    if header.syntax in HTJ2K and wavelet:
        return "htj2k", htj2k_decoder(), None
    if header.syntax in JPEG_XL and header.photometric in ("RGB", "XYB", "YBR_FULL", "YBR_FULL_422"):
        return "jpegxl", jpegxl_decoder(), None  # which gives RGB whatever it stores
    if header.syntax in UNCOMPRESSED and header.photometric in ("RGB", "YBR_FULL"):
        bare = uncompressed_decoder(planar=header.planar, ycbcr=header.photometric != "RGB")
        return "none", bare, None
    raise SlideError(
        Reason.FILE_UNREADABLE,
        f"{name}: transfer syntax {header.syntax} with {header.photometric} is not supported; expected JPEG "
        "baseline, JPEG 2000, JPEG XL or uncompressed RGB. Convert it with wsidicomizer or export it as "
        "OME-TIFF",
    )


def _check_level(name: str, level: Level) -> None:
    """Refuse what is not one whole plane of frames."""
    header, n = level.header, level.frames
    tile_h, tile_w = header.tile_height, header.tile_width
    if not (tile_h > 0 and tile_w > 0 and tile_h * tile_w <= MAX_TILE_PX):
        raise SlideError(
            Reason.FILE_BEYOND_LIMITS,
            f"{name}: frames of {tile_w} x {tile_h} px; accepted are {MAX_TILE_PX} px",
        )
    cells = -(-header.height // tile_h) * -(-header.width // tile_w)
    if not all(part.frames > 0 for part in level.parts) or not max(n, cells) <= MAX_TILES:
        raise SlideError(
            Reason.FILE_BEYOND_LIMITS,
            f"{name}: declares {n} frames on a grid of {cells}; accepted {MAX_TILES}",
        )
    if header.focal_planes > 1:
        raise focal_planes(name, header.focal_planes)
    if header.optical_paths > 1:
        raise SlideError(
            Reason.FILE_UNREADABLE, f"{name}: {header.optical_paths} optical paths; expected 1. Export one"
        )
    if header.part_of is None:
        return
    starts = [0, *accumulate(part.frames for part in level.parts)][:-1]
    if len(level.parts) < header.parts or [part.first_frame for part in level.parts] != starts:
        raise SlideError(
            Reason.FILE_TRUNCATED,
            f"{name}: {len(level.parts)} of {header.parts or 'several'} parts of a concatenation, whose "
            f"frames begin at {', '.join(str(part.first_frame) for part in level.parts[:9])}; expected all "
            "parts, end to end. Give the folder that holds all parts as the slide",
        )
    if len({part.form for part in level.parts}) > 1:
        raise SlideError(
            Reason.FILE_UNREADABLE, f"{name}: the parts of its concatenation differ in size or pixels"
        )


def _grid(name: str, level: Level, sources: Sequence[LocalBytes], starts: Sequence[int]) -> TileGrid:
    """Places of all frames; those of a later part follow the parts before it."""
    header = level.header
    tile_h, tile_w = header.tile_height, header.tile_width
    rows, columns = -(-header.height // tile_h), -(-header.width // tile_w)
    frame_bytes = 3 * tile_h * tile_w
    places = _places(name, level, rows, columns)
    split = [_split(name, part, source) for part, source in zip(level.parts, sources, strict=True)]
    head_bytes = ITEM_BYTES if any(frames.fragments for frames in split) else 0
    offsets, counts = np.zeros((2, rows * columns), np.int64)
    stored = []
    for frames, source, start in zip(split, sources, starts, strict=True):
        at, length = frames.offsets, frames.counts
        if head_bytes and not frames.fragments:
            at, length = at - ITEM_BYTES, length + ITEM_BYTES
        check_tile_index(name, at.astype(np.uint64), length.astype(np.uint64), frame_bytes, source.size)
        stored.append((at + start, length))
    offsets[places], counts[places] = (np.concatenate(part) for part in zip(*stored, strict=True))
    shape = (1, rows, columns)
    return TileGrid(
        height=header.height,
        width=header.width,
        tile_height=tile_h,
        tile_width=tile_w,
        offsets=offsets.reshape(shape),
        counts=counts.reshape(shape),
        samples=3,
        whole_tiles=True,
        head_bytes=head_bytes,
    )


def _places(name: str, level: Level, rows: int, columns: int) -> Index:
    """Index in the grid of each frame: in order where the matrix is full, else as each frame states."""
    n, header = level.frames, level.header
    tile = (header.tile_height, header.tile_width)
    if header.full:
        if n != rows * columns:
            raise SlideError(
                Reason.FILE_TRUNCATED,
                f"{name}: {n} frames for a grid of {rows} x {columns}; expected {rows * columns}",
            )
        return np.arange(n, dtype=np.int64)
    stated = [part.positions for part in level.parts if part.positions is not None]
    positions = np.concatenate(stated) if stated else np.empty((0, 2), np.int64)
    if len(positions) != n:
        raise SlideError(
            Reason.FILE_UNREADABLE,
            f"{name}: neither declared TILED_FULL nor with a position for each frame: the order of its {n} "
            "frames is unknown. Export the slide again",
        )
    cells = positions // tile
    places: Index = cells[:, 0] * columns + cells[:, 1]
    if (
        (positions % tile).any()
        or (cells < 0).any()
        or (cells >= (rows, columns)).any()
        or np.unique(places).size != n
    ):
        raise SlideError(
            Reason.FILE_UNREADABLE,
            f"{name}: some frames overlap or lie outside the image; expected a regular grid",
        )
    return places


@dataclass(frozen=True, slots=True)
class Frames:
    """Byte offset and length of each frame of a file.

    Attributes
    ----------
    fragments
        Whether some frame lies in several fragments: each is then counted with its item's head before it.
    """

    offsets: Index
    counts: Index
    fragments: bool = False


def _split(name: str, header: DicomHeader, source: LocalBytes) -> Frames:
    """Find the frames of a file."""
    n, frame_bytes = header.frames, 3 * header.tile_height * header.tile_width
    head = source.read(header.pixels_at, 8 if header.syntax == IMPLICIT_LITTLE_ENDIAN else 12)
    if head[:4] != PIXEL_DATA:
        raise SlideError(
            Reason.FILE_TRUNCATED, f"{name}: no pixel data after the DICOM header. Transfer it again"
        )
    start = header.pixels_at + len(head)
    (length,) = struct.unpack("<I", head[-4:])
    if length != UNDEFINED:
        return Frames(start + np.arange(n, dtype=np.int64) * frame_bytes, np.full(n, frame_bytes, np.int64))
    table, fragments = _fragments(name, source, start, n)
    if len(fragments) == n:
        pairs = np.array(fragments, np.int64).reshape(n, 2)
        return Frames(pairs[:, 0], pairs[:, 1])
    firsts = _first_fragments(source, table, fragments, n)
    if firsts is None:
        raise SlideError(
            Reason.FILE_UNREADABLE,
            f"{name}: {n} frames in {len(fragments)} fragments, and nothing states which belong "
            "together. Export the slide again",
        )
    begin = np.array([fragments[i][0] - ITEM_BYTES for i in firsts], np.int64)
    ends = np.array([sum(fragments[i - 1]) for i in [*firsts[1:], len(fragments)]], np.int64)
    return Frames(begin, ends - begin, fragments=True)


def _first_fragments(
    source: LocalBytes, table: bytes, fragments: Sequence[tuple[int, int]], n: int
) -> list[int] | None:
    """Index of each frame's first fragment: by the offset table, else by how streams begin."""
    if len(table) == 4 * n and fragments:
        index = {at - fragments[0][0]: i for i, (at, _) in enumerate(fragments)}
        stated = [index.get(offset, -1) for offset in struct.unpack(f"<{n}I", table)]
        if stated[0] == 0 and all(a < b for a, b in pairwise(stated)):
            return stated
    begun = [
        i
        for i, (at, length) in enumerate(fragments)
        if source.read(at, min(4, length)).startswith(STREAM_STARTS)
    ]
    return begun if len(begun) == n and begun[0] == 0 else None


def _fragments(name: str, source: LocalBytes, at: int, n: int) -> tuple[bytes, list[tuple[int, int]]]:
    """The offset table, which comes first, and place and length of every fragment."""
    found: list[tuple[int, int]] = []
    while len(found) <= 1 + n * MAX_FRAGMENTS:
        tag = source.read(at, ITEM_BYTES)
        if tag[:4] == SEQUENCE_END:
            break
        (length,) = struct.unpack("<I", tag[4:])
        if tag[:4] != ITEM or length == UNDEFINED:
            raise SlideError(Reason.FILE_UNREADABLE, f"{name}: frame {len(found)} is damaged at byte {at}")
        found.append((at + ITEM_BYTES, length))
        at += ITEM_BYTES + length
    table = source.read(*found[0]) if found and found[0][1] == 4 * n else b""
    return table, found[1:]
