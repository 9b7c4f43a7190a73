"""What every reader is: slide information, and level-0 pixels of any rectangle."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, Self

import numpy as np
import numpy.typing as npt

from her2core.errors import Reason, SlideError
from her2core.pixels import Pixels
from her2core.records import Assay, Box, SlideInfo

OUTSIDE = 255
"""Value of every channel outside a bright-field slide: the light of empty glass."""
DARK = 0
"""That of a fluorescence slide."""
_LETTER = r"[^\W\d_]"
PICTURE_WORDS = (
    rf"(?:slide[ _-]*)?(?:label|macro|thumbnail|overview)(?:[ _-]*(?:image|picture|photo))?(?!{_LETTER})"
)
"""Pattern of what pictures in slide files are called that are never slide pixels; labels carry names."""
_PICTURE_NAME = re.compile(rf"(?<!{_LETTER}){PICTURE_WORDS}", re.IGNORECASE)
LISTED_SCENES = 16
"""Scenes that a message lists before it only counts the rest."""


class SlideReader(Protocol):
    """Level-0 pixels of one slide. Thread-safe; the same bytes for whatever rectangle is read."""

    @property
    def info(self) -> SlideInfo:
        """What the header states."""
        ...

    def read_region(self, y0: int, x0: int, out: Pixels) -> None:
        """Fill ``out`` with level 0 from ``(y0, x0)``.

        Parameters
        ----------
        out
            Shape ``(h, w, channel)``, of the channels and dtype of ``info``: RGB, where outside the slide is
            255, or fluorescence, where it is 0.

        Raises
        ------
        SlideError
            ``FILE_UNREADABLE`` or ``FILE_TRUNCATED``, naming file and tile.
        """
        ...

    def close(self) -> None:
        """Release files and buffers."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


@dataclass(frozen=True, slots=True)
class OpenRequest:
    """What the caller requests to open, and what is already known of it.

    Attributes
    ----------
    name
        URI for records and messages; differs from the path read where a remote slide was staged.
    assay, channels
        The manifest's. ``HER2-FISH`` is read as fluorescence, by channels; anything else as RGB.
    """

    name: str
    identity: str
    size_bytes: int
    scene: str | None = None
    mpp: float | None = None
    assay: Assay | None = None
    channels: str | None = None

    @property
    def fluorescence(self) -> bool:
        """Whether pixels are fluorescence and not colours."""
        return self.assay == Assay.FISH

    @property
    def outside(self) -> int:
        """Value of pixels that the file does not hold."""
        return DARK if self.fluorescence else OUTSIDE


class Closing:
    """Context manager over ``close``, shared by the readers."""

    def close(self) -> None:
        raise NotImplementedError

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def clip_region(y0: int, x0: int, out: Pixels, height: int, width: int, outside: int = OUTSIDE) -> Box | None:
    """Blank the part of ``out`` that lies outside the slide and return the part inside, in slide pixels."""
    h, w = out.shape[:2]
    inside = Box(y0, x0, y0 + h, x0 + w).within(Box(0, 0, height, width))
    if inside.height <= 0 or inside.width <= 0:
        out[...] = outside
        return None
    out[: inside.y0 - y0] = outside
    out[inside.y1 - y0 :] = outside
    rows = out[inside.y0 - y0 : inside.y1 - y0]
    rows[:, : inside.x0 - x0] = outside
    rows[:, inside.x1 - x0 :] = outside
    return inside


def names_picture(title: str) -> bool:
    """Whether an image's name is that of a label, macro, overview or thumbnail picture.

    The word must stand by itself: "label image" and "Macro_1" are such pictures, "LN3_macrometastasis" and
    "unlabelled control" are slides.
    """
    return _PICTURE_NAME.search(title) is not None


def list_scenes(sizes: Mapping[str, tuple[int, int]]) -> str:
    """Scenes by number and size; names that a file gives its images can be those of patients."""
    listed = [f"{number} ({width} x {height} px)" for number, (height, width) in sizes.items()]
    more = [f"{len(listed) - LISTED_SCENES} more"] if len(listed) > LISTED_SCENES else []
    return ", ".join([*listed[:LISTED_SCENES], *more])


def choose_scene(name: str, sizes: Mapping[str, tuple[int, int]], wanted: str | None) -> int:
    """Index of the scene to read.

    Parameters
    ----------
    sizes
        Height and width of every scene, by its number in the file.

    Raises
    ------
    SlideError
        ``NOT_A_SLIDE`` where there is none, ``SCENE_AMBIGUOUS`` where there are several and none is
        requested, ``SCENE_UNKNOWN`` where the requested one is not among them.
    """
    if not sizes:
        raise SlideError(
            Reason.NOT_A_SLIDE,
            f"{name}: holds no slide image, only label, macro, overview or thumbnail pictures (or what is "
            "named so). Export the slide again",
        )
    if wanted is not None and wanted not in sizes:
        raise SlideError(
            Reason.SCENE_UNKNOWN,
            f"{name}: has no scene {wanted[:40]!r}; its scenes are {list_scenes(sizes)}. Give the number of "
            "one in the manifest column `scene`",
        )
    if wanted is None and len(sizes) > 1:
        alike = ". Images of one size can be focal planes" if len(set(sizes.values())) == 1 else ""
        raise SlideError(
            Reason.SCENE_AMBIGUOUS,
            f"{name}: holds {len(sizes)} scenes: {list_scenes(sizes)}. Give the number of one in the "
            f"manifest column `scene`{alike}",
        )
    return 0 if wanted is None else list(sizes).index(wanted)


def focal_planes(name: str, planes: int) -> SlideError:
    """The error for a bright-field slide of several focal planes, the same for every format."""
    return SlideError(
        Reason.PIXELS_UNSUPPORTED,
        f"{name}: {planes} focal planes; a bright-field slide is read at one, and none is chosen for you. "
        "Export the one in focus",
    )


def time_points(name: str, times: int) -> SlideError:
    """The error for a slide of several time points, the same for every format."""
    return SlideError(
        Reason.PIXELS_UNSUPPORTED, f"{name}: {times} time points; expected one. Export a single one"
    )


def turned(orientation: int) -> tuple[str, ...]:
    """The note on an image that its file declares turned or mirrored for display (TIFF and Exif, 1 to 8)."""
    if orientation == 1:
        return ()
    return (f"its orientation tag is {orientation}: read as stored, unturned, as OpenSlide and QuPath do",)


def composite(
    rgba: npt.NDArray[np.uint8],
    background: tuple[int, int, int],
    out: npt.NDArray[np.uint8],
    *,
    premultiplied: bool = False,
) -> None:
    """Lay ``rgba``, ``(h, w, 4)``, over ``background`` into ``out``, ``(h, w, 3)``.

    Parameters
    ----------
    premultiplied
        Whether the colours are already weighted by their alpha, or straight.
    """
    alpha = rgba[..., 3]
    out[...] = rgba[..., :3]
    if alpha.min() == 255:
        return
    see_through = alpha < 255
    a = alpha[see_through].astype(np.uint32)[:, None]
    ground = np.array(background, np.uint32)
    colours = rgba[see_through][:, :3].astype(np.uint32)
    if premultiplied:
        mixed = np.minimum(colours + (ground * (255 - a) + 127) // 255, 255)
    else:
        mixed = (colours * a + ground * (255 - a) + 127) // 255
    out[see_through] = mixed.astype(np.uint8)
