"""Codes of the tables in words that a pathologist reads once."""

from __future__ import annotations

import re
from collections.abc import Iterable

from her2core.errors import Reason
from her2core.text import cleaned

REASONS: dict[str, str] = {
    Reason.FILE_MISSING: "the file is not there",
    Reason.FILE_EMPTY: "the file is empty",
    Reason.FILE_UNREADABLE: "the file cannot be read",
    Reason.FILE_TRUNCATED: "the file is cut off",
    Reason.FILE_ENCRYPTED: "the file is encrypted",
    Reason.FILE_CHANGED: "the file changed while it was read",
    Reason.FILE_BEYOND_LIMITS: "the file declares more than it can hold, or than is accepted",
    Reason.NOT_A_SLIDE: "the file is not a slide",
    Reason.SCENE_AMBIGUOUS: "the file holds several images, and none is chosen",
    Reason.SCENE_UNKNOWN: "the file has no image of the number given",
    Reason.SCALE_UNKNOWN: "the size of a pixel is unknown",
    Reason.SCALE_IMPLAUSIBLE: "the size of a pixel is implausible",
    Reason.SCALE_ANISOTROPIC: "pixels are not square",
    Reason.CHANNELS_UNKNOWN: "which channel shows which probe is unknown",
    Reason.PIXELS_UNSUPPORTED: "this kind of pixel is not measured",
    Reason.ROI_INVALID: "the region of interest cannot be used",
    Reason.ROI_DOUBTFUL: "the region of interest may be of another slide or scale",
    Reason.CELLS_INVALID: "the outlines of another program cannot be used",
    Reason.CELLS_DOUBTFUL: "the outlines of another program may be of another slide or scale",
    Reason.INSUFFICIENT_TISSUE: "little tissue",
    Reason.BLUR: "out of focus",
    Reason.ARTEFACT: "folds, pen, bubbles or other artefacts",
    Reason.BACKGROUND_DARK: "the background is dark",
    Reason.BACKGROUND_UNKNOWN: "no empty glass: the background is a guess",
    Reason.STAIN_FALLBACK: "stain colours taken from a reference",
    Reason.SATURATION: "too dark to measure in part",
    Reason.RESOLUTION_LOW: "scanned too coarsely",
    Reason.SIGNALS_UNRESOLVED: "scanned too coarsely to tell ISH signals apart",
    Reason.COUNTERSTAIN_WEAK: "weak counterstain",
    Reason.NUCLEI_SPARSE: "too few nuclei in the tissue",
    Reason.NO_TUMOUR: "no tumour found, and no region drawn",
    Reason.STAINED_WITHOUT_CELLS: "stained tissue in which no cells were found",
    Reason.TUMOUR_CHOICE: "another choice of tumour cells would change the score",
    Reason.FALSE_STAIN: "hardly more stain than other tissue, or the unstained cells, explain",
    Reason.INSUFFICIENT_TUMOUR: "too few tumour cells",
    Reason.LIMITED_TUMOUR: "few tumour cells",
    Reason.LOW_END_UNRELIABLE: "pixels too coarse to tell 0 from 1+",
    Reason.UNCALIBRATED: "no stain control: uncalibrated",
    Reason.UNUSUAL_PATTERN: "a staining pattern that the guidelines omit",
    Reason.INSUFFICIENT_NUCLEI: "too few nuclei that can be counted",
    Reason.LIMITED_NUCLEI: "few nuclei that can be counted",
    Reason.UNSCORABLE_NUCLEI: "many nuclei without signals that can be counted",
    Reason.FEW_AREAS: "fewer than two areas of tumour with countable nuclei",
    Reason.EXCLUDED: "excluded by the manifest",
    Reason.WORKER_LOST: "the worker was lost",
    Reason.RUN_ENDED: "the run ended before this slide was done",
    Reason.NO_SPACE: "no space to stage the file",
    Reason.TIMEOUT: "took too long",
    Reason.INTERNAL: "an internal error",
}
NOTES = frozenset(
    {
        Reason.UNCALIBRATED,
        Reason.LIMITED_TUMOUR,
        Reason.LIMITED_NUCLEI,
        Reason.STAIN_FALLBACK,
        Reason.BACKGROUND_UNKNOWN,
        Reason.FEW_AREAS,
        Reason.ROI_DOUBTFUL,
        Reason.CELLS_DOUBTFUL,
        Reason.UNUSUAL_PATTERN,
    }
)
"""Reasons that stand beside a score more often than in its place: named last as the cause of an exclusion."""
HER2_CLASSES = {
    "pos_IHC3": "positive, IHC 3+",
    "pos_IHC2_ISHpos": "positive, IHC 2+ / ISH+",
    "pos_ISH_only": "positive by ISH alone",
    "equivocal": "equivocal",
    "low_2plus": "low, IHC 2+ / ISH−",
    "low_1plus": "low, IHC 1+",
    "ultralow": "ultralow",
    "0_unresolved": "0, null or ultralow",
    "null": "null",
    "negative": "negative",
    "indeterminate": "indeterminate",
}
SLIDE_CLASSES = {"equivocal_2plus": "equivocal, IHC 2+"}
"""Classes that a slide has and no specimen."""
NO_CLASS = "no class (ISH alone)"
ISH_GROUPS = {
    "1": "group 1",
    "2": "group 2",
    "3": "group 3",
    "4": "group 4",
    "5": "group 5",
    "amplified": "amplified",
    "high_copies": "high copies",
    "not_amplified": "not amplified",
    "single_positive": "one probe, positive",
    "single_equivocal": "one probe, equivocal",
    "single_negative": "one probe, negative",
}
PENDING = {
    "PENDING_IHC": "ISH waits for an IHC result",
    "PENDING_RECOUNT": "ISH waits for a recount",
    "PENDING_DUAL_PROBE": "ISH waits for a dual probe",
    "ADJUDICATE": "a person must judge the ISH",
}
FLAGS = {
    "discordant_ihc3_ish_negative": "IHC 3+ but ISH negative",
    "discordant_ihc_low_ish_positive": "IHC 0 or 1+ but ISH positive",
    "ish_without_ihc": "ISH without IHC",
    "ish_open": "ISH without a result, IHC decides",
    "hidden_by_pooling": "one slide alone would have another result",
    "strong_below_floor": "strong cells below the cut-off",
    "external_ish_undecided": "the reported ISH is undecided",
    "external_ish_rounded": "the reported ISH lies at a cut-off by rounding",
    "ish_conflict": "measured and reported ISH differ",
    "second_population": "a second population in ISH",
    "review": "a person should look",
}
STATES = {
    "scored": "scored",
    "indeterminate": "measured, no score",
    "failed": "failed",
    "quarantined": "unreadable",
    "skipped": "excluded",
}
STAGES = ("received", "readable", "scored", "called")
STAGE_MEANING = (
    "slides of the manifest",
    "read and measured",
    "with an IHC score or an ISH group",
    "of a specimen that is positive or negative",
)

_FOLDERS = re.compile(r"""(?:[a-z0-9+]+://|(?<![\w.:/…])/)[^\s'"<>|,;]*/""")


def in_words(code: str) -> str:
    """A code that no table of words names, legibly."""
    return code.replace("_", " ")


def without_folders(text: str, addresses: Iterable[str] = ()) -> str:
    """A message without credentials, and with the last part of every address alone.

    Parameters
    ----------
    addresses
        Known ones, whose folders may hold spaces.
    """
    for address in addresses:
        text = text.replace(f"{address.rpartition('/')[0]}/", "")
    return _FOLDERS.sub("", cleaned(text))
