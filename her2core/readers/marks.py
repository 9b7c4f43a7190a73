"""By what DICOM and OME-Zarr are known, apart from their libraries: most slides are neither."""

from __future__ import annotations

MARKERS = ("zarr.json", ".zgroup")
"""Files of which one lies in every Zarr group."""
SERIES_NAMES = "OME/METADATA.ome.xml"
"""Where bioformats2raw names its series, the label and macro pictures among them."""


def is_dicom(head: bytes) -> bool:
    """Whether a file that begins with ``head`` is DICOM (PS3.10, 7.1)."""
    return head[128:132] == b"DICM"
