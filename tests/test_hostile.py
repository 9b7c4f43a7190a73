"""Files that lie, break off or are no slides: refused in words, within seconds and little memory."""

from __future__ import annotations

import os
import re
import resource
import shutil
import struct
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
import tifffile
import zarr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from her2core.errors import Reason, SlideError
from her2core.intake.inspect import inspect_slide
from her2core.readers import SlideReader, open_slide
from her2core.readers.limits import MAX_EDGE_PX, MAX_TILES
from her2core.readers.openslide import open_openslide

SECONDS = 10.0
"""Longest time a refusal may take."""
MEMORY_MB = 200
"""Most memory a refusal may add to the process."""

WIDTH, LENGTH, BITS, COMPRESSION, PHOTOMETRIC, STRIPS = 256, 257, 258, 259, 262, 273
SAMPLES, ROWS, STRIP_COUNTS, TILE_WIDTH, TILE_LENGTH, OFFSETS, COUNTS = 277, 278, 279, 322, 323, 324, 325
TEXT, SUB_IFDS = 270, 330


def tiff(tags: dict[int, tuple[int, list[int]]], following: int = 0, data: bytes = b"") -> bytes:
    """A classic TIFF of one directory; ``data`` begins at byte 8, tag values are ``(type, values)``."""
    code = {1: "B", 2: "B", 3: "H", 4: "I"}
    at = 8 + len(data)
    tail_at = at + 2 + 12 * len(tags) + 4
    entries, tail = b"", b""
    for tag, (kind, values) in sorted(tags.items()):
        packed = struct.pack(f"<{len(values)}{code[kind]}", *values)
        if len(packed) > 4:
            entries += struct.pack("<HHII", tag, kind, len(values), tail_at + len(tail))
            tail += packed
        else:
            entries += struct.pack("<HHI", tag, kind, len(values)) + packed.ljust(4, b"\0")
    return (
        b"II*\0"
        + struct.pack("<I", at)
        + data
        + struct.pack("<H", len(tags))
        + entries
        + struct.pack("<I", following)
        + tail
    )


def slide(side: int, tile: int, offsets: list[int], counts: list[int], **more: Any) -> bytes:
    """A tiled RGB TIFF that declares ``side`` x ``side`` px."""
    tags = {
        WIDTH: (4, [side]),
        LENGTH: (4, [side]),
        BITS: (3, [8, 8, 8]),
        COMPRESSION: (3, [more.get("codec", 8)]),
        PHOTOMETRIC: (3, [2]),
        SAMPLES: (3, [3]),
        TILE_WIDTH: (4, [tile]),
        TILE_LENGTH: (4, [tile]),
        OFFSETS: (4, offsets),
        COUNTS: (4, counts),
    }
    return tiff(tags | more.get("tags", {}), more.get("following", 0), more.get("data", b""))


TILE_DATA = zlib.compress(bytes(3 * 256 * 256))
GOOD = {"side": 512, "tile": 256, "data": TILE_DATA * 4}
GOOD_OFFSETS = [8 + i * len(TILE_DATA) for i in range(4)]
GOOD_COUNTS = [len(TILE_DATA)] * 4


def good(**more: Any) -> bytes:
    return slide(offsets=GOOD_OFFSETS, counts=GOOD_COUNTS, **(GOOD | more))


def bombs() -> bytes:
    return zlib.compress(bytes(1 << 27))


HOSTILE: dict[str, tuple[Callable[[], bytes], set[Reason], str]] = {
    "empty": (lambda: b"", {Reason.FILE_EMPTY}, "0 bytes"),
    "one byte": (lambda: b"I", {Reason.NOT_A_SLIDE}, "begins with bytes 49"),
    "text": (lambda: b"slide_id,case_id,uri\nA,B,C\n" * 999, {Reason.NOT_A_SLIDE}, "no slide format"),
    "noise": (lambda: os.urandom(1 << 20), {Reason.FILE_ENCRYPTED}, "encrypted"),
    "openssl": (lambda: b"Salted__" + b"a" * 999, {Reason.FILE_ENCRYPTED}, "Decrypt"),
    "header alone": (lambda: b"II*\0", {Reason.NOT_A_SLIDE, Reason.FILE_TRUNCATED}, ""),
    "no directory": (lambda: b"II*\0\0\0\0\0", {Reason.NOT_A_SLIDE}, "without any image"),
    "directory beyond the end": (
        lambda: b"II*\0\xff\xff\xff\x7f" + bytes(99),
        {Reason.FILE_TRUNCATED},
        "refers to",
    ),
    "65535 tags": (
        lambda: b"II*\0\x08\0\0\0\xff\xff" + bytes(1 << 20),
        {Reason.FILE_UNREADABLE},
        "65535 tags",
    ),
    "no tags": (lambda: b"II*\0\x08\0\0\0" + bytes(99), {Reason.FILE_UNREADABLE}, "0 tags"),
    "huge tag": (
        lambda: good().replace(struct.pack("<HHI", OFFSETS, 4, 4), struct.pack("<HHI", OFFSETS, 4, 1 << 31)),
        {Reason.FILE_TRUNCATED},
        "tag 324 needs",
    ),
    "one shared tile": (
        lambda: slide(200_000, 1024, [8] * 38_416, [len(TILE_DATA)] * 38_416, data=TILE_DATA),
        {Reason.FILE_BEYOND_LIMITS},
        "its 38416 stored tiles would be 120846286848 bytes out of a file of 3",
    ),
    "too wide": (lambda: slide(MAX_EDGE_PX + 1, 256, [8], [9]), {Reason.FILE_BEYOND_LIMITS}, "px an edge"),
    "zero pixels": (lambda: slide(0, 256, [8], [9]), {Reason.FILE_BEYOND_LIMITS}, "0 x 0 px"),
    "zero tile": (lambda: slide(512, 0, [8], [9]), {Reason.FILE_BEYOND_LIMITS}, "tiles of 0 x 0"),
    "giant tile": (lambda: slide(512, 1 << 16, [8], [9]), {Reason.FILE_BEYOND_LIMITS}, "tiles of 65536"),
    "more tiles than bytes": (
        lambda: slide(4000, 1, [8], [9]),
        {Reason.FILE_BEYOND_LIMITS},
        f"accepted are {MAX_TILES}",
    ),
    "fewer tiles than pixels": (lambda: good(side=3000), {Reason.FILE_TRUNCATED}, "need 144 tiles"),
    "no tile index": (
        lambda: tiff(
            {
                WIDTH: (4, [64]),
                LENGTH: (4, [64]),
                BITS: (3, [8, 8, 8]),
                PHOTOMETRIC: (3, [2]),
                SAMPLES: (3, [3]),
            }
        ),
        {Reason.FILE_UNREADABLE},
        "tile index, is missing",
    ),
    "truncated": (lambda: good()[: 8 + len(TILE_DATA)] + bytes(20), {Reason.FILE_TRUNCATED}, ""),
    "tiles beyond the end": (
        lambda: slide(512, 256, [8, 8 + len(TILE_DATA), 1 << 20, 1 << 21], GOOD_COUNTS, data=TILE_DATA * 4),
        {Reason.FILE_TRUNCATED},
        "2 of 4 tiles lie beyond",
    ),
    "no tile present": (
        lambda: slide(512, 256, [0] * 4, [0] * 4),
        {Reason.FILE_TRUNCATED},
        "none of its 4 tiles",
    ),
    "overlong tile": (
        lambda: slide(256, 256, [8], [1 << 21], data=bytes(1 << 22)),
        {Reason.FILE_BEYOND_LIMITS},
        "stored in 2097152",
    ),
    "short strips": (
        lambda: tiff(
            {
                WIDTH: (4, [900]),
                LENGTH: (4, [900]),
                BITS: (3, [8, 8, 8]),
                PHOTOMETRIC: (3, [2]),
                SAMPLES: (3, [3]),
                STRIPS: (4, [8]),
                ROWS: (4, [900]),
                STRIP_COUNTS: (4, [5000]),
            },
            data=bytes(5000),
        ),
        {Reason.FILE_TRUNCATED},
        "the strips hold 5000",
    ),
    "entities": (
        lambda: good(tags={TEXT: (2, list(b'<?xml?><!DOCTYPE a [<!ENTITY b "c">]><OME>&b;</OME>\0'))}),
        {Reason.FILE_UNREADABLE},
        "entities",
    ),
    "xml of many elements": (
        lambda: good(tags={TEXT: (2, list(b"<OME>" + b"<Image>" * 300_000 + b"\0"))}),
        {Reason.FILE_BEYOND_LIMITS},
        "elements",
    ),
    "deep xml": (
        lambda: good(
            tags={TEXT: (2, list(b"<OME>" + b"<Image>" * 90_000 + b"</Image>" * 90_000 + b"</OME>\0"))}
        ),
        {Reason.NOT_A_SLIDE},
        "no slide image",
    ),
    "broken xml": (
        lambda: good(tags={TEXT: (2, list(b"<OME><Image Name='Jane Doe'>\0"))}),
        {Reason.FILE_UNREADABLE},
        "parse",
    ),
    "png of no size": (
        lambda: b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + bytes(8) + b"\x08\x02\0\0\0",
        {Reason.FILE_BEYOND_LIMITS},
        "0 x 0",
    ),
    "png bomb": (
        lambda: b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + struct.pack(">II", 50_000, 50_000) + b"\x08\x02\0\0\0",
        {Reason.FILE_BEYOND_LIMITS},
        "50000 x 50000",
    ),
    "large png": (
        lambda: (
            b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"
            + struct.pack(">II", 12_000, 12_000)
            + b"\x08\x02\0\0\0"
            + bytes(1 << 20)
        ),
        {Reason.FILE_BEYOND_LIMITS},
        "without tiles",
    ),
    "jpeg without frame": (
        lambda: b"\xff\xd8\xff\xe0" + bytes(999),
        {Reason.FILE_UNREADABLE},
        "frame header",
    ),
    "not dicom after all": (
        lambda: bytes(128) + b"DICM" + bytes(5000),
        {Reason.FILE_UNREADABLE, Reason.NOT_A_SLIDE},
        "",
    ),
}


@pytest.fixture(autouse=True)
def within_bounds() -> Iterator[None]:
    before, started = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()
    yield
    assert time.monotonic() - started < SECONDS
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024 < MEMORY_MB


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("suffix", [".svs", ".ndpi"])
def test_refused_at_opening(tmp_path: Path, name: str, suffix: str) -> None:
    make, reasons, says = HOSTILE[name]
    picture = suffix == ".svs" and name.startswith(
        ("png", "large png", "jpeg")
    )  # under a slide's name: a preview
    path = tmp_path / ("a.png" if picture else f"a{suffix}")
    path.write_bytes(make())
    with pytest.raises(SlideError) as error:
        open_slide(path)
    assert str(path) in error.value.message
    assert "Doe" not in error.value.message
    if suffix == ".svs":
        assert error.value.reason in reasons
        assert says in error.value.message


def test_the_good_file_behind_the_bad_ones_opens(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    path.write_bytes(good())
    out = np.full((512, 512, 3), 9, np.uint8)
    open_slide(path).read_region(0, 0, out)
    assert not out.any()


OME_TEXT = list(
    b"<OME><Image><Pixels SizeX='512' SizeY='512' SizeC='3' SizeZ='1' SizeT='1' Type='uint8'>"
    b"<TiffData IFD='0'/></Pixels></Image></OME>\0"
)
DIRECTORY_AT = 8 + 4 * len(TILE_DATA)


def with_second(entries: list[tuple[int, int, int, int]]) -> bytes:
    """The good file and a second directory of raw entries: tag, type, count, value."""
    first = good()
    link = DIRECTORY_AT + 2 + 12 * struct.unpack_from("<H", first, DIRECTORY_AT)[0]
    second = struct.pack("<H", len(entries)) + b"".join(struct.pack("<HHII", *e) for e in entries)
    return first[:link] + struct.pack("<I", len(first)) + first[link + 4 :] + second + bytes(4)


TOLERATED: dict[str, tuple[Callable[[], bytes], str]] = {
    "link beyond the end": (lambda: good(following=1 << 30), "directory 1 is broken"),
    "link to the first directory": (lambda: good(following=DIRECTORY_AT), "directory 1 is broken"),
    "link into pixels": (lambda: good(following=10), "directory 1 is broken"),
    "link to the last byte": (lambda: good(following=len(good()) - 1), "directory 1 is broken"),
    "label without its description": (
        lambda: with_second([(254, 4, 1, 0), (WIDTH, 4, 1, 90), (LENGTH, 4, 1, 90), (TEXT, 2, 99, 1 << 30)]),
        "directory 2 is damaged",
    ),
    "label without its strips": (
        lambda: with_second([(254, 4, 1, 0), (WIDTH, 4, 1, 9), (LENGTH, 4, 1, 9), (STRIPS, 4, 99, 1 << 30)]),
        "directory 2 is damaged",
    ),
    "label of impossible width": (
        lambda: with_second([(254, 4, 1, 0), (WIDTH, 5, 1, 90), (LENGTH, 4, 1, 90)]),
        "directory 2 is damaged",
    ),
    "private tag beyond the end": (lambda: good(tags={65001: (4, [7, 7])}).replace(
        struct.pack("<HHI", 65001, 4, 2), struct.pack("<HHI", 65001, 4, 1 << 30)), ""),
    "sub-directory loop": (
        lambda: good(tags={TEXT: (2, OME_TEXT), SUB_IFDS: (4, [DIRECTORY_AT] * 2)}), ""),
    "sub-directory beyond the end": (
        lambda: good(tags={TEXT: (2, OME_TEXT), SUB_IFDS: (4, [1 << 30])}), ""),
}  # fmt: skip


@pytest.mark.parametrize("name", TOLERATED)
def test_damage_beside_the_slide_is_told_and_its_pixels_are_read(tmp_path: Path, name: str) -> None:
    make, says = TOLERATED[name]
    path = tmp_path / "a.tif"
    path.write_bytes(make())
    with open_slide(path, mpp=0.25) as reader:
        assert reader.info.scenes == ("0",)
        assert [says in problem for problem in reader.info.problems] == ([True] if says else [])
        read_first(reader)


def test_a_slide_that_may_be_what_is_damaged_is_not_replaced_by_another_picture(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    path.write_bytes(
        with_second([(254, 4, 1, 0), (WIDTH, 4, 1, 9000), (LENGTH, 4, 1, 9000), (OFFSETS, 4, 99, 1 << 30)])
    )
    with pytest.raises(SlideError, match="tag 324 needs"):
        open_slide(path)
    thumbnail = {
        WIDTH: (4, [90]),
        LENGTH: (4, [90]),
        BITS: (3, [8, 8, 8]),
        PHOTOMETRIC: (3, [2]),
        SAMPLES: (3, [3]),
        STRIPS: (4, [8]),
        STRIP_COUNTS: (4, [3 * 90 * 90]),
    }
    path.write_bytes(tiff(thumbnail, following=1 << 30, data=bytes(3 * 90 * 90)))
    with pytest.raises(SlideError, match="the slide may have followed"):
        open_slide(path)


def test_a_damaged_first_directory_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    data = good(tags={TEXT: (2, list(b"Aperio|MPP = 0.25\0"))})
    path.write_bytes(data.replace(struct.pack("<HHI", TEXT, 2, 18), struct.pack("<HHI", TEXT, 2, 1 << 30)))
    with pytest.raises(SlideError, match="tag 270 needs") as error:
        open_slide(path)
    assert error.value.reason is Reason.FILE_TRUNCATED


def test_inspect_finds_what_would_end_the_run(tmp_path: Path) -> None:
    """Tiles that a transfer left as zeros, and a lower edge that does not decode, far from any field."""
    lit = imagecodecs.jpeg8_encode(np.full((64, 64, 3), 240, np.uint8))
    count = 50 * 50
    for bad, data, says in (
        (
            7 * 50 + 3,
            bytes(len(lit)),
            "tile row 7 column 3 does not begin as jpeg does, nor do 0 others of 2500",
        ),
        (49 * 50 + 20, lit[: len(lit) // 2] + bytes(len(lit) - len(lit) // 2), "tile row 49"),
    ):
        stored = [lit] * count
        for i in range(49 * 50, count) if bad > 49 * 50 else [bad]:
            stored[i] = data
        offsets = [8 + i * len(lit) for i in range(count)]
        path = tmp_path / "a.tif"
        path.write_bytes(slide(3200, 64, offsets, [len(lit)] * count, codec=7, data=b"".join(stored)))
        assert inspect_slide(path, mpp=0.25, header_only=True).height == 3200
        with pytest.raises(SlideError, match=says):
            inspect_slide(path, mpp=0.25)


def test_tiles_may_be_stored_once_and_shared(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    lit = zlib.compress(b"\x63" * (3 * 256 * 256))
    offsets = [8 + len(TILE_DATA)] + [8] * 255
    lengths = [len(lit)] + [len(TILE_DATA)] * 255
    path.write_bytes(slide(4096, 256, offsets, lengths, data=TILE_DATA + lit))
    out = np.full((1000, 4096, 3), 9, np.uint8)
    open_slide(path).read_region(0, 0, out)
    assert (out[:256, :256] == 0x63).all()
    assert not out[256:].any()
    assert not out[:, 256:].any()


def test_a_tile_without_a_place_is_absent_whatever_its_length(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    path.write_bytes(slide(512, 256, [0, *GOOD_OFFSETS[1:]], GOOD_COUNTS, data=TILE_DATA * 4))
    with open_slide(path, mpp=0.25) as reader:
        assert reader.info.problems == ("1 of 4 tiles are absent: read as glass",)
        read_first(reader)


def test_tiles_under_the_tags_of_strips_and_without_lengths(tmp_path: Path) -> None:
    """Writers of the 1990s; libtiff reads them."""
    path = tmp_path / "a.tif"
    streams = [zlib.compress(bytes([i]) * (3 * 256 * 256)) for i in range(4)]
    offsets = [8 + sum(map(len, streams[:i])) for i in range(4)]
    base = {
        WIDTH: (4, [512]),
        LENGTH: (4, [512]),
        BITS: (3, [8, 8, 8]),
        COMPRESSION: (3, [8]),
        PHOTOMETRIC: (3, [2]),
        SAMPLES: (3, [3]),
        TILE_WIDTH: (4, [256]),
        TILE_LENGTH: (4, [256]),
    }
    for index in (
        {STRIPS: (4, offsets), STRIP_COUNTS: (4, list(map(len, streams)))},
        {STRIPS: (4, offsets), COUNTS: (4, list(map(len, streams)))},
        {OFFSETS: (4, offsets)},
        {OFFSETS: (4, [*offsets, 999, 999]), COUNTS: (4, [*map(len, streams), 7, 7])},
    ):
        path.write_bytes(tiff(base | index, data=b"".join(streams)))
        with open_slide(path) as reader:
            out = np.full((512, 512, 3), 9, np.uint8)
            reader.read_region(0, 0, out)
        assert [int(out[y, x, 0]) for y in (100, 400) for x in (100, 400)] == [0, 1, 2, 3]


def test_absent_strips_without_compression_are_glass(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    tags = {
        WIDTH: (4, [90]),
        LENGTH: (4, [90]),
        BITS: (3, [8, 8, 8]),
        PHOTOMETRIC: (3, [2]),
        SAMPLES: (3, [3]),
        ROWS: (4, [45]),
        STRIPS: (4, [8, 0]),
        STRIP_COUNTS: (4, [3 * 90 * 45, 0]),
    }
    path.write_bytes(tiff(tags, data=bytes(3 * 90 * 45)))
    with open_slide(path) as reader:
        out = np.full((90, 90, 3), 9, np.uint8)
        reader.read_region(0, 0, out)
    assert not out[:45].any()
    assert (out[45:] == 255).all()


def test_absent_tiles_are_not_counted(tmp_path: Path) -> None:
    """A slide of 7.9 GB of pixels of which a file of 0.3 MB holds two tiles."""
    path = tmp_path / "a.tif"
    offsets, lengths = [0] * 40_000, [0] * 40_000
    offsets[0], lengths[0] = 8, len(TILE_DATA)
    offsets[-1], lengths[-1] = 8 + len(TILE_DATA), len(TILE_DATA)
    path.write_bytes(slide(51_200, 256, offsets, lengths, data=TILE_DATA * 2))
    with open_slide(path, mpp=0.25) as reader:
        assert reader.info.problems == ("39998 of 40000 tiles are absent: read as glass",)
        out = np.empty((300, 300, 3), np.uint8)
        reader.read_region(51_200 - 300, 51_200 - 300, out)
    assert (out[:44] == 255).all()
    assert not out[44:, 44:].any()


@pytest.mark.parametrize("codec", [50000, 33005, 50001])
def test_blank_tiles_may_be_tiny(tmp_path: Path, codec: int) -> None:
    """144 white tiles of 1024 px: 27 000 times the bytes that they are stored in."""
    white = np.full((1024, 1024, 3), 255, np.uint8)
    data = {
        50000: lambda: imagecodecs.zstd_encode(white.tobytes()),
        33005: lambda: imagecodecs.jpeg2k_encode(white, level=0, codecformat="j2k"),
        50001: lambda: imagecodecs.webp_encode(white, lossless=True),
    }[codec]()
    path = tmp_path / "a.tif"
    offsets = [8 + i * len(data) for i in range(144)]
    path.write_bytes(slide(12_288, 1024, offsets, [len(data)] * 144, codec=codec, data=data * 144))
    with open_slide(path) as reader:
        out = np.zeros((64, 1100, 3), np.uint8)
        reader.read_region(1000, 1000, out)
    assert (out == 255).all()


def test_a_chain_without_end_is_refused(tmp_path: Path) -> None:
    entry = struct.pack("<HHII", WIDTH, 4, 1, 9)
    ring = b"".join(struct.pack("<H", 1) + entry + struct.pack("<I", 8 + 18 * (i + 1)) for i in range(6000))
    path = tmp_path / "a.tif"
    path.write_bytes(b"II*\0\x08\0\0\0" + ring + bytes(64))
    with pytest.raises(SlideError, match="more than 4096 TIFF directories"):
        open_slide(path)


def test_folders_and_missing_files(tmp_path: Path) -> None:
    with pytest.raises(SlideError, match="neither OME-Zarr nor DICOM") as error:
        open_slide(tmp_path)
    assert error.value.reason is Reason.NOT_A_SLIDE
    for missing in (tmp_path / "none.svs", tmp_path / "a.svs" / "b"):
        with pytest.raises(SlideError, match="no such file") as error:
            open_slide(missing)
        assert error.value.reason is Reason.FILE_MISSING
    with pytest.raises(SlideError, match="unknown scheme"):
        open_slide("ftp://host/a.svs")


def test_a_file_without_permission(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(SlideError, match="permission denied") as error:
        open_slide(tmp_path / "a.svs")
    assert error.value.reason is Reason.FILE_UNREADABLE


# tiles that turn out bad when they are read


def read_first(reader: SlideReader, size: int = 64) -> None:
    reader.read_region(0, 0, np.empty((size, size, 3), np.uint8))


BAD_TILES: dict[str, tuple[int, Callable[[], bytes], Reason]] = {
    "deflate bomb": (8, bombs, Reason.FILE_UNREADABLE),
    "zstd bomb": (50000, lambda: imagecodecs.zstd_encode(bytes(1 << 28)), Reason.FILE_UNREADABLE),
    "short deflate": (8, lambda: zlib.compress(b"abc"), Reason.FILE_TRUNCATED),
    "short raw": (1, lambda: bytes(999), Reason.FILE_TRUNCATED),
    "noise as deflate": (8, lambda: b"\x11" * 999, Reason.FILE_UNREADABLE),
    "noise as lzw": (5, lambda: b"\xa7\x3c" * 999, Reason.FILE_UNREADABLE),
    "noise as jpeg": (7, lambda: b"\x11" * 999, Reason.FILE_TRUNCATED),
    "cut jpeg": (
        7,
        lambda: imagecodecs.jpeg8_encode(np.random.default_rng(0).integers(0, 255, (256, 256, 3), np.uint8))[
            :9000
        ],
        Reason.FILE_TRUNCATED,
    ),
    "jpeg of another size": (
        7,
        lambda: imagecodecs.jpeg8_encode(np.zeros((512, 512, 3), np.uint8)),
        Reason.FILE_UNREADABLE,
    ),
    "jpeg of 65 000 px": (
        7,
        lambda: re.sub(
            rb"\xff\xc0\x00\x11\x08....",
            b"\xff\xc0\x00\x11\x08\xfd\xe8\xfd\xe8",
            imagecodecs.jpeg8_encode(np.zeros((256, 256, 3), np.uint8)),
            flags=re.DOTALL,
        ),
        Reason.FILE_UNREADABLE,
    ),
}


@pytest.mark.parametrize("name", BAD_TILES)
def test_a_bad_tile_is_named_and_its_output_bounded(tmp_path: Path, name: str) -> None:
    codec, make, reason = BAD_TILES[name]
    data = make()
    path = tmp_path / "a.tif"
    path.write_bytes(slide(256, 256, [8], [len(data)], codec=codec, data=data))
    with open_slide(path) as reader, pytest.raises(SlideError, match="tile row 0 column 0") as error:
        read_first(reader)
    assert error.value.reason is reason
    assert str(path) in error.value.message


def test_an_lzw_bomb_fills_its_tile_and_no_more(tmp_path: Path) -> None:
    data = imagecodecs.lzw_encode(bytes(1 << 24))
    path = tmp_path / "a.tif"
    path.write_bytes(slide(256, 256, [8], [len(data)], codec=5, data=data))
    with open_slide(path) as reader:
        read_first(reader)


def test_a_jpeg2000_tile_of_another_size_is_refused(tmp_path: Path) -> None:
    stream = bytearray(
        imagecodecs.jpeg2k_encode(np.zeros((256, 256, 3), np.uint8), codecformat="j2k", level=0)
    )
    path = tmp_path / "a.tif"
    stream[8:16] = struct.pack(">II", 60_000, 60_000)
    path.write_bytes(slide(256, 256, [8], [len(stream)], codec=33005, data=bytes(stream)))
    with open_slide(path) as reader, pytest.raises(SlideError, match="60000, 60000"):
        read_first(reader)
    path.write_bytes(slide(256, 256, [8], [999], codec=33005, data=bytes(999)))
    with pytest.raises(SlideError, match="no JPEG 2000 codestream"):
        open_slide(path)


def test_a_file_cut_while_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    path.write_bytes(good())
    with open_slide(path) as reader:
        os.truncate(path, 100)
        with pytest.raises(SlideError, match="incomplete") as error:
            read_first(reader)
    assert error.value.reason is Reason.FILE_TRUNCATED


@pytest.mark.parametrize("kind", ["jpeg", "png"])
def test_plain_images_cut_short(tmp_path: Path, kind: str) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (300, 300, 3), np.uint8)
    whole = imagecodecs.jpeg8_encode(pixels) if kind == "jpeg" else imagecodecs.png_encode(pixels)
    path = tmp_path / "a"
    path.write_bytes(whole[: len(whole) // 2])
    with open_slide(path) as reader, pytest.raises(SlideError, match="cannot be decoded") as error:
        read_first(reader)
    assert error.value.reason in (Reason.FILE_TRUNCATED, Reason.FILE_UNREADABLE)


def test_a_vendor_file_that_openslide_refuses(tmp_path: Path) -> None:
    path = tmp_path / "a.ndpi"
    path.write_bytes(good(tags={65420: (4, [1])}))
    with pytest.raises(SlideError) as error:
        open_slide(path)
    assert error.value.reason is Reason.FILE_UNREADABLE
    assert str(path) in error.value.message


def test_openslide_error_mid_way_names_the_place(tmp_path: Path) -> None:
    from her2core.readers.base import OpenRequest

    path = tmp_path / "a.tif"
    pixels = np.random.default_rng(0).integers(0, 255, (512, 512, 3), np.uint8)
    tifffile.imwrite(path, pixels, tile=(256, 256), compression="zlib", photometric="rgb", metadata=None)
    with tifffile.TiffFile(path) as file:
        start, length = file.pages[0].dataoffsets[0], file.pages[0].databytecounts[0]
    with path.open("r+b") as raw:
        raw.seek(start)
        raw.write(b"\x11" * length)
    with (
        open_openslide(path, OpenRequest("a.tif", "1-x", 1)) as reader,
        pytest.raises(SlideError, match="x 0, y 0"),
    ):
        read_first(reader)


def test_omezarr_that_lies(tmp_path: Path) -> None:
    scale = [{"type": "scale", "scale": [1, 0.25, 0.25]}]
    axes = [{"name": "c"}, {"name": "y", "unit": "micrometer"}, {"name": "x", "unit": "micrometer"}]
    content = {
        "version": "0.5",
        "multiscales": [{"axes": axes, "datasets": [{"path": "0", "coordinateTransformations": scale}]}],
    }
    for shape, chunk, dtype, says in (
        ((3, 1 << 20, 1 << 20), 512, "u1", "declares 1048576"),
        ((3, 60_000, 60_000), 60_000, "u1", "chunks of"),
        ((3, 512, 512), 512, "u2", "uint16 pixels"),
        ((4, 512, 512), 512, "u1", "expected one plane with axes c"),
    ):
        shutil.rmtree(tmp_path / "a.zarr", ignore_errors=True)
        group = zarr.open_group(tmp_path / "a.zarr", mode="w", zarr_format=3)
        group.create_array("0", shape=shape, chunks=(shape[0], chunk, chunk), dtype=dtype)
        group.attrs["ome"] = content
        with pytest.raises(SlideError, match=says):
            open_slide(tmp_path / "a.zarr")
    (tmp_path / "a.zarr" / "zarr.json").write_text("{ not json")
    with pytest.raises(SlideError, match="metadata cannot be read"):
        open_slide(tmp_path / "a.zarr")


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), min_size=1, max_size=6))
def test_any_damage_to_a_header_is_read_or_refused(tmp_path: Path, changes: list[tuple[int, int]]) -> None:
    """A byte changed anywhere gives pixels or a SlideError, never another exception."""
    header = bytearray(good(tags={TEXT: (2, list(b"Aperio|MPP = 0.25|AppMag = 40\0"))}))
    start = 8 + 4 * len(TILE_DATA)
    for at, value in changes:
        place = at % (len(header) - start + 8)
        header[place if place < 8 else start + place - 8] = value
    path = tmp_path / "a.svs"
    path.write_bytes(header)
    with suppress(SlideError), open_slide(path, identity="1-x") as reader:
        read_first(reader)
