"""Colour of a slide: optical density, the two stain vectors, and how much hematoxylin a nucleus carries.

Optical density is base 10 against the slide's own background, ``OD = -log10(I / I0)``, so that published
DAB cut-offs (0.2, 0.4, 0.6) mean what they say. Unmixing is a plain 3 x 3 inverse done here, once, for
everything: library versions differ in scale (scikit-image's values are one sixth of these).

References
----------
Ruifrok, Johnston (2001) Anal Quant Cytol Histol 23:291 (colour deconvolution).
Macenko et al. (2009) ISBI, 1107 (vectors from the extreme angles of the OD plane).
QuPath 0.5 source, ``ColorDeconvolutionStains`` (default H-DAB vectors).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from numba import njit

from her2core.records import StainProfile

Floats = npt.NDArray[np.float64]
Vector = tuple[float, float, float]

REFERENCE_HEMATOXYLIN: Vector = (0.651, 0.701, 0.290)  # QuPath default
REFERENCE_DAB: Vector = (0.269, 0.568, 0.778)  # QuPath default

MIN_OD_NORM = 0.15  # pixels fainter than this carry noise, not direction (Macenko's beta, 0.15)
MIN_INTENSITY = 12  # grey level below which a channel is too dark for its OD to be trusted; ours
HEMATOXYLIN_POLE_DEG = (30.0, 15.0)  # within it of the hematoxylin axis a pixel is counterstain alone:
# at first of the reference axis, which may be some 10 degrees off, then of the slide's own; ours
DAB_POLE_DEG = 55.0  # ... and this far from it is brown; ours
DAB_POLE_OD = 0.20  # brown enough to be DAB and not a red cell or a fringe: QuPath's 1+ cut-off
STRONG_DAB_OD = 0.40  # above it hematoxylin can no longer be told from DAB; ours


@dataclass(frozen=True, slots=True)
class VectorRules:
    """When an estimated vector is believed (spec 7)."""

    max_angle_deg: float = 15.0
    min_separation_deg: float = 20.0
    min_dab_fraction: float = 0.01
    min_pixels: int = 500


@dataclass(frozen=True, slots=True)
class StainVectors:
    """Unit OD vectors of both stains, how they came about, and their angle to the reference."""

    hematoxylin: Vector
    dab: Vector
    source: str  # estimated | partly | reference
    fallback: str | None
    hematoxylin_angle_deg: float
    dab_angle_deg: float
    distrusted: bool  # an estimate existed and was refused


def unit(vector: npt.ArrayLike) -> Floats:
    """The vector at length 1."""
    array = np.asarray(vector, np.float64)
    return array / float(np.sqrt((array * array).sum()))


def angle_deg(a: npt.ArrayLike, b: npt.ArrayLike) -> float:
    """Angle between two OD vectors in degrees."""
    return float(np.degrees(np.arccos(np.clip(float((unit(a) * unit(b)).sum()), -1.0, 1.0))))


def od_table(i0: Vector) -> Floats:
    """Optical density of every 8-bit intensity.

    Parameters
    ----------
    i0
        Background intensity of R, G and B.

    Returns
    -------
    (3, 256) float64. Intensity 0 is taken as 1, also of the background: of a black picture all OD is 0 or
    less. Intensities above I0 are negative and stay so, because clipping them would shift every mean near
    zero upwards.
    """
    intensity = np.maximum(np.arange(256, dtype=np.float64), 1.0)
    light = np.maximum(np.asarray(i0, np.float64), 1.0)
    table: Floats = np.log10(light[:, None] / intensity[None, :])
    return table


def optical_density(rgb: npt.NDArray[np.uint8], i0: Vector) -> npt.NDArray[np.float32]:
    """Optical density of RGB pixels ``(..., 3)``; same shape, float32."""
    table = od_table(i0).astype(np.float32)
    out = np.empty(rgb.shape, np.float32)
    for channel in range(3):
        np.take(table[channel], rgb[..., channel], out=out[..., channel])
    return out


def unmixing_matrix(hematoxylin: npt.ArrayLike, dab: npt.ArrayLike) -> Floats:
    """Matrix that takes OD to stain amounts.

    Returns
    -------
    (3, 3) float64, columns hematoxylin, DAB, residual: ``amounts = od @ matrix``. The residual axis is
    perpendicular to both stains (their cross product, as in QuPath).
    """
    h, d = unit(hematoxylin), unit(dab)
    inverse: Floats = np.linalg.inv(np.stack([h, d, unit(np.cross(h, d))]))
    return inverse


def stain_table(stain: StainProfile) -> Floats:
    """Look-up table from intensity to stain amounts.

    Returns
    -------
    (3, 256, 3) float64: channel, intensity, (hematoxylin, DAB, residual) OD. A pixel's amounts are the sum
    of its three channels' entries.
    """
    matrix = unmixing_matrix(stain.hematoxylin, stain.dab)
    return od_table(stain.i0)[:, :, None] * matrix[:, None, :]


def unmix(rgb: npt.NDArray[np.uint8], stain: StainProfile) -> npt.NDArray[np.float32]:
    """Hematoxylin, DAB and residual OD of RGB pixels ``(..., 3)``; same shape, float32."""
    out = np.empty(rgb.shape, np.float32)
    _look_up(
        np.ascontiguousarray(rgb).reshape(-1, 3), stain_table(stain).astype(np.float32), out.reshape(-1, 3)
    )
    return out


def dab_doubt(stain: StainProfile) -> tuple[float, float]:
    """Least and greatest DAB OD that readings may lack because the background was guessed; else 0, 0.

    Each channel's background may lie anywhere from the guess to the brightest that the pixels allow. Light
    missing in blue and green hides DAB, light missing in red feigns it.
    """
    if stain.i0_brightest is None:
        return 0.0, 0.0
    missing = np.log10(np.maximum(stain.i0_brightest / np.asarray(stain.i0, np.float64), 1.0))
    by_channel = missing * unmixing_matrix(stain.hematoxylin, stain.dab)[:, 1]
    return float(np.minimum(by_channel, 0.0).sum()), float(np.maximum(by_channel, 0.0).sum())


@njit(nogil=True, cache=True)
def _look_up(rgb: Any, table: Any, out: Any) -> None:
    """Sum up the channels' entries of ``table`` (3, 256, 3) for pixels (n, 3)."""
    for i in range(len(rgb)):
        red, green, blue = rgb[i]
        for stain in range(3):
            out[i, stain] = table[0, red, stain] + table[1, green, stain] + table[2, blue, stain]


def _as_vector(array: Floats) -> Vector:
    return (float(array[0]), float(array[1]), float(array[2]))


def _polar(od: Floats, hematoxylin: Floats, dab: Floats) -> tuple[Floats, Floats, Floats]:
    """Hematoxylin and DAB amount of every pixel, and its angle from the hematoxylin axis in degrees."""
    amounts = od @ unmixing_matrix(hematoxylin, dab)
    h, d = amounts[:, 0], amounts[:, 1]
    return h, d, np.degrees(np.arctan2(d, h))


def _hematoxylin_pole(
    od: Floats, h: Floats, phi: Floats, within_deg: float, min_pixels: int
) -> Floats | None:
    """Mean direction of strong counterstain: of the quarter with most of it, the half farthest from brown.

    What is dark but grey or brownish (red cells, dust, refracting edges) is in the other half.
    """
    pure = phi <= within_deg
    if int(pure.sum()) < min_pixels:
        return None
    strong = pure & (h >= np.percentile(h[pure], 75))
    return unit(od[strong & (phi <= np.percentile(phi[strong], 50))].sum(axis=0))


def _dab_pole(od: Floats, d: Floats, phi: Floats) -> tuple[float, Floats | None]:
    """Share of brown pixels, and the mean direction of the purer half of them."""
    brown = (phi >= DAB_POLE_DEG) & (d >= DAB_POLE_OD)
    if not brown.any():
        return 0.0, None
    pure = brown & (phi >= np.percentile(phi[brown], 50))
    return float(brown.mean()), unit(od[pure].sum(axis=0))


def estimate_vectors(rgb: npt.NDArray[np.uint8], i0: Vector, rules: VectorRules) -> StainVectors:
    """Stain vectors from sampled tissue pixels, each the mean direction of its own pole of the OD plane.

    Nuclei without brown give hematoxylin, the purer half of the brown pixels gives DAB. Unlike percentiles
    of the angle this needs no brown at all on a null slide, and noise does not push the poles apart.

    Parameters
    ----------
    rgb
        (n, 3) uint8 tissue pixels at about 0.5 µm/px.
    """
    lit = rgb[rgb.min(axis=1, initial=255) >= MIN_INTENSITY]
    od = optical_density(lit, i0).astype(np.float64)
    od = od[np.sqrt((od * od).sum(axis=1)) >= MIN_OD_NORM]
    reference_h, reference_d = unit(REFERENCE_HEMATOXYLIN), unit(REFERENCE_DAB)
    h_vector, d_vector = reference_h, reference_d
    if len(od) < rules.min_pixels:
        found_h = found_d = None
        missing_h = missing_d = f"{len(od)} stained pixels, {rules.min_pixels} needed"
    else:
        for within_deg in HEMATOXYLIN_POLE_DEG:  # the second round sorts pixels by the slide's own axes
            h, d, phi = _polar(od, h_vector, d_vector)
            found_h = _hematoxylin_pole(od, h, phi, within_deg, rules.min_pixels)
            brown, found_d = _dab_pole(od, d, phi)
            found_d = found_d if brown >= rules.min_dab_fraction else None
            h_vector = _trusted(found_h, reference_h, rules)
            d_vector = _trusted(found_d, reference_d, rules)
        missing_h = "no nuclei without brown"
        missing_d = f"{100 * brown:.2g} % of the stained pixels are brown"
    notes = _notes("hematoxylin", found_h, reference_h, missing_h, rules)
    notes += _notes("DAB", found_d, reference_d, missing_d, rules)
    distrusted = (found_h is not None and h_vector is reference_h) or (
        found_d is not None and d_vector is reference_d
    )
    if angle_deg(h_vector, d_vector) < rules.min_separation_deg:
        notes.append(f"stains only {angle_deg(h_vector, d_vector):.0f} degrees apart")
        h_vector, d_vector, distrusted = reference_h, reference_d, True
    estimated = (h_vector is not reference_h) + (d_vector is not reference_d)
    return StainVectors(
        hematoxylin=_as_vector(h_vector),
        dab=_as_vector(d_vector),
        source=("reference", "partly", "estimated")[estimated],
        fallback="; ".join(notes) or None,
        hematoxylin_angle_deg=angle_deg(h_vector, reference_h),
        dab_angle_deg=angle_deg(d_vector, reference_d),
        distrusted=distrusted,
    )


def _trusted(found: Floats | None, reference: Floats, rules: VectorRules) -> Floats:
    """The estimate where there is one near enough to the reference, else the reference."""
    if found is None or angle_deg(found, reference) > rules.max_angle_deg:
        return reference
    return found


def _notes(name: str, found: Floats | None, reference: Floats, missing: str, rules: VectorRules) -> list[str]:
    """Why a stain's vector is the reference; empty where it is the slide's own."""
    if found is None:
        return [f"{name}: {missing}"]
    angle = angle_deg(found, reference)
    return [f"{name}: estimate {angle:.0f} degrees from the reference"] if angle > rules.max_angle_deg else []


def otsu(histogram: npt.NDArray[np.int64]) -> int:
    """Otsu's threshold of an integer histogram: bins above the returned index are the upper class."""
    counts = histogram.astype(np.float64)
    bins = np.arange(len(counts), dtype=np.float64)
    below, mass = np.cumsum(counts), np.cumsum(counts * bins)
    above = below[-1] - below
    usable = (below > 0) & (above > 0)
    if not usable.any():
        return 0
    between = np.zeros(len(counts))
    gap = mass[-1] * below[usable] - mass[usable] * below[-1]
    between[usable] = gap * gap / (below[usable] * above[usable])
    return int(between.argmax())


class HematoxylinRange:
    """Typical hematoxylin OD between nuclei and inside nuclei, accumulated over sampled tiles.

    A nucleus is what is bluer than its own 16 µm surroundings, so that neither a faint counterstain nor
    a blue cytoplasm or muscle hides it. Everything is counted in integer histograms of milli-OD: the
    result does not depend on the order of the tiles.
    """

    SMOOTH_UM = 1.5  # about a third of a small nucleus: bridges chromatin texture; ours
    SURROUND_UM = 16.0  # about two cells: holds nucleus and cytoplasm; ours
    # Share of Otsu's contrast that makes a nucleus; all of it would take the darkest nuclei only. With 0.6
    # the level is that of nuclei marked by eye to within 25 % on seven real cores (0.10-0.14 OD). Ours.
    CUT = 0.6
    FLOOR = 200  # histogram offset, milli-OD below zero that is kept
    BINS = 1400

    def __init__(self) -> None:
        self._joint = np.zeros((self.BINS, 300), np.int64)  # level x contrast, milli-OD

    def add(
        self, hematoxylin_od: npt.NDArray[np.float32], valid: npt.NDArray[np.bool_], um_px: float
    ) -> None:
        """Count one tile of hematoxylin OD (h, w); ``valid`` marks tissue that is not dark brown."""
        milli = np.clip(np.rint(hematoxylin_od * 1000), -self.FLOOR, 3000).astype(np.int16)
        smooth = cv2.blur(milli, _odd_window(self.SMOOTH_UM / um_px), borderType=cv2.BORDER_REFLECT_101)
        wide = cv2.blur(milli, _odd_window(self.SURROUND_UM / um_px), borderType=cv2.BORDER_REFLECT_101)
        level = np.clip(smooth[valid].astype(np.int64) + self.FLOOR, 0, self.BINS - 1)
        contrast = np.clip(smooth[valid].astype(np.int64) - wide[valid] + 100, 0, 299)
        flat = np.bincount(level * 300 + contrast, minlength=self.BINS * 300)
        self._joint += flat.reshape(self.BINS, 300)

    def result(self) -> tuple[float, float] | None:
        """``(low, high)`` OD, or None where too little tissue was seen."""
        by_contrast = self._joint.sum(axis=0)
        if int(by_contrast.sum()) < 1000:
            return None
        cut = 100 + int(self.CUT * otsu(by_contrast[100:]))  # among what is bluer than its surroundings
        between, inside = self._joint[:, :100].sum(axis=1), self._joint[:, cut + 1 :].sum(axis=1)
        if int(inside.sum()) == 0 or int(between.sum()) == 0:
            return None
        return (_median(between) - self.FLOOR) / 1000, (_median(inside) - self.FLOOR) / 1000


def _odd_window(pixels: float) -> tuple[int, int]:
    edge = 2 * int(pixels / 2) + 1
    return edge, edge


def _median(histogram: npt.NDArray[np.int64]) -> float:
    """Median bin of an integer histogram."""
    cumulative = np.cumsum(histogram)
    return float(np.searchsorted(cumulative, (cumulative[-1] + 1) // 2))
