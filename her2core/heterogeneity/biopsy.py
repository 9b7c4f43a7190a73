"""Virtual biopsies: how often would a smaller piece of the tumour have had another score?

Cores are laid at random on the tumour of a whole section and scored by the slide's own rule set. What comes
out is sampling error alone: the section stands for the lesion, and what lies outside it is not known.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from her2core.guidelines.rules_ihc import SCORES, CellClass, ClassCounts, RuleSet
from her2core.heterogeneity.metrics import Metric, insufficient, measured
from her2core.params import HeterogeneityParams
from her2core.points.components import largest_component
from her2core.points.cores import Strips
from her2core.points.order import by_place
from her2core.statistics import wilson

Ints = NDArray[np.int64]
Reals = NDArray[np.float64]

STRIP_UM = 80.0
"""Height of the strips that cells are sorted into; speed alone depends on it."""
TRIES = 10
"""Places tried for each core that is needed, before the tumour is too thin for such cores. Ours."""
_AT_FIRST = 64
"""Cells under a core in which a group is looked for first; speed alone depends on it."""
_GROUPS = ("cluster_any", "cluster_2", "cluster_3")
_COUNTED = ("n0", "n1", "n2", "n2u", "n3", *_GROUPS)
"""What is counted under a core, as `ClassCounts` names it: classes as in `CellClass`, and groups."""
_SEED = 20260403
"""Key of the places: the same cells give the same biopsies."""


@dataclass(frozen=True, slots=True)
class Core:
    """What is taken: a strip under a needle, or a disc. ``length_um`` is the diameter of a disc."""

    name: str
    length_um: float
    width_um: float
    disc: bool


def cores_of(params: HeterogeneityParams) -> tuple[Core, Core]:
    """The two kinds of core that are simulated."""
    return (
        Core("needle", params.needle_length_um, params.needle_width_um, disc=False),
        Core("tma", params.tma_diameter_um, params.tma_diameter_um, disc=True),
    )


@dataclass(frozen=True, slots=True)
class Section:
    """Evaluable tumour cells of a slide in an order of their own, so that any order gives the same places."""

    y_um: Reals
    x_um: Reals
    classes: Ints
    strips: Strips | None

    @classmethod
    def of(cls, y_um: Reals, x_um: Reals, classes: NDArray[np.int8]) -> Section:
        """Keep the cells that have a class; arguments as in `virtual_biopsies`."""
        kept = np.flatnonzero(classes >= CellClass.C0)
        kept = kept[by_place(y_um[kept], x_um[kept], classes[kept])]
        y, x = y_um[kept], x_um[kept]
        return cls(y, x, classes[kept].astype(np.int64), Strips.of(y, x, STRIP_UM) if len(kept) else None)

    def counts(self, rows: Ints, rules: RuleSet) -> ClassCounts:
        """Cells of some rows by class; connected groups only where the rule set requires them."""
        classes = self.classes[rows]
        counts = ClassCounts(*np.bincount(classes, minlength=len(CellClass) - 1).tolist())
        if all(step.cluster is None for step in rules.steps):
            return counts

        groups = dict.fromkeys((CellClass.C3, CellClass.C2, CellClass.C1), 0)
        found = 0  # what a group of a higher class has decided, a larger one of a lower class does not change
        for lowest in groups:
            least = [step.cluster for step in rules.steps if step.cluster and min(step.classes) == lowest]
            if least and found < min(least):
                found = self._group(rows[classes >= lowest], min(least), rules.link_um)
            groups[lowest] = found
        return counts + ClassCounts(
            cluster_any=groups[CellClass.C1],
            cluster_2=groups[CellClass.C2],
            cluster_3=groups[CellClass.C3],
        )

    def _group(self, rows: Ints, least: int, link_um: float) -> int:
        """Cells of a group that hangs together, of ``least`` or more if there is such a group."""
        found = 0
        for some in (rows[:_AT_FIRST], rows):  # cells that follow each other lie together
            if found < least <= len(some):
                found = largest_component(self.y_um[some], self.x_um[some], link_um)
        return found

    def take(self, core: Core, params: HeterogeneityParams, rules: RuleSet) -> Ints:
        """As many cores as are needed, of enough cells each, centred on a cell and in a random direction.

        Returns
        -------
        Ints
            Shape ``(found, 8)``: cells of each class, and of the groups any, 2 and 3 of `ClassCounts`.
        """
        table = np.zeros((0, len(_COUNTED)), np.int64)
        if self.strips is None:
            return table
        random = np.random.Generator(np.random.Philox(key=_SEED))
        needed = params.biopsies * params.biopsy_cores
        centres = random.integers(len(self.classes), size=TRIES * needed)
        angles = random.random(TRIES * needed) * math.pi
        if all(step.cluster is None for step in rules.steps):
            size, least = (core.length_um, core.width_um), params.biopsy_cells
            by_class = self.strips.tally(
                self.classes, centres, angles, *size, disc=core.disc, least=least, most=needed
            )
            return np.pad(by_class, ((0, 0), (0, len(_COUNTED) - by_class.shape[1])))
        found = (
            rows
            for i, angle in zip(centres.tolist(), angles.tolist(), strict=True)
            if len(rows := self._under(core, i, angle)) >= params.biopsy_cells
        )
        counts = [self.counts(rows, rules) for rows in islice(found, needed)]
        return np.array([[getattr(c, name) for name in _COUNTED] for c in counts] or table, np.int64)

    def _under(self, core: Core, i: int, angle: float) -> Ints:
        assert self.strips is not None
        y0, x0 = float(self.y_um[i]), float(self.x_um[i])
        return self.strips.under(y0, x0, angle, core.length_um, core.width_um, disc=core.disc)


def score_of(counts: ClassCounts, rules: RuleSet) -> int:
    """Rank of the score in `SCORES`, by the rule set's whole numbers."""
    return SCORES.index(next((step.score for step in rules.steps if step.holds(counts)), SCORES[0]))


def virtual_biopsies(
    y_um: Reals, x_um: Reals, classes: NDArray[np.int8], rules: RuleSet, params: HeterogeneityParams
) -> list[Metric]:
    """Probability that a biopsy of 1, 2, ... cores has another score than the whole section, and a lower one.

    The cells of a biopsy's cores are pooled. Cores of one biopsy are placed independently and may overlap.

    Parameters
    ----------
    y_um, x_um, classes
        Place and class of the cells, shape ``(n,)``, in any order. Cells without a class
        (`CellClass.UNEVALUABLE`; also what is no tumour) are left out.

    Returns
    -------
    list of Metric
        ``biopsy_needle_other_1``, ``biopsy_needle_lower_1``, ..., the same for ``tma``. ``n`` counts
        biopsies, ``scale_um`` is the core's length, and the Wilson interval is that of the simulation.
    """
    section = Section.of(y_um, x_um, classes)
    whole = score_of(section.counts(np.arange(len(section.classes)), rules), rules)
    return [metric for core in cores_of(params) for metric in _of_core(section, core, whole, rules, params)]


def _of_core(
    section: Section, core: Core, whole: int, rules: RuleSet, params: HeterogeneityParams
) -> Iterator[Metric]:
    taken = section.take(core, params, rules)
    shape = params.biopsies, params.biopsy_cores
    enough = len(taken) == math.prod(shape)
    ranks = _ranks(taken, shape, rules) if enough else np.zeros(shape, np.int64)
    for k in range(params.biopsy_cores):
        for word, hits in (("other", ranks[:, k] != whole), ("lower", ranks[:, k] < whole)):
            name, many = f"biopsy_{core.name}_{word}_{k + 1}", int(np.count_nonzero(hits))
            if not enough:
                yield insufficient(name, len(taken), scale_um=core.length_um)
                continue
            n = params.biopsies
            interval = wilson(many, n)
            yield measured(name, many / n, n, scale_um=core.length_um, interval=interval)


def _ranks(taken: Ints, shape: tuple[int, int], rules: RuleSet) -> Ints:
    """`score_of` the first 1, 2, ... cores of every biopsy, pooled; ``shape`` is (biopsies, cores)."""
    by_class, groups = np.split(taken.reshape(*shape, -1), [len(_COUNTED) - len(_GROUPS)], axis=2)
    by_class = by_class.cumsum(1)
    groups, n = np.maximum.accumulate(groups, axis=1), by_class.sum(2)
    ranks: Ints = np.full(shape, -1)
    for step in rules.steps:
        if step.cluster is not None:
            lowest = next(
                i for i, c in enumerate((CellClass.C1, CellClass.C2, CellClass.C3)) if c in step.classes
            )
            holds = groups[..., lowest] >= step.cluster
        else:
            k = by_class[..., sorted(step.classes)].sum(2)
            holds = (k > 0) & (k >= step.min_cells) & step.exceeds(k, n)
        ranks[holds & (ranks < 0)] = SCORES.index(step.score)
    ranks[ranks < 0] = 0
    return ranks
