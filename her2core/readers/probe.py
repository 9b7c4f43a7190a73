"""Reading what may end a run before it begins: the edges of a slide, and how each stored tile begins."""

from __future__ import annotations

from her2core.pixels import PixelFormat
from her2core.readers.base import SlideReader
from her2core.readers.tiled import TiledReader, begin_reading
from her2core.records import Box

EDGE_FIELDS = 8
"""Fields read along the right and along the lower edge (ours)."""
FIELD_PX = 64
"""Edge of such a field, px."""


def probe(reader: SlideReader) -> None:
    """Read fields along the right and the lower edge, where tiles are stored otherwise and copies break off.

    Of a local file each tile's first bytes are looked at, too: a transfer that stopped leaves zeros.

    Raises
    ------
    SlideError
        What reading the whole slide would raise.
    """
    info, form = reader.info, PixelFormat.of(reader.info)
    h, w = min(FIELD_PX, info.height), min(FIELD_PX, info.width)
    bottom, right = info.height - h, info.width - w
    steps = [i / (EDGE_FIELDS - 1) for i in range(EDGE_FIELDS)]
    places = {(round(step * bottom), right) for step in steps} | {
        (bottom, round(step * right)) for step in steps
    }
    field = form.empty(h, w)
    begin_reading(reader, [Box(y, x, y + h, x + w) for y, x in sorted(places)])
    for y, x in sorted(places):
        reader.read_region(y, x, field)
    if isinstance(reader, TiledReader):
        reader.check_starts()
