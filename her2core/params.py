"""Every parameter of the chain, with unit, default and where the default comes from.

Plain frozen dataclasses: stages take one each, content keys digest them, and ``config`` validates text
into them. "Ours" marks a default that is this project's own choice and not literature.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar, Literal

RENAMED = {"score": "ihc_score"}
"""Sections of the configuration that had another name, which files and earlier runs may hold."""
FORBID_UNKNOWN: Any = {"extra": "forbid", "allow_inf_nan": False, "use_attribute_docstrings": True}
"""How pydantic validates configuration text into these classes, and what the published schema allows."""


@dataclass(frozen=True, slots=True)
class PyramidParams:
    """Geometry and codec of the OME-Zarr pyramid."""

    __pydantic_config__: ClassVar[dict[str, str]] = FORBID_UNKNOWN

    chunk: int = 512
    """Chunk edge in pixels at every level; a power of two. Beside copied tiles it follows their size."""
    shard: int = 4096
    """Level-0 shard edge in pixels; chunk times a power of two. One task writes one shard."""
    codec: str = "source"
    """Named codec; ``source`` copies the slide's own tiles where it can. See docs/configuration.md for the
    list and its measurements."""


@dataclass(frozen=True, slots=True)
class Settled:
    """Parameters of a pyramid as they hold for one slide.

    Attributes
    ----------
    params
        Of ``source``, the codec that holds this slide's tiles, and chunks and shards that fit them.
    fallback
        Why the tiles cannot be copied although that was requested; empty where they are, or it was not.
    """

    params: PyramidParams
    fallback: str = ""


@dataclass(frozen=True, slots=True)
class Prices:
    """What `her2 plan` multiplies with: list prices, to be replaced by your own. Nothing else reads them."""

    __pydantic_config__: ClassVar[dict[str, str]] = FORBID_UNKNOWN

    currency: str = "$"
    """What the prices are in."""
    put_1000: float = 0.005
    """A thousand PUT, POST or LIST requests. AWS S3 Standard, us-east-1, list price."""
    get_1000: float = 0.0004
    """A thousand GET or HEAD requests. AWS S3 Standard, us-east-1, list price."""
    gb_month: float = 0.023
    """A gigabyte kept for a month. AWS S3 Standard, us-east-1, first 50 TB, list price."""
    cpu_hour: float = 0.0504
    """A core with 4 GiB for an hour. AWS EC2, half an m7i.large, on demand, us-east-1; spot is a third to a
    half of it."""


@dataclass(frozen=True, slots=True)
class ProfileParams:
    """Background, stain vectors, tissue mask and quality gates."""

    __pydantic_config__: ClassVar[dict[str, str]] = FORBID_UNKNOWN

    background: tuple[float, float, float] | None = None
    """Grey levels of R, G, B through empty glass, used where a slide shows none and the manifest's column
    ``background`` is empty; null: guessed, and a borderline score is indeterminate."""
    tissue_um_px: float = 8.0
    """Working resolution of the tissue mask; the nearest halving of level 0 is used. Ours."""
    glass_flat_levels: int = 4
    """Widest spread of grey levels in 3 x 3 coarse pixels that is glass; tissue has 10 and more. Ours."""
    glass_min_fraction: float = 0.005
    """Least share of the slide that flat glass must take to give the background. Ours."""
    tissue_od_min: float = 0.02
    """Lower bound of the tissue threshold on the sum of the three ODs; glass noise is 0.004-0.008. Ours."""
    tissue_od_max: float = 0.06
    """Upper bound of it, so that strong stain does not hide pale tissue. Ours."""
    tissue_spread_levels: int = 8
    """Mean spread of grey levels that makes tissue of what is as bright as glass. Ours."""
    min_object_um2: float = 10_000.0
    """Smaller pieces are debris (a 100 µm square). Ours."""
    max_hole_um2: float = 10_000.0
    """Smaller holes are filled: lumina, fat cells, cracks. Ours."""
    min_pen_um2: float = 10_000.0
    """Smaller spots of ink colour are pigment. Ours."""
    pen_margin_um: float = 50.0
    """Ink is grown by this much before it is cut out of the tissue. Ours."""
    sample_um_px: float = 0.5
    """Resolution of the sampled tiles, where stains and focus are measured. Ours."""
    sample_tile_um: float = 128.0
    """Edge of the squares from which tiles are sampled, rounded to a power-of-two number of pixels. Ours."""
    sample_tiles: int = 48
    """Most tiles sampled from one slide. Ours."""
    max_vector_angle_deg: float = 15.0
    """Farthest an estimated stain vector may lie from the reference (spec §7.2)."""
    min_vector_separation_deg: float = 20.0
    """Least angle between the two stain vectors (spec §7.2)."""
    min_dab_fraction: float = 0.01
    """Least share of brown among stained pixels for a DAB vector of the slide's own. Ours."""
    min_tissue_mm2: float = 0.1
    """Less tissue than this fails. Ours: the usual 1 mm² (spec §7.2) would refuse 0.6 mm tissue-array cores
    (0.28 mm²); the number of tumour cells is what guards the score."""
    small_tissue_mm2: float = 0.9
    """Less tissue than this warns: 1 mm² (spec §7.2), less a tenth for the mask's own error."""
    sharp_ratio: float = 0.2
    """Least Laplacian variance over detail variance of a tile in focus, at 0.5 µm/px. Ours, measured."""
    min_sharp_fraction: float = 0.8
    """Least share of sampled tiles in focus; half of it fails (spec §7.2)."""
    max_artefact_fraction: float = 0.2
    """Most pen, fold or bubble on tissue (spec §7.2)."""
    min_background: float = 200.0
    """Least background intensity of each channel; half of it fails (spec §7.2)."""
    max_residual_od: float = 0.15
    """Largest 95th percentile of what the two stains do not explain (spec §7.2)."""
    max_saturated_fraction: float = 0.05
    """Most tissue pixels with a channel too dark to measure. Ours."""
    max_mpp: float = 0.30
    """Coarsest level 0, µm/px, at which thin membranes still show (spec §7.2)."""
    min_ish_tissue_mm2: float = 0.001
    """ISH: less tissue than this fails; a field of view at 100x holds 0.02 mm². Ours."""
    max_ish_mpp: float = 0.20
    """ISH, bright field: coarsest level 0, µm/px, at which signals are preferably read (spec §7.2)."""

    def __post_init__(self) -> None:
        if self.background is not None and not all(20 <= level <= 255 for level in self.background):
            raise ValueError(f"background {list(self.background)}: expected three grey levels, 20 to 255")


@dataclass(frozen=True, slots=True)
class IHCParams:
    """Nuclei, cell territory and membrane measurement."""

    __pydantic_config__: ClassVar[dict[str, str]] = FORBID_UNKNOWN

    expansion_um: float = 10.0
    """Widest distance of a membrane from its nucleus (QuPath's membrane variant, 8 µm)."""
    ladder_od: tuple[float, ...] = (0.05, 0.10, 0.15, 0.20, 0.30, 0.40, 0.60, 0.80)
    """OD cut-points at which membrane completeness is measured and kept. Ours."""
    positive_od: float = 0.10
    """A ray stained this strongly counts in the membrane OD and closes a gap (spec §4.3.7)."""
    strong_od: float = 0.60
    """A neighbour is strong where half of its contour reaches this OD; one of ladder_od. Ours."""
    nucleus_contrast: float = 0.12
    """Least mean step across a nuclear outline, as a fraction of the slide's hematoxylin range. Ours."""
    min_nucleus_um2: float = 8.0
    """Least nucleus area. Ours; QuPath's 10 µm² drops nuclei whose outline follows their darkest part."""
    max_nucleus_um2: float = 250.0
    """Greatest nucleus area (spec §4.3.3)."""


@dataclass(frozen=True, slots=True)
class ISHParams:
    """Nuclei and signals of in-situ hybridisation."""

    __pydantic_config__: ClassVar[dict[str, str]] = FORBID_UNKNOWN

    black_probe: str = "HER2"
    """Bright field: what black silver marks (VENTANA HER2 Dual ISH: HER2). Recorded, never guessed."""
    red_probe: str | None = "CEP17"
    """Bright field: what red marks (VENTANA HER2 Dual ISH: chromosome 17); null for a single black probe."""
    nucleus_contrast: float = 0.18
    """Least mean step across a nuclear outline, as a fraction of the slide's counterstain range. Ours,
    measured."""
    min_nucleus_um2: float = 25.0
    """Least area of a nucleus that is scored (spec §8.2)."""
    max_nucleus_um2: float = 250.0
    """Greatest area of a nucleus that is scored (spec §8.2); pleomorphic tumours may need 400."""
    min_solidity: float = 0.9
    """Least area of a scored nucleus over that of its convex hull (spec §8.2)."""
    max_overlap: float = 0.05
    """From this fraction of its area in other nuclei on, a nucleus is not scored (spec §8.2)."""
    min_sharpness: float = 0.38
    """Least step over a tenth of the nucleus's radius across its edge, as a fraction of that over seven
    tenths: less is out of focus, unless a signal in it is not. Ours, measured."""
    small_nucleus_um2: float = 30.0
    """Tumour rule: a smaller nucleus is a lymphocyte or a fragment (diameter 6.2 µm). Ours."""
    spindle_nucleus_um2: float = 60.0
    """Tumour rule: a nucleus smaller than this and elongated is stroma. Ours."""
    spindle_elongation: float = 2.2
    """Tumour rule: axis ratio from which a nucleus is elongated. Ours."""
    max_bright_field_mpp: float = 0.2
    """Bright field: coarsest pixels, µm, that resolve signals; coarser slides are indeterminate
    (spec §7.2)."""
    max_fluorescence_mpp: float = 0.3
    """Fluorescence: coarsest pixels, µm; two signals 0.6 µm apart are two pixels apart. Ours."""
    min_spot_um: float = 0.4
    """Diameter of the smallest signals (spec §8.3)."""
    max_spot_um: float = 1.0
    """Diameter of the largest single signals (spec §8.3); wider ones are found by their core."""
    spot_mad: float = 4.5
    """Least contrast of a signal, in robust standard deviations of its filtered nucleus. Ours, measured."""
    spot_share: float = 0.2
    """Least contrast of a signal, of that of its nucleus's strongest of the same probe. Ours, measured."""
    spot_noise: float = 4.0
    """Fluorescence: least contrast of a signal, in standard deviations of the channel's empty field. Ours."""
    black_od: float = 0.08
    """Bright field: least contrast of a black signal, optical density. Ours, measured."""
    red_od: float = 0.15
    """Bright field: least contrast of a red signal, optical density. Ours, measured."""
    merge_diameters: float = 1.1
    """Signals whose centres are no farther apart than this many diameters count once (spec §8.3)."""

    def __post_init__(self) -> None:
        if sorted(filter(None, (self.black_probe, self.red_probe))) not in (["HER2"], ["CEP17", "HER2"]):
            found = f"black_probe {self.black_probe!r}, red_probe {self.red_probe!r}"
            raise ValueError(f"{found}: expected HER2 and CEP17, or HER2 in black and null")


@dataclass(frozen=True, slots=True)
class ISHScoreParams:
    """From nuclei and signals to ISH group and heterogeneity."""

    __pydantic_config__: ClassVar[dict[str, str]] = FORBID_UNKNOWN

    rules: str = "ish_asco_cap_2018"
    """ISH rule set by name: a file in her2core/guidelines/ish. Left out: that of the tumour that
    ihc_score.rules is for."""
    count: str = "signals"
    """What the category counts: ``signals`` (of a cluster, as many as its density implies) or ``spots``."""
    excluded_flags: int = 127
    """Nuclei with any of these flags are not counted: sum of 1 overlap, 2 truncated, 4 blurred, 8 shape,
    16 size, 32 saturated, 64 unresolved. All by default (spec §8.1)."""
    min_nuclei: int = 20
    """Fewer evaluable nuclei: indeterminate (ASCO/CAP 2018: at least 20)."""
    full_nuclei: int = 60
    """Fewer evaluable nuclei: limited (the ratio's standard deviation is then 0.11 near 2). Ours."""
    reserve_one_in: int = 3
    """One nucleus in this many, by a hash of its id, is kept for an independent recount. Ours."""
    replicates: int = 1000
    """Bootstrap replicates of the 95 % intervals. Ours."""
    area_um: float = 250.0
    """Edge of the squares that are areas of tumour. Ours."""
    area_nuclei: int = 10
    """Evaluable nuclei that make a square an area; the guideline requires two areas. Ours."""
    max_unscorable_percent: int = 25
    """More well-shaped nuclei without countable signals: a warning (ASCO/CAP 2013: 25 % of signals)."""
    max_blurred_percent: int = 40
    """More well-shaped nuclei out of focus: the slide is indeterminate. Ours, measured on phantoms."""
    retention: float = 0.70
    """Chance of a signal to lie within the section: what the truncation null assumes. Ours."""
    population_percent: int = 10
    """A contiguous amplified population of more than this is counted separately (ASCO/CAP 2013)."""
    link_um: float = 50.0
    """Nuclei closer than this are neighbours in a population: wide, as many nuclei are left out. Ours."""

    def __post_init__(self) -> None:
        if self.count not in ("signals", "spots"):
            raise ValueError(f"count {self.count!r}: expected signals or spots")
        if not 1 <= self.min_nuclei <= self.full_nuclei:
            found = f"min_nuclei {self.min_nuclei}, full_nuclei {self.full_nuclei}"
            raise ValueError(f"{found}: expected 1 <= min <= full")
        if not 0 <= self.excluded_flags <= 127:
            raise ValueError(f"excluded_flags {self.excluded_flags}: expected a sum of flags, 0 to 127")
        if self.reserve_one_in < 2 or self.area_nuclei < 1:
            found = f"reserve_one_in {self.reserve_one_in}, area_nuclei {self.area_nuclei}"
            raise ValueError(f"{found}: expected 2 or more, and 1 or more")
        if not 100 <= self.replicates <= 100_000:
            raise ValueError(f"replicates {self.replicates}: expected 100 to 100000")
        if not 0.0 < self.retention < 1.0:
            raise ValueError(f"retention {self.retention}: expected between 0 and 1")
        for name in ("max_unscorable_percent", "max_blurred_percent", "population_percent"):
            if not 0 <= getattr(self, name) <= 100:
                raise ValueError(f"{name} {getattr(self, name)}: expected 0 to 100")


@dataclass(frozen=True, slots=True)
class ScoreParams:
    """From cell measurements to cell class and slide score."""

    __pydantic_config__: ClassVar[dict[str, str]] = FORBID_UNKNOWN

    rules: str = "breast_asco_cap_2018"
    """Rule set by name: a file in her2core/guidelines/ihc."""
    detect_od: float = 0.10
    """DAB OD from which a piece of membrane is stained; one of the ladder's cut-points. Ours."""
    weak_od: float = 0.20
    """Membrane OD from which staining is weak; below is faint (QuPath's 1+ default, on compartment means)."""
    moderate_od: float = 0.40
    """Membrane OD from which staining is moderate (QuPath's 2+ default)."""
    strong_od: float = 0.60
    """Membrane OD from which staining is strong (QuPath's 3+ default)."""
    membrane_contrast_od: float = 0.08
    """Least OD by which a faint or weak membrane exceeds its cell's cytoplasm; less is haze. Ours."""
    membrane_brownness: float = 0.4
    """Least brownness of a faint or weak membrane, 0 grey to 1 DAB; less is an erythrocyte or debris.
    Ours: halfway to the 0.85 of planted 1+ under JPEG's halved colour."""
    detect_fraction: float = 0.10
    """Stained fraction of the contour from which a cell is stained at all. Ours."""
    lateral_fraction: float = 0.30
    """Stained fraction from which a contour can be basolateral or lateral; matters to gastric rules. Ours."""
    complete_fraction: float = 0.90
    """Stained fraction from which a contour is complete. Ours."""
    evaluable_fraction: float = 0.50
    """Least fraction of the contour that must be evaluable for the cell to count. Ours."""
    min_cells: int = 20
    """Fewer evaluable tumour cells: indeterminate. Ours; guidelines give no number."""
    full_cells: int = 100
    """Fewer evaluable tumour cells: limited (the 95 % interval of 10 % is then 5.5-17.4 %). Ours."""
    false_stain_ppm: int = 10_000
    """Faint cells a million on a negative-reagent control, its upper 95 % bound. Not more than that is null,
    as long as no cell is of class 2 or higher. 1 % until a control is measured; ours."""
    tumour_model: str = "cores"
    """Model that finds tumour cells where no region is drawn: the name of one that comes with the package, or
    the address of a .json that her2 learn-tumour wrote. A run's resolved configuration holds the model."""
    min_nuclei_mm2: float = 300.0
    """Fewer nuclei a mm² of tissue: counterstain or tissue is not fit to be scored. Ours; cores of tissue
    arrays have 3000 to 9000, fat and scar 450 to 800."""
    min_hematoxylin_od: float = 0.05
    """Narrower range of hematoxylin, OD: the counterstain is too pale. Ours; cores have 0.09 and more."""
    calibration: str | None = None
    """Name of the control measurement that the OD cut-points come from; none means ``uncalibrated``."""
    max_bare_mm2: float = 0.02
    """So much stained tissue without cells, five squares of 64 µm, is a warning. Ours."""
    max_bare_percent: int = 10
    """Less than this share of all stained tissue is none. Ours."""
    low_end_mpp: float = 0.30
    """Coarser level-0 pixels, in µm, do not resolve 1+ membranes (0.64 µm wide, Scheel 2018)."""
    grid_od: tuple[float, ...] = (0.05, 0.10, 0.15, 0.20, 0.25, 0.30, 0.40, 0.50, 0.60, 0.80, 1.00, 1.20)
    """Values of t at which P(t), the fraction of tumour cells with membrane OD >= t, is given. Ours."""

    def __post_init__(self) -> None:
        _ascending("detect_od, weak_od, moderate_od, strong_od",
                   (self.detect_od, self.weak_od, self.moderate_od, self.strong_od))  # fmt: skip
        _ascending("detect_fraction, lateral_fraction, complete_fraction",
                   (self.detect_fraction, self.lateral_fraction, self.complete_fraction))  # fmt: skip
        _ascending("grid_od", self.grid_od)
        for name in ("min_nuclei_mm2", "min_hematoxylin_od"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} {getattr(self, name)}: expected 0 or more")
        if not 1 <= self.min_cells <= self.full_cells:
            raise ValueError(
                f"min_cells {self.min_cells}, full_cells {self.full_cells}: expected 1 <= min <= full"
            )
        if not 0 <= self.membrane_contrast_od <= 1:
            raise ValueError(f"membrane_contrast_od {self.membrane_contrast_od}: expected 0 to 1")
        if not 0 <= self.membrane_brownness <= 1:
            raise ValueError(f"membrane_brownness {self.membrane_brownness}: expected 0 to 1")
        if not 0 <= self.false_stain_ppm <= 1_000_000:
            raise ValueError(f"false_stain_ppm {self.false_stain_ppm}: expected 0 to 1000000")
        if not self.complete_fraction <= 1.0 or not 0.0 <= self.evaluable_fraction <= 1.0:
            found = (
                f"complete_fraction {self.complete_fraction}, evaluable_fraction {self.evaluable_fraction}"
            )
            raise ValueError(f"{found}: expected fractions of a contour, up to 1")


@dataclass(frozen=True, slots=True)
class RoiParams:
    """Which classes of a drawn region count: patterns, in any case, for a class or one derived from it."""

    __pydantic_config__: ClassVar[dict[str, str]] = FORBID_UNKNOWN

    include: tuple[str, ...] = ("Tumor*", "Tumour*", "Carcinoma*", "Invasive*", "*metasta*")
    """Classes that count; beside them annotations without a class, or of ``Region*``, do not."""
    exclude: tuple[str, ...] = (
        "Ignore*", "Exclu*", "*DCIS*", "*LCIS*", "*in situ*", "*necro*", "*stroma*", "Normal*", "*benign*",
        "Immune*", "Lymphocyt*", "Artefact*", "Artifact*", "Other", "Background*",
        "Non[- _]*", "Nontumo*", "Nonneopl*", "Nonmalig*", "No tumo*", "Not tumo*", "Tumo*[- _]free*",
    )  # fmt: skip
    """Classes that are cut out of all others: what is no invasive tumour."""

    def __post_init__(self) -> None:
        if not self.include or not all(pattern.strip() for pattern in (*self.include, *self.exclude)):
            raise ValueError("include, exclude: expected lists of classes, such as [Tumor*]")


@dataclass(frozen=True, slots=True)
class OutlineParams:
    """Which outlines of cells and nuclei are kept (IHC)."""

    __pydantic_config__: ClassVar[dict[str, str]] = FORBID_UNKNOWN

    keep: Literal["sample", "all"] = "sample"
    """Outlines that are kept: those of six fields of each slide (``sample``), or of every cell (``all``; some
    55 bytes each)."""


@dataclass(frozen=True, slots=True)
class HeterogeneityParams:
    """From cells and nuclei to regions and heterogeneity."""

    __pydantic_config__: ClassVar[dict[str, str]] = FORBID_UNKNOWN

    region_um: float = 250.0
    """Flat-to-flat size of the hexagons that the blocks of intervals are made of. Ours."""
    sweep_um: tuple[float, ...] = (100.0, 250.0, 500.0)
    """Sizes of hexagon at which regional metrics are given. Ours."""
    region_cells: int = 20
    """Least evaluable tumour cells of a hexagon that takes part in regional metrics. Ours."""
    region_score_cells: int = 100
    """Least evaluable tumour cells of a hexagon that has a score: 10 % of 20 cells is 3-30 %. Ours."""
    min_regions: int = 30
    """Fewer valid hexagons: regional and spatial metrics are insufficient. Ours."""
    min_cells: int = 100
    """Fewer evaluable tumour cells: indices of diversity and spread are insufficient. Ours."""
    min_cells_mixture: int = 200
    """Fewer evaluable tumour cells: Ashman's D and the bimodality coefficient are insufficient. Ours."""
    min_positive: int = 30
    """Fewer cells on either side: clustering and proximity are insufficient. Ours."""
    replicates: int = 500
    """Bootstrap replicates of the 95 % intervals between slides, blocks and lesions. Ours."""
    permutations: int = 999
    """Random arrangements that spatial statistics are compared with."""
    reach_um: tuple[float, ...] = (25.0, 50.0, 100.0, 250.0)
    """Distances of Ripley's L."""
    proximity_um: tuple[float, ...] = (25.0, 50.0)
    """Distances of the proximity score; the source's own are not public."""
    proximity_od: tuple[float, ...] = (0.2, 0.4, 0.6)
    """Membrane ODs from which a cell counts as a target that its neighbours profit from. Ours."""
    link_um: float = 25.0
    """Cells closer than this hang together in a pattern."""
    needle_length_um: float = 10_000.0
    """Length of a virtual needle core; a smaller section gives it what lies under it. Ours."""
    needle_width_um: float = 1_000.0
    """Width of a virtual needle core. Ours."""
    tma_diameter_um: float = 600.0
    """Diameter of a virtual core of a tissue microarray. Ours."""
    biopsy_cores: int = 6
    """Virtual biopsies of 1 to this many cores are scored. Ours."""
    biopsy_cells: int = 100
    """Least evaluable tumour cells of a virtual core; one with fewer is taken again elsewhere. Ours."""
    biopsies: int = 1000
    """Virtual biopsies of each kind of core. Ours."""

    def __post_init__(self) -> None:
        for name in ("sweep_um", "reach_um", "proximity_um", "proximity_od"):
            _ascending(name, getattr(self, name))
        if self.region_um not in self.sweep_um:
            raise ValueError(f"region_um {self.region_um}: expected one of sweep_um, {list(self.sweep_um)}")
        for name in ("region_cells", "region_score_cells", "min_regions", "min_cells", "min_positive"):
            if getattr(self, name) < 2:
                raise ValueError(f"{name} {getattr(self, name)}: expected 2 or more")
        if self.min_cells_mixture < 20:
            raise ValueError(f"min_cells_mixture {self.min_cells_mixture}: expected 20 or more")
        for name in ("replicates", "permutations", "biopsies"):
            if not 99 <= getattr(self, name) <= 100_000:
                raise ValueError(f"{name} {getattr(self, name)}: expected 99 to 100000")
        sizes = ("needle_length_um", "needle_width_um", "tma_diameter_um", "biopsy_cores", "biopsy_cells")
        for name in sizes:
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} {getattr(self, name)}: expected above 0")


def _ascending(names: str, values: tuple[float, ...]) -> None:
    if not values or values[0] <= 0 or any(a >= b for a, b in pairwise(values)):
        raise ValueError(f"{names}: found {values}, expected ascending numbers above 0")
