"""Cohorts with planted hazard ratios, interactions and confounding: are they recovered, and do intervals
hold?

    python benchmarks/simulate_outcome.py [--cohorts 200] [--patients 300]

The level of HER2 is tied to ER (less where positive) and to the metric, so that the metric looked at alone is
confounded by both. Half of the patients enter late; who had the event before is
never seen. Printed: the mean estimate beside what was planted, the share of 95 % intervals that hold it, and
how often p falls below 0.05.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from her2core.analysis.outcome import (
    Interaction,
    hazard_models,
    interaction_of,
    odds_models,
    times_of,
)
from her2core.analysis.samples import Joined, Sample
from her2core.analysis.survival import Effect, restricted_mean, search_cut_point
from her2core.analysis.treatments import Line

METRIC = "rao_q"
BASE_DAYS = 700.0
"""Median time of a patient without any effect is 0.69 of it."""


@dataclass(frozen=True)
class Planted:
    """Log hazard ratios: of the metric a standard deviation, of the mean level a standard deviation, of ER.

    ``metric`` by class of therapy; ``confounded`` ties ER and the metric to the level.
    """

    metric: Mapping[str, float] = field(default_factory=lambda: {"T-DXd": 0.0})
    level: float = 0.0
    er: float = 0.0
    confounded: bool = True
    late: bool = True


def cohort(planted: Planted, patients: int, seed: int) -> list[Joined]:
    """Patients with one line each, its sample, and what became of them."""
    rng = np.random.default_rng(seed)
    found: list[Joined] = []
    classes = list(planted.metric)
    while len(found) < patients:
        level = rng.uniform(0.05, 0.95)
        tie = float(planted.confounded)
        er = rng.random() < 1 / (1 + np.exp(-tie * (1.5 - 4 * level)))
        metric = tie * 0.25 * level + rng.normal(0.2, 0.06)
        kind = classes[rng.integers(len(classes))]
        z_metric = (metric - _METRIC[planted.confounded][0]) / _METRIC[planted.confounded][1]
        log_hazard = (
            planted.metric[kind] * z_metric + planted.level * (level - 0.5) / _LEVEL_SD + planted.er * er
        )
        days = rng.exponential(BASE_DAYS * np.exp(-log_hazard))
        end, entry = rng.uniform(300, 2000), 0.0
        if planted.late and rng.random() < 0.5:
            entry = rng.uniform(0, 250)
        if min(days, end) <= entry:
            continue  # never seen
        name = f"p{len(found):04d}"
        ends = {"os": (float(min(days, end)), bool(days <= end))}
        answer = bool(rng.random() < 1 / (1 + np.exp(log_hazard)))
        line = Line(2, name, kind, "2020-01-01", er_positive=er, pcr=answer, entry_days=entry, ends=ends)
        values = {"membrane_od_mean": level, METRIC: metric}
        sample = Sample(name, name, None, "2019-12-01", "primary", "Positive", "pos_IHC3", "3+", values)
        found.append(Joined(line, sample, ""))
    return found


_LEVEL_SD = 0.9 / 12**0.5
_METRIC = {True: (0.325, 0.0885), False: (0.2, 0.06)}
"""Mean and standard deviation of the metric as it is drawn."""


def planted_ratio(of: list[Joined], log_ratio: float, name: str, sd: float) -> float:
    """A planted log ratio a standard deviation of all, as one of these patients'."""
    values = [one.sample.values[name] for one in of if one.sample]
    return float(log_ratio * np.std(values, ddof=1) / sd)


def recovered(planted: Planted, patients: int, seed: int) -> tuple[Effect, Effect, float]:
    """What Cox's model says of the metric beside mean and ER, and alone; and the planted log ratio."""
    of = cohort(planted, patients, seed)
    models = hazard_models("os", next(iter(planted.metric)), of, [METRIC])
    found = {
        m.adjusted != "nothing": m.effect
        for m in models
        if m.question == METRIC and m.term.startswith(METRIC) and m.effect
    }
    log_ratio = next(iter(planted.metric.values()))
    truth = planted_ratio(of, log_ratio, METRIC, _METRIC[planted.confounded][1])
    return found[True], found[False], truth


def answered(planted: Planted, patients: int, seed: int) -> tuple[Effect, float]:
    """The same of the logistic model of pCR, where the planted log odds ratio has the other sign."""
    of = cohort(planted, patients, seed)
    models = odds_models("pcr", next(iter(planted.metric)), of, [METRIC])
    effect = next(m.effect for m in models if m.question == METRIC and m.adjusted != "nothing" and m.effect)
    return effect, planted_ratio(
        of, -next(iter(planted.metric.values())), METRIC, _METRIC[planted.confounded][1]
    )


def held_by_class(planted: Planted, of: list[Joined], found: Interaction) -> list[bool]:
    """Whether the interval of the metric under each class of therapy holds what was planted there."""
    sd = _METRIC[planted.confounded][1]
    truths = [planted_ratio(of, planted.metric[therapy], METRIC, sd) for therapy, _ in found.by_class]
    effects = [effect for _, effect in found.by_class]
    return [bool(np.log(e.low) <= t <= np.log(e.high)) for e, t in zip(effects, truths, strict=True)]


def tally(name: str, pairs: list[tuple[Effect, float]]) -> None:
    """Print mean planted and estimated log ratio, coverage, and the share of p below 0.05."""
    logs = np.log([effect.ratio for effect, _ in pairs])
    truth = np.array([t for _, t in pairs])
    held = np.mean([np.log(e.low) <= t <= np.log(e.high) for e, t in pairs])
    rejected = np.mean([e.p < 0.05 for e, _ in pairs])
    print(
        f"{name:58s} planted {truth.mean():6.3f}  found {logs.mean():6.3f}  "
        f"intervals hold {100 * held:5.1f} %  p < 0.05 {100 * rejected:5.1f} %"
    )


def main() -> int:
    """Print one line a scenario."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cohorts", type=int, default=200)
    parser.add_argument("--patients", type=int, default=300)
    options = parser.parse_args()
    n = options.patients
    effect = Planted({"T-DXd": 0.4}, level=-0.5, er=-0.4)
    null = Planted({"T-DXd": 0.0}, level=-0.5, er=-0.4)
    for name, planted in (("metric", effect), ("no effect", null)):
        found = [recovered(planted, n, s) for s in range(options.cohorts)]
        tally(f"{name}, beside mean and ER", [(adjusted, truth) for adjusted, _, truth in found])
        tally(f"{name} alone (confounded)", [(alone, truth) for _, alone, truth in found])
    for name, planted in (("pCR, metric beside mean and ER", effect), ("pCR, no effect", null)):
        tally(name, [answered(planted, n, s) for s in range(options.cohorts)])
    for name, other in (("interaction, planted", 0.0), ("interaction, none", 0.4)):
        planted = Planted({"T-DM1": 0.4, "T-DXd": other}, level=-0.5, er=-0.4)
        cohorts = [cohort(planted, n, s) for s in range(options.cohorts)]
        found = [interaction_of("os", of, METRIC) for of in cohorts]
        logs = np.array([[np.log(e.ratio) for _, e in one.by_class] for one in found if one])
        rejected = 100 * np.mean([one.p < 0.05 for one in found if one])
        within = [held_by_class(planted, of, one) for of, one in zip(cohorts, found, strict=True) if one]
        print(
            f"{name:58s} planted 0.400 and {other:.3f}  "
            f"found {logs[:, 0].mean():.3f} and {logs[:, 1].mean():.3f}  "
            f"intervals hold {' and '.join(f'{100 * share:.1f} %' for share in np.mean(within, axis=0))}  "
            f"p < 0.05 {rejected:.1f} %"
        )
    until, means = 1000.0, []
    rate = 1 / BASE_DAYS
    truth = (1 - np.exp(-rate * until)) / rate
    for s in range(options.cohorts):
        mean, se = restricted_mean(times_of(cohort(Planted(confounded=False), n, s), "os"), until)
        means.append((mean, abs(mean - truth) <= 1.96 * se))
    held = 100 * np.mean([h for _, h in means])
    print(
        f"{'restricted mean to 1000 days, late entry':58s} planted {truth:.0f}  "
        f"found {np.mean([m for m, _ in means]):.0f}  intervals hold {held:.1f} %"
    )
    searched = []
    for s in range(min(options.cohorts, 100)):
        of = cohort(Planted(confounded=False), n, s)
        values = np.array([one.sample.values[METRIC] for one in of if one.sample])
        searched.append(search_cut_point(times_of(of, "os"), values))
    apparent = np.mean([abs(np.log(c.apparent)) for c in searched])
    corrected = np.mean([abs(np.log(c.corrected)) for c in searched])
    rejected = 100 * np.mean([c.p < 0.05 for c in searched])
    print(
        f"{'cut-point searched where there is none':58s} |log HR| apparent {apparent:.3f}, "
        f"corrected {corrected:.3f}  p < 0.05 {rejected:.1f} %"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
