"""Vendors' formats through OpenSlide: NDPI, MRXS, SCN, BIF, VMS, Philips, Trestle, ..."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import openslide

from her2core.errors import Reason, SlideError
from her2core.readers.base import Closing, OpenRequest, choose_scene, clip_region, composite, focal_planes
from her2core.readers.bytesource import LocalBytes
from her2core.readers.icc import with_profile
from her2core.readers.limits import check_size
from her2core.readers.scale import Scale, read_number, resolve_scale
from her2core.readers.tiff import ifd as tags
from her2core.records import Box, LevelInfo, SlideInfo

BLOCK_PX = 1024
"""Edge of the squares a region is read in: bounds the RGBA copy to 4 MiB."""
MANY_FILES = (".mrxs", ".vms", ".vmu")
"""Suffixes of formats whose pixels lie in other files: the size of the named one means nothing."""
FOCI_PROPERTIES = ("zeiss.Information.Image.SizeZ", "ventana.Z-layers", "hamamatsu.NoLayers")
"""Properties that count focal planes."""
LEICA_SCHEMA = "www.leica-microsystems.com/scn"
"""Part of the name space of Leica's XML."""
NDPI_FOCUS = 65424
"""Hamamatsu's TIFF tag of a directory's focal plane."""
_MIRAX_AXIS = re.compile(r"mirax\.HIERARCHICAL\.HIER_(\d+)_NAME")
_LEICA_PLANE = re.compile(r"<dimension\b[^>]*\bz=\"(\d{1,4})\"")


def detect_vendor(path: str | os.PathLike[str]) -> str | None:
    """OpenSlide's name for a file's format, or None where it has none."""
    vendor: str | None = openslide.OpenSlide.detect_format(path)
    return vendor


class OpenSlideReader(Closing):
    """Reader of one scene; transparent pixels are laid over the slide's background colour."""

    def __init__(
        self, info: SlideInfo, slide: openslide.OpenSlide, scene: Box, background: tuple[int, int, int]
    ) -> None:
        profile = slide.color_profile
        self.icc_profile: bytes = b"" if profile is None else profile.tobytes()
        self.info = with_profile(info, self.icc_profile)
        self._slide = slide
        self._scene = scene
        self._background = background

    def read_region(self, y0: int, x0: int, out: npt.NDArray[np.uint8]) -> None:
        box = clip_region(y0, x0, out, self.info.height, self.info.width)
        if box is None:
            return
        for y in range(box.y0, box.y1, BLOCK_PX):
            for x in range(box.x0, box.x1, BLOCK_PX):
                h, w = min(BLOCK_PX, box.y1 - y), min(BLOCK_PX, box.x1 - x)
                try:
                    block = self._slide.read_region((self._scene.x0 + x, self._scene.y0 + y), 0, (w, h))
                except openslide.OpenSlideError as error:
                    raise SlideError(
                        Reason.FILE_UNREADABLE,
                        f"{self.info.uri}: {w} x {h} px at x {x}, y {y} cannot be read. Transfer or export "
                        "it again",
                    ) from error
                composite(np.asarray(block), self._background, out[y - y0 : y - y0 + h, x - x0 : x - x0 + w])

    def close(self) -> None:
        self._slide.close()


def open_openslide(path: str | os.PathLike[str], request: OpenRequest) -> OpenSlideReader:
    """Reader of a local file (or, for DICOM, of the series that it belongs to).

    Raises
    ------
    SlideError
        ``FILE_UNREADABLE`` where OpenSlide refuses the file.
    """
    try:
        slide = openslide.OpenSlide(path)
    except openslide.OpenSlideError as error:
        raise SlideError(
            Reason.FILE_UNREADABLE,
            f"{request.name}: OpenSlide {openslide.__library_version__} cannot open it. Transfer it again "
            "with every file that belongs to it, or export it as OME-TIFF",
        ) from error
    try:
        foci = max(_stated_foci(slide.properties), _leica_foci(path), _ndpi_foci(path))
        if foci > 1:
            raise focal_planes(request.name, foci)
        return _reader(
            slide, request, None if os.fspath(path).lower().endswith(MANY_FILES) else os.stat(path).st_size
        )
    except SlideError:
        slide.close()
        raise


def _reader(slide: openslide.OpenSlide, request: OpenRequest, file_bytes: int | None) -> OpenSlideReader:
    properties = slide.properties
    regions = _regions(slide)
    sizes = {str(i): (region.height, region.width) for i, region in enumerate(regions)}
    chosen = choose_scene(request.name, sizes, request.scene)
    scene, names = regions[chosen], tuple(sizes)
    check_size(request.name, scene.height, scene.width, file_bytes)
    x, y = (read_number(properties.get(f"openslide.mpp-{axis}")) for axis in "xy")
    vendor = properties.get(openslide.PROPERTY_NAME_VENDOR, "openslide")
    scale = resolve_scale(request.name, request.mpp, [Scale(vendor, y, x)] if x and y else [], request.assay)
    colour = properties.get(openslide.PROPERTY_NAME_BACKGROUND_COLOR, "")
    background = tuple(bytes.fromhex(colour)) if len(colour) == 6 else (request.outside,) * 3
    info = SlideInfo(
        uri=request.name,
        identity=request.identity,
        size_bytes=request.size_bytes,
        format=vendor,
        reader="openslide",
        levels=tuple(
            LevelInfo(max(round(scene.height / d), 1), max(round(scene.width / d), 1), d)
            for d in slide.level_downsamples
        ),
        tile_height=int(properties.get("openslide.level[0].tile-height", 0)) or BLOCK_PX,
        tile_width=int(properties.get("openslide.level[0].tile-width", 0)) or BLOCK_PX,
        compression="unknown",
        mpp=scale.mpp,
        mpp_source=scale.source,
        scenes=names,
        scene=names[chosen] if len(names) > 1 or request.scene else None,
        objective_power=read_number(properties.get(openslide.PROPERTY_NAME_OBJECTIVE_POWER)),
        problems=scale.problems,
        scene_sizes=tuple(sizes.values()),
    )
    return OpenSlideReader(info, slide, scene, (background[0], background[1], background[2]))


def _stated_foci(properties: Mapping[str, str]) -> int:
    """Focal planes as the vendors' metadata list them; OpenSlide reads one of them without a warning."""
    counts = [properties.get(key, "") for key in FOCI_PROPERTIES]
    for key, title in properties.items():
        axis = _MIRAX_AXIS.fullmatch(key)
        if axis is not None and title == "Microscope focus level":
            counts.append(properties.get(f"mirax.HIERARCHICAL.HIER_{axis[1]}_COUNT", ""))
    return max((int(n) for n in counts if n.isascii() and n.isdigit() and len(n) < 6), default=1)


def _leica_foci(path: str | os.PathLike[str]) -> int:
    """Focal planes of an SCN file, from the XML that OpenSlide keeps to itself; 1 of any other."""
    source = LocalBytes(path)
    try:
        if not tags.is_tiff(source.read(0, min(4, source.size))):
            return 1
        description = tags.read_chain(source).ifds[0].text(tags.IMAGE_DESCRIPTION)
    except SlideError:
        return 1  # no such file, or damaged where OpenSlide does not mind
    finally:
        source.close()
    if LEICA_SCHEMA not in description:
        return 1
    return max(len(set(_LEICA_PLANE.findall(description))), 1)


def _ndpi_foci(path: str | os.PathLike[str]) -> int:
    """Focal planes of an NDPI file, 1 of any other.

    Its directories are those of classic TIFF, linked by offsets of 8 bytes.
    """
    source = LocalBytes(path)
    try:
        if source.read(0, min(4, source.size)) != b"II*\0":
            return 1
        foci: set[int] = set()
        (at,) = np.frombuffer(source.read(4, 8), "<u8").tolist()
        for _ in range(tags.MAX_IFDS):
            if not at:
                break
            (n,) = np.frombuffer(source.read(at, 2), "<u2").tolist()
            table = source.read(at + 2, 12 * n + 8)
            entries = np.frombuffer(table, "<u2, <u2, <u4, <i4", count=n)
            if tags.HAMAMATSU_FORMAT not in entries["f0"]:
                return 1
            foci.update(entries["f3"][entries["f0"] == NDPI_FOCUS].tolist())
            (at,) = np.frombuffer(table[-8:], "<u8").tolist()
        return max(len(foci), 1)
    except SlideError:
        return 1  # not linked so: OpenSlide reports what it makes of it
    finally:
        source.close()


def _regions(slide: openslide.OpenSlide) -> list[Box]:
    """Scanned areas of the glass; the whole canvas where there is one or none."""
    width, height = slide.dimensions
    boxes: list[Box] = []
    while (f"openslide.region[{len(boxes)}].x") in slide.properties:
        x, y, w, h = (
            int(slide.properties[f"openslide.region[{len(boxes)}].{key}"])
            for key in ("x", "y", "width", "height")
        )
        boxes.append(Box(y, x, y + h, x + w))
    return boxes if len(boxes) > 1 else [Box(0, 0, height, width)]
