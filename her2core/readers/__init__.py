"""Slides in: one reader protocol over TIFF, DICOM, OpenSlide's formats, plain images and OME-Zarr.

``open_slide`` looks at a file's first bytes, not at its name, and gives the reader that suits. Opening parses
and checks headers only. A local slide is read in place. A remote TIFF or OME-Zarr is read by ranges; any
other remote format must be copied to local scratch first, as ``needs_local_copy`` finds.

==============================================  ===========  ==================
format                                          reader       remote
==============================================  ===========  ==================
SVS, OME-TIFF, tiled and stripped TIFF, BigTIFF  ``tiff``     by ranges
OME-Zarr 0.4, 0.5                               ``ome-zarr`` by chunks
JPEG, PNG                                       ``image``    one read
DICOM WSI (file or folder)                      ``dicom``    local copy
NDPI, MRXS, SCN, BIF, VMS, Philips, ...         ``openslide`` local copy
==============================================  ===========  ==================

Slides are bright field in 8-bit RGB, unless ``open_slide`` is given an assay of fluorescence: TIFF and
OME-Zarr then give DAPI, HER2 and CEP17 in 8 or 16 bits, at their maximum over the focal planes, and any RGB
picture its colours as channels.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from her2core.readers.base import SlideReader
    from her2core.readers.memory import MemoryReader
    from her2core.readers.opening import needs_local_copy, open_slide
    from her2core.readers.reader_cache import shared_reader

_HOMES = {
    "MemoryReader": "memory",
    "SlideReader": "base",
    "needs_local_copy": "opening",
    "open_slide": "opening",
    "shared_reader": "reader_cache",
}

__all__ = ["MemoryReader", "SlideReader", "needs_local_copy", "open_slide", "shared_reader"]


def __getattr__(name: str) -> Any:
    """Load a name at its first use: a run's driver names much that only its workers use."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
