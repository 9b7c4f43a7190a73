"""Nuclei of a slide as ISH scores see them: which count, which are kept for a recount, which form a group."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from her2core.columns import NucleusFlag
from her2core.guidelines.rules_ish import ISHRules
from her2core.params import ISHScoreParams
from her2core.scoring.signals import ISHCounts, SignalCounts
from her2core.statistics import scattered

SIGNAL_FLAGS = int(NucleusFlag.BLURRED | NucleusFlag.SATURATED | NucleusFlag.UNRESOLVED)
"""Flags of signals that cannot be counted, not of a nucleus that lies or looks wrong."""


@dataclass(frozen=True, slots=True)
class MeasuredNuclei:
    """The measurements that ISH scores are made of, one array a column, shape ``(n,)``.

    Attributes
    ----------
    nucleus_id
        Name of the nucleus within its slide; decides which sample it belongs to.
    flags
        Sum of the kernel's flags; see ISHScoreParams.excluded_flags.
    tumour
        Which nuclei belong to the tumour.
    her2_spots, cep17_spots
        Spots that were found; ``cep17_spots`` is None for a single probe.
    her2_signals, cep17_signals
        The same with clusters counted by their density.
    """

    nucleus_id: NDArray[np.int64]
    y_um: NDArray[np.float64]
    x_um: NDArray[np.float64]
    flags: NDArray[np.uint8]
    tumour: NDArray[np.bool_]
    her2_spots: NDArray[np.int64]
    her2_signals: NDArray[np.int64]
    cep17_spots: NDArray[np.int64] | None
    cep17_signals: NDArray[np.int64] | None

    @classmethod
    def of(cls, nuclei: Any, *, dual: bool) -> MeasuredNuclei:
        """Pick the columns out of a table that holds `ish_columns`: Arrow, or a mapping of arrays."""

        def column(name: str, dtype: type) -> Any:
            values = nuclei[name]
            return np.asarray(values.to_numpy() if hasattr(values, "to_numpy") else values, dtype)

        return cls(
            nucleus_id=column("nucleus_id", np.int64),
            y_um=column("y_um", np.float64),
            x_um=column("x_um", np.float64),
            flags=column("flags", np.uint8),
            tumour=column("is_tumour", np.bool_),
            her2_spots=column("her2_spots", np.int64),
            her2_signals=column("her2_signals", np.int64),
            cep17_spots=column("cep17_spots", np.int64) if dual else None,
            cep17_signals=column("cep17_signals", np.int64) if dual else None,
        )

    def counted(self, params: ISHScoreParams) -> tuple[NDArray[np.int64], NDArray[np.int64] | None]:
        """HER2 and CEP17 as the category counts them."""
        if params.count == "spots":
            return self.her2_spots, self.cep17_spots
        return self.her2_signals, self.cep17_signals

    def with_signals(self, params: ISHScoreParams) -> NDArray[np.bool_]:
        """Nuclei with at least one signal of every colour, shape ``(n,)``."""
        her2, cep17 = self.counted(params)
        shown: NDArray[np.bool_] = (her2 >= 1) if cep17 is None else (her2 >= 1) & (cep17 >= 1)
        return shown

    def flagged(self, params: ISHScoreParams) -> NDArray[np.bool_]:
        """Nuclei with a flag that leaves them out, shape ``(n,)``."""
        found: NDArray[np.bool_] = self.flags & np.uint8(params.excluded_flags) != 0
        return found

    def evaluable(self, params: ISHScoreParams) -> NDArray[np.bool_]:
        """Tumour nuclei without an excluded flag that show every colour: those that are counted."""
        return self.tumour & ~self.flagged(params) & self.with_signals(params)

    def unscorable(self, params: ISHScoreParams) -> NDArray[np.bool_]:
        """Tumour nuclei that lie and look well, but whose signals cannot be counted or are not there."""
        return self.well_shaped(params) & ~self.evaluable(params)

    def blurred(self, params: ISHScoreParams) -> NDArray[np.bool_]:
        """Well-shaped tumour nuclei that are left out because they are out of focus, shape ``(n,)``."""
        out: NDArray[np.bool_] = self.flags & np.uint8(params.excluded_flags & NucleusFlag.BLURRED) != 0
        return self.well_shaped(params) & out

    def well_shaped(self, params: ISHScoreParams) -> NDArray[np.bool_]:
        """Tumour nuclei without an excluded flag, those of `SIGNAL_FLAGS` aside."""
        shaped: NDArray[np.bool_] = self.flags & np.uint8(params.excluded_flags & ~SIGNAL_FLAGS) == 0
        return self.tumour & shaped


def ish_columns(*, dual: bool) -> tuple[str, ...]:
    """Columns of the ``nuclei`` table that a score needs."""
    always = ("nucleus_id", "y_um", "x_um", "flags", "is_tumour", "her2_spots", "her2_signals")
    return (*always, "cep17_spots", "cep17_signals") if dual else always


def in_reserve(nucleus_id: NDArray[np.int64], one_in: int) -> NDArray[np.bool_]:
    """Nuclei kept for a recount: a sample that depends on nothing but their names, shape ``(n,)``."""
    kept: NDArray[np.bool_] = scattered(nucleus_id.astype(np.uint64)) % np.uint64(one_in) == 0
    return kept


def count_nuclei(nuclei: MeasuredNuclei, params: ISHScoreParams) -> ISHCounts:
    """Count the evaluable nuclei of a slide, in two samples."""
    her2, cep17 = nuclei.counted(params)
    evaluable = nuclei.evaluable(params)
    reserve = in_reserve(nuclei.nucleus_id, params.reserve_one_in)

    def counts(rows: NDArray[np.bool_]) -> SignalCounts:
        return SignalCounts.of(her2[rows], None if cep17 is None else cep17[rows])

    return ISHCounts(counts(evaluable & ~reserve), counts(evaluable & reserve))


@dataclass(frozen=True, slots=True)
class SecondPopulation:
    """A contiguous population with more signals, counted by itself beside the rest of the slide.

    Attributes
    ----------
    counts, group
        Its nuclei, all of them, and its ISH group.
    fraction
        Its share of the slide's evaluable nuclei.
    rest_group
        ISH group of the others.
    """

    counts: SignalCounts
    group: str
    fraction: float
    rest_group: str


def second_population(
    nuclei: MeasuredNuclei, params: ISHScoreParams, rules: ISHRules
) -> SecondPopulation | None:
    """Largest contiguous amplified population, if it is one beside another.

    A nucleus belongs to amplified tissue if at least half of the evaluable nuclei within ``link_um``, itself
    among them, exceed the CAP 2009 cut-off: neighbours decide, so that a nucleus is not chosen for the very
    signals that are then counted. The largest group of such nuclei is reported if it holds enough nuclei,
    more than ``population_percent`` of all, and is of another ISH group than the rest.
    """
    from scipy.spatial import cKDTree

    from her2core.points.components import component_labels  # compiled code: not where a run is only driven

    evaluable = np.flatnonzero(nuclei.evaluable(params))
    her2, cep17 = nuclei.counted(params)
    rule = rules.heterogeneity
    numerator, denominator = rule.copies_above if cep17 is None else rule.ratio_above
    reference = np.ones(len(her2), np.int64) if cep17 is None else cep17
    amplified = (denominator * her2 > numerator * reference)[evaluable]
    if np.count_nonzero(amplified) < 1:
        return None
    points = np.column_stack((nuclei.y_um, nuclei.x_um))[evaluable]

    def near(some: NDArray[np.float64]) -> NDArray[np.int64]:
        found: NDArray[np.int64] = cKDTree(some).query_ball_point(points, params.link_um, return_length=True)
        return found

    tissue = 2 * near(points[amplified]) >= near(points)
    labels = component_labels(points[tissue, 0], points[tissue, 1], params.link_um)
    if len(labels) == 0:
        return None
    largest = labels == np.argmax(np.bincount(labels))
    inside = np.zeros(len(her2), np.bool_)
    inside[evaluable[tissue][largest]] = True
    outside = np.zeros(len(her2), np.bool_)
    outside[evaluable] = ~inside[evaluable]
    one, rest = (SignalCounts.of(her2[m], None if cep17 is None else cep17[m]) for m in (inside, outside))
    enough = min(one.n, rest.n) >= params.min_nuclei
    if not enough or 100 * one.n <= params.population_percent * (one.n + rest.n):
        return None
    groups = [rules.group(c.n, c.her2, c.cep17) for c in (one, rest)]
    if groups[0] == groups[1]:
        return None
    return SecondPopulation(one, groups[0], one.n / (one.n + rest.n), groups[1])
