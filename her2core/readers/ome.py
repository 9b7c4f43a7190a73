"""The few fields of OME-XML that reading slide pixels needs.

References
----------
OME Data Model 2016-06, https://www.openmicroscopy.org/Schemas/OME/2016-06/.
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from dataclasses import dataclass

from her2core.errors import Reason, SlideError
from her2core.readers.base import NOT_SLIDE_NAMES
from her2core.readers.channels import MAX_PLANES, StatedChannel
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
    times
        Time points.
    channel_said
        What is said of each channel.
    stack
        Directory of each channel at each focal plane of the first time point; None where the document names
        none.
    """

    name: str
    height: int
    width: int
    channels: int
    sections: int
    scale: Scale | None
    objective_power: float | None
    channel_ifds: tuple[int, ...]
    times: int = 1
    channel_said: tuple[StatedChannel, ...] = ()
    stack: tuple[tuple[int | None, ...], ...] = ()

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
    except (ET.ParseError, LookupError) as error:  # LookupError: an encoding that nobody knows
        raise SlideError(
            Reason.FILE_UNREADABLE, f"{name}: its OME-XML does not parse ({type(error).__name__})"
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
    channels = list(_all(pixels, "Channel"))
    samples = sum(_whole(c.get("SamplesPerPixel")) for c in channels) or size["C"]
    lengths = {
        "C": max(size["C"], 1) if samples == len(channels) else 1,
        "Z": max(size["Z"], 1),
        "T": max(size["T"], 1),
    }
    in_all = lengths["C"] * lengths["Z"] * lengths["T"]
    if in_all > MAX_PLANES:
        raise SlideError(
            Reason.FILE_HOSTILE,
            f"{name}: its OME-XML declares {in_all} planes of one image; accepted are {MAX_PLANES}",
        )
    order = pixels.get("DimensionOrder", "")[2:]
    order = order if sorted(order) == ["C", "T", "Z"] else "CZT"
    planes: dict[tuple[int, ...], int] = {}  # by channel, focus and time
    for data in _all(pixels, "TiffData"):
        if any(
            u.get("FileName") and len({v.text for v in _all(pixels, "UUID")}) > 1 for u in _all(data, "UUID")
        ):
            raise SlideError(
                Reason.FILE_UNREADABLE,
                f"{name}: an OME-TIFF over several files; export the slide as one file",
            )
        first = _whole(data.get("IFD"), next_ifd)
        count = _whole(data.get("PlaneCount"), 1 if data.get("IFD") is not None else in_all)
        at, step = 0, 1
        for axis in order:
            at += step * _whole(data.get(f"First{axis}"), 0)
            step *= lengths[axis]
        for k in range(min(count, in_all - at)):
            planes.setdefault(_place(at + k, order, lengths), first + k)
        next_ifd = first + count
    x, y = (length_um(pixels.get(f"PhysicalSize{a}"), pixels.get(f"PhysicalSize{a}Unit")) for a in "XY")
    objective = next(_all(element, "ObjectiveSettings"), None)
    image = OmeImage(
        name=element.get("Name") or str(i),
        height=size["Y"],
        width=size["X"],
        channels=size["C"],
        sections=max(size["Z"], 1) * max(size["T"], 1),
        scale=Scale("ome", y, x) if x is not None and y is not None else None,
        objective_power=powers.get(objective.get("ID"))
        if objective is not None
        else next(iter(powers.values()), None),
        channel_ifds=tuple(planes[place] for place in sorted(planes) if place[1:] == (0, 0)),
        times=lengths["T"],
        channel_said=tuple(map(_channel, channels)),
        stack=tuple(tuple(planes.get((c, z, 0)) for z in range(lengths["Z"])) for c in range(lengths["C"])),
    )
    return image, next_ifd


def _channel(element: ET.Element) -> StatedChannel:
    colour = element.get("Color", "")
    packed = int(colour) & 0xFFFFFFFF if re.fullmatch(r"-?[0-9]{1,10}", colour) else None
    return StatedChannel(
        name=element.get("Name") or element.get("Fluor") or "",
        rgb=None if packed is None else (packed >> 24, packed >> 16 & 255, packed >> 8 & 255),
        fluorescent=any(element.get(key) for key in ("Fluor", "EmissionWavelength"))
        or element.get("ContrastMethod") == "Fluorescence",
    )


def _place(index: int, order: str, lengths: dict[str, int]) -> tuple[int, ...]:
    """Channel, focus and time of the plane that comes at a place of the order."""
    found = {}
    for axis in order:
        index, found[axis] = divmod(index, lengths[axis])
    return found["C"], found["Z"], found["T"]


def _all(element: ET.Element, tag: str) -> Iterator[ET.Element]:
    """Descendants with a local name, whatever the schema's year."""
    return (e for e in element.iter() if isinstance(e.tag, str) and e.tag.rpartition("}")[2] == tag)


def _whole(text: str | None, default: int = 0) -> int:
    return int(text) if text is not None and text.isascii() and text.isdigit() and len(text) < 12 else default
