"""Pictures in pseudo-colour as fluorescence: each channel is the red, green or blue of the file."""

from __future__ import annotations

from dataclasses import replace

from her2core.buffers import ThreadBuffers
from her2core.pixels import Pixels
from her2core.readers.base import DARK, Closing, OpenRequest, SlideReader, clip_region
from her2core.readers.channels import RGB_NAMES, ChannelMap, map_channels
from her2core.records import RGB

STRIP_ROWS = 512
"""Rows read at once: bounds the copy in colour, and tiles of any usual height fit."""


class PseudoColourReader(Closing):
    """Reader of some channels of an RGB reader, which it owns."""

    def __init__(self, reader: SlideReader, chosen: ChannelMap) -> None:
        self.info = replace(
            reader.info,
            channels=chosen.names,
            source_channels=str(chosen),
            problems=(*reader.info.problems, "a picture in pseudo-colour, read as fluorescence"),
        )
        self._reader = reader
        self._sources = list(chosen.sources)
        self._buffers = ThreadBuffers()

    def read_region(self, y0: int, x0: int, out: Pixels) -> None:
        box = clip_region(y0, x0, out, self.info.height, self.info.width, DARK)
        if box is None:
            return
        inside = out[box.y0 - y0 : box.y1 - y0, box.x0 - x0 : box.x1 - x0]
        top = box.y0
        while top < box.y1:
            end = min(top - top % STRIP_ROWS + STRIP_ROWS, box.y1)
            rgb = self._buffers.flat("rgb", 3 * (end - top) * box.width).reshape(end - top, box.width, 3)
            self._reader.read_region(top, box.x0, rgb)
            for channel, source in enumerate(self._sources):
                inside[top - box.y0 : end - box.y0, :, channel] = rgb[..., source]
            top = end

    @property
    def held_bytes(self) -> int:
        """Bytes of decoded pixels kept between reads."""
        return int(getattr(self._reader, "held_bytes", 0))

    def close(self) -> None:
        self._reader.close()


def as_requested(reader: SlideReader, request: OpenRequest) -> SlideReader:
    """The reader itself, or its colours as the channels of fluorescence where that was requested.

    Raises
    ------
    SlideError
        ``CHANNELS_UNKNOWN`` where the manifest does not state which colour is which; the reader is closed.
    """
    if not request.fluorescence or reader.info.channels != RGB:
        return reader
    try:
        return PseudoColourReader(reader, map_channels(request.name, request.channels, RGB_NAMES))
    except BaseException:
        reader.close()
        raise
