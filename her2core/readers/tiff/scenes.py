"""The scenes of a TIFF: how each kind of file describes its images, their levels, stacks and scale."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from her2core.errors import Reason, SlideError
from her2core.readers.base import OpenRequest
from her2core.readers.bytesource import ByteSource
from her2core.readers.channels import MAX_PLANES, StatedChannel
from her2core.readers.ome import OmeImage, is_ome, parse_ome
from her2core.readers.scale import ResolvedScale, Scale
from her2core.readers.tiff import ifd as tags
from her2core.readers.tiff.ifd import Ifd
from her2core.readers.tiff.pages import is_level_of, pyramids, size_of, slide_pages
from her2core.readers.tiff.scale import aperio_field, resolution
from her2core.readers.tiled import TileGrid
from her2core.records import LevelInfo, SlideInfo


@dataclass(frozen=True, slots=True)
class Scene:
    """One slide image of a file.

    Attributes
    ----------
    name
        Its number in the file.
    planes
        One directory with all samples, or one for each channel.
    levels
        Every level, finest first.
    stack
        For fluorescence, the directory of each channel at each focal plane; a single channel where one
        directory holds all as its samples.
    channels
        What the OME-XML states of each channel; empty where there is none.
    foci, times
        Focal planes and time points, of which bright field has one.
    problems
        What is odd about its being the slide.
    """

    name: str
    planes: tuple[Ifd, ...]
    levels: tuple[LevelInfo, ...]
    scales: tuple[Scale, ...]
    objective_power: float | None
    stack: tuple[tuple[Ifd, ...], ...] = ()
    channels: tuple[StatedChannel, ...] = ()
    foci: int = 1
    times: int = 1
    problems: tuple[str, ...] = ()

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the finest level."""
        return self.levels[0].height, self.levels[0].width


@dataclass(frozen=True, slots=True)
class ChosenScene:
    """The scene that is read, among those of its file, and its scale."""

    scene: Scene
    format: str
    sizes: dict[str, tuple[int, int]]
    scale: ResolvedScale

    def info(
        self, request: OpenRequest, grid: TileGrid, compression: str, problems: Sequence[str]
    ) -> SlideInfo:
        """What its header states, of a bright-field slide."""
        scene, several = self.scene, len(self.sizes) > 1
        return SlideInfo(
            uri=request.name,
            identity=request.identity,
            size_bytes=request.size_bytes,
            format=self.format,
            reader="tiff",
            levels=scene.levels,
            tile_height=grid.tile_height,
            tile_width=grid.tile_width,
            compression=compression,
            mpp=self.scale.mpp,
            mpp_source=self.scale.source,
            scenes=tuple(self.sizes),
            scene=scene.name if several or request.scene else None,
            objective_power=scene.objective_power,
            problems=(*self.scale.problems, *scene.problems, *problems),
            scene_sizes=tuple(self.sizes.values()),
        )


def find_scenes(
    source: ByteSource, name: str, chain: list[Ifd], *, fluorescence: bool = False
) -> tuple[str, list[Scene]]:
    """Format and scenes of a file; for fluorescence, with its stacks of channels and focal planes."""
    description = chain[0].text(tags.IMAGE_DESCRIPTION)
    if is_ome(description):
        return "ome-tiff", _ome_scenes(source, name, chain, description, fluorescence)
    pages = slide_pages(name, [page for first in chain for page in (first, *_parts(first, source))])
    if any(_is_aperio(page) for page in pages):
        return "aperio", _aperio_scenes(name, pages)
    if description.startswith("ImageJ="):
        return "tiff", _imagej_scenes(name, pages, description, fluorescence)
    if fluorescence:
        return "tiff", _plain_stacks(name, pages)
    return "tiff", _plain_scenes(name, pages)


def _parts(page: Ifd, source: ByteSource) -> list[Ifd]:
    """Directories that hang on one of the main chain: reduced levels, or the image itself on a thumbnail."""
    if not page.has(tags.SUB_IFDS):
        return []
    try:
        return tags.read_sub_ifds(page, tags.is_big(source))
    except SlideError:
        return []  # whoever writes plain TIFFs so needs no such directories to be read


def _is_aperio(page: Ifd) -> bool:
    return page.text(tags.IMAGE_DESCRIPTION).startswith("Aperio")


def _aperio_scenes(name: str, pages: list[Ifd]) -> list[Scene]:
    """Aperio: the largest directory is the slide, its fractions are its levels, its equals focal planes."""
    found = pyramids(name, pages)
    if not found:
        return []
    slide = max(found, key=lambda one: one.levels[0].height * one.levels[0].width)
    description = slide.page.text(tags.IMAGE_DESCRIPTION)
    mpp = aperio_field(description, "MPP")
    scales = ([Scale("aperio", mpp, mpp)] if mpp else []) + resolution(slide.page)
    foci = sum(one.levels[0] == slide.levels[0] for one in found)
    power = aperio_field(description, "AppMag")
    return [Scene("0", (slide.page,), slide.levels, tuple(scales), power, ((slide.page,),), foci=foci)]


def _ome_scenes(source: ByteSource, name: str, chain: list[Ifd], xml: str, fluorescence: bool) -> list[Scene]:
    images = parse_ome(name, xml)
    scenes = [_ome_scene(source, name, chain, image, fluorescence) for image in images if image.is_slide]
    largest = max((height * width for height, width in (scene.size for scene in scenes)), default=0)
    odd = tuple(
        f"image {image.number} ({image.width} x {image.height} px) is larger than every scene, and left out "
        "as a label, macro, overview or thumbnail by its name"
        for image in images
        if not image.is_slide and image.height * image.width > largest
    )
    return [replace(scene, problems=odd[:1]) for scene in scenes]


def _ome_scene(source: ByteSource, name: str, chain: list[Ifd], image: OmeImage, fluorescence: bool) -> Scene:
    wanted = image.channel_ifds or (0,)
    if fluorescence:
        wanted = tuple(i for foci in image.stack for i in foci if i is not None) or wanted
    if max(wanted) >= len(chain):
        raise SlideError(
            Reason.FILE_TRUNCATED,
            f"{name}: its OME-XML refers to directory {max(wanted)} of {len(chain)}. Transfer the slide "
            "again",
        )
    named = chain[wanted[0]]
    parts = [named, *tags.read_sub_ifds(named, tags.is_big(source))]
    first = max(parts, key=lambda part: size_of(part)[0] * size_of(part)[1])
    height, width = size_of(first)
    stated = image.height or height, image.width or width
    if stated != (height, width) or (first is not named and (len(wanted) > 1 or fluorescence)):
        raise SlideError(
            Reason.FILE_UNREADABLE,
            f"{name}: its OME-XML says that image {image.number} has {stated[1]} x {stated[0]} px, the "
            f"directory that it names has {width} x {height}: another picture. Export the slide again",
        )
    planes: tuple[Ifd, ...] = (first,)
    if first.number(tags.SAMPLES_PER_PIXEL, 1) == 1 and len(wanted) == image.channels >= 3:
        planes = tuple(chain[i] for i in wanted)
    smaller = [part for part in parts if is_level_of(part, first)]
    scales = ([image.scale] if image.scale else []) + resolution(first)
    return Scene(
        str(image.number),
        planes,
        pyramids(name, [first, *smaller])[0].levels,
        tuple(scales),
        image.objective_power,
        _ome_stack(name, chain, image) if fluorescence else (),
        image.channel_said,
        image.foci,
        image.times,
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


def _plain_scenes(name: str, pages: list[Ifd]) -> list[Scene]:
    """Generic TIFF: every image with its levels is a scene."""
    return [
        Scene(str(i), (found.page,), found.levels, tuple(resolution(found.page)), None)
        for i, found in enumerate(pyramids(name, pages))
    ]


def _plain_stacks(name: str, pages: list[Ifd]) -> list[Scene]:
    """Generic TIFF of fluorescence: pages of one size are the channels."""
    scenes: list[Scene] = []
    stacks: list[list[tuple[Ifd, ...]]] = []
    places: dict[tuple[int, int], int] = {}
    for scene in _plain_scenes(name, pages):
        page = scene.planes[0]
        single = page.number(tags.SAMPLES_PER_PIXEL, 1) == 1
        place = places.setdefault(scene.size, len(scenes))
        if place < len(scenes) and single and len(stacks[place]) < MAX_PLANES:
            stacks[place].append((page,))
        else:
            scenes.append(scene)
            stacks.append([(page,)])
    return [
        replace(scene, name=str(i), stack=tuple(stack))
        for i, (scene, stack) in enumerate(zip(scenes, stacks, strict=True))
    ]


def _imagej_scenes(name: str, pages: list[Ifd], description: str, fluorescence: bool) -> list[Scene]:
    """ImageJ: one hyperstack, of which a single directory may be all that the file lists."""
    scenes = _plain_stacks(name, pages)
    if not scenes:
        return []
    channels, foci, times = _imagej_lengths(description)
    if fluorescence:
        return [_imagej_stack(name, scenes[0], channels, foci, times)]
    if foci > 1 or times > 1:
        return [replace(scenes[0], foci=foci, times=times)]
    return _plain_scenes(name, pages)


def _imagej_lengths(description: str) -> tuple[int, ...]:
    """Channels, focal planes and time points.

    References
    ----------
    ImageJ, ij.io.TiffDecoder: pages are in the order XYCZT.
    """
    stated = dict(line.split("=", 1) for line in description.splitlines() if "=" in line)
    return tuple(
        int(stated[key])
        if stated.get(key, "").isascii() and stated.get(key, "").isdigit() and len(stated[key]) < 6
        else 1
        for key in ("channels", "slices", "frames")
    )


def _imagej_stack(name: str, scene: Scene, channels: int, foci: int, times: int) -> Scene:
    """The pages of an ImageJ hyperstack: channels first, then focal planes."""
    if times > 1:
        return replace(scene, times=times)
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
