"""Every parameter of the chain, with unit, default and where the default comes from.

Plain frozen dataclasses: stages take one each, content keys digest them, and ``config`` validates text
into them. "Ours" marks a default that is this project's own choice and not literature.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

FORBID_UNKNOWN = {"extra": "forbid"}  # read by pydantic when configuration text is validated


@dataclass(frozen=True, slots=True)
class PyramidParams:
    """Geometry and codec of the OME-Zarr pyramid."""

    __pydantic_config__: ClassVar[dict[str, str]] = FORBID_UNKNOWN

    chunk: int = 512
    """Chunk edge in pixels at every level; a power of two."""
    shard: int = 4096
    """Level-0 shard edge in pixels; chunk times a power of two. One task writes one shard."""
    codec: str = "blosc-lz4"
    """Named codec; see docs/configuration.md for the list and its measurements."""


@dataclass(frozen=True, slots=True)
class ProfileParams:
    """Background, stain vectors, tissue mask and quality gates."""

    __pydantic_config__: ClassVar[dict[str, str]] = FORBID_UNKNOWN

    tissue_um_px: float = 8.0
    """Working resolution of the tissue mask; the nearest pyramid level is used. Ours."""
    min_tissue_mm2: float = 1.0
    """Least tissue for a score (HistoQC-style gate; ours)."""


@dataclass(frozen=True, slots=True)
class IHCParams:
    """Nuclei, cell territory and membrane measurement."""

    __pydantic_config__: ClassVar[dict[str, str]] = FORBID_UNKNOWN

    expansion_um: float = 8.0
    """Widest distance of a membrane from its nucleus (QuPath's membrane variant, 8 µm)."""
    ladder_od: tuple[float, ...] = (0.05, 0.10, 0.15, 0.20, 0.30, 0.40, 0.60, 0.80)
    """OD cut-points at which membrane completeness is measured and kept. Ours."""


@dataclass(frozen=True, slots=True)
class ScoreParams:
    """From cell measurements to cell class and slide score."""

    __pydantic_config__: ClassVar[dict[str, str]] = FORBID_UNKNOWN

    rules: str = "breast_asco_cap_2018"
    """Rule set by name: a file in her2core/guidelines."""
    detect_od: float = 0.10
    weak_od: float = 0.20
    moderate_od: float = 0.40
    strong_od: float = 0.60
    complete_fraction: float = 0.90
    detect_fraction: float = 0.10
