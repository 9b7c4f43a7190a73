"""Rule sets at every boundary, cell by cell; numbers worked by hand."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from her2core.errors import ConfigError
from her2core.guidelines.rule_files import rule_files
from her2core.guidelines.rules_ihc import (
    NULL_FLOORS,
    PATTERNS,
    SCORES,
    CellClass,
    ClassCounts,
    RuleSet,
    Step,
    load_rules,
    parse_rules,
    reader_stratum,
    rules_for,
    stratum,
)
from her2core.statistics import exact_sum, quantiles, wilson

BREAST, RESECTION, BIOPSY = "breast_asco_cap_2018", "gastric_resection", "gastric_biopsy"
FALSE_STAIN_PPM = 10_000  # 1 %


def counts(n: int, *, n1: int = 0, n2: int = 0, n2u: int = 0, n3: int = 0, **more: int) -> ClassCounts:
    """`n` cells in all, the rest of them negative; class 3 cells hang together unless told otherwise."""
    more.setdefault("contiguous_3", n3)
    return ClassCounts(n0=n - n1 - n2 - n2u - n3, n1=n1, n2=n2, n2u=n2u, n3=n3, **more)


# the files


def test_the_rule_sets_are_there_with_citations_and_a_source_for_every_step() -> None:
    assert tuple(rule_files("ihc")) == (BREAST, "breast_consensus_2026", BIOPSY, RESECTION)
    for name in rule_files("ihc"):
        rules = load_rules(name)
        assert rules.version >= 1
        assert all(any(c.isdigit() for c in citation) for citation in rules.citations)
        assert all(step.source.endswith(".") for step in rules.steps)


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ("name: breast", "name: chest", "chest"),
        ("tumour: breast", "tumour: colon", "expected one of"),
        ("specimens: [biopsy, resection]", "specimens: [smear]", "some of"),
        ("percent: 10", "percent: 10.0", "whole numbers"),
        ('classes: ["3"]', 'classes: ["2"]', "cumulative"),
        ('score: "3+"', 'score: "1+"', "descend"),
        ("unusual_patterns: [", "unusual_patterns: [typo, ", "typo"),
        ("zero_split: true", "zero_split: false", "no class for"),
        ("zero_split: true", "zero_spilt: true", "zero_spilt"),
        ("strong: ", "string: ", "cell_classes"),
        ('strong:   ["0",', "strong:   [", "cell_classes"),
        ("    percent: 1\n", "", "percent or cluster"),
        ("steps:", "- [", "breast_asco_cap_2018"),
        ("strong: ", f"strong: {'[' * 600}", "RecursionError"),
    ],
)
def test_a_rule_set_that_makes_no_sense_is_refused_in_words(old: str, new: str, complaint: str) -> None:
    text = rule_files("ihc")[BREAST]
    assert old in text
    with pytest.raises(ConfigError, match=complaint):
        parse_rules(text.replace(old, new, 1), BREAST)


def test_an_unknown_rule_set_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"'breast'.*breast_asco_cap_2018"):
        load_rules("breast")


# breast, spec §1.1 and spec §1.2


@pytest.mark.parametrize(
    ("cells", "score", "her2_class"),
    [
        # 3+ is more than 10 %: exactly 10.0 % is 2+
        (counts(1000, n3=100), "2+", "equivocal_2plus"),
        (counts(1000, n3=101), "3+", "pos_IHC3"),
        (counts(999, n3=100), "3+", "pos_IHC3"),
        (counts(30, n3=3), "0", "ultralow"),
        (counts(30, n3=4), "3+", "pos_IHC3"),
        # rule b: at least 1 % and at least 10 intense complete cells
        (counts(1000, n3=10), "2+", "equivocal_2plus"),
        (counts(1001, n3=10), "0", "ultralow"),
        (counts(500, n3=9), "0", "ultralow"),
        (counts(5000, n3=49), "0", "ultralow"),
        (counts(5000, n3=50), "2+", "equivocal_2plus"),
        # rule a and weak to moderate complete: cumulative, more than 10 %
        (counts(1000, n2=100), "0", "ultralow"),
        (counts(1000, n2=101), "2+", "equivocal_2plus"),
        (counts(1000, n2u=100), "0", "ultralow"),
        (counts(1000, n2u=101), "2+", "equivocal_2plus"),
        (counts(1000, n2=50, n2u=42, n3=9), "2+", "equivocal_2plus"),
        (counts(1000, n2=50, n2u=41, n3=9), "0", "ultralow"),
        # 1+: any stain in more than 10 %, cumulative
        (counts(1000, n1=100), "0", "ultralow"),
        (counts(1000, n1=101), "1+", "low_1plus"),
        (counts(1000, n1=40, n2=40, n2u=21), "1+", "low_1plus"),
        # 0: ultralow surely above the false-stain rate of 1 %, null at or below it
        (counts(1000, n1=17), "0", "ultralow"),
        (counts(1000, n1=16), "0", "0_unresolved"),  # its 95 % interval reaches from 0.99 to 2.6 %
        (counts(1000, n1=11), "0", "0_unresolved"),
        (counts(1000, n1=10), "0", "null"),
        (counts(1000), "0", "null"),
        # false stain is faint: one cell of class 2 or higher is stain, whatever a control shows
        (counts(1000, n2=1), "0", "ultralow"),
        (counts(1000, n2u=1), "0", "ultralow"),
        (counts(5000, n3=1), "0", "ultralow"),
        (counts(298, n3=1), "0", "ultralow"),
        # null needs cells enough to exclude 1 %: 299
        (counts(299), "0", "null"),
        (counts(298), "0", "0_unresolved"),
        (counts(298, n1=2), "0", "0_unresolved"),
        (counts(298, n1=3), "0", "0_unresolved"),
        (counts(100, n1=4), "0", "ultralow"),
    ],
)
def test_breast(cells: ClassCounts, score: str, her2_class: str) -> None:
    decision = load_rules(BREAST).decide(cells, FALSE_STAIN_PPM)
    assert (decision.score, decision.her2_class) == (score, her2_class)


def test_null_says_what_it_excludes() -> None:
    def floor(n: int) -> float | None:
        return load_rules(BREAST).decide(counts(n), FALSE_STAIN_PPM).null_excludes_pct

    assert [floor(n) for n in (298, 299, 597, 598)] == [None, 1.0, 1.0, 0.5]
    for cells, percent in NULL_FLOORS:  # the smallest n with (1 - p)^n <= 0.05
        assert (1 - percent / 100) ** cells <= 0.05 < (1 - percent / 100) ** (cells - 1)


def test_a_percentage_is_in_doubt_where_its_interval_ends_on_it() -> None:
    """Of no cell the interval begins at 0, of all of them it ends at 100 %."""
    classes = frozenset({CellClass.C3})
    assert Step("3+", classes, "ours", percent=0).in_doubt(counts(100))
    assert Step("3+", classes, "ours", percent=100).in_doubt(counts(100, n3=100))
    assert not Step("3+", classes, "ours", percent=100).in_doubt(counts(100, n3=50))
    for n3, doubt in ((4, False), (6, True), (15, True), (17, False)):
        assert Step("3+", classes, "ours", percent=10).in_doubt(counts(100, n3=n3)) == doubt
    for n3, doubt in ((9, False), (10, True)):
        assert Step("2+", classes, "ours", percent=10, min_cells=10).in_doubt(counts(100, n3=n3)) == doubt


def test_the_false_stain_rate_is_a_parameter() -> None:
    rules = load_rules(BREAST)
    assert rules.decide(counts(1000, n1=1), 0).her2_class == "ultralow"
    assert rules.decide(counts(1000, n1=0), 0).her2_class == "null"
    assert rules.decide(counts(1000, n1=50), 50_000).her2_class == "null"
    assert rules.decide(counts(1000, n1=51), 50_000).her2_class == "0_unresolved"
    assert rules.decide(counts(1000, n1=70), 50_000).her2_class == "ultralow"


@pytest.mark.parametrize(
    ("cells", "patterns"),
    [
        (counts(1000, n3=200, contiguous_3=100), ()),
        (counts(1000, n3=200, contiguous_3=99), ("strong_not_contiguous",)),
        (counts(1000, n3=201, contiguous_3=100), ("strong_not_contiguous",)),
        (counts(1000, n1=200, n3=9), ()),  # neither arm of the floor
        (counts(2000, n1=400, n3=19), ("strong_below_floor",)),  # 10 cells, but less than 1 %
        (counts(500, n1=200, n3=9), ("strong_below_floor",)),  # 1 %, but fewer than 10 cells
        (counts(1000, n2=101), ()),
        (counts(1000, n2=100, n2u=1), ("incomplete_intense",)),
        (counts(1000, n2u=200), ("incomplete_intense",)),
        (counts(1000, n2u=200, n3=50), ()),  # intense circumferential in at most 10 % carries it
        (counts(1000, n1=200, n1_complete=99), ()),
        (counts(1000, n1=200, n1_complete=100), ("complete_faint",)),
        (counts(1000, n1=60, n2=60), ("complete_below_cut",)),
        (counts(1000, n1=100, n1_complete=10, n2=20), ("complete_below_cut", "complete_faint")),
        (counts(1000, n1=20, n2=9), ()),
        (counts(1000, n1=20, n2=10), ("complete_below_cut",)),
        (counts(1001, n1=20, n2=10), ()),
        (counts(1000, n3=1), ("strong_in_zero",)),
        (counts(1200, n3=10), ("strong_below_floor", "strong_in_zero")),
        (counts(1000), ()),
    ],
)
def test_gaps_of_the_guideline_are_named(cells: ClassCounts, patterns: tuple[str, ...]) -> None:
    assert load_rules(BREAST).decide(cells, FALSE_STAIN_PPM).patterns == patterns
    assert set(patterns) <= set(PATTERNS)


# gastric, spec §1.3


@pytest.mark.parametrize(
    ("cells", "score"),
    [
        (counts(1000, n3=100), "3+"),  # at least 10 %: 10.0 % itself is 3+
        (counts(1000, n3=99), "0"),
        (counts(999, n3=99), "0"),
        (counts(990, n3=99), "3+"),
        (counts(1000, n2=100), "2+"),
        (counts(1000, n2=99), "0"),
        (counts(1000, n2=1, n2u=50, n3=49), "2+"),
        (counts(1000, n1=100), "1+"),
        (counts(1000, n1=99), "0"),
        (counts(1000, n1=1, n3=99), "1+"),
        (counts(1000), "0"),
    ],
)
def test_gastric_resection(cells: ClassCounts, score: str) -> None:
    decision = load_rules(RESECTION).decide(cells, FALSE_STAIN_PPM)
    expected = {"3+": "pos_IHC3", "2+": "equivocal_2plus"}.get(score, "negative")
    assert (decision.score, decision.her2_class, decision.null_excludes_pct) == (score, expected, None)


@pytest.mark.parametrize(
    ("largest", "score"),
    [
        ((5, 5, 5), "3+"),
        ((5, 5, 4), "2+"),
        ((5, 4, 4), "1+"),
        ((4, 4, 4), "0"),
        ((900, 4, 0), "1+"),
        ((0, 0, 0), "0"),
    ],
)
def test_gastric_biopsy_takes_a_cluster_of_five_whatever_its_percentage(
    largest: tuple[int, int, int], score: str
) -> None:
    any_, two, three = largest
    many = counts(1_000_000, n1=1000, n3=900, cluster_any=any_, cluster_2=two, cluster_3=three)
    assert load_rules(BIOPSY).decide(many, FALSE_STAIN_PPM).score == score


def test_a_biopsy_is_borderline_where_one_cell_decides() -> None:
    def possible(*largest: int) -> tuple[str, ...]:
        any_, two, three = largest
        cells = counts(1000, n3=50, cluster_any=any_, cluster_2=two, cluster_3=three)
        return load_rules(BIOPSY).decide(cells, FALSE_STAIN_PPM).possible_scores

    assert possible(60, 60, 6) == ("3+",)
    assert possible(60, 60, 5) == ("2+", "3+")
    assert possible(60, 60, 4) == ("2+", "3+")
    assert possible(60, 60, 3) == ("2+",)
    assert possible(4, 3, 0) == ("0", "1+")


# cell classes, spec §1.2 and spec §1.3


def test_cell_classes_of_the_breast_table() -> None:
    table = load_rules(BREAST).cell_classes
    labels = [[c.label for c in row] for row in table]
    assert labels == [  # none, partial, lateral, complete
        ["0", "1", "1", "1"],
        ["0", "1", "1", "2"],
        ["0", "2u", "2u", "2"],
        ["0", "2u", "2u", "3"],
    ]


@pytest.mark.parametrize("name", [RESECTION, BIOPSY])
def test_basolateral_staining_counts_in_the_stomach(name: str) -> None:
    lateral = [row[2] for row in load_rules(name).cell_classes]
    assert lateral == [CellClass.C1, CellClass.C2U, CellClass.C2U, CellClass.C3]


@pytest.mark.parametrize("name", [BREAST, RESECTION, BIOPSY])
def test_more_stain_never_lowers_the_class(name: str) -> None:
    table, rank = load_rules(name).cell_classes, {"0": 0, "1": 1, "2": 2, "2u": 2, "3": 3}
    for row, column in itertools.product(range(4), range(4)):
        here = rank[table[row][column].label or ""]
        assert row == 3 or here <= rank[table[row + 1][column].label or ""]
        assert column == 3 or here <= rank[table[row][column + 1].label or ""]


# what holds for any counts

some_counts = st.builds(
    ClassCounts,
    **{name: st.integers(0, 400) for name in ("n0", "n1", "n2", "n2u", "n3", "contiguous_3")},
    **{name: st.integers(0, 9) for name in ("cluster_any", "cluster_2", "cluster_3")},
)


@pytest.mark.parametrize("name", [BREAST, RESECTION, BIOPSY])
@given(cells=some_counts)
def test_the_score_is_among_the_possible_ones(name: str, cells: ClassCounts) -> None:
    decision = load_rules(name).decide(cells, FALSE_STAIN_PPM)
    assert decision.score in decision.possible_scores
    assert list(decision.possible_scores) == sorted(decision.possible_scores, key=SCORES.index)


@given(cells=some_counts, factor=st.integers(1, 1000))
def test_a_percentage_rule_does_not_care_how_many_cells_there_are(cells: ClassCounts, factor: int) -> None:
    rules: RuleSet = load_rules(RESECTION)
    more = ClassCounts(*(factor * k for k in (cells.n0, cells.n1, cells.n2, cells.n2u, cells.n3)))
    assert rules.decide(more, 0).score == rules.decide(cells, 0).score


@given(a=some_counts, b=some_counts, c=some_counts)
def test_counts_merge_in_any_order(a: ClassCounts, b: ClassCounts, c: ClassCounts) -> None:
    assert a + b == b + a
    assert (a + b) + c == a + (b + c)
    assert a + ClassCounts() == a
    assert (a + b).n == a.n + b.n


def test_borderline_follows_the_interval() -> None:
    rules = load_rules(BREAST)
    # Wilson 95 % of 11.5 % of 1000 is 9.67 to 13.63: holds 10. Of 13 %: 11.06 to 15.22, does not
    assert rules.decide(counts(1000, n3=115), 0).possible_scores == ("2+", "3+")
    assert rules.decide(counts(1000, n3=130), 0).possible_scores == ("3+",)
    assert rules.decide(counts(1000, n2=885, n3=115), 0).possible_scores == ("2+", "3+")
    assert rules.decide(counts(1000, n1=885, n2=115), 0).possible_scores == ("1+", "2+")
    assert rules.decide(counts(1000, n1=95), 0).possible_scores == ("0", "1+")
    assert rules.decide(counts(1000), 0).borderline is False


# statistics


@pytest.mark.parametrize(
    ("k", "n", "low", "high"),
    [  # Wilson 1927 by hand: (p + z²/2n ± z sqrt(p(1-p)/n + z²/4n²)) / (1 + z²/n)
        (10, 100, 0.055229, 0.174366),
        (100, 1000, 0.082909, 0.120152),
        (0, 20, 0.0, 0.161125),
        (20, 20, 0.838875, 1.0),
        (0, 0, 0.0, 1.0),
        (1, 1, 0.206549, 1.0),
    ],
)
def test_wilson(k: int, n: int, low: float, high: float) -> None:
    assert wilson(k, n) == pytest.approx((low, high), abs=1e-6)


def test_wilson_wants_a_fraction() -> None:
    with pytest.raises(ValueError, match="k = 3 of n = 2"):
        wilson(3, 2)


@given(k=st.integers(0, 500), rest=st.integers(0, 500))
def test_wilson_holds_its_estimate_and_mirrors(k: int, rest: int) -> None:
    n = k + rest
    low, high = wilson(k, n)
    assert 0.0 <= low <= (k / n if n else 0.5) <= high <= 1.0
    assert wilson(rest, n) == pytest.approx((1 - high, 1 - low), abs=1e-12)


def test_quantiles_are_measured_values() -> None:
    import numpy as np

    ten = np.arange(10, 0, -1, dtype=np.float32)  # 1..10
    assert quantiles(ten, (10, 11, 50, 51, 100)) == (1.0, 2.0, 5.0, 6.0, 10.0)
    assert quantiles(ten[:1], (1, 99)) == (10.0, 10.0)
    assert quantiles(ten[:0], (50,)) == (None,)


@given(st.lists(st.floats(-1e6, 1e6, width=32), max_size=50), st.randoms(use_true_random=False))
def test_sums_do_not_depend_on_order(values: list[float], shuffler: object) -> None:
    import random

    import numpy as np

    column = np.array(values, np.float32)
    shuffled = list(values)
    assert isinstance(shuffler, random.Random)
    shuffler.shuffle(shuffled)
    assert exact_sum(column) == exact_sum(np.array(shuffled, np.float32))


# the international consensus of January 2026


def test_the_consensus_keeps_the_cut_offs_and_splits_the_zero() -> None:
    consensus, breast = load_rules("breast_consensus_2026"), load_rules(BREAST)
    assert consensus.steps == breast.steps
    assert any("39:100925" in citation for citation in consensus.citations)
    assert set(breast.citations) < set(consensus.citations)
    found = [
        stratum(breast, breast.decide(cells, FALSE_STAIN_PPM).her2_class)
        for cells in (
            counts(1000),
            counts(1000, n1=17),
            counts(1000, n1=100),
            counts(1000, n1=101),
            counts(1000, n2=101),
            counts(1000, n3=101),
            counts(298),
        )
    ]
    assert found == ["0", "0+", "0+", "1+", "2+", "3+", "0_unresolved"]
    assert stratum(breast, "indeterminate") is None
    assert stratum(load_rules(RESECTION), "negative") is None


@pytest.mark.parametrize(
    ("read", "said"),
    [("0", "0_unspecified"), ("0_null", "0"), ("0_ultralow", "0+"), ("1+", "1+"), ("3+", "3+"), (None, None)],
)
def test_a_legacy_zero_stays_unspecified(read: str | None, said: str | None) -> None:
    assert reader_stratum(load_rules(BREAST), read) == said
    assert reader_stratum(load_rules(RESECTION), read) is None


def test_intense_complete_staining_is_class_3_of_breast_alone() -> None:
    answers = [load_rules(name).intense_complete for name in (BREAST, RESECTION, BIOPSY)]
    assert answers == [True, False, False]


def test_rule_sets_are_found_by_tumour_and_type_of_specimen() -> None:
    assert rules_for("gastric") == (BIOPSY, RESECTION)
    assert rules_for("gastric", "biopsy") == (BIOPSY,)
    assert rules_for("breast", "biopsy") == (BREAST, "breast_consensus_2026")
    assert rules_for("colon") == ()
