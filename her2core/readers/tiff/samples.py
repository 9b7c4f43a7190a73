"""What the samples of a bright-field TIFF's pixels are, as its tags and its OME-XML state it.

References
----------
Adobe, TIFF Revision 6.0 (1992), page 31: ExtraSamples; page 77: associated alpha.
"""

from __future__ import annotations

from dataclasses import dataclass

from her2core.errors import Reason, SlideError
from her2core.readers.channels import StatedChannel, colour_order
from her2core.readers.tiff import ifd as tags
from her2core.readers.tiff.grid import same_layout
from her2core.readers.tiff.ifd import Ifd
from her2core.readers.tiff.scenes import Scene
from her2core.readers.tilecodecs import RGB, YCBCR
from her2core.readers.tiled import Colours

MAX_SAMPLES = 16
"""Most samples of a pixel in colour; red, green and blue with an infrared channel and a mask are five."""
PREMULTIPLIED, STRAIGHT = 1, 2  # ExtraSamples; 0 is unspecified
BLACK_IS_ZERO = 1
UNSIGNED = 1


@dataclass(frozen=True, slots=True)
class SampleLayout:
    """Where red, green, blue and alpha are stored.

    Attributes
    ----------
    pages
        The directories that hold them: one, or one for each plane.
    samples
        Samples of a stored pixel.
    separate
        Whether each sample of the one directory lies in a plane of its own.
    """

    pages: tuple[Ifd, ...]
    samples: int
    separate: bool
    colours: Colours
    problems: tuple[str, ...] = ()

    @property
    def planes(self) -> list[int] | None:
        """Planes to read, in the order of the channels; None where one holds all samples."""
        if not self.separate:
            return None
        return [*self.colours.rgb, *([] if self.colours.alpha is None else [self.colours.alpha])]


def sample_layout(name: str, scene: Scene) -> SampleLayout:
    """Find the colours of a scene.

    Raises
    ------
    SlideError
        ``FILE_UNREADABLE`` for all but 8-bit colours.
    """
    page = scene.planes[0]
    _check_numbers(name, scene.planes)
    samples = page.number(tags.SAMPLES_PER_PIXEL, 1)
    if samples == 1 and len(scene.planes) >= 3:
        return _of_pages(name, scene)
    photometric = page.number(tags.PHOTOMETRIC, -1)
    separate = page.number(tags.PLANAR_CONFIGURATION, 1) == 2
    readable = photometric == RGB and 3 <= samples <= MAX_SAMPLES
    if not readable and not (photometric == YCBCR and samples == 3 and not separate):
        raise SlideError(
            Reason.FILE_UNREADABLE,
            f"{name}: photometric interpretation {photometric} with {samples} samples a pixel"
            f"{' in planes' if separate else ''}; expected RGB (2) or YCbCr (6) with 3. Export the slide as "
            "8-bit RGB",
        )
    rgb: tuple[int, ...] = (0, 1, 2)
    odd: tuple[str, ...] = ()
    if len(scene.channels) == 3 and photometric == RGB:
        rgb, odd = colour_order(name, scene.channels, in_order=True)
    alpha, premultiplied, unread = _extra(page, samples)
    return SampleLayout((page,), samples, separate, Colours(rgb, alpha, premultiplied), (*odd, *unread))


def _of_pages(name: str, scene: Scene) -> SampleLayout:
    """Colours whose planes are directories: the OME-XML states which is which."""
    count = len(scene.planes)
    stated = [*scene.channels, *[StatedChannel()] * count][:count]
    rgb, odd = colour_order(name, stated)
    pages = tuple(scene.planes[i] for i in rgb)
    if not same_layout(pages):
        raise SlideError(Reason.FILE_UNREADABLE, f"{name}: its three channels differ in size or layout")
    light = {page.number(tags.PHOTOMETRIC, BLACK_IS_ZERO) for page in pages}
    if not light <= {BLACK_IS_ZERO, RGB}:
        raise SlideError(
            Reason.FILE_UNREADABLE,
            f"{name}: photometric interpretation {max(light - {BLACK_IS_ZERO, RGB})} of its three channels; "
            "expected grey levels whose black is zero (1). Export the slide as 8-bit RGB",
        )
    return SampleLayout(pages, 1, False, Colours(), odd)


def _extra(page: Ifd, samples: int) -> tuple[int | None, bool, tuple[str, ...]]:
    """Which sample is alpha, whether colours are weighted by it, and notes on the others."""
    kinds = page.ints(tags.EXTRA_SAMPLES)[: samples - 3]
    for kind in (PREMULTIPLIED, STRAIGHT):
        if kind in kinds:
            return 3 + kinds.index(kind), kind == PREMULTIPLIED, ()
    if samples == 3:
        return None, False, ()
    what = "a fourth sample" if samples == 4 else f"{samples - 3} more samples"
    return None, False, (f"{what} of each pixel, of which the file does not say what it is, is not read",)


def _check_numbers(name: str, pages: tuple[Ifd, ...]) -> None:
    """Refuse all but unsigned 8 bits in the usual order."""
    bits = {b for page in pages for b in page.ints(tags.BITS_PER_SAMPLE, (1,))}
    kinds = {k for page in pages for k in page.ints(tags.SAMPLE_FORMAT, (UNSIGNED,))}
    if bits != {8} or kinds != {UNSIGNED}:
        raise SlideError(
            Reason.FILE_UNREADABLE,
            f"{name}: {max(bits, default=0)} bits a sample; expected 8-bit RGB. Export the slide as 8-bit "
            "RGB, or say in the manifest that its assay is HER2-FISH",
        )
    if any(page.number(tags.FILL_ORDER, 1) != 1 for page in pages):
        raise SlideError(
            Reason.FILE_UNREADABLE,
            f"{name}: bits are stored in reverse (FillOrder 2). Export the slide as 8-bit RGB",
        )
