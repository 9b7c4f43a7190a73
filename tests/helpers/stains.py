"""What the profiles of phantoms hold."""

from __future__ import annotations

from typing import Any

from her2core.kernels.stain import unit
from her2core.phantom.ish_render import DAPI_LEVEL, FIELD, GLASS, HEMATOXYLIN, HEMATOXYLIN_OD, RED
from her2core.records import DishStain, Fluorescence


def stain_of(modality: str, *, dual: bool = True) -> DishStain | Fluorescence:
    """What the profile of an ISH phantom holds."""
    if modality == "DISH":
        return DishStain(
            i0=GLASS,
            hematoxylin=_three(HEMATOXYLIN),
            red=_three(RED),
            source="reference",
            fallback=None,
            hematoxylin_low_od=0.02,
            hematoxylin_high_od=HEMATOXYLIN_OD,
        )
    n = 3 if dual else 2
    return Fluorescence(
        channels=("DAPI", "HER2", "CEP17")[:n],
        background=FIELD[:n],
        noise=(10.0, 10.0, 10.0)[:n],
        dapi_low=FIELD[0],
        dapi_high=FIELD[0] + DAPI_LEVEL,
    )


def _three(vector: Any) -> tuple[float, float, float]:
    r, g, b = (float(v) for v in unit(tuple(float(v) for v in vector)))
    return r, g, b
