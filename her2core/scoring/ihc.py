"""From the cells of a slide to its score: pure functions of the cell columns, so any cut-off can be tried.

Cells are classified by completeness and intensity, counted as integers, and the counts are given to a rule
set. Re-scoring reads the lake's ``cells`` table and never a pixel.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from her2core.errors import ConfigError, Reason
from her2core.guidelines.rules_ihc import SCORES, CellClass, ClassCounts, RuleSet
from her2core.params import ScoreParams
from her2core.records import Quality, StainProfile
from her2core.scoring.false_stain import expected_false_stain
from her2core.statistics import exact_sum, quantiles, wilson

MEMBRANE_COLUMNS = (
    "evaluable_fraction",
    "membrane_od_median",
    "membrane_od_mean",
    "membrane_od_p90",
    "cytoplasm_od",
    "membrane_brownness",
)
"""Columns of the ``cells`` table, beside completeness, that a cell's class and its OD are made of."""
OD_PERCENTS = (5, 10, 25, 50, 75, 90, 95)
"""Quantiles of membrane OD that a slide row gives, in percent."""


@dataclass(frozen=True, slots=True)
class MeasuredCells:
    """The measurements that scores are made of, one array a column, shape ``(n,)``.

    Attributes
    ----------
    completeness
        Fraction of the contour that is stained at the detection cut-point, in [0, 1].
    intensity_od
        Median DAB OD of the stained part of the contour; NaN or 0 where there is none.
    membrane_od
        Mean DAB OD of the whole contour.
    dark_od
        DAB OD that the darkest tenth of the contour reaches.
    evaluable, tumour
        Which cells are evaluable, and which belong to the tumour.
    brownness
        How brown the stained part of the contour is: 1 as DAB (and without stain), 0 as grey.
    """

    y_um: NDArray[np.float64]
    x_um: NDArray[np.float64]
    completeness: NDArray[np.float32]
    intensity_od: NDArray[np.float32]
    membrane_od: NDArray[np.float32]
    cytoplasm_od: NDArray[np.float32]
    evaluable: NDArray[np.bool_]
    tumour: NDArray[np.bool_]
    brownness: NDArray[np.float32]
    dark_od: NDArray[np.float32]

    @classmethod
    def of(
        cls, cells: Any, params: ScoreParams, ladder_od: Sequence[float], lacking_od: float = 0.0
    ) -> MeasuredCells:
        """Pick the columns out of a table: the one place where kernel columns get their meaning.

        Parameters
        ----------
        cells
            Arrow table (or anything with ``cells[name]``) that holds `score_columns`.
        ladder_od
            Cut-points of the completeness ladder, IHCParams.ladder_od.
        lacking_od
            The cells as they would be if every DAB OD had been read this much too low; takes the columns of
            every cut-point.
        """

        def column(name: str, dtype: type) -> Any:
            values = cells[name]
            return np.asarray(values.to_numpy() if hasattr(values, "to_numpy") else values, dtype)

        if lacking_od:
            ladder = [column(name, np.float32) for name in ladder_columns(ladder_od)]
            completeness = _completeness_at(ladder, ladder_od, params.detect_od - lacking_od)
        else:
            completeness = column(completeness_column(params, ladder_od), np.float32)
        lacking = np.float32(lacking_od)
        evaluable = column("evaluable_fraction", np.float32) >= np.float32(params.evaluable_fraction)
        evaluable &= np.isfinite(completeness)
        return cls(
            y_um=column("y_um", np.float64),
            x_um=column("x_um", np.float64),
            completeness=completeness,
            intensity_od=column("membrane_od_median", np.float32) + lacking,
            membrane_od=column("membrane_od_mean", np.float32) + lacking,
            cytoplasm_od=column("cytoplasm_od", np.float32) + lacking,
            evaluable=evaluable,
            tumour=column("is_tumour", np.bool_),
            brownness=column("membrane_brownness", np.float32),
            dark_od=column("membrane_od_p90", np.float32) + lacking,
        )


def _completeness_at(
    ladder: Sequence[NDArray[np.float32]], ladder_od: Sequence[float], cut: float
) -> NDArray[np.float32]:
    """Completeness at any cut-point, between those of the ladder by a straight line; all is stained at 0."""
    cuts = (0.0, *ladder_od)
    steps = (np.where(np.isfinite(ladder[0]), np.float32(1), ladder[0]), *ladder)
    right = int(np.clip(np.searchsorted(cuts, cut), 1, len(cuts) - 1))
    part = np.clip((cut - cuts[right - 1]) / (cuts[right] - cuts[right - 1]), 0.0, 1.0)
    return np.asarray(steps[right - 1] + np.float32(part) * (steps[right] - steps[right - 1]), np.float32)


def score_columns(
    params: ScoreParams, ladder_od: Sequence[float], every_cut: bool = False
) -> tuple[str, ...]:
    """Columns of the ``cells`` table that a score needs; ``every_cut`` where the cut-point may shift."""
    completeness = (completeness_column(params, ladder_od),)
    columns = ladder_columns(ladder_od) if every_cut else completeness
    return ("y_um", "x_um", *columns, *MEMBRANE_COLUMNS, "is_tumour")


def ladder_columns(ladder_od: Sequence[float]) -> tuple[str, ...]:
    """Names of the completeness columns of all cut-points."""
    return tuple(f"completeness_{step:02d}" for step in range(len(ladder_od)))


def completeness_column(params: ScoreParams, ladder_od: Sequence[float]) -> str:
    """Name of the completeness column at the detection cut-point.

    Raises
    ------
    ConfigError
        If ``detect_od`` is not a cut-point of the ladder: completeness was not measured there.
    """
    if params.detect_od not in ladder_od:
        raise ConfigError(
            f"ihc_score.detect_od is {params.detect_od}, not a cut-point of the completeness ladder "
            f"{list(ladder_od)}; choose one of these, or put it in the place of one of ihc.ladder_od"
        )
    return ladder_columns(ladder_od)[list(ladder_od).index(params.detect_od)]


def classify(cells: MeasuredCells, params: ScoreParams, rules: RuleSet) -> NDArray[np.int8]:
    """Class of every cell, shape ``(n,)``, values of `CellClass`, from the rule set's table.

    A contour drawn through haze follows its darkest grains: faint or weak stain that hardly exceeds the
    cell's own cytoplasm is none of the membrane. Nor is what is grey: erythrocytes beside a cell, debris.
    """
    intensity, completeness = _bins(cells, params)
    classes = np.array(rules.cell_classes, np.int8)[intensity, completeness]
    contrast = cells.intensity_od - cells.cytoplasm_od  # NaN where either was not measured: no haze known
    haze = contrast < np.float32(params.membrane_contrast_od)
    grey = cells.brownness < np.float32(params.membrane_brownness)
    doubtful = cells.intensity_od < np.float32(params.moderate_od)
    classes = np.where(doubtful & (haze | grey), np.int8(CellClass.C0), classes)
    return np.where(cells.evaluable, classes, np.int8(CellClass.UNEVALUABLE))


def _bins(cells: MeasuredCells, params: ScoreParams) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Row and column of every cell in the class table; a cut-point belongs to the bin above it."""
    od_cuts = np.array((params.weak_od, params.moderate_od, params.strong_od), np.float32)
    contour_cuts = (params.detect_fraction, params.lateral_fraction, params.complete_fraction)
    intensity = np.nan_to_num(cells.intensity_od, nan=0.0)
    return (
        np.searchsorted(od_cuts, intensity, side="right"),
        np.searchsorted(np.array(contour_cuts, np.float32), cells.completeness, side="right"),
    )


def count_classes(
    cells: MeasuredCells, params: ScoreParams, rules: RuleSet, classes: NDArray[np.int8] | None = None
) -> ClassCounts:
    """Count the evaluable tumour cells by class, and the largest groups that hang together.

    Parameters
    ----------
    classes
        What `classify` finds, where it is known.
    """
    found = classify(cells, params, rules) if classes is None else classes
    classes = np.where(cells.tumour, found, np.int8(CellClass.UNEVALUABLE))
    n0, n1, n2, n2u, n3 = np.bincount(classes[classes >= CellClass.C0], minlength=len(CellClass) - 1).tolist()
    intensity, completeness = _bins(cells, params)
    faint_and_complete = (classes == CellClass.C1) & (intensity == 0) & (completeness == 3)

    from her2core.points.components import largest_component  # compiled code: not where a run is only driven

    def largest(lowest: CellClass) -> int:
        at_least = classes >= lowest
        return largest_component(cells.y_um[at_least], cells.x_um[at_least], rules.link_um)

    strong = largest(CellClass.C3)
    return ClassCounts(
        n0=n0,
        n1=n1,
        n2=n2,
        n2u=n2u,
        n3=n3,
        n1_complete=int(np.count_nonzero(faint_and_complete)),
        cluster_any=largest(CellClass.C1),
        cluster_2=largest(CellClass.C2),
        cluster_3=strong,
        contiguous_3=strong,
    )


@dataclass(frozen=True, slots=True)
class Expression:
    """Continuous HER2 expression of evaluable tumour cells, as counts and sums so that slides can be pooled.

    Attributes
    ----------
    weak, moderate, strong
        Cells whose mean membrane OD lies in this bin, whatever its completeness: the H-score's input.
    at_least
        Cells with a mean membrane OD of at least t, for every t of the grid.
    n_cytoplasm
        Cells whose cytoplasm could be measured.
    """

    n: int
    weak: int
    moderate: int
    strong: int
    grid_od: tuple[float, ...]
    at_least: tuple[int, ...]
    n_cytoplasm: int
    membrane_od_sum: float
    cytoplasm_od_sum: float
    completeness_sum: float

    @classmethod
    def of(cls, cells: MeasuredCells, params: ScoreParams) -> Expression:
        counted = cells.tumour & cells.evaluable
        od, cytoplasm = cells.membrane_od[counted], cells.cytoplasm_od[counted]
        cytoplasm = cytoplasm[np.isfinite(cytoplasm)]
        weak, moderate, strong = _at_least(od, (params.weak_od, params.moderate_od, params.strong_od))
        return cls(
            n=len(od),
            weak=weak - moderate,
            moderate=moderate - strong,
            strong=strong,
            grid_od=params.grid_od,
            at_least=_at_least(od, params.grid_od),
            n_cytoplasm=len(cytoplasm),
            membrane_od_sum=exact_sum(od),
            cytoplasm_od_sum=exact_sum(cytoplasm),
            completeness_sum=exact_sum(cells.completeness[counted]),
        )

    @property
    def h_score(self) -> float | None:
        """1 x % weak + 2 x % moderate + 3 x % strong, in [0, 300]; ignores completeness, never a category."""
        weighted = self.weak + 2 * self.moderate + 3 * self.strong
        return 100 * weighted / self.n if self.n else None

    @property
    def membrane_od_mean(self) -> float | None:
        return self.membrane_od_sum / self.n if self.n else None

    @property
    def cytoplasm_od_mean(self) -> float | None:
        return self.cytoplasm_od_sum / self.n_cytoplasm if self.n_cytoplasm else None

    @property
    def completeness_mean(self) -> float | None:
        return self.completeness_sum / self.n if self.n else None

    @property
    def p_of_t(self) -> tuple[float, ...] | None:
        """P(t): fraction of cells with a mean membrane OD of at least t, for every t of the grid."""
        return tuple(k / self.n for k in self.at_least) if self.n else None


def pool_expression(parts: Sequence[Expression]) -> Expression:
    """Expression of all cells of several slides together, in any order the same.

    Raises
    ------
    ValueError
        Of none, or if the slides were not measured on one grid of t.
    """
    if len({part.grid_od for part in parts}) != 1:
        raise ValueError(f"expected slides with one grid of t; found {sorted({p.grid_od for p in parts})}")
    return Expression(
        n=sum(p.n for p in parts),
        weak=sum(p.weak for p in parts),
        moderate=sum(p.moderate for p in parts),
        strong=sum(p.strong for p in parts),
        grid_od=parts[0].grid_od,
        at_least=tuple(sum(k) for k in zip(*(p.at_least for p in parts), strict=True)),
        n_cytoplasm=sum(p.n_cytoplasm for p in parts),
        membrane_od_sum=math.fsum(p.membrane_od_sum for p in parts),
        cytoplasm_od_sum=math.fsum(p.cytoplasm_od_sum for p in parts),
        completeness_sum=math.fsum(p.completeness_sum for p in parts),
    )


def _at_least(values: NDArray[np.float32], cuts: Sequence[float]) -> tuple[int, ...]:
    """How many values reach each cut, compared in single precision as they were measured."""
    return tuple(int(np.count_nonzero(values >= np.float32(cut))) for cut in cuts)


@dataclass(frozen=True, slots=True)
class Verdict:
    """Score of a slide or a specimen, or why there is none.

    Attributes
    ----------
    score
        ``0``, ``1+``, ``2+``, ``3+``; None if indeterminate.
    her2_class
        See `rules_ihc.Decision`; ``indeterminate`` without a score.
    reasons
        Codes of `errors.Reason`, sorted: all that a reader of the score should see.
    possible_scores, patterns, null_excludes_pct
        See `rules_ihc.Decision`.
    p3, p2, p_any
        95 % Wilson intervals of the cumulative fractions of class 3, class 2 or higher, class 1 or higher.
    """

    score: str | None
    her2_class: str
    reasons: tuple[str, ...]
    possible_scores: tuple[str, ...]
    patterns: tuple[str, ...]
    null_excludes_pct: float | None
    p3: tuple[float, float]
    p2: tuple[float, float]
    p_any: tuple[float, float]

    @property
    def borderline(self) -> bool:
        return len(self.possible_scores) > 1

    @property
    def undecided(self) -> bool:
        """Whether cells enough were read, but with a doubt that leaves more than one score possible."""
        return self.score is None and self.borderline


UNREADABLE = frozenset({Reason.COUNTERSTAIN_WEAK, Reason.NUCLEI_SPARSE, Reason.NO_TUMOUR})
"""Reasons for which a slide's cells are neither scored nor pooled, whatever the result of quality control."""


def judge(
    counts: ClassCounts,
    params: ScoreParams,
    rules: RuleSet,
    reasons: Iterable[str],
    *,
    readable: bool = True,
    others: Sequence[ClassCounts] = (),
    doubtful: Sequence[ClassCounts] = (),
    false_stained: int = 0,
) -> Verdict:
    """Apply a rule set to counts, unless there are too few cells or the slide is not readable.

    Counts that could as well be those of the slide, and would have another score, leave it without one.

    Parameters
    ----------
    reasons
        What is known already (quality control, resolution); kept beside what is found here.
    readable
        False if quality control failed: then nothing is scored.
    others
        Counts by other choices of cells, all cells first; their scores are possible too where they hold
        `full_cells`. All cells but those counted are the slide's other tissue, its own negative control.
    doubtful
        What the counts may be instead, because the background was guessed.
    false_stained
        How many of the cells counted the slide's own unstained cells would have read as stained.
    """
    found = set(reasons)
    if params.calibration is None:
        found.add(Reason.UNCALIBRATED)
    n = counts.n
    intervals = (wilson(counts.n3, n), wilson(counts.at_least_2, n), wilson(counts.stained, n))
    if n < params.min_cells:
        found.add(Reason.INSUFFICIENT_TUMOUR)
    if not readable or n < params.min_cells:
        return Verdict(None, "indeterminate", _codes(found), (), (), None, *intervals)
    if n < params.full_cells:
        found.add(Reason.LIMITED_TUMOUR)
    decision = rules.decide(counts, params.false_stain_ppm)
    unsure = [rules.decide(other, params.false_stain_ppm) for other in doubtful]
    scores = {decision.score, *(other.score for other in unsure)}
    chosen = {rules.decide(o, params.false_stain_ppm).score for o in others if o.n >= params.full_cells}
    if chosen - {decision.score}:
        found.add(Reason.TUMOUR_CHOICE)
    other = _beside(others[0], counts) if others else ClassCounts()
    cleared = {rules.decide(_without_false_stain(counts, other), params.false_stain_ppm).score}
    if decision.score == "1+" and false_stained > n * wilson(counts.stained, n)[1]:
        cleared.add("0")  # all of it may be false
    false_zero = decision.her2_class == "ultralow" and not _stained_beyond(counts, other, false_stained)
    if false_zero or cleared - {decision.score}:
        found.add(Reason.FALSE_STAIN)
    if len(scores) > 1:
        open_scores = _from_to(scores | chosen | cleared | set(decision.possible_scores))
        return Verdict(None, "indeterminate", _codes(found), open_scores, (), None, *intervals)
    if decision.patterns:
        found.add(Reason.UNUSUAL_PATTERN)
    sure = not false_zero and all(other.her2_class == decision.her2_class for other in unsure)
    possible = chosen | cleared | set(decision.possible_scores)
    return Verdict(
        decision.score,
        decision.her2_class if sure else "0_unresolved",  # null or ultralow: the only classes of one score
        _codes(found),
        tuple(score for score in SCORES if score in possible),
        decision.patterns,
        decision.null_excludes_pct if sure else None,
        *intervals,
    )


def _beside(every: ClassCounts, counts: ClassCounts) -> ClassCounts:
    """Cells of the slide that are not among those counted, by class."""
    left = {name: getattr(every, name) - getattr(counts, name) for name in ("n0", "n1", "n2", "n2u", "n3")}
    return ClassCounts(**left)


def _stained_beyond(counts: ClassCounts, other: ClassCounts, false_stained: int) -> bool:
    """Whether surely more of the tumour is stained than without HER2, faintly or in class 2 and higher.

    Other tissue of a tumour that is 0 has no HER2 on its membranes: what is stained there is false. So is
    what the tumour's own unstained cells come to, which is faint.
    """
    n, elsewhere = counts.n, max(other.n, 1)
    faint = max(other.stained / elsewhere, false_stained / n)
    pairs = ((counts.stained, faint), (counts.at_least_2, other.at_least_2 / elsewhere))
    return any(wilson(k, n)[0] > false for k, false in pairs)


def _without_false_stain(counts: ClassCounts, other: ClassCounts) -> ClassCounts:
    """Counts less the share that other tissue has stained, of any class; it is taken from the faint cells."""
    false = min(counts.n1, counts.n * other.stained // max(other.n, 1))
    n1 = counts.n1 - false
    return replace(counts, n0=counts.n0 + false, n1=n1, n1_complete=min(counts.n1_complete, n1))


def _from_to(scores: Iterable[str]) -> tuple[str, ...]:
    """All scores from the lowest to the highest of these."""
    ranks = [SCORES.index(score) for score in scores]
    return SCORES[min(ranks) : max(ranks) + 1]


def _codes(reasons: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted(str(reason) for reason in reasons))


@dataclass(frozen=True, slots=True)
class SlideScore:
    """Everything measured on the cells of one slide.

    Attributes
    ----------
    n_cells, n_tumour, n_unevaluable
        Cells found, tumour cells among them, and tumour cells whose membrane is not evaluable.
    membrane_od
        Quantiles of the mean membrane OD at `OD_PERCENTS`; None without cells.
    others
        Counts over all cells, and over those of stained nests; none where a region was drawn.
    stained_without_cells_mm2
        Stained tissue in which no cells were found.
    false_stained
        See `expected_false_stain`.
    """

    verdict: Verdict
    counts: ClassCounts
    expression: Expression
    rules: str
    rules_version: int
    n_cells: int
    n_tumour: int
    n_unevaluable: int
    membrane_od: tuple[float | None, ...]
    completeness_median: float | None
    others: tuple[ClassCounts, ...] = ()
    stained_without_cells_mm2: float = 0.0
    false_stained: int = 0

    @property
    def readable(self) -> bool:
        """Whether its cells can be pooled with those of other slides."""
        return not UNREADABLE & set(self.verdict.reasons)


def score_slide(
    cells: MeasuredCells,
    params: ScoreParams,
    rules: RuleSet,
    quality: Quality,
    mpp: float,
    *,
    classes: NDArray[np.int8] | None = None,
    stain: StainProfile | None = None,
    nests: NDArray[np.bool_] | None = None,
    tumour_found: bool = True,
    doubtful: Sequence[MeasuredCells] = (),
    bare_mm2: tuple[float, float] = (0.0, 0.0),
) -> SlideScore:
    """Score one slide.

    Parameters
    ----------
    cells
        All cells of the slide, in the table's order.
    quality
        Verdict of quality control: ``fail`` makes the slide indeterminate; its reasons are passed on.
    mpp
        Level-0 µm/px; too coarse for thin membranes is among the reasons.
    classes
        What `classify` finds, where it is known.
    stain
        The slide's colour, by which the counterstain is assessed.
    nests
        Cells in stained nests, where a model chose the tumour cells; None where a person drew what counts.
    tumour_found
        False if the model found no tissue that is tumour.
    doubtful
        What the cells may be instead, because the background was guessed.
    bare_mm2
        Stained tissue without cells, and all stained tissue; see `stained_without_cells`.
    """
    counted = cells.tumour & cells.evaluable
    classes = classify(cells, params, rules) if classes is None else classes
    counts = count_classes(cells, params, rules, classes)
    reasons = set(quality.reasons) | _unfit(len(cells.tumour), quality, stain, params)
    if mpp > params.low_end_mpp:
        reasons.add(Reason.LOW_END_UNRELIABLE)
    bare, stained = bare_mm2
    if bare >= params.max_bare_mm2 and 100 * bare > params.max_bare_percent * stained:
        reasons.add(Reason.STAINED_WITHOUT_CELLS)
    others: tuple[ClassCounts, ...] = ()
    if nests is not None:
        choices = (np.ones_like(cells.tumour), nests)
        others = tuple(
            count_classes(replace(cells, tumour=choice), params, rules, classes) for choice in choices
        )
        if len(cells.tumour) >= params.full_cells and not tumour_found:
            reasons.add(Reason.NO_TUMOUR)
    readable = quality.verdict != "fail" and not UNREADABLE & reasons
    false_stained = expected_false_stain(cells, params)
    return SlideScore(
        verdict=judge(
            counts,
            params,
            rules,
            reasons,
            readable=readable,
            others=others,
            doubtful=[count_classes(other, params, rules) for other in doubtful],
            false_stained=false_stained,
        ),
        counts=counts,
        expression=Expression.of(cells, params),
        rules=rules.name,
        rules_version=rules.version,
        n_cells=len(cells.tumour),
        n_tumour=int(np.count_nonzero(cells.tumour)),
        n_unevaluable=int(np.count_nonzero(cells.tumour & ~cells.evaluable)),
        membrane_od=quantiles(cells.membrane_od[counted], OD_PERCENTS),
        completeness_median=quantiles(cells.completeness[counted], (50,))[0],
        others=others,
        stained_without_cells_mm2=bare,
        false_stained=false_stained,
    )


def _unfit(n_cells: int, quality: Quality, stain: StainProfile | None, params: ScoreParams) -> set[str]:
    """Why the counterstain, or what it shows, is not fit to be scored."""
    found: set[str] = set()
    if n_cells < params.min_nuclei_mm2 * quality.tissue_area_mm2:
        found.add(Reason.NUCLEI_SPARSE)
    if stain is not None:
        range_od = stain.hematoxylin_high_od - stain.hematoxylin_low_od
        if range_od < params.min_hematoxylin_od:
            found.add(Reason.COUNTERSTAIN_WEAK)
    return found
