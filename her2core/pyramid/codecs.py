"""Named chunk codecs: what ``zarr.json`` declares, and the encoder and decoder that do exactly that.

Chunks are handled as ``(y, x, c)`` pixels. ``blosc-lz4`` and ``zstd`` store them channel by channel, as the
array ``(c, y, x)`` has them, because viewers that stand on zarrita before 0.7.4 (Viv 0.21, ome-zarr.js) fail
on the codec ``transpose``; on two slides that took 5 and 9 % more bytes of ``blosc-lz4``, -1 and 10 % of
``zstd``, and a tenth to a fifth more time, than pixels whose channels lie side by side. Image codecs need
these, and state ``transpose``.

Measured with channels side by side, 512 x 512 chunks, per core; tissue and glass as a range from a scanner's
JPEG 2000 slide to smooth microscope photographs of tissue cores (compression ratio, megapixels a second):

=============  ======  ===========  ==========  =======  =======  ==========================
name           exact   tissue       glass       encode   decode   read by
=============  ======  ===========  ==========  =======  =======  ==========================
blosc-lz4      yes     1.14-1.29    1.7-18      400      600      any Zarr v3 reader
zstd           yes     1.18-1.42    2.5-33      130-230  430-540  any Zarr v3 reader
htj2k          yes     2.9          4.5         45       75       needs imagecodecs
jpeg-90        no      9.9          21          240      220      needs imagecodecs
=============  ======  ===========  ==========  =======  =======  ==========================

``source``, the default, copies the slide's own tiles, and is none of these (see ``writer``). Where it cannot,
``blosc-lz4`` takes its place: bitshuffle before LZ4 finds most of what general-purpose compression finds in
such pixels, at a third of the time. ``jpeg-1`` to ``jpeg-100`` set the quality; chroma is not subsampled,
because stain separation lives on it. Fluorescence is stored without loss: ``jpeg`` is refused, and ``htj2k``
takes three channels only. JPEG XL is left out: at the one effort that is fast enough it is not always
lossless (libjxl 0.11, a few in a thousand noisy chunks; libjxl issue 4026).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import cv2
import imagecodecs
import numpy as np
from numpy.typing import NDArray

from her2core.buffers import ThreadBuffers
from her2core.errors import ConfigError
from her2core.grid import EXACT_LEVEL
from her2core.pixels import RGB8, PixelFormat, Pixels

Encoded = NDArray[np.uint8]

SOURCE = "source"
"""Requests the slide's own tiles at level 0."""
FALLBACK = "blosc-lz4"
"""Stores slides whose tiles cannot be copied."""
VIEWED = "jpeg-80-420"
"""Stores the level of a slide with copied tiles that only viewers read: half the bytes of ``jpeg-90``, with a
quality and colours at half the resolution that scanners use for all of theirs. Cannot be requested."""
OVERVIEW = "zstd"
"""Stores its coarse levels: without loss, and open to any Zarr v3 reader."""
_COPIED = re.compile(r"source-(jpeg|jpeg2000)-([1-9][0-9]*)")

FLUORESCENCE_RATIOS = {"blosc-lz4": 1.7, "zstd": 1.5, "htj2k": 2.5}
"""Raw over stored bytes of fluorescence: camera noise over a dark field, in 16 bits. Ours."""

_JPEG_END = b"\xff\xd9"
_INTERLEAVED = {"name": "transpose", "configuration": {"order": [1, 2, 0]}}
"""States that a chunk of ``(c, y, x)`` is stored as ``(y, x, c)``."""

_buffers = ThreadBuffers()

_ic: Any = imagecodecs  # its stubs are narrower than what it takes: any buffer in, any buffer as ``out``


@dataclass(frozen=True, slots=True)
class Codec:
    """One way to store a chunk.

    Attributes
    ----------
    lossless
        Whether decoded pixels equal the encoded ones.
    chain
        Zarr v3 codec list of a chunk, as ``zarr.json`` states it.
    encode
        ``encode(chunk, out)`` compresses ``(y, x, c)`` pixels into 1-D ``out``; returns the bytes used.
    decode
        ``decode(data, chunk)`` fills contiguous ``(y, x, c)`` pixels and never writes past them.
    tissue_ratio, glass_ratio
        Raw bytes over stored bytes, for estimates; typical values of the table above. Fluorescence has no
        glass: both are that of its noise.
    """

    name: str
    lossless: bool
    chain: tuple[dict[str, Any], ...]
    encode: Callable[[Pixels, Encoded], int]
    decode: Callable[[Any, Pixels], Any]
    tissue_ratio: float
    glass_ratio: float

    @property
    def needs_imagecodecs(self) -> bool:
        """Whether Zarr readers need the imagecodecs package beside their own codecs."""
        return any(str(step["name"]).startswith("imagecodecs_") for step in self.chain)


def copied_name(native: str, edge: int) -> str:
    """Name of the codec of pyramids whose level 0 holds a slide's tiles, of ``edge`` px."""
    return f"{SOURCE}-{native}-{edge}"


def copied_tile(name: str) -> int:
    """Edge of the slide's tiles that level 0 holds; 0 for every other codec."""
    found = _COPIED.fullmatch(name)
    return int(found[2]) if found else 0


def level_codec(name: str, level: int, pixels: PixelFormat = RGB8) -> Codec:
    """Return the codec of one level of a pyramid; ``name`` may be that of copied tiles.

    Raises
    ------
    ConfigError
        As `codec` does.
    """
    found = _COPIED.fullmatch(name)
    if found is None:
        return codec(name, pixels)
    if level == 0:
        return _copied_jpeg(name) if found[1] == "jpeg" else _copied_jpeg2000(name)
    return _jpeg(VIEWED, 80, "420") if level < EXACT_LEVEL else codec(OVERVIEW, pixels)


def require_codec(name: str) -> None:
    """Refuse a name that a configuration cannot request.

    Raises
    ------
    ConfigError
        Listing those that it can.
    """
    if name != SOURCE:
        codec(name)


def worst_case_bytes(raw: int) -> int:
    """Bytes that any of these codecs may need for ``raw`` bytes of incompressible pixels."""
    return 2 * raw + 2**16


def codec(name: str, pixels: PixelFormat = RGB8) -> Codec:
    """Return the codec of that name for pixels of a format.

    Raises
    ------
    ConfigError
        For a name that is not in the table above, or one that cannot store such pixels.
    """
    if name == SOURCE:
        raise ConfigError(f"pyramid.codec = {name!r} depends on the slide; settle() says how it is stored.")
    family, _, quality = name.partition("-")
    if name in ("blosc-lz4", "zstd"):
        made = _blosc_lz4(pixels) if name == "blosc-lz4" else _zstd(pixels)
    elif name == "htj2k":
        if pixels.count != 3:
            raise ConfigError(
                f"pyramid.codec = {name!r} stores three channels, and {', '.join(pixels.channels)} are "
                f"{pixels.count}; set blosc-lz4 or zstd for this slide."
            )
        made = _htj2k()
    elif family == "jpeg" and quality.isascii() and quality.isdigit() and 1 <= int(quality) <= 100:
        if not pixels.is_rgb:
            raise ConfigError(
                f"pyramid.codec = {name!r} mixes channels and loses grey levels, which fluorescence is "
                "measured by; set blosc-lz4, zstd or htj2k for this slide."
            )
        made = _jpeg(name, int(quality))
    else:
        raise ConfigError(
            f"pyramid.codec = {name!r}; expected source, blosc-lz4, zstd, htj2k or, with loss, jpeg-1 to "
            "jpeg-100."
        )
    noise = FLUORESCENCE_RATIOS.get(name)
    return made if pixels.is_rgb or not noise else replace(made, tissue_ratio=noise, glass_ratio=noise)


def _to_bytes(pixels: PixelFormat) -> dict[str, Any]:
    """Zarr's codec from numbers to bytes; single bytes have no order."""
    wide = np.dtype(pixels.dtype).itemsize > 1
    return {"name": "bytes", "configuration": {"endian": "little"}} if wide else {"name": "bytes"}


def _blosc_lz4(pixels: PixelFormat) -> Codec:
    size = np.dtype(pixels.dtype).itemsize
    settings = {"cname": "lz4", "clevel": 1, "shuffle": "bitshuffle", "typesize": size, "blocksize": 0}

    def encode(chunk: Pixels, out: Encoded) -> int:
        return len(
            _ic.blosc_encode(
                _planes(chunk),
                level=1,
                compressor="lz4",
                shuffle="bitshuffle",
                typesize=size,
                numthreads=1,
                out=out,
            )
        )

    def decode(data: Any, chunk: Pixels) -> None:
        stated = int.from_bytes(data[12:16], "little")  # c-blosc trusts this size in its header, and reads on
        if stated != len(data):
            raise ValueError(f"Blosc chunk of {len(data)} bytes that says it has {stated}.")
        _fill(chunk, lambda out: len(_ic.blosc_decode(data, numthreads=1, out=out)))

    chain = (_to_bytes(pixels), {"name": "blosc", "configuration": settings})
    return Codec("blosc-lz4", True, chain, encode, decode, tissue_ratio=1.2, glass_ratio=10)


def _zstd(pixels: PixelFormat) -> Codec:
    def encode(chunk: Pixels, out: Encoded) -> int:
        return len(_ic.zstd_encode(_planes(chunk), level=1, out=out))

    def decode(data: Any, chunk: Pixels) -> None:
        _fill(chunk, lambda out: len(_ic.zstd_decode(data, out=out)))

    chain = (_to_bytes(pixels), {"name": "zstd", "configuration": {"level": 1, "checksum": False}})
    return Codec("zstd", True, chain, encode, decode, tissue_ratio=1.3, glass_ratio=15)


def _htj2k() -> Codec:
    settings = {"reversible": True, "rgb": True}

    def encode(chunk: Pixels, out: Encoded) -> int:
        return len(_ic.htj2k_encode(chunk, out=out, **settings))

    def decode(data: Any, chunk: Pixels) -> None:
        _ic.htj2k_decode(data, out=chunk)

    chain = (
        _INTERLEAVED,
        {"name": "imagecodecs_htj2k", "configuration": settings},
    )
    return Codec("htj2k", True, chain, encode, decode, tissue_ratio=2.5, glass_ratio=8)


def _jpeg(name: str, quality: int, subsampling: str = "444") -> Codec:
    settings = {"level": quality, "subsampling": subsampling}

    def encode(chunk: Pixels, out: Encoded) -> int:
        return len(_ic.jpeg8_encode(chunk, out=out, **settings))

    chain = (
        _INTERLEAVED,
        {"name": "imagecodecs_jpeg", "configuration": settings},
    )
    smaller = 1 if subsampling == "444" else 2
    return Codec(
        name, False, chain, encode, _decode_jpeg, tissue_ratio=10 * smaller, glass_ratio=25 * smaller
    )


def _decode_jpeg(data: Any, chunk: Pixels) -> None:
    if bytes(data[-2:]) != _JPEG_END:  # libjpeg would fill what is missing with grey
        raise ValueError("JPEG chunk without an end; it was cut.")
    _ic.jpeg8_decode(data, out=chunk)


def _copied_jpeg(name: str) -> Codec:
    """A slide's own JPEG tiles; one that cannot be copied becomes lossless JPEG (ITU-T T.81, annex H)."""

    def encode(chunk: Pixels, out: Encoded) -> int:
        return len(_ic.jpeg8_encode(chunk, lossless=True, predictor=1, out=out))

    chain = (_INTERLEAVED, {"name": "imagecodecs_jpeg", "configuration": {}})
    return Codec(name, True, chain, encode, _decode_jpeg, tissue_ratio=12, glass_ratio=100)


def _copied_jpeg2000(name: str) -> Codec:
    """A slide's own JPEG 2000 tiles; one that cannot be copied is stored as reversible JPEG 2000."""

    def encode(chunk: Pixels, out: Encoded) -> int:
        stream = _ic.jpeg2k_encode(chunk, level=0, codecformat="j2k", mct=True, reversible=True)
        out[: len(stream)] = np.frombuffer(stream, np.uint8)
        return len(stream)

    def decode(data: Any, chunk: Pixels) -> None:
        if bytes(data[-2:]) != _JPEG_END:
            raise ValueError("JPEG 2000 chunk without an end; it was cut.")
        _ic.jpeg2k_decode(data, numthreads=1, out=chunk)

    chain = (_INTERLEAVED, {"name": "imagecodecs_jpeg2k", "configuration": {}})
    return Codec(name, True, chain, encode, decode, tissue_ratio=12, glass_ratio=100)


def _planes(chunk: Pixels) -> Pixels:
    """A chunk's channels one after the other; a label's chunk, which has none, as it is."""
    if chunk.ndim == 2:
        return chunk
    planes = _room(chunk)
    cv2.split(chunk, list(planes))
    return planes


def _fill(chunk: Pixels, decode: Callable[[Encoded], int]) -> None:
    """Fill a chunk from its channels, which ``decode`` writes one after the other."""
    planes = chunk if chunk.ndim == 2 else _room(chunk)
    decoded = decode(planes.reshape(-1).view(np.uint8))
    if decoded != chunk.nbytes:
        raise ValueError(f"chunk holds {decoded} bytes; expected {chunk.nbytes}.")
    if planes is not chunk:
        cv2.merge(list(planes), dst=chunk)


def _room(chunk: Pixels) -> Pixels:
    """The thread's ``(c, y, x)`` pixels for a chunk of ``(y, x, c)``."""
    height, width, count = chunk.shape
    return _buffers.flat("planes", chunk.nbytes).view(chunk.dtype).reshape(count, height, width)
