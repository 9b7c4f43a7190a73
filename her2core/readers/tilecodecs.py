"""Decoders of one native tile into a given buffer; no output grows beyond it.

Each codec is a function ``(data, out) -> None`` that fills ``out``, a C-contiguous array of shape
``(height, width, samples)`` or ``(height, width)``, or raises ``ValueError``/``RuntimeError``. Samples are
uint8, or uint16 where a codec says so.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

import cv2
import imagecodecs as _imagecodecs
import numpy as np
import numpy.typing as npt

imagecodecs: Any = _imagecodecs  # its stubs know bytes but not the memoryviews it takes

Tile = npt.NDArray[Any]
TileDecoder = Callable[[memoryview, Tile], None]

TIFF_COMPRESSIONS = {
    1: "none", 5: "lzw", 7: "jpeg", 8: "deflate", 32773: "packbits", 32946: "deflate",
    33003: "jpeg2000-ycbcr", 33005: "jpeg2000", 34712: "jpeg2000", 50000: "zstd",
}  # fmt: skip
YCBCR, RGB = 6, 2
EOI = b"\xff\xd9"
EOI_SLACK_BYTES = 1024
"""Padding that may follow a JPEG stream's end mark."""


class ShortTileError(ValueError):
    """A tile's stream ends before its pixels do."""


def raw_decoder(codec: str, *, predictor: bool = False, swapped: bool = False) -> TileDecoder:
    """Decoder of a byte-stream codec: ``none``, ``lzw``, ``deflate``, ``packbits`` or ``zstd``; uint16 too.

    Parameters
    ----------
    predictor
        TIFF's horizontal differencing: each sample is stored as the difference to its left neighbour.
    swapped
        Whether the bytes of uint16 samples are stored in the other order than this machine's.
    """
    unpack: Any = {
        "lzw": imagecodecs.lzw_decode,
        "deflate": imagecodecs.deflate_decode,  # libdeflate: half of zlib's time
        "packbits": imagecodecs.packbits_decode,
        "zstd": imagecodecs.zstd_decode,
    }.get(codec)

    def decode(data: memoryview, out: Tile) -> None:
        flat = out.reshape(-1).view(np.uint8)
        if unpack is None:
            got = min(len(data), flat.size)
            flat[:got] = np.frombuffer(data, np.uint8, got)
        else:
            got = unpack(data, out=flat).size
        if got != flat.size:
            raise ShortTileError(f"holds {got} bytes, expected {flat.size}")
        if swapped:
            out.byteswap(inplace=True)
        if predictor:
            imagecodecs.delta_decode(out, axis=1, out=out)

    return decode


def jpeg_decoder(photometric: int, tables: bytes | None = None) -> TileDecoder:
    """Decoder of baseline JPEG tiles to RGB (or grey, where ``out`` has two axes).

    Colour follows the stream where it tells: a JFIF or Adobe marker decides. A bare stream, as Aperio writes
    it, has the colour of the TIFF's photometric tag: YCbCr or RGB.

    Parameters
    ----------
    photometric
        TIFF PhotometricInterpretation (2 RGB, 6 YCbCr).
    tables
        Quantisation and Huffman tables that the tiles share.
    """

    def decode(data: memoryview, out: Tile) -> None:
        if EOI not in bytes(data[-EOI_SLACK_BYTES:]):
            raise ShortTileError("JPEG stream has no end mark")
        if out.ndim == 2:
            imagecodecs.jpeg8_decode(data, tables=tables, out=out)
            return
        stored = RGB if photometric == RGB and not _names_its_colour(data) else None
        imagecodecs.jpeg8_decode(data, tables=tables, colorspace=stored, outcolorspace=RGB, out=out)

    return decode


def _names_its_colour(data: memoryview) -> bool:
    """Whether a JPEG stream begins with a JFIF (APP0) or Adobe (APP14) marker."""
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF and data[at + 1] not in (0xDA, 0xC0, 0xC1, 0xC2):
        (length,) = struct.unpack(">H", data[at + 2 : at + 4])
        body = bytes(data[at + 4 : at + 9])
        if (data[at + 1] == 0xE0 and body[:4] == b"JFIF") or (data[at + 1] == 0xEE and body == b"Adobe"):
            return True
        at += 2 + length
    return False


def jpeg2000_decoder(*, ycbcr: bool = False) -> TileDecoder:
    """Decoder of JPEG 2000 tiles, uint16 too; ``ycbcr`` for Aperio's 33003, whose components are not RGB."""

    def decode(data: memoryview, out: Tile) -> None:
        size = jpeg2000_size(data)
        expected = (*out.shape[:2], out.shape[2] if out.ndim == 3 else 1, False)
        if size != expected:
            raise ValueError(f"JPEG 2000 stream is {size}, expected {expected}")
        imagecodecs.jpeg2k_decode(data, numthreads=1, out=out)
        if ycbcr:
            cv2.cvtColor(np.ascontiguousarray(out[..., [0, 2, 1]]), cv2.COLOR_YCrCb2RGB, dst=out)

    return decode


def htj2k_decoder() -> TileDecoder:
    """Decoder of high-throughput JPEG 2000 tiles."""

    def decode(data: memoryview, out: Tile) -> None:
        imagecodecs.htj2k_decode(data, out=out)

    return decode


def jpeg2000_size(data: memoryview | bytes) -> tuple[int, int, int, bool]:
    """Height, width, components and whether any component is subsampled, from a stream's SIZ marker.

    References
    ----------
    ISO/IEC 15444-1, A.5.1.
    """
    at = bytes(data[:512]).find(b"\xff\x4f\xff\x51")
    if at < 0 or len(data) < at + 42:
        raise ValueError("no JPEG 2000 codestream")
    x1, y1, x0, y0 = struct.unpack(">4I", data[at + 8 : at + 24])
    (components,) = struct.unpack(">H", data[at + 40 : at + 42])
    steps = bytes(data[at + 42 : at + 42 + 3 * min(components, 4)])
    subsampled = any(steps[i + 1 : i + 3] != b"\1\1" for i in range(0, len(steps), 3))
    return y1 - y0, x1 - x0, components, subsampled
