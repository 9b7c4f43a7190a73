"""The words of HER2 reports: what status and IHC score a text states, if it states nothing else.

Nothing is picked out of a text that is not understood to the last word: ``2+ (equivocal)`` is a score and its
status, ``not clearly amplified`` is neither, and a dash alone never means negative.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass

READER_SCORES = ("0", "0_null", "0_ultralow", "1+", "2+", "3+")
"""What a reader may have scored: the four tiers, and 0 split where the reader did so."""
READER_WORDS = {
    "0+": "0_ultralow",
    "0_with_staining": "0_ultralow",
    "0_absent": "0_null",
    "0_unspecified": "0",
}
"""Words of the consensus of January 2026 for these. A bare 0 is one not split into null and ultralow."""
MAX_TEXT = 300
"""Longer texts are notes, and are not read, in characters. Ours."""
STATUSES = ("Positive", "Negative", "Equivocal", "Indeterminate")
STATUS_OF = {
    **dict.fromkeys(("0", "0_null", "0_ultralow", "1+"), "Negative"),
    "2+": "Equivocal",
    "3+": "Positive",
}
"""Status that ASCO/CAP gives an IHC score."""

_AMPLIFIED = r"(?:§ )?(?:gene )?(?:amplified|amplification)"
"""§ stands for HER2, whose digit is no score."""
_SEEN = r"detected|seen|present|found|identified"
_PHRASES = (
    ("Negative", rf"(?:not|non|un|no|without|no evidence (?:of|for)|absence of|negative for) ?{_AMPLIFIED}"),
    ("Negative", rf"{_AMPLIFIED} (?:is |was )?(?:not (?:{_SEEN})|absent|negative)"),
    (
        "Indeterminate",
        r"indeterminate|inconclusive|unevaluable|uninterpretable|not (?:evaluable|interpretable)",
    ),
    ("Positive", rf"{_AMPLIFIED}(?: (?:is |was )?(?:{_SEEN}))?"),
    ("Negative", r"negative|neg"),
    ("Equivocal", r"equivocal|borderline"),
    ("Positive", r"positive|pos"),
)
"""What states a status, in this order: a denial before what it denies."""
_SCORES = (
    r"(?<![\d.,+])(0\+|[1-3](?= ?\+)) ?\+?(?!\+)",
    r"(?<![\d+])\+([1-3])(?!\d)",
    r"(?<![\d.,%])([0-3])(?![\d.,%+])",
)
"""IHC scores: 2+, +2, and a bare digit."""
_BOTH = frozenset(
    (
        *("her2", "her2neu", "neu", "erbb2", "score", "scored", "result", "status", "test", "assay", "final"),
        *("overall", "asco", "cap", "invasive", "carcinoma", "by", "for", "of", "in", "the", "is", "was"),
    )
)
_IHC = _BOTH | frozenset(
    (
        *("ihc", "protein", "membrane", "membranous", "staining", "stain", "intensity", "weak", "moderate"),
        *("strong", "intense", "faint", "barely", "perceptible", "complete", "incomplete", "circumferential"),
        *("tumour", "tumor", "cells"),
    )
)
_ISH = _BOTH | frozenset(
    ("fish", "ish", "cish", "sish", "dish", "gene", "dual", "single", "probe", "high", "highly")
)
"""Words that may stand beside a status or score and change neither; those of the other assay may not."""
_NAMES = {"ihc": r"\bihc\b", "ish": r"\b(?:[fcsd]-?)?ish\b"}
"""How the assays are called."""
ASSAYS = "|".join(_NAMES.values())
_STAIN = r"(?:(?:faint|weak|partial|incomplete|membrane|membranous) )*staining"
_ZEROS = (
    ("0_null", rf"null|absent(?: {_STAIN})?|(?:no|without|absence of) {_STAIN}|{_STAIN} (?:is )?absent"),
    ("0_ultralow", rf"ultralow|with {_STAIN}"),
)
"""What distinguishes one 0 from the other: of the consensus, 0/absent and 0+/with membrane staining."""


@dataclass(frozen=True, slots=True)
class WordsFound:
    """What a text states.

    Attributes
    ----------
    scores, statuses
        All that are named.
    understood
        Whether no other word is left over, and anything is named.
    """

    scores: frozenset[str]
    statuses: frozenset[str]
    understood: bool

    @property
    def score(self) -> str | None:
        """The only score."""
        return min(self.scores) if len(self.scores) == 1 else None

    @property
    def status(self) -> str | None:
        """The only status; that of the score where none is named."""
        if not self.statuses and self.score:
            return STATUS_OF[self.score]
        return min(self.statuses) if len(self.statuses) == 1 else None

    @property
    def agree(self) -> bool:
        """Whether score and status go together; Indeterminate goes with any."""
        return not (self.scores and self.statuses) or all(
            status in (STATUS_OF[score], "Indeterminate") for score in self.scores for status in self.statuses
        )


def by_assay(text: str, own: str) -> dict[str, str]:
    """The parts of a text that covers both assays, as in ``IHC 2+, FISH not amplified``.

    Parameters
    ----------
    own
        ``ihc`` or ``ish``: the assay of the first parts, if they name none; later ones are of the last named.

    Returns
    -------
    dict
        The text of each assay that it mentions.
    """
    if len(text) > MAX_TEXT or not re.search(_NAMES["ish" if own == "ihc" else "ihc"], text, re.I):
        return {own: text}
    found: dict[str, list[str]] = {}
    last = own
    for part in re.split(rf"[;|\n]|,(?!\d)|\band\b|[/(](?=\s*(?:{ASSAYS}))", text, flags=re.I):
        named = [assay for assay, names in _NAMES.items() if re.search(names, part, re.I)]
        if len(named) > 1:
            return {own: text}  # which word belongs to which is not known
        if part.strip(" ()"):
            last = named[0] if named else last
            found.setdefault(last, []).append(part.strip(" ()"))
    return {assay: ", ".join(parts) for assay, parts in found.items()}


def read_words(text: str, *, scores: bool, bare: bool = True) -> WordsFound:
    """What a text states.

    Parameters
    ----------
    scores
        Whether the text is of IHC, whose scores are digits and plus signs. Otherwise it is of ISH, and a text
        with digits is not understood.
    bare
        Whether a digit without a plus sign is a score too. In a column of statuses it may be a code.
    """
    if len(text) > MAX_TEXT:
        return WordsFound(frozenset(), frozenset(), understood=False)
    exact = text.strip().casefold()
    if scores and (bare or exact != "0") and (score := READER_WORDS.get(exact, exact)) in READER_SCORES:
        return WordsFound(frozenset({score}), frozenset(), understood=True)
    rest = unicodedata.normalize("NFKC", text).casefold().replace("ultra-low", "ultralow")
    rest = re.sub(r"[-‐-―−/_:;,.=()\[\]{}]+(?=\D|$)|(?<=\D)[-‐-―−/_:;,.=()\[\]{}]+|[()]", " ", rest)
    rest = re.sub(r"(?:c )?(?:her ?2(?: ?neu)?|erbb ?2)(?!\d)", " her2 ", rest)
    rest = " ".join(rest.replace(" her2 ", " § ").split())
    found: set[str] = set()
    if scores:
        rest = re.sub(r"[<>≤≥]? ?\d+(?:[.,]\d+)? ?%", " ", rest)
        for pattern in _SCORES[: None if bare else -1]:
            found |= set(re.findall(pattern, rest))
            rest = re.sub(pattern, " ", rest)
        for signs, score in (("+++", "3"), ("++", "2")):
            if re.search(rf"(?<!\+){re.escape(signs)}(?!\+)", rest):
                found.add(score)
                rest = rest.replace(signs, " ")
    zeros, ultralow = set[str](), "ultralow" in rest
    for score, phrase in _ZEROS if scores else ():
        rest, times = re.subn(rf"\b(?:{phrase})\b", " ", " ".join(rest.split()))
        zeros |= {score} if times else set()
    statuses: set[str] = set()
    for status, phrase in _PHRASES:
        if scores and "amplif" in phrase:
            continue
        rest, times = re.subn(rf"\b(?:{phrase})\b", " ", " ".join(rest.split()))
        statuses |= {status} if times else set()
    named = frozenset(READER_WORDS.get(s, s if s == "0" else f"{s}+") for s in found)
    left = set(rest.replace("§", " ").split()) - (_IHC if scores else _ISH)
    if named in ({"1+"}, {"2+"}):
        left.discard("low")  # 1+ (HER2-low)
    if zeros and (named in ({"0"}, zeros) or (not named and ultralow and len(zeros) == 1)):
        named = frozenset(zeros)
    elif zeros:
        left |= zeros  # of another score, or of none
    return WordsFound(named, frozenset(statuses), not left and bool(named or statuses))


def reader_conflict(slide_id: str, read: str | None, score: str | None, her2_class: str | None) -> str | None:
    """In words, that a reader saw another score, or split the score 0 otherwise; None if neither.

    Parameters
    ----------
    read
        Score of the reader, as manifests have it.
    score, her2_class
        Score and class of the same slide as computed.
    """
    if read is None or score is None:
        return None
    tier, _, split = read.partition("_")
    ours = (her2_class or "") if score == "0" else ""
    if tier == score and {split, ours} != {"null", "ultralow"}:
        return None
    return f"{slide_id}: reader {read}, scored {score} {ours}".rstrip()
