"""Micrometres per pixel: the manifest's value, else the file's metadata, else none."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from her2core.errors import Reason, SlideError
from her2core.records import Assay

PLAUSIBLE_UM_PX = (0.1, 1.1)
"""µm/px an IHC scan can have: 100x oil is 0.1, 10x is 1.0 (ours)."""
PLAUSIBLE_ISH_UM_PX = (0.04, 1.1)
"""µm/px an ISH scan can have: signals are imaged finer, at 100x with a camera of 4 µm pixels (ours)."""
MAX_ANISOTROPY = 0.02
"""Largest relative difference of the x and y scale that is measured as square pixels (ours)."""
MAX_DISAGREEMENT = 0.10
"""Relative difference of manifest and metadata above which it is reported (ours)."""
PLACEHOLDER_UM = 1.0
"""Pixel size, µm, that is doubted; a scan at 10x has 0.98 or 1.02 sooner than exactly this (ours)."""

# SI lengths that OME-XML and OME-Zarr may use, in µm
UNIT_UM = {
    "µm": 1.0, "μm": 1.0, "um": 1.0, "micron": 1.0, "micrometer": 1.0, "micrometre": 1.0,
    "nm": 1e-3, "nanometer": 1e-3, "nanometre": 1e-3, "pm": 1e-6, "Å": 1e-4, "angstrom": 1e-4,
    "mm": 1e3, "millimeter": 1e3, "millimetre": 1e3, "cm": 1e4, "centimeter": 1e4, "centimetre": 1e4,
    "m": 1e6, "meter": 1e6, "metre": 1e6, "in": 25400.0, "inch": 25400.0,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Scale:
    """One statement about the pixel size, µm per level-0 pixel, and where it stands."""

    source: str
    y_um: float
    x_um: float

    @property
    def is_placeholder(self) -> bool:
        """Whether it is exactly 1: what writers put where the pixel size is unknown."""
        return all(math.isclose(um, PLACEHOLDER_UM) for um in (self.y_um, self.x_um))


@dataclass(frozen=True, slots=True)
class ResolvedScale:
    """The scale to use, its source, and what is odd about it."""

    mpp: float | None
    source: str | None
    problems: tuple[str, ...] = ()


def plausible_range(assay: Assay | None) -> tuple[float, float]:
    """Least and most µm/px that a scan for an assay can have."""
    return PLAUSIBLE_ISH_UM_PX if assay in (Assay.DISH, Assay.FISH) else PLAUSIBLE_UM_PX


def plausible(mpp: float, assay: Assay | None = None) -> bool:
    """Whether a pixel size, µm, can belong to a scan for an assay."""
    low, high = plausible_range(assay)
    return low <= mpp <= high


def unit_um(unit: str) -> float | None:
    """A unit of length in µm, or None where it is unknown.

    ImageJ escapes the sign of micro, other writers encode it twice.
    """
    plain = unit.strip().replace("\\u00B5", "µ").replace("\\u00b5", "µ").replace("Âµ", "µ")
    return UNIT_UM.get(plain) or UNIT_UM.get(plain.lower().removesuffix("s"))


def length_um(value: str | None, unit: str | None) -> float | None:
    """A length with its unit in µm, or None where either cannot be read. OME's default unit is µm."""
    factor = unit_um(unit or "µm")
    number = read_number(value)
    return None if factor is None or number is None else number * factor


def read_number(text: str | None) -> float | None:
    """A finite positive decimal number at the start of ``text``, with comma or point, else None.

    Examples
    --------
    >>> read_number("0,2500 µm"), read_number(".25"), read_number("2.5E-1"), read_number("-1")
    (0.25, 0.25, 0.25, None)
    """
    match = re.match(
        r"\s*\+?([0-9]+(?:[.,][0-9]*)?(?:[eE][-+]?[0-9]+)?|[.,][0-9]+(?:[eE][-+]?[0-9]+)?)", text or ""
    )
    if match is None:
        return None
    number = float(match[1].replace(",", "."))
    return number if math.isfinite(number) and number > 0 else None


def resolve_scale(
    name: str, manifest: float | None, metadata: Sequence[Scale], assay: Assay | None = None
) -> ResolvedScale:
    """Choose the scale: manifest before metadata, the first usable metadata statement before the next.

    Raises
    ------
    SlideError
        ``SCALE_ANISOTROPIC`` where the metadata's x and y differ and the manifest does not overrule them.
    """
    usable = [s for s in metadata if all(math.isfinite(v) and v > 0 for v in (s.y_um, s.x_um))]
    stated = next((s for s in usable if not s.is_placeholder), None)
    problems: list[str] = []
    found: float | None = None
    if stated is not None:
        found = stated.x_um if stated.x_um == stated.y_um else math.sqrt(stated.x_um * stated.y_um)
        if abs(stated.y_um - stated.x_um) > MAX_ANISOTROPY * min(stated.y_um, stated.x_um):
            what = f"{stated.source} says {stated.x_um:g} µm/px in x and {stated.y_um:g} in y"
            if manifest is None:
                raise SlideError(
                    Reason.SCALE_ANISOTROPIC,
                    f"{name}: {what}; square pixels are expected (within {MAX_ANISOTROPY:.0%}). If the "
                    "pixels are square, give their size in the manifest column `mpp`",
                )
            problems.append(f"{what}: not square, the manifest's value is used for both")
    if manifest is not None:
        if found is not None and abs(found - manifest) > MAX_DISAGREEMENT * manifest:
            problems.append(
                f"the manifest says {manifest:g} µm/px, the file's {stated and stated.source} {found:g}"
            )
        return ResolvedScale(manifest, "manifest", (*problems, *_implausible(manifest, assay)))
    if stated is None or found is None:
        doubt = (
            f" ({usable[0].source} states exactly 1, which is what writers put where it is unknown)"
            if usable
            else ""
        )
        unknown = f"µm/px unknown{doubt}: give it in the manifest column `mpp`"
        return ResolvedScale(None, None, (*problems, unknown))
    return ResolvedScale(found, stated.source, (*problems, *_implausible(found, assay)))


def _implausible(mpp: float, assay: Assay | None) -> tuple[str, ...]:
    low, high = plausible_range(assay)
    return (
        ()
        if low <= mpp <= high
        else (f"{mpp:g} µm/px is outside {low}-{high}: correct the manifest column `mpp`",)
    )
