"""From slides to specimens: pool the cells of a specimen's slides, and combine IHC and ISH.

Guidelines give no rule for several slides. The default here is ``specimen_pooled``: counts are added and
judged once, which weighs slides by their cells. Different specimens, and primary and metastasis, are never
merged. A slide without a score is named and never read as negative; what others found is kept beside ours.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from operator import add

from her2core.cases.clinical_words import reader_conflict
from her2core.cases.external import external_ish
from her2core.cases.ish import CaseISH, case_ish
from her2core.errors import Reason
from her2core.guidelines.rules_case import CaseDecision, CaseRules, case_rules_for, require_one_tumour
from her2core.guidelines.rules_ihc import SCORES, ClassCounts, RuleSet
from her2core.guidelines.rules_ish import ISHRules, load_ish_rules
from her2core.params import ISHScoreParams, ScoreParams
from her2core.records import (
    Assay,
    OutlinesUsed,
    PyramidRef,
    RoiUsed,
    SlideInfo,
    SlideProfile,
    SlideRow,
    SlideState,
)
from her2core.scoring.ihc import Expression, SlideScore, Verdict, judge, pool_expression
from her2core.scoring.ish import ISHScore


@dataclass(frozen=True, slots=True)
class SlideOutcome:
    """How one slide of the cohort ended, and what is known of it; one row of ``slides``.

    Attributes
    ----------
    reason, message
        Code and words of the error that ended it; None where there was none.
    score, ish
        Score of its cells, by assay: IHC or ISH.
    tumour_mask
        Where the tumour flag of its cells comes from: ``roi`` or ``rule``.
    roi
        Its region of interest, if it has one.
    outlines
        The nuclei that its cells were measured on, if another program found them.
    probes
        ISH: what marks what, as ``HER2=0`` (a channel of the file) or ``HER2=black``.
    picture, regions_picture, fields_picture
        Overlay picture, maps of the regions, and fields at full resolution; relative to the output root.
    score_key
        Content key of the result.
    contours
        Folder of the outlines of all its cells, if they are kept.
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
    probes: tuple[str, ...] = ()
    picture: str | None = None
    regions_picture: str | None = None
    fields_picture: str | None = None
    score_key: str | None = None
    ish: ISHScore | None = None
    roi: RoiUsed | None = None
    outlines: OutlinesUsed | None = None
    contours: str | None = None

    @property
    def headline(self) -> str:
        """IHC score or ISH group in a word; empty without one."""
        if self.ish:
            return self.ish.verdict.group or ""
        return (self.score and self.score.verdict.score) or ""

    @property
    def reasons(self) -> tuple[str, ...]:
        """Codes of everything that bears on how it ended, sorted."""
        found = {self.reason} if self.reason else set()
        found |= {Reason.ROI_DOUBTFUL} if self.roi and self.roi.doubts else set()
        found |= {Reason.CELLS_DOUBTFUL} if self.outlines and self.outlines.doubts else set()
        found |= set(self.profile.quality.reasons) if self.profile else set()
        found |= set(self.score.verdict.reasons) if self.score else set()
        found |= set(self.ish.verdict.reasons) if self.ish else set()
        return tuple(sorted(str(reason) for reason in found))

    @property
    def readable_score(self) -> SlideScore | None:
        """Its IHC, if quality control passed: also of too few cells, which may be enough together.

        Cells of an undecided slide are not: more of them do not lift the doubt.
        """
        score = self.score if self._passed else None
        return score if score and score.readable and not score.verdict.undecided else None

    @property
    def readable_ish(self) -> ISHScore | None:
        """Its ISH, if quality control passed and signals could be resolved: also of too few nuclei."""
        return self.ish if self._passed and self.ish and self.ish.heterogeneity else None

    @property
    def _passed(self) -> bool:
        return self.profile is not None and self.profile.quality.verdict != "fail"


@dataclass(frozen=True, slots=True)
class CaseScore:
    """HER2 of one specimen of a case: IHC, ISH, and both together.

    Attributes
    ----------
    collection_date
        The specimen's date; None if its slides name none, or different ones.
    decision
        ``her2_status``, ``her2_class`` and flags, from IHC and ISH by the table ``case_rules``.
    rules, has_low
        IHC rule set, and whether HER2-low is defined for its tumour.
    verdict, counts, expression
        IHC of the pooled cells; ``expression`` is None if no slide could be pooled.
    ish
        ISH of the pooled nuclei, what laboratories reported, and which of these counts.
    slides
        Ids of all its slides.
    pooled, indeterminate, failed, skipped
        Slide ids: IHC slides whose cells were pooled; slides of any assay that were measured without a score
        of their own, ended in an error, are excluded by the manifest. A slide may be both pooled and
        indeterminate.
    slide_max
        Highest IHC score of a single slide.
    discordance, block_discordance
        Highest less lowest IHC score of slides, and of blocks (slides of a block pooled), in steps (0-3);
        None with fewer than two scored.
    reader_scores
        What human readers wrote, as ``slide_id=score``; never used, never overwritten.
    conflicts
        Statements that contradict each other, in words.
    """

    case_id: str
    patient_id: str | None
    specimen_id: str | None
    site: str | None
    collection_date: str | None
    decision: CaseDecision
    rules: str
    has_low: bool
    case_rules: str
    case_rules_version: int
    verdict: Verdict
    counts: ClassCounts
    expression: Expression | None
    ish: CaseISH
    slides: tuple[str, ...]
    pooled: tuple[str, ...]
    indeterminate: tuple[str, ...]
    failed: tuple[str, ...]
    skipped: tuple[str, ...]
    n_slides: int
    n_blocks: int
    slide_max: str | None
    discordance: int | None
    block_discordance: int | None
    reader_scores: tuple[str, ...]
    conflicts: tuple[str, ...]

    @property
    def status(self) -> str:
        """``Positive``, ``Equivocal``, ``Negative`` or ``Indeterminate``."""
        return self.decision.status

    @property
    def flags(self) -> tuple[str, ...]:
        """Flags of the decision, and those of its ISH."""
        return tuple(dict.fromkeys((*self.decision.flags, *self.ish.flags)))

    @property
    def pending(self) -> str | None:
        """What an undecided ISH result waits for: ``PENDING_...`` or ``ADJUDICATE``; None if for nothing."""
        return str(self.ish.arm.result) if self.ish.arm and self.ish.arm.pending else None

    @property
    def reasons(self) -> tuple[str, ...]:
        """Codes of `errors.Reason` of IHC and ISH, sorted."""
        ish = self.ish.verdict.reasons if self.ish.verdict else ()
        return tuple(sorted({*self.verdict.reasons, *ish}))

    @property
    def incomplete(self) -> bool:
        """Whether a slide of the specimen does not contribute to this score."""
        return bool(self.indeterminate or self.failed or self.skipped)

    @property
    def name(self) -> str:
        """Case, specimen and site in one word."""
        return "/".join(part for part in (self.case_id, self.specimen_id, self.site) if part)


_ISH_PARAMS = ISHScoreParams()


def score_cases(
    outcomes: Iterable[SlideOutcome],
    params: ScoreParams,
    rules: RuleSet,
    ish_params: ISHScoreParams = _ISH_PARAMS,
) -> tuple[CaseScore, ...]:
    """One score a specimen (case, specimen and site of the manifest), ordered by these."""
    groups: dict[tuple[str, str, str], list[SlideOutcome]] = {}
    for outcome in outcomes:
        slide = outcome.slide
        groups.setdefault((slide.case_id, slide.specimen_id or "", slide.site or ""), []).append(outcome)
    return tuple(score_case(groups[key], params, rules, ish_params) for key in sorted(groups))


def score_case(
    outcomes: Sequence[SlideOutcome],
    params: ScoreParams,
    rules: RuleSet,
    ish_params: ISHScoreParams = _ISH_PARAMS,
) -> CaseScore:
    """Pool the slides of one specimen, in any order the same, and combine IHC and ISH.

    Raises
    ------
    ValueError
        Of no slides, or of slides of several cases, specimens or sites.
    ConfigError
        If the rules of IHC and of ISH are for different tumours.
    """
    outcomes = sorted(outcomes, key=lambda o: o.slide.slide_id)
    slides = [o.slide for o in outcomes]
    if len({(s.case_id, s.specimen_id, s.site) for s in slides}) != 1:
        raise ValueError(f"expected slides of one specimen; found {[s.slide_id for s in slides]}")
    pooled = {o.slide.slide_id: ihc for o in outcomes if (ihc := o.readable_score)}
    counted = {o.slide.slide_id: nuclei for o in outcomes if (nuclei := o.readable_ish)}
    counts, verdict = pool_ihc(outcomes, params, rules)
    ish_rules, case_rules = load_ish_rules(ish_params.rules), case_rules_for(rules.name)
    require_one_tumour(rules, ish_rules)
    joined = _Joined(slides, counted, ish_params, ish_rules, case_rules)
    ish, decision = joined.beside(verdict.score, verdict.her2_class)
    blocks = _block_scores(outcomes, params, rules)
    alone = {name: s.verdict for name, s in pooled.items()}
    alone |= {f"block {name}": found for name, found in blocks.items()}
    decision, hidden = joined.not_hidden(decision, ish, verdict, alone)
    if "strong_below_floor" in verdict.patterns and decision.status != "Positive":
        decision = _flagged(decision, "strong_below_floor")
    date, odd_dates = _collection_date(slides)
    return CaseScore(
        case_id=slides[0].case_id,
        patient_id=next((s.patient_id for s in slides if s.patient_id), None),
        specimen_id=slides[0].specimen_id,
        site=slides[0].site,
        collection_date=date,
        decision=decision,
        rules=rules.name,
        has_low=case_rules.has_low,
        case_rules=case_rules.name,
        case_rules_version=case_rules.version,
        verdict=verdict,
        counts=counts,
        expression=pool_expression([s.expression for s in pooled.values()]) if pooled else None,
        ish=ish,
        slides=tuple(s.slide_id for s in slides),
        pooled=tuple(pooled),
        indeterminate=_ids(outcomes, SlideState.INDETERMINATE),
        failed=_ids(outcomes, SlideState.FAILED, SlideState.QUARANTINED),
        skipped=_ids(outcomes, SlideState.SKIPPED),
        n_slides=len(outcomes),
        n_blocks=len({s.block_id for s in slides if s.block_id}),
        slide_max=max((s.verdict.score for s in pooled.values() if s.verdict.score), default=None),
        discordance=_spread([s.verdict.score for s in pooled.values()]),
        block_discordance=_spread(v.score for v in blocks.values()),
        reader_scores=tuple(f"{s.slide_id}={s.reader_score}" for s in slides if s.reader_score),
        conflicts=(*odd_dates, *_reader_conflicts(outcomes), *ish.conflicts, *hidden),
    )


@dataclass(frozen=True, slots=True)
class _Joined:
    """Joins the ISH of a specimen with an IHC score."""

    slides: Sequence[SlideRow]
    counted: Mapping[str, ISHScore]
    params: ISHScoreParams
    rules: ISHRules
    table: CaseRules

    def beside(self, score: str | None, her2_class: str) -> tuple[CaseISH, CaseDecision]:
        """ISH beside this IHC, and what both come to."""
        external = external_ish(self.slides, score, self.rules)
        ish = case_ish(self.counted, external, score, self.params, self.rules)
        return ish, self.table.decide(score, her2_class, ish.arm.result if ish.arm else None)

    def not_hidden(
        self,
        decision: CaseDecision,
        ish: CaseISH,
        verdict: Verdict,
        alone: Mapping[str, Verdict],
    ) -> tuple[CaseDecision, list[str]]:
        """Leave to a person what pooling would hide, and report it in words.

        A slide or block that by itself is Positive, or waits for ISH, is not made Negative by others. A 3+
        among them is noted whatever the status, and any stain beside a null.

        Parameters
        ----------
        verdict
            IHC of the pooled cells.
        alone
            IHC of every slide and every block by itself.
        """
        scored = {name: (SCORES.index(v.score), v) for name, v in sorted(alone.items()) if v.score}
        top, one = max(scored.values(), key=lambda each: each[0], default=(0, verdict))
        words, open_again = [], False
        if verdict.score and one.score and top > SCORES.index(verdict.score):
            _, by_itself = self.beside(one.score, one.her2_class)
            open_again = decision.status == "Negative" and by_itself.status != "Negative"
            if one.score == "3+" or open_again or verdict.her2_class == "null":
                names = ", ".join(name for name, (rank, _) in scored.items() if rank == top)
                words.append(f"IHC {one.score} of {names}, pooled {verdict.score}")
        elif verdict.her2_class == "null" and (names := _of_class(alone, "ultralow")):
            words.append(f"IHC 0 ultralow of {names}, pooled 0 null")
        if ish.hidden and decision.status == "Negative":
            words.append(f"ISH Positive of {', '.join(ish.hidden)}, pooled Negative")
            open_again = True
        if not words:
            return decision, words
        decision = _flagged(decision, "hidden_by_pooling")
        if open_again:
            decision = replace(decision, status="Equivocal", her2_class="equivocal")
        return decision, words


def _of_class(alone: Mapping[str, Verdict], her2_class: str) -> str:
    """Names of slides and blocks of a class."""
    return ", ".join(name for name, v in sorted(alone.items()) if v.her2_class == her2_class)


def _flagged(decision: CaseDecision, flag: str) -> CaseDecision:
    """The same decision with a flag, and that a person should look."""
    return replace(decision, flags=tuple(dict.fromkeys((*decision.flags, flag, "review"))))


def pool_ihc(
    outcomes: Sequence[SlideOutcome], params: ScoreParams, rules: RuleSet
) -> tuple[ClassCounts, Verdict]:
    """Counts of the readable IHC slides together, scored once; no reasons where there is no IHC slide."""
    scores = [score for o in outcomes if (score := o.readable_score)]
    counts = reduce(add, (s.counts for s in scores), ClassCounts())
    others = [reduce(add, choice) for choice in zip(*(_choices(s) for s in scores), strict=True)]
    verdict = judge(
        counts,
        params,
        rules,
        _passed_on(outcomes),
        readable=bool(scores),
        others=others,
        false_stained=sum(s.false_stained for s in scores),
    )
    if not any(o.slide.assay is Assay.IHC for o in outcomes):
        verdict = replace(verdict, reasons=())
    return counts, verdict


def _choices(score: SlideScore) -> tuple[ClassCounts, ClassCounts]:
    """Counts over all cells and over stained nests; where a region was drawn there is one choice."""
    every, nests = score.others or (score.counts, score.counts)
    return every, nests


def _passed_on(outcomes: Sequence[SlideOutcome]) -> set[str]:
    """Reasons of the slides that bear on the specimen too; those of the number of cells are found anew."""
    anew = {
        Reason.INSUFFICIENT_TUMOUR,
        Reason.LIMITED_TUMOUR,
        Reason.UNUSUAL_PATTERN,
        Reason.UNCALIBRATED,
        Reason.TUMOUR_CHOICE,
        Reason.FALSE_STAIN,
    }
    return {r for o in outcomes if o.score for r in o.score.verdict.reasons} - {str(r) for r in anew}


def _block_scores(
    outcomes: Sequence[SlideOutcome], params: ScoreParams, rules: RuleSet
) -> dict[str, Verdict]:
    """IHC of every block that the manifest names, its slides pooled."""
    blocks: dict[str, list[SlideOutcome]] = {}
    for outcome in outcomes:
        if outcome.slide.block_id and outcome.readable_score:
            blocks.setdefault(outcome.slide.block_id, []).append(outcome)
    return {name: pool_ihc(block, params, rules)[1] for name, block in blocks.items()}


def _spread(scores: Iterable[str | None]) -> int | None:
    """Highest less lowest score, in steps; None with fewer than two."""
    ranks = [SCORES.index(score) for score in scores if score]
    return max(ranks) - min(ranks) if len(ranks) > 1 else None


def _collection_date(slides: Sequence[SlideRow]) -> tuple[str | None, list[str]]:
    """The most precise of the dates if they agree; else none, and the conflict."""
    dates = sorted({s.collection_date for s in slides if s.collection_date})
    if not dates:
        return None, []
    precise = max(dates, key=len)
    if all(precise.startswith(date) for date in dates):
        return precise, []
    return None, [f"collection dates differ: {', '.join(dates)}"]


def _reader_conflicts(outcomes: Sequence[SlideOutcome]) -> list[str]:
    """IHC slides whose reader saw another score, or split the score 0 otherwise."""
    found = []
    for o in outcomes:
        score, her2_class = (o.score.verdict.score, o.score.verdict.her2_class) if o.score else (None, None)
        found.append(reader_conflict(o.slide.slide_id, o.slide.reader_score, score, her2_class))
    return [words for words in found if words is not None]


def _ids(outcomes: Sequence[SlideOutcome], *states: SlideState) -> tuple[str, ...]:
    return tuple(o.slide.slide_id for o in outcomes if o.state in states)
