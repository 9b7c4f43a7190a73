"""Scoring rules as cited data, and the integer arithmetic that applies them.

A rule set is one YAML file in ``her2core/guidelines/ihc``: what the guideline requires, with its source, its
cut-offs as whole percentages, and whether a cut-off itself belongs to the higher score. Applying it compares
integers (``100 * cells > percent * all``), so 10.0 % is 10.0 %.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from functools import lru_cache
from typing import Any

import yaml

from her2core.errors import ConfigError
from her2core.guidelines.rule_files import UNREADABLE, rule_files, rule_text
from her2core.statistics import wilson

SCORES = ("0", "1+", "2+", "3+")
"""IHC scores, lowest first."""
TUMOURS = ("breast", "gastric")
"""Tumours that there are rules for; gastric is that of the stomach and of the gastro-oesophageal junction."""
SPECIMEN_TYPES = ("biopsy", "resection")
"""Specimens that there are rules for."""
INTENSITIES = ("faint", "weak", "moderate", "strong")
COMPLETENESS = ("none", "partial", "lateral", "complete")
PATTERNS = (
    "complete_below_cut",
    "complete_faint",
    "incomplete_intense",
    "strong_below_floor",
    "strong_in_zero",
    "strong_not_contiguous",
)
"""Findings on which the guideline is silent, or which it calls unusual; see `_patterns`."""

CONSENSUS = "breast_consensus_2026"
"""Rule set whose strata are reported beside the score of breast carcinoma."""
READER_STRATA: Mapping[str, str] = {"0": "0_unspecified", "0_null": "0", "0_ultralow": "0+"}
"""What a reader's score is among the strata, where it is another word; a 0 that was not split stays so."""
NULL_FLOORS = ((598, 0.5), (299, 1.0))
"""Cells needed to exclude with 95 % confidence that this percentage is stained: the smallest n with
``(1 - p) ** n <= 0.05``. Fewer than the last cannot separate null from ultralow."""


class CellClass(IntEnum):
    """Class of a cell by completeness and intensity of its membrane; ``2u`` is intense but incomplete."""

    UNEVALUABLE = -1
    C0 = 0
    C1 = 1
    C2 = 2
    C2U = 3
    C3 = 4

    @property
    def label(self) -> str | None:
        return None if self is CellClass.UNEVALUABLE else ("0", "1", "2", "2u", "3")[self]


CLASS_OF_LABEL: Mapping[str, CellClass] = {c.label: c for c in CellClass if c.label is not None}


@dataclass(frozen=True, slots=True)
class ClassCounts:
    """Evaluable tumour cells by class: all that a rule set looks at, and what slides of a case pool by ``+``.

    Attributes
    ----------
    n0, n1, n2, n2u, n3
        Cells a class.
    n1_complete
        Those of ``n1`` whose faint staining is complete.
    cluster_any, cluster_2, cluster_3
        Cells in the largest connected group of class 1 or higher, 2 or higher, and 3. Pooling keeps the
        largest: groups do not reach from slide to slide.
    contiguous_3
        Cells in the largest connected group of class 3 of each slide, summed over slides.
    """

    n0: int = 0
    n1: int = 0
    n2: int = 0
    n2u: int = 0
    n3: int = 0
    n1_complete: int = 0
    cluster_any: int = 0
    cluster_2: int = 0
    cluster_3: int = 0
    contiguous_3: int = 0

    @property
    def n(self) -> int:
        """All evaluable tumour cells: the denominator."""
        return self.n0 + self.n1 + self.n2 + self.n2u + self.n3

    @property
    def at_least_2(self) -> int:
        """Cells of class 2, 2u or 3."""
        return self.n2 + self.n2u + self.n3

    @property
    def stained(self) -> int:
        """Cells of class 1 or higher."""
        return self.n1 + self.at_least_2

    def of(self, classes: frozenset[CellClass]) -> int:
        """Cells of any of these classes."""
        by_class = (self.n0, self.n1, self.n2, self.n2u, self.n3)
        return sum(by_class[c] for c in classes)

    def cluster(self, classes: frozenset[CellClass]) -> int:
        """Largest connected group of cells of these (cumulative) classes."""
        if CellClass.C1 in classes:
            return self.cluster_any
        return self.cluster_2 if CellClass.C2 in classes else self.cluster_3

    def __add__(self, other: ClassCounts) -> ClassCounts:
        return ClassCounts(
            self.n0 + other.n0,
            self.n1 + other.n1,
            self.n2 + other.n2,
            self.n2u + other.n2u,
            self.n3 + other.n3,
            self.n1_complete + other.n1_complete,
            max(self.cluster_any, other.cluster_any),
            max(self.cluster_2, other.cluster_2),
            max(self.cluster_3, other.cluster_3),
            self.contiguous_3 + other.contiguous_3,
        )


@dataclass(frozen=True, slots=True)
class Step:
    """One line of a decision list: this score if enough cells are of these classes.

    Attributes
    ----------
    percent, strict
        Cut-off in whole percent of the denominator; ``strict`` means more than it, else at least it.
        None where a cluster decides.
    min_cells
        Least number of such cells besides.
    cluster
        Least number of such cells in one connected group; None where a percentage decides.
    source
        Where the line comes from; "ours" where it is this project's resolution of a gap.
    """

    score: str
    classes: frozenset[CellClass]
    source: str
    percent: int | None = None
    strict: bool = True
    min_cells: int = 0
    cluster: int | None = None

    def exceeds(self, k: int, n: int) -> bool:
        """Whether ``k`` of ``n`` cells pass the percentage, compared as integers."""
        percent = self.percent or 0
        return 100 * k > percent * n if self.strict else 100 * k >= percent * n

    def holds(self, counts: ClassCounts) -> bool:
        if self.cluster is not None:
            return counts.cluster(self.classes) >= self.cluster
        k = counts.of(self.classes)
        return k > 0 and k >= self.min_cells and self.exceeds(k, counts.n)

    def in_doubt(self, counts: ClassCounts) -> bool:
        """Whether chance could have decided otherwise.

        True if the 95 % interval of the percentage holds the cut-off, or if one cell more or less in the
        largest cluster changes the answer.
        """
        if self.cluster is not None:
            return counts.cluster(self.classes) in (self.cluster - 1, self.cluster)
        k, n = counts.of(self.classes), counts.n
        low, high = wilson(k, n)
        return k >= self.min_cells and 100 * low <= (self.percent or 0) <= 100 * high


@dataclass(frozen=True, slots=True)
class Decision:
    """Result of a rule set for one set of counts.

    Attributes
    ----------
    score
        ``0``, ``1+``, ``2+`` or ``3+``.
    her2_class
        Derived class: ``pos_IHC3``, ``equivocal_2plus``, ``low_1plus``, ``ultralow``, ``null``,
        ``0_unresolved``, or ``negative`` where the rule set has no low.
    patterns
        Unusual findings by name, sorted.
    possible_scores
        The scores that the 95 % intervals leave open, lowest first; more than one means borderline.
    null_excludes_pct
        For class null: stained percentage that its number of cells excludes with 95 % confidence.
    """

    score: str
    her2_class: str
    patterns: tuple[str, ...]
    possible_scores: tuple[str, ...]
    null_excludes_pct: float | None

    @property
    def borderline(self) -> bool:
        return len(self.possible_scores) > 1


@dataclass(frozen=True, slots=True)
class RuleSet:
    """One guideline as data.

    Attributes
    ----------
    tumour, specimens
        What it is for: one of `TUMOURS`, and some of `SPECIMEN_TYPES`.
    cell_classes
        (intensity bin, completeness bin) to a class.
    strata
        Class to the stratum that it is reported as; empty where score and class suffice.
    """

    name: str
    version: int
    title: str
    tumour: str
    specimens: tuple[str, ...]
    citations: tuple[str, ...]
    denominator: str
    cell_classes: tuple[tuple[CellClass, ...], ...]
    steps: tuple[Step, ...]
    her2_classes: Mapping[str, str]
    zero_split: bool
    link_um: float
    contiguous_percent: int
    unusual_patterns: frozenset[str]
    strata: Mapping[str, str] = field(default_factory=dict)

    @property
    def intense_complete(self) -> bool:
        """Whether class 3 is intense and complete staining alone, as in breast."""
        return sum(label is CellClass.C3 for row in self.cell_classes for label in row) == 1

    def decide(self, counts: ClassCounts, false_stain_ppm: int) -> Decision:
        """Score a set of counts; the caller has seen to it that there are cells enough.

        Parameters
        ----------
        counts
            Evaluable tumour cells by class.
        false_stain_ppm
            Faint cells a million that a negative control shows: what surely exceeds that is stain.
        """
        fired = next((step for step in self.steps if step.holds(counts)), None)
        score = fired.score if fired else "0"
        her2_class, floor = self.her2_classes.get(score, "null"), None
        if score == "0" and self.zero_split:
            her2_class, floor = _split_zero(counts, false_stain_ppm)
        patterns = tuple(sorted(_patterns(self, counts, score, fired) & self.unusual_patterns))
        return Decision(score, her2_class, patterns, self._possible(counts), floor)

    def _possible(self, counts: ClassCounts) -> tuple[str, ...]:
        found = set()
        for step in self.steps:
            doubt, holds = step.in_doubt(counts), step.holds(counts)
            if doubt or holds:
                found.add(step.score)
            if holds and not doubt:
                break
        else:
            found.add("0")
        return tuple(s for s in SCORES if s in found)


def _split_zero(counts: ClassCounts, false_stain_ppm: int) -> tuple[str, float | None]:
    """Null, ultralow or unresolved, and for null the stained percentage that is excluded.

    What a negative control shows is faint: a cell of class 2 or higher is never false stain. Ultralow is a
    share whose 95 % interval lies above what the control shows, null one that does not exceed it itself.
    """
    if counts.at_least_2 or 1_000_000 * wilson(counts.stained, counts.n)[0] > false_stain_ppm:
        return "ultralow", None
    if 1_000_000 * counts.stained > false_stain_ppm * counts.n:
        return "0_unresolved", None
    for cells, percent in NULL_FLOORS:
        if counts.n >= cells:
            return "null", percent
    return "0_unresolved", None


def _patterns(rules: RuleSet, counts: ClassCounts, score: str, fired: Step | None) -> set[str]:
    """Names of the unusual findings; ours where the guideline is silent.

    strong_not_contiguous
        3+, and too few of its strong cells hang together for one homogeneous population.
    strong_below_floor
        Strong complete cells reach one arm of the 2+ floor (percentage, number of cells) but not the other.
    strong_in_zero
        0 with cells of class 3, however few.
    incomplete_intense
        2+ that only the moderate to strong but incomplete cells carry.
    complete_faint, complete_below_cut
        1+ that incomplete cells of class 1 alone do not carry, so that complete faint cells, or cells of
        class 2 and higher below their own cut-off, were counted towards it; the latter also for a 0 in
        which they reach the 2+ floor.
    """
    c = counts

    def beyond(step: Step | None, k: int) -> bool:
        return step is not None and step.exceeds(k, c.n)

    floor = next((step for step in rules.steps if step.min_cells), None)
    many = floor.min_cells if floor else 0
    by_2u = score == "2+" and fired is not None and CellClass.C2U in fired.classes
    gap = score == "1+" and not beyond(fired, c.n1 - c.n1_complete)
    crowded = score == "0" and c.at_least_2 >= many and beyond(floor, c.at_least_2)
    one_arm = c.n3 > 0 and (c.n3 >= many) != beyond(floor, c.n3)
    found = {
        "strong_not_contiguous": score == "3+" and 100 * c.contiguous_3 < rules.contiguous_percent * c.n3,
        "strong_below_floor": score in ("0", "1+") and one_arm,
        "strong_in_zero": score == "0" and c.n3 > 0,
        "incomplete_intense": by_2u and not beyond(fired, c.n2 + c.n3),
        "complete_faint": gap and c.n1_complete > 0,
        "complete_below_cut": (gap and c.at_least_2 > 0) or crowded,
    }
    return {name for name, holds in found.items() if holds}


def stratum(rules: RuleSet, her2_class: str) -> str | None:
    """Stratum of the consensus for a class of IHC; None without a score, or for another tumour."""
    strata = load_rules(CONSENSUS)
    return strata.strata.get(her2_class) if rules.tumour == strata.tumour else None


def reader_stratum(rules: RuleSet, reader_score: str | None) -> str | None:
    """Stratum of the consensus for a reader's score; None without one, or for another tumour."""
    if reader_score is None or rules.tumour != load_rules(CONSENSUS).tumour:
        return None
    return READER_STRATA.get(reader_score, reader_score)


@lru_cache
def load_rules(name: str) -> RuleSet:
    """Rule set by name.

    Raises
    ------
    ConfigError
        If there is none of that name, or its file does not hold what a rule set needs.
    """
    return parse_rules(rule_text("ihc", name), name)


def rules_for(tumour: str, specimen: str | None = None) -> tuple[str, ...]:
    """Names of the rule sets for a tumour and a type of specimen."""
    sets = [load_rules(name) for name in rule_files("ihc")]
    return tuple(r.name for r in sets if r.tumour == tumour and specimen in (None, *r.specimens))


def parse_rules(text: str, name: str) -> RuleSet:
    """Rule set from YAML text; `name` is what the text must call itself.

    Raises
    ------
    ConfigError
        Naming the entry that is missing, unknown or impossible.
    """
    try:
        data = _with_base(yaml.safe_load(text))
        table = data.pop("cell_classes")
        if tuple(table) != INTENSITIES or any(len(row) != len(COMPLETENESS) for row in table.values()):
            raise ValueError(f"cell_classes: expected rows {INTENSITIES} of {len(COMPLETENESS)} columns")
        rules = RuleSet(
            cell_classes=tuple(tuple(CLASS_OF_LABEL[label] for label in row) for row in table.values()),
            steps=tuple(_step(line) for line in data.pop("steps")),
            citations=tuple(data.pop("citations")),
            specimens=tuple(data.pop("specimens")),
            unusual_patterns=frozenset(data.pop("unusual_patterns")),
            **data,
        )
        _check(rules, name)
    except UNREADABLE as error:
        raise ConfigError(f"rule set {name}: {error!r}; compare her2core/guidelines/ihc/*.yaml") from error
    return rules


def _with_base(data: dict[str, Any]) -> dict[str, Any]:
    """A rule set's entries, and those of the one that it is based on."""
    base = data.pop("based_on", None)
    if base is None:
        return data
    below: dict[str, Any] = yaml.safe_load(rule_text("ihc", base))
    return below | data | {"citations": [*data["citations"], *below["citations"]]}


def _step(line: dict[str, Any]) -> Step:
    return Step(classes=frozenset(CLASS_OF_LABEL[label] for label in line.pop("classes")), **line)


def _check(rules: RuleSet, name: str) -> None:
    if rules.name != name:
        raise ValueError(f"calls itself {rules.name!r}, expected {name!r}")
    if rules.tumour not in TUMOURS or not rules.specimens or set(rules.specimens) - set(SPECIMEN_TYPES):
        found = f"tumour {rules.tumour!r}, specimens {rules.specimens}"
        raise ValueError(f"{found}: expected one of {TUMOURS}, and some of {SPECIMEN_TYPES}")
    if not rules.citations or not all(step.source for step in rules.steps):
        raise ValueError("every rule set needs citations and every step its source")
    if unknown := rules.unusual_patterns - set(PATTERNS):
        raise ValueError(f"unusual_patterns: {sorted(unknown)} unknown, expected some of {PATTERNS}")
    ranks = [SCORES.index(step.score) for step in rules.steps]
    if ranks != sorted(ranks, reverse=True):
        raise ValueError(f"steps: scores must descend, found {[s.score for s in rules.steps]}")
    for step in rules.steps:
        if (step.percent is None) == (step.cluster is None):
            raise ValueError(f"step {step.score}: expected either percent or cluster")
        if any(type(v) is not int for v in (step.percent, step.cluster, step.min_cells) if v is not None):
            raise ValueError(f"step {step.score}: percent, cluster and min_cells are whole numbers")
        if step.classes not in (_upwards(CellClass.C1), _upwards(CellClass.C2), _upwards(CellClass.C3)):
            raise ValueError(f"step {step.score}: classes must be cumulative, e.g. 2, 2u, 3")
    if missing := set(SCORES) - set(rules.her2_classes) - ({"0"} if rules.zero_split else set()):
        raise ValueError(f"her2_classes: no class for {sorted(missing)}")


def _upwards(lowest: CellClass) -> frozenset[CellClass]:
    return frozenset(c for c in CellClass if c >= lowest)
