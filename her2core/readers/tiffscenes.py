"""Which directories of a TIFF are the slide: its scenes, its levels, its scale.

Label, macro and thumbnail pictures are left out: they are no slide pixels, and labels carry names.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from her2core.errors import Reason, SlideError
from her2core.readers import ifd as tags
from her2core.readers.base import NOT_SLIDE_NAMES, Asked
from her2core.readers.bytesource import ByteSource
from her2core.readers.channels import MAX_PLANES, StatedChannel
from her2core.readers.ifd import Ifd
from her2core.readers.ome import OmeImage, is_ome, parse_ome
from her2core.readers.scale import ResolvedScale, Scale, plausible, read_number
from her2core.readers.tiled import TileGrid
from her2core.records import Assay, LevelInfo, SlideInfo

REDUCED, MASK = 1, 4  # bits of NewSubfileType
LABEL_OR_MACRO = 9  # NewSubfileType of Aperio's macro picture
PICTURE_LINE = rf"^\s*({'|'.join(NOT_SLIDE_NAMES)})\b"  # a description that begins a line with such a name
ASPECT_PX = 2
"""Rounding, px, by which a reduced level may differ from the exact fraction."""


@dataclass(frozen=True, slots=True)
class Scene:
    """One slide image of a file.

    Attributes
    ----------
    planes
        One directory with all samples, or one for each channel.
    levels
        Height and width of every level, finest first.
    stack
        For fluorescence, the directory of each channel at each focal plane; a single channel where one
        directory holds all as its samples.
    channels
        What the OME-XML says of each channel; empty where there is none.
    """

    name: str
    planes: tuple[Ifd, ...]
    levels: tuple[tuple[int, int], ...]
    scales: tuple[Scale, ...]
    objective_power: float | None
    stack: tuple[tuple[Ifd, ...], ...] = ()
    channels: tuple[StatedChannel, ...] = ()


@dataclass(frozen=True, slots=True)
class ChosenScene:
    """The scene that is read, among those of its file, and its scale."""

    scene: Scene
    format: str
    names: tuple[str, ...]
    scale: ResolvedScale

    def info(self, asked: Asked, grid: TileGrid, compression: str, problems: Sequence[str]) -> SlideInfo:
        """What its header says, of a bright-field slide."""
        scene, several = self.scene, len(self.names) > 1
        return SlideInfo(
            uri=asked.name,
            identity=asked.identity,
            size_bytes=asked.size_bytes,
            format=self.format,
            reader="tiff",
            levels=tuple(LevelInfo(h, w, grid.width / w) for h, w in scene.levels),
            tile_height=grid.tile_height,
            tile_width=grid.tile_width,
            compression=compression,
            mpp=self.scale.mpp,
            mpp_source=self.scale.source,
            scenes=self.names,
            scene=scene.name if several or asked.scene else None,
            objective_power=scene.objective_power,
            problems=(*self.scale.problems, *problems),
        )


def find_scenes(
    source: ByteSource, name: str, chain: list[Ifd], *, fluorescence: bool = False
) -> tuple[str, list[Scene]]:
    """Format and scenes of a file; for fluorescence, with its stacks of channels and focal planes."""
    description = chain[0].text(tags.IMAGE_DESCRIPTION)
    if is_ome(description):
        return "ome-tiff", _ome_scenes(source, name, chain, description, fluorescence)
    if description.startswith("Aperio"):
        return "aperio", [_aperio_scene(chain, description)]
    if fluorescence:
        return "tiff", _plain_stacks(name, chain, description)
    return "tiff", _plain_scenes(chain)


def _aperio_scene(chain: list[Ifd], description: str) -> Scene:
    """Aperio: first the slide, then tiled directories as its levels; strips hold thumbnail, label, macro."""
    first = chain[0]
    mpp = _aperio_field(description, "MPP")
    scales = ([Scale("aperio", mpp, mpp)] if mpp else []) + _resolution(first)
    levels = [page for page in chain[1:] if page.has(tags.TILE_WIDTH) and _is_level_of(page, first)]
    power = _aperio_field(description, "AppMag")
    return Scene("0", (first,), _sizes([first, *levels]), tuple(scales), power, ((first,),))


def _aperio_field(description: str, key: str) -> float | None:
    match = re.search(rf"\|\s*{key}\s*=\s*([^|]*)", description)
    return read_number(match[1]) if match else None


def _ome_scenes(source: ByteSource, name: str, chain: list[Ifd], xml: str, fluorescence: bool) -> list[Scene]:
    images = [image for image in parse_ome(name, xml) if image.is_slide]
    if not images:
        raise SlideError(Reason.NOT_A_SLIDE, f"{name}: its OME-XML names no slide image")
    taken: set[str] = set()
    scenes = []
    for i, image in enumerate(images):
        title = image.name if image.name not in taken else f"{image.name} ({i})"
        taken.add(title)
        scenes.append(_ome_scene(source, name, chain, image, title, fluorescence))
    return scenes


def _ome_scene(
    source: ByteSource, name: str, chain: list[Ifd], image: OmeImage, title: str, fluorescence: bool
) -> Scene:
    wanted = image.channel_ifds or (0,)
    if fluorescence:
        wanted = tuple(i for foci in image.stack for i in foci if i is not None) or wanted
    if max(wanted) >= len(chain):
        raise SlideError(
            Reason.FILE_TRUNCATED,
            f"{name}: its OME-XML refers to directory {max(wanted)} of {len(chain)}. Transfer the slide "
            "again",
        )
    if image.times > 1 and fluorescence:
        raise SlideError(
            Reason.PIXELS_UNSUPPORTED,
            f"{name}: {image.times} time points; expected one. Export a single one",
        )
    if image.sections > 1 and not fluorescence:
        raise SlideError(
            Reason.FILE_UNREADABLE,
            f"{name}: {image.sections} focal planes or time points; expected one. Export a single plane",
        )
    first = chain[wanted[0]]
    planes: tuple[Ifd, ...] = (first,)
    if first.number(tags.SAMPLES_PER_PIXEL, 1) == 1 and len(wanted) == image.channels >= 3:
        planes = tuple(chain[i] for i in wanted)
    reduced = [s for s in tags.read_sub_ifds(first, tags.is_big(source)) if _is_level_of(s, first)]
    scales = ([image.scale] if image.scale else []) + _resolution(first)
    return Scene(
        title,
        planes,
        _sizes([first, *reduced]),
        tuple(scales),
        image.objective_power,
        _ome_stack(name, chain, image) if fluorescence else (),
        image.channel_said,
    )


def _ome_stack(name: str, chain: list[Ifd], image: OmeImage) -> tuple[tuple[Ifd, ...], ...]:
    """Directories of an image by channel and focus; the first one where the document lists none."""
    listed = [i for foci in image.stack for i in foci]
    if all(i is None for i in listed) and len(listed) == 1:
        return ((chain[0],),)
    if None in listed:
        raise SlideError(
            Reason.FILE_TRUNCATED,
            f"{name}: its OME-XML says where {sum(i is not None for i in listed)} of {len(listed)} planes "
            "are. Export the slide again",
        )
    return tuple(tuple(chain[i] for i in foci if i is not None) for foci in image.stack)


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


def _plain_stacks(name: str, chain: list[Ifd], description: str) -> list[Scene]:
    """Generic TIFF of fluorescence: pages of one size are the channels, unless ImageJ says otherwise."""
    scenes: list[Scene] = []
    for found in _plain_scenes(chain):
        page, scene = found.planes[0], replace(found, levels=tuple(dict.fromkeys(found.levels)))
        same = next((s for s in scenes if s.levels[0] == scene.levels[0]), None)
        single = page.number(tags.SAMPLES_PER_PIXEL, 1) == 1
        if same is not None and single and len(same.stack) < MAX_PLANES:
            scenes[scenes.index(same)] = replace(same, stack=(*same.stack, (page,)))
        else:
            scenes.append(replace(scene, stack=((page,),)))
    if description.startswith("ImageJ="):
        return [_imagej_stack(name, scenes[0], description)]
    return [replace(scene, name=str(i)) for i, scene in enumerate(scenes)]


def _imagej_stack(name: str, scene: Scene, description: str) -> Scene:
    """The pages of an ImageJ hyperstack: channels first, then focal planes.

    References
    ----------
    ImageJ, ij.io.TiffDecoder: pages are in the order XYCZT.
    """
    said = dict(line.split("=", 1) for line in description.splitlines() if "=" in line)
    channels, foci, times = (
        int(said[key]) if said.get(key, "").isdigit() and len(said[key]) < 6 else 1
        for key in ("channels", "slices", "frames")
    )
    if times > 1:
        raise SlideError(
            Reason.PIXELS_UNSUPPORTED, f"{name}: {times} time points; expected one. Export a single one"
        )
    pages = [page for (page,) in scene.stack]
    if len(pages) == 1 and pages[0].number(tags.SAMPLES_PER_PIXEL, 1) > 1:
        return scene
    if channels * foci != len(pages):
        raise SlideError(
            Reason.FILE_TRUNCATED,
            f"{name}: an ImageJ stack of {channels} channels and {foci} focal planes in {len(pages)} "
            "directories. Save it as OME-TIFF",
        )
    return replace(scene, stack=tuple(tuple(pages[c::channels]) for c in range(channels)))


def _is_picture(page: Ifd) -> bool:
    """Whether a directory is a mask, a label, a macro or a thumbnail picture."""
    kind = page.number(tags.NEW_SUBFILE_TYPE)
    named = re.search(PICTURE_LINE, page.text(tags.IMAGE_DESCRIPTION)[:1024], re.IGNORECASE | re.MULTILINE)
    return bool(kind & MASK) or kind == LABEL_OR_MACRO or named is not None


def _is_level_of(page: Ifd, first: Ifd) -> bool:
    """Whether ``page`` is ``first`` made smaller, in equal proportion."""
    (h, w), (height, width) = size_of(page), size_of(first)
    if _is_picture(page) or min(h, w) < 1 or h >= height or w >= width:
        return False
    factor = max(height / h, width / w)
    return abs(height / factor - h) <= ASPECT_PX and abs(width / factor - w) <= ASPECT_PX


def size_of(page: Ifd) -> tuple[int, int]:
    return page.number(tags.IMAGE_LENGTH), page.number(tags.IMAGE_WIDTH)


def _sizes(pages: Sequence[Ifd]) -> tuple[tuple[int, int], ...]:
    return (size_of(pages[0]), *sorted(map(size_of, pages[1:]), reverse=True))


def _resolution(page: Ifd) -> list[Scale]:
    """The resolution tags where they can be a scanner's; 72 or 96 dpi are a printer's."""
    unit_um = {2: 25400.0, 3: 10000.0}.get(page.number(tags.RESOLUTION_UNIT, 2))
    x, y = page.rational(tags.X_RESOLUTION), page.rational(tags.Y_RESOLUTION)
    if unit_um is None or x is None or y is None:
        return []
    scale = Scale("tiff_resolution", unit_um / y, unit_um / x)
    return [scale] if all(plausible(um, Assay.FISH) for um in (scale.x_um, scale.y_um)) else []
