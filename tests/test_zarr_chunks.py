"""What a chunk of a Zarr array unpacks to is known before it is unpacked whole."""

from __future__ import annotations

import bz2
import gzip
import lzma
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from numcodecs import CRC32C, LZ4, Blosc, GZip, Zstd
from zarr.codecs import GzipCodec, ZstdCodec
from zarr.storage import LocalStore

from her2core.errors import Reason, SlideError
from her2core.readers import omezarrmeta, zarr_chunks
from her2core.readers.omezarrmeta import BoundedStore, check_packing
from her2core.readers.zarr_chunks import unpacks_beyond

MOST = 1 << 20


def zstd_of_zeros(size: int) -> bytes:
    """A frame of Zstandard (RFC 8878) without its size: blocks of one byte that is repeated."""
    frame, block = b"\x28\xb5\x2f\xfd\x00\x38", 1 << 17
    for left in range(size, 0, -block):
        frame += (min(left, block) << 3 | 1 << 1 | (left <= block)).to_bytes(3, "little") + b"\0"
    return frame


PACKED: dict[str, Callable[[bytes], bytes]] = {
    "zstd": lambda data: bytes(Zstd().encode(data)),
    "zstd that states no size": lambda data: zstd_of_zeros(len(data)) if not any(data) else b"",
    "blosc": lambda data: bytes(Blosc().encode(data)),
    "gzip": lambda data: bytes(GZip().encode(data)),
    "gzip of several members": lambda data: gzip.compress(data[: MOST - 1]) + gzip.compress(data[MOST - 1 :]),
    "zlib": zlib.compress,
    "bz2": bz2.compress,
    "xz": lzma.compress,
}


@pytest.mark.parametrize("how", PACKED)
def test_what_unpacks_to_more_than_is_read_is_known_and_nothing_else(how: str) -> None:
    assert not unpacks_beyond(PACKED[how](bytes(MOST)), MOST)
    assert unpacks_beyond(PACKED[how](bytes(MOST + 1)), MOST)
    assert not unpacks_beyond(PACKED[how](np.random.default_rng(0).bytes(MOST)), MOST)


def test_what_is_not_packed_passes() -> None:
    whole = np.random.default_rng(0)
    for start in (b"\x1f\x8b", b"BZh9", b"\xfd7zXZ\0", b"\x78\x9c", b""):
        assert not unpacks_beyond(start + bytes(5000), 3000)
        assert not unpacks_beyond(start + whole.bytes(5000), 10_000)
    assert not unpacks_beyond(bytes(LZ4().encode(bytes(100))), MOST)


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("codec", ["gzip", "zstd"])
def test_a_chunk_that_would_fill_memory_is_refused_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: Any, codec: str
) -> None:
    monkeypatch.setattr(zarr_chunks.unpacks_beyond, "__defaults__", (MOST,))
    monkeypatch.setattr(omezarrmeta, "MAX_CHUNK_BYTES", MOST)
    kinds: dict[tuple[int, str], Any] = {
        (2, "gzip"): GZip(), (2, "zstd"): Zstd(), (3, "gzip"): GzipCodec(), (3, "zstd"): ZstdCodec(),
    }  # fmt: skip
    made = zarr.create_array(
        tmp_path / "a", shape=(64, 64), chunks=(32, 32), dtype="u4", zarr_format=version,
        compressors=[kinds[version, codec]], fill_value=0,
    )  # fmt: skip
    made[:] = 7
    array = zarr.open_array(BoundedStore(made.store, "a.zarr"), mode="r")
    check_packing("a.zarr", array)
    assert (array[:] == 7).all()
    chunk = tmp_path / "a" / ("0.1" if version == 2 else "c/0/1")
    chunk.write_bytes(PACKED[codec](bytes(20 * MOST)))
    assert (array[:, :32] == 7).all()
    with pytest.raises(
        SlideError, match=rf"a\.zarr: {chunk.relative_to(tmp_path / 'a')} unpacks to more than"
    ):
        array[:]


@pytest.mark.parametrize("version", [2, 3])
def test_chunks_that_are_packed_twice_are_refused(tmp_path: Path, version: Any) -> None:
    two: dict[str, Any] = (
        {"filters": [GZip()], "compressors": Zstd()}
        if version == 2
        else {"compressors": [GzipCodec(), ZstdCodec()]}
    )
    made = zarr.create_array(tmp_path / "a", shape=(8,), chunks=(4,), dtype="u1", zarr_format=version, **two)
    with pytest.raises(SlideError, match="one behind the other") as caught:
        check_packing("a.zarr", made)
    assert caught.value.reason is Reason.FILE_BEYOND_LIMITS


def test_every_chunk_of_a_shard_is_looked_at(tmp_path: Path) -> None:
    bounded = BoundedStore(LocalStore(tmp_path / "g"), "a.zarr")
    zarr.create_group(tmp_path / "g")
    made = zarr.create_array(
        tmp_path / "g" / "0", shape=(64, 64), chunks=(16, 16), shards=(32, 32), dtype="u4", fill_value=0
    )
    made[:] = 7
    array = zarr.open_group(bounded, mode="r")["0"]
    assert isinstance(array, zarr.Array)
    check_packing("a.zarr", array)
    assert (array[:] == 7).all()
    place = tmp_path / "g" / "0" / "c" / "0" / "1"
    bomb, whole = bytes(Zstd().encode(bytes(20 * MOST))), place.read_bytes()
    index = np.frombuffer(whole[-68:-4], "<u8").copy()
    index[2:4] = 0, len(bomb)  # the second chunk; the others as they were, behind it
    index[[0, 4, 6]] += np.uint64(len(bomb))
    packed = index.tobytes()
    check = bytes(CRC32C().encode(packed))[-4:]
    place.write_bytes(bomb + whole[:-68] + packed + check)
    with pytest.raises(SlideError, match=r"a\.zarr: 0/c/0/1 unpacks to more than"):
        array[:32, 32:]
    assert (array[:16, 32:48] == 7).all()
