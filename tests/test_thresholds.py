"""Numbers that decide are held by what lies just below and just above them, in figures of this file's own.

See docs/testing.md: a threshold moved by a third, either way, must fail a test.
"""

from __future__ import annotations

import numpy as np
import pytest

from her2core.scoring.copynumber import CopyPopulations
from her2core.scoring.ish_copies import cluster_copies, single_signal
from her2core.scoring.mixture import Populations
from her2core.scoring.signal_filter import PALE, WEAK, SignalFilter, Signals


def dish_of(her2: list[float], cep17: list[float], apart_um: float = 5.0) -> Signals:
    """One nucleus for each pair of contrasts; its two signals lie ``apart_um`` from each other."""
    n = len(her2)
    return Signals(
        np.repeat(np.arange(n), 2),
        np.tile([0, 1], n),
        np.zeros(2 * n),
        np.tile([0.0, apart_um], n),
        np.stack([her2, cep17], axis=1).ravel().astype(float),
    )


@pytest.mark.parametrize(("weak", "least"), [(WEAK, 0.5), (PALE, 0.3)])
def test_a_signal_has_half_the_typical_contrast_or_in_bright_field_three_tenths(
    weak: float, least: float
) -> None:
    found = SignalFilter.of(dish_of([80.0] * 30, [100.0] * 30), weak)
    assert found.weakest == pytest.approx((0.0, 100 * least))


@pytest.mark.parametrize(("dim", "granular"), [(2, False), (3, True)])
def test_a_slide_has_granules_from_a_tenth_of_weak_cep17_signals(dim: int, granular: bool) -> None:
    """Of 23 signals: 2 are 9 %, 3 are 13 %; without granules the weakest HER2 signals count."""
    found = SignalFilter.of(dish_of([80.0] * 23, [100.0] * (23 - dim) + [10.0] * dim), WEAK)
    assert (found.weakest[0] > 0) == granular


def test_the_typical_signal_is_that_of_the_dimmer_nuclei() -> None:
    """Two fifths up: with 11 nuclei the fifth."""
    levels = [10.0 * k for k in range(1, 12)]
    assert SignalFilter.of(dish_of([80.0] * 11, levels), 0.5).weakest[1] == pytest.approx(25.0)


@pytest.mark.parametrize(("nuclei", "known"), [(11, False), (12, True)])
def test_crosstalk_is_known_from_twelve_strong_signals(nuclei: int, known: bool) -> None:
    found = SignalFilter.of(dish_of([20.0] * nuclei, [100.0] * nuclei, 0.1), WEAK)
    assert found.crosstalk[0] == pytest.approx(1.6 * 0.2 if known else 0.0)


@pytest.mark.parametrize(("apart_um", "together"), [(0.25, True), (0.35, False)])
def test_crosstalk_lies_within_three_tenths_of_a_micrometre(apart_um: float, together: bool) -> None:
    signals = dish_of([60.0] * 20, [100.0] * 20, apart_um)
    found = SignalFilter((0.0, 0.0), (0.7, 0.0))
    assert (~found.accepts(signals)[signals.probe == 0]).all() == together


@pytest.mark.parametrize(("strength", "source"), [(0.45, False), (0.55, True)])
def test_a_signal_may_bleed_from_half_the_typical_contrast(strength: float, source: bool) -> None:
    """Eleven typical signals, and one more that makes them twelve sources, or not."""
    signals = dish_of([20.0] * 12, [100.0] * 11 + [100.0 * strength], 0.1)
    assert (SignalFilter.of(signals, WEAK).crosstalk[0] > 0) == source


@pytest.mark.parametrize(("times", "copies"), [(3.4, 1), (3.6, 4), (4.4, 4), (4.6, 5), (9.5, 10)])
def test_a_cluster_has_three_and_a_half_times_a_single_signal(times: float, copies: int) -> None:
    assert cluster_copies(np.array([2.0 * times]), 2.0).tolist() == [copies]


def test_a_single_signal_is_half_an_octave_wide() -> None:
    """Signals 0.55 octaves off the peak move the median of single ones no more; those within 0.4 do."""
    peak = [100.0] * 101
    far = peak + [100.0 * 2**0.75] * 60
    near = peak[:50] + [100.0 * 2**0.3] * 60
    assert single_signal(np.array(far)) == pytest.approx(100.0)
    assert single_signal(np.array(near)) == pytest.approx(100.0 * 2**0.3)


@pytest.mark.parametrize(("singles", "found"), [(40, 800.0), (60, 100.0)])
def test_a_peak_of_single_signals_has_half_the_height_of_the_highest(singles: int, found: float) -> None:
    """Clusters of eight copies beside single signals, each spread too little to matter."""
    assert single_signal(np.array([100.0] * singles + [800.0] * 100)) == pytest.approx(found)


@pytest.mark.parametrize(("with_one", "bleeds"), [(10, False), (11, True)])
def test_light_that_shows_beside_half_of_the_sources_is_no_crosstalk(with_one: int, bleeds: bool) -> None:
    """Of 20 strong signals of CEP17, so many have a fifth of their contrast on top."""
    signals = dish_of([20.0] * 20, [100.0] * 20, 0.1)
    away = np.repeat(np.arange(20) >= with_one, 2) & (signals.probe == 1)
    signals = signals._replace(x_um=np.where(away, 5.0, signals.x_um))
    assert (SignalFilter.of(signals, WEAK).crosstalk[0] > 0) == bleeds


def test_the_peak_of_single_signals_lies_in_an_eighth_of_an_octave() -> None:
    """Of 100, 6.644 octaves, the eighth ends at 6.75: its middle, 6.6875, has signals to 7.1875 around."""
    close = 100 * 2.0 ** (1e-6 * np.arange(101))
    for octaves, median in ((7.186, 53), (7.189, 50)):
        signals = np.append(close, [2**octaves] * 6)
        assert single_signal(signals) == pytest.approx(close[median], rel=1e-9)


@pytest.mark.parametrize(("clusters", "found"), [(95, True), (105, False)])
def test_a_peak_is_half_an_octave_wide(clusters: int, found: bool) -> None:
    """Clusters, evenly over six octaves, are as dense as sqrt(2 pi) x 4 eighths of them, and twice 500."""
    octaves = np.repeat(4 + (np.arange(48) + 0.5) / 8, clusters) + 6.5
    signals = np.append([2**6.5] * 500, 2.0**octaves)
    assert (single_signal(signals) == pytest.approx(2**6.5)) == found


@pytest.mark.parametrize(
    ("gain", "share", "apart", "two", "separated"),
    [
        (9.9, 0.06, 2.1, False, False),
        (10.1, 0.06, 2.1, True, True),
        (10.1, 0.049, 2.1, False, False),
        (10.1, 0.051, 2.1, True, True),
        (10.1, 0.06, 1.9, True, False),
    ],
)
def test_two_populations_need_ten_of_bic_and_a_twentieth_of_the_cells_and_copies_a_distance_of_two(
    gain: float, share: float, apart: float, two: bool, separated: bool
) -> None:
    """Kass and Raftery 1995; CAP 2009; Ashman 1994. Which population is the smaller makes no difference."""
    for weights in ((share, 1 - share), (1 - share, share)):
        stain = Populations(np.array(weights), np.array([0.1, 0.6]), np.array([0.05, 0.05]), np.array(gain))
        assert bool(stain.two) == two
        copies = CopyPopulations((2.0, 8.0), (1.0, 1.0), weights, gain, apart)
        assert copies.separated == separated
