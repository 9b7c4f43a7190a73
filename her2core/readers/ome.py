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
from her2core.readers.base import names_picture
from her2core.readers.channels import MAX_CHANNEL_NAME, MAX_PLANES, StatedChannel
from her2core.readers.scale import Scale, length_um, read_number

MAX_ELEMENTS = 1 << 17
"""Most elements of a document (ours); four a plane are 16 000 for the most planes that are read."""


@dataclass(frozen=True, slots=True)
class OmeImage:
    """One ``Image`` element: a scene. Its name stays behind: it is often the file's, or a patient's.

    Attributes
    ----------
    number
        Its place among the document's images, from 0.
    is_slide
        Whether this is slide pixels, going by its name, and not a label, macro or thumbnail picture.
    channel_ifds
        Directory (index in the file's main chain) of each channel that has one of its own; a single entry
        where one directory holds all samples.
    foci, times
        Focal planes and time points.
    channel_said
        What it states of each channel.
    stack
        Directory of each channel at each focal plane of the first time point; None where the document names
        none.
    """

    number: int
    is_slide: bool
    height: int
    width: int
    channels: int
    foci: int
    times: int
    scale: Scale | None
    objective_power: float | None
    channel_ifds: tuple[int, ...]
    channel_said: tuple[StatedChannel, ...] = ()
    stack: tuple[tuple[int | None, ...], ...] = ()


def is_ome(description: str) -> bool:
    """Whether an image description is OME-XML."""
    return "<OME" in description[:4096] or "<ome:OME" in description[:4096]


def parse_ome(name: str, xml: str) -> list[OmeImage]:
    """Every image of the document, labels and macros among them.

    Raises
    ------
    SlideError
        ``FILE_BEYOND_LIMITS`` for a document of more elements than any slide's, ``FILE_UNREADABLE`` for one
        that does not parse, defines entities or refers to other files.
    """
    if "<!DOCTYPE" in xml or "<!ENTITY" in xml:
        raise SlideError(
            Reason.FILE_UNREADABLE, f"{name}: its OME-XML defines entities, which OME-XML never does"
        )
    if xml.count("<") > 2 * MAX_ELEMENTS:  # an element has one or two tags
        raise SlideError(
            Reason.FILE_BEYOND_LIMITS,
            f"{name}: its OME-XML has more than {MAX_ELEMENTS} elements; expected a slide's",
        )
    try:
        root = ET.fromstring(xml)  # decoded already: its declaration no longer holds
    except (ET.ParseError, LookupError, ValueError) as error:
        raise SlideError(
            Reason.FILE_UNREADABLE, f"{name}: its OME-XML does not parse ({type(error).__name__})"
        ) from error
    powers = {
        e.get("ID"): read_number(e.get("NominalMagnification"))
        for instrument in _children(root, "Instrument")
        for e in _children(instrument, "Objective")
    }
    images: list[OmeImage] = []
    next_ifd = 0
    for i, element in enumerate(_children(root, "Image")):
        pixels = next(_children(element, "Pixels"), None)
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
    channels = list(_children(pixels, "Channel"))
    samples = sum(_whole(c.get("SamplesPerPixel")) for c in channels) or size["C"]
    lengths = {
        "C": max(size["C"], 1) if samples == len(channels) else 1,
        "Z": max(size["Z"], 1),
        "T": max(size["T"], 1),
    }
    in_all = lengths["C"] * lengths["Z"] * lengths["T"]
    if in_all > MAX_PLANES:
        raise SlideError(
            Reason.FILE_BEYOND_LIMITS,
            f"{name}: its OME-XML declares {in_all} planes of one image; accepted are {MAX_PLANES}",
        )
    order = pixels.get("DimensionOrder", "")[2:]
    order = order if sorted(order) == ["C", "T", "Z"] else "CZT"
    planes: dict[tuple[int, ...], int] = {}  # by channel, focus and time
    parts = list(_children(pixels, "TiffData"))
    files = [uuid for data in parts for uuid in _children(data, "UUID")]
    if any(uuid.get("FileName") for uuid in files) and len({uuid.text for uuid in files}) > 1:
        raise SlideError(
            Reason.FILE_UNREADABLE, f"{name}: an OME-TIFF over several files; export the slide as one file"
        )
    for data in parts:
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
    objective = next(_children(element, "ObjectiveSettings"), None)
    image = OmeImage(
        number=i,
        is_slide=not names_picture(element.get("Name", "")),
        height=size["Y"],
        width=size["X"],
        channels=size["C"],
        foci=lengths["Z"],
        times=lengths["T"],
        scale=Scale("ome", y, x) if x is not None and y is not None else None,
        objective_power=powers.get(objective.get("ID"))
        if objective is not None
        else next(iter(powers.values()), None),
        channel_ifds=tuple(planes[place] for place in sorted(planes) if place[1:] == (0, 0)),
        channel_said=tuple(map(_channel, channels)),
        stack=tuple(tuple(planes.get((c, z, 0)) for z in range(lengths["Z"])) for c in range(lengths["C"])),
    )
    return image, next_ifd


def _channel(element: ET.Element) -> StatedChannel:
    colour = element.get("Color", "")
    packed = int(colour) & 0xFFFFFFFF if re.fullmatch(r"-?[0-9]{1,10}", colour) else None
    return StatedChannel(
        name=(element.get("Name") or element.get("Fluor") or "")[:MAX_CHANNEL_NAME],
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


def _children(element: ET.Element, tag: str) -> Iterator[ET.Element]:
    """Children with a local name, whatever the schema's year."""
    return (e for e in element if isinstance(e.tag, str) and e.tag.rpartition("}")[2] == tag)


def _whole(text: str | None, default: int = 0) -> int:
    return int(text) if text is not None and text.isascii() and text.isdigit() and len(text) < 12 else default
