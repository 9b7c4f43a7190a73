"""Which signals of a slide count: not background granules, and not crosstalk of the other probe.

A detector that misses nothing also finds granules of chromatin, and one probe's light in the other's channel.
Neither shows in a nucleus alone; both show over a slide, whose true signals are much alike. This is decided
where all signals of a slide are at hand, from their columns, and in any order the same.

    signal_filter = SignalFilter.of(signals, WEAK)  # of a slide; PALE in bright field
    counted = signal_filter.accepts(signals)  # of all its nuclei, or of some

The thresholds were set on real fields marked by eye; docs/ish.md has the figures.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

WEAK: Final = 0.5  # of a typical signal's contrast: less is a granule, or out of focus; ours, measured
PALE: Final = 0.3  # the same in bright field, where chromatin has no dark granules; ours, measured
STRONG: Final = 0.5  # of a typical signal's contrast: from here on a signal may bleed through; ours
TOGETHER_UM: Final = 0.3  # crosstalk lies no farther from its source: less than a signal's width; ours
CROSSTALK: Final = 1.6  # times the slide's share: so strong may crosstalk be, for shares vary; ours, measured
LEAST_SOURCES: Final = 12  # from fewer strong signals no share is estimated; ours
GRANULAR: Final = 0.1  # share of weak CEP17 signals from which a slide has granules; ours, measured
BRIGHTEST_QUANTILE: Final = 0.4  # of nuclei, by their brightest signal; ours, measured


class Signals(NamedTuple):
    """Columns, ``(n,)`` each: number of the nucleus, probe (0 or 1), place, contrast."""

    nucleus: NDArray[np.integer]
    probe: NDArray[np.integer]
    y_um: NDArray[Any]
    x_um: NDArray[Any]
    contrast: NDArray[Any]


@dataclass(frozen=True, slots=True)
class SignalFilter:
    """Thresholds that separate true signals of a slide from others, one for each probe.

    Attributes
    ----------
    weakest
        Least contrast of a signal. 0 for HER2 on a slide whose CEP17 signals, which form no clusters, are all
        much alike.
    crosstalk
        A signal on top of one of the other probe needs more contrast than this share of the other's. 0 where
        most strong signals of the other probe have nothing there: then their light does not show here.
    """

    weakest: tuple[float, float]
    crosstalk: tuple[float, float]

    @classmethod
    def of(cls, signals: Signals, weak: float) -> Self:
        """From all signals of a slide; ``weak`` is `WEAK` or, in bright field, `PALE`."""
        typical = [_typical_contrast(signals, probe) for probe in (0, 1)]
        shares = _crosstalk_shares(signals, signals.contrast >= STRONG * np.array(typical)[signals.probe])
        weakest = weak * typical[0], weak * typical[1]
        cep17 = signals.contrast[signals.probe == 1]
        if len(cep17) and np.count_nonzero(cep17 < weakest[1]) < GRANULAR * len(cep17):
            weakest = 0.0, weakest[1]  # no granules: weak HER2 signals are single ones beside clusters
        return cls(weakest, (CROSSTALK * shares[0], CROSSTALK * shares[1]))

    def accepts(self, signals: Signals) -> NDArray[np.bool_]:
        """Which signals count; a nucleus's must be given together."""
        out: NDArray[np.bool_] = signals.contrast >= np.array(self.weakest)[signals.probe]
        for probe in (0, 1):
            source, above = _together(signals, signals.probe != probe, signals.probe == probe)
            contrast = signals.contrast
            out[above[contrast[above] < self.crosstalk[probe] * contrast[source]]] = False
        return out


def _typical_contrast(signals: Signals, probe: int) -> float:
    """Contrast of a single signal: a nucleus's brightest, in the dimmer half of nuclei; 0 without signals.

    The brightest, because granules outnumber signals but are dimmer. The dimmer half, because clusters are
    brighter than single signals: a slide half of whose nuclei are amplified gives the contrast of the others.
    """
    mine = signals.probe == probe
    if not mine.any():
        return 0.0
    _, row = np.unique(signals.nucleus[mine], return_inverse=True)
    brightest = np.zeros(int(row.max()) + 1)
    np.maximum.at(brightest, row, signals.contrast[mine])
    brightest.sort()
    return float(brightest[int(BRIGHTEST_QUANTILE * (len(brightest) - 1))])


def _crosstalk_shares(signals: Signals, strong: NDArray[np.bool_]) -> tuple[float, float]:
    """How strong the light of ``strong`` signals of the other probe is in each probe's channel.

    The channel first that shows the other's light more often: what it explains there is no signal whose own
    light could show in the other channel. Else a slide on which HER2 bleeds through would have CEP17
    signals under all of its HER2 signals, and lose them as crosstalk of these.
    """
    shares = [0.0, 0.0]
    frequency = [_crosstalk(signals, probe, strong)[0] for probe in (0, 1)]
    for probe in sorted((0, 1), key=lambda k: -frequency[k]):
        _, shares[probe] = _crosstalk(signals, probe, strong)
        source, above = _together(signals, strong & (signals.probe != probe), signals.probe == probe)
        contrast = signals.contrast
        strong = strong.copy()
        strong[above[contrast[above] < CROSSTALK * shares[probe] * contrast[source]]] = False
    return shares[0], shares[1]


def _crosstalk(signals: Signals, probe: int, strong: NDArray[np.bool_]) -> tuple[float, float]:
    """Share of the strong signals of the other probe that something lies on, and its contrast by theirs.

    The contrast is that of the weakest, and of what is much like them: true signals lie there too, by chance.
    It is 0 where most have nothing.
    """
    sources = strong & (signals.probe != probe)
    n = int(sources.sum())
    if n < LEAST_SOURCES:
        return 0.0, 0.0
    source, above = _together(signals, sources, signals.probe == probe)
    share = np.zeros(len(sources))
    np.maximum.at(share, source, signals.contrast[above] / signals.contrast[source])
    held = np.sort(share[share > 0])
    if 2 * len(held) <= n:
        return len(held) / n, 0.0
    alike = held[held <= CROSSTALK * held[len(held) // 4]]
    return len(held) / n, float(alike[(len(alike) - 1) // 2])


def _together(
    signals: Signals, first: NDArray[np.bool_], second: NDArray[np.bool_]
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Pairs of a signal of ``first`` and one of ``second`` of one nucleus, within `TOGETHER_UM`."""
    one, two = np.flatnonzero(first), np.flatnonzero(second)
    two = two[np.argsort(signals.nucleus[two], kind="stable")]
    low = np.searchsorted(signals.nucleus[two], signals.nucleus[one], "left")
    count = np.searchsorted(signals.nucleus[two], signals.nucleus[one], "right") - low
    a = np.repeat(one, count)
    b = two[np.repeat(low - np.cumsum(count) + count, count) + np.arange(int(count.sum()))]
    near = np.hypot(signals.y_um[a] - signals.y_um[b], signals.x_um[a] - signals.x_um[b]) <= TOGETHER_UM
    return a[near], b[near]
