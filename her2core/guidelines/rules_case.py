"""IHC and ISH of one specimen to its HER2 status, as cited data.

A rule set is one YAML file in ``her2core/guidelines/case``: a table of every IHC score against every ISH
result. Applying it is one look-up.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import yaml

from her2core.errors import ConfigError
from her2core.guidelines.rule_files import UNREADABLE, rule_files
from her2core.guidelines.rules_ihc import SCORES, RuleSet
from her2core.guidelines.rules_ish import ISHResult, ISHRules

STATUSES = ("Positive", "Equivocal", "Negative", "Indeterminate")
HER2_CLASSES = (
    "pos_IHC3",
    "pos_IHC2_ISHpos",
    "pos_ISH_only",
    "equivocal",
    "low_2plus",
    "low_1plus",
    "ultralow",
    "0_unresolved",
    "null",
    "negative",
    "indeterminate",
)
"""Classes of a specimen, highest first; ``negative`` where the rule set has no low."""
FLAGS = (
    *("discordant_ihc3_ish_negative", "discordant_ihc_low_ish_positive"),
    *("ish_without_ihc", "ish_open", "review"),
)
"""What a table adds to a status: the two discordances, ISH that stands alone, ISH without a result beside
an IHC that decides, and whether a person should look."""
_ROWS = (*SCORES, "none")
_COLUMNS = ("positive", "negative", "pending", "none")


@dataclass(frozen=True, slots=True)
class CaseDecision:
    """One cell of the table: status, class (None: no class is defined) and flags."""

    status: str
    her2_class: str | None
    flags: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class CaseRules:
    """One table as data.

    Attributes
    ----------
    ihc_rules
        IHC rule sets whose specimens it classifies.
    has_low
        Whether HER2-low is defined for this site.
    table
        IHC score or ``none`` -> ISH ``positive``, ``negative``, ``pending`` or ``none`` -> cell; the class
        ``ihc`` stands for the class of IHC alone.
    """

    name: str
    version: int
    title: str
    citations: tuple[str, ...]
    ihc_rules: tuple[str, ...]
    has_low: bool
    table: Mapping[str, Mapping[str, CaseDecision]]

    def decide(self, ihc_score: str | None, ihc_class: str, ish: ISHResult | None) -> CaseDecision:
        """Status of a specimen.

        Parameters
        ----------
        ihc_score
            ``0``, ``1+``, ``2+``, ``3+``; None if there is none.
        ihc_class
            Class that IHC alone gives, `rules_ihc.Decision`.
        ish
            ISH result beside this score; None if there is none.
        """
        cell = self.table[ihc_score or "none"][_column(ish)]
        return CaseDecision(cell.status, ihc_class, cell.flags) if cell.her2_class == "ihc" else cell


def _column(ish: ISHResult | None) -> str:
    if ish is None:
        return "none"
    return {ISHResult.POSITIVE: "positive", ISHResult.NEGATIVE: "negative"}.get(ish, "pending")


@lru_cache
def case_rules_for(ihc_rules: str) -> CaseRules:
    """The table for specimens scored by an IHC rule set.

    Raises
    ------
    ConfigError
        If no table, or more than one, names that rule set.
    """
    tables = [parse_case_rules(text, name) for name, text in rule_files("case").items()]
    found = [table for table in tables if ihc_rules in table.ihc_rules]
    if len(found) != 1:
        names = [table.name for table in found]
        raise ConfigError(f"rules {ihc_rules!r}: {names} in her2core/guidelines/case apply; expected one")
    return found[0]


def require_one_tumour(ihc: RuleSet, ish: ISHRules) -> None:
    """See that rules of IHC and of ISH are for the same tumour.

    Raises
    ------
    ConfigError
        If they are not.
    """
    if ihc.tumour != ish.tumour:
        raise ConfigError(
            f"ish_score.rules: {ish.name} is for {ish.tumour}, {ihc.name} for {ihc.tumour}; leave it out, "
            "and ISH is scored by the rules of the tumour that ihc_score.rules is for"
        )


def parse_case_rules(text: str, name: str) -> CaseRules:
    """Table from YAML text; `name` is what the text must call itself.

    Raises
    ------
    ConfigError
        Naming the entry that is missing, unknown or impossible.
    """
    try:
        data: dict[str, Any] = yaml.safe_load(text)
        rules = CaseRules(
            citations=tuple(data.pop("citations")),
            ihc_rules=tuple(data.pop("ihc_rules")),
            table={
                ihc: {ish: _cell(cell) for ish, cell in row.items()} for ihc, row in data.pop("table").items()
            },
            **data,
        )
        _check(rules, name)
    except UNREADABLE as error:
        raise ConfigError(f"case rules {name}: {error!r}; compare her2core/guidelines/case/*.yaml") from error
    return rules


def _cell(words: list[str]) -> CaseDecision:
    status, her2_class, *flags = words
    if status not in STATUSES or her2_class not in (*HER2_CLASSES, "ihc", "none") or set(flags) - set(FLAGS):
        raise ValueError(
            f"{words}: expected [status, class, flags ...] of {STATUSES}, {HER2_CLASSES}, {FLAGS}"
        )
    return CaseDecision(status, None if her2_class == "none" else her2_class, tuple(flags))


def _check(rules: CaseRules, name: str) -> None:
    if rules.name != name:
        raise ValueError(f"calls itself {rules.name!r}, expected {name!r}")
    if not rules.citations or not rules.ihc_rules:
        raise ValueError("every table needs citations and the IHC rule sets it is for")
    if set(rules.table) != set(_ROWS) or any(set(row) != set(_COLUMNS) for row in rules.table.values()):
        raise ValueError(f"table: expected rows {_ROWS} of columns {_COLUMNS}")
