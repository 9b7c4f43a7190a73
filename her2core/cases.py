"""From slides to specimens: pool the cells of a specimen's slides and apply the same rule again.

Guidelines give no rule for several slides. The default here is ``specimen_pooled``: counts are added and
judged once, which weighs slides by their cells. Different specimens, and primary and metastasis, are never
merged. A slide without a score is named and never read as negative.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import add

from her2core.errors import Reason
from her2core.guideline import SCORES, ClassCounts, RuleSet
from her2core.params import ScoreParams
from her2core.records import PyramidRef, SlideInfo, SlideProfile, SlideRow, SlideState
from her2core.scores import Expression, SlideScore, Verdict, judge, pool_expression

STATUS: Mapping[str | None, str] = {"3+": "Positive", "2+": "Equivocal", "1+": "Negative", "0": "Negative"}
"""HER2 status from IHC alone: 2+ waits for ISH."""
INDETERMINATE = "Indeterminate"


@dataclass(frozen=True, slots=True)
class SlideOutcome:
    """How one slide of the cohort ended, and what is known of it; one row of ``slides``.

    Attributes
    ----------
    reason, message
        Code and words of the error that ended it; None where there was none.
    tumour_mask
        Where the tumour flag of its cells comes from: ``roi`` or ``rule``.
    picture
        Overlay picture, relative to the output root.
    score_key
        Content key of the result.
    """

    slide: SlideRow
    state: SlideState
    reason: str | None = None
    message: str | None = None
    info: SlideInfo | None = None
    pyramid: PyramidRef | None = None
    profile: SlideProfile | None = None
    score: SlideScore | None = None
    tumour_mask: str | None = None
    picture: str | None = None
    score_key: str | None = None

    @property
    def readable_score(self) -> SlideScore | None:
        """Its score, if quality control passed: also of too few cells, which may be enough together."""
        failed = self.profile is None or self.profile.quality.verdict == "fail"
        return None if failed else self.score


@dataclass(frozen=True, slots=True)
class CaseScore:
    """HER2 by IHC of one specimen of a case.

    Attributes
    ----------
    status
        ``Positive``, ``Equivocal`` (2+ without ISH), ``Negative`` or ``Indeterminate``.
    verdict, counts, expression
        Of the pooled cells; ``expression`` is None if no slide could be pooled.
    pooled, indeterminate, failed, skipped
        Slide ids: whose cells were pooled; measured without a score of their own; ended in an error; not
        attempted. A slide may be pooled and indeterminate.
    slide_max
        Highest score of a single slide.
    discordance
        Highest less lowest slide score, in steps (0-3); None with fewer than two scored slides.
    reader_scores
        What human readers wrote, as ``slide_id=score``; never used, never overwritten.
    """

    case_id: str
    patient_id: str | None
    specimen_id: str | None
    site: str | None
    status: str
    verdict: Verdict
    counts: ClassCounts
    expression: Expression | None
    pooled: tuple[str, ...]
    indeterminate: tuple[str, ...]
    failed: tuple[str, ...]
    skipped: tuple[str, ...]
    n_slides: int
    n_blocks: int
    slide_max: str | None
    discordance: int | None
    reader_scores: tuple[str, ...]

    @property
    def incomplete(self) -> bool:
        """Whether a slide of the specimen does not speak in this score."""
        return bool(self.indeterminate or self.failed or self.skipped)


def score_cases(
    outcomes: Iterable[SlideOutcome], params: ScoreParams, rules: RuleSet
) -> tuple[CaseScore, ...]:
    """One score a specimen (case, specimen and site of the manifest), ordered by these."""
    groups: dict[tuple[str, str, str], list[SlideOutcome]] = {}
    for outcome in outcomes:
        slide = outcome.slide
        groups.setdefault((slide.case_id, slide.specimen_id or "", slide.site or ""), []).append(outcome)
    return tuple(score_case(groups[key], params, rules) for key in sorted(groups))


def score_case(outcomes: Sequence[SlideOutcome], params: ScoreParams, rules: RuleSet) -> CaseScore:
    """Pool the slides of one specimen, in any order the same.

    Raises
    ------
    ValueError
        Of no slides, or of slides of several cases, specimens or sites.
    """
    outcomes = sorted(outcomes, key=lambda o: o.slide.slide_id)
    if len({(o.slide.case_id, o.slide.specimen_id, o.slide.site) for o in outcomes}) != 1:
        raise ValueError(f"expected slides of one specimen; found {[o.slide.slide_id for o in outcomes]}")
    first = outcomes[0].slide
    pooled = {o.slide.slide_id: score for o in outcomes if (score := o.readable_score)}
    scores = list(pooled.values())
    counts = reduce(add, (s.counts for s in scores), ClassCounts())
    verdict = judge(counts, params, rules, _passed_on(outcomes), readable=bool(scores))
    ranks = [SCORES.index(s.verdict.score) for s in scores if s.verdict.score]
    return CaseScore(
        case_id=first.case_id,
        patient_id=next((o.slide.patient_id for o in outcomes if o.slide.patient_id), None),
        specimen_id=first.specimen_id,
        site=first.site,
        status=STATUS.get(verdict.score, INDETERMINATE),
        verdict=verdict,
        counts=counts,
        expression=pool_expression([s.expression for s in scores]) if scores else None,
        pooled=tuple(pooled),
        indeterminate=_ids(outcomes, SlideState.INDETERMINATE),
        failed=_ids(outcomes, SlideState.FAILED, SlideState.QUARANTINED),
        skipped=_ids(outcomes, SlideState.SKIPPED),
        n_slides=len(outcomes),
        n_blocks=len({o.slide.block_id for o in outcomes if o.slide.block_id}),
        slide_max=SCORES[max(ranks)] if ranks else None,
        discordance=max(ranks) - min(ranks) if len(ranks) > 1 else None,
        reader_scores=tuple(
            f"{o.slide.slide_id}={o.slide.reader_score}" for o in outcomes if o.slide.reader_score
        ),
    )


def _passed_on(outcomes: Sequence[SlideOutcome]) -> set[str]:
    """Reasons of the slides that bear on the specimen too; those of the number of cells are found anew."""
    anew = {Reason.INSUFFICIENT_TUMOUR, Reason.LIMITED_TUMOUR, Reason.UNUSUAL_PATTERN, Reason.UNCALIBRATED}
    return {r for o in outcomes if o.score for r in o.score.verdict.reasons} - {str(r) for r in anew}


def _ids(outcomes: Sequence[SlideOutcome], *states: SlideState) -> tuple[str, ...]:
    return tuple(o.slide.slide_id for o in outcomes if o.state in states)
