"""Which reader suits a slide, by its first bytes."""

from __future__ import annotations

import math
import os
from collections import Counter
from enum import Enum, auto
from pathlib import Path, PurePath

from her2core.encoding import decode_text
from her2core.errors import Reason, SlideError
from her2core.readers.base import OpenRequest, SlideReader
from her2core.readers.bytesource import ByteSource
from her2core.readers.image import is_plain_image, open_image
from her2core.readers.limits import MAX_TEXT_BYTES
from her2core.readers.locate import Location, locate
from her2core.readers.marks import MARKERS, SERIES_NAMES, is_dicom
from her2core.readers.mirax import HEADER as MIRAX_HEADER
from her2core.readers.mirax import check_parts, is_mirax
from her2core.readers.openslide import detect_vendor, open_openslide
from her2core.readers.pseudocolour import as_requested
from her2core.readers.tiff.ifd import is_tiff
from her2core.readers.tiff.reader import NeedsOpenSlideError, open_tiff
from her2core.records import Assay
from her2core.storage.sources import file_identity
from her2core.storage.store import Store

HEAD_BYTES = 4096
OPENSLIDE_SUFFIXES = (".ndpi", ".mrxs", ".scn", ".bif", ".vms", ".vmu", ".svslide", ".zvi", ".czi")
"""Suffixes of formats that are left to OpenSlide even where they begin like a TIFF or a picture."""
PICTURE_SUFFIXES = ("", ".jpg", ".jpeg", ".jpe", ".jfif", ".png")
"""Suffixes under which a JPEG or PNG is read. Under another it is the preview of a slide, or renamed."""
OVERVIEW_SUFFIX = ".vsi"
"""Olympus: a TIFF that holds an overview only."""
RANDOM_BITS = 7.9
"""Shannon entropy of a header, bits a byte, above which it is encrypted (4 KiB of noise have 7.95)."""
ENCRYPTED_MAGICS = (b"Salted__", b"age-encryption.org", b"-----BEGIN PGP MESSAGE")


class _Kind(Enum):
    """Which reader a file is for."""

    DICOM = auto()
    OPENSLIDE = auto()
    TIFF = auto()
    IMAGE = auto()


def open_slide(
    source: str | os.PathLike[str],
    *,
    scene: str | None = None,
    mpp: float | None = None,
    uri: str | None = None,
    identity: str | None = None,
    assay: Assay | None = None,
    channels: str | None = None,
    endpoint_url: str | None = None,
) -> SlideReader:
    """Open a slide for reading.

    Parameters
    ----------
    source
        Local path, or ``file://`` or ``s3://`` URI. A remote slide that ``needs_local_copy`` is refused.
    scene
        Which of several images in the file to read.
    mpp
        µm per pixel from the manifest; it goes before the file's metadata.
    uri
        Name for records and messages where ``source`` is a local copy of it.
    identity
        Identity found earlier. Without it the whole local file is hashed, so give it where a slide is opened
        again.
    assay
        The manifest's. ``HER2-FISH`` makes the file fluorescence, read by its channels; anything else RGB.
    channels
        Which of the file's channels is which, ``DAPI=2;HER2=0;CEP17=1``, where its own names do not show it.
    endpoint_url
        S3 endpoint; by default from the environment.

    Raises
    ------
    SlideError
        With the reason, for everything that is not a readable slide. A missing scale is no error here: it is
        in ``info.problems``, and ``inspect.require_scorable`` refuses it.
    """
    place = locate(source, uri, endpoint_url)
    folder = place.is_directory
    if folder and not _is_omezarr(place):
        _check_dicom_folder(place)
    content = None if folder else place.open_bytes()
    try:
        if content is not None:
            _check_known(place, _head(content))  # before a large file that is no slide is hashed
        if identity is None:
            identity = file_identity(os.fspath(source), endpoint_url)[1]
        size = _size_of(identity) or (0 if content is None else content.size)
        request = OpenRequest(place.name, identity, size, scene, mpp, assay, channels)
        if content is None:
            return as_requested(_open_directory(place, request, endpoint_url), request)
        return as_requested(_open_file(place, content, request), request)
    except BaseException:
        if content is not None:
            content.close()
        raise


def needs_local_copy(uri: str, *, endpoint_url: str | None = None) -> bool:
    """Whether a remote slide can only be read from a local copy; always False for a local one."""
    place = locate(uri, None, endpoint_url)
    if place.fs is None:
        return False
    if place.is_directory:
        return not _is_omezarr(place)
    source = place.open_bytes()
    kind = _kind(place, _head(source))
    if kind is not _Kind.TIFF:
        return kind in (_Kind.DICOM, _Kind.OPENSLIDE)
    try:
        open_tiff(source, OpenRequest(place.name, "", source.size, mpp=1.0)).close()
    except NeedsOpenSlideError:
        return True
    except SlideError:
        return False  # reading it by ranges raises the same error, in the place where it becomes a row
    return False


def _open_directory(place: Location, request: OpenRequest, endpoint_url: str | None) -> SlideReader:
    if not _is_omezarr(place):
        return _open_dicom(place, request)
    from her2core.readers.omezarr import open_omezarr  # slow to import, as DICOM's: most slides are neither

    remote = place.fs is not None
    store = Store(f"s3://{place.path}", endpoint_url=endpoint_url).zarr_store() if remote else place.path
    return open_omezarr(store, request, decode_text(place.read_child(SERIES_NAMES, MAX_TEXT_BYTES)))


def _open_file(place: Location, source: ByteSource, request: OpenRequest) -> SlideReader:
    kind = _kind(place, _head(source))
    if kind is _Kind.TIFF:
        try:
            return open_tiff(source, request)
        except NeedsOpenSlideError as error:
            if place.fs is not None or detect_vendor(place.path) is None:
                raise SlideError(error.reason, error.message) from error
    if kind is _Kind.IMAGE:
        return open_image(source, request)
    if place.fs is not None:
        raise SlideError(
            Reason.FILE_UNREADABLE,
            f"{request.name}: this format is read from a local copy, not from the store",
        )
    source.close()
    return _open_dicom(place, request) if kind is _Kind.DICOM else open_openslide(place.path, request)


def _open_dicom(place: Location, request: OpenRequest) -> SlideReader:
    from her2core.readers.dicom.reader import open_dicom

    return open_dicom(place.path, request)


def _kind(place: Location, head: bytes) -> _Kind | None:
    """The reader of a file, None where there is none.

    A format that wraps another goes first: a DICOM file may begin like a TIFF, and MIRAX is found by its
    preview, a JPEG.
    """
    if is_dicom(head):
        return _Kind.DICOM
    if _left_to_openslide(place):
        return _Kind.OPENSLIDE
    if is_tiff(head):
        return _Kind.TIFF
    known = place.fs is None and detect_vendor(place.path) is not None
    if is_plain_image(head) and not known:
        return _Kind.IMAGE
    return _Kind.OPENSLIDE if known else None


def _check_known(place: Location, head: bytes) -> None:
    """Refuse a file that no reader recognises, or that is not the slide itself."""
    if place.fs is None and is_mirax(place.path):
        check_parts(place.path, place.name)
    kind = _kind(place, head)
    if kind is None:
        raise _not_a_slide(place.name, head)
    if kind is _Kind.TIFF and place.path.lower().endswith(OVERVIEW_SUFFIX):
        raise SlideError(
            Reason.FILE_UNREADABLE,
            f"{place.name}: an Olympus VSI file holds only the overview of a slide, whose pixels lie in the "
            f"folder _{Path(place.path).stem}_ beside it. Export the slide as OME-TIFF or DICOM",
        )
    if kind is _Kind.IMAGE and PurePath(place.path).suffix.lower() not in PICTURE_SUFFIXES:
        raise SlideError(
            Reason.FILE_UNREADABLE,
            f"{place.name}: a JPEG or PNG that is named like a slide: its preview, or renamed. Transfer the "
            "slide with every file that belongs to it, or give the picture its own suffix",
        )


def _check_dicom_folder(place: Location) -> None:
    """Refuse a folder without DICOM files."""
    if place.has(MIRAX_HEADER):
        raise SlideError(
            Reason.NOT_A_SLIDE,
            f"{place.name}: the folder of a MIRAX slide; name the file {Path(place.path).name}.mrxs beside "
            "it",
        )
    if place.fs is not None or not any(map(_is_dicom_file, Path(place.path).iterdir())):
        raise SlideError(
            Reason.NOT_A_SLIDE,
            f"{place.name}: a folder that holds neither OME-Zarr nor DICOM; expected a slide file. A remote "
            "DICOM folder is read from a local copy",
        )


def _not_a_slide(name: str, head: bytes) -> SlideError:
    """The error for a file that no reader recognises: encrypted where its bytes are noise."""
    if head.startswith(ENCRYPTED_MAGICS) or _entropy_bits(head) > RANDOM_BITS:
        return SlideError(
            Reason.FILE_ENCRYPTED,
            f"{name}: encrypted, or noise from its first byte; expected a slide file. Decrypt it first",
        )
    return SlideError(
        Reason.NOT_A_SLIDE,
        f"{name}: begins with bytes {head[:4].hex(' ')}, as no slide format does; expected SVS, TIFF, NDPI, "
        "MRXS, SCN, BIF, DICOM, OME-Zarr, JPEG or PNG. Export or transfer the slide again",
    )


def _entropy_bits(data: bytes) -> float:
    """Shannon entropy of a header of full length, bits a byte; 0 for shorter ones, which cannot show it."""
    if len(data) < HEAD_BYTES:
        return 0.0
    return -sum(n / len(data) * math.log2(n / len(data)) for n in Counter(data).values())


def _head(source: ByteSource) -> bytes:
    return source.read(0, min(HEAD_BYTES, source.size))


def _left_to_openslide(place: Location) -> bool:
    """Whether a file goes to OpenSlide unparsed: by its name and, where it is local, by OpenSlide's word."""
    if not place.path.lower().endswith(OPENSLIDE_SUFFIXES):
        return False
    return place.fs is not None or detect_vendor(place.path) not in (None, "aperio", "generic-tiff")


def _is_omezarr(place: Location) -> bool:
    return any(place.has(marker) for marker in MARKERS)


def _is_dicom_file(path: Path) -> bool:
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return is_dicom(file.read(132))


def _size_of(identity: str) -> int:
    """The size that an identity begins with."""
    text = identity.partition("-")[0]
    return int(text) if text.isdigit() else 0
