"""Colour of a slide: optical density, the two stain vectors, and how much hematoxylin a nucleus carries.

Optical density is base 10 against the slide's own background, ``OD = -log10(I / I0)``, so that published
DAB cut-offs (0.2, 0.4, 0.6) mean what they say. Unmixing is a plain 3 x 3 inverse done here, once, for
everything: library versions differ in scale (scikit-image's values are one sixth of these).

References
----------
Ruifrok, Johnston (2001) Anal Quant Cytol Histol 23:291 (colour deconvolution).
Macenko et al. (2009) ISBI, 1107 (optical densities too low to have a direction).
QuPath 0.5 source, ``ColorDeconvolutionStains`` (default H-DAB vectors).
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt
from numba import njit
from numpy.typing import NDArray

from her2core.records import StainProfile

Floats = npt.NDArray[np.float64]
Vector = tuple[float, float, float]

REFERENCE_HEMATOXYLIN: Vector = (0.651, 0.701, 0.290)  # QuPath default
REFERENCE_DAB: Vector = (0.269, 0.568, 0.778)  # QuPath default
DEFAULT_HEMATOXYLIN_RANGE = (0.05, 0.25)  # OD, where no tissue gives one; ours

MIN_OD_NORM = 0.15  # pixels fainter than this carry noise, not direction (Macenko's beta, 0.15)
MIN_INTENSITY = 12  # grey level below which a channel is too dark for its OD to be trusted; ours
MIN_TISSUE_OD = 0.01  # mean of the channels from which a pixel is tissue and shows its tint; ours
# Brownness is the OD of blue less that of red. What darkens all channels alike leaves it be: JPEG keeps
# brightness sharper than colour, so that the crest of a thin membrane is too dark for its colour.
BROWN_OD = 0.06  # ... from which a pixel is brown: DAB of 0.12 on bare glass; ours
PLAIN_OD = 0.02  # ... below which a pixel is free of all but haze; ours
DARK_PERCENTILE = 60  # of plain pixels, the darker ones hold the nuclei; ours
NUCLEAR_PERCENT = 5  # ... of them, the least brown are surely nuclei; ours
TINT_PERCENTILE = 30  # of plain pixels, those that are less brown may be nuclei and are not tint; ours
MIN_NUCLEAR_OD = 0.04  # length by which nuclei must differ from the tint around them; ours
# How much of the tint is taken off nuclei: without DAB it is mostly hematoxylin, else it holds haze; ours,
# between what planted fields without a clean nucleus and whole unstained cores want.
TINT_IN_NUCLEI = {"plain": 1 / 3, "stained": 3 / 4}
STRONG_BROWN_PERCENTILE = 50  # of brown pixels: the browner half gives the direction of DAB; ours
# When a direction may be more than 3 degrees off, which its note states; ours, measured on planted fields.
MAX_DAB_TINT_DEG = 4.0  # by which DAB turns with the tint under it: 1 to 3, 4 to 6 on strong blue
MAX_TINT_DEG = 4.5  # by which the tint, taken off nuclei in full or not at all, turns hematoxylin
HAZY_BROWN = 0.4  # share of brown pixels from which hardly a nucleus is free of haze
STRONG_DAB_OD = 0.40  # above it hematoxylin can no longer be told from DAB; ours


@dataclass(frozen=True, slots=True)
class VectorRules:
    """When an estimated vector is accepted (spec §7.2)."""

    max_angle_deg: float = 15.0
    min_separation_deg: float = 20.0
    min_dab_fraction: float = 0.01  # of the stained pixels: fewer brown ones give no direction; ours
    min_pixels: int = 500  # ours


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
    if rgb.size == 0:
        return np.empty(rgb.shape, np.float32)
    row = np.ascontiguousarray(rgb).reshape(1, -1, 3)
    return np.asarray(cv2.LUT(row, np.ascontiguousarray(table.T)[None]), np.float32).reshape(rgb.shape)


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


def reference_stain(i0: Vector) -> StainProfile:
    """Colour of no slide: the reference vectors and the default range, on a background ``i0``."""
    low, high = DEFAULT_HEMATOXYLIN_RANGE
    return StainProfile(i0, REFERENCE_HEMATOXYLIN, REFERENCE_DAB, "reference", None, 0.0, 0.0, low, high)


@functools.lru_cache(maxsize=4)
def stain_table(stain: StainProfile) -> Floats:
    """Look-up table from intensity to stain amounts.

    Returns
    -------
    (3, 256, 3) float64: channel, intensity, (hematoxylin, DAB, residual) OD. A pixel's amounts are the sum
    of its three channels' entries.
    """
    matrix = unmixing_matrix(stain.hematoxylin, stain.dab)
    table: Floats = od_table(stain.i0)[:, :, None] * matrix[:, None, :]
    table.flags.writeable = False
    return table


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
    guessed = np.maximum(np.asarray(stain.i0, np.float64), 1.0)  # of a black slide one grey level
    missing = np.log10(np.maximum(stain.i0_brightest / guessed, 1.0))
    by_channel = missing * unmixing_matrix(stain.hematoxylin, stain.dab)[:, 1]
    return float(np.minimum(by_channel, 0.0).sum()), float(np.maximum(by_channel, 0.0).sum())


@njit(nogil=True, cache=True)
def _look_up(rgb: NDArray[np.uint8], table: NDArray[np.float32], out: NDArray[np.float32]) -> None:
    """Sum up the channels' entries of ``table`` (3, 256, 3) for pixels (n, 3)."""
    for i in range(len(rgb)):
        red, green, blue = rgb[i]
        for stain in range(3):
            out[i, stain] = table[0, red, stain] + table[1, green, stain] + table[2, blue, stain]


def as_vector(array: Floats) -> Vector:
    """Three numbers as a tuple, for records."""
    return (float(array[0]), float(array[1]), float(array[2]))


@dataclass(frozen=True, slots=True)
class _Poles:
    """What pixels say of both stains: directions, None where there is too little, and the share of brown."""

    hematoxylin: Floats | None
    dab: Floats | None
    brown: float
    tint_deg: float = 0.0  # angle by which hematoxylin depends on the tint around nuclei
    dab_tint_deg: float = 0.0  # the same of DAB, on the tint that is taken off brown


def _poles(od: Floats, rules: VectorRules) -> _Poles:
    """Directions of both stains from pixels' densities, each less the tint that tissue has without it.

    A brown pixel lies on tissue, whose tint would pull a pale membrane's colour to grey by 5 degrees and
    more; haze lies on nuclei too.
    """
    brownness = od[:, 2] - od[:, 0]
    red, green, blue = od.T
    stained = np.sqrt(red * red + green * green + blue * blue) >= MIN_OD_NORM
    brown = brownness >= BROWN_OD
    share = float(brown[stained].mean()) if stained.any() else 0.0
    plain = brownness < PLAIN_OD
    if int(plain.sum()) < rules.min_pixels:
        return _Poles(None, None, share)
    brightness = _brightness(od)
    dark_from = np.percentile(brightness[plain], DARK_PERCENTILE)
    tint = plain & (brownness >= np.percentile(brownness[plain], TINT_PERCENTILE))
    is_stained = share >= rules.min_dab_fraction
    dark = plain & (brightness >= dark_from)
    nuclei = od[dark & (brownness <= np.percentile(brownness[dark], NUCLEAR_PERCENT))].mean(axis=0)
    pale = od[tint & (brightness <= dark_from)].mean(axis=0)
    shows = float(np.sqrt(((nuclei - pale) ** 2).sum())) >= MIN_NUCLEAR_OD
    hematoxylin = unit(nuclei - TINT_IN_NUCLEI["stained" if is_stained else "plain"] * pale)
    dab, apart = None, 0.0
    if is_stained:
        strong = brown & (brownness >= np.percentile(brownness[brown], STRONG_BROWN_PERCENTILE))
        browner = od[strong].mean(axis=0)
        dab = unit(browner - od[tint].mean(axis=0))
        apart = angle_deg(dab, browner - pale)
    if not shows:
        return _Poles(None, dab, share, 0.0, apart)
    return _Poles(hematoxylin, dab, share, angle_deg(nuclei, nuclei - pale), apart)


def _hematoxylin_doubts(found: _Poles) -> list[str]:
    """Why the slide's own hematoxylin may be more than 3 degrees off; its pixels cannot settle it."""
    notes = []
    if found.tint_deg > MAX_TINT_DEG:
        notes.append(f"hematoxylin: in doubt by {found.tint_deg:.0f} degrees of tint, as nuclei are pale")
    if found.brown >= HAZY_BROWN:
        notes.append(f"hematoxylin: may hold haze, {100 * found.brown:.0f} % of the stained pixels are brown")
    return notes


def _dab_doubts(found: _Poles) -> list[str]:
    """Why the slide's own DAB may be more than 3 degrees off."""
    if found.dab_tint_deg < MAX_DAB_TINT_DEG:
        return []
    return [f"DAB: in doubt by {found.dab_tint_deg:.0f} degrees of the tint under it"]


def _brightness(od: Floats) -> Floats:
    """Mean of the three channels of densities (n, 3)."""
    red, green, blue = od.T
    mean: Floats = (red + green + blue) / 3
    return mean


def estimate_vectors(rgb: npt.NDArray[np.uint8], i0: Vector, rules: VectorRules) -> StainVectors:
    """Stain vectors from sampled tissue pixels: nuclei give hematoxylin, the stronger half of brown DAB.

    Unlike percentiles of the angle this needs no brown at all on a null slide, and noise does not push the
    poles apart.

    Parameters
    ----------
    rgb
        (n, 3) uint8 tissue pixels at about 0.5 µm/px.
    """
    red, green, blue = rgb.T  # NumPy is slow along an axis of three
    darkest = np.minimum(np.minimum(red, green), blue)
    lit = rgb.take(np.flatnonzero(darkest >= MIN_INTENSITY), axis=0)
    od = optical_density(lit, i0).astype(np.float64)
    od = od.take(np.flatnonzero(_brightness(od) >= MIN_TISSUE_OD), axis=0)
    reference_h, reference_d = unit(REFERENCE_HEMATOXYLIN), unit(REFERENCE_DAB)
    if len(od) < rules.min_pixels:
        found = _Poles(None, None, 0.0)
        missing_h = missing_d = f"{len(od)} stained pixels, {rules.min_pixels} needed"
    else:
        found = _poles(od, rules)
        missing_h = "no nuclei without brown"
        missing_d = f"{100 * found.brown:.2g} % of the stained pixels are brown"
    found_h, found_d = found.hematoxylin, found.dab
    h_vector, d_vector = _trusted(found_h, reference_h, rules), _trusted(found_d, reference_d, rules)
    notes = _notes("hematoxylin", found_h, reference_h, missing_h, rules)
    notes += _notes("DAB", found_d, reference_d, missing_d, rules)
    distrusted = (found_h is not None and h_vector is reference_h) or (
        found_d is not None and d_vector is reference_d
    )
    if angle_deg(h_vector, d_vector) < rules.min_separation_deg:
        notes.append(f"stains only {angle_deg(h_vector, d_vector):.0f} degrees apart")
        h_vector, d_vector, distrusted = reference_h, reference_d, True
    if h_vector is not reference_h:
        notes += _hematoxylin_doubts(found)
    if d_vector is not reference_d:
        notes += _dab_doubts(found)
    estimated = (h_vector is not reference_h) + (d_vector is not reference_d)
    return StainVectors(
        hematoxylin=as_vector(h_vector),
        dab=as_vector(d_vector),
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
    """Otsu's threshold of a histogram (bin,): bins above the returned index are the upper class."""
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
    BINS = 1400  # milli-OD of level: up to 1.2 OD
    CONTRASTS = 300  # milli-OD of contrast: from -0.1 to 0.2 OD
    LEVEL = 100  # bin of no contrast
    LEAST_PIXELS = 1000  # fewer give no range; ours

    def __init__(self) -> None:
        self._joint = np.zeros((self.BINS, self.CONTRASTS), np.int64)  # level x contrast, milli-OD

    def add(
        self, hematoxylin_od: npt.NDArray[np.float32], valid: npt.NDArray[np.bool_], um_px: float
    ) -> None:
        """Count one tile of hematoxylin OD (h, w); ``valid`` marks tissue that is not dark brown."""
        milli = np.clip(np.rint(hematoxylin_od * 1000), -self.FLOOR, 3000).astype(np.int16)
        smooth = cv2.blur(milli, _odd_window(self.SMOOTH_UM / um_px), borderType=cv2.BORDER_REFLECT_101)
        wide = cv2.blur(milli, _odd_window(self.SURROUND_UM / um_px), borderType=cv2.BORDER_REFLECT_101)
        where = np.flatnonzero(valid)
        near, far = smooth.ravel()[where].astype(np.int32), wide.ravel()[where]
        level = np.clip(near + self.FLOOR, 0, self.BINS - 1)
        contrast = np.clip(near - far + self.LEVEL, 0, self.CONTRASTS - 1)
        np.add.at(self._joint.ravel(), level * self.CONTRASTS + contrast, 1)

    def result(self) -> tuple[float, float] | None:
        """``(low, high)`` OD, or None where too little tissue was seen."""
        by_contrast = self._joint.sum(axis=0)
        if int(by_contrast.sum()) < self.LEAST_PIXELS:
            return None
        bluer = by_contrast[self.LEVEL :]  # than its surroundings
        cut = self.LEVEL + int(self.CUT * otsu(bluer))
        between, inside = self._joint[:, : self.LEVEL].sum(axis=1), self._joint[:, cut + 1 :].sum(axis=1)
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
