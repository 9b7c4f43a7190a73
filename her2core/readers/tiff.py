"""TIFF slides by their native tiles: Aperio SVS, OME-TIFF, generic tiled and stripped TIFF, classic and Big.

The header is parsed, checked and turned into a tile grid; nothing is decoded before a region is asked for.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from her2core.errors import Reason, SlideError
from her2core.readers import ifd as tags
from her2core.readers.base import Asked, SlideReader, choose_scene
from her2core.readers.bytesource import ByteSource
from her2core.readers.ifd import Ifd
from her2core.readers.image import WholeReader
from her2core.readers.limits import MAX_TILE_PX, MAX_TILES, check_size, check_tile_index, check_whole
from her2core.readers.scale import resolve_scale
from her2core.readers.tiffscenes import Scene, find_scenes, size_of
from her2core.readers.tilecodecs import (
    RGB,
    TIFF_COMPRESSIONS,
    YCBCR,
    TileDecoder,
    jpeg2000_decoder,
    jpeg2000_size,
    jpeg_decoder,
    raw_decoder,
)
from her2core.readers.tiled import TiledReader, TileGrid
from her2core.records import LevelInfo, SlideInfo

STRIP_ROWS = 64
"""Rows that uncompressed strips are read in, whatever their stored height."""
LAYOUT_TAGS = (
    tags.IMAGE_LENGTH, tags.IMAGE_WIDTH, tags.BITS_PER_SAMPLE, tags.SAMPLES_PER_PIXEL, tags.COMPRESSION,
    tags.PREDICTOR, tags.TILE_LENGTH, tags.TILE_WIDTH, tags.ROWS_PER_STRIP,
)  # fmt: skip


class NeedsOpenSlideError(SlideError):
    """A TIFF whose layout is left to OpenSlide (Hamamatsu, Leica, Ventana, Philips, Trestle, ...)."""


def open_tiff(source: ByteSource, asked: Asked) -> SlideReader:
    """Reader of a TIFF slide.

    Raises
    ------
    NeedsOpenSlideError
        For vendors' TIFFs whose tiles are not a plain grid.
    SlideError
        For what cannot be read, or should not be.
    """
    chain = tags.read_chain(source)
    vendor = _vendor(chain[0])
    if vendor:
        raise NeedsOpenSlideError(
            Reason.FILE_UNREADABLE, f"{asked.name}: a {vendor} file is read with OpenSlide from a local copy"
        )
    kind, scenes = find_scenes(source, asked.name, chain)
    names = tuple(scene.name for scene in scenes)
    scene = scenes[choose_scene(asked.name, names, asked.scene)]
    scale = resolve_scale(asked.name, asked.mpp, scene.scales)
    grid, decode, compression, problems = _grid(source, asked.name, scene)
    info = SlideInfo(
        uri=asked.name,
        identity=asked.identity,
        size_bytes=asked.size_bytes,
        format=kind,
        reader="tiff",
        levels=tuple(LevelInfo(h, w, grid.width / w) for h, w in scene.levels),
        tile_height=grid.tile_height,
        tile_width=grid.tile_width,
        compression=compression,
        mpp=scale.mpp,
        mpp_source=scale.source,
        scenes=names,
        scene=scene.name if len(names) > 1 or asked.scene else None,
        objective_power=scene.objective_power,
        assay_guess=None,
        problems=(*scale.problems, *problems),
    )
    reader = TiledReader(info, source, grid, decode)
    if grid.tile_height * grid.tile_width > MAX_TILE_PX:  # one huge compressed strip: decode it once
        check_whole(asked.name, grid.height, grid.width)
        return WholeReader(info, lambda: _all_pixels(reader), close=reader.close)
    return reader


def _all_pixels(reader: TiledReader) -> npt.NDArray[np.uint8]:
    pixels = np.empty((reader.info.height, reader.info.width, 3), np.uint8)
    reader.read_region(0, 0, pixels)
    return pixels


def _vendor(first: Ifd) -> str | None:
    """Maker of a TIFF that only OpenSlide reads right, by the marks that OpenSlide itself goes by."""
    if first.has(tags.HAMAMATSU_FORMAT):
        return "Hamamatsu NDPI"
    if b"iScan" in first.data(tags.XMP)[:65536]:
        return "Ventana"
    description, software = first.text(tags.IMAGE_DESCRIPTION)[:4096], first.text(tags.SOFTWARE)
    if "www.leica-microsystems.com/scn" in description:
        return "Leica SCN"
    if software.startswith("Philips"):
        return "Philips"
    return "Trestle" if software.startswith("MedScan") else None


def _grid(source: ByteSource, name: str, scene: Scene) -> tuple[TileGrid, TileDecoder, str, tuple[str, ...]]:
    """Tile grid and decoder of a scene's level 0, with its declarations checked against the file."""
    page = scene.planes[0]
    height, width = size_of(page)
    check_size(name, height, width, source.size)
    samples, separate = _samples(name, scene)
    compression, decode = _decoder(name, page)
    stripped = not page.has(tags.TILE_WIDTH)
    tile_h, tile_w = _tile_size(name, page, height, width)
    rows, columns = -(-height // tile_h), -(-width // tile_w)
    planes = samples if separate else 1
    if rows * columns * planes > MAX_TILES:
        raise SlideError(
            Reason.FILE_HOSTILE, f"{name}: declares {rows * columns * planes} tiles; accepted are {MAX_TILES}"
        )
    offset_tag, count_tag = (
        (tags.STRIP_OFFSETS, tags.STRIP_BYTE_COUNTS)
        if stripped
        else (tags.TILE_OFFSETS, tags.TILE_BYTE_COUNTS)
    )
    offsets = np.concatenate([p.index(offset_tag) for p in scene.planes])
    counts = np.concatenate([p.index(count_tag) for p in scene.planes])
    if not offsets.size == counts.size == rows * columns * planes:
        raise SlideError(
            Reason.FILE_TRUNCATED,
            f"{name}: {width} x {height} px in tiles of {tile_w} x {tile_h} need {rows * columns * planes} "
            f"tiles, the file lists {offsets.size} places and {counts.size} lengths. Export the slide again",
        )
    stored = 1 if separate else samples
    check_tile_index(name, offsets, counts, tile_h * tile_w * stored, source.size)
    shape = (planes, rows, columns)
    grid = TileGrid(
        height=height,
        width=width,
        tile_height=tile_h,
        tile_width=tile_w,
        offsets=offsets.astype(np.int64).reshape(shape),
        counts=counts.astype(np.int64).reshape(shape),
        samples=stored,
        whole_tiles=not stripped,
    )
    if compression.startswith("jpeg2000"):
        _check_jpeg2000(source, name, grid)
    if stripped and compression == "none" and page.number(tags.PREDICTOR, 1) == 1:
        grid = _resplit(name, grid)
    absent = int((grid.counts == 0).sum())
    odd = (f"{absent} of {grid.counts.size} tiles are absent: read as glass",) if absent else ()
    return grid, decode, compression, odd


def _samples(name: str, scene: Scene) -> tuple[int, bool]:
    """Samples of a pixel and whether each lies in a plane of its own; refuses all but 8-bit RGB(A)."""
    page = scene.planes[0]
    samples = page.number(tags.SAMPLES_PER_PIXEL, 1)
    bits = set(page.ints(tags.BITS_PER_SAMPLE, (1,)))
    photometric = page.number(tags.PHOTOMETRIC, -1)
    separate = page.number(tags.PLANAR_CONFIGURATION, 1) == 2
    if bits != {8} or page.number(tags.SAMPLE_FORMAT, 1) != 1:
        raise SlideError(
            Reason.FILE_UNREADABLE,
            f"{name}: {max(bits)} bits a sample; expected 8-bit RGB. Export the slide as 8-bit RGB",
        )
    if len(scene.planes) == 3 and samples == 1:
        if any(_layout(p) != _layout(page) for p in scene.planes[1:]):
            raise SlideError(Reason.FILE_UNREADABLE, f"{name}: its three channels differ in size or layout")
        return 3, True
    if photometric not in (RGB, YCBCR) or samples not in (3, 4) or (separate and samples != 3):
        raise SlideError(
            Reason.FILE_UNREADABLE,
            f"{name}: photometric interpretation {photometric} with {samples} samples a pixel; expected RGB "
            "(2) or YCbCr (6) with 3. Export the slide as 8-bit RGB",
        )
    return samples, separate


def _layout(page: Ifd) -> list[tuple[int, ...]]:
    """What the directories of three channels must have in common to share one tile grid."""
    return [page.ints(tag) for tag in LAYOUT_TAGS]


def _tile_size(name: str, page: Ifd, height: int, width: int) -> tuple[int, int]:
    if not page.has(tags.TILE_WIDTH):
        return min(page.number(tags.ROWS_PER_STRIP, height) or height, height), width
    tile_h, tile_w = page.number(tags.TILE_LENGTH), page.number(tags.TILE_WIDTH)
    if not (tile_h >= 1 and tile_w >= 1 and tile_h * tile_w <= MAX_TILE_PX):
        raise SlideError(
            Reason.FILE_HOSTILE,
            f"{name}: tiles of {tile_w} x {tile_h} px; accepted are 1 to {MAX_TILE_PX} px",
        )
    return tile_h, tile_w


def _decoder(name: str, page: Ifd) -> tuple[str, TileDecoder]:
    code = page.number(tags.COMPRESSION, 1)
    compression = TIFF_COMPRESSIONS.get(code)
    photometric = page.number(tags.PHOTOMETRIC, -1)
    predictor = page.number(tags.PREDICTOR, 1)
    if compression is None:
        raise SlideError(
            Reason.FILE_UNREADABLE,
            f"{name}: TIFF compression {code} is not supported; expected one of {sorted(TIFF_COMPRESSIONS)}",
        )
    if compression == "jpeg":
        return compression, jpeg_decoder(photometric, page.data(tags.JPEG_TABLES) or None)
    if compression.startswith("jpeg2000"):
        return compression, jpeg2000_decoder(ycbcr=compression == "jpeg2000-ycbcr")
    if photometric == YCBCR or predictor not in (1, 2):
        raise SlideError(
            Reason.FILE_UNREADABLE,
            f"{name}: {compression} with photometric interpretation {photometric} and predictor {predictor}; "
            "expected RGB (2) and 1 or 2. Export the slide as 8-bit RGB",
        )
    return compression, raw_decoder(compression, predictor=predictor == 2)


def _check_jpeg2000(source: ByteSource, name: str, grid: TileGrid) -> None:
    """Leave subsampled JPEG 2000 to OpenSlide; the first tile tells."""
    first = int(np.flatnonzero(grid.counts)[0])
    head = source.read(int(grid.offsets.flat[first]), min(int(grid.counts.flat[first]), 512))
    try:
        *_, subsampled = jpeg2000_size(head)
    except ValueError as error:
        raise SlideError(Reason.FILE_UNREADABLE, f"{name}: tile {first}: {error}") from error
    if subsampled:
        raise NeedsOpenSlideError(
            Reason.FILE_UNREADABLE, f"{name}: subsampled JPEG 2000 is read with OpenSlide from a local copy"
        )


def _resplit(name: str, grid: TileGrid) -> TileGrid:
    """Cut uncompressed strips that lie end to end into low ones: a region reads little but its own rows."""
    row_bytes = grid.width * grid.samples
    starts, lengths = grid.offsets[:, :, 0], grid.counts[:, :, 0]
    if (lengths.sum(axis=1) < grid.height * row_bytes).any():
        raise SlideError(
            Reason.FILE_TRUNCATED,
            f"{name}: {grid.width} x {grid.height} px uncompressed need {grid.height * row_bytes} bytes, the "
            f"strips hold {int(lengths.sum(axis=1).min())}. Transfer the slide again",
        )
    if (starts[:, 1:] != starts[:, :-1] + grid.tile_height * row_bytes).any():
        return grid
    first_rows = np.arange(0, grid.height, STRIP_ROWS, dtype=np.int64)
    rows = np.minimum(STRIP_ROWS, grid.height - first_rows)
    offsets = starts[:, :1] + first_rows * row_bytes
    counts = np.broadcast_to(rows * row_bytes, offsets.shape)
    return replace(grid, tile_height=STRIP_ROWS, offsets=offsets[:, :, None], counts=counts[:, :, None])
