"""ISH results that the manifest brings from elsewhere: read by the same rules, and trusted with care.

A laboratory's ratio and copies become a group, copies alone a single probe's; a ratio alone leaves several
groups open, and counts if all of them mean the same beside the IHC; a word alone is the result. Statements of
one source that contradict each other decide nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from her2core.guidelines.rules_ish import IshDecision, IshResult, IshRules
from her2core.records import SlideRow

UNNAMED = "unnamed"
"""Source of a result that comes without one."""
_FIELDS = ("ish_ratio", "ish_her2", "ish_cep17", "ish_status")
_UNKNOWN = (0.0, math.inf)
_RATIO_CUT = 2.0
"""A ratio alone from here on reads positive (ASCO/CAP 2018, ratio of groups 1 and 2)."""


@dataclass(frozen=True, slots=True)
class ExternalIsh:
    """What one source says of a specimen.

    Attributes
    ----------
    source
        Who says so: ``ish_source`` of the manifest.
    slides
        Slides whose rows carry it.
    ratio, her2, cep17, status
        As given; her2 and cep17 are means a nucleus.
    groups
        ISH groups that the numbers leave open; empty without numbers.
    decision
        Result beside the specimen's IHC; None if the numbers leave it open or statements contradict.
    conflicts
        These statements, in words.
    """

    source: str
    slides: tuple[str, ...]
    ratio: float | None
    her2: float | None
    cep17: float | None
    status: str | None
    groups: tuple[str, ...]
    decision: IshDecision | None
    conflicts: tuple[str, ...]

    @property
    def final(self) -> bool:
        """Whether it says Positive or Negative."""
        return self.decision is not None and not self.decision.pending

    def __str__(self) -> str:
        given = (("", self.status), ("ratio ", self.ratio), ("HER2 ", self.her2), ("CEP17 ", self.cep17))
        said = ", ".join(f"{what}{value}" for what, value in given if value is not None)
        return f"{self.source}: {self.decision.result if self.decision else 'undecided'} ({said})"


def external_ish(
    slides: Iterable[SlideRow], ihc_score: str | None, rules: IshRules
) -> tuple[ExternalIsh, ...]:
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
        if any(getattr(row, name) is not None for name in _FIELDS):
            by_source.setdefault(row.ish_source or UNNAMED, []).append(row)
    return tuple(_read(source, by_source[source], ihc_score, rules) for source in sorted(by_source))


def _read(source: str, rows: Sequence[SlideRow], ihc_score: str | None, rules: IshRules) -> ExternalIsh:
    rows = sorted(rows, key=lambda row: row.slide_id)
    conflicts: list[str] = []
    values = {}
    for name in _FIELDS:
        said = sorted({value for row in rows if (value := getattr(row, name)) is not None}, key=str)
        values[name] = said[0] if len(said) == 1 else None
        if len(said) > 1:
            conflicts.append(f"external ISH of {source}: {name} is {' and '.join(str(v) for v in said)}")
    ratio, her2, cep17 = values["ish_ratio"], values["ish_her2"], values["ish_cep17"]
    groups = _groups(ratio, her2, cep17, rules)
    by_copies = _groups(None, her2, cep17, rules) if cep17 else groups
    if ratio is not None and her2 is not None and by_copies != groups:
        conflicts.append(f"external ISH of {source}: ratio {ratio:g}, but HER2 {her2:g} / CEP17 {cep17:g}")
    decision, contradiction = _decide(groups, ratio, values["ish_status"], ihc_score, rules)
    if contradiction:
        conflicts.append(f"external ISH of {source}: {contradiction}")
    return ExternalIsh(
        source=source,
        slides=tuple(row.slide_id for row in rows),
        ratio=ratio,
        her2=her2,
        cep17=cep17,
        status=values["ish_status"],
        groups=groups,
        decision=None if conflicts else decision,
        conflicts=tuple(conflicts),
    )


def _groups(ratio: float | None, her2: float | None, cep17: float | None, rules: IshRules) -> tuple[str, ...]:
    """Groups that a laboratory's numbers leave open, on its unrounded values."""
    copies = _UNKNOWN if her2 is None else (her2, her2)
    if ratio is None and her2 is not None and cep17:
        ratio = her2 / cep17
    if ratio is not None:
        return rules.possible((ratio, ratio), copies)
    return () if her2 is None else rules.possible(None, copies)


def _decide(
    groups: Sequence[str], ratio: float | None, status: str | None, ihc_score: str | None, rules: IshRules
) -> tuple[IshDecision | None, str]:
    """Result of numbers and word together, and how they contradict each other (empty if they do not)."""
    by_word = {"positive": IshResult.POSITIVE, "negative": IshResult.NEGATIVE}.get((status or "").casefold())
    decisions = [rules.resolve(group, ihc_score) for group in groups]
    if by_word and len(groups) > 1 and ratio and (by_word is IshResult.POSITIVE) != (ratio >= _RATIO_CUT):
        return None, f"{status}, but ratio {ratio:g}"
    if len({d.result for d in decisions}) != 1:  # no number, or a ratio that leaves the result open
        return (IshDecision(by_word) if by_word else None), ""
    alone = {rules.resolve(group).result for group in groups}  # groups 2 to 4 say nothing without IHC
    if by_word and len(alone) == 1 and alone <= {IshResult.POSITIVE, IshResult.NEGATIVE} - {by_word}:
        return None, f"{status}, but group {groups[0]}"
    return decisions[0] if len(groups) == 1 else IshDecision(decisions[0].result), ""
