"""DICOM whole-slide images by their native frames: one file, or a folder with the files of one series.

Only the tags listed here are parsed; nothing about the patient is ever read.

References
----------
DICOM PS3.3, A.32.8 VL Whole Slide Microscopy Image; PS3.5, A.4 encapsulated pixel data.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pydicom
from pydicom.config import disable_value_validation
from pydicom.errors import InvalidDicomError

from her2core.errors import Reason, SlideError
from her2core.readers.base import Asked, choose_scene
from her2core.readers.bytesource import LocalBytes
from her2core.readers.limits import MAX_TILE_PX, MAX_TILES, check_size, check_tile_index
from her2core.readers.scale import Scale, resolve_scale
from her2core.readers.tilecodecs import (
    RGB,
    YCBCR,
    Tile,
    TileDecoder,
    imagecodecs,
    jpeg2000_decoder,
    jpeg_decoder,
    raw_decoder,
)
from her2core.readers.tiled import TiledReader, TileGrid
from her2core.records import LevelInfo, SlideInfo

WSI_CLASS = "1.2.840.10008.5.1.4.1.1.77.1.6"
JPEG_BASELINE = "1.2.840.10008.1.2.4.50"
JPEG_2000 = ("1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.4.91")
HTJ2K = ("1.2.840.10008.1.2.4.201", "1.2.840.10008.1.2.4.202", "1.2.840.10008.1.2.4.203")
UNCOMPRESSED = ("1.2.840.10008.1.2", "1.2.840.10008.1.2.1")
SPECIFIC_TAGS = [
    "SOPClassUID", "ImageType", "SeriesInstanceUID", "SamplesPerPixel", "PhotometricInterpretation",
    "PlanarConfiguration", "NumberOfFrames", "Rows", "Columns", "BitsAllocated", "TotalPixelMatrixColumns",
    "TotalPixelMatrixRows", "TotalPixelMatrixFocalPlanes", "NumberOfOpticalPaths",
    "DimensionOrganizationType", "ConcatenationUID", "OpticalPathSequence", "SharedFunctionalGroupsSequence",
    "PerFrameFunctionalGroupsSequence",
]  # fmt: skip
MAX_FILES = 10_000
"""Most files of a DICOM folder."""
UNDEFINED = 0xFFFFFFFF
ITEM, SEQUENCE_END = b"\xfe\xff\x00\xe0", b"\xfe\xff\xdd\xe0"


def is_dicom(head: bytes) -> bool:
    """Whether a file that begins with ``head`` is DICOM (PS3.10, 7.1)."""
    return head[128:132] == b"DICM"


@dataclass(frozen=True, slots=True)
class _Instance:
    """One file of a series: a level, or a picture of the label or the glass."""

    path: Path
    header: pydicom.Dataset
    syntax: str
    pixels_at: int

    @property
    def kind(self) -> str:
        values = list(self.header.get("ImageType") or ())
        return str(values[2]) if len(values) > 2 else "VOLUME"

    @property
    def size(self) -> tuple[int, int]:
        h = self.header
        return int(h.get("TotalPixelMatrixRows") or 0), int(h.get("TotalPixelMatrixColumns") or 0)


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
    levels = [i for i in _instances(files, asked.name) if i.kind == "VOLUME" and min(i.size) > 0]
    if not levels:
        raise SlideError(Reason.NOT_A_SLIDE, f"{asked.name}: no DICOM whole-slide image (VOLUME) in it")
    series = sorted({str(i.header.get("SeriesInstanceUID")) for i in levels})
    names = tuple(str(i) for i in range(len(series)))
    wanted = series[choose_scene(asked.name, names, asked.scene)]
    levels = sorted(
        (i for i in levels if str(i.header.get("SeriesInstanceUID")) == wanted),
        key=lambda i: i.size,
        reverse=True,
    )
    first = levels[0]
    if len(levels) > 1 and levels[1].size == first.size:
        raise SlideError(
            Reason.FILE_UNREADABLE,
            f"{asked.name}: several files hold the finest level (focal planes or a concatenation); expected "
            "one",
        )
    return _reader(asked, first, levels, names, names[series.index(wanted)])


def _reader(
    asked: Asked, first: _Instance, levels: list[_Instance], names: tuple[str, ...], scene: str
) -> TiledReader:
    header = first.header
    height, width = first.size
    scale = resolve_scale(asked.name, asked.mpp, _scales(header))
    objective = _objective_power(header)
    source = LocalBytes(first.path, asked.name)
    try:
        check_size(asked.name, height, width, source.size)
        decode, compression = _decoder(asked.name, header, first.syntax)
        grid = _grid(asked.name, first, source)
    except SlideError:
        source.close()
        raise
    odd = () if header.get("ImageType") else ("the DICOM header has no ImageType: taken for slide pixels",)
    info = SlideInfo(
        uri=asked.name,
        identity=asked.identity,
        size_bytes=asked.size_bytes,
        format="dicom",
        reader="dicom",
        levels=tuple(LevelInfo(*i.size, width / i.size[1]) for i in levels),
        tile_height=grid.tile_height,
        tile_width=grid.tile_width,
        compression=compression,
        mpp=scale.mpp,
        mpp_source=scale.source,
        scenes=names,
        scene=scene if len(names) > 1 or asked.scene else None,
        objective_power=objective,
        assay_guess=None,
        problems=(*scale.problems, *odd),
    )
    return TiledReader(info, source, grid, decode)


def _instances(files: list[Path], name: str) -> Iterable[_Instance]:
    for path in files:
        with path.open("rb") as file:
            if not is_dicom(file.read(132)):
                continue
            file.seek(0)
            try:
                with disable_value_validation():
                    header = pydicom.dcmread(file, stop_before_pixels=True, specific_tags=list(SPECIFIC_TAGS))
                    pixels_at = file.tell()
                    for _ in (
                        header.iterall()
                    ):  # values are parsed at first sight: here, where oddities are let pass
                        pass
                    syntax = str(header.file_meta.TransferSyntaxUID)
                    kind = str(header.get("SOPClassUID"))
            except (
                InvalidDicomError,
                AttributeError,
                ValueError,
                KeyError,
                EOFError,
                NotImplementedError,
            ) as error:
                raise SlideError(
                    Reason.FILE_UNREADABLE,
                    f"{name}: its DICOM header cannot be read ({type(error).__name__})",
                ) from error
            if kind == WSI_CLASS:
                yield _Instance(path, header, syntax, pixels_at)


def _scales(header: pydicom.Dataset) -> list[Scale]:
    """Pixel spacing of the shared functional groups; DICOM gives mm, row spacing first (PS3.3, 10.7.1.1)."""
    for shared in header.get("SharedFunctionalGroupsSequence") or ():
        for measures in shared.get("PixelMeasuresSequence") or ():
            spacing = measures.get("PixelSpacing")
            if spacing is not None and len(spacing) == 2:
                return [Scale("dicom", float(spacing[0]) * 1e3, float(spacing[1]) * 1e3)]
    return []


def _objective_power(header: pydicom.Dataset) -> float | None:
    for path in header.get("OpticalPathSequence") or ():
        power = path.get("ObjectiveLensPower")
        if power is not None:
            return float(power)
    return None


def _decoder(name: str, header: pydicom.Dataset, syntax: str) -> tuple[TileDecoder, str]:
    """Frame decoder, after refusing what is not 8-bit RGB."""
    photometric = str(header.get("PhotometricInterpretation"))
    samples, bits = int(header.get("SamplesPerPixel") or 0), int(header.get("BitsAllocated") or 0)
    if samples != 3 or bits != 8:
        raise SlideError(
            Reason.FILE_UNREADABLE, f"{name}: {samples} samples with {bits} bits a pixel; expected 8-bit RGB"
        )
    if syntax == JPEG_BASELINE:
        return jpeg_decoder(RGB if photometric == "RGB" else YCBCR), "jpeg"
    if syntax in JPEG_2000 and photometric in ("RGB", "YBR_RCT", "YBR_ICT"):
        return jpeg2000_decoder(), "jpeg2000"
    if syntax in HTJ2K and photometric in ("RGB", "YBR_RCT", "YBR_ICT"):
        return _htj2k, "htj2k"
    if syntax in UNCOMPRESSED and photometric == "RGB" and not header.get("PlanarConfiguration"):
        return raw_decoder("none"), "none"
    raise SlideError(
        Reason.FILE_UNREADABLE,
        f"{name}: transfer syntax {syntax} with {photometric} is not supported; expected JPEG baseline, JPEG "
        "2000 or "
        "uncompressed RGB. Convert it with wsidicomizer or export it as OME-TIFF",
    )


def _htj2k(data: memoryview, out: Tile) -> None:
    imagecodecs.htj2k_decode(data, out=out)


# frames


def _grid(name: str, instance: _Instance, source: LocalBytes) -> TileGrid:
    header = instance.header
    height, width = instance.size
    tile_h, tile_w = int(header.get("Rows") or 0), int(header.get("Columns") or 0)
    if not (tile_h > 0 and tile_w > 0 and tile_h * tile_w <= MAX_TILE_PX):
        raise SlideError(
            Reason.FILE_HOSTILE, f"{name}: frames of {tile_w} x {tile_h} px; accepted are {MAX_TILE_PX} px"
        )
    rows, columns = -(-height // tile_h), -(-width // tile_w)
    n = int(header.get("NumberOfFrames") or 1)
    if n > MAX_TILES or rows * columns > MAX_TILES:
        raise SlideError(
            Reason.FILE_HOSTILE, f"{name}: declares {max(n, rows * columns)} frames; accepted {MAX_TILES}"
        )
    for what in ("TotalPixelMatrixFocalPlanes", "NumberOfOpticalPaths"):
        if int(header.get(what) or 1) > 1:
            raise SlideError(Reason.FILE_UNREADABLE, f"{name}: {what} is {header.get(what)}; expected 1")
    if header.get("ConcatenationUID"):
        raise SlideError(
            Reason.FILE_UNREADABLE, f"{name}: one part of a concatenation; join its parts to one file"
        )
    places = _places(name, header, n, rows, columns, tile_h, tile_w)
    frame_bytes = 3 * tile_h * tile_w
    offsets, counts = _frames(name, instance, source, n, frame_bytes)
    placed = np.zeros((2, rows, columns), np.int64)
    placed[0].flat[places] = offsets
    placed[1].flat[places] = counts
    check_tile_index(
        name,
        placed[0].ravel().astype(np.uint64),
        placed[1].ravel().astype(np.uint64),
        frame_bytes,
        source.size,
    )
    return TileGrid(height, width, tile_h, tile_w, placed[0][None], placed[1][None], 3, True)


def _places(
    name: str, header: pydicom.Dataset, n: int, rows: int, columns: int, tile_h: int, tile_w: int
) -> npt.NDArray[np.int64]:
    """Index of each frame in the grid: in order where the matrix is full, else as each frame says."""
    per_frame: Any = header.get("PerFrameFunctionalGroupsSequence")
    if header.get("DimensionOrganizationType") != "TILED_FULL" and per_frame and len(per_frame) == n:
        found = np.empty((n, 2), np.int64)
        for i, frame in enumerate(per_frame):
            position = (frame.get("PlanePositionSlideSequence") or [{}])[0]
            found[i] = [
                int(position.get(f"{axis}PositionInTotalImagePixelMatrix") or 0) - 1
                for axis in ("Row", "Column")
            ]
        tiles = found // (tile_h, tile_w)
        if (found % (tile_h, tile_w)).any() or (tiles < 0).any() or (tiles >= (rows, columns)).any():
            raise SlideError(
                Reason.FILE_UNREADABLE,
                f"{name}: some frames overlap or lie outside the image; expected a regular grid",
            )
        return tiles[:, 0] * columns + tiles[:, 1]
    if header.get("DimensionOrganizationType") != "TILED_FULL":
        raise SlideError(
            Reason.FILE_UNREADABLE,
            f"{name}: neither declared TILED_FULL nor with a position for each frame: the order of its {n} "
            "frames is "
            "unknown. Export the slide again",
        )
    if n != rows * columns:
        raise SlideError(
            Reason.FILE_TRUNCATED,
            f"{name}: {n} frames for a grid of {rows} x {columns}; expected {rows * columns}",
        )
    return np.arange(n, dtype=np.int64)


def _frames(
    name: str, instance: _Instance, source: LocalBytes, n: int, frame_bytes: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Byte offset and length of each frame."""
    explicit = instance.syntax != UNCOMPRESSED[0]
    head = source.read(instance.pixels_at, 12 if explicit else 8)
    if head[:4] != b"\xe0\x7f\x10\x00":
        raise SlideError(
            Reason.FILE_TRUNCATED, f"{name}: no pixel data after the DICOM header. Transfer it again"
        )
    start = instance.pixels_at + len(head)
    (length,) = struct.unpack("<I", head[-4:])
    if length != UNDEFINED:
        offsets = start + np.arange(n, dtype=np.int64) * frame_bytes
        return offsets, np.full(n, frame_bytes, np.int64)
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
