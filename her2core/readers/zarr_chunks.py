"""How far a chunk of a Zarr array may unpack, found out before Zarr unpacks it whole.

Zarr's decoders write as much as a chunk holds, whatever the array's shape: a chunk of some megabytes can fill
any memory. Formats that state what they hold are taken at their word, to which their decoders keep; others
are unpacked into nothing first, where so few bytes can hold so much.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import math
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import imagecodecs
import numpy as np

MAX_CHUNK_BYTES = 1 << 29
"""Most decoded bytes of a chunk, which memory holds whole: 2^26 numbers of 64 bits (537 MB). Ours."""
DEFLATE_RATIO = 1032
"""Most bytes that one of deflate unpacks to (zlib's documentation)."""
EXPANDING = frozenset({"blosc", "bz2", "gzip", "lz4", "lzma", "packbits", "pcodec", "zfpy", "zlib", "zstd"})
"""Codecs of Zarr by which a chunk takes fewer bytes."""
_SLACK = 8
"""How many times its numbers' bytes a chunk of a shard may unpack to. Ours: filters may change their type."""
_PIECE = 1 << 20
"""Bytes that are unpacked at a time. Ours."""
_GZIP, _ZSTD, _BZ2, _XZ = b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"BZh", b"\xfd7zXZ\0"


def unpacks_beyond(data: bytes, most: int = MAX_CHUNK_BYTES) -> bool:
    """Whether the bytes of a chunk, packed in whichever of the usual ways, hold more than so many."""
    if data.startswith(_ZSTD):
        return _zstd_beyond(data, most)
    if len(data) >= 16 and int.from_bytes(data[12:16], "little") == len(data):  # Blosc states both
        return int.from_bytes(data[4:8], "little") > most
    if data.startswith(_BZ2):
        return _beyond(_file_pieces(bz2.BZ2File(BytesIO(data))), most)
    if data.startswith(_XZ):
        return _beyond(_file_pieces(lzma.LZMAFile(BytesIO(data))), most)
    if len(data) <= most // DEFLATE_RATIO:
        return False  # as far as deflate goes
    if data.startswith(_GZIP):
        return _beyond(_file_pieces(gzip.GzipFile(fileobj=BytesIO(data))), most)
    if data.startswith(b"\x78") and int.from_bytes(data[:2], "big") % 31 == 0:  # zlib (RFC 1950)
        return _beyond(_zlib_pieces(data), most)
    return False


@dataclass(frozen=True, slots=True)
class Shard:
    """How a shard of an array lists its chunks (Zarr's codec ``sharding_indexed``).

    Attributes
    ----------
    chunks
        Chunks of a shard.
    most
        Most bytes that one of them may unpack to.
    """

    chunks: int
    most: int
    checked: bool
    at_end: bool

    def unpacks_beyond(self, data: bytes) -> bool:
        """Whether any chunk of a whole shard holds more than it may."""
        size = 16 * self.chunks
        end = len(data) - 4 * self.checked if self.at_end else size
        index = np.frombuffer(data[max(end - size, 0) : end], "<u8")
        if len(index) != 2 * self.chunks:
            return False  # cut short: Zarr reports it
        places = [(start, start + length) for start, length in index.reshape(-1, 2).tolist()]
        return any(unpacks_beyond(data[start:end], self.most) for start, end in places if end <= len(data))


def shard_of(metadata: Mapping[str, Any], bytes_a_number: int) -> Shard | None:
    """How an array's shards list their chunks; None if it has none.

    Raises
    ------
    ValueError
        If it is a way that is not read.
    """
    codecs = metadata.get("codecs", ())
    if not any(codec["name"] == "sharding_indexed" for codec in codecs):
        return None
    about = codecs[0].get("configuration") or {}
    index = [str(codec["name"]) for codec in about.get("index_codecs", ())]
    nested = any(codec["name"] == "sharding_indexed" for codec in about.get("codecs", ()))
    if len(codecs) > 1 or nested or index not in (["bytes"], ["bytes", "crc32c"]):
        raise ValueError("shards in shards, or with other codecs around them or for their index")
    shard, chunk = metadata["chunk_grid"]["configuration"]["chunk_shape"], about["chunk_shape"]
    count = math.prod(whole // part for whole, part in zip(shard, chunk, strict=True))
    most = min(_SLACK * math.prod(chunk) * bytes_a_number + 65_536, MAX_CHUNK_BYTES)
    return Shard(count, most, len(index) > 1, about.get("index_location", "end") == "end")


def expanding_codecs(metadata: Mapping[str, Any]) -> list[str]:
    """Codecs of an array, one behind the other, by which its chunks take fewer bytes, of Zarr 2 or 3."""
    if "codecs" not in metadata:
        each = [metadata.get("compressor"), *(metadata.get("filters") or ())]
        return [one["id"] for one in each if one and one.get("id") in EXPANDING]
    return list(_named(metadata["codecs"]))


def _named(codecs: Iterable[Mapping[str, Any]]) -> Iterable[str]:
    for codec in codecs:
        name = str(codec["name"]).removeprefix("numcodecs.")
        if name in EXPANDING:
            yield name
        yield from _named((codec.get("configuration") or {}).get("codecs", ()))  # of a shard


def _zstd_beyond(data: bytes, most: int) -> bool:
    """Of Zstandard (RFC 8878): what the frame states, or else what it unpacks to."""
    about = data[4] if len(data) > 4 else 0
    alone, dictionary = about >> 5 & 1, (0, 1, 2, 4)[about & 3]
    length = (alone, 2, 4, 8)[about >> 6]
    start = 5 + (1 - alone) + dictionary
    if length:
        return int.from_bytes(data[start : start + length], "little") > most
    try:
        imagecodecs.zstd_decode(data, out=most)
    except imagecodecs.ZstdError as error:
        return "too small" in str(error)
    return False


def _file_pieces(packed: bz2.BZ2File | gzip.GzipFile | lzma.LZMAFile) -> Iterator[bytes]:
    """What a packed file unpacks to, also of several behind one another."""
    while piece := packed.read(_PIECE):
        yield piece


def _zlib_pieces(data: bytes) -> Iterator[bytes]:
    unpacking = zlib.decompressobj()
    while piece := unpacking.decompress(data, _PIECE):
        yield piece
        data = unpacking.unconsumed_tail


def _beyond(pieces: Iterator[bytes], most: int) -> bool:
    total = 0
    try:
        for piece in pieces:
            total += len(piece)
            if total > most:
                return True
    except (EOFError, OSError, lzma.LZMAError, zlib.error):
        pass  # cut short, or not packed so after all: its decoder refuses it, or another one reads it
    return False
