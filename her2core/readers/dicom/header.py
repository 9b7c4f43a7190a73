"""The few header fields of a DICOM whole-slide file that reading pixels needs, parsed into a record.

Only the tags listed here are looked at: nothing about the patient is ever read.

References
----------
DICOM PS3.3, A.32.8 VL Whole Slide Microscopy Image.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
import pydicom
from pydicom.config import disable_value_validation
from pydicom.errors import BytesLengthException, InvalidDicomError

from her2core.errors import Reason, SlideError
from her2core.readers.marks import is_dicom
from her2core.readers.scale import MAX_ANISOTROPY, Scale

WSI_CLASS = "1.2.840.10008.5.1.4.1.1.77.1.6"
TAGS = [
    "SOPClassUID", "ImageType", "SeriesInstanceUID", "SamplesPerPixel", "PhotometricInterpretation",
    "PlanarConfiguration", "NumberOfFrames", "Rows", "Columns", "BitsAllocated", "TotalPixelMatrixColumns",
    "TotalPixelMatrixRows", "TotalPixelMatrixFocalPlanes", "NumberOfOpticalPaths",
    "DimensionOrganizationType", "ConcatenationUID", "InConcatenationTotalNumber",
    "ConcatenationFrameOffsetNumber", "OpticalPathSequence", "SharedFunctionalGroupsSequence",
    "PerFrameFunctionalGroupsSequence", "PixelSpacing", "ImagedVolumeWidth", "ImagedVolumeHeight",
]  # fmt: skip
DAMAGED = (
    InvalidDicomError, BytesLengthException, AttributeError, ValueError, TypeError, KeyError, IndexError,
    OverflowError, EOFError, NotImplementedError, RecursionError, struct.error,
)  # fmt: skip
"""What pydicom raises, at opening or at a value's first use, for a header that is not what it should be."""


@dataclass(frozen=True, slots=True)
class DicomHeader:
    """One file of a series: a level, or a picture of the label or the glass.

    Attributes
    ----------
    kind
        Third value of ImageType: VOLUME, LABEL, OVERVIEW or THUMBNAIL; None where the file does not state it.
    positions
        Row and column (from 0, px) of each frame in the whole image, shape ``(frame, 2)``; None where the
        frames fill the grid in order (TILED_FULL) or where their order is not stated.
    pixels_at
        Byte at which the pixel data element begins.
    part_of
        Identifier of the concatenation of which the file is a part; None where it holds its level alone.
    parts
        How many files that has, 0 where the file does not state it.
    first_frame
        Index in it of the file's first frame.
    """

    path: Path
    syntax: str
    pixels_at: int
    kind: str | None
    series: str
    height: int
    width: int
    tile_height: int
    tile_width: int
    frames: int
    samples: int
    bits: int
    photometric: str
    planar: bool
    full: bool
    positions: npt.NDArray[np.int64] | None
    focal_planes: int
    optical_paths: int
    part_of: str | None
    parts: int
    first_frame: int
    scale: Scale | None
    objective_power: float | None
    icc_profile: bytes

    @property
    def form(self) -> tuple[object, ...]:
        """What files must have alike to be parts of one level."""
        size = (self.height, self.width, self.tile_height, self.tile_width)
        return (*size, self.syntax, self.samples, self.bits, self.photometric, self.planar, self.full)

    @property
    def is_level(self) -> bool:
        """Whether the file holds slide pixels."""
        return self.kind in (None, "VOLUME") and min(self.height, self.width) > 0


def read_headers(files: list[Path], name: str) -> Iterator[DicomHeader]:
    """Headers of the whole-slide images among ``files``; other files are passed over.

    Raises
    ------
    SlideError
        ``FILE_UNREADABLE`` for a DICOM header that cannot be parsed.
    """
    for path in files:
        with path.open("rb") as file:
            if not is_dicom(file.read(132)):
                continue
            file.seek(0)
            try:
                with disable_value_validation():  # scanners exceed field lengths
                    header = _parse(path, file)
            except DAMAGED as error:
                raise _damaged(name, error) from error
            except OSError as error:
                if error.errno is not None:
                    raise  # the disk's, not pydicom's
                raise _damaged(name, error) from error
        if header is not None:
            yield header


def _damaged(name: str, error: Exception) -> SlideError:
    return SlideError(
        Reason.FILE_UNREADABLE,
        f"{name}: its DICOM header cannot be read ({type(error).__name__}). Transfer or export the slide "
        "again",
    )


def _parse(path: Path, file: BinaryIO) -> DicomHeader | None:
    dataset = pydicom.dcmread(file, stop_before_pixels=True, specific_tags=list(TAGS))
    pixels_at = file.tell()
    if dataset.get("SOPClassUID") != WSI_CLASS:
        return None
    kinds = [str(value) for value in dataset.get("ImageType") or ()]

    def number(tag: str, default: int = 0) -> int:
        return int(dataset.get(tag) or default)

    full = dataset.get("DimensionOrganizationType") == "TILED_FULL"
    return DicomHeader(
        path=path,
        syntax=str(dataset.file_meta.TransferSyntaxUID),
        pixels_at=pixels_at,
        kind=kinds[2] if len(kinds) > 2 else None,
        series=str(dataset.get("SeriesInstanceUID")),
        height=number("TotalPixelMatrixRows"),
        width=number("TotalPixelMatrixColumns"),
        tile_height=number("Rows"),
        tile_width=number("Columns"),
        frames=number("NumberOfFrames", 1),
        samples=number("SamplesPerPixel"),
        bits=number("BitsAllocated"),
        photometric=str(dataset.get("PhotometricInterpretation")),
        planar=bool(dataset.get("PlanarConfiguration")),
        full=full,
        positions=None if full else _positions(dataset),
        focal_planes=number("TotalPixelMatrixFocalPlanes", 1),
        optical_paths=number("NumberOfOpticalPaths", 1),
        part_of=str(dataset.get("ConcatenationUID") or "") or None,
        parts=number("InConcatenationTotalNumber"),
        first_frame=number("ConcatenationFrameOffsetNumber"),
        scale=_scale(dataset),
        objective_power=_objective_power(dataset),
        icc_profile=_icc_profile(dataset),
    )


def _positions(dataset: pydicom.Dataset) -> npt.NDArray[np.int64] | None:
    """Place of each frame, or None where any has none; a single frame's may stand among what frames share."""
    frames = dataset.get("PerFrameFunctionalGroupsSequence") or ()
    shared = dataset.get("SharedFunctionalGroupsSequence") or ()
    if int(dataset.get("NumberOfFrames") or 1) == 1 and not any(map(_place, frames)):
        frames = shared
    found = [place for place in map(_place, frames) if place is not None]
    return np.array(found, np.int64) if found and len(found) == len(frames) else None


def _place(groups: Any) -> list[int] | None:
    """Row and column, from 0, of a frame's first pixel."""
    position = (groups.get("PlanePositionSlideSequence") or [{}])[0]
    place = [position.get(f"{axis}PositionInTotalImagePixelMatrix") for axis in ("Row", "Column")]
    return None if None in place else [int(place[0]) - 1, int(place[1]) - 1]


def _scale(dataset: pydicom.Dataset) -> Scale | None:
    """Pixel spacing, mm, the rows' first (PS3.3, 10.7.1.1).

    It is what frames share, or what every frame states, or else the size of the imaged area by its pixels.
    """
    shared = _spacings(dataset.get("SharedFunctionalGroupsSequence") or ())
    spacings = shared or _spacings(dataset.get("PerFrameFunctionalGroupsSequence") or ())
    if not spacings and dataset.get("PixelSpacing") is not None:
        spacings = [_pair(dataset.PixelSpacing)]
    if spacings:
        if any(spacing != spacings[0] for spacing in spacings):
            return None
        y_mm, x_mm = spacings[0]
        return Scale("dicom", y_mm * 1e3, x_mm * 1e3)
    lengths = [dataset.get(f"ImagedVolume{edge}") for edge in ("Height", "Width")]
    pixels = [dataset.get(f"TotalPixelMatrix{edge}") for edge in ("Rows", "Columns")]
    if None in lengths or None in pixels or 0 in pixels:
        return None
    y_um, x_um = (float(f"{1e3 * mm / n:.6g}") for mm, n in zip(lengths, pixels, strict=True))  # of 32 bits
    square = abs(y_um - x_um) <= MAX_ANISOTROPY * min(y_um, x_um)  # else the area is not that of the pixels
    return Scale("dicom", y_um, x_um) if square else None


def _spacings(groups: Any) -> list[tuple[float, float]]:
    measures = (one for group in groups for one in group.get("PixelMeasuresSequence") or ())
    return [_pair(one.PixelSpacing) for one in measures if one.get("PixelSpacing") is not None]


def _pair(spacing: Any) -> tuple[float, float]:
    y_mm, x_mm = spacing
    return float(y_mm), float(x_mm)


def _objective_power(dataset: pydicom.Dataset) -> float | None:
    for path in dataset.get("OpticalPathSequence") or ():
        power = path.get("ObjectiveLensPower")
        if power is not None:
            return float(power)
    return None


def _icc_profile(dataset: pydicom.Dataset) -> bytes:
    for path in dataset.get("OpticalPathSequence") or ():
        profile = path.get("ICCProfile")
        if isinstance(profile, bytes):
            return profile
    return b""
