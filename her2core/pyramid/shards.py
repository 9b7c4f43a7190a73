"""One Zarr v3 shard: encoded chunks one after the other, then their index, then the index's checksum.

References
----------
Zarr ``sharding_indexed`` codec, version 1.0: https://zarr-specs.readthedocs.io/en/latest/v3/codecs/sharding-indexed/
"""

from __future__ import annotations

import google_crc32c
import numpy as np
from numpy.typing import NDArray

from her2core.pixels import Pixels
from her2core.pyramid.codecs import Codec, worst_case_bytes

ABSENT = 2**64 - 1
"""Offset and size that the index holds for a chunk that is not stored: its pixels are the fill value."""
_CHECKSUM_BYTES = 4
_PLAIN_KEPT = 64
"""Encoded one-colour chunks that a writer remembers."""

Index = NDArray[np.uint64]


def index_bytes(side: int) -> int:
    """Length of the index, with its checksum, of a shard of ``side`` x ``side`` chunks."""
    return 16 * side * side + _CHECKSUM_BYTES


def read_index(tail: bytes, side: int) -> Index:
    """Decode the last ``index_bytes(side)`` bytes of a shard.

    Returns
    -------
    ndarray of uint64, shape (side, side, 2)
        Offset and size in bytes of every chunk, row by row; ``ABSENT`` where it is not stored.

    Raises
    ------
    ValueError
        If the length or the checksum does not fit.
    """
    if len(tail) != index_bytes(side):
        raise ValueError(f"shard index of {len(tail)} bytes; expected {index_bytes(side)}.")
    body, stored = tail[:-_CHECKSUM_BYTES], int.from_bytes(tail[-_CHECKSUM_BYTES:], "little")
    if google_crc32c.value(body) != stored:
        raise ValueError(f"shard index with checksum {google_crc32c.value(body):08x}; expected {stored:08x}.")
    return np.frombuffer(body, "<u8").astype(np.uint64).reshape(side, side, 2)


class ShardWriter:
    """Collects the encoded chunks of one shard in a buffer that is kept from shard to shard.

    Glass is cheap: a chunk of one colour is encoded once, and one of the fill value is not stored at all.

    Parameters
    ----------
    side
        Chunks along an edge.
    codec
        How each chunk is encoded.
    fill
        Fill value of the array: 0 or 255.
    """

    def __init__(self, side: int, codec: Codec, fill: int) -> None:
        self._codec = codec
        self._fill = fill
        self._index = np.empty((side, side, 2), "<u8")
        self._buffer = np.empty(0, np.uint8)
        self._used = 0
        self._plain: dict[bytes, bytes] = {}
        self.clear()

    def clear(self) -> None:
        """Begin the next shard."""
        self._used = 0
        self._index.fill(ABSENT)

    def add(self, cy: int, cx: int, chunk: Pixels) -> None:
        """Encode contiguous pixels, ``(y, x, c)`` or ``(y, x)``, as chunk ``(cy, cx)`` of the shard."""
        start = self._used
        colour = _one_colour(chunk)
        if colour is not None and self._is_fill(colour):
            return
        known = self._plain.get(colour) if colour is not None else None
        if known is not None:
            self._append(known)
        else:
            self._reserve(worst_case_bytes(chunk.nbytes))
            self._used += self._codec.encode(chunk, self._buffer[start:])
            if colour is not None and len(self._plain) < _PLAIN_KEPT:
                self._plain[colour] = self._buffer[start : self._used].tobytes()
        self._index[cy, cx] = start, self._used - start

    def put(self, cy: int, cx: int, stream: bytes, pixels: Pixels) -> None:
        """Store an encoded chunk as it is; not one whose ``pixels`` are all of the fill value."""
        colour = _one_colour(pixels)
        if colour is not None and self._is_fill(colour):
            return
        self._index[cy, cx] = self._used, len(stream)
        self._append(stream)

    def _is_fill(self, colour: bytes) -> bool:
        return all(value == self._fill for value in colour)

    def finish(self) -> memoryview:
        """The whole shard; valid until the writer is used again."""
        body = self._index.tobytes()
        self._append(body + google_crc32c.value(body).to_bytes(_CHECKSUM_BYTES, "little"))
        return self._buffer.data[: self._used]

    def _append(self, data: bytes) -> None:
        self._reserve(len(data))
        self._buffer[self._used : self._used + len(data)] = np.frombuffer(data, np.uint8)
        self._used += len(data)

    def _reserve(self, more: int) -> None:
        if self._used + more > self._buffer.size:
            grown = np.empty(max(self._used + more, 2 * self._buffer.size), np.uint8)
            grown[: self._used] = self._buffer[: self._used]
            self._buffer = grown


def _one_colour(chunk: Pixels) -> bytes | None:
    """The colour of a chunk whose pixels are all equal; most chunks are dismissed by their first row."""
    first = chunk[0, :1]
    if (chunk[0] == first).all() and (chunk == chunk[0]).all():
        return first.tobytes()
    return None
