"""TIFF slides by their native tiles: Aperio SVS, OME-TIFF, generic tiled and stripped TIFF, classic and Big.

The header is parsed, checked and turned into a tile grid; nothing is decoded before a region is requested.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from her2core.errors import Reason, SlideError
from her2core.readers.base import OpenRequest, SlideReader, choose_scene, focal_planes, time_points, turned
from her2core.readers.bytesource import ByteSource
from her2core.readers.icc import MAX_PROFILE_BYTES
from her2core.readers.jpeg2000 import HEAD_BYTES, jpeg2000_header
from her2core.readers.openslide import LEICA_SCHEMA
from her2core.readers.scale import resolve_scale
from her2core.readers.standalone import NativeTiles, jpeg2000_tiles, jpeg_tiles
from her2core.readers.tiff import ifd as tags
from her2core.readers.tiff.grid import absent_tiles, decoded_once_if_huge, resplit, tile_grid
from her2core.readers.tiff.ifd import Chain, Ifd
from her2core.readers.tiff.pages import size_of
from her2core.readers.tiff.samples import SampleLayout, sample_layout
from her2core.readers.tiff.scenes import ChosenScene, Scene, find_scenes
from her2core.readers.tiff.stack import is_stack, open_stack
from her2core.readers.tilecodecs import (
    TIFF_COMPRESSIONS,
    YCBCR,
    TileDecoder,
    jpeg2000_decoder,
    jpeg_decoder,
    jpegxl_decoder,
    raw_decoder,
    webp_decoder,
)
from her2core.readers.tiled import TiledReader, TileGrid

APERIO_YCBCR = {33003: True, 33005: False}
"""Whether Aperio's JPEG 2000 holds YCbCr, by the TIFF compression."""


class NeedsOpenSlideError(SlideError):
    """A TIFF whose layout is left to OpenSlide (Hamamatsu, Leica, Ventana, Philips, Trestle, ...)."""


def open_tiff(source: ByteSource, request: OpenRequest) -> SlideReader:
    """Reader of a TIFF slide.

    Raises
    ------
    NeedsOpenSlideError
        For vendors' TIFFs whose tiles are not a plain grid.
    SlideError
        For what cannot be read, or should not be.
    """
    chain = tags.read_chain(source)
    vendor = next(filter(None, map(_vendor, chain.ifds)), None)
    if vendor:
        raise NeedsOpenSlideError(
            Reason.FILE_UNREADABLE,
            f"{request.name}: a {vendor} file is read with OpenSlide from a local copy",
        )
    kind, scenes = find_scenes(source, request.name, chain.ifds, fluorescence=request.fluorescence)
    sizes = {scene.name: scene.size for scene in scenes}
    scene = scenes[choose_scene(request.name, sizes, request.scene)]
    _check_left_out(request.name, chain, scene)
    odd = (*chain.problems, *turned(int(scene.planes[0].ratio(tags.ORIENTATION) or 1)))
    if scene.times > 1:
        raise time_points(request.name, scene.times)
    scale = resolve_scale(request.name, request.mpp, scene.scales, request.assay)
    chosen = ChosenScene(scene, kind, sizes, scale)
    if request.fluorescence and is_stack(scene):
        return open_stack(source, request, chosen, odd)
    layout = sample_layout(request.name, scene)
    if scene.foci > 1:
        raise focal_planes(request.name, scene.foci)
    compression, decode, native = _decoder(request.name, layout, aperio=kind == "aperio")
    grid = _grid(source, request.name, layout, compression)
    info = chosen.info(request, grid, compression, (*odd, *layout.problems, *absent_tiles(grid, "glass")))
    profile = layout.pages[0].head(tags.ICC_PROFILE, MAX_PROFILE_BYTES + 1)
    reader = TiledReader(info, source, grid, decode, request.outside, layout.colours, profile, native)
    return decoded_once_if_huge(reader, grid)


def _check_left_out(name: str, chain: Chain, scene: Scene) -> None:
    """Refuse a file whose slide may be among the directories that cannot be read.

    Nothing is missed where the chosen image is tiled, as slides are, and the larger one.
    """
    tiled = scene.planes[0].has(tags.TILE_WIDTH)
    for ifd in chain.ifds:
        if ifd.damaged and _can_be_larger(ifd, scene.size[0] * scene.size[1], tiled=tiled):
            ifd.check()
    if chain.broken and not tiled:
        raise SlideError(
            Reason.FILE_TRUNCATED,
            f"{name}: the link behind its TIFF directory {len(chain.ifds)} is broken, and those before hold "
            "no tiles: the slide may have followed. Transfer or export it again",
        )


def _can_be_larger(ifd: Ifd, area: int, *, tiled: bool) -> bool:
    """Whether a damaged directory can hold as many pixels as an image, that is tiled or not."""
    try:
        height, width = size_of(ifd)
    except SlideError:
        return ifd.has(tags.TILE_WIDTH) or not tiled
    return height * width >= area


def _vendor(page: Ifd) -> str | None:
    """Maker of a TIFF that only OpenSlide reads right, by the marks that OpenSlide itself goes by."""
    if page.has(tags.HAMAMATSU_FORMAT):
        return "Hamamatsu NDPI"
    if b"iScan" in page.head(tags.XMP, 65536):
        return "Ventana"
    description, software = page.head(tags.IMAGE_DESCRIPTION, 4096), page.head(tags.SOFTWARE, 16)
    if LEICA_SCHEMA.encode() in description:
        return "Leica SCN"
    if software.startswith(b"Philips"):
        return "Philips"
    return "Trestle" if software.startswith(b"MedScan") else None


def _grid(source: ByteSource, name: str, layout: SampleLayout, compression: str) -> TileGrid:
    """Tile grid of a scene's level 0, with its declarations checked against the file."""
    page = layout.pages[0]
    grid = tile_grid(
        source,
        name,
        layout.pages,
        samples=1 if layout.separate else layout.samples,
        per_page=layout.samples if layout.separate else 1,
    )
    if layout.planes is not None:
        grid = replace(grid, offsets=grid.offsets[layout.planes], counts=grid.counts[layout.planes])
    if compression == "jpeg2000":
        _check_jpeg2000(source, name, grid)
    if not grid.whole_tiles and compression == "none" and page.number(tags.PREDICTOR, 1) == 1:
        grid = resplit(name, grid)
    return grid


def _decoder(name: str, layout: SampleLayout, *, aperio: bool) -> tuple[str, TileDecoder, NativeTiles | None]:
    """Name of the compression, decoder of a tile, and what makes a tile stand alone."""
    page = layout.pages[0]
    code = page.number(tags.COMPRESSION, 1)
    compression = TIFF_COMPRESSIONS.get(code)
    photometric = page.number(tags.PHOTOMETRIC, -1)
    predictor = page.number(tags.PREDICTOR, 1)
    samples = 1 if layout.separate else layout.samples
    if compression is None:
        raise SlideError(
            Reason.FILE_UNREADABLE,
            f"{name}: TIFF compression {code} is not supported; expected one of {sorted(TIFF_COMPRESSIONS)}",
        )
    if (compression == "jpeg" and samples > 3) or (compression == "webp" and samples not in (3, 4)):
        raise SlideError(
            Reason.FILE_UNREADABLE,
            f"{name}: {compression} of {samples} samples a pixel is not supported. Export the slide as 8-bit "
            "RGB",
        )
    if compression == "jpeg":
        tables = page.data(tags.JPEG_TABLES)
        return compression, jpeg_decoder(photometric, tables or None), jpeg_tiles(photometric, tables)
    if compression == "jpeg2000":
        # Aperio's own codes name the colours they hold; elsewhere the tag does, as it does for JPEG: also
        # where another program has compressed the slide anew and left Aperio's description.
        by_code = APERIO_YCBCR.get(code) if aperio else None
        ycbcr = samples == 3 and (photometric == YCBCR if by_code is None else by_code)
        return compression, jpeg2000_decoder(ycbcr=ycbcr), jpeg2000_tiles(ycbcr=ycbcr)
    if compression == "webp":
        return compression, webp_decoder(), None
    if compression == "jpegxl":
        return compression, jpegxl_decoder(), None
    if photometric == YCBCR or predictor not in (1, 2):
        raise SlideError(
            Reason.FILE_UNREADABLE,
            f"{name}: {compression} with photometric interpretation {photometric} and predictor {predictor}; "
            "expected RGB (2) and 1 or 2. Export the slide as 8-bit RGB",
        )
    return compression, raw_decoder(compression, predictor=predictor == 2), None


def _check_jpeg2000(source: ByteSource, name: str, grid: TileGrid) -> None:
    """Leave subsampled JPEG 2000 to OpenSlide; the first tile decides."""
    first = int(np.flatnonzero(grid.counts)[0])
    head = source.read(int(grid.offsets.flat[first]), min(int(grid.counts.flat[first]), HEAD_BYTES))
    try:
        header = jpeg2000_header(head)
    except ValueError as error:
        raise SlideError(Reason.FILE_UNREADABLE, f"{name}: tile {first}: {error}") from error
    if header.subsampled:
        raise NeedsOpenSlideError(
            Reason.FILE_UNREADABLE, f"{name}: subsampled JPEG 2000 is read with OpenSlide from a local copy"
        )
