"""One cell of a clinical HER2 table: a number, a word, bounds, or the reason why it is none of these."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction

ABSENT: Mapping[str, str] = {
    "": "empty",
    "na": "not_available",
    "n/a": "not_available",
    "[not available]": "not_available",
    "[not applicable]": "not_applicable",
    "[not evaluated]": "not_evaluated",
    "[unknown]": "unknown",
    "[discrepancy]": "discrepancy",
    "[pending]": "pending",
    "not performed": "not_performed",
}
"""Texts that stand for no value, in small letters, and their reason codes."""
REASONS = (
    *sorted(set(ABSENT.values())),
    "no_column",  # the table has no such column
    "range",  # <10%, 30-39 %, >6.0: bounds, kept as such
    "text_in_number",  # a word in a number column
    "unknown_text",  # a status or score that is none
    "implausible",  # a number out of its range
    "contradicted",  # a status that a word elsewhere in the row denies
    "total_without_cells",  # a signal total, and no number of nuclei to divide it by
)
"""Why a cell holds no value."""

STATUSES = ("Positive", "Negative", "Equivocal", "Indeterminate")
IHC_SCORES = ("0", "1+", "2+", "3+")
RANGES: Mapping[str, tuple[int | Fraction, int]] = {
    "ihc_percent": (0, 100),
    "ish_ratio": (Fraction(1, 10), 50),
    "ish_her2": (Fraction(1, 2), 100),
    "ish_cep17": (Fraction(1, 2), 10),
    "n_nuclei": (1, 100_000),
}
"""Plausible values, inclusive: percent, ratio, signals a nucleus, nuclei. Ours."""
_NUMBER = r"(\d+(?:[.,]\d+)?)"


@dataclass(frozen=True, slots=True)
class Reading:
    """One cell of the table.

    Attributes
    ----------
    text
        As it was written.
    value
        Exact number, or None; ``low`` and ``high`` are what the text leaves open: half a unit of its last
        decimal, or the bounds of a range (None: open).
    word
        Status or score, or None.
    reason
        Code out of `REASONS` if there is neither number nor word.
    """

    text: str
    value: Fraction | None = None
    low: Fraction | None = None
    high: Fraction | None = None
    word: str | None = None
    reason: str | None = None


def read_cell(column: str, text: str) -> Reading:
    """What one cell says; columns are those of `COLUMNS`."""
    if absent := ABSENT.get(text.casefold()):
        return Reading(text, reason=absent)
    if column not in RANGES:
        known = IHC_SCORES if column == "ihc_score" else STATUSES
        word = next((k for k in known if k.casefold() == text.casefold()), None)
        return Reading(text, word=word, reason=None if word else "unknown_text")
    reading = _number(text.removesuffix("%").strip(), percent=column == "ihc_percent")
    low, high = RANGES[column]
    if column in ("ish_her2", "ish_cep17"):
        high = 1_000_000  # may be a total, which `_totals_to_copies` judges
    if reading.value is not None and not low <= reading.value <= high:
        return Reading(text, reason="implausible")
    if reading.value is not None and column == "n_nuclei" and reading.value.denominator != 1:
        return Reading(text, reason="implausible")
    return Reading(text, reading.value, reading.low, reading.high, None, reading.reason)


def _number(text: str, *, percent: bool) -> Reading:
    """Number, fraction, bound or range; a decimal comma is a point."""
    if m := re.fullmatch(_NUMBER, text):
        value, decimals = _exact(m[1]), len(m[1].replace(",", ".").partition(".")[2])
        half = Fraction(1, 2 * 10**decimals)
        return Reading(text, value, max(value - half, Fraction(0)), value + half)
    if (m := re.fullmatch(rf"{_NUMBER}\s*/\s*{_NUMBER}", text)) and _exact(m[2]):
        value = _exact(m[1]) / _exact(m[2]) * (100 if percent else 1)
        return Reading(text, value, value, value)
    if m := re.fullmatch(rf"([<>])\s*=?\s*{_NUMBER}", text):
        bound = _exact(m[2])
        low, high = (Fraction(0), bound) if m[1] == "<" else (bound, Fraction(100) if percent else None)
        return Reading(text, None, low, high, reason="range")
    if m := re.fullmatch(rf"{_NUMBER}\s*(?:-|–|to)\s*{_NUMBER}", text):
        return Reading(text, None, _exact(m[1]), _exact(m[2]), reason="range")
    return Reading(text, reason="text_in_number")


def _exact(text: str) -> Fraction:
    return Fraction(text.replace(",", "."))
