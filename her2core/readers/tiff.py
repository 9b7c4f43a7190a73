"""TIFF slides by their native tiles: Aperio SVS, OME-TIFF, generic tiled and stripped TIFF, classic and Big.

The header is parsed, checked and turned into a tile grid; nothing is decoded before a region is asked for.
"""

from __future__ import annotations

import numpy as np

from her2core.errors import Reason, SlideError
from her2core.readers import ifd as tags
from her2core.readers.base import Asked, SlideReader, choose_scene
from her2core.readers.bytesource import ByteSource
from her2core.readers.ifd import Ifd
from her2core.readers.limits import check_size
from her2core.readers.scale import resolve_scale
from her2core.readers.tiffgrid import absent_tiles, decoded_once_if_huge, resplit, same_layout, tile_grid
from her2core.readers.tiffscenes import ChosenScene, Scene, find_scenes, size_of
from her2core.readers.tiffstack import is_stack, open_stack
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
    kind, scenes = find_scenes(source, asked.name, chain, fluorescence=asked.fluorescence)
    names = tuple(scene.name for scene in scenes)
    scene = scenes[choose_scene(asked.name, names, asked.scene)]
    scale = resolve_scale(asked.name, asked.mpp, scene.scales, asked.assay)
    chosen = ChosenScene(scene, kind, names, scale)
    if asked.fluorescence and is_stack(scene):
        return open_stack(source, asked, chosen)
    grid, decode, compression, problems = _grid(source, asked.name, scene)
    info = chosen.info(asked, grid, compression, problems)
    return decoded_once_if_huge(TiledReader(info, source, grid, decode, asked.outside), grid)


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
    check_size(name, *size_of(page), source.size)
    samples, separate = _samples(name, scene)
    compression, decode = _decoder(name, page)
    grid = tile_grid(
        source,
        name,
        scene.planes,
        samples=1 if separate else samples,
        per_page=samples if separate and len(scene.planes) == 1 else 1,
    )
    if compression.startswith("jpeg2000"):
        _check_jpeg2000(source, name, grid)
    if not grid.whole_tiles and compression == "none" and page.number(tags.PREDICTOR, 1) == 1:
        grid = resplit(name, grid)
    return grid, decode, compression, absent_tiles(grid, "glass")


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
            f"{name}: {max(bits, default=0)} bits a sample; expected 8-bit RGB. Export the slide as 8-bit "
            "RGB, or say in the manifest that its assay is HER2-FISH",
        )
    if len(scene.planes) == 3 and samples == 1:
        if not same_layout(scene.planes):
            raise SlideError(Reason.FILE_UNREADABLE, f"{name}: its three channels differ in size or layout")
        return 3, True
    if photometric not in (RGB, YCBCR) or samples not in (3, 4) or (separate and samples != 3):
        raise SlideError(
            Reason.FILE_UNREADABLE,
            f"{name}: photometric interpretation {photometric} with {samples} samples a pixel; expected RGB "
            "(2) or YCbCr (6) with 3. Export the slide as 8-bit RGB",
        )
    return samples, separate


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
