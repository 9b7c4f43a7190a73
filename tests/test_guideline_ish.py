"""ISH rules at every boundary, one signal either side, and every group beside every state of IHC."""

from __future__ import annotations

import itertools
import math
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from her2core.config import load_config
from her2core.errors import ConfigError
from her2core.guidelines.rule_files import rule_files
from her2core.guidelines.rules_ish import (
    SINGLE_GROUPS,
    ISHResult,
    ish_rules_for,
    load_ish_rules,
    parse_ish_rules,
)

NAME = "ish_asco_cap_2018"
RULES = load_ish_rules(NAME)
GASTRIC = load_ish_rules("ish_gastric_toga")
DUAL_GROUPS, GROUPS = RULES.dual_groups, RULES.groups
POS, NEG = ISHResult.POSITIVE, ISHResult.NEGATIVE
IHC, RECOUNT = ISHResult.PENDING_IHC, ISHResult.PENDING_RECOUNT
DUAL, PERSON = ISHResult.PENDING_DUAL_PROBE, ISHResult.ADJUDICATE


# the file


def test_the_rule_set_is_there_with_citations_and_apart_from_those_of_immunohistochemistry() -> None:
    assert tuple(rule_files("ish")) == (NAME, "ish_gastric_toga")
    assert not set(rule_files("ish")) & set(rule_files("ihc"))
    assert (ish_rules_for("breast"), ish_rules_for("gastric")) == (NAME, "ish_gastric_toga")
    with pytest.raises(ConfigError, match="expected one"):
        ish_rules_for("colon")
    for rules in (RULES, GASTRIC):
        assert rules.version >= 1
        assert all(any(c.isdigit() for c in citation) for citation in rules.citations)
        assert all(line.source.endswith(".") for line in rules.dual_probe + rules.single_probe)


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ("name: ish", "name: ash", "ash_asco"),
        ("tumour: breast", "tumour: colon", "expected one of"),
        ("ratio_at_least: 2,", "ratio_at_least: 2.0,", "whole numbers"),
        ("ratio_at_least: 2,", "ratio_at_least: 3,", "0 groups hold"),
        ("copies_below: 6", "copies_below: 7", "2 groups hold"),
        ("ratio_below: 2, copies_at_least: 6", "ratio_below: 2, copies_at_least: 5", "2 groups hold"),
        ('group: "2"', 'group: "6"', "expected"),
        ("group: single_negative, ", "group: single_negative, ratio_below: 2, ", "0 groups hold"),
        ("[Positive,    Positive,", "[Positively, Positive,", "Positively"),
        ("[Positive,    Positive,", "[Positive,", "columns"),
        ('  "5":              [', '  "6":              [', "rows"),
        ('  "3":\n    Negative: ', '  "3":\n    Maybe: ', "never"),
        ("ratio_above: [11, 5]", "ratio_above: [2.2, 1]", "whole numbers"),
        ("percent_from: 5 ", "percent_from: 60 ", "percent_from"),
        ("min_nuclei: 200", "least_nuclei: 200", "least_nuclei"),
        ("citations:", "quotations:", "citations"),
        ("dual_probe:", "- [", NAME),
        ("dual_probe:", f"dual_probe: {'[' * 600}", "RecursionError"),
    ],
)
def test_a_rule_set_that_makes_no_sense_is_refused_in_words(old: str, new: str, complaint: str) -> None:
    text = rule_files("ish")[NAME]
    assert old in text
    with pytest.raises(ConfigError, match=complaint):
        parse_ish_rules(text.replace(old, new, 1), NAME)


@pytest.mark.parametrize(("middle", "high", "ratio"), [(3, 5, 2), (5, 7, 3), (2, 6, 7), (6, 7, 4)])
def test_cut_offs_may_be_any_whole_numbers_from_2_to_7(middle: int, high: int, ratio: int) -> None:
    text = rule_files("ish")[NAME]
    for word, old, new in (("copies", 6, f"_{high}"), ("copies", 4, f"_{middle}"), ("ratio", 2, f"_{ratio}")):
        for end in ("at_least", "below"):
            text = text.replace(f"{word}_{end}: {old}", f"{word}_{end}: {new}")
    rules = parse_ish_rules(text.replace(": _", ": "), NAME)
    assert rules.group(1, middle, None) == "single_equivocal"
    assert rules.group(1, high, None) == "single_positive"
    assert rules.group(1, 7 * ratio, 7) == "1"
    assert rules.group(100, 700 * ratio - 1, 700) != "1"


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("copies_below: 6", "copies_below: 8"),
        ("percent_from: 5 ", "percent_from: 0 "),
        ("percent_from: 5 ", "percent_from: 50 "),
        ("percent_to: 50", "percent_to: 100"),
        ("min_nuclei: 200", "min_nuclei: 0"),
        ("ratio_above: [11, 5]", "ratio_above: [11, 0]"),
    ],
)
def test_a_number_at_its_limit_is_refused(old: str, new: str) -> None:
    text = rule_files("ish")[NAME]
    assert old in text
    with pytest.raises(ConfigError):
        parse_ish_rules(text.replace(old, new), NAME)


@pytest.mark.parametrize(
    ("ratio", "copies", "crossed"),
    [
        ((1.9, 2.0), (4.5, 5.5), ("ratio 2",)),
        ((2.0, 2.1), (4.5, 5.5), ()),
        ((1.8, 1.9), (4.5, 5.5), ()),
        ((2.5, 3.0), (3.9, 4.0), ("copies 4",)),
        ((2.5, 3.0), (4.0, 5.9), ()),
        ((1.0, 2.0), (3.0, 6.0), ("ratio 2", "copies 4", "copies 6")),
    ],
)
def test_a_range_crosses_a_cut_off_that_it_reaches_from_below(
    ratio: tuple[float, float], copies: tuple[float, float], crossed: tuple[str, ...]
) -> None:
    assert RULES.crossed(ratio, copies) == crossed


def test_an_unknown_rule_set_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"'breast'.*ish_asco_cap_2018"):
        load_ish_rules("breast")


def test_a_configuration_that_names_no_rule_set_is_refused_before_any_work() -> None:
    with pytest.raises(ConfigError, match=r"'ish_2013'.*ish_asco_cap_2018"):
        load_config(environment={"HER2_ISH_SCORE__RULES": "ish_2013"})


# groups, spec §2.2 and spec §2.3


@pytest.mark.parametrize(
    ("her2", "cep17", "group"),
    [
        # 100 nuclei; ratio exactly 2.0 and one signal either side, copies of 4.0 and more
        (400, 200, "1"),
        (401, 200, "1"),
        (399, 200, "5"),
        (400, 201, "4"),
        (400, 199, "1"),
        (600, 300, "1"),
        (600, 301, "3"),
        (601, 300, "1"),
        (599, 300, "4"),
        # ratio of 2.0, fewer than 4.0 copies
        (300, 150, "2"),
        (300, 149, "2"),
        (299, 150, "5"),
        (300, 151, "5"),
        # copies exactly 4.0 and one signal either side
        (399, 199, "2"),
        (400, 300, "4"),
        (399, 300, "5"),
        (401, 300, "4"),
        (399, 150, "2"),
        (400, 150, "1"),
        # copies exactly 6.0 and one signal either side, below ratio 2.0
        (600, 400, "3"),
        (599, 400, "4"),
        (601, 400, "3"),
        # above ratio 2.0 the cut at 6.0 means nothing
        (599, 200, "1"),
        (600, 200, "1"),
        # far from all
        (1200, 200, "1"),
        (200, 200, "5"),
        (160, 200, "5"),
        (900, 700, "3"),
        (0, 100, "5"),
    ],
)
def test_dual_probe(her2: int, cep17: int, group: str) -> None:
    assert RULES.group(100, her2, cep17) == group
    assert RULES.group(100_000_000_000, her2 * 1_000_000_000, cep17 * 1_000_000_000) == group


def test_a_mean_is_judged_unrounded() -> None:
    assert RULES.group(1_000_000, 3_999_999, 1_000_000) == "2"  # 4.00 rounded
    assert RULES.group(10_000_000, 60_000_000, 30_000_001) == "3"  # ratio 2.0 rounded
    assert RULES.group(3, 12, 6) == "1"


@pytest.mark.parametrize(
    ("her2", "group"),
    [
        (399, "single_negative"),
        (400, "single_equivocal"),
        (401, "single_equivocal"),
        (599, "single_equivocal"),
        (600, "single_positive"),
        (601, "single_positive"),
        (100, "single_negative"),
        (2000, "single_positive"),
    ],
)
def test_single_probe(her2: int, group: str) -> None:
    assert RULES.group(100, her2, None) == group


@given(n=st.integers(1, 500), her2=st.integers(0, 6000), cep17=st.integers(1, 3000))
def test_every_pair_of_sums_has_one_group_by_exact_fractions(n: int, her2: int, cep17: int) -> None:
    ratio, copies = Fraction(her2, cep17), Fraction(her2, n)
    if ratio >= 2:
        expected = "1" if copies >= 4 else "2"
    else:
        expected = "3" if copies >= 6 else "4" if copies >= 4 else "5"
    assert RULES.group(n, her2, cep17) == expected
    of_one = "single_positive" if copies >= 6 else "single_equivocal" if copies >= 4 else "single_negative"
    assert RULES.group(n, her2, None) == of_one


@pytest.mark.parametrize("sums", [(0, 0, None), (0, 0, 1), (20, 40, 0), (20, -1, 40), (-1, 40, 40)])
def test_sums_that_mean_nothing_are_refused(sums: tuple[int, int, int | None]) -> None:
    with pytest.raises(ValueError, match="expected nuclei"):
        RULES.group(*sums)


# what intervals leave open


@pytest.mark.parametrize(
    ("ratio", "copies", "groups", "crossed"),
    [
        ((2.5, 3.0), (4.5, 5.0), ("1",), ()),
        ((1.9, 2.1), (4.5, 5.0), ("1", "4"), ("ratio 2",)),
        ((1.9, 2.0), (4.5, 5.0), ("1", "4"), ("ratio 2",)),
        ((2.0, 2.1), (4.5, 5.0), ("1",), ()),
        ((1.9, 1.999), (4.5, 5.0), ("4",), ()),
        ((1.9, 2.1), (3.9, 4.1), ("1", "2", "4", "5"), ("ratio 2", "copies 4")),
        ((1.5, 1.6), (5.9, 6.0), ("3", "4"), ("copies 6",)),
        ((1.5, 1.6), (6.0, 6.1), ("3",), ()),
        ((3.0, 4.0), (5.5, 6.5), ("1",), ("copies 6",)),
        ((1.9, 2.1), (3.5, 6.5), ("1", "2", "3", "4", "5"), ("ratio 2", "copies 4", "copies 6")),
        ((0.0, math.inf), (4.5, 4.5), ("1", "4"), ("ratio 2",)),
        ((2.3, 2.3), (0.0, math.inf), ("1", "2"), ("copies 4", "copies 6")),
        ((1.2, 1.2), (3.0, 3.0), ("5",), ()),
        (None, (3.9, 4.1), ("single_negative", "single_equivocal"), ("copies 4",)),
        (None, (4.0, 5.9), ("single_equivocal",), ()),
        (None, (3.0, 7.0), SINGLE_GROUPS, ("copies 4", "copies 6")),
    ],
)
def test_possible_groups(
    ratio: tuple[float, float] | None,
    copies: tuple[float, float],
    groups: tuple[str, ...],
    crossed: tuple[str, ...],
) -> None:
    assert RULES.possible(ratio, copies) == groups
    assert RULES.crossed(ratio, copies) == crossed


@given(n=st.integers(1, 300), her2=st.integers(0, 3000), cep17=st.integers(1, 1500))
def test_numbers_that_are_known_leave_their_own_group(n: int, her2: int, cep17: int) -> None:
    ratio, copies = her2 / cep17, her2 / n
    assert RULES.possible((ratio, ratio), (copies, copies)) == (RULES.group(n, her2, cep17),)
    assert RULES.crossed((ratio, ratio), (copies, copies)) == ()


# group and IHC, spec §2.2 and spec §2.3

TABLE = {
    # no IHC, 0, 1+, 2+ without recount, 2+ recount of the same group, 2+ of another, 3+
    "1": (POS, POS, POS, POS, POS, POS, POS),
    "2": (IHC, NEG, NEG, RECOUNT, NEG, PERSON, POS),
    "3": (IHC, NEG, NEG, RECOUNT, POS, PERSON, POS),
    "4": (IHC, NEG, NEG, RECOUNT, NEG, PERSON, POS),
    "5": (NEG, NEG, NEG, NEG, NEG, NEG, NEG),
    "single_negative": (NEG, NEG, NEG, NEG, NEG, NEG, NEG),
    "single_equivocal": (IHC, NEG, NEG, DUAL, DUAL, DUAL, POS),
    "single_positive": (POS, POS, POS, POS, POS, POS, POS),
}


@pytest.mark.parametrize("group", GROUPS)
def test_every_group_beside_every_state_of_ihc(group: str) -> None:
    none, zero, one, two, two_same, two_other, three = TABLE[group]
    kind = DUAL_GROUPS if group in DUAL_GROUPS else SINGLE_GROUPS
    others = [other for other in kind if other != group]
    assert RULES.resolve(group).result == none
    for score, result in ((None, none), ("0", zero), ("1+", one), ("3+", three)):
        for recount in (None, *kind):  # a recount matters beside IHC 2+ alone
            assert RULES.resolve(group, score, recount).result == result
    assert RULES.resolve(group, "2+").result == two
    assert RULES.resolve(group, "2+", group).result == two_same
    assert [RULES.resolve(group, "2+", other).result for other in others] == [two_other] * len(others)


def test_every_negative_of_groups_2_to_4_carries_its_comment_and_nothing_open_carries_one() -> None:
    for group, score in itertools.product(GROUPS, (None, "0", "1+", "2+", "3+")):
        for recount in (None, group):
            decision = RULES.resolve(group, score, recount)
            wanted = (group in "234" and decision.result == NEG) or group == "single_positive"
            assert bool(decision.comment) == wanted, (group, score, recount)
            assert decision.pending == (decision.result not in ("Positive", "Negative"))


@pytest.mark.parametrize(
    ("dual", "score", "recount", "result"),
    [
        # a dual probe beside an equivocal single one: group 1 or 5 decides, unless IHC says the opposite
        ("1", None, None, POS),
        ("1", "0", None, PERSON),
        ("1", "1+", None, PERSON),
        ("1", "2+", None, POS),
        ("1", "3+", None, POS),
        ("5", None, None, NEG),
        ("5", "0", None, NEG),
        ("5", "1+", None, NEG),
        ("5", "2+", None, NEG),
        ("5", "3+", None, PERSON),
        *(
            (group, *case)
            for group in "24"
            for case in (
                (None, None, IHC),
                ("0", None, NEG),
                ("1+", None, NEG),
                ("3+", None, POS),
                ("2+", None, RECOUNT),
                ("2+", group, NEG),
                ("2+", "5", PERSON),
            )
        ),
        ("3", None, None, IHC),
        ("3", "1+", None, NEG),
        ("3", "3+", None, POS),
        ("3", "2+", None, RECOUNT),
        ("3", "2+", "3", POS),
        ("3", "2+", "1", PERSON),
    ],
)
def test_a_dual_probe_beside_an_equivocal_single_one(
    dual: str, score: str | None, recount: str | None, result: ISHResult
) -> None:
    assert RULES.resolve("single_equivocal", score, recount, dual_group=dual).result == result


@pytest.mark.parametrize(
    "arguments",
    [
        {"group": "6"},
        {"group": "2", "ihc_score": "4+"},
        {"group": "2", "ihc_score": "2"},
        {"group": "2", "recount_group": "single_positive"},
        {"group": "single_equivocal", "recount_group": "1"},
        {"group": "single_equivocal", "dual_group": "single_positive"},
    ],
)
def test_groups_and_scores_that_do_not_exist_are_refused(arguments: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="expected one of"):
        RULES.resolve(**arguments)


# gastric: the ratio alone, as ToGA read it


@pytest.mark.parametrize(
    ("her2", "cep17", "group"),
    [
        # 100 nuclei; ratio exactly 2.0 and one signal either side, whatever the copies
        (200, 100, "amplified"),
        (199, 100, "not_amplified"),
        (300, 150, "amplified"),  # breast's group 2
        (299, 150, "not_amplified"),
        (1200, 600, "amplified"),
        (500, 251, "not_amplified"),  # breast's group 4
        (599, 400, "not_amplified"),
        (600, 400, "high_copies"),  # breast's group 3
        (199, None, "single_negative"),
        (399, None, "single_negative"),
        (400, None, "single_equivocal"),
        (600, None, "single_positive"),
    ],
)
def test_gastric_groups_follow_the_ratio(her2: int, cep17: int | None, group: str) -> None:
    assert GASTRIC.group(100, her2, cep17) == group


@pytest.mark.parametrize("score", [None, "0", "1+", "2+", "3+"])
def test_gastric_results_ask_for_no_recount(score: str | None) -> None:
    expected = {
        "amplified": POS,
        "high_copies": PERSON,
        "not_amplified": NEG,
        "single_negative": NEG,
        "single_equivocal": DUAL,
        "single_positive": POS,
    }
    assert {group: GASTRIC.resolve(group, score).result for group in GASTRIC.groups} == expected


# genetic heterogeneity, CAP 2009


@pytest.mark.parametrize(
    ("amplified", "n", "category"),
    [
        (100, 199, "underpowered"),
        (9, 200, "none"),
        (10, 200, "heterogeneous"),
        (100, 200, "heterogeneous"),
        (101, 200, "amplified"),
        (0, 200, "none"),
        (200, 200, "amplified"),
        (49, 1000, "none"),
        (50, 1000, "heterogeneous"),
    ],
)
def test_share_of_amplified_nuclei(amplified: int, n: int, category: str) -> None:
    assert RULES.heterogeneity.category(amplified, n) == category


def test_cut_offs_of_amplified_nuclei_are_exact() -> None:
    assert Fraction(*RULES.heterogeneity.ratio_above) == Fraction(22, 10)
    assert Fraction(*RULES.heterogeneity.copies_above) == 6
