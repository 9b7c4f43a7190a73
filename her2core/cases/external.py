"""ISH results that the manifest brings from elsewhere: read by the same rules, and trusted with care.

A laboratory's ratio and copies become a group; copies of both probes give the ratio, a ratio with CEP17 the
copies; HER2 copies alone are a single probe's. A ratio alone leaves several groups open, and counts if all of
them mean the same beside the IHC; a word alone is the result. Numbers are taken as written; what is computed
from them is as uncertain as their rounding. Statements of one source that contradict each other decide
nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction

from her2core.guidelines.rules_ish import ISHDecision, ISHResult, ISHRules
from her2core.records import SlideRow

UNNAMED = "unnamed"
"""Source of a result that comes without one."""
_NUMBERS = ("ish_ratio", "ish_her2", "ish_cep17")
_WORDS = ("ish_status", "ish_group", "ish_recount_group")
_FINAL = {"positive": ISHResult.POSITIVE, "negative": ISHResult.NEGATIVE}
_RATIO_CUT = 2
"""A ratio alone from here on reads positive (ASCO/CAP 2018, ratio of groups 1 and 2; ToGA)."""

Range = tuple[Fraction | float, Fraction | float]
_UNKNOWN: Range = (0.0, math.inf)


@dataclass(frozen=True, slots=True)
class ExternalISH:
    """Result of one source for a specimen.

    Attributes
    ----------
    source
        Who reported it: ``ish_source`` of the manifest.
    slides
        Slides whose rows carry it.
    ratio, her2, cep17, status, group, recount_group
        As given; her2 and cep17 are means a nucleus.
    groups
        ISH groups that it leaves open; empty without numbers and group.
    decision
        Result beside the specimen's IHC; None if it is left open or statements contradict.
    conflicts
        These statements, in words.
    rounded
        Whether another result is possible, because a ratio or copies had to be computed from rounded numbers.
    """

    source: str
    slides: tuple[str, ...]
    ratio: Decimal | None
    her2: Decimal | None
    cep17: Decimal | None
    status: str | None
    group: str | None
    recount_group: str | None
    groups: tuple[str, ...]
    decision: ISHDecision | None
    conflicts: tuple[str, ...]
    rounded: bool = False

    @property
    def final(self) -> bool:
        """Whether it is Positive or Negative."""
        return self.decision is not None and not self.decision.pending

    @property
    def recount_alone(self) -> bool:
        """Whether it states no more than the group of a recount."""
        return self.recount_group is not None and not self.groups and self.status is None

    def __str__(self) -> str:
        given = (
            ("", self.status),
            ("group ", self.group),
            ("recount in group ", self.recount_group),
            ("ratio ", self.ratio),
            ("HER2 ", self.her2),
            ("CEP17 ", self.cep17),
        )
        stated = ", ".join(f"{what}{value}" for what, value in given if value is not None)
        return f"{self.source}: {self.decision.result if self.decision else 'undecided'} ({stated})"


def external_ish(
    slides: Iterable[SlideRow], ihc_score: str | None, rules: ISHRules
) -> tuple[ExternalISH, ...]:
    """External results of one specimen, one a source, by their names.

    Parameters
    ----------
    slides
        All manifest rows of the specimen, whatever their assay; any of them may carry a result.
    ihc_score
        IHC score of the specimen; None if there is none.
    """
    by_source: dict[str, list[SlideRow]] = {}
    for row in slides:
        if any(getattr(row, name) is not None for name in (*_NUMBERS, *_WORDS)):
            by_source.setdefault(row.ish_source or UNNAMED, []).append(row)
    return tuple(_read(source, by_source[source], ihc_score, rules) for source in sorted(by_source))


@dataclass(frozen=True, slots=True)
class _Numbers:
    """Ratio, HER2 and CEP17 copies of one source; None where it does not give them."""

    ratio: Decimal | None
    her2: Decimal | None
    cep17: Decimal | None

    def groups(self, rules: ISHRules, *, computed: bool = False, written: bool = False) -> tuple[str, ...]:
        """Groups left open, by the numbers as they stand.

        Parameters
        ----------
        computed, written
            Whether computed numbers, and those as written, may be anything that rounding allows.
        """
        ratio, her2 = (_range(x, rounded=written) for x in (self.ratio, self.her2))
        loose_ratio, loose_her2, loose_cep17 = (
            _range(x, rounded=computed or written) for x in (self.ratio, self.her2, self.cep17)
        )
        if ratio is None and her2 is None:
            return ()
        if ratio is None and loose_her2 and loose_cep17:
            ratio = _quotient(loose_her2, loose_cep17)
        if her2 is None and loose_ratio and loose_cep17:
            her2 = loose_ratio[0] * loose_cep17[0], loose_ratio[1] * loose_cep17[1]
        if her2 is None and rules.ratio_alone:
            her2 = (0, 0)
        return rules.possible(ratio, her2 or _UNKNOWN)

    @property
    def mismatch(self) -> str:
        """How the ratio is not that of the copies, also when all three are rounded; empty if it is."""
        ratio, her2, cep17 = (_range(x, rounded=True) for x in (self.ratio, self.her2, self.cep17))
        if ratio is None or her2 is None or cep17 is None:
            return ""
        low, high = _quotient(her2, cep17)
        apart = ratio[0] > high or ratio[1] < low
        return f"ratio {self.ratio}, but HER2 {self.her2} / CEP17 {self.cep17}" if apart else ""


def _exact(number: Decimal) -> Decimal:
    """The number as it was written: 0.1 and not the binary fraction nearest to it."""
    return Decimal(str(number))


def _half(number: Decimal) -> Fraction:
    """Half a unit of the last decimal that was written."""
    exponent = _exact(number).as_tuple().exponent
    decimals = -exponent if isinstance(exponent, int) and exponent < 0 else 0
    return Fraction(1, 2 * 10**decimals)


def _range(number: Decimal | None, *, rounded: bool) -> Range | None:
    if number is None:
        return None
    value, half = Fraction(_exact(number)), _half(number) if rounded else Fraction(0)
    return max(value - half, Fraction(0)), value + half


def _quotient(a: Range, b: Range) -> Range:
    return a[0] / b[1], (a[1] / b[0] if b[0] else math.inf)


def _read(source: str, rows: Sequence[SlideRow], ihc_score: str | None, rules: ISHRules) -> ExternalISH:
    rows = sorted(rows, key=lambda row: row.slide_id)
    conflicts: list[str] = []
    numbers = _Numbers(*(_number(rows, name, conflicts) for name in _NUMBERS))
    status, group, recount = (_word(rows, name, conflicts) for name in _WORDS)
    groups = (group,) if group in rules.groups else numbers.groups(rules)
    conflicts += _odd_groups(numbers, group, recount, rules)
    mismatch = numbers.mismatch
    if mismatch and numbers.groups(rules) != _Numbers(None, numbers.her2, numbers.cep17).groups(rules):
        conflicts.append(mismatch)
    decision = None
    if not conflicts:
        decision, contradiction = _decide(groups, numbers.ratio, status, ihc_score, recount, rules)
        conflicts += [contradiction] if contradiction else []
    undecided, rounded = bool(conflicts), False
    if mismatch and not undecided:
        conflicts.append(mismatch)
    stated = _FINAL.get((status or "").casefold())
    if (
        stated is ISHResult.POSITIVE and decision and decision.result is ISHResult.NEGATIVE
    ):  # of an older guideline
        conflicts.append(
            f"{status}, but group {' or '.join(groups)} is {decision.result} beside IHC {ihc_score}"
        )
    if decision is not None and group is None:
        also = {_resolved(g, ihc_score, recount, rules).result for g in numbers.groups(rules, computed=True)}
        rounded = len(also) > 1 and stated is None
    return ExternalISH(
        source=source,
        slides=tuple(row.slide_id for row in rows),
        ratio=numbers.ratio,
        her2=numbers.her2,
        cep17=numbers.cep17,
        status=status,
        group=group,
        recount_group=recount,
        groups=groups,
        decision=None if undecided else decision,
        conflicts=tuple(f"external ISH of {source}: {sentence}" for sentence in conflicts),
        rounded=rounded,
    )


def _number(rows: Sequence[SlideRow], name: str, conflicts: list[str]) -> Decimal | None:
    """The one value that the rows state, with the most decimals if they round it differently."""
    stated: set[Decimal] = {_exact(value) for row in rows if (value := getattr(row, name)) is not None}
    if not stated:
        return None
    ranges = [_range(value, rounded=True) for value in stated]
    if max(r[0] for r in ranges if r) > min(r[1] for r in ranges if r):
        conflicts.append(f"{name} is {' and '.join(str(value) for value in sorted(stated))}")
        return None
    return min(stated, key=lambda value: (_half(value), value))


def _word(rows: Sequence[SlideRow], name: str, conflicts: list[str]) -> str | None:
    """The one word that the rows state."""
    stated = sorted({value for row in rows if (value := getattr(row, name)) is not None})
    if len(stated) > 1:
        conflicts.append(f"{name} is {' and '.join(stated)}")
    return stated[0] if len(stated) == 1 else None


def _odd_groups(numbers: _Numbers, group: str | None, recount: str | None, rules: ISHRules) -> list[str]:
    """Groups that the rules do not have, that the numbers rule out, or of another kind of probe."""
    found = [
        f"group {name} is none of {rules.name}"
        for name in (group, recount)
        if name not in (None, *rules.groups)
    ]
    if found or group is None:
        return found
    if (possible := numbers.groups(rules, written=True)) and group not in possible:
        found.append(f"group {group}, but its numbers are those of group {' or '.join(possible)}")
    return found


def _decide(
    groups: Sequence[str],
    ratio: Decimal | None,
    status: str | None,
    ihc_score: str | None,
    recount: str | None,
    rules: ISHRules,
) -> tuple[ISHDecision | None, str]:
    """Result of groups and word together, and how they contradict each other (empty if they do not)."""
    word = (status or "").casefold()
    stated = _FINAL.get(word)
    decisions = [_resolved(group, ihc_score, recount, rules) for group in groups]
    if stated and len(groups) > 1 and ratio and (stated is ISHResult.POSITIVE) != (ratio >= _RATIO_CUT):
        return None, f"{status}, but ratio {ratio}"
    if len({d.result for d in decisions}) != 1:  # no number, or numbers that leave the result open
        return (ISHDecision(stated) if stated else None), ""
    alone = {rules.resolve(group).result for group in groups}  # groups 2 to 4 are undecided without IHC
    if word and len(alone) == 1 and alone <= set(_FINAL.values()) - {stated}:
        return None, f"{status}, but group {groups[0]}"
    return decisions[0] if len(groups) == 1 else ISHDecision(decisions[0].result), ""


def _resolved(group: str, ihc_score: str | None, recount: str | None, rules: ISHRules) -> ISHDecision:
    """Result of a group; a recount with another kind of probe is none."""
    return rules.resolve(group, ihc_score, recount if recount and rules.same_kind(group, recount) else None)
