"""The few fields of OME-XML that reading slide pixels needs.

References
----------
OME Data Model 2016-06, https://www.openmicroscopy.org/Schemas/OME/2016-06/.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Iterator
from dataclasses import dataclass

from her2core.errors import Reason, SlideError
from her2core.readers.base import NOT_SLIDE_NAMES
from her2core.readers.scale import Scale, length_um, read_number


@dataclass(frozen=True, slots=True)
class OmeImage:
    """One ``Image`` element: a scene.

    Attributes
    ----------
    channel_ifds
        Directory (index in the file's main chain) of each channel that has one of its own; a single entry
        where one directory holds all samples.
    sections
        Focal planes times time points.
    """

    name: str
    height: int
    width: int
    channels: int
    sections: int
    pixel_type: str
    scale: Scale | None
    objective_power: float | None
    channel_ifds: tuple[int, ...]

    @property
    def is_slide(self) -> bool:
        """Whether this is slide pixels, going by its name, and not a label, macro or thumbnail picture."""
        return not any(word in self.name.lower() for word in NOT_SLIDE_NAMES)


def is_ome(description: str) -> bool:
    """Whether an image description is OME-XML."""
    return "<OME" in description[:4096] or "<ome:OME" in description[:4096]


def parse_ome(name: str, xml: str) -> list[OmeImage]:
    """Every image of the document, labels and macros among them.

    Raises
    ------
    SlideError
        ``FILE_HOSTILE`` for a document that defines entities, ``FILE_UNREADABLE`` for one that does not parse
        or that refers to other files.
    """
    if "<!DOCTYPE" in xml or "<!ENTITY" in xml:
        raise SlideError(
            Reason.FILE_HOSTILE, f"{name}: its OME-XML defines entities, which OME-XML never does"
        )
    try:
        root = ET.fromstring(xml.encode())  # bytes: an encoding named in the declaration is then honoured
    except ET.ParseError as error:
        raise SlideError(
            Reason.FILE_UNREADABLE, f"{name}: its OME-XML does not parse ({error.code})"
        ) from error
    powers = {e.get("ID"): read_number(e.get("NominalMagnification")) for e in _all(root, "Objective")}
    images: list[OmeImage] = []
    next_ifd = 0
    for i, element in enumerate(_all(root, "Image")):
        pixels = next(_all(element, "Pixels"), None)
        if pixels is None:
            continue
        image, next_ifd = _image(name, i, element, pixels, powers, next_ifd)
        images.append(image)
    return images


def _image(
    name: str,
    i: int,
    element: ET.Element,
    pixels: ET.Element,
    powers: dict[str | None, float | None],
    next_ifd: int,
) -> tuple[OmeImage, int]:
    size = {axis: _whole(pixels.get(f"Size{axis}")) for axis in "XYZCT"}
    samples = sum(_whole(c.get("SamplesPerPixel")) for c in _all(pixels, "Channel")) or size["C"]
    separate = size["C"] if samples == len(list(_all(pixels, "Channel"))) else 1
    planes: dict[int, int] = {}
    for data in _all(pixels, "TiffData"):
        if any(
            u.get("FileName") and len({v.text for v in _all(pixels, "UUID")}) > 1 for u in _all(data, "UUID")
        ):
            raise SlideError(
                Reason.FILE_UNREADABLE,
                f"{name}: an OME-TIFF over several files; export the slide as one file",
            )
        first = _whole(data.get("IFD"), next_ifd)
        count = _whole(data.get("PlaneCount"), 1 if data.get("IFD") is not None else separate)
        channel = _whole(data.get("FirstC"), 0)
        in_place = _whole(data.get("FirstZ"), 0) == 0 and _whole(data.get("FirstT"), 0) == 0
        for k in range(min(count, 4)):
            if in_place:
                planes.setdefault(channel + k, first + k)
        next_ifd = first + count
    x, y = (length_um(pixels.get(f"PhysicalSize{a}"), pixels.get(f"PhysicalSize{a}Unit")) for a in "XY")
    objective = next(_all(element, "ObjectiveSettings"), None)
    image = OmeImage(
        name=element.get("Name") or str(i),
        height=size["Y"],
        width=size["X"],
        channels=size["C"],
        sections=max(size["Z"], 1) * max(size["T"], 1),
        pixel_type=pixels.get("Type", ""),
        scale=Scale("ome", y, x) if x is not None and y is not None else None,
        objective_power=powers.get(objective.get("ID"))
        if objective is not None
        else next(iter(powers.values()), None),
        channel_ifds=tuple(planes[c] for c in sorted(planes)),
    )
    return image, next_ifd


def _all(element: ET.Element, tag: str) -> Iterator[ET.Element]:
    """Descendants with a local name, whatever the schema's year."""
    return (e for e in element.iter() if isinstance(e.tag, str) and e.tag.rpartition("}")[2] == tag)


def _whole(text: str | None, default: int = 0) -> int:
    return int(text) if text is not None and text.isascii() and text.isdigit() and len(text) < 12 else default
