"""Write phantoms as whole-slide files: JPEG-tiled TIFF in memory bounded by a strip of tiles, or OME-TIFF."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np
import tifffile

from her2core.phantom.ish import PlantedISH
from her2core.phantom.ish_render import render_ish
from her2core.phantom.render import render_region
from her2core.phantom.spec import RGB
from her2core.phantom.truth import Tissue
from her2core.records import Box

TILE_PX: Final = 256
STRIP_PX: Final = 1024
PRODUCER: Final = "Aperio Image Library (her2cohort phantom)"
SUBSAMPLING: Final = (2, 1)  # 4:2:2, as scanners write
SHRINKS: Final = (4, 16)  # of the lower levels, as Aperio scanners store them


def write_slide(
    path: Path,
    tissue: Tissue | PlantedISH,
    *,
    quality: int = 80,
    scale_known: bool = True,
) -> None:
    """Draw planted tissue into a slide file as Aperio scanners lay it out: 1x, thumbnail, 4x and 16x.

    Parameters
    ----------
    quality
        JPEG quality of the tiles; `jpeg_quality` of a `PhantomSpec` is for single fields.
    scale_known
        Whether micrometres per pixel are stated, in the description and in the resolution tags.
    """
    spec = tissue.spec
    lower = [np.empty((spec.height_px // k, spec.width_px // k, 3), np.uint8) for k in SHRINKS]

    def strips() -> Iterator[RGB]:
        for y0 in range(0, spec.height_px, STRIP_PX):
            box = Box(y0, 0, min(y0 + STRIP_PX, spec.height_px), spec.width_px)
            strip = render_ish(tissue, box) if isinstance(tissue, PlantedISH) else render_region(tissue, box)
            for k, level in zip(SHRINKS, lower, strict=True):
                rows = level[y0 // k : (y0 + STRIP_PX) // k]
                part = strip[: len(rows) * k, : level.shape[1] * k]
                if part.size:
                    cv2.resize(part, (level.shape[1], len(rows)), dst=rows, interpolation=cv2.INTER_AREA)
            yield strip

    with tifffile.TiffWriter(path, bigtiff=spec.height_px * spec.width_px > 1 << 30) as file:

        def write(tiles: Iterator[RGB], shape: tuple[int, ...], shrink: int, **more: Any) -> None:
            note = f"{PRODUCER}\r\n{shape[1]}x{shape[0]} JPEG Q={quality}"
            if scale_known:
                pitch = 1e4 / (spec.mpp * shrink)  # pixels per centimetre
                note += f"|AppMag = {round(10 / spec.mpp)}|MPP = {spec.mpp:g}"
                more |= {"resolution": (pitch, pitch), "resolutionunit": "CENTIMETER"}
            file.write(
                tiles,
                shape=shape,
                dtype="uint8",
                tile=(TILE_PX, TILE_PX),
                photometric="rgb",
                subsampling=SUBSAMPLING,
                compression="jpeg",
                compressionargs={"level": quality},
                description=note,
                metadata=None,
                maxworkers=1,
                **more,
            )

        write(_tiles(strips()), (spec.height_px, spec.width_px, 3), 1)
        thumbnail = (
            f"{PRODUCER}\r\n{spec.width_px}x{spec.height_px} -> {lower[-1].shape[1]}x{lower[-1].shape[0]}"
        )
        file.write(lower[-1], photometric="rgb", compression="jpeg", description=thumbnail, metadata=None)
        for shrink, level in zip(SHRINKS, lower, strict=True):
            write(_tiles(iter([level])), level.shape, shrink)


def write_fluorescence(path: Path, planted: PlantedISH, *, z_planes: int = 1) -> None:
    """Draw a planted FISH field as fluorescence scanners write it: pyramidal OME-TIFF, one page a channel.

    Parameters
    ----------
    z_planes
        Focal planes; the middle one is the planted field, the others are dimmer copies of it.
    """
    spec = planted.spec
    field = np.moveaxis(render_ish(planted, Box(0, 0, spec.height_px, spec.width_px)), -1, 0)
    stack = [field - field // 4 * abs(z - z_planes // 2) // max(z_planes, 1) for z in range(z_planes)]
    pages = np.stack(stack, axis=1) if z_planes > 1 else field
    names = ["DAPI", "HER2", "CEP17"][: len(field)]
    about = {
        "axes": "CZYX" if z_planes > 1 else "CYX",
        "Channel": {"Name": names},
        "PhysicalSizeX": spec.mpp,
        "PhysicalSizeY": spec.mpp,
        "PhysicalSizeXUnit": "µm",
        "PhysicalSizeYUnit": "µm",
    }
    how: dict[str, Any] = {
        "tile": (TILE_PX, TILE_PX), "compression": "zlib", "photometric": "minisblack", "maxworkers": 1,
    }  # fmt: skip
    with tifffile.TiffWriter(path, ome=True) as file:
        file.write(pages, subifds=1, metadata=about, **how)
        file.write(pages[..., ::4, ::4], subfiletype=1, **how)


def _tiles(strips: Iterator[RGB]) -> Iterator[RGB]:
    """Tiles of the strips from above, row by row; the last of a row or column repeats its edge."""
    for strip in strips:
        pad = [(0, -n % TILE_PX) for n in strip.shape[:2]]
        whole = np.pad(strip, [*pad, (0, 0)], mode="edge")
        for y in range(0, whole.shape[0], TILE_PX):
            for x in range(0, whole.shape[1], TILE_PX):
                yield np.ascontiguousarray(whole[y : y + TILE_PX, x : x + TILE_PX])
