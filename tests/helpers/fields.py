"""Small phantoms of many kinds, each chosen for the rules of the kernels that it leads through.

They are drawn once a process, and come from nothing that measures.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import cv2
import numpy as np

from her2core.phantom import ISHSpec, PhantomSpec, Population, plant_ish, render_field, render_ish
from her2core.records import Box

EDGE_UM = 80.0
"""Of an IHC field: some thirty cells."""
MIXED = (0.2, 0.2, 0.2, 0.2, 0.2)
STRONG = (0.0, 0.0, 0.0, 0.0, 1.0)


def ihc_pixels(mpp: float = 0.25, **how: Any) -> np.ndarray:
    edge = round(EDGE_UM / mpp)
    return render_field(PhantomSpec(height_px=edge, width_px=edge, mpp=mpp, **how))[0]


def with_debris(pixels: np.ndarray) -> np.ndarray:
    """Brown grains and a fold, a drop of blue, a hole, and a red cell."""
    pixels = pixels.copy()
    drawn = (((60, 70), 3, (120, 80, 50)), ((200, 60), 9, (90, 60, 40)), ((90, 230), 12, (70, 60, 140)),
             ((250, 250), 30, (243, 242, 240)), ((150, 150), 10, (210, 120, 120)))  # fmt: skip
    for place, radius, colour in drawn:
        cv2.circle(pixels, place, radius, colour, -1, cv2.LINE_AA)
    cv2.line(pixels, (0, 120), (319, 190), (150, 120, 100), 5, cv2.LINE_AA)
    return pixels


def browned(pixels: np.ndarray) -> np.ndarray:
    """The left half under a brown haze: cytoplasm, or background, of 0.25 OD."""
    shade = 10.0 ** (-0.25 * np.array((0.269, 0.568, 0.778)))
    out = pixels.astype(np.float64)
    out[:, : out.shape[1] // 2] *= shade
    return np.rint(out).astype(np.uint8)


IHC: dict[str, tuple[float, Callable[[], np.ndarray]]] = {
    "mixed": (0.25, lambda: ihc_pixels(seed=3, mix=MIXED, pattern="mosaic")),
    "mixed, coarse": (0.5, lambda: ihc_pixels(0.5, seed=4, mix=MIXED)),
    "mixed, fine": (0.18, lambda: ihc_pixels(0.18, seed=5, mix=MIXED)),
    "crowded 3+": (0.25, lambda: ihc_pixels(seed=6, mix=STRONG, spacing_um=9.5, tumour_fraction=1.0)),
    "3+ that hides nuclei": (
        0.25,
        lambda: ihc_pixels(
            seed=7,
            mix=STRONG,
            hematoxylin_od=0.06,
            stain_strength=1.6,
            tumour_fraction=1.0,
            loose_fraction=0.0,
        ),
    ),
    "pale": (0.25, lambda: ihc_pixels(seed=8, mix=MIXED, hematoxylin_od=0.1, stain_strength=0.6)),
    "loose": (
        0.25,
        lambda: ihc_pixels(seed=9, mix=(0.1, 0.1, 0.1, 0.3, 0.4), loose_fraction=1.0, tumour_fraction=1.0),
    ),
    "stroma": (0.25, lambda: ihc_pixels(seed=10, mix=MIXED, tumour_fraction=0.3)),
    "crowded": (0.25, lambda: ihc_pixels(seed=11, mix=(0.5, 0.3, 0.2, 0.0, 0.0), spacing_um=8.0)),
    "debris": (0.25, lambda: with_debris(ihc_pixels(seed=12, mix=MIXED))),
    "browned": (0.25, lambda: browned(ihc_pixels(seed=13, mix=MIXED, pattern="mosaic"))),
    "too dark": (0.25, lambda: ihc_pixels(seed=15, mix=MIXED, stain_strength=3.0, spacing_um=11.0)),
    "blurred": (0.25, lambda: ihc_pixels(seed=14, mix=MIXED, defocus_um=1.0)),
}  # fmt: skip


def ish_pixels(spec: ISHSpec) -> np.ndarray:
    return render_ish(plant_ish(spec), Box(0, 0, spec.height_px, spec.width_px))


def field(modality: str, seed: int, mpp: float, *populations: Population, **how: Any) -> ISHSpec:
    edge = round((60 if mpp > 0.1 else 40) / mpp)
    return ISHSpec(modality, seed, edge, edge, mpp, populations or KINDS, margin_um=6.0, **how)


KINDS = (Population(0.6, 2.0, 2.0), Population(0.4, 9.0, 2.5, clustered=True))
ISH: dict[str, ISHSpec] = {
    "FISH": field("FISH", 1, 0.12),
    "FISH, coarse": field("FISH", 2, 0.25),
    "FISH, fine": field("FISH", 13, 0.06),
    "DISH, fine": field("DISH", 14, 0.06),
    "FISH, overlapping": field("FISH", 3, 0.16, spacing_um=13.0, overlapping=0.5, touching=0.4),
    "FISH, hazy": field("FISH", 4, 0.16, haze=4.0, noise=3.0, stray=0.6),
    "FISH, out of focus": field("FISH", 5, 0.16, defocus_um=0.3, depth_um=0.4),
    "FISH, overexposed": field("FISH", 11, 0.2),
    "DISH, faded": field("DISH", 12, 0.2, stray=0.4),
    "DISH": field("DISH", 6, 0.12),
    "DISH, coarse": field("DISH", 7, 0.25),
    "DISH, overlapping": field("DISH", 8, 0.16, spacing_um=13.0, overlapping=0.5, touching=0.4),
    "DISH, hazy": field("DISH", 9, 0.16, haze=4.0, noise=3.0, stray=0.6),
    "DISH, amplified": field("DISH", 10, 0.16, Population(1.0, 20.0, 3.0, clustered=True), depth_um=0.3),
}


def overexposed(pixels: np.ndarray) -> np.ndarray:
    """Grey levels eightfold, as far as there are any."""
    most = np.iinfo(pixels.dtype).max
    return np.minimum(pixels.astype(np.int64) * 8, most).astype(pixels.dtype)


def faded(pixels: np.ndarray) -> np.ndarray:
    """Half of the light that stain takes away."""
    return np.rint(255 - (255 - pixels.astype(np.float64)) / 2).astype(np.uint8)


AFTERWARDS = {"FISH, overexposed": overexposed, "DISH, faded": faded}


@cache
def pixels_of(name: str) -> np.ndarray:
    """Pixels of a field of either kind."""
    if name in IHC:
        return IHC[name][1]()
    pixels = ish_pixels(ISH[name])
    return AFTERWARDS[name](pixels) if name in AFTERWARDS else pixels
