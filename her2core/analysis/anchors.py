"""Published figures that stand beside a cohort's own, each with its source.

They are of other slides, readers and questions: a place to stand, not a limit to pass.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from her2core.analysis.results import ResultTable, markdown, text_column


@dataclass(frozen=True, slots=True)
class Anchor:
    """One published figure: of what, how much, who found it in whom."""

    of: str
    value: str
    setting: str
    source: str


_POOLED = "PMC10485402"
_ONCOTYPE = "RT-PCR, 1524 patients, ER positive, HER2 negative"
AGREEMENT = (
    Anchor("all readers agree, four tiers", "28.8 %", "18 pathologists, 170 cases", "Robbins 2023"),
    Anchor("all readers agree, three tiers", "46.5 %", "18 pathologists, 170 cases", "Robbins 2023"),
    Anchor(
        "on cases of score 0: all readers agree, Fleiss' kappa, ICC",
        "25 %, 0.49, 0.55",
        "18 pathologists, of 170 cases those of score 0",
        "Robbins 2023",
    ),
    Anchor(
        "all readers agree on 1+, on 2+", "below 1 %, 3.6 %", "18 pathologists, 170 cases", "Robbins 2023"
    ),
    Anchor(
        "ultralow read as null",
        "29.5 % alone, 4.0 % with assistance",
        "105 pathologists, 20 cases, AI after training",
        "De Brot, ASCO 2025",
    ),
    Anchor(
        "null, ultralow, low or positive as the reference",
        "66.7 % alone, 88.5 % with assistance",
        "105 pathologists, 20 cases, AI after training",
        "De Brot, ASCO 2025",
    ),
    Anchor(
        "three readers agree",
        "49.3 % alone, 74.1 % with assistance",
        "201 cases, those that differed from AI read again with it",
        "Breast Cancer Research 2024, 10.1186/s13058-024-01784-y",
    ),
    Anchor("linear kappa, two programs and readers", "0.60 and 0.85", "152 cases", "Koopman 2019"),
    Anchor("kappa, program and readers", "0.86", "validation set", "Brügmann 2012 (HER2-CONNECT)"),
    Anchor("readers agree with themselves, kappa", "0.88 to 0.91", "tissue array", "Laurinaviciene 2011"),
    Anchor("laboratories agree, low or not", "97.4 % or more", "4B5, DESTINY-Breast04", "PATHWAY 4B5"),
    Anchor("central and local laboratory agree on low", "77.6 %", "DESTINY-Breast04", "PATHWAY 4B5"),
)
OUTCOME = (
    Anchor("response to T-DXd: over, low, 0", "70.6, 37.5, 29.7 %", "DAISY", "Mosele 2023"),
    Anchor("response to T-DXd within low: 1+, 2+", "42.9, 38 %", "DAISY", "Mosele 2023"),
    Anchor(
        "PFS, T-DXd against chemotherapy: low, ultralow",
        "HR 0.62, 0.78",
        "DESTINY-Breast06",
        "DESTINY-Breast06",
    ),
    Anchor("pCR, 3+ against 2+/ISH+", "OR 5.38 (3.72 to 7.80)", "meta-analysis", "Yucel 2026"),
    Anchor("pCR, genetically heterogeneous or not", "0 and 55 %", "T-DM1 with pertuzumab", "Filho 2021"),
    Anchor("DFS, low against 0", "HR 0.86 (0.79 to 0.92)", "early, 42 studies pooled", _POOLED),
    Anchor(
        "OS, low against 0",
        "HR 0.90 (0.85 to 0.95) early, 0.94 (0.89 to 0.98) metastatic",
        "42 studies pooled",
        _POOLED,
    ),
    Anchor("pCR, low against 0", "OR 0.74 (0.62 to 0.88)", "42 studies pooled", _POOLED),
    Anchor("OS, higher entropy of completeness", "HR 0.37", "2+ not amplified", "Radziuviene 2021"),
)
RNA = (
    Anchor("RT-PCR (21 genes) agrees with IHC, with FISH", "95 %, 91 %", "N9831 trial", "N9831"),
    Anchor("AUC, 0 against low", "0.76", _ONCOTYPE, "Oncotype DX series"),
    Anchor("AUC, null against ultralow", "0.81", _ONCOTYPE, "Oncotype DX series"),
    Anchor(
        "response to T-DXd, IHC 0, RNA above and below the median",
        "30, 35.7 %",
        "DAISY, 10 and 14 patients",
        "Mosele 2023",
    ),
)


def anchor_table(anchors: Sequence[Anchor]) -> ResultTable:
    """Published figures as a table."""
    return ResultTable(
        "anchors",
        "Published figures: of other slides and people, a place to stand.",
        (
            text_column("of", "What was measured."),
            text_column("value", "How much."),
            text_column("setting", "In whom."),
            text_column("source", "Where it was published."),
        ),
        [{"of": a.of, "value": a.value, "setting": a.setting, "source": a.source} for a in anchors],
    )


def anchor_text(anchors: Sequence[Anchor]) -> str:
    """Published figures as a table of a text."""
    names = ("of", "value", "setting", "source")
    return markdown(names, [(a.of, a.value, a.setting, a.source) for a in anchors])
