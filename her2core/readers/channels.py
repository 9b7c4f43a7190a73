"""Which channel of a fluorescence file is DAPI, which HER2, which CEP17: stated, or refused; never guessed.

The manifest's text goes first: ``DAPI=2;HER2=0;CEP17=1``, where a value is a channel's index in the file,
from 0, or its name there. Without a text the names in the file's own metadata must show it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from her2core.errors import Reason, SlideError
from her2core.text import first_few

CHANNELS = ("DAPI", "HER2", "CEP17")
"""Channels in the order in which pixels hold them; a single-probe slide has the first two."""
REQUIRED = CHANNELS[:2]
SYNONYMS = {"DAPI": ("DAPI",), "HER2": ("HER2", "ERBB2"), "CEP17": ("CEP17", "CEN17", "D17Z1")}
"""Names in metadata for each, written without spaces and signs."""
RGB_NAMES = ("R", "G", "B")
"""Names of the channels of a picture in pseudo-colour."""
COLOUR_WORDS = {"r": "R", "red": "R", "g": "G", "green": "G", "b": "B", "blue": "B"}
EMPTY_WORDS = {
    "bf", "bright", "brightfield", "c", "camera", "ch", "channel", "color", "colour", "field", "image",
    "light", "plane", "rgb", "sample", "spp", "tl", "transmitted",
}  # fmt: skip
"""Words of a bright-field channel's name that do not name its colour."""
MAX_CHANNELS = 256
"""Most channels of a file; multiplexed scans have 60."""
MAX_CHANNEL_NAME = 100
"""Longest name of a channel that is kept, characters (ours)."""
MAX_NAMED = 16
"""Most channels that a message names (ours)."""
MAX_PLANES = 4096
"""Most planes of a file: channels times focal planes; as many as a TIFF may have directories."""


@dataclass(frozen=True, slots=True)
class ChannelMap:
    """Which channel of the file, counted from 0, each channel of a pixel is.

    Attributes
    ----------
    names
        The first two or all three of ``CHANNELS``.
    """

    names: tuple[str, ...]
    sources: tuple[int, ...]

    def __str__(self) -> str:
        return ";".join(f"{name}={source}" for name, source in zip(self.names, self.sources, strict=True))


@dataclass(frozen=True, slots=True)
class StatedChannel:
    """What a file's metadata state of one channel.

    Attributes
    ----------
    name
        What it is called, or an empty text.
    rgb
        The colour that it is shown in.
    fluorescent
        Whether a fluorophore, a wavelength or the contrast is named that only fluorescence has.
    """

    name: str = ""
    rgb: tuple[int, int, int] | None = None
    fluorescent: bool = False


def colour_order(
    file: str, stated: Sequence[StatedChannel], *, in_order: bool = False
) -> tuple[tuple[int, ...], tuple[str, ...]]:
    """Find red, green and blue among the channels of a bright-field file.

    Names go first, then the colours that the channels are shown in. Three channels of which nothing is stated
    are red, green and blue in this order.

    Parameters
    ----------
    stated
        What the metadata state of each channel.
    in_order
        Whether the file states elsewhere that the samples are red, green and blue, so that it is enough if
        nothing here contradicts.

    Returns
    -------
    tuple
        Indices of red, green and blue, and notes on them.

    Raises
    ------
    SlideError
        ``FILE_UNREADABLE`` for channels of fluorescence, or where it stays open which is which.
    """
    named = [_colour_named(channel.name) for channel in stated]
    if any(channel.fluorescent for channel in stated) or None in named:
        raise _not_colours(file, stated, "they are no colours")
    shown = [_colour_shown(channel.rgb) for channel in stated]
    for colours in (named, shown):
        found = [colours.index(c) for c in RGB_NAMES if colours.count(c) == 1]
        if len(found) == len(RGB_NAMES):
            return tuple(found), ()
        if any(colours) and not in_order:
            raise _not_colours(file, stated, "they leave open which is red, green and blue")
    if len(stated) != len(RGB_NAMES):
        raise _not_colours(file, stated, "nothing states which is red, green and blue")
    assumed = () if in_order else ("its three channels are not named: taken as red, green and blue",)
    return (0, 1, 2), assumed


def _colour_named(title: str) -> str | None:
    """``R``, ``G`` or ``B``; empty for a name without meaning; None for one with another meaning."""
    words = re.findall(r"[^\W\d_]+", title.casefold())
    found = {COLOUR_WORDS[word] for word in words if word in COLOUR_WORDS}
    if not all(word in COLOUR_WORDS or word in EMPTY_WORDS for word in words) or len(found) > 1:
        return None
    return found.pop() if found else ""


def _colour_shown(rgb: tuple[int, int, int] | None) -> str:
    """``R``, ``G`` or ``B``; empty for white, black and no colour; ``other`` for any other."""
    if rgb is None or len(set(rgb)) == 1:
        return ""
    return {(255, 0, 0): "R", (0, 255, 0): "G", (0, 0, 255): "B"}.get(rgb, "other")


def _not_colours(file: str, stated: Sequence[StatedChannel], why: str) -> SlideError:
    has = first_few([f"{i} {channel.name!r}" for i, channel in enumerate(stated)], MAX_NAMED)
    return SlideError(
        Reason.FILE_UNREADABLE,
        f"{file}: its {len(stated)} channels are {has}: {why}. Export a bright-field slide as 8-bit RGB; of "
        "a fluorescence slide say in the manifest that its assay is HER2-FISH",
    )


def parse_channels(text: str) -> dict[str, str]:
    """Read a mapping: channel by canonical name, what it is called or numbered in the file.

    Raises
    ------
    ValueError
        Saying what was found and expected.
    """
    found: dict[str, str] = {}
    for part in filter(None, (p.strip() for p in text.split(";"))):
        key, equals, value = (p.strip() for p in part.partition("="))
        name = _channels_named(key)
        if len(name) != 1 or not equals or not value:
            raise ValueError(f"found {part!r}; expected a text such as DAPI=2;HER2=0;CEP17=1")
        if name[0] in found:
            raise ValueError(f"names {name[0]} twice")
        found[name[0]] = value
    missing = [name for name in REQUIRED if name not in found]
    if missing:
        raise ValueError(
            f"does not say which channel is {' and '.join(missing)}, as in DAPI=2;HER2=0;CEP17=1"
        )
    folded = sorted(value.casefold() for value in found.values())
    if any(len(list(same)) > 1 for _, same in groupby(folded)):
        raise ValueError("gives one channel of the file to two of DAPI, HER2 and CEP17")
    return found


def map_channels(name: str, text: str | None, stored: Sequence[str]) -> ChannelMap:
    """Find the channels among those that a file has.

    Parameters
    ----------
    name
        The file's, for messages.
    text
        The manifest's ``channels``.
    stored
        Name of every channel of the file; empty where it has none.

    Raises
    ------
    SlideError
        ``CHANNELS_UNKNOWN``, saying what the file has and what to write.
    """
    if text is None:
        wanted = _named(name, stored)
    else:
        try:
            parsed = parse_channels(text)
        except ValueError as error:
            raise _unknown(name, f"the mapping {text!r} {error}", stored) from error
        wanted = {channel: _find(name, value, stored) for channel, value in parsed.items()}
    names = tuple(channel for channel in CHANNELS if channel in wanted)
    sources = tuple(wanted[channel] for channel in names)
    if len(set(sources)) < len(sources):
        raise _unknown(name, f"the mapping {text!r} gives one channel of the file to two", stored)
    return ChannelMap(names, sources)


def _find(name: str, value: str, stored: Sequence[str]) -> int:
    """Index of the channel that a mapping's value means."""
    if value.isascii() and value.isdigit():
        if len(value) > 3 or int(value) >= len(stored):
            raise _unknown(name, f"there is no channel {value}; counting starts at 0", stored)
        return int(value)
    same = [i for i, title in enumerate(stored) if title.strip().casefold() == value.casefold()]
    if len(same) != 1:
        raise _unknown(name, f"{len(same)} of its channels are named {value!r}", stored)
    return same[0]


def _named(name: str, stored: Sequence[str]) -> dict[str, int]:
    """Channels by the file's own names."""
    found: dict[str, int] = {}
    for i, title in enumerate(stored):
        for channel in (title_names := _channels_named(title)):
            if len(title_names) > 1 or channel in found:
                raise _unknown(name, f"the name {title!r} leaves open which channel is {channel}", stored)
            found[channel] = i
    missing = [channel for channel in REQUIRED if channel not in found]
    if missing:
        raise _unknown(name, f"its metadata do not say which channel is {' and '.join(missing)}", stored)
    return found


def _channels_named(title: str) -> list[str]:
    """Canonical channels that a name refers to."""
    plain = re.sub(r"[\W_]+", "", title).upper()
    return [channel for channel, words in SYNONYMS.items() if any(word in plain for word in words)]


def _unknown(name: str, what: str, stored: Sequence[str]) -> SlideError:
    channels = [f"{i} {title!r}" if title else str(i) for i, title in enumerate(stored)]
    return SlideError(
        Reason.CHANNELS_UNKNOWN,
        f"{name}: {what}. The file has the channels {first_few(channels, MAX_NAMED)}; say which is which in "
        "the manifest column `channels`, as DAPI=2;HER2=0;CEP17=1 (without CEP17 for a single probe)",
    )
