"""Codecs give back what they were given, and a shard is what the Zarr specification says it is."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from her2core.errors import ConfigError
from her2core.pyramid import ngff
from her2core.pyramid.codecs import codec
from her2core.pyramid.shards import ABSENT, ShardWriter, index_bytes, read_index
from her2core.readers.zarr_codecs import register_image_codecs

LOSSLESS = ("blosc-lz4", "zstd", "htj2k")


def pixels(edge: int, seed: int, kind: str) -> np.ndarray:
    rng = np.random.default_rng(seed)
    if kind == "noise":
        return rng.integers(0, 256, (edge, edge, 3), dtype=np.uint8)
    if kind == "flat":
        return np.full((edge, edge, 3), rng.integers(0, 256, 3), np.uint8)
    ramp = np.add.outer(np.arange(edge), np.arange(edge))[..., None] + rng.integers(0, 9, (edge, edge, 3))
    return (ramp % 256).astype(np.uint8)


@pytest.mark.parametrize("name", LOSSLESS)
@given(
    edge=st.sampled_from([2, 4, 8, 16, 32, 64]),
    seed=st.integers(0, 2**32 - 1),
    kind=st.sampled_from(["noise", "flat", "smooth"]),
)
@settings(max_examples=150, deadline=None)
def test_lossless_codecs_return_every_pixel(name: str, edge: int, seed: int, kind: str) -> None:
    chunk, how = pixels(edge, seed, kind), codec(name)
    room = np.empty(2 * chunk.nbytes + 2**16, np.uint8)
    used = how.encode(chunk, room)
    back = np.zeros_like(chunk)
    how.decode(room[:used].tobytes(), back)
    assert np.array_equal(back, chunk)


def test_jpeg_quality_is_what_was_asked() -> None:
    chunk, errors, sizes = pixels(64, 1, "smooth"), [], []
    for quality in (50, 90, 100):
        how, room, back = codec(f"jpeg-{quality}"), np.empty(2**17, np.uint8), np.empty_like(chunk)
        sizes.append(how.encode(chunk, room))
        how.decode(room[: sizes[-1]].tobytes(), back)
        errors.append(float(np.abs(back.astype(int) - chunk).mean()))
    assert sizes[0] < sizes[1] < sizes[2]
    assert errors[0] > errors[1] > errors[2]
    assert not codec("jpeg-90").lossless


@pytest.mark.parametrize("name", ["lzw", "jpeg", "jpeg-0", "jpeg-101", "jpeg-x", "jpegxl", ""])
def test_unknown_codec_is_refused_with_the_list(name: str) -> None:
    with pytest.raises(ConfigError, match=r"blosc-lz4, zstd, htj2k"):
        codec(name)


@pytest.mark.parametrize("name", [*LOSSLESS, "jpeg-90"])
def test_only_core_codecs_go_without_imagecodecs(name: str) -> None:
    assert codec(name).needs_imagecodecs == (name in ("htj2k", "jpeg-90"))


@pytest.mark.parametrize("name", [*LOSSLESS, "jpeg-95"])
def test_zarr_reads_a_shard(name: str, tmp_path: Path) -> None:
    register_image_codecs()
    edge, side, how = 32, 4, codec(name)
    writer = ShardWriter(side, how, 255)
    want = np.full((side * edge, side * edge, 3), 255, np.uint8)
    for (cy, cx), kind in {(0, 0): "noise", (3, 1): "smooth", (2, 2): "flat", (1, 3): "smooth"}.items():
        chunk = pixels(edge, 10 * cy + cx, kind)
        writer.add(cy, cx, chunk)
        want[cy * edge : (cy + 1) * edge, cx * edge : (cx + 1) * edge] = chunk
    (tmp_path / "c/0/0").mkdir(parents=True)
    (tmp_path / "c/0/0/0").write_bytes(writer.finish())
    document = ngff.image_array((side * edge, side * edge), edge, side * edge, how)
    (tmp_path / "zarr.json").write_text(json.dumps(document))
    got = np.moveaxis(np.asarray(zarr.open_array(tmp_path, mode="r")[:]), 0, -1)
    if how.lossless:
        assert np.array_equal(got, want)
    else:
        assert np.abs(got.astype(int) - want)[edge:].mean() < 4  # noise is in the first row of chunks


def test_glass_is_stored_once_or_not_at_all() -> None:
    edge, writer = 64, ShardWriter(2, codec("zstd"), 255)
    writer.add(0, 0, np.full((edge, edge, 3), 255, np.uint8))
    writer.add(0, 1, np.full((edge, edge, 3), 243, np.uint8))
    one = len(writer.finish())
    writer.clear()
    writer.add(0, 1, np.full((edge, edge, 3), 243, np.uint8))
    writer.add(1, 0, np.full((edge, edge, 3), 243, np.uint8))
    shard = bytes(writer.finish())
    index = read_index(shard[-index_bytes(2) :], 2)
    assert index[0, 0, 0] == index[1, 1, 0] == ABSENT
    first, second = (shard[s : s + n] for s, n in (index[0, 1], index[1, 0]))
    assert first == second
    assert len(shard) == one + len(first)


def test_shards_do_not_remember_the_one_before() -> None:
    writer = ShardWriter(2, codec("zstd"), 255)
    chunk = pixels(16, 3, "noise")
    writer.add(1, 1, chunk)
    before = bytes(writer.finish())
    writer.clear()
    writer.add(0, 0, pixels(16, 4, "noise"))
    writer.finish()
    writer.clear()
    writer.add(1, 1, chunk)
    assert bytes(writer.finish()) == before


def test_damaged_index_is_noticed() -> None:
    writer = ShardWriter(2, codec("zstd"), 255)
    writer.add(0, 0, pixels(16, 5, "noise"))
    tail = bytearray(writer.finish())[-index_bytes(2) :]
    read_index(bytes(tail), 2)
    tail[5] ^= 1
    with pytest.raises(ValueError, match="checksum"):
        read_index(bytes(tail), 2)
    with pytest.raises(ValueError, match="67 bytes; expected 68"):
        read_index(bytes(tail[1:]), 2)


@pytest.mark.parametrize("name", [*LOSSLESS, "jpeg-90"])
@pytest.mark.parametrize("edge", [16, 64])
def test_a_chunk_of_another_size_is_refused(name: str, edge: int) -> None:
    how, room = codec(name), np.empty(2**17, np.uint8)
    used = how.encode(pixels(edge, 6, "smooth"), room)
    guarded = np.full((34, 32, 3), 7, np.uint8)  # what is written past the chunk would show in the last rows
    with pytest.raises((ValueError, RuntimeError)):
        how.decode(room[:used].tobytes(), guarded[:32])
    assert (guarded[32:] == 7).all()


@pytest.mark.parametrize("name", [*LOSSLESS, "jpeg-90"])
def test_a_cut_chunk_is_refused(name: str) -> None:
    how, room = codec(name), np.empty(2**17, np.uint8)
    used = how.encode(pixels(32, 6, "noise"), room)
    with pytest.raises((ValueError, RuntimeError)):
        how.decode(room[: used // 2].tobytes(), np.empty((32, 32, 3), np.uint8))
