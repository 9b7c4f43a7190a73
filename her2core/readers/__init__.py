"""Slides in: one reader protocol over TIFF, DICOM, OpenSlide's formats, plain images and OME-Zarr.

``open_slide`` looks at a file's first bytes, not at its name, and gives the reader that suits. Opening parses
and checks headers only. A local slide is read in place. A remote TIFF or OME-Zarr is read by ranges; any
other remote format must be copied to local scratch first, and ``needs_local_copy`` tells.

==============================================  ===========  ==================
format                                          reader       remote
==============================================  ===========  ==================
SVS, OME-TIFF, tiled and stripped TIFF, BigTIFF  ``tiff``     by ranges
OME-Zarr 0.4, 0.5                               ``ome-zarr`` by chunks
JPEG, PNG                                       ``image``    one read
DICOM WSI (file or folder)                      ``dicom``    local copy
NDPI, MRXS, SCN, BIF, VMS, Philips, ...         ``openslide`` local copy
==============================================  ===========  ==================
"""

from __future__ import annotations

from her2core.readers.base import SlideReader
from her2core.readers.lending import borrow_slide
from her2core.readers.memory import MemoryReader
from her2core.readers.opening import needs_local_copy, open_slide

__all__ = ["MemoryReader", "SlideReader", "borrow_slide", "needs_local_copy", "open_slide"]
