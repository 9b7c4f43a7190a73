"""Fluorescence TIFFs: channels and focal planes as directories or as samples, 8 or 16 bits."""

from __future__ import annotations

import sys
from dataclasses import replace

from her2core.errors import Reason, SlideError
from her2core.readers.base import OpenRequest, SlideReader
from her2core.readers.bytesource import ByteSource
from her2core.readers.channels import MAX_CHANNELS, MAX_PLANES, RGB_NAMES, ChannelMap, map_channels
from her2core.readers.tiff import ifd as tags
from her2core.readers.tiff.grid import absent_tiles, decoded_once_if_huge, resplit, same_layout, tile_grid
from her2core.readers.tiff.ifd import Ifd
from her2core.readers.tiff.scenes import ChosenScene, Scene
from her2core.readers.tilecodecs import (
    RGB,
    TIFF_COMPRESSIONS,
    YCBCR,
    TileDecoder,
    jpeg2000_decoder,
    jpeg_decoder,
    jpegxl_decoder,
    raw_decoder,
)
from her2core.readers.tiled import StackReader

BLACK_IS_ZERO = 1
"""TIFF PhotometricInterpretation of grey levels that are light."""
UNSIGNED = 1
"""TIFF SampleFormat."""


def is_stack(scene: Scene) -> bool:
    """Whether a scene is anything but one picture in 8-bit colour."""
    page = scene.planes[0]
    colours = page.number(tags.PHOTOMETRIC, -1) in (RGB, YCBCR)
    colours = colours and page.number(tags.SAMPLES_PER_PIXEL, 1) >= 3
    colours = colours and set(page.ints(tags.BITS_PER_SAMPLE, (1,))) == {8}
    return not colours or sum(map(len, scene.stack)) > 1


def open_stack(
    source: ByteSource, request: OpenRequest, chosen: ChosenScene, odd: tuple[str, ...] = ()
) -> SlideReader:
    """Reader of the requested channels, at their maximum over the focal planes.

    Parameters
    ----------
    odd
        What is odd about the file's directories.

    Raises
    ------
    SlideError
        ``CHANNELS_UNKNOWN``, ``PIXELS_UNSUPPORTED``, or for what cannot or should not be read.
    """
    name, scene, page = request.name, chosen.scene, chosen.scene.planes[0]
    samples = page.number(tags.SAMPLES_PER_PIXEL, 1)
    channels, foci = max(len(scene.stack), samples), len(scene.stack[0])
    dtype = _dtype(name, [p for planes in scene.stack for p in planes])
    _check_counts(name, scene, samples)
    mapped = map_channels(name, request.channels, _names(scene, page, channels))
    separate = samples > 1 and page.number(tags.PLANAR_CONFIGURATION, 1) == 2
    if samples > 1:
        pages = list(scene.stack[0])
    else:
        pages = [p for source_channel in mapped.sources for p in scene.stack[source_channel]]
    if not same_layout(pages):
        raise SlideError(Reason.FILE_UNREADABLE, f"{name}: its channels differ in size or layout")
    compression, decode = _decoder(name, page, dtype, separate or samples == 1)
    grid = tile_grid(
        source,
        name,
        pages,
        samples=1 if separate else samples,
        per_page=samples if separate else 1,
        dtype=dtype,
    )
    if not grid.whole_tiles and compression == "none" and page.number(tags.PREDICTOR, 1) == 1:
        grid = resplit(name, grid)
    seen = (f"{foci} focal planes: each pixel is their maximum",) if foci > 1 else ()
    info = replace(
        chosen.info(request, grid, compression, (*odd, *absent_tiles(grid, "dark"), *seen)),
        channels=mapped.names,
        dtype=dtype,
        z_planes=foci,
        source_channels=str(mapped),
    )
    reader = StackReader(info, source, grid, decode, _uses(mapped, foci, samples, separate))
    return decoded_once_if_huge(reader, grid)


def _uses(chosen: ChannelMap, foci: int, samples: int, separate: bool) -> list[list[tuple[int, int]]]:
    """Which stored sample of each plane goes to which channel."""
    if samples == 1:
        return [[(0, channel)] for channel in range(len(chosen.names)) for _ in range(foci)]
    places = {source: channel for channel, source in enumerate(chosen.sources)}
    if separate:
        one = [[(0, places[s])] if s in places else [] for s in range(samples)]
    else:
        one = [list(places.items())]
    return one * foci


def _names(scene: Scene, page: Ifd, channels: int) -> list[str]:
    """What the channels are called; the samples of a picture in colour are red, green and blue."""
    if len(scene.stack) == 1 and page.number(tags.PHOTOMETRIC, -1) == RGB:
        return [*RGB_NAMES, *[""] * channels][:channels]
    return [*(channel.name for channel in scene.channels), *[""] * channels][:channels]


def _check_counts(name: str, scene: Scene, samples: int) -> None:
    channels, foci = len(scene.stack), len(scene.stack[0])
    if channels > 1 and samples > 1:
        raise SlideError(
            Reason.PIXELS_UNSUPPORTED,
            f"{name}: {channels} directories of {samples} samples; expected channels as directories or as "
            "samples, not both. Export it as OME-TIFF",
        )
    if max(channels, samples) > MAX_CHANNELS or channels * samples * foci > MAX_PLANES:
        raise SlideError(
            Reason.FILE_BEYOND_LIMITS,
            f"{name}: declares {max(channels, samples)} channels in {foci} focal planes; accepted are "
            f"{MAX_CHANNELS} channels and {MAX_PLANES} planes in all",
        )


def _dtype(name: str, pages: list[Ifd]) -> str:
    """Type of the samples.

    Raises
    ------
    SlideError
        ``PIXELS_UNSUPPORTED`` for all but unsigned 8 and 16 bits of light.
    """
    bits = {b for page in pages for b in page.ints(tags.BITS_PER_SAMPLE, (1,))}
    kinds = {k for page in pages for k in page.ints(tags.SAMPLE_FORMAT, (UNSIGNED,))}
    if bits not in ({8}, {16}) or kinds != {UNSIGNED}:
        what = {1: "whole", 2: "signed whole", 3: "floating-point"}.get(max(kinds, default=0), "other")
        raise SlideError(
            Reason.PIXELS_UNSUPPORTED,
            f"{name}: samples are {what} numbers of {max(bits, default=0)} bits; expected unsigned 8 or 16 "
            "bits. Export the camera's own grey levels",
        )
    light = {page.number(tags.PHOTOMETRIC, -1) for page in pages}
    if not light <= {BLACK_IS_ZERO, RGB}:
        raise SlideError(
            Reason.PIXELS_UNSUPPORTED,
            f"{name}: photometric interpretation {max(light - {BLACK_IS_ZERO, RGB})}; expected grey levels "
            "whose black is zero (1). Export the channels as grey levels",
        )
    return f"uint{bits.pop()}"


def _decoder(name: str, page: Ifd, dtype: str, single: bool) -> tuple[str, TileDecoder]:
    code, predictor = page.number(tags.COMPRESSION, 1), page.number(tags.PREDICTOR, 1)
    compression = TIFF_COMPRESSIONS.get(code)
    if compression == "jpeg" and single and dtype == "uint8":
        return compression, jpeg_decoder(BLACK_IS_ZERO, page.data(tags.JPEG_TABLES) or None)
    if compression == "jpeg2000" and single:
        return compression, jpeg2000_decoder()
    if compression == "jpegxl" and single:
        return compression, jpegxl_decoder()
    if compression in (None, "webp") or compression.startswith("jp") or predictor not in (1, 2):
        raise SlideError(
            Reason.FILE_UNREADABLE,
            f"{name}: TIFF compression {code} with predictor {predictor} of {dtype} samples is not "
            "supported. Export the slide as OME-TIFF with LZW or zlib",
        )
    swapped = dtype == "uint16" and page.order != ("<" if sys.byteorder == "little" else ">")
    return compression, raw_decoder(compression, predictor=predictor == 2, swapped=swapped)
