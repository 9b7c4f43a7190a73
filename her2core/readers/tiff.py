"""TIFF slides by their native tiles: Aperio SVS, OME-TIFF, generic tiled and stripped TIFF, classic and Big.

The header is parsed, checked and turned into a tile grid; nothing is decoded before a region is asked for.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from her2core.errors import Reason, SlideError
from her2core.readers import ifd as tags
from her2core.readers.base import NOT_SLIDE_NAMES, Asked, SlideReader, choose_scene
from her2core.readers.bytesource import ByteSource
from her2core.readers.ifd import Ifd
from her2core.readers.image import WholeReader
from her2core.readers.limits import MAX_TILE_PX, MAX_TILES, check_size, check_tile_index, check_whole
from her2core.readers.ome import OmeImage, is_ome, parse_ome
from her2core.readers.scale import Scale, plausible, read_number, resolve_scale
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
REDUCED, MASK = 1, 4  # bits of NewSubfileType
ASPECT_PX = 2
"""Rounding, px, by which a reduced level may differ from the exact fraction."""


class NeedsOpenSlideError(SlideError):
    """A TIFF whose layout is left to OpenSlide (Hamamatsu, Leica, Ventana, Philips, Trestle, ...)."""


@dataclass(frozen=True, slots=True)
class Scene:
    """One slide image of a file.

    Attributes
    ----------
    planes
        One directory with all samples, or one each for red, green and blue.
    levels
        Height and width of every level, finest first.
    """

    name: str
    planes: tuple[Ifd, ...]
    levels: tuple[tuple[int, int], ...]
    scales: tuple[Scale, ...]
    objective_power: float | None


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
    kind, scenes = _scenes(source, asked.name, chain)
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


# scenes and levels


def _scenes(source: ByteSource, name: str, chain: list[Ifd]) -> tuple[str, list[Scene]]:
    description = chain[0].text(tags.IMAGE_DESCRIPTION)
    if is_ome(description):
        return "ome-tiff", _ome_scenes(source, name, chain, description)
    if description.startswith("Aperio"):
        return "aperio", [_aperio_scene(chain, description)]
    return "tiff", _plain_scenes(chain)


def _aperio_scene(chain: list[Ifd], description: str) -> Scene:
    """Aperio: first the slide, then tiled directories as its levels; strips hold thumbnail, label, macro."""
    first = chain[0]
    mpp = _aperio_field(description, "MPP")
    scales = ([Scale("aperio", mpp, mpp)] if mpp else []) + _resolution(first)
    levels = [page for page in chain[1:] if page.has(tags.TILE_WIDTH) and _is_level_of(page, first)]
    return Scene("0", (first,), _sizes([first, *levels]), tuple(scales), _aperio_field(description, "AppMag"))


def _aperio_field(description: str, key: str) -> float | None:
    match = re.search(rf"\|\s*{key}\s*=\s*([^|]*)", description)
    return read_number(match[1]) if match else None


def _ome_scenes(source: ByteSource, name: str, chain: list[Ifd], xml: str) -> list[Scene]:
    images = [image for image in parse_ome(name, xml) if image.is_slide]
    if not images:
        raise SlideError(Reason.NOT_A_SLIDE, f"{name}: its OME-XML names no slide image")
    taken: set[str] = set()
    scenes = []
    for i, image in enumerate(images):
        title = image.name if image.name not in taken else f"{image.name} ({i})"
        taken.add(title)
        scenes.append(_ome_scene(source, name, chain, image, title))
    return scenes


def _ome_scene(source: ByteSource, name: str, chain: list[Ifd], image: OmeImage, title: str) -> Scene:
    wanted = image.channel_ifds or (0,)
    if max(wanted) >= len(chain):
        raise SlideError(
            Reason.FILE_TRUNCATED,
            f"{name}: its OME-XML refers to directory {max(wanted)} of {len(chain)}. Transfer the slide "
            "again",
        )
    if image.sections > 1:
        raise SlideError(
            Reason.FILE_UNREADABLE,
            f"{name}: {image.sections} focal planes or time points; expected one. Export a single plane",
        )
    first = chain[wanted[0]]
    planes: tuple[Ifd, ...] = (first,)
    if first.number(tags.SAMPLES_PER_PIXEL, 1) == 1 and image.channels == 3 and len(wanted) == 3:
        planes = tuple(chain[i] for i in wanted)
    reduced = [s for s in tags.read_sub_ifds(first, tags.is_big(source)) if _is_level_of(s, first)]
    scales = ([image.scale] if image.scale else []) + _resolution(first)
    return Scene(title, planes, _sizes([first, *reduced]), tuple(scales), image.objective_power)


def _plain_scenes(chain: list[Ifd]) -> list[Scene]:
    """Generic TIFF: a directory that is a fraction of an earlier one is its level, any other a scene."""
    tiled = chain[0].has(tags.TILE_WIDTH)
    groups: list[list[Ifd]] = []
    for page in chain:
        if page is not chain[0] and (_is_picture(page) or page.has(tags.TILE_WIDTH) != tiled):
            continue
        parent = next((g for g in groups if _is_level_of(page, g[0])), None)
        if parent is not None:
            parent.append(page)
        elif page is chain[0] or not page.number(tags.NEW_SUBFILE_TYPE) & REDUCED:
            groups.append([page])
    return [
        Scene(str(i), (group[0],), _sizes(group), tuple(_resolution(group[0])), None)
        for i, group in enumerate(groups)
    ]


def _is_picture(page: Ifd) -> bool:
    """Whether a directory is a mask, a label, a macro or a thumbnail picture."""
    kind = page.number(tags.NEW_SUBFILE_TYPE)
    words = page.text(tags.IMAGE_DESCRIPTION)[:1024].lower()
    return bool(kind & MASK) or kind == 9 or any(word in words for word in NOT_SLIDE_NAMES)


def _is_level_of(page: Ifd, first: Ifd) -> bool:
    """Whether ``page`` is ``first`` made smaller, in equal proportion."""
    (h, w), (height, width) = _size(page), _size(first)
    if _is_picture(page) or min(h, w) < 1 or h >= height or w >= width:
        return False
    factor = max(height / h, width / w)
    return abs(height / factor - h) <= ASPECT_PX and abs(width / factor - w) <= ASPECT_PX


def _size(page: Ifd) -> tuple[int, int]:
    return page.number(tags.IMAGE_LENGTH), page.number(tags.IMAGE_WIDTH)


def _sizes(pages: Sequence[Ifd]) -> tuple[tuple[int, int], ...]:
    return (_size(pages[0]), *sorted(map(_size, pages[1:]), reverse=True))


def _resolution(page: Ifd) -> list[Scale]:
    """The resolution tags where they can be a scanner's; 72 or 96 dpi are a printer's."""
    unit_um = {2: 25400.0, 3: 10000.0}.get(page.number(tags.RESOLUTION_UNIT, 2))
    x, y = page.rational(tags.X_RESOLUTION), page.rational(tags.Y_RESOLUTION)
    if unit_um is None or x is None or y is None:
        return []
    scale = Scale("tiff_resolution", unit_um / y, unit_um / x)
    return [scale] if plausible(scale.x_um) and plausible(scale.y_um) else []


# the tile grid


def _grid(source: ByteSource, name: str, scene: Scene) -> tuple[TileGrid, TileDecoder, str, tuple[str, ...]]:
    """Tile grid and decoder of a scene's level 0, with its declarations checked against the file."""
    page = scene.planes[0]
    height, width = _size(page)
    check_size(name, height, width, source.size)
    samples, separate = _samples(name, scene)
    compression, decode = _decoder(name, page, separate)
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
            "tiles, "
            f"the file lists {offsets.size} places and {counts.size} lengths. Export the slide again",
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
    return (
        grid,
        decode,
        compression,
        (f"{absent} of {grid.counts.size} tiles are absent: read as glass",) * bool(absent),
    )


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
        if any(_size(p) != _size(page) or p.tags.keys() != page.tags.keys() for p in scene.planes[1:]):
            raise SlideError(Reason.FILE_UNREADABLE, f"{name}: its three channels differ in size or layout")
        return 3, True
    if photometric not in (RGB, YCBCR) or samples not in (3, 4) or (separate and samples != 3):
        raise SlideError(
            Reason.FILE_UNREADABLE,
            f"{name}: photometric interpretation {photometric} with {samples} samples a pixel; expected RGB "
            "(2) or "
            "YCbCr (6) with 3. Export the slide as 8-bit RGB",
        )
    return samples, separate


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


def _decoder(name: str, page: Ifd, separate: bool) -> tuple[str, TileDecoder]:
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
            "strips "
            f"hold {int(lengths.sum(axis=1).min())}. Transfer the slide again",
        )
    if (starts[:, 1:] != starts[:, :-1] + grid.tile_height * row_bytes).any():
        return grid
    first_rows = np.arange(0, grid.height, STRIP_ROWS, dtype=np.int64)
    rows = np.minimum(STRIP_ROWS, grid.height - first_rows)
    offsets = starts[:, :1] + first_rows * row_bytes
    counts = np.broadcast_to(rows * row_bytes, offsets.shape)
    return replace(grid, tile_height=STRIP_ROWS, offsets=offsets[:, :, None], counts=counts[:, :, None])
