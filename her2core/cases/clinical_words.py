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
"""Words of the consensus of January 2026 for these. A bare 0 is one that nobody split."""
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
    ("Negative", r"negative|neg"),
    (
        "Indeterminate",
        r"indeterminate|inconclusive|unevaluable|uninterpretable|not (?:evaluable|interpretable)",
    ),
    ("Equivocal", r"equivocal|borderline"),
    ("Positive", rf"{_AMPLIFIED}(?: (?:is |was )?(?:{_SEEN}))?|positive|pos"),
)
"""What states a status, in this order: a denial before what it denies."""
_SCORES = (
    r"(?<![\d.,+])(0\+|[1-3](?= ?\+)) ?\+?(?!\+)",
    r"(?<![\d+])\+([1-3])(?!\d)",
    r"(?<![\d.,%])([0-3])(?![\d.,%+])",
)
"""IHC scores: 2+, +2, and a bare digit."""
_BESIDE = frozenset(
    (
        *("her2", "her2neu", "neu", "erbb2", "gene", "protein", "ihc", "fish", "ish", "cish", "sish", "dish"),
        *(
            "score",
            "scored",
            "result",
            "status",
            "test",
            "assay",
            "final",
            "overall",
            "asco",
            "cap",
            "dual",
            "single",
        ),
        *("probe", "membrane", "membranous", "staining", "stain", "intensity", "weak", "moderate", "strong"),
        *(
            "intense",
            "faint",
            "barely",
            "perceptible",
            "complete",
            "incomplete",
            "circumferential",
            "high",
            "highly",
        ),
        *("tumour", "tumor", "cells", "invasive", "carcinoma", "by", "for", "of", "in", "the", "is", "was"),
    )
)
"""Words that may stand beside a status or score and change neither."""


@dataclass(frozen=True, slots=True)
class Said:
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


def read_words(text: str, *, scores: bool, bare: bool = True) -> Said:
    """What a text states.

    Parameters
    ----------
    scores
        Whether digits and plus signs are IHC scores; otherwise a text with them is not understood.
    bare
        Whether a digit without a plus sign is a score too. In a column of statuses it may be a code.
    """
    exact = text.strip().casefold()
    if scores and (score := READER_WORDS.get(exact, exact)) in READER_SCORES:
        return Said(frozenset({score}), frozenset(), understood=True)
    rest = unicodedata.normalize("NFKC", text).casefold()
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
    statuses: set[str] = set()
    for status, phrase in _PHRASES:
        rest, times = re.subn(rf"\b(?:{phrase})\b", " ", " ".join(rest.split()))
        statuses |= {status} if times else set()
    left = set(rest.replace("§", " ").split()) - _BESIDE
    named = frozenset(READER_WORDS.get(s, s if s == "0" else f"{s}+") for s in found)
    return Said(named, frozenset(statuses), not left and bool(named or statuses))
