"""Agreement of readers and machines on HER2 scores: ``her2 agreement``.

Levels are compared in four tiers (0, 1+, 2+, 3+), in five (the 0 split into null and ultralow), and at each
cut. Intervals are of 2000 draws of patients. A slide without a score is counted wherever it is missing, and
is in no rate.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from her2core.analysis.kappa import (
    LINEAR,
    QUADRATIC,
    agree_all,
    confusion,
    fleiss,
    fleiss_terms,
    icc_agreement,
    icc_terms,
    kappa,
)
from her2core.analysis.reads import FIVE, FOUR, Read, Reads, five, four
from her2core.analysis.resampling import NOTHING, Estimate, Resampled
from her2core.errors import ManifestError
from her2core.text import counted

MAJORITY = "majority"
SCHEMES = {"four tiers": (FOUR, four), "five tiers": (FIVE, five)}
CUTS = {"0|1+": "1+", "null|ultralow": "ultralow", "1+|2+": "2+", "2+|3+": "3+"}
"""Cut, and the lowest level above it."""
PANEL_SHARE = 0.5
"""Share of the slides of the busiest rater that another must have a level of to be in a panel, which counts
only slides that all gave a level. Ours."""
WASH_OUT_DAYS = 14
"""Shortest pause between two reads of one slide (CAP 2021: at least two weeks)."""
CAP_CASES, CAP_MORE_CASES, CAP_CONCORDANCE = 60, 20, 0.95
"""Least cases for one application, for each further one such as IHC, and the concordance wanted (CAP 2021).
"""
CAP_SOURCE = (
    "Evans AJ et al. Validating whole slide imaging systems. Arch Pathol Lab Med 2022;146:440-450 (CAP)"
)


@dataclass(frozen=True, slots=True)
class Pair:
    """How two raters agree on the slides that both gave a level."""

    a: str
    b: str
    scheme: str
    n: int
    n_patients: int
    agreement: Estimate
    linear: Estimate
    quadratic: Estimate
    matrix: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Cut:
    """How a rater agrees with a reference on one side of a cut or the other."""

    reference: str
    rater: str
    cut: str
    overall: Estimate
    positive: Estimate
    negative: Estimate
    unsplit: int


@dataclass(frozen=True, slots=True)
class UltralowAsNull:
    """What a rater calls the slides that the reference calls ultralow."""

    reference: str
    rater: str
    null: Estimate
    called: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Panel:
    """Agreement of several raters at once on the slides that all of them gave a level.

    Attributes
    ----------
    absent
        Raters with too few levels (`PANEL_SHARE`), who would leave the others hardly a slide.
    onest
        Number of readers, and the chance that so many drawn from the panel all agree.
    """

    name: str
    scheme: str
    raters: tuple[str, ...]
    absent: tuple[str, ...]
    n: int
    left_out: int
    fleiss: Estimate
    icc: Estimate
    agree_all: Estimate
    by_level: Mapping[str, Estimate]
    onest: tuple[tuple[int, Estimate], ...]


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A rater against the majority of the panel without one reader.

    Attributes
    ----------
    without
        The reader left out, who is the rater, or whose place a machine takes.
    no_majority
        Slides of which the others have none.
    """

    rater: str
    without: str
    pair: Pair
    no_majority: int


@dataclass(frozen=True, slots=True)
class Intra:
    """A reader against that same reader, at least `WASH_OUT_DAYS` later or not."""

    reader: str
    washed_out: bool | None
    pair: Pair
    modalities: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class CapCheck:
    """Whether repeated reads meet a requirement of CAP's guideline on validation."""

    requirement: str
    found: str
    met: bool | None


@dataclass(frozen=True, slots=True)
class Agreement:
    """All that is computed of reads; see the classes of its parts."""

    reads: Reads
    reference: str
    reference_note: str
    no_reference: int
    counts: tuple[tuple[str, str, Mapping[str, int]], ...]
    pairs: tuple[Pair, ...]
    cuts: tuple[Cut, ...]
    ultralow: tuple[UltralowAsNull, ...]
    panels: tuple[Panel, ...]
    left_out: tuple[LeftOut, ...]
    intra: tuple[Intra, ...]
    cap: tuple[CapCheck, ...]


Levels = Mapping[str, str]
"""Level of every slide that has one."""


def compute_agreement(reads: Reads, reference: str | None = None) -> Agreement:
    """Compare all raters of `reads` with each other and with a reference.

    Parameters
    ----------
    reference
        Name of a rater, or ``majority`` of the people who read without assistance. By default the only such
        person, else their majority; the first machine if there is no reader.

    Raises
    ------
    ManifestError
        If there is no such rater.
    """
    levels = {rater: _levels(reads.first(rater)) for rater in (*reads.people, *reads.machines)}
    name, note, truth, none = _reference(reads, levels, reference)
    against = [r for r in (*reads.people, *reads.machines) if r != name]
    compared = {**levels, name: truth}
    pairs = [
        pair
        for scheme in SCHEMES
        for a, b in [*((name, r) for r in against), *combinations(levels, 2)]
        if (pair := compare(a, b, compared[a], compared[b], reads.patients, scheme)).n
    ]
    unique = {(p.scheme, frozenset((p.a, p.b))): p for p in reversed(pairs)}
    cuts = [
        at_cut(name, rater, cut, truth, levels[rater], reads.patients) for rater in against for cut in CUTS
    ]
    panels = [
        panel(who, raters, scheme, levels, reads.patients)
        for who, raters in (
            ("readers", reads.unassisted),
            ("readers, assisted", reads.assisted),
            ("machines", reads.machines),
        )
        if len(raters) > 1
        for scheme in SCHEMES
    ]
    return Agreement(
        reads,
        name,
        note,
        none,
        tuple(_count(reads, rater) for rater in (*reads.people, *reads.machines)),
        tuple(reversed(unique.values())),
        tuple(cuts),
        tuple(ultralow_as_null(name, rater, truth, levels[rater], reads.patients) for rater in against),
        tuple(p for p in panels if p.n),
        tuple(_leave_one_out(reads, levels)),
        tuple(_intra(reads)),
        _cap(reads),
    )


def _levels(first: Mapping[str, Read]) -> dict[str, str]:
    return {slide: read.level for slide, read in first.items() if read.level is not None}


def _reference(
    reads: Reads, levels: Mapping[str, Levels], requested: str | None
) -> tuple[str, str, Levels, int]:
    """Name of the reference, what it is in words, its levels, and the slides without one."""
    people = reads.unassisted or reads.people
    if requested is None:
        requested = people[0] if len(people) == 1 else MAJORITY if people else reads.machines[0]
    if requested != MAJORITY:
        if requested not in levels:
            raise ManifestError(
                f"--reference {requested}: no such rater; expected {MAJORITY}, {', '.join(levels)}"
            )
        return requested, requested, levels[requested], 0
    if len(people) < 2:
        raise ManifestError(f"--reference {MAJORITY}: {counted(len(people), 'reader')}; expected two or more")
    truth, none = majority([levels[p] for p in people])
    note = f"the level that more than half of {len(people)} readers gave"
    if len(people) == 2:
        note += "; of two readers that is where they agree, which favours easy slides"
    return MAJORITY, note, truth, none


def majority(of: Sequence[Levels]) -> tuple[dict[str, str], int]:
    """The level that more than half of those who gave one give, and how many slides have none.

    Zeros count together for a majority of 0; which 0 it is, a majority of those who split it decides.
    """
    truth, none = {}, 0
    for slide in sorted({slide for levels in of for slide in levels}):
        votes_cast = [levels[slide] for levels in of if slide in levels]
        tier, votes = Counter(map(_tier, votes_cast)).most_common(1)[0]
        if len(votes_cast) < 2 or 2 * votes <= len(votes_cast):
            none += 1
        elif tier != "0":
            truth[slide] = tier
        else:
            split = Counter(level for level in votes_cast if level in ("null", "ultralow")).most_common(1)
            decided = split and 2 * split[0][1] > sum(level in ("null", "ultralow") for level in votes_cast)
            truth[slide] = split[0][0] if decided else "0"
    return truth, none


def _tier(level: str) -> str:
    return four(level) or level


def compare(a: str, b: str, of_a: Levels, of_b: Levels, patients: Mapping[str, str], scheme: str) -> Pair:
    """Overall agreement and weighted kappas of two raters, and their confusion matrix (rows a)."""
    names, to = SCHEMES[scheme]
    both = [(s, x, y) for s in sorted(of_a.keys() & of_b.keys()) if (x := to(of_a[s])) and (y := to(of_b[s]))]
    k = len(names)
    if not both:
        return Pair(a, b, scheme, 0, 0, NOTHING, NOTHING, NOTHING, np.zeros((k, k), np.int64))
    codes = np.array([[names.index(x), names.index(y)] for _, x, y in both])
    cells = confusion(codes[:, 0], codes[:, 1], k)
    equal = (codes[:, 0] == codes[:, 1]).astype(np.float64)[:, None]
    owners = [patients[s] for s, *_ in both]
    sums = Resampled.of(np.hstack([cells, equal, np.ones_like(equal)]), owners)
    return Pair(
        a,
        b,
        scheme,
        sums.n,
        sums.n_patients,
        sums.share(-2, -1),
        sums.estimate(lambda s: kappa(s[..., :-2], LINEAR)),
        sums.estimate(lambda s: kappa(s[..., :-2], QUADRATIC)),
        np.rint(cells.sum(0)).astype(np.int64).reshape(k, k),
    )


def at_cut(
    reference: str, rater: str, cut: str, truth: Levels, of: Levels, patients: Mapping[str, str]
) -> Cut:
    """Overall, positive and negative percent agreement at a cut; zeros that were not split take no part in
    theirs."""
    place = FIVE.index(CUTS[cut])
    rows, owners, unsplit = [], [], 0
    for slide in sorted(truth.keys() & of.keys()):
        sides = [_above(level, place) for level in (truth[slide], of[slide])]
        if None in sides:
            unsplit += 1
            continue
        want, got = bool(sides[0]), bool(sides[1])
        rows.append([want == got, 1, want and got, want, not want and not got, not want])
        owners.append(patients[slide])
    if not rows:
        return Cut(reference, rater, cut, NOTHING, NOTHING, NOTHING, unsplit)
    sums = Resampled.of(np.array(rows, np.float64), owners)
    return Cut(reference, rater, cut, sums.share(0, 1), sums.share(2, 3), sums.share(4, 5), unsplit)


def _above(level: str, place: int) -> bool | None:
    """Whether a level is at or above a place of `FIVE`; None where a zero is not split and must be."""
    if level == "0":
        return None if place == 1 else False
    return FIVE.index(level) >= place


def ultralow_as_null(
    reference: str, rater: str, truth: Levels, of: Levels, patients: Mapping[str, str]
) -> UltralowAsNull:
    """Of the slides that the reference calls ultralow, the share that a rater calls null.

    Those that the rater calls 0 without splitting it are counted, and are in no rate.
    """
    slides = [s for s in sorted(truth) if truth[s] == "ultralow" and s in of]
    called = dict(Counter(of[s] for s in slides))
    split = [s for s in slides if of[s] != "0"]
    if not split:
        return UltralowAsNull(reference, rater, NOTHING, called)
    rows = np.array([[of[s] == "null", 1] for s in split], np.float64)
    return UltralowAsNull(
        reference, rater, Resampled.of(rows, [patients[s] for s in split]).share(0, 1), called
    )


def panel(
    name: str,
    raters: Sequence[str],
    scheme: str,
    levels: Mapping[str, Levels],
    patients: Mapping[str, str],
) -> Panel:
    """Fleiss' kappa, ICC(2,1), complete agreement and the ONEST curve, where every rater gave a level."""
    names, to = SCHEMES[scheme]
    given = {r: sum(to(level) is not None for level in levels[r].values()) for r in raters}
    absent = tuple(r for r in raters if given[r] < PANEL_SHARE * max(given.values()))
    raters = [r for r in raters if r not in absent]
    any_, rows, owners = sorted({s for r in raters for s in levels[r]}), [], []
    for slide in any_:
        votes_cast = [to(levels[r].get(slide)) for r in raters]
        if all(votes_cast) and len(raters) > 1:
            rows.append([names.index(level) for level in votes_cast if level])
            owners.append(patients[slide])
    if not rows:
        return Panel(name, scheme, tuple(raters), absent, 0, len(any_), NOTHING, NOTHING, NOTHING, {}, ())
    codes = np.array(rows)
    counts = (codes[:, :, None] == np.arange(len(names))).sum(1).astype(np.float64)
    curve = []
    for k in range(2, len(raters) + 1):
        share = Resampled.of(agree_all(counts, k)[:, None], owners)
        one = share.estimate(lambda s, n=share.n: s[..., 0] / n)  # type: ignore[misc]
        curve.append((k, one))
    full = (counts.max(1) == len(raters)).astype(np.float64)
    present = counts > 0
    by_level = Resampled.of(np.hstack([full[:, None] * present, present]).astype(np.float64), owners)
    whole = Resampled.of(np.stack([full, np.ones_like(full)], axis=1), owners)
    return Panel(
        name,
        scheme,
        tuple(raters),
        absent,
        len(rows),
        len(any_) - len(rows),
        Resampled.of(fleiss_terms(counts), owners).estimate(fleiss),
        Resampled.of(icc_terms(codes.astype(np.float64)), owners).estimate(icc_agreement),
        whole.share(0, 1),
        {level: by_level.share(i, len(names) + i) for i, level in enumerate(names)},
        tuple(curve),
    )


def _leave_one_out(reads: Reads, levels: Mapping[str, Levels]) -> list[LeftOut]:
    """Each reader, and every machine in that reader's place, against the majority of the other readers."""
    people = reads.unassisted
    found = []
    if len(people) < 3:
        return []
    for left in people:
        truth, none = majority([levels[p] for p in people if p != left])
        mine = {s: level for s, level in truth.items() if s in levels[left]}
        for rater in (left, *reads.machines):
            pair = compare(
                f"majority without {left}", rater, mine, levels[rater], reads.patients, "four tiers"
            )
            found.append(LeftOut(rater, left, pair, none))
    return found


def _intra(reads: Reads) -> list[Intra]:
    """First and second read of each reader, apart by whether the wash-out is kept, is not, or is unknown."""
    groups: dict[tuple[str, bool | None], list[tuple[Read, Read]]] = {}
    for one, again in _repeated(reads):
        groups.setdefault((one.rater, washed_out(one, again)), []).append((one, again))
    found = []
    for (rater, washed), twice in sorted(groups.items(), key=lambda g: (g[0][0], str(g[0][1]))):
        first, second = ({r[i].slide_id: v for r in twice if (v := r[i].level)} for i in (0, 1))
        kinds = sorted({f"{a.modality or '?'} and {b.modality or '?'}" for a, b in twice})
        for scheme in SCHEMES:
            pair = compare(f"{rater}, first", f"{rater}, second", first, second, reads.patients, scheme)
            if pair.n:
                found.append(Intra(rater, washed, pair, tuple(kinds)))
    return found


def _repeated(reads: Reads) -> list[tuple[Read, Read]]:
    """First and second read of every slide that a person read twice."""
    first = {(r.rater, r.slide_id): r for r in reads.reads if r.round == 1}
    return [(first[r.rater, r.slide_id], r) for r in reads.reads if r.round == 2]


def washed_out(first: Read, second: Read) -> bool | None:
    """Whether the pause was long enough; None without dates."""
    if first.date is None or second.date is None:
        return None
    return (second.date - first.date).days >= WASH_OUT_DAYS


def _cap(reads: Reads) -> tuple[CapCheck, ...]:
    """Repeated reads beside what CAP's guideline on validating whole-slide imaging requires.

    It counts cases, so several slides of a case are one and two cases of a patient are two.
    """
    same: dict[str, list[bool]] = {}
    short = unknown = kinds = 0
    for first, second in _repeated(reads):
        washed = washed_out(first, second)
        short, unknown = short + (washed is False), unknown + (washed is None)
        kinds += (
            first.modality is not None and second.modality is not None and first.modality != second.modality
        )
        if washed and first.level and second.level:
            same.setdefault(reads.case(first.slide_id), []).append(four(first.level) == four(second.level))
    pairs = [x for each in same.values() for x in each]
    n, rate = len(same), float(np.mean(pairs)) if pairs else float("nan")
    return (
        CapCheck(
            f"{CAP_CASES} cases for one application",
            f"{counted(n, 'case')} read twice with the wash-out",
            n >= CAP_CASES,
        ),
        CapCheck(
            f"{CAP_MORE_CASES} more cases for IHC beside {CAP_CASES} of another application, such as H&E",
            f"{counted(n, 'case')} read twice with the wash-out; the other application is not in these "
            "tables",
            None if n >= CAP_MORE_CASES else False,
        ),
        CapCheck(
            f"wash-out of at least {WASH_OUT_DAYS} days",
            f"{counted(len(pairs), 'pair')} of reads with it, {short} below, {unknown} without dates",
            bool(pairs) and not short and not unknown,
        ),
        CapCheck(
            f"concordance of one reader's two reads of {CAP_CONCORDANCE:.0%} or more",
            f"{100 * rate:.1f} % in four tiers" if pairs else "no pair of reads",
            bool(pairs) and rate >= CAP_CONCORDANCE,
        ),
        CapCheck(
            "glass against digital",
            f"{counted(kinds, 'pair')} of reads of two modalities",
            kinds >= len(pairs) > 0,
        ),
    )


def _count(reads: Reads, rater: str) -> tuple[str, str, Mapping[str, int]]:
    """What became of every slide with a rater."""
    first = reads.first(rater)
    found = Counter(read.level or read.why or "indeterminate" for read in first.values())
    if missing := len(reads.patients) - len(first):
        found["not read"] = missing
    kind = (
        "machine" if rater in reads.machines else "assisted reader" if rater in reads.assisted else "reader"
    )
    return rater, kind, dict(found)
