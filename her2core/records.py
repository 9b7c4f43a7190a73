"""Records that cross stage and process boundaries: small, frozen, picklable, without pixels or secrets.

Lengths carry their unit as a suffix: ``_um``, ``_px0`` (pixels of level 0), ``_px`` (pixels of the level
at hand), ``_od`` (optical density, base 10, against the slide's own background). Points and shapes are
``(y, x)``.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from decimal import Decimal
from enum import StrEnum
from typing import Any


class Assay(StrEnum):
    """What a slide was stained for; the manifest's ``assay`` column."""

    IHC = "HER2-IHC"
    DISH = "HER2-DISH"
    FISH = "HER2-FISH"


RGB = ("R", "G", "B")
"""Channels of a bright-field slide."""


@dataclass(frozen=True, slots=True)
class Box:
    """Half-open pixel rectangle ``[y0, y1) x [x0, x1)``."""

    y0: int
    x0: int
    y1: int
    x1: int

    @property
    def height(self) -> int:
        return self.y1 - self.y0

    @property
    def width(self) -> int:
        return self.x1 - self.x0

    def grown(self, by: int) -> Box:
        """This box with ``by`` pixels more on every side."""
        return Box(self.y0 - by, self.x0 - by, self.y1 + by, self.x1 + by)

    def within(self, other: Box) -> Box:
        """The part of this box in another one; of no positive height or width where they do not meet."""
        y0, x0 = max(self.y0, other.y0), max(self.x0, other.x0)
        return Box(y0, x0, min(self.y1, other.y1), min(self.x1, other.x1))


@dataclass(frozen=True, slots=True)
class SlideRow:
    """One manifest row after validation; what a laboratory reported keeps the decimals that it wrote."""

    slide_id: str
    case_id: str
    uri: str
    assay: Assay
    patient_id: str | None = None
    specimen_id: str | None = None
    block_id: str | None = None
    site: str | None = None
    collection_date: str | None = None
    scanner: str | None = None
    mpp: float | None = None
    scene: str | None = None
    roi_uri: str | None = None
    reader_score: str | None = None
    channels: str | None = None
    background: tuple[float, float, float] | None = None
    ish_ratio: Decimal | None = None
    ish_her2: Decimal | None = None
    ish_cep17: Decimal | None = None
    ish_status: str | None = None
    ish_group: str | None = None
    ish_recount_group: str | None = None
    ish_source: str | None = None
    exclude: str | None = None
    tumour_type: str | None = None
    specimen_type: str | None = None
    cold_ischaemia_min: float | None = None
    fixative: str | None = None
    fixation_h: float | None = None
    antibody_clone: str | None = None
    section_age_days: float | None = None
    block_date: str | None = None
    cells_uri: str | None = None
    laboratory: str | None = None


LATER_FIELDS = frozenset({"laboratory"})
"""Fields of `SlideRow` that came after results were kept: left out of content keys where they are empty, so
that results of manifests without them are found again. Remove a name when the slide stage's version rises."""


def keyed_fields(row: SlideRow) -> dict[str, Any]:
    """What of a row enters content keys, by name and in the order of the columns."""
    values = {field.name: getattr(row, field.name) for field in fields(row)}
    return {name: value for name, value in values.items() if value is not None or name not in LATER_FIELDS}


@dataclass(frozen=True, slots=True)
class LevelInfo:
    """One resolution level as the source file stores it."""

    height: int
    width: int
    downsample: float


@dataclass(frozen=True, slots=True)
class SlideInfo:
    """What a slide's header states, without anything that could name a patient.

    Attributes
    ----------
    identity
        ``"<size>-<etag or sha256>"``: equal identity means equal pixels.
    mpp
        Micrometres per level-0 pixel, or None where neither manifest nor metadata states it.
    mpp_source
        ``manifest``, or the metadata field it was read from (``aperio``, ``ome``, ``tiff_resolution``, ...).
    scenes, scene
        Numbers in the file of its slide images, and of the one that is read; None where there is one alone.
    problems
        Plain sentences: what is odd about the file without making it unusable.
    channels
        What a pixel read from it holds, in order: ``R, G, B`` in bright field; for fluorescence ``DAPI`` and
        the probes, ``HER2`` and ``CEP17``.
    dtype
        ``uint8``, or ``uint16`` for fluorescence.
    z_planes
        Focal planes, of which a pixel is the maximum.
    colour_profile
        Name and size of the file's ICC profile, which is carried along and changes no pixel.
    source_channels
        For fluorescence, which of the file's channels each is: ``DAPI=2;HER2=0;CEP17=1``.
    scene_sizes
        Height and width of each of ``scenes``, px, where the reader reads them.
    native
        ``jpeg`` or ``jpeg2000`` where its tiles can be copied as they are; else empty.
    """

    uri: str
    identity: str
    size_bytes: int
    format: str
    reader: str
    levels: tuple[LevelInfo, ...]
    tile_height: int
    tile_width: int
    compression: str
    mpp: float | None
    mpp_source: str | None
    scenes: tuple[str, ...]
    scene: str | None
    objective_power: float | None
    assay_guess: str | None = None
    problems: tuple[str, ...] = ()
    channels: tuple[str, ...] = RGB
    dtype: str = "uint8"
    z_planes: int = 1
    source_channels: str | None = None
    colour_profile: str | None = None
    scene_sizes: tuple[tuple[int, int], ...] = ()
    native: str = ""

    @property
    def height(self) -> int:
        return self.levels[0].height

    @property
    def width(self) -> int:
        return self.levels[0].width


@dataclass(frozen=True, slots=True)
class RoiUsed:
    """What a slide's region of interest was made of.

    Attributes
    ----------
    source, digest
        Where it was read, and the identity of that file.
    classes, excluded
        Classes of the annotations that count, and of those that were cut out.
    area_mm2
        Of the region on the slide.
    notes
        What else the file holds, in words.
    doubts
        Why it may not be of this slide, in words.
    """

    source: str
    digest: str
    classes: tuple[str, ...]
    excluded: tuple[str, ...]
    area_mm2: float
    notes: tuple[str, ...] = ()
    doubts: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class OutlinesUsed:
    """Another program's nuclei, which a slide's cells were measured on.

    Attributes
    ----------
    source, digest
        Where they were read, and the identity of that file.
    count
        How many of them can be measured on.
    notes
        What of the file was not used, and what was made of it, in words.
    doubts
        Why they may not be of this slide, in words.
    """

    source: str
    digest: str
    count: int
    notes: tuple[str, ...] = ()
    doubts: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class PyramidRef:
    """A published OME-Zarr pyramid.

    Attributes
    ----------
    path
        Place of the Zarr group, relative to the output store's root.
    identity
        Identity of the slide it was made from.
    shapes
        ``(height, width)`` of every level, finest first; each level halves the one above.
    mpp
        Micrometres per level-0 pixel.
    codec
        How it is stored: a named codec, or ``source-jpeg-256`` where level 0 holds the slide's own tiles.
    fallback
        Why the slide's tiles were not copied although that was requested; empty if they were, or it was not.
    tiles_encoded
        Of a slide whose tiles were copied: those that could not be, and are stored without loss.
    block
        Edge, in shards of level 0, of the ground of one shard of each level above it up to 4 (see ``grid``).
    """

    path: str
    identity: str
    shapes: tuple[tuple[int, int], ...]
    chunk: int
    shard: int
    mpp: float
    codec: str
    bytes_written: int
    objects: int
    channels: tuple[str, ...] = RGB
    dtype: str = "uint8"
    fallback: str = ""
    tiles_encoded: int = 0
    block: int = 1

    def shape(self, level: int) -> tuple[int, int]:
        """``(height, width)`` of any level; readers make those beyond the coarsest that is stored."""
        height, width = self.shapes[0]
        return -(-height >> level), -(-width >> level)


@dataclass(frozen=True, slots=True)
class OutlinesRef:
    """Published nuclei of a slide, and what they were made of."""

    path: str
    used: OutlinesUsed


@dataclass(frozen=True, slots=True)
class CellsRef:
    """The published parts of a slide's cells or nuclei, and how many rows they hold."""

    parts: tuple[str, ...]
    cells: int


@dataclass(frozen=True, slots=True)
class ContoursPart:
    """One file, and the box in level-0 pixels that owns the centroids of its cells."""

    path: str
    box: Box


@dataclass(frozen=True, slots=True)
class ContoursRef:
    """The published outlines of a slide's cells."""

    parts: tuple[ContoursPart, ...]


@dataclass(frozen=True, slots=True)
class StainProfile:
    """Slide-global colour, frozen before any chunk is scored.

    Attributes
    ----------
    i0
        Background intensity of R, G and B: the light that glass lets through.
    hematoxylin, dab
        Unit OD vectors of the two stains, (R, G, B).
    source
        ``estimated`` (both vectors), ``partly`` (one of them) or ``reference``; ``fallback`` is the reason.
    hematoxylin_low_od, hematoxylin_high_od
        The slide's own hematoxylin range: its level between nuclei and inside a typical nucleus.
    i0_source
        ``glass``; ``white`` where glass is overexposed; without glass ``stated`` by manifest or
        configuration, or ``bright_end``: guessed.
    i0_brightest
        Grey level that a guessed background of no channel exceeds; None where it is not guessed.
    """

    i0: tuple[float, float, float]
    hematoxylin: tuple[float, float, float]
    dab: tuple[float, float, float]
    source: str
    fallback: str | None
    hematoxylin_angle_deg: float
    dab_angle_deg: float
    hematoxylin_low_od: float
    hematoxylin_high_od: float
    i0_source: str = "glass"
    i0_brightest: float | None = None


@dataclass(frozen=True, slots=True)
class DishStain:
    """Slide-global colour of a bright-field ISH slide: hematoxylin, red signals; black is neutral.

    Attributes
    ----------
    i0
        Background intensity of R, G and B.
    hematoxylin, red
        Unit OD vectors of counterstain and red chromogen, (R, G, B); silver absorbs all three alike.
    source
        ``estimated`` or ``reference`` (hematoxylin); ``fallback`` gives the reason.
    hematoxylin_low_od, hematoxylin_high_od
        The slide's own range: its level between nuclei and inside a typical nucleus.
    """

    i0: tuple[float, float, float]
    hematoxylin: tuple[float, float, float]
    red: tuple[float, float, float]
    source: str
    fallback: str | None
    hematoxylin_low_od: float
    hematoxylin_high_od: float
    i0_source: str = "glass"


@dataclass(frozen=True, slots=True)
class Fluorescence:
    """Slide-global levels of a fluorescence slide, in grey levels of the source, one value a channel.

    Attributes
    ----------
    channels
        ``DAPI``, ``HER2`` and, with two probes, ``CEP17``.
    background, noise
        Median and robust standard deviation (1.4826 MAD) of empty field.
    dapi_low, dapi_high
        Level between nuclei, and of a typical nucleus.
    dapi_share
        Share of DAPI's light that shows in every channel beside it, 0 of itself; empty: none does.
    """

    channels: tuple[str, ...]
    background: tuple[float, ...]
    noise: tuple[float, ...]
    dapi_low: float
    dapi_high: float
    dapi_share: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Quality:
    """Slide-level quality control: verdict, reasons and measures; None where an assay has no such measure."""

    verdict: str  # pass | warn | fail
    reasons: tuple[str, ...]
    tissue_area_mm2: float
    sharp_fraction: float | None
    pen_fraction: float | None
    fold_fraction: float | None
    bubble_fraction: float | None
    saturated_fraction: float
    residual_p95_od: float | None


@dataclass(frozen=True, slots=True)
class SlideProfile:
    """Everything slide-global. ``tissue_level`` is the pyramid level whose grid the tissue label shares."""

    stain: StainProfile | DishStain | Fluorescence
    quality: Quality
    tissue_level: int
    tissue_label: str


class SlideState(StrEnum):
    """How a slide of a cohort ended, or how far it is. Failed, skipped and quarantined are not the same."""

    RUNNING = "running"
    SCORED = "scored"
    INDETERMINATE = "indeterminate"  # read and measured, but no score can be given; see reasons
    FAILED = "failed"  # an error that a retry may cure (worker lost, store unreachable)
    QUARANTINED = "quarantined"  # the slide itself is the cause: broken, no scale, not a slide
    SKIPPED = "skipped"  # not attempted: the manifest excludes it
    INTERRUPTED = "interrupted"  # its run ended before it did; in the journal alone
