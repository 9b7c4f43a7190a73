"""ERBB2 by RNA beside HER2 by IHC and ISH: ``her2 rna``.

Values of one platform and unit are looked at together and never mixed with others: cut-offs and scales do not
transfer. Of several regions of a specimen the mean stands for it. Bulk RNA cannot measure heterogeneity
within a sample.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import kendalltau, rankdata, theilslopes

from her2core.analysis.kappa import UNWEIGHTED, cohens_kappa
from her2core.analysis.resampling import SEED, Estimate, Floats, percentiles
from her2core.analysis.samples import GROUP_ORDER, Sample
from her2core.analysis.sheets import read_rows, refuse
from her2core.errors import ManifestError
from her2core.text import counted, listed, shown

COLUMNS = ("patient_id", "case_id", "specimen_id", "region", "value", "unit", "platform", "batch")
REQUIRED = ("value", "unit", "platform")
REPLICATES = 500
"""Draws of patients. Ours."""
MIN_SPECIMENS = 10
"""Fewer specimens have no correlation. Ours."""
OUTLIER = 3.5
"""Robust z beyond which a specimen is off the line (Iglewicz B, Hoaglin DC. How to detect and handle
outliers. 1993)."""
MAD_SD = 1.4826
"""Standard deviation of a normal over its median absolute deviation."""
LINEAR_UNITS = ("tpm", "fpkm", "rpkm", "cpm", "counts")
"""Units whose logarithm is taken, as log2(value + 1), where distances count."""
TESTS = (
    ("positive against the rest", ("3+", "2+/ISH+", "ISH+ only"), ("low", "ultralow", "null")),
    ("low against 0", ("low",), ("ultralow", "null")),
    ("ultralow against null", ("ultralow",), ("null",)),
)
LEVELS = ("membrane_od_mean", "h_score")


@dataclass(frozen=True, slots=True)
class RnaValue:
    """One measurement."""

    row: int
    patient_id: str | None
    case_id: str | None
    specimen_id: str | None
    region: str | None
    value: float
    unit: str
    platform: str
    batch: str | None

    def fits(self, patient_id: str, case_id: str, specimen_id: str | None) -> bool:
        """Whether it may be of this specimen, by what it names."""
        return self.of_case(patient_id, case_id) and self.specimen_id in (None, specimen_id)

    def of_case(self, patient_id: str, case_id: str) -> bool:
        """Whether it may be of this case."""
        return self.patient_id in (None, patient_id) and self.case_id in (None, case_id)


@dataclass(frozen=True, slots=True)
class Matched:
    """A specimen with its RNA: the mean of its regions, on a scale where more is more."""

    sample: Sample
    value: float
    regions: int
    batches: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Outlier:
    """A specimen far off the line of RNA on membrane OD."""

    sample: Sample
    value: float
    expected: float
    robust_z: float


@dataclass(frozen=True, slots=True)
class RnaSet:
    """Values of one platform and unit beside HER2.

    Attributes
    ----------
    scale
        What is done to values before distances count.
    measures
        Name of a statistic, and its value with interval.
    within_sd, between_sd
        Standard deviation between regions of one patient, and between patients' means; NaN without several
        regions.
    """

    platform: str
    unit: str
    scale: str
    matched: tuple[Matched, ...]
    measures: tuple[tuple[str, Estimate], ...]
    refused: tuple[str, ...]
    outliers: tuple[Outlier, ...]
    within_sd: float
    between_sd: float
    several: int


@dataclass(frozen=True, slots=True)
class Rna:
    """All sets, and the rows that no specimen takes."""

    sets: tuple[RnaSet, ...]
    unmatched: Mapping[str, int]


def read_rna(uri: str, endpoint_url: str | None = None) -> tuple[RnaValue, ...]:
    """Values of a table (CSV; path or ``s3://``).

    Raises
    ------
    ManifestError
        Names every row and column that cannot be used.
    """
    header, rows, problems = read_rows(uri, endpoint_url, REQUIRED)
    odd = [name for name in header if name not in COLUMNS and not name.startswith("x_")]
    if odd or not set(REQUIRED) <= set(header) or not {"patient_id", "case_id"} & set(header):
        raise ManifestError(
            f"{uri}: expected value, unit, platform and patient_id or case_id, and of others "
            f"{', '.join(COLUMNS)} or x_...; found {listed(header)}"
        )
    found = []
    for number, row in rows:
        if row["value"] is None:
            continue
        try:
            found.append(_value(number, row))
        except ValueError as error:
            problems.append(f"row {number}: {error}")
    refuse(uri, problems)
    return tuple(found)


def _value(number: int, row: Mapping[str, str | None]) -> RnaValue:
    get = row.get
    unit, platform = get("unit"), get("platform")
    if not unit or not platform:
        raise ValueError("a value without its unit and platform means nothing; expected both")
    if not (get("patient_id") or get("case_id")):
        raise ValueError("no patient_id and no case_id")
    try:
        value = float((get("value") or "").replace(",", "."))
    except ValueError:
        value = float("nan")
    if not math.isfinite(value) or (unit.casefold() in LINEAR_UNITS and value < 0):
        raise ValueError(
            f"value is {shown(get('value'))}; expected a number{' of 0 or more' if value < 0 else ''}"
        )
    return RnaValue(
        number, get("patient_id"), get("case_id"), get("specimen_id"), get("region"),
        value, unit, platform, get("batch"),
    )  # fmt: skip


def compute_rna(values: Sequence[RnaValue], samples: Sequence[Sample], cut: float | None = None) -> Rna:
    """Set values beside the specimens of a run, apart for every platform and unit.

    Parameters
    ----------
    cut
        Value from which on RNA counts as positive, on the table's own scale; none by default.
    """
    unmatched: dict[str, int] = {}
    groups: dict[tuple[str, str], dict[int, list[RnaValue]]] = {}
    for value in values:
        fitting = [at for at, s in enumerate(samples) if value.fits(s.patient_id, s.case_id, s.specimen_id)]
        if len(fitting) != 1:
            why = _several(value, [samples[at] for at in fitting]) if fitting else _why_none(value, samples)
            unmatched[why] = unmatched.get(why, 0) + 1
            continue
        of = groups.setdefault((value.platform, value.unit), {})
        of.setdefault(fitting[0], []).append(value)
    if len(groups) > 1 and cut is not None:
        raise ManifestError(
            f"--cut {cut:g}: the table has {len(groups)} platforms and units; a cut-off is of one. Give one "
            "at a time"
        )
    sets = [
        _set(platform, unit, [(samples[at], each) for at, each in of.items()], cut)
        for (platform, unit), of in sorted(groups.items())
    ]
    return Rna(tuple(sets), unmatched)


def _several(value: RnaValue, fitting: Sequence[Sample]) -> str:
    named = {s.specimen_id for s in fitting}
    if value.case_id is None and len({s.case_id for s in fitting}) > 1:
        return "several specimens fit; give case_id"
    if value.specimen_id is None and len(named) == len(fitting):
        return "several specimens fit; give specimen_id"
    return "several specimens fit, and no specimen_id distinguishes them"


def _why_none(value: RnaValue, samples: Sequence[Sample]) -> str:
    own = [s for s in samples if value.of_case(s.patient_id, s.case_id)]
    if any(value.specimen_id == s.site for s in own):
        return "specimen_id holds a site, which names no specimen; give the manifest's specimen_id"
    return "no specimen of this specimen_id" if own else "no specimen of the run"


def scale_of(unit: str) -> tuple[str, Callable[[float], float]]:
    """What is done to values of a unit so that more is more, and equal steps are equal factors."""
    word = unit.casefold()
    if word in LINEAR_UNITS:
        return "log2(value + 1)", lambda x: math.log2(x + 1)
    if word.startswith(("ct", "delta ct", "dct", "cq", "δct")):
        return "sign reversed: a lower Ct is more RNA", lambda x: -x
    return "as given", lambda x: x


def _set(
    platform: str, unit: str, of: Sequence[tuple[Sample, Sequence[RnaValue]]], cut: float | None
) -> RnaSet:
    scale, to = scale_of(unit)
    matched = [
        Matched(
            sample,
            float(np.mean([to(v.value) for v in each])),
            len(each),
            tuple(sorted({v.batch for v in each if v.batch})),
        )
        for sample, each in sorted(of, key=lambda item: item[0].name)
    ]
    measures: list[tuple[str, Estimate]] = []
    refused: list[str] = []
    value = np.array([m.value for m in matched])
    patients = [m.sample.patient_id for m in matched]
    group = np.array([m.sample.group or "" for m in matched])
    batch = [m.batches[0] if m.batches else "" for m in matched]
    for level in LEVELS:
        x = np.array([m.sample.values.get(level, np.nan) for m in matched])
        _add(measures, refused, f"Spearman with {level}", _spearman, value, x, patients)
        if len(set(batch)) > 1:
            _add(measures, refused, f"Spearman with {level}, within batches", _spearman,
                 _within(value, batch), x, patients)  # fmt: skip
    order = np.array([GROUP_ORDER[::-1].index(g) if g in GROUP_ORDER else np.nan for g in group], np.float64)
    order[group == "ISH+ only"] = np.nan  # no place among levels of protein
    _add(measures, refused, "Kendall's tau with the class", _kendall, value, order, patients)
    for name, high, low in TESTS:
        side = np.where(np.isin(group, high), 1.0, np.where(np.isin(group, low), 0.0, np.nan))
        _add(measures, refused, f"AUC, {name}", _auc, value, side, patients)
    if cut is not None:
        side = np.where(np.isin(group, TESTS[0][1]), 1.0, np.where(np.isin(group, TESTS[0][2]), 0.0, np.nan))
        called = (value >= to(cut)).astype(np.float64)
        _add(measures, refused, f"agreement with positive, from {cut:g}", _agree, called, side, patients)
        _add(measures, refused, f"kappa with positive, from {cut:g}", _kappa, called, side, patients)
    within, between, several = _regions([[to(v.value) for v in each] for each in _by_patient(of)])
    return RnaSet(
        platform, unit, scale, tuple(matched), tuple(measures), tuple(refused), tuple(_outliers(matched)),
        within, between, several,
    )  # fmt: skip


def _by_patient(of: Sequence[tuple[Sample, Sequence[RnaValue]]]) -> list[list[RnaValue]]:
    found: dict[str, list[RnaValue]] = {}
    for sample, values in of:
        found.setdefault(sample.patient_id, []).extend(values)
    return list(found.values())


def _add(
    measures: list[tuple[str, Estimate]],
    refused: list[str],
    name: str,
    statistic: Callable[[Floats, Floats], float],
    a: Floats,
    b: Floats,
    patients: Sequence[str],
) -> None:
    """A statistic of what is known of both, with an interval by patient; else a sentence."""
    known = np.isfinite(a) & np.isfinite(b)
    n = int(known.sum())
    if n < MIN_SPECIMENS:
        refused.append(f"{name}: {counted(n, 'specimen')}; {MIN_SPECIMENS} are needed")
        return
    a, b = a[known], b[known]
    if np.ptp(a) == 0 or np.ptp(b) == 0:
        refused.append(f"{name}: all {n} specimens are alike in one of the two")
        return
    names, codes = np.unique(np.array(patients)[known], return_inverse=True)
    rows = [np.flatnonzero(codes == i) for i in range(len(names))]
    rng = np.random.default_rng(SEED)
    drawn = np.full(REPLICATES, np.nan)
    for i in range(REPLICATES):
        take = np.concatenate([rows[p] for p in rng.integers(0, len(names), len(names))])
        if np.ptp(a[take]) > 0 and np.ptp(b[take]) > 0:
            drawn[i] = statistic(a[take], b[take])
    low, high = percentiles(drawn, len(names))
    measures.append((name, Estimate(statistic(a, b), low, high, n, len(names))))


def _spearman(a: Floats, b: Floats) -> float:
    """Spearman's correlation; scipy's own computes a p with it, at ten times the cost."""
    return float(np.corrcoef(rankdata(a), rankdata(b))[0, 1])


def _kendall(a: Floats, b: Floats) -> float:
    return float(kendalltau(a, b).statistic)


def _auc(value: Floats, positive: Floats) -> float:
    """Chance that a positive one has the higher value (Mann-Whitney), ties half."""
    up = positive == 1
    n, m = up.sum(), (~up).sum()
    return float((rankdata(value)[up].sum() - n * (n + 1) / 2) / (n * m))


def _agree(a: Floats, b: Floats) -> float:
    return float((a == b).mean())


def _kappa(a: Floats, b: Floats) -> float:
    return cohens_kappa(a.astype(np.int64), b.astype(np.int64), 2, UNWEIGHTED)


def _within(value: Floats, batch: Sequence[str]) -> Floats:
    """Values less the median of their batch."""
    out = value.copy()
    names = np.array(batch)
    for name in set(batch):
        out[names == name] -= np.median(value[names == name])
    return out


def _outliers(matched: Sequence[Matched]) -> list[Outlier]:
    known = [m for m in matched if LEVELS[0] in m.sample.values]
    x: NDArray[np.float64] = np.array([m.sample.values[LEVELS[0]] for m in known])
    y = np.array([m.value for m in known])
    if len(known) < MIN_SPECIMENS or np.ptp(x) == 0:
        return []
    slope, base, *_ = theilslopes(y, x)
    rest = y - (base + slope * x)
    spread = MAD_SD * float(np.median(abs(rest - np.median(rest))))
    if spread == 0:
        return []
    z = (rest - np.median(rest)) / spread
    return [
        Outlier(m.sample, m.value, float(base + slope * xi), float(zi))
        for m, xi, zi in zip(known, x, z, strict=True)
        if abs(zi) > OUTLIER
    ]


def _regions(by_patient: Sequence[Sequence[float]]) -> tuple[float, float, int]:
    """Standard deviation within patients of several regions, pooled, and between all patients' means."""
    several = [each for each in by_patient if len(each) > 1]
    if not several or len(by_patient) < 2:
        return float("nan"), float("nan"), len(several)
    squares = sum(float(np.var(each, ddof=1)) * (len(each) - 1) for each in several)
    within = (squares / sum(len(each) - 1 for each in several)) ** 0.5
    return within, float(np.std([np.mean(each) for each in by_patient], ddof=1)), len(several)
