"""One cell of a clinical HER2 table: a number, a word, bounds, or the reason why it is none of these."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import lru_cache

from her2core.cases.clinical_words import ASSAYS, MAX_TEXT, WordsFound, by_assay, read_words

ABSENT: Mapping[str, str] = {
    "": "empty",
    **dict.fromkeys(("na", "n/a", "n.a.", "#n/a", "nan", "none", "null", "missing"), "not_available"),
    **dict.fromkeys(("not available", "not reported"), "not_available"),
    "not applicable": "not_applicable",
    **dict.fromkeys(("not evaluated", "not assessed"), "not_evaluated"),
    **dict.fromkeys(("unknown", "not known", "?"), "unknown"),
    "discrepancy": "discrepancy",
    "pending": "pending",
    **dict.fromkeys(("not performed", "not done", "not tested", "nd", "n.d."), "not_performed"),
}
"""Texts that stand for no value, in small letters and also in brackets, and their reason codes."""
REASONS = (
    *sorted(set(ABSENT.values())),
    "no_column",  # the table has no such column
    "range",  # <10%, 30-39 %, ≥2.0: bounds, kept as such; an inequality is no number
    "approximate",  # about 2
    "ambiguous",  # two meanings: 1,234 signals; 2-3+
    "text_in_number",  # a word in a number column
    "unknown_text",  # a status or score that is none
    "no_score",  # a status where a score belongs
    "implausible",  # a number out of its range
    "contradicted",  # what a word or a bound elsewhere in the row denies
    "total_without_cells",  # a signal total, and no number of nuclei to divide it by
    "total_or_mean",  # a whole number of signals that can be either
)
"""Why a cell holds no value."""

RANGES: Mapping[str, tuple[int | Fraction, int]] = {
    "ihc_percent": (0, 100),
    "ish_ratio": (Fraction(1, 10), 50),
    "ish_her2": (Fraction(1, 2), 100),
    "ish_cep17": (Fraction(1, 2), 10),
    "n_nuclei": (1, 100_000),
}
"""Plausible values, inclusive: percent, ratio, signals a nucleus, nuclei. Ours."""
MOST_SIGNALS = 1_000_000
"""Most signals that a total may have. Ours."""


@dataclass(frozen=True, slots=True)
class Reading:
    """One cell of the table.

    Attributes
    ----------
    text
        As it was written.
    value
        Exact number, or None; ``low`` and ``high`` are what the text leaves open: half a unit of its last
        decimal, or the bounds of a range (None: open). Also of a number that is no value.
    word
        Status or score, or None. A number may come with a status: ``2.1 (amplified)``.
    reason
        Code out of `REASONS` if there is neither number nor, in its place, a word.
    """

    text: str
    value: Fraction | None = None
    low: Fraction | None = None
    high: Fraction | None = None
    word: str | None = None
    reason: str | None = None

    @property
    def absent(self) -> bool:
        """Whether the cell holds no result at all."""
        return self.reason == "no_column" or absence(self.text) is not None


def absence(text: str) -> str | None:
    """Reason code of a text that stands for no value; None of any other."""
    plain = " ".join(text.casefold().split())
    if plain.startswith("[") and plain.endswith("]"):
        plain = plain[1:-1].strip()
    return ABSENT.get(plain)


@lru_cache(maxsize=8192)
def read_cell(column: str, text: str) -> Reading:
    """Result of one cell; columns are those of `clinical_table.COLUMNS`."""
    if absent := absence(text):
        return Reading(text, reason=absent)
    if len(text) > MAX_TEXT:
        return Reading(text, reason="text_in_number" if column in RANGES else "unknown_text")
    if column in RANGES:
        return _read_number(column, text)
    own = column[:3]
    parts = by_assay(text, own)
    stated = _own_words(own, parts.get(own, ""), bare=column == "ihc_score")
    if not all(
        _own_words(assay, part).understood or _undone(part) for assay, part in parts.items() if assay != own
    ):
        return Reading(text, reason="unknown_text")
    if not stated.understood:
        return Reading(text, reason="unknown_text")
    if len(stated.scores) > 1:
        return Reading(text, reason="ambiguous")
    if len(stated.statuses) > 1 or not stated.agree:
        return Reading(text, reason="contradicted")
    word = stated.score if column == "ihc_score" else stated.status
    if word is None:
        return Reading(
            text, reason="no_score" if column == "ihc_score" and stated.statuses else "unknown_text"
        )
    return Reading(text, word=word)


def _own_words(assay: str, text: str, *, bare: bool = True) -> WordsFound:
    """Result of one assay in a text."""
    return read_words(split_ratio(text)[0] if assay == "ish" else text, scores=assay == "ihc", bare=bare)


def _undone(text: str) -> bool:
    """Whether a text names an assay that was not done, or whose result is not there."""
    return absence(re.sub(rf"{ASSAYS}|[:=]", " ", text, flags=re.I).strip()) is not None


_DASHES = "–—−"
_FOLDED = str.maketrans(
    {"≥": ">=", "⩾": ">=", "≤": "<=", "⩽": "<=", "±": "+/-", **dict.fromkeys(_DASHES, "-")}
)
_HER2, _CEP17 = r"(?:c-?)?(?:her-?2(?:/neu)?|erbb-?2)", r"(?:(?:cep|cent?|chr(?:omosome)?) ?-?17|d17z1)"
_LABELS: Mapping[str, str] = {
    "ish_ratio": rf"{_HER2} ?[/:] ?{_CEP17}|{_HER2}|{_CEP17}|ratio",
    "ish_her2": _HER2,
    "ish_cep17": _CEP17,
    "n_nuclei": r"nuclei|cells|counted|n",
    "ihc_percent": r"her-?2|ihc|stained|positive|cells",
}
"""What may stand beside the number in a column: of another column's name the number is not this one's."""
_PLAIN = (
    r"(?:copies|signals?) ?/ ?(?:nucleus|cell)|gene|fish|ish|mean|average|avg|copy number|copies|signals?|"
    r"per (?:nucleus|cell)|/ ?(?:nucleus|cell)"
)
_NUCLEI = r"nuclei|cells"
_NUMBER = r"(\d+(?:[.,]\d+)?)"
_AT_LEAST = r"(?:>=?|=>|at least|more than|greater than|above|over|min\.?)"
_AT_MOST = r"(?:<=?|=<|at most|less than|fewer than|below|under|up to|max\.?)"
_ABOUT = r"(?:~|≈|ca\.?|circa|c\.|about|around|approx\.?|approximately|roughly)"


def _read_number(column: str, text: str) -> Reading:
    """A number in its range, with the status that may stand beside it."""
    plain = " ".join(unicodedata.normalize("NFC", text).casefold().translate(_FOLDED).split())
    word, plain = _status_beside(plain) if column in ("ish_ratio", "ish_her2") else (None, plain)
    if word and not plain:
        return Reading(text, word=word, reason="text_in_number")
    reading = replace(_number(_without_labels(column, plain), column), text=text, word=word)
    low, high = RANGES[column]
    if column in ("ish_her2", "ish_cep17"):
        high = MOST_SIGNALS  # may be a total, which `clinical` judges
    value = reading.value
    if value is not None and (not low <= value <= high or (column == "n_nuclei" and value.denominator != 1)):
        return Reading(text, None, reading.low, reading.high, reason="implausible")
    return reading


def named_number(column: str, text: str) -> str | None:
    """The digits of a number beside which only its name stands, as in ``HER2/CEP17 2.1``; else None."""
    if len(text) > MAX_TEXT:
        return None
    plain = " ".join(unicodedata.normalize("NFC", text).casefold().translate(_FOLDED).split())
    found = re.fullmatch(_NUMBER, _without_labels(column, plain))
    return found[1] if found else None


def _status_beside(text: str) -> tuple[str | None, str]:
    """The status that stands behind or before a number, and the rest of the text."""
    for pattern in (
        r"(?P<rest>[^(]*?) ?\(?(?P<words>[^\d()]{3,})\)?",
        r"(?P<words>[^\d(<>=~]{3,})(?P<rest>.*)",
    ):
        if found := re.fullmatch(pattern, text):
            stated = read_words(found["words"], scores=False)
            if stated.understood and stated.status:
                return stated.status, found["rest"].strip(" ,;:-()")
    return None, text


def split_ratio(text: str) -> tuple[str, Reading | None]:
    """A text without the ratio that it names, and that ratio, as in ``not amplified (ratio 1.1)``."""
    if len(text) > MAX_TEXT:
        return text, None
    plain = " ".join(text.casefold().translate(_FOLDED).split())
    pair = rf"{_HER2} ?[/:] ?{_CEP17}"
    label = rf"\b(?:{pair}(?: ratio)?|ratio(?: {pair})?)[ :=]*(?:of |is )?"
    found = re.search(rf"{label}((?:[<>]=?|=>|=<|~)? ?\d+(?:[.,]\d+)?)(?!\d|[.,/]\d)", plain)
    if found is None:
        return text, None
    reading = replace(_read_number("ish_ratio", found[1]), text=found[0])
    return (plain[: found.start()] + " " + plain[found.end() :]).strip(" ,;:-()"), reading


def _without_labels(column: str, text: str) -> str:
    """The text without the words that only name the number."""
    text = re.sub(rf"(?<![\w])(?:{_LABELS[column]}|{_PLAIN})(?![\w-])", " ", text)
    if column in ("ish_her2", "ish_cep17"):
        text = re.sub(rf"(?<=\d) ?(?:{_NUCLEI})\b", " ", text)
    text = re.sub(r"^[\s:=,(]+(?=[^=])|(?<=\d)[\s),:;]+$", "", f" {text} ".replace(" of ", " ", 1).strip())
    return " ".join(text.removesuffix("%").replace("%", " ").split())


def _number(text: str, column: str) -> Reading:
    """Number, fraction, bound or range; a decimal comma is a point."""
    percent = column == "ihc_percent"
    if column in ("ish_her2", "ish_cep17") and re.fullmatch(r"\d{1,3},\d{3}", text):
        return Reading(text, reason="ambiguous")  # a decimal comma, or a total in thousands
    if m := re.fullmatch(rf"{_NUMBER}(?: ?\+/- ?{_NUMBER})?(?: ?: ?1)?", text):
        value, decimals = _exact(m[1]), len(m[1].replace(",", ".").partition(".")[2])
        half = Fraction(1, 2 * 10**decimals)
        return Reading(text, value, max(value - half, Fraction(0)), value + half)
    if (m := re.fullmatch(rf"{_NUMBER} ?(?:/|:|in|out of) ?{_NUMBER}", text)) and _exact(m[2]):
        value = _exact(m[1]) / _exact(m[2]) * (100 if percent else 1)
        return Reading(text, value, value, value)
    most = Fraction(100) if percent else None
    if m := re.fullmatch(rf"{_AT_LEAST} ?{_NUMBER}|{_NUMBER} ?(?:\+|or (?:more|above|higher))", text):
        return Reading(text, None, _exact(m[1] or m[2]), most, reason="range")
    if m := re.fullmatch(rf"{_AT_MOST} ?{_NUMBER}|{_NUMBER} ?or (?:less|fewer|below|lower)", text):
        return Reading(text, None, Fraction(0), _exact(m[1] or m[2]), reason="range")
    if m := re.fullmatch(rf"{_NUMBER} ?(?:-|to|and) ?{_NUMBER}", text):
        return Reading(text, None, _exact(m[1]), _exact(m[2]), reason="range")
    if m := re.fullmatch(rf"{_ABOUT} ?{_NUMBER}", text):
        return Reading(text, None, _exact(m[1]), _exact(m[1]), reason="approximate")
    return Reading(text, reason="text_in_number")


def _exact(text: str) -> Fraction:
    return Fraction(text.replace(",", "."))
