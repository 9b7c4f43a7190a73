"""Specimens and patients: IHC beside ISH, results of others, failed slides, and views that never merge."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from her2core.cases.patients import PatientScore, score_patients
from her2core.cases.specimens import CaseScore, SlideOutcome, score_case, score_cases
from her2core.errors import ConfigError, ManifestError
from her2core.guidelines.rule_files import rule_files
from her2core.guidelines.rules_case import case_rules_for, parse_case_rules
from her2core.guidelines.rules_ihc import ClassCounts, load_rules
from her2core.guidelines.rules_ish import load_ish_rules
from her2core.intake.manifest import read_manifest
from her2core.lake.rows import case_row, patient_row
from her2core.lake.schema import CASES, PATIENTS
from her2core.params import ISHScoreParams, ScoreParams
from her2core.publish import pooled as _specimens
from her2core.records import Assay, Fluorescence, Quality, SlideProfile, SlideRow, SlideState
from her2core.scoring.genetic import heterogeneity
from her2core.scoring.ihc import Expression, SlideScore, judge
from her2core.scoring.ish import ISHScore, judge_ish
from her2core.scoring.ish_nuclei import SecondPopulation
from her2core.scoring.keyed import Judging
from her2core.scoring.signals import ISHCounts, SignalCounts

PARAMS, ISH_PARAMS = ScoreParams(calibration="batch 1"), ISHScoreParams(replicates=100)
BREAST, GASTRIC = load_rules("breast_asco_cap_2018"), load_rules("gastric_resection")
ISH_RULES = load_ish_rules(ISH_PARAMS.rules)
GASTRIC_ISH = ISHScoreParams(replicates=100, rules="ish_gastric_toga")
GOOD = Quality("pass", (), 10.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.02)
BLURRED = dataclasses.replace(GOOD, verdict="fail", reasons=("blur",))
LIGHT = Fluorescence(("DAPI", "HER2", "CEP17"), (0.0,) * 3, (1.0,) * 3, 10.0, 100.0)

CELLS = {  # evaluable tumour cells that give each class
    "3+": ClassCounts(n0=80, n3=20, contiguous_3=20, cluster_3=20),
    "2+": ClassCounts(n0=80, n2=20),
    "1+": ClassCounts(n0=80, n1=20),
    "ultralow": ClassCounts(n0=95, n1=5),
    "null": ClassCounts(n0=299),
    "0_unresolved": ClassCounts(n0=298),
    "few": ClassCounts(n3=19),
}
SIGNALS = {  # (HER2, CEP17) of every nucleus; CEP17 None for a single probe
    "1": (10, 2),
    "2": (3, 1),
    "3": (7, 5),
    "4": (5, 4),
    "5": (2, 2),
    "single_negative": (2, None),
    "single_equivocal": (5, None),
    "single_positive": (7, None),
}


def row(slide_id: str, assay: Assay, **more: Any) -> SlideRow:
    return SlideRow(
        **({"slide_id": slide_id, "case_id": "c1", "uri": f"{slide_id}.tif", "assay": assay} | more)
    )


def ihc(slide_id: str, kind: str, quality: Quality = GOOD, **more: Any) -> SlideOutcome:
    """An IHC slide whose cells give this class."""
    counts = CELLS[kind]
    score = SlideScore(
        verdict=judge(counts, PARAMS, BREAST, quality.reasons, readable=quality.verdict != "fail"),
        counts=counts,
        expression=Expression(counts.n, 0, 0, 0, (0.1,), (0,), 0, 0.0, 0.0, 0.0),
        rules=BREAST.name,
        rules_version=BREAST.version,
        n_cells=counts.n,
        n_tumour=counts.n,
        n_unevaluable=0,
        membrane_od=(),
        completeness_median=None,
    )
    state = SlideState.SCORED if score.verdict.score else SlideState.INDETERMINATE
    profile = SlideProfile(LIGHT, quality, 4, "tissue")
    return SlideOutcome(row(slide_id, Assay.IHC, **more), state, profile=profile, score=score)


def signals(group: str, nuclei: int) -> SignalCounts:
    her2, cep17 = SIGNALS[group]
    return SignalCounts(cep17 is not None, ((her2, cep17 or 0, nuclei),) if nuclei else ())


def ish(
    slide_id: str,
    group: str,
    recount: str | None = None,
    nuclei: int = 60,
    quality: Quality = GOOD,
    unresolved: bool = False,
    **more: Any,
) -> SlideOutcome:
    """An ISH slide of this group, and of this one in its reserve sample (None: too few for a recount)."""
    counts = ISHCounts(signals(group, nuclei), signals(recount or group, 30 if recount else 0))
    readable = quality.verdict != "fail" and not unresolved
    reasons = {*quality.reasons, "resolution_low"} if unresolved else quality.reasons
    score = ISHScore(
        verdict=judge_ish(counts, ISH_PARAMS, ISH_RULES, reasons, readable=readable),
        counts=counts,
        heterogeneity=heterogeneity(counts.all, ISH_PARAMS, ISH_RULES) if readable else None,
        population=None,
        rules=ISH_RULES.name,
        rules_version=ISH_RULES.version,
        n_nuclei=nuclei,
        n_tumour=nuclei,
        n_evaluable=nuclei,
        n_flagged=0,
        n_unscorable=0,
        n_well_shaped=nuclei,
        n_areas=2,
        her2_spots_mean=None,
        cep17_spots_mean=None,
    )
    state = SlideState.SCORED if score.verdict.group else SlideState.INDETERMINATE
    profile = SlideProfile(LIGHT, quality, 4, "tissue")
    return SlideOutcome(row(slide_id, Assay.FISH, **more), state, profile=profile, ish=score)


def gastric_ish(state: str) -> list[SlideOutcome]:
    """Slides of a state, their signals judged by gastric rules."""
    found = []
    for outcome in ISH_STATES[state]:
        assert outcome.ish is not None
        verdict = judge_ish(outcome.ish.counts, GASTRIC_ISH, load_ish_rules(GASTRIC_ISH.rules))
        found.append(dataclasses.replace(outcome, ish=dataclasses.replace(outcome.ish, verdict=verdict)))
    return found


def failed(
    slide_id: str, assay: Assay = Assay.IHC, state: SlideState = SlideState.QUARANTINED, **more: Any
) -> SlideOutcome:
    return SlideOutcome(row(slide_id, assay, **more), state, reason="file_truncated", message="cut short")


def replace_kind(outcome: SlideOutcome, kind: str) -> SlideOutcome:
    """The same slide with cells of another class."""
    return dataclasses.replace(outcome, score=ihc("x", kind).score)


def judged(outcomes: Sequence[SlideOutcome], rules: Any = BREAST) -> CaseScore:
    return score_case(outcomes, PARAMS, rules, ISH_PARAMS)


# IHC beside ISH, spec §3.1

ISH_STATES: dict[str, list[SlideOutcome]] = {
    "1": [ish("f", "1")],
    "2": [ish("f", "2")],
    "3": [ish("f", "3")],
    "4": [ish("f", "4")],
    "5": [ish("f", "5")],
    "2=": [ish("f", "2", "2")],
    "3=": [ish("f", "3", "3")],
    "4=": [ish("f", "4", "4")],
    "2≠": [ish("f", "2", "5")],
    "3≠": [ish("f", "3", "1")],
    "4≠": [ish("f", "4", "5")],
    "single_negative": [ish("f", "single_negative")],
    "single_equivocal": [ish("f", "single_equivocal")],
    "single_positive": [ish("f", "single_positive")],
    "few nuclei": [ish("f", "1", nuclei=19)],
    "blurred": [ish("f", "1", quality=BLURRED)],
    "unresolved": [ish("f", "1", unresolved=True)],
    "broken": [failed("f", Assay.FISH)],
    "none": [],
}
IHC_STATES: dict[str, list[SlideOutcome]] = {
    **{kind: [ihc("s", kind)] for kind in CELLS if kind != "few"},
    "few cells": [ihc("s", "few")],
    "blurred": [ihc("s", "3+", quality=BLURRED)],
    "broken": [failed("s")],
    "no IHC": [],
}
NO_ISH = ("few nuclei", "blurred", "unresolved", "broken", "none")
WORK_UP = ("2", "3", "4", "2=", "3=", "4=", "2≠", "3≠", "4≠", "single_equivocal")
HIGH, LOW = ("discordant_ihc3_ish_negative", "review"), ("discordant_ihc_low_ish_positive", "review")
ALONE = ("ish_without_ihc",)
RECOUNT, DUAL, PERSON = "PENDING_RECOUNT", "PENDING_DUAL_PROBE", "ADJUDICATE"

Answer = tuple[str, str | None, tuple[str, ...], str | None]
"""her2_status, her2_class, flags, pending."""


def table() -> dict[tuple[str, str], Answer]:
    """Every IHC state beside every ISH state, written out from spec §3.1."""
    found: dict[tuple[str, str], Answer] = {}

    def fill(ihc_states: Sequence[str], ish_states: Sequence[str], answer: Answer) -> None:
        for one in ihc_states:
            for other in ish_states:
                assert (one, other) not in found
                found[one, other] = answer

    fill(["3+"], ["1", "single_positive", *WORK_UP, *NO_ISH], ("Positive", "pos_IHC3", (), None))
    fill(["3+"], ["5", "single_negative"], ("Positive", "pos_IHC3", HIGH, None))
    fill(["2+"], ["1", "single_positive", "3="], ("Positive", "pos_IHC2_ISHpos", (), None))
    fill(["2+"], ["5", "single_negative", "2=", "4="], ("Negative", "low_2plus", (), None))
    fill(["2+"], ["2", "3", "4"], ("Equivocal", "equivocal", (), RECOUNT))
    fill(["2+"], ["2≠", "3≠", "4≠"], ("Equivocal", "equivocal", (), PERSON))
    fill(["2+"], ["single_equivocal"], ("Equivocal", "equivocal", (), DUAL))
    fill(["2+"], NO_ISH, ("Equivocal", "equivocal", (), None))
    for kind, her2_class in (("1+", "low_1plus"), *((k, k) for k in ("ultralow", "null", "0_unresolved"))):
        fill([kind], ["1", "single_positive"], ("Positive", "pos_ISH_only", LOW, None))
        fill([kind], ["5", "single_negative", *WORK_UP, *NO_ISH], ("Negative", her2_class, (), None))
    unknown = ["few cells", "blurred", "broken", "no IHC"]
    fill(unknown, ["1", "single_positive"], ("Positive", None, ALONE, None))
    fill(unknown, ["5", "single_negative"], ("Negative", None, ALONE, None))
    fill(unknown, WORK_UP, ("Indeterminate", "indeterminate", (), "PENDING_IHC"))
    fill(unknown, NO_ISH, ("Indeterminate", "indeterminate", (), None))
    return found


TABLE = table()


def test_the_table_is_complete() -> None:
    assert set(TABLE) == {(one, other) for one in IHC_STATES for other in ISH_STATES}


@pytest.mark.parametrize(("ihc_state", "ish_state"), TABLE, ids=" × ".join)
def test_status_and_class_of_every_combination(ihc_state: str, ish_state: str) -> None:
    outcomes = IHC_STATES[ihc_state] + ISH_STATES[ish_state]
    if not outcomes:
        with pytest.raises(ValueError, match="one specimen"):
            judged(outcomes)
        return
    case = judged(outcomes)
    found = (case.status, case.decision.her2_class, case.decision.flags, case.pending)
    assert found == TABLE[ihc_state, ish_state]


@pytest.mark.parametrize(
    ("kind", "ish_state", "answer"),
    [
        ("3+", "5", ("Positive", "pos_IHC3", HIGH, None)),
        ("2+", "1", ("Positive", "pos_IHC2_ISHpos", (), None)),
        ("2+", "2", ("Positive", "pos_IHC2_ISHpos", (), None)),
        ("2+", "4", ("Negative", "negative", (), None)),
        ("2+", "5", ("Negative", "negative", (), None)),
        ("2+", "none", ("Equivocal", "equivocal", (), None)),
        ("2+", "3", ("Equivocal", "equivocal", (), PERSON)),
        ("2+", "single_equivocal", ("Equivocal", "equivocal", (), DUAL)),
        ("1+", "1", ("Negative", "negative", LOW, None)),
        ("1+", "3", ("Negative", "negative", ("ish_open", "review"), PERSON)),
        ("1+", "none", ("Negative", "negative", (), None)),
        ("null", "5", ("Negative", "negative", (), None)),
        ("few cells", "1", ("Positive", None, ALONE, None)),
    ],
)
def test_gastric_specimens_know_no_low(kind: str, ish_state: str, answer: Answer) -> None:
    case = score_case(IHC_STATES[kind] + gastric_ish(ish_state), PARAMS, GASTRIC, GASTRIC_ISH)
    assert (case.status, case.decision.her2_class, case.decision.flags, case.pending) == answer
    assert case.case_rules == "gastric"


@pytest.mark.parametrize(
    ("kind", "said", "answer"),
    [
        ("2+", {"ish_ratio": 2.1}, ("Positive", None)),  # a ratio alone decides
        ("2+", {"ish_ratio": 1.9}, ("Negative", None)),
        ("2+", {"ish_ratio": 2.4, "ish_her2": 3.6}, ("Positive", None)),
        ("2+", {"ish_ratio": 1.6, "ish_her2": 4.4}, ("Negative", None)),
        ("2+", {"ish_ratio": 1.6, "ish_her2": 6.4}, ("Equivocal", PERSON)),
        ("2+", {"ish_group": "amplified"}, ("Positive", None)),
        ("2+", {"ish_group": "2"}, ("Equivocal", PERSON)),
    ],
)
def test_a_gastric_report_is_read_by_its_ratio(
    kind: str, said: dict[str, Any], answer: tuple[str, str | None]
) -> None:
    case = score_case([ihc("s", kind, **said)], PARAMS, GASTRIC, GASTRIC_ISH)
    assert (case.status, case.pending) == answer


def test_rules_of_two_tumours_are_not_mixed() -> None:
    with pytest.raises(ConfigError, match=r"ish_asco_cap_2018 is for breast, gastric_resection for gastric"):
        score_case([ihc("s", "2+")], PARAMS, GASTRIC, ISH_PARAMS)


def test_specimens_of_a_cohort_are_judged_each_by_the_rules_for_it() -> None:
    gastric = {"tumour_type": "gastric", "specimen_type": "resection", "ish_ratio": Decimal("1.9")}
    outcomes = [ihc("s", "2+", case_id="b"), ihc("t", "2+", case_id="a", **gastric)]
    cases = _specimens(outcomes, Judging(PARAMS, ISH_PARAMS))
    found = [(c.case_id, c.rules, c.case_rules, c.ish.rules, c.decision.her2_class) for c in cases]
    assert found == [
        ("a", "gastric_resection", "gastric", "ish_gastric_toga", "negative"),
        ("b", "breast_asco_cap_2018", "breast_asco_cap_2018", "ish_asco_cap_2018", "equivocal"),
    ]


def test_every_ihc_rule_set_has_its_table() -> None:
    for name in rule_files("ihc"):
        assert case_rules_for(name).name in rule_files("case")
    with pytest.raises(ConfigError, match=r"'other'.*expected one"):
        case_rules_for("other")


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ("[Negative, low_2plus]", "[Negative, low]", "low"),
        ("[Negative, low_2plus]", "[Maybe, low_2plus]", "Maybe"),
        ("[Positive, pos_IHC3]", "[Positive]", "not enough values"),
        ("pending: ", "waiting: ", "columns"),
        ("name: gastric", "name: breast", "calls itself 'breast'"),
        ('"3+":', '"4+":', "rows"),
        ("citations: [c]", f"citations: {'[' * 600}", "RecursionError"),
    ],
)
def test_a_broken_table_is_refused(old: str, new: str, complaint: str) -> None:
    cells = "positive: [Positive, pos_IHC3], negative: [Negative, low_2plus], pending: [Equivocal, equivocal]"
    body = "".join(
        f"  {name}: {{{cells}, none: [Negative, ihc]}}\n" for name in ('"3+"', '"2+"', '"1+"', '"0"', "none")
    )
    text = (
        f"name: gastric\nversion: 1\ntitle: t\nhas_low: true\ncitations: [c]\nihc_rules: [r]\ntable:\n{body}"
    )
    assert parse_case_rules(text, "gastric").decide("1+", "low_1plus", None).her2_class == "low_1plus"
    assert old in text
    with pytest.raises(ConfigError, match=complaint):
        parse_case_rules(text.replace(old, new), "gastric")


# pooling, failures, order


def test_nuclei_of_slides_are_pooled_and_judged_once() -> None:
    parts = [ish("f1", "1", nuclei=12), ish("f2", "4", nuclei=12)]
    assert all(o.state is SlideState.INDETERMINATE for o in parts)
    case = judged([ihc("s", "2+"), *parts])
    assert case.ish.verdict is not None
    assert case.ish.verdict.estimates is not None
    assert case.ish.verdict.estimates.ratio is not None
    assert (case.ish.verdict.n, case.ish.verdict.group) == (24, "1")
    assert case.ish.verdict.estimates.ratio.value == 180 / 72  # the mean of ratios would be 3.125
    assert case.ish.pooled == ("f1", "f2")
    assert "insufficient_nuclei" not in case.reasons


def test_slides_of_different_groups_are_pooled_and_the_conflict_is_listed() -> None:
    case = judged([ihc("s", "2+"), ish("f1", "1", nuclei=20), ish("f2", "5", nuclei=200)])
    assert case.ish.verdict is not None
    assert case.ish.verdict.group == "5"  # (200 + 400) / (40 + 400)
    assert (case.status, case.decision.her2_class) == ("Equivocal", "equivocal")
    assert case.flags == ("hidden_by_pooling", "review", "ish_conflict")
    assert case.conflicts == (
        "ISH slides differ: f1 group 1, f2 group 5",
        "ISH Positive of f1, pooled Negative",
    )


@pytest.mark.parametrize(
    ("slides", "ish_group", "answer"),
    [
        # 3+ beside 1+: pooled 2+ with a negative ISH, where the block alone is Positive
        ((("s1", "3+", 1), ("s2", "1+", 1)), "5", ("Equivocal", "equivocal", "2+")),
        # 3+ beside a large null block: 0.8 % class 3 cells
        ((("s1", "3+", 1), ("s2", "null", 8)), None, ("Equivocal", "equivocal", "0")),
        ((("s1", "3+", 1), ("s2", "null", 8)), "5", ("Equivocal", "equivocal", "0")),
        # 2+ beside null: without ISH the block alone waits for it, with a negative one it is negative
        ((("s1", "2+", 1), ("s2", "null", 8)), None, ("Equivocal", "equivocal", "0")),
        ((("s1", "2+", 1), ("s2", "null", 8)), "4", ("Equivocal", "equivocal", "0")),
        ((("s1", "2+", 1), ("s2", "null", 8)), "5", ("Negative", "ultralow", "0")),
        # a null is without any stain
        ((("s1", "1+", 1), ("s2", "null", 8)), None, ("Negative", "null", "0")),
        ((("s1", "ultralow", 1), ("s2", "null", 8)), None, ("Negative", "null", "0")),
        ((("s1", "1+", 1), ("s2", "null", 1)), None, ("Negative", "ultralow", "0")),
        ((("s1", "3+", 1), ("s2", "1+", 1)), "1", ("Positive", "pos_IHC2_ISHpos", "2+")),
    ],
)
def test_a_block_is_not_made_negative_by_others(
    slides: tuple[tuple[str, str, int], ...], ish_group: str | None, answer: tuple[str, str, str]
) -> None:
    outcomes = [many(ihc(name, kind, block_id=name), times) for name, kind, times in slides]
    outcomes += [ish("f", ish_group)] if ish_group else []
    case = judged(outcomes)
    assert (case.status, case.decision.her2_class, case.verdict.score) == answer
    hidden = "3+" in {kind for _, kind, _ in slides} or case.status == "Equivocal" or answer[1] == "null"
    assert ("hidden_by_pooling" in case.flags) == ("review" in case.flags) == hidden
    assert any("pooled" in sentence for sentence in case.conflicts) == hidden


def many(outcome: SlideOutcome, times: int) -> SlideOutcome:
    """The same slide with that many times its cells."""
    score = outcome.score
    assert score is not None
    counts = score.counts
    for _ in range(times - 1):
        counts = counts + score.counts
    verdict = judge(counts, PARAMS, BREAST, ())
    return dataclasses.replace(outcome, score=dataclasses.replace(score, counts=counts, verdict=verdict))


def test_two_probes_outrank_one() -> None:
    case = judged([ihc("s", "2+"), ish("f1", "single_positive"), ish("f2", "5")])
    assert (case.ish.pooled, case.decision.her2_class) == (("f2",), "low_2plus")
    assert case.conflicts == ("ISH slides differ: f1 group single_positive, f2 group 5",)
    equivocal = judged([ihc("s", "2+"), ish("f1", "single_equivocal"), ish("f2", "1")])
    assert (equivocal.decision.her2_class, equivocal.conflicts) == ("pos_IHC2_ISHpos", ())


def test_slides_that_do_not_speak_are_named_and_never_negative() -> None:
    case = judged(
        [
            ihc("s1", "2+"),
            failed("s2"),
            failed("s3", state=SlideState.SKIPPED),
            ish("f1", "5", quality=BLURRED),
            ish("f2", "5", unresolved=True),
            failed("f3", Assay.DISH, SlideState.FAILED),
        ]
    )
    assert (case.status, case.decision.her2_class, case.ish.pooled) == ("Equivocal", "equivocal", ())
    assert (case.indeterminate, case.failed, case.skipped) == (("f1", "f2"), ("f3", "s2"), ("s3",))
    assert case.incomplete


def test_a_specimen_without_ihc_has_no_ihc_reasons() -> None:
    case = judged([ish("f", "5", nuclei=30)])
    assert (case.status, case.reasons) == ("Negative", ("limited_nuclei",))


def test_a_second_population_is_said_and_changes_no_status() -> None:
    plain = ish("f", "5", nuclei=200)
    assert plain.ish is not None
    found = SecondPopulation(signals("1", 40), "1", 0.2, "5")
    case = judged(
        [ihc("s", "2+"), dataclasses.replace(plain, ish=dataclasses.replace(plain.ish, population=found))]
    )
    assert (case.decision.her2_class, case.flags) == ("low_2plus", ("second_population", "review"))
    assert case.ish.populations == ("f: group 1 in 20 % of nuclei, group 5 elsewhere",)


def test_the_manifest_refuses_a_case_of_two_patients(tmp_path: Path) -> None:
    lines = ["slide_id,case_id,patient_id,uri,assay"]
    lines += [f"s{i},c1,{p},s{i}.tif,HER2-IHC" for i, p in enumerate(("p1", "", "p2"))]
    (tmp_path / "m.csv").write_text("\n".join(lines))
    with pytest.raises(ManifestError, match=r"row 4, patient_id: 'p2', but case 'c1' is 'p1' in row 2"):
        read_manifest(str(tmp_path / "m.csv"))


COHORT = [
    ihc("a1", "3+", case_id="a", patient_id="p1", site="primary", block_id="b1", reader_score="2+"),
    ihc("a2", "1+", case_id="a", patient_id="p1", site="primary", block_id="b2"),
    ish("a3", "4", "4", case_id="a", patient_id="p1", site="primary", ish_status="Positive", ish_source="x"),
    ish("a4", "5", case_id="a", patient_id="p1", site="primary"),
    ihc("a5", "3+", case_id="a", patient_id="p1", site="metastasis:liver"),
    failed("a6", case_id="a", patient_id="p1", site="metastasis:liver"),
    ihc("b1", "2+", case_id="b", patient_id="p2"),
    ihc("c1", "1+", case_id="c", patient_id="p1", collection_date="2020"),
    ish("d1", "3", case_id="d"),
]


@settings(max_examples=30, deadline=None)
@given(st.permutations(COHORT))
def test_slides_may_come_in_any_order(outcomes: list[SlideOutcome]) -> None:
    cases = score_cases(outcomes, PARAMS, BREAST, ISH_PARAMS)
    assert cases == score_cases(COHORT, PARAMS, BREAST, ISH_PARAMS)
    shuffled = random.Random(1).sample(cases, len(cases))
    assert score_patients(shuffled) == score_patients(cases)


def test_a_late_ish_slide_changes_its_case_and_nothing_else() -> None:
    before = score_cases(COHORT, PARAMS, BREAST, ISH_PARAMS)
    after = score_cases([*COHORT, ish("b2", "1", case_id="b", patient_id="p2")], PARAMS, BREAST, ISH_PARAMS)
    old, new = ({c.name: c for c in cases} for cases in (before, after))
    assert [name for name in new if new[name] != old[name]] == ["b"]
    assert (old["b"].decision.her2_class, new["b"].decision.her2_class) == ("equivocal", "pos_IHC2_ISHpos")
    assert (new["b"].counts, new["b"].verdict) == (old["b"].counts, old["b"].verdict)
    assert (new["b"].ish.arm_source, new["b"].ish.pooled) == ("measured", ("b2",))
    patients = [{p.patient_id: p for p in score_patients(cases)} for cases in (before, after)]
    assert [name for name in patients[1] if patients[0][name] != patients[1][name]] == ["p2"]


# results of others


@pytest.mark.parametrize(
    ("kind", "said", "answer", "groups"),
    [
        # ratio and copies: the same rules
        ("2+", {"ish_ratio": 2.0, "ish_her2": 4.0}, ("pos_IHC2_ISHpos", None), ("1",)),
        ("2+", {"ish_ratio": 1.99, "ish_her2": 3.99}, ("low_2plus", None), ("5",)),
        ("2+", {"ish_ratio": 2.4, "ish_her2": 3.6}, ("equivocal", RECOUNT), ("2",)),
        ("1+", {"ish_ratio": 2.4, "ish_her2": 3.6}, ("low_1plus", None), ("2",)),
        ("1+", {"ish_ratio": 2.4, "ish_her2": 5.0}, ("pos_ISH_only", None), ("1",)),
        ("few cells", {"ish_ratio": 1.2, "ish_her2": 6.0}, ("indeterminate", "PENDING_IHC"), ("3",)),
        ("2+", {"ish_her2": 4.6, "ish_cep17": 2.3}, ("pos_IHC2_ISHpos", None), ("1",)),
        # copies alone: a single probe
        ("2+", {"ish_her2": 6.0}, ("pos_IHC2_ISHpos", None), ("single_positive",)),
        ("2+", {"ish_her2": 5.9}, ("equivocal", DUAL), ("single_equivocal",)),
        ("2+", {"ish_her2": 3.9}, ("low_2plus", None), ("single_negative",)),
        # a ratio alone leaves groups open
        ("1+", {"ish_ratio": 1.1}, ("low_1plus", None), ("3", "4", "5")),
        ("2+", {"ish_ratio": 1.1}, ("equivocal", PERSON), ("3", "4", "5")),
        ("2+", {"ish_ratio": 1.1, "ish_status": "Negative"}, ("low_2plus", None), ("3", "4", "5")),
        ("2+", {"ish_ratio": 3.2, "ish_status": "Positive"}, ("pos_IHC2_ISHpos", None), ("1", "2")),
        # a word alone
        ("2+", {"ish_status": "Positive"}, ("pos_IHC2_ISHpos", None), ()),
        ("2+", {"ish_status": "negative"}, ("low_2plus", None), ()),
        ("2+", {"ish_status": "Equivocal"}, ("equivocal", PERSON), ()),
        ("1+", {"ish_status": "Positive"}, ("pos_ISH_only", None), ()),
        ("2+", {"ish_cep17": 2.0}, ("equivocal", PERSON), ()),
        # a ratio and CEP17 copies give HER2 copies
        ("1+", {"ish_ratio": 5.0, "ish_cep17": 2.0}, ("pos_ISH_only", None), ("1",)),
        ("null", {"ish_ratio": 5.0, "ish_cep17": 2.0}, ("pos_ISH_only", None), ("1",)),
        ("2+", {"ish_ratio": 2.4, "ish_cep17": 1.5}, ("equivocal", RECOUNT), ("2",)),
        ("2+", {"ish_ratio": 1.5, "ish_cep17": 4.5}, ("equivocal", RECOUNT), ("3",)),
        ("2+", {"ish_ratio": 1.1, "ish_cep17": 2.0}, ("low_2plus", None), ("5",)),
        # what leaves the result open beside 0 or 1+ is for a person, and never negative
        ("1+", {"ish_ratio": 5.0}, ("equivocal", PERSON), ("1", "2")),
        ("null", {"ish_ratio": 5.0}, ("equivocal", PERSON), ("1", "2")),
        ("1+", {"ish_status": "Equivocal"}, ("equivocal", PERSON), ()),
        ("ultralow", {"ish_cep17": 2.0}, ("equivocal", PERSON), ()),
        # a group, and a recount
        ("1+", {"ish_group": "1"}, ("pos_ISH_only", None), ("1",)),
        ("2+", {"ish_group": "4"}, ("equivocal", RECOUNT), ("4",)),
        ("2+", {"ish_group": "4", "ish_recount_group": "4"}, ("low_2plus", None), ("4",)),
        ("2+", {"ish_group": "3", "ish_recount_group": "3"}, ("pos_IHC2_ISHpos", None), ("3",)),
        ("2+", {"ish_group": "4", "ish_recount_group": "1"}, ("equivocal", PERSON), ("4",)),
        ("2+", {"ish_ratio": 1.6, "ish_her2": 4.2, "ish_recount_group": "4"}, ("low_2plus", None), ("4",)),
        # a ratio of 1.96 and 3.97 copies are written as 2.0 and 4.0
        ("2+", {"ish_ratio": 2.0, "ish_her2": 4.0, "ish_group": "5"}, ("low_2plus", None), ("5",)),
        # a word for groups 2 to 4 is older than the groups
        ("3+", {"ish_ratio": 1.6, "ish_her2": 4.2, "ish_status": "Negative"}, ("pos_IHC3", None), ("4",)),
        ("2+", {"ish_ratio": 1.3, "ish_her2": 6.4, "ish_status": "Negative"}, ("equivocal", RECOUNT), ("3",)),
    ],
)
def test_a_laboratory_s_result_stands_in_where_there_is_no_slide(
    kind: str, said: dict[str, Any], answer: tuple[str, str | None], groups: tuple[str, ...]
) -> None:
    stained = IHC_STATES[kind][0]
    slide = dataclasses.replace(stained.slide, ish_source="lab 7", **said)
    case = judged([dataclasses.replace(stained, slide=slide)])
    assert (case.decision.her2_class, case.pending) == answer
    (external,) = case.ish.external
    assert (external.source, external.groups, external.slides) == ("lab 7", groups, ("s",))
    assert case.ish.arm_source == "external:lab 7"
    assert case.ish.decision is None
    assert case.conflicts == ()
    undecided = external.decision is None
    assert ("external_ish_undecided" in case.flags) == undecided
    assert not undecided or "review" in case.flags


@pytest.mark.parametrize(
    ("said", "conflict"),
    [
        ({"ish_ratio": 3.1, "ish_status": "Negative"}, "Negative, but ratio 3.1"),
        ({"ish_ratio": 1.2, "ish_status": "Positive"}, "Positive, but ratio 1.2"),
        (
            {"ish_ratio": 3.1, "ish_her2": 6.2, "ish_status": "Negative"},
            "Negative, but group 1",
        ),
        ({"ish_ratio": 2.2, "ish_her2": 3.2, "ish_cep17": 2.7}, "ratio 2.2, but HER2 3.2 / CEP17 2.7"),
        ({"ish_ratio": 3.1, "ish_her2": 6.2, "ish_status": "equivocal"}, "equivocal, but group 1"),
        ({"ish_ratio": 1.1, "ish_her2": 2.2, "ish_group": "1"},
         "group 1, but its numbers are those of group 5"),
        ({"ish_group": "single_positive", "ish_ratio": 2.5, "ish_her2": 5.0},
         "group single_positive, but its numbers are those of group 1"),
        ({"ish_group": "amplified"}, "group amplified is none of ish_asco_cap_2018"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("kind", ["2+", "1+", "null"])
def test_what_contradicts_itself_decides_nothing(kind: str, said: dict[str, Any], conflict: str) -> None:
    case = judged([ihc("s", kind, **said)])
    assert (case.status, case.pending, case.ish.arm_source) == ("Equivocal", PERSON, "external:unnamed")
    assert case.conflicts == (f"external ISH of unnamed: {conflict}",)
    assert {"external_ish_undecided", "ish_conflict", "review"} <= set(case.flags)
    assert judged([ihc("s", "3+", **said)]).status == "Positive"


@pytest.mark.parametrize(
    ("said", "groups", "conflicts", "rounded"),
    [
        # three rounded numbers that fit: the ratio as written counts, it was made of what was not rounded
        (("2.0", "4.0", "2.1"), ("1",), (), False),
        (("2.1", "6", "2.9"), ("1",), (), False),
        (("3", "6.5", "2.0"), ("1",), (), False),
        (("5.15", "10.3", "2.0"), ("1",), (), False),
        # three that do not, of one group either way: said
        (("3.0", "8.0", "2.0"), ("1",), ("ratio 3.0, but HER2 8.0 / CEP17 2.0",), False),
        # a computed number is as rounded as what it is made of
        (("2.2", None, "1.8"), ("2",), (), True),  # 3.96 copies, of 3.76 to 4.16
        (("2.0", None, "2.0"), ("1",), (), True),
        ((None, "4.6", "2.3"), ("1",), (), True),  # ratio 1.94 to 2.07: also group 4, which is Negative
        (("2.20", None, "1.70"), ("2",), (), False),
    ],
)
def test_rounding_is_tolerated_and_said_where_it_matters(
    said: tuple[str | None, ...], groups: tuple[str, ...], conflicts: tuple[str, ...], rounded: bool
) -> None:
    numbers = {
        name: None if text is None else Decimal(text)
        for name, text in zip(("ish_ratio", "ish_her2", "ish_cep17"), said, strict=True)
    }
    case = judged([ihc("s", "1+", **numbers)])
    (external,) = case.ish.external
    assert external.groups == groups
    assert case.conflicts == tuple(f"external ISH of unnamed: {c}" for c in conflicts)
    assert ("external_ish_rounded" in case.flags) == external.rounded == rounded


def test_a_word_of_an_older_guideline_is_listed() -> None:
    case = judged([ihc("s", "1+", ish_ratio=2.4, ish_her2=3.6, ish_status="positive")])
    assert (case.status, case.decision.her2_class) == ("Negative", "low_1plus")
    assert case.conflicts == ("external ISH of unnamed: positive, but group 2 is Negative beside IHC 1+",)
    assert case.flags == ("ish_conflict", "review")
    agreed = judged([ihc("s", "1+", ish_ratio=2.4, ish_her2=3.6, ish_status="negative")])
    assert (agreed.conflicts, agreed.flags) == ((), ())


def test_strong_cells_below_the_floor_ask_for_a_person() -> None:
    few = dataclasses.replace(ihc("s", "null"), score=None)
    for n3, flags in ((40, ("strong_below_floor", "review")), (9, ())):
        counts = ClassCounts(n0=5000 - n3, n3=n3, contiguous_3=n3, cluster_3=n3)
        score = ihc("s", "null").score
        assert score is not None
        verdict = judge(counts, PARAMS, BREAST, ())
        held = dataclasses.replace(score, counts=counts, verdict=verdict)
        case = judged([dataclasses.replace(few, score=held)])
        assert (case.status, case.decision.her2_class, case.flags) == ("Negative", "ultralow", flags)


def test_rows_may_round_one_number_differently() -> None:
    rows = [ihc(f"s{i}", "2+", ish_ratio=Decimal(r)) for i, r in enumerate(("1.1", "1.12", "1"))]
    (external,) = judged(rows).ish.external
    assert (str(external.ratio), external.conflicts) == ("1.12", ())


def test_a_laboratory_s_recount_is_one_of_our_count() -> None:
    waiting = judged([ihc("s", "2+"), ish("f", "4", ish_recount_group="4", ish_source="lab")])
    assert (waiting.decision.her2_class, waiting.ish.arm_source) == ("low_2plus", "measured")
    other = judged([ihc("s", "2+"), ish("f", "4", ish_recount_group="1", ish_source="lab")])
    assert (other.status, other.pending) == ("Equivocal", PERSON)
    ours = judged([ihc("s", "2+"), ish("f", "4", "5", ish_recount_group="4", ish_source="lab")])
    assert ours.pending == PERSON


def test_what_was_measured_outranks_what_was_reported() -> None:
    case = judged([ihc("s", "2+"), ish("f", "5", ish_status="Positive", ish_source="lab")])
    assert (case.decision.her2_class, case.ish.arm_source) == ("low_2plus", "measured")
    assert case.conflicts == ("external ISH of lab: Positive, measured group 5",)
    assert case.flags == ("ish_conflict", "review")
    assert [str(e) for e in case.ish.external] == ["lab: Positive (Positive)"]
    same_result = judged([ihc("s", "1+", ish_ratio=1.2, ish_her2=4.8), ish("f", "5")])
    assert same_result.conflicts == ("external ISH of unnamed: group 4, measured group 5",)


def test_a_report_stands_in_for_a_pending_count_but_never_for_a_person() -> None:
    said = {"ish_status": "Negative", "ish_source": "lab"}
    waiting = judged([ihc("s", "2+", **said), ish("f", "4")])
    assert (waiting.decision.her2_class, waiting.ish.arm_source, waiting.pending) == (
        "low_2plus",
        "external:lab",
        None,
    )
    assert waiting.ish.decision is not None
    assert waiting.ish.decision.result == RECOUNT  # still visible
    disputed = judged([ihc("s", "2+", **said), ish("f", "4", "5")])
    assert (disputed.status, disputed.ish.arm_source, disputed.pending) == ("Equivocal", "measured", PERSON)
    unread = judged([ihc("s", "2+", **said), ish("f", "1", nuclei=19)])
    assert (unread.decision.her2_class, unread.ish.arm_source) == ("low_2plus", "external:lab")


def test_laboratories_that_differ_decide_nothing() -> None:
    rows = [
        ihc("s1", "2+", ish_status="Positive", ish_source="b"),
        ihc("s2", "2+", ish_status="Negative", ish_source="a"),
    ]
    case = judged(rows)
    assert (case.status, case.conflicts) == ("Equivocal", ("external ISH differs: a Negative, b Positive",))
    low = judged([replace_kind(o, "1+") for o in rows])
    assert (low.status, low.pending, "review" in low.flags) == ("Equivocal", PERSON, True)
    twice = judged([ihc(f"s{i}", "2+", ish_ratio=r, ish_source="a") for i, r in enumerate((3.0, 1.0))])
    assert twice.conflicts == ("external ISH of a: ish_ratio is 1.0 and 3.0",)
    same = judged([ihc(f"s{i}", "2+", ish_status="Positive", ish_source=lab) for i, lab in enumerate("ab")])
    assert (same.decision.her2_class, same.ish.arm_source, same.conflicts) == (
        "pos_IHC2_ISHpos",
        "external:a",
        (),
    )


@pytest.mark.parametrize(
    ("kind", "read", "conflict"),
    [
        ("1+", "3+", "s: reader 3+, scored 1+"),
        ("1+", "1+", None),
        ("ultralow", "0", None),
        ("ultralow", "0_null", "s: reader 0_null, scored 0 ultralow"),
        ("null", "0_ultralow", "s: reader 0_ultralow, scored 0 null"),
        ("0_unresolved", "0_null", None),
        ("null", "1+", "s: reader 1+, scored 0 null"),
        ("few", "3+", None),
    ],
)
def test_a_reader_is_kept_beside_and_differences_are_listed(
    kind: str, read: str, conflict: str | None
) -> None:
    case = judged([ihc("s", kind, reader_score=read)])
    assert case.reader_scores == (f"s={read}",)
    assert case.conflicts == ((conflict,) if conflict else ())
    assert case.decision == judged([ihc("s", kind)]).decision


# blocks, dates, patients


def test_blocks_are_compared_with_their_slides_pooled() -> None:
    slides = [("s1", "3+", "a"), ("s2", "null", "a"), ("s3", "null", "a"), ("s4", "1+", "b")]
    case = judged([ihc(name, kind, block_id=block) for name, kind, block in slides])
    assert (case.discordance, case.slide_max) == (3, "3+")
    assert case.block_discordance == 1  # block a: 20 strong of 698, 2+; block b: 1+
    assert case.n_blocks == 2
    assert judged([ihc("s1", "3+", block_id="a"), ihc("s2", "1+")]).block_discordance is None


@pytest.mark.parametrize(
    ("dates", "date", "conflicts"),
    [
        ((None, None), None, ()),
        (("2020-03-01", None), "2020-03-01", ()),
        (("2020-03", "2020-03-01"), "2020-03-01", ()),
        (("2020-03-01", "2020-04"), None, ("collection dates differ: 2020-03-01, 2020-04",)),
    ],
)
def test_a_specimen_has_one_date_or_none(
    dates: tuple[str | None, ...], date: str | None, conflicts: tuple[str, ...]
) -> None:
    case = judged([ihc(f"s{i}", "1+", collection_date=d) for i, d in enumerate(dates)])
    assert (case.collection_date, case.conflicts) == (date, conflicts)


def patient(*outcomes: SlideOutcome, has_low: bool = True) -> PatientScore:
    rules, ish_params = (BREAST, ISH_PARAMS) if has_low else (GASTRIC, GASTRIC_ISH)
    (found,) = score_patients(score_cases(outcomes, PARAMS, rules, ish_params))
    return found


@pytest.mark.parametrize(
    ("dates", "index", "basis"),
    [
        (("2020-03-01", "2021-03-01"), "c1/1", "latest_date"),
        (("2021", "2020-12-31"), "c1/0", "latest_date"),
        (("2021", "2021-05-01"), None, "date_tied"),
        (("2021-05-01", "2021-05-01"), None, "date_tied"),
        (("2021-05-01", None), None, "date_missing"),
        ((None,), "c1/0", "only_specimen"),
    ],
)
def test_the_index_specimen_is_surely_the_last(
    dates: tuple[str | None, ...], index: str | None, basis: str
) -> None:
    slides = [ihc(f"s{i}", "1+", specimen_id=str(i), collection_date=d) for i, d in enumerate(dates)]
    found = patient(*slides)
    assert (found.index.specimen if found.index else None, found.index_basis) == (index, basis)


@pytest.mark.parametrize(
    ("kinds", "ever"),
    [
        (("null", "1+"), True),
        (("null", "2+"), True),  # equivocal: low or positive
        (("null", "ultralow", "0_unresolved"), False),
        (("null", "few"), None),
        (("3+", "few"), True),
    ],
)
def test_ever_low_or_higher(kinds: tuple[str, ...], ever: bool | None) -> None:
    slides = [ihc(f"s{i}", kind, specimen_id=str(i)) for i, kind in enumerate(kinds)]
    assert patient(*slides).ever_low_or_higher is ever
    assert patient(*slides, has_low=False).ever_low_or_higher is None


@pytest.mark.parametrize(
    ("primary", "metastasis", "agreement", "change"),
    [
        ("3+", "3+", "concordant", "positive to positive"),
        ("3+", "1+", "discordant", "positive to low"),
        ("null", "ultralow", "concordant", "zero to zero"),
        ("null", "1+", "discordant", "zero to low"),
        ("null", "2+", "discordant", None),  # low or positive, surely not zero
        ("1+", "2+", None, None),
        ("3+", "few", None, None),
    ],
)
def test_primary_and_metastasis_are_compared_and_never_merged(
    primary: str, metastasis: str, agreement: str | None, change: str | None
) -> None:
    found = patient(
        ihc("s1", primary, site="primary"),
        ihc("s2", metastasis, site="metastasis:liver"),
        ihc("s3", "1+", site="lymph_node"),
    )
    assert (found.primary_metastasis, found.change) == (agreement, change)
    assert found.lesions == ("lymph_node", "metastasis:liver", "primary")
    assert found.primary is not None
    assert found.primary.her2_class == judged([ihc("s1", primary)]).decision.her2_class
    assert len(found.specimens) == 3


def test_a_zero_that_waits_for_a_person_is_zero_or_positive() -> None:
    waiting = ihc("s1", "null", site="primary", ish_ratio=5.0)
    one = patient(waiting, ihc("s2", "null", site="metastasis"))
    assert (one.primary_metastasis, one.ever_low_or_higher) == (None, None)
    other = patient(waiting, ihc("s2", "1+", site="metastasis"))
    assert (other.primary_metastasis, other.ever_low_or_higher) == ("discordant", True)
    hidden = patient(
        *(many(ihc(name, kind, site="primary"), n) for name, kind, n in (("s1", "3+", 1), ("s2", "null", 8))),
        ihc("s3", "1+", site="metastasis"),
    )
    assert hidden.primary_metastasis is None


def test_of_several_primaries_the_highest_stands() -> None:
    found = patient(
        ihc("s1", "few", specimen_id="1", site="primary"),
        ihc("s2", "1+", specimen_id="2", site="primary", reader_score="2+"),
        ihc("s3", "null", specimen_id="3", site="primary"),
        ish("f3", "5", specimen_id="3", site="primary"),
    )
    assert found.primary is not None
    assert (found.primary.specimen, found.metastasis, found.primary_metastasis) == (
        "c1/2/primary",
        None,
        None,
    )
    assert found.incomplete
    assert found.conflicts == ("c1/2/primary: s2: reader 2+, scored 1+",)


def test_a_patient_is_named_by_its_case_where_the_manifest_names_none() -> None:
    cases = score_cases(COHORT, PARAMS, BREAST, ISH_PARAMS)
    found = {p.patient_id: p for p in score_patients(cases)}
    assert set(found) == {"p1", "p2", "d"}
    assert found["p1"].specimens == ("a/metastasis:liver", "a/primary", "c")
    assert found["p1"].statuses[0] == "Positive"
    assert found["p1"].block_discordance == 2


def test_rows_hold_every_column_of_their_tables() -> None:
    cases = score_cases(COHORT, PARAMS, BREAST, ISH_PARAMS)
    rows = [case_row(case, BREAST) for case in cases]
    assert all(set(r) == set(CASES.schema.names) for r in rows)
    written = pa.Table.from_pylist(rows, schema=CASES.schema).to_pylist()
    primary = next(r for r in written if (r["case_id"], r["site"]) == ("a", "primary"))
    assert (primary["her2_class"], primary["ihc_class"], primary["ish_group"]) == (
        "equivocal",  # a block of 3+ is not made Negative by another
        "equivocal_2plus",
        "5",
    )
    assert primary["flags"] == ["hidden_by_pooling", "review", "ish_conflict"]
    assert primary["slides"] == ["a1", "a2", "a3", "a4"]
    assert primary["external_ish"] == ["x: Positive (Positive)"]
    assert primary["slides_ish"] == ["a3", "a4"]
    reported = case_row(score_case([ihc("s", "2+", ish_ratio=2.1)], PARAMS, BREAST, ISH_PARAMS), BREAST)
    assert (reported["ish_group"], reported["ish_rules"]) == (None, ISH_RULES.name)
    assert primary["gh_category"] == "underpowered"
    people = [patient_row(p) for p in score_patients(cases)]
    assert all(set(r) == set(PATIENTS.schema.names) for r in people)
    assert pa.Table.from_pylist(people, schema=PATIENTS.schema).num_rows == 3
