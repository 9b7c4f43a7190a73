"""What to plant: the specification of a phantom, and the smooth noise that its regions are cut from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy.special import ndtri

F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
RGB = npt.NDArray[np.uint8]

CLASSES: Final = ("0", "1", "2u", "2", "3")  # rank order of a cell's class
PATTERNS: Final = ("scattered", "mosaic", "cluster")
TUMOUR, LYMPHOCYTE, STROMA, EMPTY = range(4)
KINDS: Final = ("tumour", "lymphocyte", "stroma", "empty")


@dataclass(frozen=True, slots=True)
class PhantomSpec:
    """What to plant and how it is stained and scanned; equal specs give equal pixels.

    Attributes
    ----------
    spacing_um
        Mean distance of neighbouring cell centres before the plane is bent.
    tumour_fraction, loose_fraction
        Part of the tissue that is tumour; part of the tumour whose cells stand apart.
    mix
        Fractions of tumour cells planted as each of `CLASSES`; what neighbours add is in the truth only.
    pattern
        How classes are laid out: ``scattered`` (cell by cell), ``mosaic`` (patches of some ten cells) or
        ``cluster`` (the higher classes in one place, the lower around it).
    islands
        Ellipses ``(y, x, ry, rx)`` as fractions of height and width that hold tissue; none: all is tissue.
    hematoxylin_od
        Mean OD of tumour nuclei: 0.25 is usual, 0.10 a faint counterstain.
    stain_strength
        Factor on every DAB OD.
    i0, noise_sd, blur_um, jpeg_quality
        Light through glass (R, G, B), sensor noise in grey levels, optical blur (sigma) of everything but the
        membrane lines, whose widths are those seen in images already. No JPEG where None.
    defocus_um
        Further blur of everything (sigma, at most 3 um): a slide out of focus.
    """

    seed: int = 0
    height_px: int = 2048
    width_px: int = 2048
    mpp: float = 0.25
    spacing_um: float = 13.0
    tumour_fraction: float = 0.75
    loose_fraction: float = 0.15
    mix: tuple[float, float, float, float, float] = (1.0, 0.0, 0.0, 0.0, 0.0)
    pattern: str = "scattered"
    islands: tuple[tuple[float, float, float, float], ...] = ()
    hematoxylin_od: float = 0.25
    stain_strength: float = 1.0
    i0: tuple[float, float, float] = (243.0, 242.0, 240.0)
    noise_sd: float = 1.5
    blur_um: float = 0.25
    defocus_um: float = 0.0
    jpeg_quality: int | None = 85

    def __post_init__(self) -> None:
        if self.pattern not in PATTERNS:
            raise ValueError(f"pattern {self.pattern!r}: expected one of {', '.join(PATTERNS)}")
        if len(self.mix) != len(CLASSES) or min(self.mix) < 0 or abs(sum(self.mix) - 1) > 1e-6:
            raise ValueError(f"mix {self.mix}: expected {len(CLASSES)} fractions that sum to 1")

    def rng(self, stream: int) -> np.random.Generator:
        """Independent random numbers for one purpose."""
        return np.random.default_rng([self.seed, stream])


class Noise:
    """Gaussian noise of unit variance over the plane, correlated over `scale_um`: a few Fourier waves."""

    def __init__(self, rng: np.random.Generator, scale_um: float, waves: int = 24) -> None:
        self.frequency = rng.normal(size=(2, waves)) / scale_um
        self.phase = rng.uniform(0, 2 * np.pi, waves)

    def __call__(self, points: F64) -> F64:
        """Values at `points` (n, 2) in um."""
        total: F64 = np.zeros(len(points))
        for fy, fx, phase in zip(*self.frequency, self.phase, strict=True):
            total += np.cos(points[:, 0] * fy + points[:, 1] * fx + phase)
        return np.asarray(total * np.sqrt(2 / len(self.phase)))


class Regions:
    """Where tissue, tumour and discohesive tumour lie: signed maps over the plane, positive inside."""

    def __init__(self, spec: PhantomSpec) -> None:
        self.spec = spec
        self._edge, self._tumour = Noise(spec.rng(1), 120.0), Noise(spec.rng(2), 70.0, 40)
        self._loose = Noise(spec.rng(3), 90.0)

    def tissue(self, points: F64) -> F64:
        """Depth (um, roughly) inside the islands, with ragged margins."""
        if not self.spec.islands:
            return np.full(len(points), 1e3)
        size = np.array((self.spec.height_px, self.spec.width_px)) * self.spec.mpp
        depth = np.full(len(points), -np.inf)
        for y, x, ry, rx in self.spec.islands:
            radii = np.array((ry, rx)) * size
            inside = 1 - np.hypot(*((points - np.array((y, x)) * size) / radii).T)
            depth = np.maximum(depth, inside * radii.min())
        return depth + 25.0 * self._edge(points)

    def tumour(self, points: F64) -> F64:
        """Above 0 over `tumour_fraction` of the plane."""
        return self._tumour(points) - _upper(self.spec.tumour_fraction)

    def loose(self, points: F64) -> F64:
        """Above 0 over `loose_fraction` of the plane."""
        return self._loose(points) - _upper(self.spec.loose_fraction)


def _upper(fraction: float) -> float:
    """Threshold that a unit Gaussian exceeds with probability `fraction`."""
    return float(-ndtri(min(max(fraction, 1e-9), 1 - 1e-9)))
