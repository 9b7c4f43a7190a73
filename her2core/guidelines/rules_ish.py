"""In-situ hybridisation rules as cited data: ISH group from integer sums, result from group and IHC.

A rule set is one YAML file in ``her2core/guidelines/ish``. Ratio and mean copies are compared as integers on
the sums themselves (``her2 >= 2 * cep17``, ``her2 >= 4 * nuclei``); nothing is rounded before it is compared.
What guideline and data leave open stays open: a group that waits for IHC, for an independent recount, for a
dual probe or for a person is reported as such, and is never resolved silently.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from fractions import Fraction
from functools import lru_cache
from typing import Any

import yaml

from her2core.errors import ConfigError
from her2core.guidelines.rule_files import UNREADABLE, rule_files, rule_text
from her2core.guidelines.rules_ihc import SCORES, TUMOURS

SINGLE_GROUPS = ("single_negative", "single_equivocal", "single_positive")
"""Outcomes of a single probe."""
_COLUMNS = (None, "0", "1+", "3+", "2+", "2+ same", "2+ other")
"""Columns of the resolution table."""
Range = tuple[Fraction | float, Fraction | float]
"""Lowest and highest value."""
_TO_COMPARE = (1, 2, 3, 4, 5, 6, 7, 8)
"""Values at which `_check` looks for gaps and overlaps; whole cut-offs from 2 to 7 lie among them."""


class ISHResult(StrEnum):
    """Result of ISH together with IHC; everything but the first two is open."""

    POSITIVE = "Positive"
    NEGATIVE = "Negative"
    PENDING_IHC = "PENDING_IHC"
    PENDING_RECOUNT = "PENDING_RECOUNT"
    PENDING_DUAL_PROBE = "PENDING_DUAL_PROBE"
    ADJUDICATE = "ADJUDICATE"


@dataclass(frozen=True, slots=True)
class ISHDecision:
    """Result of a group beside IHC, and the comment that belongs to it in a report (empty if none)."""

    result: ISHResult
    comment: str = ""

    @property
    def pending(self) -> bool:
        """Whether the result is still open."""
        return self.result not in (ISHResult.POSITIVE, ISHResult.NEGATIVE)


@dataclass(frozen=True, slots=True)
class GroupRule:
    """One group as a rectangle of ratio and mean HER2 copies; None where there is no bound."""

    group: str
    source: str
    ratio_at_least: int | None = None
    ratio_below: int | None = None
    copies_at_least: int | None = None
    copies_below: int | None = None

    def holds(self, n: int, her2: int, cep17: int) -> bool:
        """Whether these sums over ``n`` nuclei lie in it, compared as integers."""
        return _between(her2, self.ratio_at_least, self.ratio_below, cep17) and _between(
            her2, self.copies_at_least, self.copies_below, n
        )

    def meets(self, ratio: Range | None, copies: Range) -> bool:
        """Whether a ratio and a mean within these closed ranges could lie in it."""
        in_ratio = ratio is None or _overlaps(ratio, self.ratio_at_least, self.ratio_below)
        return in_ratio and _overlaps(copies, self.copies_at_least, self.copies_below)


@dataclass(frozen=True, slots=True)
class HeterogeneityRule:
    """CAP 2009: nuclei beyond a ratio or a number of copies, and their share of all.

    Attributes
    ----------
    ratio_above, copies_above
        ``(numerator, denominator)`` that an amplified nucleus exceeds.
    percent_from, percent_to
        Share of amplified nuclei that is heterogeneous, both ends included, whole percent.
    min_nuclei
        With fewer the question is underpowered.
    """

    ratio_above: tuple[int, int]
    copies_above: tuple[int, int]
    percent_from: int
    percent_to: int
    min_nuclei: int

    def category(self, amplified: int, n: int) -> str:
        """``underpowered``, ``none``, ``heterogeneous`` or ``amplified``."""
        if n < self.min_nuclei:
            return "underpowered"
        if 100 * amplified < self.percent_from * n:
            return "none"
        return "heterogeneous" if 100 * amplified <= self.percent_to * n else "amplified"


@dataclass(frozen=True, slots=True)
class ISHRules:
    """One ISH guideline as data.

    Attributes
    ----------
    tumour
        What it is for, one of `TUMOURS`.
    ratio_alone
        Whether a reported ratio without copies gives a group: that of the fewest copies.
    """

    name: str
    version: int
    title: str
    tumour: str
    citations: tuple[str, ...]
    denominator: str
    dual_probe: tuple[GroupRule, ...]
    single_probe: tuple[GroupRule, ...]
    resolution: Mapping[str, tuple[ISHResult, ...]]
    comments: Mapping[str, Mapping[str, str]]
    heterogeneity: HeterogeneityRule
    ratio_alone: bool = False

    @property
    def dual_groups(self) -> tuple[str, ...]:
        """Groups of a dual probe."""
        return tuple(line.group for line in self.dual_probe)

    @property
    def groups(self) -> tuple[str, ...]:
        """All groups, of a dual probe and of a single one."""
        return (*self.dual_groups, *SINGLE_GROUPS)

    def same_kind(self, group: str, other: str) -> bool:
        """Whether two groups are of the same kind of probe."""
        return (group in SINGLE_GROUPS) == (other in SINGLE_GROUPS)

    def group(self, n: int, her2: int, cep17: int | None) -> str:
        """ISH group of signal sums.

        Parameters
        ----------
        n
            Evaluable nuclei.
        her2, cep17
            Signals summed over them; ``cep17`` is None for a single probe.

        Raises
        ------
        ValueError
            Without nuclei, or without any signal of the reference probe.
        """
        if n < 1 or her2 < 0 or (cep17 is not None and cep17 < 1):
            raise ValueError(f"n {n}, her2 {her2}, cep17 {cep17}: expected nuclei and signals to judge")
        rules = self.single_probe if cep17 is None else self.dual_probe
        return next(rule.group for rule in rules if rule.holds(n, her2, 1 if cep17 is None else cep17))

    def possible(self, ratio: Range | None, copies: Range) -> tuple[str, ...]:
        """Groups that closed ranges of ratio and mean HER2 copies leave open, in the order of the guideline.

        Parameters
        ----------
        ratio
            Lowest and highest ratio, or None for a single probe. A number that is known is a range of no
            width, one that is not is ``(0, inf)``: so this also reads what a laboratory reported.
        copies
            Lowest and highest mean number of HER2 signals.
        """
        rules = self.single_probe if ratio is None else self.dual_probe
        return tuple(rule.group for rule in rules if rule.meets(ratio, copies))

    def crossed(self, ratio: tuple[float, float] | None, copies: tuple[float, float]) -> tuple[str, ...]:
        """Cut-offs with values on either side of them in these ranges: ``ratio 2``, ``copies 4``, ..."""
        rules = self.single_probe if ratio is None else self.dual_probe
        ratio_cuts = {r.ratio_at_least for r in rules} | {r.ratio_below for r in rules}
        copies_cuts = {r.copies_at_least for r in rules} | {r.copies_below for r in rules}
        found = [("ratio", c) for c in ratio_cuts if c and ratio and ratio[0] < c <= ratio[1]]
        found += [("copies", c) for c in copies_cuts if c and copies[0] < c <= copies[1]]
        return tuple(f"{name} {cut}" for name, cut in sorted(found, key=lambda f: (f[0] != "ratio", f[1])))

    def resolve(
        self,
        group: str,
        ihc_score: str | None = None,
        recount_group: str | None = None,
        *,
        dual_group: str | None = None,
    ) -> ISHDecision:
        """Result of a group beside the IHC score of the same tissue.

        Parameters
        ----------
        group
            One of `groups`.
        ihc_score
            ``0``, ``1+``, ``2+`` or ``3+``; None if there is none or it is indeterminate.
        recount_group
            Group of an independent count of at least 20 nuclei, with the same kind of probe (that of
            ``dual_group`` if there is one); None if none was made. Looked at only where IHC is 2+ and the
            guideline requires it.
        dual_group
            For an equivocal single probe: group of a dual probe on the same tissue. Group 1 is Positive and
            group 5 Negative, unless IHC (0 or 1+, 3+) is the opposite: then a person must decide. Groups 2
            to 4 are worked up as such.

        Raises
        ------
        ValueError
            If a group or score is not one of those.
        """
        dual = group in self.dual_groups or dual_group is not None
        kind = self.dual_groups if dual else SINGLE_GROUPS
        for what, value, known in (
            ("group", group, self.groups),
            ("ihc_score", ihc_score, (None, *SCORES)),
            ("recount_group", recount_group, (None, *kind)),
            ("dual_group", dual_group, (None, *self.dual_groups)),
        ):
            if value not in known:
                raise ValueError(f"{what} {value!r}: expected one of {known}")
        if group == "single_equivocal" and dual_group is not None:
            by_ihc = self.resolve(group, ihc_score).result
            by_dual = self.resolve(dual_group, ihc_score, recount_group)
            if by_dual.pending or by_ihc in (by_dual.result, ISHResult.PENDING_IHC):
                return by_dual
            final = by_ihc in (ISHResult.POSITIVE, ISHResult.NEGATIVE)
            return ISHDecision(ISHResult.ADJUDICATE) if final else by_dual
        column = ihc_score
        if ihc_score == "2+" and recount_group is not None:
            column = "2+ same" if recount_group == group else "2+ other"
        result = self.resolution[group][_COLUMNS.index(column)]
        return ISHDecision(result, self.comments.get(group, {}).get(result, ""))


def ish_rules_for(tumour: str) -> str:
    """Name of the ISH rule set of a tumour.

    Raises
    ------
    ConfigError
        If there is none, or more than one.
    """
    found = [name for name in rule_files("ish") if load_ish_rules(name).tumour == tumour]
    if len(found) != 1:
        raise ConfigError(f"tumour {tumour!r}: {found} in her2core/guidelines/ish are for it; expected one")
    return found[0]


def _between(total: int, at_least: int | None, below: int | None, unit: int) -> bool:
    """Whether ``total / unit`` lies in ``[at_least, below)``."""
    return (at_least is None or total >= at_least * unit) and (below is None or total < below * unit)


def _overlaps(values: Range, at_least: int | None, below: int | None) -> bool:
    return (at_least is None or values[1] >= at_least) and (below is None or values[0] < below)


@lru_cache
def load_ish_rules(name: str) -> ISHRules:
    """ISH rule set by name.

    Raises
    ------
    ConfigError
        If there is none of that name, or its file does not hold what a rule set needs.
    """
    return parse_ish_rules(rule_text("ish", name), name)


def parse_ish_rules(text: str, name: str) -> ISHRules:
    """ISH rule set from YAML text; `name` is what the text must call itself.

    Raises
    ------
    ConfigError
        Naming the entry that is missing, unknown or impossible.
    """
    try:
        data: dict[str, Any] = yaml.safe_load(text)
        heterogeneity: dict[str, Any] = data.pop("heterogeneity")
        rules = ISHRules(
            citations=tuple(data.pop("citations")),
            dual_probe=tuple(GroupRule(**line) for line in data.pop("dual_probe")),
            single_probe=tuple(GroupRule(**line) for line in data.pop("single_probe")),
            resolution={
                group: tuple(ISHResult(result) for result in row)
                for group, row in data.pop("resolution").items()
            },
            heterogeneity=HeterogeneityRule(
                ratio_above=_fraction(heterogeneity.pop("ratio_above")),
                copies_above=_fraction(heterogeneity.pop("copies_above")),
                **heterogeneity,
            ),
            **data,
        )
        _check(rules, name)
    except UNREADABLE as error:
        raise ConfigError(
            f"ISH rule set {name}: {error!r}; compare her2core/guidelines/ish/*.yaml"
        ) from error
    return rules


def _fraction(pair: list[Any]) -> tuple[int, int]:
    numerator, denominator = pair
    if type(numerator) is not int or type(denominator) is not int or denominator < 1:
        raise ValueError(f"{pair}: expected [numerator, denominator], whole numbers")
    return numerator, denominator


def _check(rules: ISHRules, name: str) -> None:
    if rules.name != name:
        raise ValueError(f"calls itself {rules.name!r}, expected {name!r}")
    lines = rules.dual_probe + rules.single_probe
    if not rules.citations or not all(line.source for line in lines):
        raise ValueError("every rule set needs citations and every group its source")
    if rules.tumour not in TUMOURS:
        raise ValueError(f"tumour {rules.tumour!r}: expected one of {TUMOURS}")
    if tuple(line.group for line in rules.single_probe) != SINGLE_GROUPS:
        raise ValueError(f"single_probe: groups expected are {SINGLE_GROUPS}")
    for table in (rules.dual_probe, rules.single_probe):
        for line in table:
            bounds = (line.ratio_at_least, line.ratio_below, line.copies_at_least, line.copies_below)
            if any(b is not None and (type(b) is not int or b not in _TO_COMPARE[1:-1]) for b in bounds):
                raise ValueError(f"group {line.group}: cut-offs are whole numbers from 2 to 7")
        _check_partition(table)
    if any(line.ratio_at_least or line.ratio_below for line in rules.single_probe):
        raise ValueError("single_probe: a single probe has no ratio")
    if sorted(rules.resolution) != sorted(rules.groups) or any(
        len(r) != len(_COLUMNS) for r in rules.resolution.values()
    ):
        raise ValueError(f"resolution: expected rows {rules.groups} of {len(_COLUMNS)} columns")
    for group, comments in rules.comments.items():
        if unused := set(comments) - set(rules.resolution[group]):
            raise ValueError(f"comments: group {group} is never {sorted(unused)}")
    h = rules.heterogeneity
    if not 0 < h.percent_from < h.percent_to < 100 or h.min_nuclei < 1:
        raise ValueError("heterogeneity: expected 0 < percent_from < percent_to < 100 and nuclei to count")


def _check_partition(table: tuple[GroupRule, ...]) -> None:
    """Exactly one line holds for every ratio and mean on, below and above the cut-offs."""
    unit = math.lcm(*_TO_COMPARE)
    for ratio in _TO_COMPARE:
        for copies in _TO_COMPARE:
            for off in (-1, 0):
                her2 = unit * copies
                hits = [
                    line.group
                    for line in table
                    if _between(unit * ratio + off, line.ratio_at_least, line.ratio_below, unit)
                    and _between(her2 + off, line.copies_at_least, line.copies_below, unit)
                ]
                if len(hits) != 1:
                    raise ValueError(f"ratio {ratio}, copies {copies}: {len(hits)} groups hold, {hits}")
