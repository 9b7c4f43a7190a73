"""Plain JPEG and PNG as slides of one level: decoded once, at the first read, and kept."""

from __future__ import annotations

import struct
import threading
from collections.abc import Callable

import imagecodecs
import numpy as np

from her2core.errors import Reason, SlideError
from her2core.pixels import PixelFormat, Pixels
from her2core.readers import jpegfile
from her2core.readers.base import Closing, OpenRequest, choose_scene, clip_region, composite, turned
from her2core.readers.bytesource import ByteSource
from her2core.readers.icc import png_profile, with_profile
from her2core.readers.limits import check_size, check_whole
from her2core.readers.scale import resolve_scale
from her2core.readers.tilecodecs import YCBCR, ShortTileError, jpeg_decoder
from her2core.records import LevelInfo, SlideInfo

PNG_MAGIC = b"\x89PNG\r\n\x1a\n"
JPEG_MAGIC = b"\xff\xd8\xff"
HEADER_BYTES = 1 << 20
"""How far into a JPEG its size is looked for, bytes; ICC and EXIF segments come before it."""

MAX_CHUNKS = 256
"""Chunks of a PNG before its pixels that are looked at; writers make a dozen. Ours."""


class WholeReader(Closing):
    """Reader of an image that can only be decoded whole.

    Parameters
    ----------
    load
        Gives all pixels, ``(height, width, channel)``; called once, at the first read.
    icc_profile
        The file's colour profile, empty where it has none.
    """

    def __init__(
        self,
        info: SlideInfo,
        load: Callable[[], Pixels],
        close: Callable[[], None] = lambda: None,
        icc_profile: bytes = b"",
    ) -> None:
        self.info = with_profile(info, icc_profile)
        self.icc_profile = icc_profile
        self._load = load
        self._close = close
        self._pixels: Pixels | None = None
        self._lock = threading.Lock()

    def read_region(self, y0: int, x0: int, out: Pixels) -> None:
        box = clip_region(y0, x0, out, self.info.height, self.info.width, PixelFormat.of(self.info).outside)
        if box is None:
            return
        with self._lock:
            if self._pixels is None:
                self._pixels = self._load()
            pixels = self._pixels
        out[box.y0 - y0 : box.y1 - y0, box.x0 - x0 : box.x1 - x0] = pixels[box.y0 : box.y1, box.x0 : box.x1]

    @property
    def held_bytes(self) -> int:
        """Bytes of decoded pixels kept between reads."""
        return 0 if self._pixels is None else self._pixels.nbytes

    def close(self) -> None:
        self._pixels = None
        self._close()


def is_plain_image(head: bytes) -> bool:
    """Whether a file that begins with ``head`` is a JPEG or PNG."""
    return head.startswith((PNG_MAGIC, JPEG_MAGIC))


def open_image(source: ByteSource, request: OpenRequest) -> WholeReader:
    """Reader of a JPEG or PNG file.

    Raises
    ------
    SlideError
        ``FILE_UNREADABLE`` for anything but 8-bit RGB, ``FILE_BEYOND_LIMITS`` beyond the pixel cap.
    """
    name = request.name
    is_png = source.read(0, min(8, source.size)) == PNG_MAGIC
    head = source.read(0, min(source.size, HEADER_BYTES))
    height, width, load = _png(source, head, request.outside) if is_png else _jpeg(source, head)
    check_size(name, height, width, source.size)
    check_whole(name, height, width)
    choose_scene(name, {"0": (height, width)}, request.scene)
    scale = resolve_scale(name, request.mpp, (), request.assay)
    info = SlideInfo(
        uri=name,
        identity=request.identity,
        size_bytes=request.size_bytes,
        format="png" if is_png else "jpeg",
        reader="image",
        levels=(LevelInfo(height, width, 1.0),),
        tile_height=height,
        tile_width=width,
        compression="deflate" if is_png else "jpeg",
        mpp=scale.mpp,
        mpp_source=scale.source,
        scenes=("0",),
        scene=request.scene,
        objective_power=None,
        problems=(*scale.problems, *(() if is_png else turned(jpegfile.orientation(head)))),
    )
    return WholeReader(info, load, source.close, png_profile(head) if is_png else jpegfile.icc_profile(head))


def _png(source: ByteSource, head: bytes, outside: int) -> tuple[int, int, Callable[[], Pixels]]:
    """Size and loader of a PNG, from its IHDR chunk (ISO/IEC 15948, 11.2.2)."""
    if len(head) < 29 or head[12:16] != b"IHDR":
        raise SlideError(Reason.FILE_UNREADABLE, f"{source.name}: a PNG without header. Transfer it again")
    width, height, depth, colour = struct.unpack(">IIBB", head[16:26])
    if depth != 8 or colour not in (2, 6):
        raise SlideError(
            Reason.FILE_UNREADABLE,
            f"{source.name}: PNG of colour type {colour} with {depth} bits; expected 8-bit RGB (2) or RGBA "
            "(6). Export it as one of these",
        )
    samples = 4 if colour == 6 or _names_transparent(source) else 3

    def load() -> Pixels:
        stored = np.empty((height, width, samples), np.uint8)
        try:
            imagecodecs.png_decode(source.read(0, source.size), out=stored)
        except (RuntimeError, ValueError) as error:
            raise _broken(source, error) from error
        if samples == 3:
            return stored
        pixels = np.empty((height, width, 3), np.uint8)
        composite(stored, (outside, outside, outside), pixels)
        return pixels

    return height, width, load


def _names_transparent(source: ByteSource) -> bool:
    """Whether a PNG names a transparent colour: a chunk tRNS before its pixels (ISO/IEC 15948, 11.3.2)."""
    at = len(PNG_MAGIC)
    for _ in range(MAX_CHUNKS):
        header = source.read(at, 8) if at + 8 <= source.size else b""
        if len(header) < 8 or header[4:] in (b"IDAT", b"IEND"):
            return False
        if header[4:] == b"tRNS":
            return True
        at += 12 + int.from_bytes(header[:4], "big")
    return False


def _jpeg(source: ByteSource, head: bytes) -> tuple[int, int, Callable[[], Pixels]]:
    """Size and loader of a JPEG, from its frame header (ITU-T T.81, B.2.2)."""
    frame = jpegfile.frame_of(head)
    if frame is None:
        raise SlideError(
            Reason.FILE_UNREADABLE, f"{source.name}: a JPEG without frame header. Transfer it again"
        )
    height, width, bits, components = frame
    if bits != 8 or components != 3:
        raise SlideError(
            Reason.FILE_UNREADABLE,
            f"{source.name}: JPEG of {components} components with {bits} bits; expected 8-bit RGB. Export it "
            "as that",
        )

    def load() -> Pixels:
        pixels = np.empty((height, width, 3), np.uint8)
        try:
            jpeg_decoder(YCBCR)(memoryview(source.read(0, source.size)), pixels)
        except (RuntimeError, ValueError) as error:
            raise _broken(source, error) from error
        return pixels

    return height, width, load


def _broken(source: ByteSource, error: Exception) -> SlideError:
    reason = Reason.FILE_TRUNCATED if isinstance(error, ShortTileError) else Reason.FILE_UNREADABLE
    return SlideError(reason, f"{source.name}: cannot be decoded ({error}). Transfer or export it again")
