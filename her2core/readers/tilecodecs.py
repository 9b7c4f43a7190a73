"""Decoders of one native tile into a given buffer; no output grows beyond it.

Each codec is a function ``(data, out) -> None`` that fills ``out``, a C-contiguous array of shape
``(height, width, samples)`` or ``(height, width)``, or raises ``ValueError``/``RuntimeError``. Samples are
uint8, or uint16 where noted at a codec.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

import cv2
import imagecodecs as _imagecodecs
import numpy as np
import numpy.typing as npt

from her2core.readers.jpeg2000 import Jpeg2000Header, jpeg2000_header
from her2core.readers.jpegfile import is_one_scan, names_its_colour
from her2core.readers.standalone import without_zeros

imagecodecs: Any = _imagecodecs  # its stubs list bytes but not the memoryviews it takes

Tile = npt.NDArray[Any]
TileDecoder = Callable[[memoryview, Tile], None]

TIFF_COMPRESSIONS = {
    1: "none", 5: "lzw", 7: "jpeg", 8: "deflate", 32773: "packbits", 32946: "deflate",
    33003: "jpeg2000", 33004: "jpeg2000", 33005: "jpeg2000", 34712: "jpeg2000",
    50000: "zstd", 50001: "webp", 50002: "jpegxl", 52546: "jpegxl",
}  # fmt: skip
YCBCR, RGB = 6, 2
EOI = b"\xff\xd9"
EOI_SLACK_BYTES = 1024
"""Padding after a JPEG stream's end mark within which the mark is looked for first."""
MAX_PADDING_TRIES = 130
"""Zeros that may belong to the end of a stream and not to the padding after it: a run of PackBits has 128."""


class ShortTileError(ValueError):
    """A tile's stream ends before its pixels do.

    Attributes
    ----------
    got
        Bytes of pixels that it holds, where that is known.
    """

    def __init__(self, message: str, got: int | None = None) -> None:
        super().__init__(message)
        self.got = got


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
        "packbits": _without_padding(imagecodecs.packbits_decode),
        "zstd": _without_padding(imagecodecs.zstd_decode),
    }.get(codec)

    def decode(data: memoryview, out: Tile) -> None:
        flat = out.reshape(-1).view(np.uint8)
        if unpack is None:
            got = min(len(data), flat.size)
            flat[:got] = np.frombuffer(data, np.uint8, got)
        else:
            got = unpack(data, out=flat).size
        if got != flat.size:
            raise ShortTileError(f"holds {got} bytes, expected {flat.size}", got)
        if swapped:
            out.byteswap(inplace=True)
        if predictor:
            imagecodecs.delta_decode(out, axis=1, out=out)

    return decode


def uncompressed_decoder(*, planar: bool, ycbcr: bool) -> TileDecoder:
    """Decoder of bare RGB or YCbCr, together or one plane after the other."""

    def decode(data: memoryview, out: Tile) -> None:
        if len(data) < out.nbytes:
            raise ShortTileError(f"holds {len(data)} bytes, expected {out.nbytes}", len(data))
        stored = np.frombuffer(data, np.uint8, out.nbytes)
        height, width, samples = out.shape
        if planar:
            out[...] = stored.reshape(samples, height, width).transpose(1, 2, 0)
        else:
            out[...] = stored.reshape(out.shape)
        if ycbcr:
            cv2.cvtColor(np.ascontiguousarray(out[..., [0, 2, 1]]), cv2.COLOR_YCrCb2RGB, dst=out)

    return decode


def fragments_decoder(decode: TileDecoder) -> TileDecoder:
    """Decoder of a frame in several DICOM fragments, each with its item's eight bytes before it."""
    return lambda data, out: decode(joined_fragments(data), out)


def joined_fragments(data: memoryview) -> memoryview:
    """The stream of a frame in several DICOM fragments.

    References
    ----------
    DICOM PS3.5, A.4: the fragments of a frame, end to end, are its stream.
    """
    parts, at = [], 0
    while at + 8 <= len(data):
        (length,) = struct.unpack("<I", data[at + 4 : at + 8])
        parts.append(data[at + 8 : at + 8 + length])
        at += 8 + length
    return parts[0] if len(parts) == 1 else memoryview(b"".join(parts))


def _without_padding(unpack: Any) -> Any:
    """A codec that minds what follows its stream, made to overlook zeros there."""

    def decode(data: memoryview, out: Tile) -> Tile:
        try:
            return unpack(data, out=out)  # type: ignore[no-any-return]
        except RuntimeError:
            stream = bytes(data)
            end = len(stream.rstrip(b"\0"))
            for length in range(end, min(len(stream), end + MAX_PADDING_TRIES)):
                try:
                    got: Tile = unpack(stream[:length], out=out)
                except RuntimeError:
                    continue
                if got.size == out.size:
                    return got
            raise

    return decode


def jpeg_decoder(photometric: int, tables: bytes | None = None) -> TileDecoder:
    """Decoder of baseline JPEG tiles to RGB (or grey, where ``out`` has two axes).

    Colour follows the stream's own statement: a JFIF or Adobe marker decides. A bare stream, as Aperio writes
    it, has the colour of the TIFF's photometric tag: YCbCr or RGB. A stream without its end mark is read
    where all of its pixels are there.

    Parameters
    ----------
    photometric
        TIFF PhotometricInterpretation (2 RGB, 6 YCbCr).
    tables
        Quantisation and Huffman tables that the tiles share.
    """

    def unpack(data: memoryview | bytes, out: Tile) -> None:
        if out.ndim == 2:
            imagecodecs.jpeg8_decode(data, tables=tables, out=out)
            return
        stored = RGB if photometric == RGB and not names_its_colour(data) else None
        imagecodecs.jpeg8_decode(data, tables=tables, colorspace=stored, outcolorspace=RGB, out=out)

    def decode(data: memoryview, out: Tile) -> None:
        if _is_ended(data):
            unpack(data, out)
            return
        if not is_one_scan(data):
            raise ShortTileError("JPEG stream has no end mark")
        # What follows a whole scan changes no pixel; the pixels that a stream lacks are made of it.
        other = np.empty_like(out)
        stream = without_zeros(bytes(data))
        unpack(stream + EOI, out)
        unpack(stream + b"\xa5\x5a" * 512 + EOI, other)
        if not np.array_equal(out, other):
            raise ShortTileError("JPEG stream ends before its pixels do")

    return decode


def _is_ended(data: memoryview) -> bool:
    """Whether a JPEG stream has its end mark, be it before some padding."""
    if EOI in bytes(data[-EOI_SLACK_BYTES:]):
        return True
    stream = bytes(data)
    return stream.rfind(EOI) > stream.find(b"\xff\xda") > 0


def jpeg2000_decoder(*, ycbcr: bool = False) -> TileDecoder:
    """Decoder of JPEG 2000 tiles, uint16 too.

    Parameters
    ----------
    ycbcr
        Whether components are YCbCr where the stream states neither that it undoes a colour transform
        itself nor, in a JP2 file, its colour space: Aperio's 33003.
    """

    def decode(data: memoryview, out: Tile) -> None:
        header = jpeg2000_header(data)
        _check_jpeg2000(header, out)
        imagecodecs.jpeg2k_decode(data, numthreads=1, out=out)
        if ycbcr and not header.tells_colour:
            cv2.cvtColor(np.ascontiguousarray(out[..., [0, 2, 1]]), cv2.COLOR_YCrCb2RGB, dst=out)

    return decode


def _check_jpeg2000(header: Jpeg2000Header, out: Tile) -> None:
    """Refuse a stream whose pixels are not those that the file declares."""
    expected = (*out.shape[:2], out.shape[2] if out.ndim == 3 else 1)
    found = (header.height, header.width, header.components)
    if found != expected or header.subsampled:
        sampled = " subsampled" if header.subsampled else ""
        raise ValueError(f"JPEG 2000 stream is {found}{sampled}, expected {expected}")
    low, high = (8, 8) if out.dtype == np.uint8 else (9, 16)
    if header.signed or not low <= header.bits <= high:
        sign = "signed" if header.signed else "unsigned"
        raise ValueError(f"JPEG 2000 samples are {sign} of {header.bits} bits, expected unsigned {out.dtype}")


def htj2k_decoder() -> TileDecoder:
    """Decoder of high-throughput JPEG 2000 tiles."""

    def decode(data: memoryview, out: Tile) -> None:
        imagecodecs.htj2k_decode(data, out=out)

    return decode


def webp_decoder() -> TileDecoder:
    """Decoder of WebP tiles: RGB, or RGBA where ``out`` has four samples."""

    def decode(data: memoryview, out: Tile) -> None:
        imagecodecs.webp_decode(data, hasalpha=out.shape[2] == 4, out=out)

    return decode


def jpegxl_decoder() -> TileDecoder:
    """Decoder of JPEG XL tiles, uint16 too."""

    def decode(data: memoryview, out: Tile) -> None:
        imagecodecs.jpegxl_decode(data, numthreads=1, out=out)

    return decode
