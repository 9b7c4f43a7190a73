"""Which annotations count and which are cut out, by their classes.

::

    excluded class, or drawn as a hole     cut out of all others
    included class                         counts
    no class, or Region*                   counts where no annotation of the file has an included class
    any other class                        beside an included one not used; alone refused: a person decides
"""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase

import shapely
from shapely.geometry.base import BaseGeometry

from her2core.intake.roi.shapes import Annotation, Drawn, invalid
from her2core.params import RoiParams
from her2core.text import shown

GENERIC = ("region*", "roi*")
"""Classes that state no more than that there is a region; QuPath's own is ``Region*``."""
UNCLASSIFIED = "unclassified"
HOLE = "hole"
MAX_NAMED = 12
"""Most classes that a message or a row names. Ours."""
ASIDE = ("Ignore*", "Exclu*", "Artefact*", "Artifact*", "*necro*", "*DCIS*", "*LCIS*", "*in situ*")
"""Excluded classes that a model learns nothing from: no intact cells, or cells that look like
tumour. Ours."""


def combined(
    uri: str, drawn: Drawn, params: RoiParams, *, layers: bool
) -> tuple[BaseGeometry, dict[str, tuple[str, ...]]]:
    """The area that counts, and which classes were ``counted``, ``cut_out`` and ``unused``.

    Parameters
    ----------
    layers
        Whether classes are names of layers, which people leave as they come: an unknown one is no class.

    Raises
    ------
    SlideError
        ``ROI_INVALID`` if nothing is left, or only classes that are not configured to count.
    """
    groups: dict[str, list[Annotation]] = {"included": [], "cut_out": [], "generic": [], "other": []}
    for annotation in drawn.annotations:
        groups[_group(annotation, params, layers=layers)].append(annotation)
    if not drawn.annotations:
        found = ", ".join(f"{count} {kind}" for kind, count in list(drawn.passed_over.items())[:MAX_NAMED])
        raise invalid(
            uri,
            f"no annotation to score: it holds {found or 'nothing'}, and no area. Draw at least one polygon.",
        )
    counted = groups["included"] or groups["generic"]
    if not groups["included"] and groups["other"]:
        raise invalid(
            uri,
            f"classes {', '.join(_named(groups['other']))}: neither among those that count nor among those "
            "that are cut out. Name them in roi.include or roi.exclude of the configuration, or class the "
            "annotations Tumor and Ignore*.",
        )
    if not counted:
        raise invalid(
            uri,
            f"no annotation to score: all are cut out ({', '.join(_named(groups['cut_out']))}). Draw the "
            "tumour, and class it Tumor.",
        )
    unused = groups["other"] + (groups["generic"] if groups["included"] else [])
    area = shapely.union_all([annotation.area for annotation in counted])
    if groups["cut_out"]:
        area = shapely.difference(area, shapely.union_all([a.area for a in groups["cut_out"]]))
    if area.is_empty:
        raise invalid(uri, f"nothing is left after {', '.join(_named(groups['cut_out']))} was cut out.")
    return area, {
        "counted": _named(counted),
        "cut_out": _named(groups["cut_out"]),
        "unused": _named(unused),
    }


def tissues(uri: str, drawn: Drawn, params: RoiParams) -> tuple[BaseGeometry, BaseGeometry]:
    """Where a model may learn tumour, and where other tissue: included classes, and those that are cut out.

    Holes and the classes of `ASIDE` belong to neither; other tissue drawn inside tumour is none.

    Raises
    ------
    SlideError
        ``ROI_INVALID`` if a class is neither included nor excluded, or there is none.
    """
    groups: dict[str, list[Annotation]] = {"tumour": [], "other": [], "aside": [], "unknown": []}
    for annotation in drawn.annotations:
        excluded = _matches(annotation.classes, params.exclude)
        if annotation.negative or (excluded and _matches(annotation.classes, ASIDE)):
            groups["aside"].append(annotation)
        elif excluded:
            groups["other"].append(annotation)
        else:
            included = _matches(annotation.classes, params.include)
            groups["tumour" if included else "unknown"].append(annotation)
    if groups["unknown"]:
        raise invalid(
            uri,
            f"classes {', '.join(_named(groups['unknown']))}: neither tumour nor other tissue. Name them in "
            "roi.include (tumour) or roi.exclude (other tissue) of the configuration, or class the "
            "annotations Tumor, Stroma, Immune cells, Normal or Ignore*.",
        )
    if not groups["tumour"] and not groups["other"]:
        raise invalid(uri, "no area to learn from. Draw tumour and other tissue, and class them.")
    tumour, other, aside = (
        shapely.union_all([annotation.area for annotation in groups[name]])
        for name in ("tumour", "other", "aside")
    )
    return shapely.difference(tumour, shapely.union(other, aside)), shapely.difference(other, aside)


def _group(annotation: Annotation, params: RoiParams, *, layers: bool) -> str:
    if annotation.negative or _matches(annotation.classes, params.exclude):
        return "cut_out"
    if _matches(annotation.classes, params.include):
        return "included"
    if not annotation.classes or _matches(annotation.classes[:1], GENERIC) or layers:
        return "generic"
    return "other"


def _matches(classes: Sequence[str], patterns: Sequence[str]) -> bool:
    """Whether one of the classes fits one of the patterns, in any case."""
    return any(fnmatchcase(name.casefold(), pattern.casefold()) for name in classes for pattern in patterns)


def _named(annotations: Sequence[Annotation]) -> tuple[str, ...]:
    """Different classes, sorted, not more than a row can show."""
    names = sorted({_name(annotation) for annotation in annotations})
    more = len(names) - MAX_NAMED
    return tuple(names[:MAX_NAMED]) + ((f"and {more} more",) if more > 0 else ())


def _name(annotation: Annotation) -> str:
    if not annotation.classes:
        return HOLE if annotation.negative else UNCLASSIFIED
    text = ": ".join(annotation.classes)
    plain = "".join(letter for letter in text if letter.isprintable())
    return plain if len(plain) <= 60 else shown(plain)
