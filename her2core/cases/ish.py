"""ISH of one specimen: nuclei of its slides pooled and scored once, beside what laboratories reported."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import add

from her2core.cases.external import ExternalISH
from her2core.errors import Reason
from her2core.guidelines.rules_ish import ISHDecision, ISHResult, ISHRules
from her2core.params import ISHScoreParams
from her2core.scoring.genetic import Heterogeneity, heterogeneity
from her2core.scoring.ish import ISHScore, ISHVerdict, judge_ish

MEASURED = "measured"
"""Source of the ISH result where it is our own; ``external:<source>`` where it is not."""
_ANEW = (Reason.INSUFFICIENT_NUCLEI, Reason.LIMITED_NUCLEI, Reason.FEW_AREAS)
"""Reasons of a slide that pooling answers again."""


@dataclass(frozen=True, slots=True)
class CaseISH:
    """ISH of a specimen.

    Attributes
    ----------
    verdict, heterogeneity
        Of the pooled nuclei; None if no slide could be pooled.
    decision
        What the verdict's group means beside IHC; None without a group.
    pooled
        Slides whose nuclei were pooled: all with two probes, or, without any such, those with one.
    populations
        Contiguous amplified populations of single slides, counted beside the rest of their slide, in words.
    external
        What laboratories reported, one a source.
    arm
        The decision that counts, or None; ``arm_source`` names its source. Reports that decide nothing leave
        it to a person.
    hidden
        Slides that are Positive by themselves where the pooled nuclei are Negative.
    conflicts
        Statements that contradict each other, in words.
    """

    verdict: ISHVerdict | None
    heterogeneity: Heterogeneity | None
    decision: ISHDecision | None
    pooled: tuple[str, ...]
    populations: tuple[str, ...]
    external: tuple[ExternalISH, ...]
    arm: ISHDecision | None
    arm_source: str | None
    hidden: tuple[str, ...]
    conflicts: tuple[str, ...]
    rules: str
    rules_version: int

    @property
    def flags(self) -> tuple[str, ...]:
        """What a person should look at: ``review`` and why."""
        open_reports = any(e.decision is None and not e.recount_alone for e in self.external)
        found = {
            "external_ish_undecided": open_reports,
            "external_ish_rounded": any(e.rounded and self._counts(e) for e in self.external),
            "ish_conflict": bool(self.conflicts),
            "second_population": bool(self.populations),
        }
        flags = tuple(name for name, holds in found.items() if holds)
        return (*flags, "review") if flags else ()

    def _counts(self, report: ExternalISH) -> bool:
        return self.arm_source == f"external:{report.source}"


def case_ish(
    slides: Mapping[str, ISHScore],
    external: Sequence[ExternalISH],
    ihc_score: str | None,
    params: ISHScoreParams,
    rules: ISHRules,
) -> CaseISH:
    """Pool a specimen's ISH slides and choose its ISH result.

    An own result that is Positive or Negative counts. Where there is none, or it waits for IHC, a recount or
    a dual probe, a laboratory's final result stands in, unless laboratories differ; never where a person must
    decide. A laboratory's recount alone is the recount of our own group. Reports that leave the result open,
    contradict themselves or each other are for a person to decide, unless we have a result.

    Parameters
    ----------
    slides
        Slide id -> score, of slides whose signals are resolved.
    """
    dual = {k: s for k, s in slides.items() if s.counts.dual}
    chosen = dual or dict(slides)
    verdict = pooled_heterogeneity = decision = None
    if chosen:
        counts = reduce(add, (chosen[k].counts for k in sorted(chosen)))
        verdict = judge_ish(counts, params, rules, _passed_on(list(chosen.values())))
        pooled_heterogeneity = heterogeneity(counts.all, params, rules)
        if verdict.group is not None:
            decision = rules.resolve(verdict.group, ihc_score, _recount(verdict, external, rules))
    reports = [e for e in external if not e.recount_alone]
    outside, outside_source, disagree = _outside(reports)
    arm, source = decision, MEASURED if decision else None
    waits = decision is None or (decision.pending and decision.result is not ISHResult.ADJUDICATE)
    if waits and outside is not None and not (decision is not None and outside.pending):
        arm, source = outside, outside_source
    elif arm is None and reports:
        arm, source = ISHDecision(ISHResult.ADJUDICATE), f"external:{reports[0].source}"
    conflicts = [
        *_among_slides(slides, ihc_score, rules),
        *(sentence for e in external for sentence in e.conflicts),
        *disagree,
        *_against_measured(external, verdict, decision, rules),
    ]
    return CaseISH(
        verdict=verdict,
        heterogeneity=pooled_heterogeneity,
        decision=decision,
        pooled=tuple(sorted(chosen)),
        populations=_populations(slides),
        external=tuple(external),
        arm=arm,
        arm_source=source,
        hidden=_hidden(chosen, arm if source == MEASURED else None, ihc_score, rules),
        conflicts=tuple(conflicts),
        rules=rules.name,
        rules_version=rules.version,
    )


def _recount(verdict: ISHVerdict, external: Sequence[ExternalISH], rules: ISHRules) -> str | None:
    """Group of a recount of our count: our own, or one that laboratories agree on."""
    theirs = {e.recount_group for e in external if e.recount_alone and not e.conflicts}
    other = theirs.pop() if len(theirs) == 1 else None
    usable = other is not None and verdict.group is not None and rules.same_kind(verdict.group, other)
    return verdict.recount_group or (other if usable else None)


def _hidden(
    slides: Mapping[str, ISHScore], arm: ISHDecision | None, ihc_score: str | None, rules: ISHRules
) -> tuple[str, ...]:
    """Slides that are Positive by themselves where all together are Negative."""
    if arm is None or arm.result is not ISHResult.NEGATIVE or len(slides) < 2:
        return ()
    return tuple(
        name
        for name, score in sorted(slides.items())
        if (group := score.verdict.group) is not None
        and rules.resolve(group, ihc_score, score.verdict.recount_group).result is ISHResult.POSITIVE
    )


def _passed_on(scores: Sequence[ISHScore]) -> set[str]:
    """Reasons of the slides that bear on the specimen; those of numbers and areas are found anew."""
    found = {reason for score in scores for reason in score.verdict.reasons} - {str(r) for r in _ANEW}
    if sum(score.n_areas for score in scores) < 2:
        found.add(str(Reason.FEW_AREAS))
    return found


def _populations(slides: Mapping[str, ISHScore]) -> tuple[str, ...]:
    """Second populations of slides: pooling may hide them, so they are reported (spec §2.4)."""
    return tuple(
        f"{name}: group {found.group} in {100 * found.fraction:.0f} % of nuclei, "
        f"group {found.rest_group} elsewhere"
        for name, score in sorted(slides.items())
        if (found := score.population)
    )


def _outside(external: Sequence[ExternalISH]) -> tuple[ISHDecision | None, str | None, list[str]]:
    """The joint result of laboratories, the source named first, and how they differ."""
    final = [e for e in external if e.final]
    results = {e.decision.result for e in final if e.decision}
    if len(results) > 1:
        stated = ", ".join(f"{e.source} {e.decision.result}" for e in final if e.decision)
        return None, None, [f"external ISH differs: {stated}"]
    first = next(iter(final or [e for e in external if e.decision]), None)
    return (first.decision, f"external:{first.source}", []) if first else (None, None, [])


def _among_slides(slides: Mapping[str, ISHScore], ihc_score: str | None, rules: ISHRules) -> list[str]:
    """Slides of one kind of probe in different groups, and of different kinds with different results."""
    groups = {k: g for k, s in sorted(slides.items()) if (g := s.verdict.group) is not None}
    of_kind = [{g for k, g in groups.items() if slides[k].counts.dual is dual} for dual in (True, False)]
    results = {rules.resolve(g, ihc_score).result for g in groups.values()}
    opposite = {ISHResult.POSITIVE, ISHResult.NEGATIVE} <= results
    if max(map(len, of_kind)) < 2 and not opposite:
        return []
    return ["ISH slides differ: " + ", ".join(f"{k} group {g}" for k, g in groups.items())]


def _against_measured(
    external: Sequence[ExternalISH],
    verdict: ISHVerdict | None,
    decision: ISHDecision | None,
    rules: ISHRules,
) -> list[str]:
    """Laboratories whose result, or whose group, is not ours."""
    found = []
    for e in external:
        if verdict is None or verdict.group is None or decision is None or e.decision is None:
            continue
        opposite = e.final and not decision.pending and e.decision.result is not decision.result
        same_kind = len(e.groups) == 1 and rules.same_kind(e.groups[0], verdict.group)
        if opposite or (same_kind and e.groups[0] != verdict.group):
            theirs = f"group {e.groups[0]}" if len(e.groups) == 1 else str(e.decision.result)
            found.append(f"external ISH of {e.source}: {theirs}, measured group {verdict.group}")
    return found
