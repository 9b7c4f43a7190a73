"""Which reader suits a slide, by its first bytes."""

from __future__ import annotations

import math
import os
from collections import Counter
from pathlib import Path
from typing import Any

from her2core.errors import Reason, SlideError
from her2core.readers.base import Asked, SlideReader
from her2core.readers.bytesource import ByteSource
from her2core.readers.dicom import is_dicom, open_dicom
from her2core.readers.ifd import is_tiff
from her2core.readers.image import is_plain_image, open_image
from her2core.readers.locate import Location, identify, locate
from her2core.readers.omezarr import MARKERS, open_omezarr
from her2core.readers.openslide import detect_vendor, open_openslide
from her2core.readers.tiff import NeedsOpenSlideError, open_tiff

HEAD_BYTES = 4096
OPENSLIDE_SUFFIXES = (".ndpi", ".mrxs", ".scn", ".bif", ".vms", ".vmu", ".svslide", ".zvi", ".czi")
"""Suffixes of formats that are left to OpenSlide even where they begin like a TIFF."""
RANDOM_BITS = 7.9
"""Shannon entropy of a header, bits a byte, above which it is encrypted (4 KiB of noise have 7.95)."""
ENCRYPTED_MAGICS = (b"Salted__", b"age-encryption.org", b"-----BEGIN PGP MESSAGE")


def open_slide(
    source: str | os.PathLike[str],
    *,
    scene: str | None = None,
    mpp: float | None = None,
    uri: str | None = None,
    identity: str | None = None,
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
    endpoint_url
        S3 endpoint; by default from the environment.

    Raises
    ------
    SlideError
        With the reason, for everything that is not a readable slide. A missing scale is no error here: it is
        in ``info.problems``, and ``inspect.require_scorable`` refuses it.
    """
    place = locate(source, uri, endpoint_url)
    if place.is_directory:
        return _open_directory(place, scene, mpp, identity)
    with_bytes = place.open_bytes()
    try:
        size, found = (
            (_size_of(identity) or with_bytes.size, identity) if identity is not None else identify(place)
        )
        asked = Asked(place.name, found, size, scene, mpp)
        reader = _open_file(place, with_bytes, asked)
    except BaseException:
        with_bytes.close()
        raise
    return reader


def needs_local_copy(uri: str, *, endpoint_url: str | None = None) -> bool:
    """Whether a remote slide can only be read from a local copy; always False for a local one."""
    place = locate(uri, None, endpoint_url)
    if place.fs is None:
        return False
    if place.is_directory:
        return not _is_omezarr(place)
    source = place.open_bytes()
    head = _head(source)
    if is_plain_image(head):
        return False
    if not is_tiff(head) or _left_to_openslide(place):
        return True
    try:
        open_tiff(source, Asked(place.name, "", source.size, mpp=1.0)).close()
    except NeedsOpenSlideError:
        return True
    except SlideError:
        return False  # reading it by ranges raises the same error, in the place where it becomes a row
    return False


def _open_directory(
    place: Location, scene: str | None, mpp: float | None, identity: str | None
) -> SlideReader:
    if _is_omezarr(place):
        size, found = (0, identity) if identity is not None else identify(place)
        return open_omezarr(_zarr_store(place), Asked(place.name, found, size or _size_of(found), scene, mpp))
    if place.fs is not None or not any(map(_is_dicom_file, Path(place.path).iterdir())):
        raise SlideError(
            Reason.NOT_A_SLIDE,
            f"{place.name}: a folder that holds neither OME-Zarr nor DICOM; expected a slide file. "
            "A remote DICOM folder is read from a local copy",
        )
    size, found = (0, identity) if identity is not None else identify(place)
    return open_dicom(place.path, Asked(place.name, found, size or _size_of(found), scene, mpp))


def _open_file(place: Location, source: ByteSource, asked: Asked) -> SlideReader:
    head = _head(source)
    local = place.fs is None
    if is_tiff(head) and not _left_to_openslide(place):
        try:
            return open_tiff(source, asked)
        except NeedsOpenSlideError as error:
            if not local or detect_vendor(place.path) is None:
                raise SlideError(error.reason, error.message) from error
    elif is_plain_image(head):
        return open_image(source, asked)
    if not local:
        raise SlideError(
            Reason.FILE_UNREADABLE, f"{asked.name}: this format is read from a local copy, not from the store"
        )
    if is_dicom(head):
        source.close()
        return open_dicom(place.path, asked)
    if detect_vendor(place.path) is None:
        raise _not_a_slide(asked.name, head)
    source.close()
    return open_openslide(place.path, asked)


def _not_a_slide(name: str, head: bytes) -> SlideError:
    """The error for a file that no reader knows: encrypted where its bytes are noise."""
    if head.startswith(ENCRYPTED_MAGICS) or _entropy_bits(head) > RANDOM_BITS:
        return SlideError(
            Reason.FILE_ENCRYPTED,
            f"{name}: encrypted, or noise from its first byte; expected a slide file. Decrypt it first",
        )
    return SlideError(
        Reason.NOT_A_SLIDE,
        f"{name}: begins with bytes {head[:4].hex(' ')}, as no slide format does; expected SVS, TIFF, NDPI, "
        "MRXS, SCN, "
        "BIF, DICOM, OME-Zarr, JPEG or PNG. Export or transfer the slide again",
    )


def _entropy_bits(data: bytes) -> float:
    """Shannon entropy of a header of full length, bits a byte; 0 for shorter ones, which cannot show it."""
    if len(data) < HEAD_BYTES:
        return 0.0
    return -sum(n / len(data) * math.log2(n / len(data)) for n in Counter(data).values())


def _head(source: ByteSource) -> bytes:
    return source.read(0, min(HEAD_BYTES, source.size))


def _left_to_openslide(place: Location) -> bool:
    """Whether a TIFF goes to OpenSlide unparsed: by its name and, where it is local, by OpenSlide's word."""
    if not place.path.lower().endswith(OPENSLIDE_SUFFIXES):
        return False
    return place.fs is not None or detect_vendor(place.path) not in (None, "aperio", "generic-tiff")


def _is_omezarr(place: Location) -> bool:
    return any(place.has(marker) for marker in MARKERS)


def _zarr_store(place: Location) -> Any:
    if place.fs is None:
        return place.path
    from zarr.storage import FsspecStore

    return FsspecStore(place.fs, path=place.path, read_only=True)


def _is_dicom_file(path: Path) -> bool:
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return is_dicom(file.read(132))


def _size_of(identity: str) -> int:
    """The size that an identity begins with."""
    text = identity.partition("-")[0]
    return int(text) if text.isdigit() else 0
