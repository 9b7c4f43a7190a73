"""PNG files of drawn pictures, in a quarter of the time that general encoders take.

Every row is filtered by the pixel to its left, all at once, and deflated by libdeflate.

References
----------
PNG, third edition: https://www.w3.org/TR/png-3/
"""

from __future__ import annotations

import struct
import zlib

import imagecodecs
import numpy as np
import numpy.typing as npt

_LEVEL = 1  # of libdeflate: smaller than zlib's third on our pictures, as filtered here
_SUB = 1  # the filter that leaves the difference to the pixel on the left
_RGB8 = (8, 2, 0, 0, 0)  # eight bits a channel, truecolour; the only compression, filters, not interlaced


def png(rgb: npt.NDArray[np.uint8], dpi: float) -> bytes:
    """The file of an (h, w, 3) picture; the same bytes for the same pixels.

    Parameters
    ----------
    dpi
        Pixels an inch, for programs that print it.
    """
    height, width, channels = rgb.shape
    rows = np.empty((height, 1 + width * channels), np.uint8)
    rows[:, 0] = _SUB
    plain = np.ascontiguousarray(rgb).reshape(height, -1)
    rows[:, 1 : 1 + channels] = plain[:, :channels]
    np.subtract(plain[:, channels:], plain[:, :-channels], out=rows[:, 1 + channels :])
    a_metre = round(dpi / 0.0254)
    return b"".join(
        [
            b"\x89PNG\r\n\x1a\n",
            _chunk(b"IHDR", struct.pack(">II5B", width, height, *_RGB8)),
            _chunk(b"pHYs", struct.pack(">IIB", a_metre, a_metre, 1)),
            _chunk(b"IDAT", imagecodecs.deflate_encode(rows.tobytes(), level=_LEVEL)),
            _chunk(b"IEND", b""),
        ]
    )


def _chunk(kind: bytes, data: bytes | bytearray) -> bytes:
    check = zlib.crc32(data, zlib.crc32(kind))
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", check)
