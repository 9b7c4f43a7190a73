"""When two ids are a slip of one another: they differ in letter case, spaces, dashes or underscores alone."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

_DASHES = re.compile("[\u2010-\u2015\u2212\ufe58\ufe63\uff0d]")


def separated(text: str) -> str:
    """An id with one sign between its parts, be it a space, a dash or an underscore."""
    plain = _DASHES.sub("-", unicodedata.normalize("NFKC", text).casefold())
    return re.sub(r"[\s_-]+", "-", plain.strip())


def folded(text: str) -> str:
    """What is left of an id without letter case, spaces and kinds of dashes."""
    return _DASHES.sub("-", "".join(unicodedata.normalize("NFKC", text).casefold().split()))


def spellings(text: str) -> tuple[str, str]:
    """Two ids are a slip of one another if they have one of these in common."""
    return folded(text), separated(text)


def alike(ids: Sequence[str]) -> list[int]:
    """For each id the place of the first one that it is a slip of, by itself or by others between them."""
    first: dict[str, int] = {}
    leader = list(range(len(ids)))

    def of(place: int) -> int:
        while leader[place] != place:
            place = leader[place]
        return place

    for place, text in enumerate(ids):
        for spelling in spellings(text):
            a, b = of(first.setdefault(spelling, place)), of(place)
            leader[max(a, b)] = min(a, b)
    return [of(place) for place in range(len(ids))]
