"""DICOM whole-slide images by their native frames: one file, or a folder with the files of one series.

References
----------
DICOM PS3.3, A.32.8 VL Whole Slide Microscopy Image; PS3.5, A.4 encapsulated pixel data.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from her2core.errors import Reason, SlideError
from her2core.readers.base import Asked, choose_scene, focal_planes
from her2core.readers.bytesource import LocalBytes
from her2core.readers.dicomheader import DicomHeader, read_headers
from her2core.readers.limits import MAX_TILE_PX, MAX_TILES, check_size, check_tile_index
from her2core.readers.scale import resolve_scale
from her2core.readers.tilecodecs import (
    RGB,
    YCBCR,
    TileDecoder,
    htj2k_decoder,
    jpeg2000_decoder,
    jpeg_decoder,
    raw_decoder,
)
from her2core.readers.tiled import TiledReader, TileGrid
from her2core.records import LevelInfo, SlideInfo

JPEG_BASELINE = "1.2.840.10008.1.2.4.50"
JPEG_2000 = ("1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.4.91")
HTJ2K = ("1.2.840.10008.1.2.4.201", "1.2.840.10008.1.2.4.202", "1.2.840.10008.1.2.4.203")
IMPLICIT_LITTLE_ENDIAN = "1.2.840.10008.1.2"
UNCOMPRESSED = (IMPLICIT_LITTLE_ENDIAN, "1.2.840.10008.1.2.1")
MAX_FILES = 10_000
"""Most files of a DICOM folder."""
UNDEFINED = 0xFFFFFFFF
PIXEL_DATA, ITEM, SEQUENCE_END = b"\xe0\x7f\x10\x00", b"\xfe\xff\x00\xe0", b"\xfe\xff\xdd\xe0"

Index = npt.NDArray[np.int64]


def open_dicom(path: str | os.PathLike[str], asked: Asked) -> TiledReader:
    """Reader of a DICOM file, or of a folder that holds one series.

    Raises
    ------
    SlideError
        ``NOT_A_SLIDE`` for other DICOM objects, ``FILE_UNREADABLE`` for all but one plane of 8-bit RGB.
    """
    files = sorted(p for p in Path(path).iterdir() if p.is_file()) if Path(path).is_dir() else [Path(path)]
    if len(files) > MAX_FILES:
        raise SlideError(
            Reason.FILE_HOSTILE, f"{asked.name}: {len(files)} files in the folder; accepted are {MAX_FILES}"
        )
    found = [header for header in read_headers(files, asked.name) if header.is_level]
    if not found:
        raise SlideError(Reason.NOT_A_SLIDE, f"{asked.name}: no DICOM whole-slide image (VOLUME) in it")
    series = sorted({header.series for header in found})
    sizes = {
        str(i): max((h.height, h.width) for h in found if h.series == one) for i, one in enumerate(series)
    }
    chosen, names = choose_scene(asked.name, sizes, asked.scene), tuple(sizes)
    levels = [header for header in found if header.series == series[chosen]]
    levels.sort(key=lambda header: (header.height, header.width), reverse=True)
    first = levels[0]
    if len(levels) > 1 and (levels[1].height, levels[1].width) == (first.height, first.width):
        raise SlideError(
            Reason.FILE_UNREADABLE,
            f"{asked.name}: several files hold the finest level (focal planes or a concatenation); expected "
            "one",
        )
    return _reader(asked, levels, names, names[chosen])


def _reader(asked: Asked, levels: Sequence[DicomHeader], names: tuple[str, ...], scene: str) -> TiledReader:
    first = levels[0]
    scale = resolve_scale(asked.name, asked.mpp, [first.scale] if first.scale else [], asked.assay)
    source = LocalBytes(first.path, asked.name)
    try:
        check_size(asked.name, first.height, first.width)
        compression, decode = _decoder(asked.name, first)
        grid = _grid(asked.name, first, source)
    except SlideError:
        source.close()
        raise
    odd = () if first.kind else ("the DICOM header has no ImageType: taken for slide pixels",)
    info = SlideInfo(
        uri=asked.name,
        identity=asked.identity,
        size_bytes=asked.size_bytes,
        format="dicom",
        reader="dicom",
        levels=tuple(LevelInfo(v.height, v.width, first.width / v.width) for v in levels),
        tile_height=grid.tile_height,
        tile_width=grid.tile_width,
        compression=compression,
        mpp=scale.mpp,
        mpp_source=scale.source,
        scenes=names,
        scene=scene if len(names) > 1 or asked.scene else None,
        objective_power=first.objective_power,
        problems=(*scale.problems, *odd),
    )
    return TiledReader(info, source, grid, decode, asked.outside)


def _decoder(name: str, header: DicomHeader) -> tuple[str, TileDecoder]:
    """Name of the compression and frame decoder, after refusing what is not 8-bit RGB."""
    if header.samples != 3 or header.bits != 8:
        raise SlideError(
            Reason.FILE_UNREADABLE,
            f"{name}: {header.samples} samples with {header.bits} bits a pixel; expected 8-bit RGB",
        )
    wavelet = header.photometric in ("RGB", "YBR_RCT", "YBR_ICT")
    if header.syntax == JPEG_BASELINE:
        return "jpeg", jpeg_decoder(RGB if header.photometric == "RGB" else YCBCR)
    if header.syntax in JPEG_2000 and wavelet:
        return "jpeg2000", jpeg2000_decoder()
    if header.syntax in HTJ2K and wavelet:
        return "htj2k", htj2k_decoder()
    if header.syntax in UNCOMPRESSED and header.photometric == "RGB" and not header.planar:
        return "none", raw_decoder("none")
    raise SlideError(
        Reason.FILE_UNREADABLE,
        f"{name}: transfer syntax {header.syntax} with {header.photometric} is not supported; expected JPEG "
        "baseline, JPEG 2000 or uncompressed RGB. Convert it with wsidicomizer or export it as OME-TIFF",
    )


def _grid(name: str, header: DicomHeader, source: LocalBytes) -> TileGrid:
    tile_h, tile_w, n = header.tile_height, header.tile_width, header.frames
    if not (tile_h > 0 and tile_w > 0 and tile_h * tile_w <= MAX_TILE_PX):
        raise SlideError(
            Reason.FILE_HOSTILE, f"{name}: frames of {tile_w} x {tile_h} px; accepted are {MAX_TILE_PX} px"
        )
    rows, columns = -(-header.height // tile_h), -(-header.width // tile_w)
    if not 0 < n <= MAX_TILES or rows * columns > MAX_TILES:
        raise SlideError(
            Reason.FILE_HOSTILE,
            f"{name}: declares {n} frames on a grid of {rows * columns}; accepted {MAX_TILES}",
        )
    if header.focal_planes > 1:
        raise focal_planes(name, header.focal_planes)
    if header.optical_paths > 1:
        raise SlideError(
            Reason.FILE_UNREADABLE, f"{name}: {header.optical_paths} optical paths; expected 1. Export one"
        )
    if header.concatenated:
        raise SlideError(
            Reason.FILE_UNREADABLE, f"{name}: one part of a concatenation; join its parts to one file"
        )
    places = _places(name, header, rows, columns)
    frame_bytes = 3 * tile_h * tile_w
    offsets, counts = np.zeros((2, rows * columns), np.int64)
    offsets[places], counts[places] = _frames(name, header, source, frame_bytes)
    check_tile_index(name, offsets.astype(np.uint64), counts.astype(np.uint64), frame_bytes, source.size)
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
    )


def _places(name: str, header: DicomHeader, rows: int, columns: int) -> Index:
    """Index in the grid of each frame: in order where the matrix is full, else as each frame says."""
    n, tile = header.frames, (header.tile_height, header.tile_width)
    if header.full:
        if n != rows * columns:
            raise SlideError(
                Reason.FILE_TRUNCATED,
                f"{name}: {n} frames for a grid of {rows} x {columns}; expected {rows * columns}",
            )
        return np.arange(n, dtype=np.int64)
    if header.positions is None or len(header.positions) != n:
        raise SlideError(
            Reason.FILE_UNREADABLE,
            f"{name}: neither declared TILED_FULL nor with a position for each frame: the order of its {n} "
            "frames is unknown. Export the slide again",
        )
    cells = header.positions // tile
    places: Index = cells[:, 0] * columns + cells[:, 1]
    if (
        (header.positions % tile).any()
        or (cells < 0).any()
        or (cells >= (rows, columns)).any()
        or np.unique(places).size != n
    ):
        raise SlideError(
            Reason.FILE_UNREADABLE,
            f"{name}: some frames overlap or lie outside the image; expected a regular grid",
        )
    return places


def _frames(name: str, header: DicomHeader, source: LocalBytes, frame_bytes: int) -> tuple[Index, Index]:
    """Byte offset and length of each frame."""
    n = header.frames
    head = source.read(header.pixels_at, 8 if header.syntax == IMPLICIT_LITTLE_ENDIAN else 12)
    if head[:4] != PIXEL_DATA:
        raise SlideError(
            Reason.FILE_TRUNCATED, f"{name}: no pixel data after the DICOM header. Transfer it again"
        )
    start = header.pixels_at + len(head)
    (length,) = struct.unpack("<I", head[-4:])
    if length != UNDEFINED:
        return start + np.arange(n, dtype=np.int64) * frame_bytes, np.full(n, frame_bytes, np.int64)
    fragments = _fragments(name, source, start, n)
    if len(fragments) != n:
        raise SlideError(
            Reason.FILE_UNREADABLE,
            f"{name}: {n} frames in {len(fragments)} fragments; expected one fragment a frame",
        )
    pairs = np.array(fragments, np.int64).reshape(n, 2)
    return pairs[:, 0], pairs[:, 1]


def _fragments(name: str, source: LocalBytes, at: int, n: int) -> list[tuple[int, int]]:
    """Place and length of every fragment, without the offset table that comes first."""
    found: list[tuple[int, int]] = []
    while len(found) <= n + 1:
        tag = source.read(at, 8)
        if tag[:4] == SEQUENCE_END:
            break
        (length,) = struct.unpack("<I", tag[4:])
        if tag[:4] != ITEM or length == UNDEFINED:
            raise SlideError(Reason.FILE_UNREADABLE, f"{name}: frame {len(found)} is damaged at byte {at}")
        found.append((at + 8, length))
        at += 8 + length
    return found[1:]
