"""Which directories of a TIFF can be slide pixels, and which of them are levels of one pyramid.

Label, macro and thumbnail pictures are left out: they are no slide pixels, and labels carry names. The first
directory is not always the slide, and levels come in any order.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from her2core.errors import Reason, SlideError
from her2core.readers.base import PICTURE_WORDS
from her2core.readers.limits import MAX_EDGE_PX
from her2core.readers.tiff import ifd as tags
from her2core.readers.tiff.ifd import Ifd
from her2core.records import LevelInfo

REDUCED, MASK = 1, 4  # bits of NewSubfileType
LABEL_OR_MACRO = 9  # NewSubfileType of Aperio's macro picture
PICTURE_LINE = re.compile(
    rf"^\s*{PICTURE_WORDS}(?!\s*=)"  # a description with a line that begins so
    r"|<ImageType>\s*(?:label|macro|thumbnail|overview)\s*<",  # PerkinElmer's
    re.IGNORECASE | re.MULTILINE,
)
ASPECT_PX = 2
"""Rounding, px, by which a reduced level may differ from the exact fraction."""
JPEG_BLOCK_PX = 16
"""Largest block that JPEG fills sizes up to."""
MAX_STEP = 4
"""Most times that a level filled up to whole tiles may be smaller than the level before it."""
MAX_SIZES = 256
"""Most images of different size, beside their levels, that one file may hold (ours)."""

Size = tuple[int, int]
"""Height and width, px."""


def size_of(page: Ifd) -> Size:
    return page.number(tags.IMAGE_LENGTH), page.number(tags.IMAGE_WIDTH)


def is_picture(page: Ifd) -> bool:
    """Whether a directory is a mask, label, macro or thumbnail picture, or too damaged to be recognised."""
    if page.damaged:
        return True
    kind = page.number(tags.NEW_SUBFILE_TYPE)
    if kind & MASK or kind == LABEL_OR_MACRO:
        return True
    texts = (page.text(tags.IMAGE_DESCRIPTION)[:1024], page.text(tags.PAGE_NAME)[:1024])
    return any(PICTURE_LINE.search(text) for text in texts)


def slide_pages(name: str, pages: Sequence[Ifd]) -> list[Ifd]:
    """The directories that can be slide pixels, in the file's order.

    Beside a tiled image, untiled ones are thumbnails, labels and macros, whatever place they come in; one
    that is larger than every tiled one is kept, so that no slide is dropped without a word.

    Raises
    ------
    SlideError
        ``NOT_A_SLIDE`` where the largest tiled image is named as a label, macro or thumbnail: what is left
        may be its levels.
    """
    pictures: list[Ifd] = []
    able: list[Ifd] = []
    for page in pages:
        if not page.damaged:
            (pictures if is_picture(page) else able).append(page)
    left = max((_area(size_of(page)) for page in able), default=0)
    named = max((_area(size_of(page)) for page in pictures if page.has(tags.TILE_WIDTH)), default=0)
    if able and named > left:
        raise SlideError(
            Reason.NOT_A_SLIDE,
            f"{name}: its largest tiled image is described as a label, macro, overview or thumbnail picture, "
            "which is never read. Export the slide without that description",
        )
    largest = max((_area(size_of(page)) for page in able if page.has(tags.TILE_WIDTH)), default=-1)
    return [page for page in able if page.has(tags.TILE_WIDTH) or _area(size_of(page)) > largest]


@dataclass(frozen=True, slots=True)
class Pyramid:
    """An image: its finest directory, and the levels that the file has of it, that one first."""

    page: Ifd
    levels: tuple[LevelInfo, ...]


def pyramids(name: str, pages: Sequence[Ifd]) -> list[Pyramid]:
    """Group directories: one that is a fraction of a larger one is its level, any other an image.

    A directory that is marked as reduced and is a level of no image is left out. Images come in the order in
    which the file has their finest levels.

    Raises
    ------
    SlideError
        ``FILE_BEYOND_LIMITS`` for more images of different size than any slide has.
    """
    sizes = [size_of(page) for page in pages]
    reduced = [page.number(tags.NEW_SUBFILE_TYPE) & REDUCED for page in pages]
    found: dict[Size, list[tuple[int, list[LevelInfo]]]] = {}
    for i in sorted(range(len(pages)), key=lambda i: -_area(sizes[i])):
        if _joins(pages, i, sizes[i], found) or (reduced[i] and found):
            continue
        found.setdefault(sizes[i], []).append((i, [LevelInfo(*sizes[i], 1.0)]))
        if len(found) > MAX_SIZES:
            raise SlideError(
                Reason.FILE_BEYOND_LIMITS,
                f"{name}: more than {MAX_SIZES} images of different size; expected the levels of one slide",
            )
    in_order = sorted((one for same in found.values() for one in same), key=lambda one: one[0])
    return [Pyramid(pages[i], tuple(levels)) for i, levels in in_order]


def _joins(
    pages: Sequence[Ifd], i: int, size: Size, found: dict[Size, list[tuple[int, list[LevelInfo]]]]
) -> bool:
    """Whether a directory is a level of an image found before; it is added to the first that lacks it."""
    is_level = False
    for first, images in found.items():
        factors = _factors(size, _tile_of(pages[i]), first, _tile_of(pages[images[0][0]]))
        for _, levels in images if factors else ():
            coarsest = levels[-1]
            if (coarsest.height, coarsest.width) == size:
                is_level = True
                continue
            fitting = [f for f, exact in factors if exact or f <= MAX_STEP * coarsest.downsample]
            if fitting:
                levels.append(LevelInfo(*size, fitting[0]))
                return True
    return is_level


def is_level_of(page: Ifd, first: Ifd) -> bool:
    """Whether ``page`` is ``first`` made smaller, its size rounded or filled up to whole tiles."""
    return not is_picture(page) and bool(
        _factors(size_of(page), _tile_of(page), size_of(first), _tile_of(first))
    )


def _factors(size: Size, tile: Size, first: Size, first_tile: Size) -> list[tuple[float, bool]]:
    """How many times smaller ``size`` can be, and whether by its proportions alone; empty where it is not."""
    (h, w), (height, width) = size, first
    if min(h, w) < 1 or h > height or w > width or size == first:
        return []
    exact = max(height / h, width / w)
    if exact > 1 and all(
        abs(whole / exact - part) <= ASPECT_PX for part, whole in zip(size, first, strict=True)
    ):
        return [(exact, True)]
    return [
        (float(f), False)
        for f in (1 << k for k in range(1, MAX_EDGE_PX.bit_length()))
        if _filled_up(size, tile, first, f) or _filled_up_first(size, first, first_tile, f)
    ]


def _filled_up(size: Size, tile: Size, first: Size, f: int) -> bool:
    """Whether ``size`` is the ``f``-th part of ``first``, filled up to whole tiles or blocks of JPEG."""
    return any(
        min(edges) > 0
        and all(
            part in (-(-(whole // f) // edge) * edge, -(-whole // (f * edge)) * edge)
            for part, whole, edge in zip(size, first, edges, strict=True)
        )
        for edges in (tile, (JPEG_BLOCK_PX, JPEG_BLOCK_PX))
    )


def _filled_up_first(size: Size, first: Size, tile: Size, f: int) -> bool:
    """Whether ``first`` is ``f`` times ``size``, filled up to whole tiles."""
    return min(tile) > 0 and all(
        whole % edge == 0 and -f < whole - part * f < edge + f
        for part, whole, edge in zip(size, first, tile, strict=True)
    )


def _tile_of(page: Ifd) -> Size:
    """Height and width of its tiles; 0 where it has none."""
    return page.number(tags.TILE_LENGTH), page.number(tags.TILE_WIDTH)


def _area(size: Size) -> int:
    return size[0] * size[1]
