"""Errors a user can act on: each names the file, the offending value and the remedy."""

from __future__ import annotations

from enum import StrEnum


class Reason(StrEnum):
    """Why a slide (or a number of it) is not what one hoped for; written to the tables as it stands here."""

    # the file
    FILE_MISSING = "file_missing"
    FILE_EMPTY = "file_empty"
    FILE_UNREADABLE = "file_unreadable"
    FILE_TRUNCATED = "file_truncated"
    FILE_ENCRYPTED = "file_encrypted"
    FILE_CHANGED = "file_changed"  # while it was read
    FILE_BEYOND_LIMITS = "file_beyond_limits"  # declares more than it can hold, or more than we accept
    NOT_A_SLIDE = "not_a_slide"
    SCENE_AMBIGUOUS = "scene_ambiguous"
    SCENE_UNKNOWN = "scene_unknown"
    SCALE_UNKNOWN = "scale_unknown"
    SCALE_IMPLAUSIBLE = "scale_implausible"
    SCALE_ANISOTROPIC = "scale_anisotropic"
    CHANNELS_UNKNOWN = "channels_unknown"  # neither manifest nor metadata names the channels
    PIXELS_UNSUPPORTED = "pixels_unsupported"  # a type of number, or time points, that we do not measure
    ROI_INVALID = "roi_invalid"
    ROI_DOUBTFUL = "roi_doubtful"  # read, but it may be of another slide or scale; roi_notes give the reason
    CELLS_INVALID = "cells_invalid"  # another program's outlines, which cannot be used
    CELLS_DOUBTFUL = "cells_doubtful"  # read, but they may be of another slide or scale; see cells_notes
    # the image
    INSUFFICIENT_TISSUE = "insufficient_tissue"
    BLUR = "blur"
    ARTEFACT = "artefact"
    BACKGROUND_DARK = "background_dark"
    BACKGROUND_UNKNOWN = "background_unknown"
    STAIN_FALLBACK = "stain_fallback"
    SATURATION = "saturation"
    RESOLUTION_LOW = "resolution_low"
    SIGNALS_UNRESOLVED = "signals_unresolved"  # ISH: pixels too coarse to separate signals
    COUNTERSTAIN_WEAK = "counterstain_weak"  # nuclei hardly stand out of the dark field, or are too pale
    NUCLEI_SPARSE = "nuclei_sparse"  # too few nuclei a mm² of tissue
    # the score
    NO_TUMOUR = "no_tumour"  # neither compact tumour nor stained nests, and no region drawn
    STAINED_WITHOUT_CELLS = "stained_without_cells"  # stained tissue in which no cells were found
    TUMOUR_CHOICE = "tumour_choice"  # another choice of cells would give another score
    FALSE_STAIN = "false_stain"  # other tissue or chance explains the stain that class or score rest on
    INSUFFICIENT_TUMOUR = "insufficient_tumour"
    LIMITED_TUMOUR = "limited_tumour"
    LOW_END_UNRELIABLE = "low_end_unreliable"
    UNCALIBRATED = "uncalibrated"
    UNUSUAL_PATTERN = "unusual_pattern"
    INSUFFICIENT_NUCLEI = "insufficient_nuclei"  # fewer than ISH needs
    LIMITED_NUCLEI = "limited_nuclei"
    UNSCORABLE_NUCLEI = "unscorable_nuclei"  # too many without signals that can be counted
    FEW_AREAS = "few_areas"  # ISH needs two areas of tumour
    # the run
    EXCLUDED = "excluded"  # by the manifest
    WORKER_LOST = "worker_lost"
    RUN_ENDED = "run_ended"  # before this slide was done: store or cluster could not be used any more
    NO_SPACE = "no_space"  # to stage it
    TIMEOUT = "timeout"
    INTERNAL = "internal_error"


class Her2Error(Exception):
    """Base of every error this package raises on purpose."""


class ConfigError(Her2Error):
    """The configuration or an environment override cannot be used."""


class ManifestError(Her2Error):
    """One or more manifest rows cannot be used; the message lists every one with its row number."""


class StoreError(Her2Error):
    """The output store cannot be used as it is (unreachable, read-only, no conditional PUT)."""


class DiskFullError(StoreError):
    """The disk of the output, or a quota or limit on it, takes no more."""


class ScratchError(StoreError):
    """A slide cannot be staged: the scratch folder is too small, or its disk is full."""


class ClusterError(Her2Error):
    """The Dask cluster cannot be reached or used."""


class SlideError(Her2Error):
    """One slide cannot be scored. Becomes a row in the tables, never the end of a cohort.

    Parameters
    ----------
    reason
        Code written to the tables.
    message
        Names the file, the value found, what was expected and what to do.
    """

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(reason, message)
        self.reason = reason
        self.message = message

    def __str__(self) -> str:
        return f"[{self.reason}] {self.message}"
