"""Tables and rules of the IHC kernel's parts for one slide at one resolution, in pixels and greys."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from her2core.kernels import nuclei
from her2core.kernels.blur import gaussian_taps
from her2core.kernels.ihc import contour
from her2core.kernels.ihc.geometry import (
    POCKET_SIGMA_UM,
    POCKET_SURROUND_UM,
    SEED_SIGMA_UM,
    SPARE_PX,
    SURROUND_SIGMA_UM,
    Geometry,
)
from her2core.kernels.ihc.nucleus_model import NucleusRule, nucleus_rule
from her2core.kernels.ihc.planes import BASE, SHADES, Smoothing, Stains
from her2core.kernels.ihc.pockets import PocketRule, pocket_rule
from her2core.kernels.ihc.splitting import SplittingRule, splitting_rule
from her2core.kernels.polar import RayIndex, RayOffsets, new_ray_index, new_ray_offsets

# Where no source is named, ours.
LIGHT_SIGMA_PX: Final = 0.8  # against noise of single pixels
NUCLEUS_GROWTH_UM: Final = 1.55  # radius at which an edge weighs half: a nucleolus has one too
NUCLEUS_CLIP_GREY: Final = 35  # a stronger edge counts as this one
POCKET_GROWTH_UM: Final = 2.0
POCKET_CLIP_GREY: Final = 40
POCKET_BEND: Final = (40, 30)  # cost of a step between rays, and of its square, 1/16 grey
PALE_GREY: Final = 8  # above the level between nuclei: what is paler inside an outline is not nucleus
GLASS: Final = 0.08  # of a nucleus's hematoxylin: less is no tissue
CYTOPLASM_OD: Final = 0.03  # of hematoxylin: paler cytoplasm cannot be told from glass pixel by pixel
LUMEN_UM: Final = 6.0  # glass so wide is a lumen, and no membrane's place
MEMBRANE_FOOT_UM: Final = 2.0  # from its middle a 3+ membrane, 2.14 um wide (Scheel 2018), is down to a tenth
READ_MARGIN_UM: Final = 0.4  # DAB is read within twice this of the contour


@dataclass(frozen=True, slots=True)
class Rules:
    """Tables and rules; lengths follow from `Geometry`.

    Attributes
    ----------
    smoothing
        Gaussians of the nuclear image.
    edge, nucleus, splitting
        How a nucleus is outlined, accepted, and split.
    pocket_edge, pocket, pocket_taps, pocket_wide
        The same of pockets, and the Gaussians that they are found with.
    contour
        How a contour is looked for.
    wide_rays, fine_rays
        Samples around a centre on the nuclear image, a pixel apart, and on the level, a step apart.
    ray_index
        Nearest ray and distance of every offset on the nuclear image.
    """

    smoothing: Smoothing
    edge: nuclei.EdgeRule
    nucleus: NucleusRule
    splitting: SplittingRule
    pocket_edge: nuclei.EdgeRule
    pocket: PocketRule
    pocket_taps: NDArray[np.int32]
    pocket_wide: NDArray[np.int32]
    contour: contour.ContourRule
    wide_rays: RayOffsets
    fine_rays: RayOffsets
    ray_index: RayIndex

    @classmethod
    def of(cls, lengths: Geometry, stains: Stains, glass_od: float) -> Rules:
        """Rules for a slide whose empty background has less hematoxylin than ``glass_od``."""
        um = lengths.um
        return cls(
            smoothing=Smoothing(
                light=gaussian_taps(LIGHT_SIGMA_PX, 1),
                seed=gaussian_taps(SEED_SIGMA_UM / um, lengths.chromatin),
                wide=gaussian_taps(SURROUND_SIGMA_UM / um, lengths.surround),
            ),
            edge=_edge_rule(lengths, NUCLEUS_GROWTH_UM, NUCLEUS_CLIP_GREY),
            nucleus=nucleus_rule(lengths.rim, um),
            splitting=splitting_rule(lengths.rim, lengths.part, um),
            pocket_edge=_edge_rule(lengths, POCKET_GROWTH_UM, POCKET_CLIP_GREY, POCKET_BEND),
            pocket=pocket_rule(lengths.rim, um),
            pocket_taps=gaussian_taps(POCKET_SIGMA_UM / (2 * um), lengths.pocket),
            pocket_wide=gaussian_taps(POCKET_SURROUND_UM / (2 * um), lengths.pocket_surround),
            contour=_contour_rule(lengths, stains, glass_od),
            wide_rays=new_ray_offsets(lengths.cell + SPARE_PX, 1.0),
            fine_rays=new_ray_offsets(lengths.n_radii, lengths.step_px, (lengths.bin - 1) / 2),
            ray_index=new_ray_index(max(lengths.joint + lengths.r_max + 1, lengths.neighbour)),
        )


def _edge_rule(
    lengths: Geometry, growth_um: float, clip: int, bend: tuple[int, int] = nuclei.BEND
) -> nuclei.EdgeRule:
    return nuclei.edge_rule(
        inner=lengths.inner,
        outer=lengths.outer,
        r_min=lengths.r_min,
        r_max=lengths.r_max,
        growth=growth_um / lengths.um,
        clip=clip,
        floor=BASE + PALE_GREY,
        bend=bend,
    )


def _contour_rule(lengths: Geometry, stains: Stains, glass_od: float) -> contour.ContourRule:
    per_od = SHADES / stains.range_od
    clear_glass = BASE - round(stains.low_od * per_od)
    return contour.ContourRule(
        scale=lengths.bin / lengths.step_px,
        reach=lengths.reach,
        beyond=lengths.beyond,
        flank=lengths.flank,
        glass=clear_glass + round(glass_od * per_od),
        clear_glass=clear_glass,
        cytoplasm=round(CYTOPLASM_OD * per_od),
        lumen=max(1, round(LUMEN_UM / lengths.um)),
        ridge_half_width=max(1, round(MEMBRANE_FOOT_UM / lengths.step_um)),
        read_margin=max(1, round(READ_MARGIN_UM / lengths.step_um)),
        **contour.gains(lengths.step_um, lengths.n_radii),
    )
