"""Accepted signals: granules and crosstalk go, everything else stays, whatever the order."""

from __future__ import annotations

from random import Random
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from her2core.scoring.signal_filter import PALE, WEAK, SignalFilter, Signals


class Slide(NamedTuple):
    """Signals, and which were planted."""

    signals: Signals
    true: npt.NDArray[np.bool_]

    def accepted(self) -> npt.NDArray[np.bool_]:
        return SignalFilter.of(self.signals, WEAK).accepts(self.signals)


def picked(signals: Signals, which: npt.NDArray[np.generic]) -> Signals:
    return Signals(*(column[which] for column in signals))


def slide(
    nuclei: int = 60,
    her2: int = 3,
    granules: int = 0,
    bleed: float = 0.0,
    clusters: int = 0,
    seed: int = 0,
) -> Slide:
    """Two CEP17, ``her2`` HER2 signals a nucleus, granules, CEP17's crosstalk; some HER2 fivefold."""
    rng = np.random.default_rng(seed)
    rows = []
    for nucleus in range(nuclei):
        many = 5.0 if nucleus < clusters else 1.0
        for probe, count, level in ((0, her2, 80.0 * many), (1, 2, 150.0)):
            for _ in range(count):
                y, x = rng.uniform(0, 10, 2)
                contrast = level * rng.uniform(0.8, 1.2)
                rows.append((nucleus, probe, y, x, contrast, True))
                if probe == 1 and bleed:
                    share = bleed * rng.uniform(0.8, 1.2)
                    rows.append((nucleus, 0, y + 0.05, x, share * contrast, False))
        for probe, level in ((0, 80.0), (1, 150.0)):
            for _ in range(granules):
                y, x = rng.uniform(0, 10, 2)
                rows.append((nucleus, probe, y, x, level * rng.uniform(0.1, 0.35), False))
    columns = [np.array(column) for column in zip(*rows, strict=True)]
    return Slide(Signals(*columns[:5]), columns[5])


@pytest.mark.parametrize("granules", [0, 8])
@pytest.mark.parametrize("clusters", [0, 25])
def test_granules_go_and_signals_stay_beside_clusters_too(granules: int, clusters: int) -> None:
    made = slide(granules=granules, clusters=clusters)
    assert (made.accepted() == made.true).all()


def test_single_signals_beside_clusters_stay_where_cep17_shows_no_granules() -> None:
    signals = slide(her2=4, clusters=60).signals  # every nucleus is amplified
    single = (signals.probe == 0) & (np.arange(len(signals.probe)) % 4 == 0)
    signals = signals._replace(contrast=np.where(single, 80.0, signals.contrast))
    assert SignalFilter.of(signals, WEAK).accepts(signals).all()


def test_pale_signals_stay_in_bright_field() -> None:
    """Out of focus a signal has 0.4 of the contrast of others; there is no chromatin that shines like it."""
    signals = slide().signals
    pale = (signals.probe == 1) & (signals.nucleus % 4 == 0)
    signals = signals._replace(contrast=np.where(pale, 60.0, signals.contrast))
    assert SignalFilter.of(signals, PALE).accepts(signals).all()
    assert (SignalFilter.of(signals, WEAK).accepts(signals) == ~pale).all()


def test_crosstalk_of_the_other_probe_goes_however_strong() -> None:
    made = slide(bleed=0.45)  # 68 of a HER2 signal's 80
    kept = made.accepted()
    assert (kept[made.true]).mean() > 0.97  # a few HER2 signals lie on a CEP17 signal by chance
    assert not kept[~made.true].any()


@pytest.mark.parametrize("bleed", [0.45, 0.7])
def test_what_bleeds_through_takes_no_source_along(bleed: float) -> None:
    """Most of what looks like HER2 here is CEP17's light, and CEP17 lies under all of it."""
    made = slide(her2=1, bleed=bleed)
    kept = made.accepted()
    assert kept[made.signals.probe == 1].all()
    assert kept[made.true].mean() > 0.95
    assert not kept[~made.true].any()


def test_probes_that_meet_by_chance_are_no_crosstalk() -> None:
    signals = slide().signals
    at_once = signals.nucleus < 20  # a third of the nuclei have all their signals in one place
    place = [np.where(at_once, 5.0, of_all) for of_all in (signals.y_um, signals.x_um)]
    near = signals._replace(y_um=place[0], x_um=place[1])
    assert SignalFilter.of(near, WEAK).crosstalk == (0.0, 0.0)
    assert SignalFilter.of(near, WEAK).accepts(near).all()


@settings(max_examples=20)
@given(st.randoms(use_true_random=False))
def test_order_does_not_matter(random: Random) -> None:
    signals = slide(nuclei=25, granules=3, bleed=0.4).signals
    order = np.random.default_rng(random.getrandbits(32)).permutation(len(signals.nucleus))
    signal_filter, turned = SignalFilter.of(signals, WEAK), picked(signals, order)
    assert SignalFilter.of(turned, WEAK) == signal_filter
    assert (signal_filter.accepts(turned) == signal_filter.accepts(signals)[order]).all()


def test_nuclei_are_judged_alone_once_the_slide_is_known() -> None:
    signals = slide(granules=3, bleed=0.4).signals
    signal_filter, part = SignalFilter.of(signals, WEAK), (signals.nucleus >= 20) & (signals.nucleus < 40)
    assert (signal_filter.accepts(picked(signals, part)) == signal_filter.accepts(signals)[part]).all()


def test_brightness_does_not_matter() -> None:
    made = slide(granules=4, bleed=0.3)
    scale = np.where(made.signals.probe == 0, 0.02, 3.0)
    dim = made._replace(signals=made.signals._replace(contrast=scale * made.signals.contrast))
    assert (dim.accepted() == made.accepted()).all()


def test_weakest_by_hand() -> None:
    nucleus, contrast = np.array([7, 7, 3, 3, 9]), np.array([10.0, 80.0, 90.0, 20.0, 400.0])
    signals = Signals(nucleus, np.zeros(5, np.int64), np.arange(5.0), np.arange(5.0), contrast)
    assert SignalFilter.of(signals, WEAK) == SignalFilter(
        (WEAK * 80.0, 0.0), (0.0, 0.0)
    )  # of brightest 80, 90 and 400


def test_no_signals_and_a_single_probe() -> None:
    signals = slide().signals
    nothing = picked(signals, np.zeros(len(signals.nucleus), np.bool_))
    assert len(SignalFilter.of(nothing, WEAK).accepts(nothing)) == 0
    one = picked(signals, signals.probe == 0)
    assert SignalFilter.of(one, WEAK).accepts(one).all()
