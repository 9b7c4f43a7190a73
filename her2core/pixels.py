"""What a pixel holds: its channels, the width of a number, and the value outside the slide.

========================  =======  ====================  =========
kind of slide             dtype    channels              outside
========================  =======  ====================  =========
bright field (RGB)        uint8    R, G, B               255
fluorescence              uint8,   DAPI, HER2[, CEP17]   0
                          uint16
========================  =======  ====================  =========
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from her2core.records import RGB, PyramidRef, SlideInfo

Pixels = NDArray[Any]
"""Pixels of shape ``(height, width, channel)``, uint8 or uint16."""


@dataclass(frozen=True, slots=True)
class PixelFormat:
    """Channels and dtype that a slide's pixels share, from its file to its kernel.

    Attributes
    ----------
    channels
        Names, in order.
    dtype
        ``uint8`` or ``uint16``.
    """

    channels: tuple[str, ...] = RGB
    dtype: str = "uint8"

    @classmethod
    def of(cls, what: SlideInfo | PyramidRef) -> Self:
        """Format of a slide or of a pyramid."""
        return cls(what.channels, what.dtype)

    @property
    def count(self) -> int:
        """Number of channels."""
        return len(self.channels)

    @property
    def bytes_px(self) -> int:
        """Bytes of one pixel."""
        return self.count * np.dtype(self.dtype).itemsize

    @property
    def is_rgb(self) -> bool:
        """Whether these are the colours of bright field, and not the channels of fluorescence."""
        return self.channels == RGB

    @property
    def outside(self) -> int:
        """Value of every channel outside the slide: the light of glass, or no light."""
        return 255 if self.is_rgb else 0

    def view(self, buffer: NDArray[np.uint8], height: int, width: int) -> Pixels:
        """Return the first bytes of a flat buffer as ``(height, width, channel)`` pixels."""
        flat = buffer[: height * width * self.bytes_px]
        return flat.view(self.dtype).reshape(height, width, self.count)

    def empty(self, height: int, width: int) -> Pixels:
        """Return new ``(height, width, channel)`` pixels, not initialised."""
        return np.empty((height, width, self.count), self.dtype)


RGB8 = PixelFormat()
"""Bright field."""
