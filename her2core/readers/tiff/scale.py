"""Pixel size of a TIFF: resolution tags, ImageJ's unit, Aperio's description."""

from __future__ import annotations

import re

from her2core.readers.scale import Scale, plausible, read_number, unit_um
from her2core.readers.tiff import ifd as tags
from her2core.readers.tiff.ifd import Ifd
from her2core.records import Assay

RESOLUTION_UNITS_UM = {2: 25400.0, 3: 10000.0}
"""ResolutionUnit in µm: inch, centimetre; 1 is none."""


def aperio_field(description: str, key: str) -> float | None:
    """A number of Aperio's description, ``|AppMag = 40|MPP = 0.2500``, however it is spaced or written.

    Examples
    --------
    >>> aperio_field("Aperio Image Library|AppMag=40|mpp: ,2500 µm", "MPP")
    0.25
    """
    match = re.search(rf"(?:^|[|;\r\n])\s*{key}\s*[=:]\s*([^|;\r\n]*)", description, re.IGNORECASE)
    return read_number(match[1]) if match else None


def resolution(page: Ifd) -> list[Scale]:
    """The resolution tags where they can be a scanner's; 72 or 96 dpi are a printer's.

    References
    ----------
    ImageJ, ij.io.TiffEncoder: a unit other than inch and centimetre stands in the description.
    """
    unit = RESOLUTION_UNITS_UM.get(int(page.ratio(tags.RESOLUTION_UNIT) or 2))
    source = "tiff_resolution"
    stated = re.match(
        r"ImageJ=.*?^unit=([^\r\n]*)", page.text(tags.IMAGE_DESCRIPTION), re.DOTALL | re.MULTILINE
    )
    if stated is not None:
        unit, source = unit_um(stated[1]), "imagej"
    x, y = page.ratio(tags.X_RESOLUTION), page.ratio(tags.Y_RESOLUTION)
    if unit is None or x is None or y is None:
        return []
    scale = Scale(source, unit / y, unit / x)
    return [scale] if all(plausible(um, Assay.FISH) for um in (scale.x_um, scale.y_um)) else []
