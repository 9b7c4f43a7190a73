"""Zarr codecs for images stored as HTJ2K, JPEG or JPEG 2000, where none is installed.

The package ``imagecodecs-zarr`` (Python 3.12 and later) registers codecs of these names, with the same
configuration, for any program. Where it is absent these take their place within this process.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any, Self

import imagecodecs
import numpy as np
from zarr.abc.codec import ArrayBytesCodec
from zarr.core.array_spec import ArraySpec
from zarr.core.buffer import Buffer, NDBuffer
from zarr.core.common import JSON
from zarr.errors import UnknownCodecError
from zarr.registry import get_codec_class, register_codec


def register_image_codecs() -> None:
    """Let zarr-python read ``imagecodecs_htj2k``, ``_jpeg`` and ``_jpeg2k``; safe to call often."""
    for name, kind in KINDS.items():
        try:
            get_codec_class(name)
        except (KeyError, UnknownCodecError):  # Zarr 3.1, and from 3.2
            register_codec(name, kind)


@dataclass(frozen=True)
class _ImageCodec(ArrayBytesCodec):
    """Decodes a chunk's pixels; writing is the pyramid's own business."""

    is_fixed_size = False
    configuration: dict[str, JSON]

    @classmethod
    def from_dict(cls, data: dict[str, JSON]) -> Self:
        configuration = data.get("configuration", {})
        return cls(configuration if isinstance(configuration, dict) else {})

    def compute_encoded_size(self, input_byte_length: int, chunk_spec: ArraySpec) -> int:
        raise NotImplementedError

    async def _decode_single(self, chunk_data: Buffer, chunk_spec: ArraySpec) -> NDBuffer:
        pixels = await asyncio.to_thread(self._pixels, chunk_data.to_bytes(), chunk_spec)
        return chunk_spec.prototype.nd_buffer.from_ndarray_like(pixels)

    def _pixels(self, data: bytes, spec: ArraySpec) -> Any:
        raise NotImplementedError


class Htj2k(_ImageCodec):
    """Reversible HTJ2K of ``(y, x, c)`` pixels."""

    def to_dict(self) -> dict[str, JSON]:
        return {"name": "imagecodecs_htj2k", "configuration": self.configuration}

    def _pixels(self, data: bytes, spec: ArraySpec) -> Any:
        return imagecodecs.htj2k_decode(data, out=np.empty(spec.shape, spec.dtype.to_native_dtype()))


class Jpeg(_ImageCodec):
    """JPEG of ``(y, x, c)`` pixels."""

    def to_dict(self) -> dict[str, JSON]:
        return {"name": "imagecodecs_jpeg", "configuration": self.configuration}

    def _pixels(self, data: bytes, spec: ArraySpec) -> Any:
        return imagecodecs.jpeg8_decode(data, out=np.empty(spec.shape, np.uint8))


class Jpeg2k(_ImageCodec):
    """JPEG 2000 of ``(y, x, c)`` pixels."""

    def to_dict(self) -> dict[str, JSON]:
        return {"name": "imagecodecs_jpeg2k", "configuration": self.configuration}

    def _pixels(self, data: bytes, spec: ArraySpec) -> Any:
        return imagecodecs.jpeg2k_decode(data, numthreads=1, out=np.empty(spec.shape, np.uint8))


KINDS: dict[str, type[_ImageCodec]] = {
    "imagecodecs_htj2k": Htj2k,
    "imagecodecs_jpeg": Jpeg,
    "imagecodecs_jpeg2k": Jpeg2k,
}
"""Our codecs by their names in ``zarr.json``."""
