"""From slides to units: which slides make a block or a lesion, and how these differ; see `between`.

Slides that take part are those that their specimen's score was made of. Specimens, and primary and
metastasis, are set side by side and never pooled.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from her2core.cases.patients import METASTASIS, PRIMARY, lesions, of_kind
from her2core.cases.specimens import CaseScore, SlideOutcome, pool_ihc
from her2core.guidelines.rules_ihc import SCORES, load_rules
from her2core.heterogeneity.between import (
    ComparedMetric,
    cells_between,
    change_of_cells,
    change_of_nuclei,
    nuclei_between,
)
from her2core.heterogeneity.units import MIN_UNITS, Sums, Unit, pooled
from her2core.params import HeterogeneityParams, ISHScoreParams, ScoreParams
from her2core.records import Assay
from her2core.scoring.ihc import pool_expression

BlocksOf = Callable[[str], NDArray[np.float64]]
"""Of a slide: what compact blocks of it hold, shape ``(m, k)``; `units.CELL_SUMS` or `units.NUCLEUS_SUMS`."""
Groups = Mapping[str, Sequence[str]]
"""Names of units, and the slides in each."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """How the slides and blocks of every specimen of a patient differ, and how the lesions do."""

    specimens: tuple[tuple[CaseScore, tuple[ComparedMetric, ...]], ...]
    lesions: tuple[ComparedMetric, ...]


@dataclass(frozen=True, slots=True)
class Comparer:
    """What comparisons are made with.

    Attributes
    ----------
    outcomes
        Slides of the cohort by name.
    blocks_of
        Called for slides that are compared with others, and for no other.
    """

    outcomes: Mapping[str, SlideOutcome]
    blocks_of: BlocksOf
    params: HeterogeneityParams
    score: ScoreParams
    ish_score: ISHScoreParams

    def compare(self, cases: Sequence[CaseScore]) -> Comparison:
        """Compare the slides, blocks and lesions of one patient, given its specimens."""
        one = _Patient(self)
        specimens = tuple((case, tuple(one.specimen(case))) for case in cases)
        return Comparison(specimens, tuple(one.lesions(cases)))


@dataclass(frozen=True, slots=True)
class _Patient:
    """A patient's comparisons; each slide's sums are made once."""

    by: Comparer
    made: dict[str, Sums] = field(default_factory=dict)

    def specimen(self, case: CaseScore) -> Iterator[ComparedMetric]:
        """Between its slides, and between its blocks; of the assays that it has slides of."""
        ihc, ish = self._assays([case])
        for prefix, grouped in (("slides", _alone), ("blocks", self._by_block)):
            if ihc:
                yield from cells_between(prefix, self._cells(grouped(case.pooled)), self.by.params.min_cells)
            if ish:
                nuclei, dual = self._nuclei(grouped(case.ish.pooled)), self._dual(case.ish.pooled)
                yield from nuclei_between(prefix, nuclei, self.by.ish_score.min_nuclei, dual=dual)

    def lesions(self, cases: Sequence[CaseScore]) -> Iterator[ComparedMetric]:
        """Between sites, and from primary to metastasis; each is one specimen."""
        ihc, ish = self._assays(cases)
        sites = lesions(cases)

        def ends(units: Sequence[Unit]) -> Iterator[Unit | None]:
            found = {unit.name: unit for unit in units}
            for kind in (PRIMARY, METASTASIS):
                stands = of_kind(sites, kind)
                yield found.get(stands.name) if stands else None

        if ihc:
            least = self.by.params.min_cells
            units = self._cells({case.name: case.pooled for case in sites})
            before, after = ends(units)
            yield from cells_between("lesions", units, least)
            yield from change_of_cells("metastasis_less_primary", before, after, least)
        if ish:
            least, shown = self.by.ish_score.min_nuclei, {case.name: case.ish.pooled for case in sites}
            two = {name: slides for name, slides in shown.items() if slides and self._dual(slides)}
            units = self._nuclei(two or shown)  # two probes outrank one
            before, after = ends(units)
            dual = bool(two) or not any(shown.values())
            yield from nuclei_between("lesions", units, least, dual=dual)
            yield from change_of_nuclei("metastasis_less_primary", before, after, least, dual=dual)

    def _assays(self, cases: Sequence[CaseScore]) -> tuple[bool, bool]:
        """Whether there are slides of IHC, and of ISH, whatever became of them."""
        names = {
            name
            for case in cases
            for part in (case.pooled, case.ish.pooled, case.indeterminate, case.failed, case.skipped)
            for name in part
        }
        ihc = [self.by.outcomes[name].slide.assay == Assay.IHC for name in names]
        return any(ihc), not all(ihc)

    def _dual(self, slides: Sequence[str]) -> bool:
        return all(ish.counts.dual for name in slides if (ish := self.by.outcomes[name].readable_ish))

    def _by_block(self, slides: Sequence[str]) -> Groups:
        """Slides of every block that the manifest names."""
        blocks: dict[str, list[str]] = {}
        for name in slides:
            if block := self.by.outcomes[name].slide.block_id:
                blocks.setdefault(block, []).append(name)
        return blocks

    def _cells(self, groups: Groups) -> list[Unit]:
        """Units of IHC slides, scored as a block is."""
        units = []
        sums = self._sums(groups, _cells_of, self.by.params.min_cells)
        for name, (n, found) in sums.items():
            outcomes = [self.by.outcomes[slide] for slide in groups[name]]
            scores = [s for o in outcomes if (s := o.readable_score)]
            score = pool_ihc(outcomes, self.by.score, load_rules(scores[0].rules))[1].score
            expression = pool_expression([s.expression for s in scores])
            rank = None if score is None else SCORES.index(score)
            units.append(Unit(name, n, found, rank, expression.h_score))
        return units

    def _nuclei(self, groups: Groups) -> list[Unit]:
        """Units of ISH slides."""
        sums = self._sums(groups, _nuclei_of, self.by.ish_score.min_nuclei)
        return [Unit(name, n, found) for name, (n, found) in sums.items()]

    def _sums(
        self, groups: Groups, counted: Callable[[SlideOutcome], int], least: int
    ) -> dict[str, tuple[int, Sums | None]]:
        """Cells of every unit, and what they add up to if there is another unit to compare it with."""
        cells = {
            name: sum(counted(self.by.outcomes[slide]) for slide in slides)
            for name, slides in groups.items()
            if slides
        }
        compared = {name for name, n in cells.items() if n >= least}
        if len(compared) < MIN_UNITS:
            compared = set()
        return {
            name: (n, pooled([self._sums_of(slide) for slide in groups[name]]) if name in compared else None)
            for name, n in cells.items()
        }

    def _sums_of(self, slide: str) -> Sums:
        if slide not in self.made:
            self.made[slide] = Sums.of(self.by.blocks_of(slide), self.by.params.replicates, slide)
        return self.made[slide]


def _cells_of(slide: SlideOutcome) -> int:
    return slide.readable_score.counts.n if slide.readable_score else 0


def _nuclei_of(slide: SlideOutcome) -> int:
    return slide.readable_ish.counts.all.n if slide.readable_ish else 0


def _alone(slides: Sequence[str]) -> Groups:
    """Every slide by itself."""
    return {name: (name,) for name in slides}
