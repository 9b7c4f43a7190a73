"""An IHC kernel's lengths in pixels at one resolution, and how far it looks (spec §4.3).

The nuclear image has about 0.5 µm/px: finer pixels are binned 2 x 2 for it. Rays along which a membrane is
traced are sampled in steps of their own. The halo follows from how far one decision reaches into the next.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from her2core.kernels.ihc import contour

# Lengths in micrometres; where no source is named, ours.
LIMITS_UM_PX: Final = (0.1, 1.1)  # pixels that are accepted; the filters are laid out for 0.17 to 0.6
BINNED_BELOW_UM_PX: Final = 0.35  # finer pixels are binned 2 x 2 for the nuclear image, which has about 0.5
NUCLEUS_INNER_UM: Final = 2.0  # width inside a nuclear edge, or that of a pocket
NUCLEUS_OUTER_UM: Final = 1.0  # and outside
NUCLEUS_LEAST_UM: Final = 1.5  # least radius
NUCLEUS_REACH_UM: Final = 9.0  # widest radius of a nucleus, seen from an off-centre seed
RIM_UM: Final = 1.5  # width of a nucleus's, and of a pocket's, surroundings
SEED_SIGMA_UM: Final = 1.0  # bridges chromatin, keeps a 5 um nucleus
SURROUND_SIGMA_UM: Final = 2.75  # what a seed is compared with
TAPS: Final = 3  # sigmas of a Gaussian that are kept
PEAK_UM: Final = 2.0  # two seeds are farther apart than this
COMPETE_UM: Final = 4.5  # centres of outlines that may be one nucleus
MOVE_UM: Final = 4.0  # from a seed to the centre of its nucleus
PART_UM: Final = 6.0  # from there to the centre of half of it
DRIFT_UM: Final = 4.5  # from there to the centroid of the final outline; farther off it is no cell
NEIGHBOUR_UM: Final = 14.0  # centres of cells that bound one another
POCKET_SIGMA_UM: Final = 1.0  # bridges what is brown inside a pocket
POCKET_SURROUND_UM: Final = 3.5  # what a pocket's seed is compared with
POCKET_PEAK_UM: Final = 2.0  # two seeds of pockets are farther apart than this
POCKET_COMPETE_UM: Final = 8.0  # from a pocket's centre to that of the nucleus in it
POCKET_INSET_UM: Final = 1.0  # from the outline of a pocket, on the flank of its membrane, inwards ...
MEMBRANE_STEP_UM: Final = 0.25  # along a ray; the thinnest 1+ membrane is 0.64 um wide (Scheel 2018)
SPARE_PX: Final = 4  # for rounding, beyond what is read


@dataclass(frozen=True, slots=True)
class Geometry:
    """Lengths at one resolution, in pixels of the nuclear image where nothing else is stated.

    Attributes
    ----------
    bin
        Pixels of the level along a pixel of the nuclear image: 1 or 2.
    um
        Micrometres per pixel of the nuclear image.
    step_px, step_um
        A step along the rays of a contour, in pixels of the level and in µm.
    n_radii, reach, beyond, flank
        Steps of such a ray; the most from the nucleus to a contour, beyond the midline, and to the flank of a
        membrane.
    inner, outer, rim
        Widths inside and outside a nuclear edge, and of a nucleus's surroundings.
    r_min, r_max
        Least and widest radius of a nucleus.
    chromatin, surround
        Pixels at which the Gaussians end that a seed is found in and is compared with.
    peak
        Two seeds are farther apart.
    pocket, pocket_surround, pocket_peak
        The same three of pockets, in pixels twice as wide.
    near, joint
        Centres of outlines that may be one nucleus; of a pocket and the nucleus in it.
    shift, part, drift, neighbour
        From a seed to the centre of its nucleus, from there to the centre of half of it and to the centroid
        of the final outline; between the centres of cells that bound one another.
    inset
        From a pocket's outline, on the flank of its membrane, inwards.
    cell
        Widest radius of a cell.
    """

    bin: int
    um: float
    step_px: float
    step_um: float
    n_radii: int
    reach: int
    beyond: int
    flank: int
    inner: int
    outer: int
    rim: int
    r_min: int
    r_max: int
    chromatin: int
    surround: int
    peak: int
    pocket: int
    pocket_surround: int
    pocket_peak: int
    near: int
    joint: int
    shift: int
    part: int
    drift: int
    neighbour: int
    inset: int
    cell: int

    @classmethod
    def of(cls, mpp: float, expansion_um: float) -> Geometry:
        """Lengths at ``mpp`` µm/px of the level; a contour lies at most ``expansion_um`` outside its nucleus.

        Raises
        ------
        ValueError
            If the pixels are too fine or too coarse.
        """
        finest, coarsest = LIMITS_UM_PX
        if not finest <= mpp <= coarsest:
            raise ValueError(
                f"{mpp} um/px; the kernel works at {finest} to {coarsest}: pass another pyramid level"
            )
        factor = 2 if mpp < BINNED_BELOW_UM_PX else 1
        um = mpp * factor
        step_px = max(1.0, MEMBRANE_STEP_UM / mpp)
        step_um = step_px * mpp

        def px(length_um: float) -> int:
            return max(1, round(length_um / um))

        def steps(length_um: float) -> int:
            return max(1, round(length_um / step_um))

        flank = steps(contour.FLANK_UM)
        return cls(
            bin=factor,
            um=um,
            step_px=step_px,
            step_um=step_um,
            n_radii=steps(NUCLEUS_REACH_UM + expansion_um) + 2 * flank,
            reach=steps(expansion_um),
            beyond=steps(contour.BEYOND_UM),
            flank=flank,
            inner=px(NUCLEUS_INNER_UM),
            outer=px(NUCLEUS_OUTER_UM),
            rim=px(RIM_UM),
            r_min=px(NUCLEUS_LEAST_UM),
            r_max=px(NUCLEUS_REACH_UM),
            chromatin=TAPS * px(SEED_SIGMA_UM),
            surround=TAPS * px(SURROUND_SIGMA_UM),
            peak=px(PEAK_UM),
            pocket=max(2, round(TAPS * POCKET_SIGMA_UM / (2 * um))),
            pocket_surround=round(TAPS * (POCKET_SURROUND_UM / (2 * um))),
            pocket_peak=max(1, round(POCKET_PEAK_UM / um / 2)),
            near=px(COMPETE_UM),
            joint=px(POCKET_COMPETE_UM),
            shift=px(MOVE_UM),
            part=px(PART_UM),
            drift=px(DRIFT_UM),
            neighbour=px(NEIGHBOUR_UM),
            inset=px(POCKET_INSET_UM),
            cell=px(NUCLEUS_REACH_UM + expansion_um + 1.0),
        )

    @property
    def rival_chain(self) -> int:
        """From a cell to the nuclei that decide whether it stays: its rivals."""
        return self.drift + self.joint + self.part

    @property
    def seed_chain(self) -> int:
        """... and to the seeds that those came from: they moved, and survived rivals of their own."""
        return self.rival_chain + self.shift + self.near

    @property
    def pixel_reach(self) -> int:
        """From a seed to the farthest pixel that decides on it and its outline."""
        of_nucleus = max(self.r_max + self.outer, self.surround + self.peak) + 2
        of_pocket = 2 * (self.pocket_surround + 1 + self.pocket_peak + 2)
        return max(of_nucleus, of_pocket)

    @property
    def halo_px(self) -> int:
        """Pixels of the level that a region must hold beyond its core on every side."""
        by_nuclei = self.neighbour + self.seed_chain + self.pixel_reach  # neighbours bound a cell
        return self.bin * (max(by_nuclei, self.drift + self.cell) + SPARE_PX)
