"""Two populations: the numbers of a fit, and how it is reached, against independent arithmetic."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import norm

from her2core.scoring import mixture
from her2core.scoring.copynumber import fit_copies, seen_signals, truncation_floor, truncation_null
from her2core.scoring.ish_copies import single_signal
from her2core.scoring.mixture import Populations, fit_two, stain_floor

X = np.arange(0.005, 2.0, 0.01)


def histogram(*populations: tuple[float, float, float], cells: float = 5000) -> np.ndarray:
    """Cells in bins of 0.01: (share, mean, standard deviation) of every population."""
    edges = np.append(X - 0.005, X[-1] + 0.005)
    return np.rint(sum(cells * share * np.diff(norm.cdf(edges, mean, sd)) for share, mean, sd in populations))


def likelihood(w: np.ndarray, weights: np.ndarray, means: np.ndarray, sds: np.ndarray) -> float:
    density = sum(a * norm.pdf(X, m, s) for a, m, s in zip(weights, means, sds, strict=True))
    return float((w * np.log(density)).sum())


@pytest.mark.parametrize("share", [0.08, 0.3, 0.5, 0.85])
def test_two_planted_populations_are_found(share: float) -> None:
    w = histogram((share, 0.3, 0.08), (1 - share, 0.9, 0.15))
    found = fit_two(X, w)
    assert found is not None
    assert found.means == pytest.approx([0.3, 0.9], abs=0.01)
    assert found.sds == pytest.approx([0.08, 0.15], abs=0.01)
    assert found.weights == pytest.approx([share, 1 - share], abs=0.01)
    assert found.ashman_d == pytest.approx(2**0.5 * 0.6 / np.hypot(0.08, 0.15), rel=0.05)
    n, mean = w.sum(), (w * X).sum() / w.sum()
    one = (w * norm.logpdf(X, mean, np.sqrt((w * (X - mean) ** 2).sum() / n))).sum()
    gain = 2 * (likelihood(w, found.weights, found.means, found.sds) - one) - 3 * np.log(n)
    assert found.delta_bic == pytest.approx(gain, rel=1e-9)
    assert found.two


def test_a_tail_of_few_cells_is_no_population_where_two_others_are() -> None:
    w = histogram((0.5, 0.4, 0.1), (0.48, 0.7, 0.1), (0.02, 1.8, 0.02))
    found = fit_two(X, w)
    assert found is not None
    assert found.weights.min() >= 0.05


def test_a_spike_is_two_hundredths_of_od_wide() -> None:
    found = fit_two(np.array([0.2, 0.8]), np.array([50.0, 70.0]))
    assert found is not None
    assert found.sds == pytest.approx([0.02, 0.02])
    assert found.weights == pytest.approx([50 / 120, 70 / 120])
    assert fit_two(np.array([0.2, 0.8]), np.array([50.0, 0.0])) is None


def test_fits_start_from_every_tenth_of_the_cells() -> None:
    """Of a flat histogram: the outermost starts part a twentieth, and none lie more than a tenth apart."""
    x, w = np.arange(1000.0), np.ones(1000)
    shares = mixture._cuts(x, w, stain_floor)[0, 0]
    assert shares[[0, -1]] == pytest.approx([0.05, 0.95], abs=0.002)
    assert np.diff(shares).max() == pytest.approx(0.1, abs=0.002)
    weights, means, variances = mixture._cuts(x, w, stain_floor)[..., 5]
    assert weights == pytest.approx([0.5, 0.5], abs=0.002)
    assert means == pytest.approx([250, 750], abs=1)
    assert np.sqrt(variances) == pytest.approx([500 / 12**0.5] * 2, rel=0.01)


def parts_of(odds: float, low: float, high: float, low_log: float, high_log: float) -> np.ndarray:
    weight = 1 / (1 + np.exp(-odds))
    return np.array([[weight, 1 - weight], [low, high], np.exp([low_log, high_log])])


def test_a_leap_ends_where_even_steps_lead() -> None:
    """Rounds that each go a tenth of what is left arrive at once (SQUAREM is exact for these)."""
    end, off = np.array([0.4, 0.3, 0.9, -4.0, -3.0]), np.array([0.5, -0.1, 0.2, 0.3, -0.4])
    rounds = [parts_of(*(end + 0.9**k * off)) for k in range(3)]
    leapt = mixture._leap(*rounds, np.zeros_like)
    np.testing.assert_allclose(leapt, parts_of(*end), rtol=1e-9)
    still = mixture._leap(rounds[0], rounds[0], rounds[0], np.zeros_like)
    np.testing.assert_allclose(still, rounds[0])
    fast = [parts_of(*(end + 0.1**k * off)) for k in range(3)]  # a step is never cut short
    np.testing.assert_allclose(mixture._leap(*fast, np.zeros_like), parts_of(*end), rtol=1e-9)


def test_a_leap_leaves_cells_in_both_populations() -> None:
    rounds = [parts_of(odds, 0.3, 0.9, -4.0, -3.0) for odds in (0.0, 10.0, 19.0)]
    weights = mixture._leap(*rounds, np.zeros_like)[0]
    assert weights.min() > 0
    assert weights.max() < 1


def test_a_fit_is_as_likely_as_five_thousand_plain_rounds_and_takes_few() -> None:
    w = histogram((0.6, 0.5, 0.15), (0.4, 0.75, 0.15))
    parts = np.array([[0.5, 0.5], [0.3, 1.0], [0.01, 0.01]])
    plain = parts
    for _ in range(5000):
        plain, reached = mixture._round(X, w, plain, stain_floor)
    rounds = 0
    original = mixture._round

    def counted(*given: object) -> object:
        nonlocal rounds
        rounds += 1
        return original(*given)  # type: ignore[arg-type]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mixture, "_round", counted)
        _, found = mixture._maximise(X, w, parts, stain_floor)
    assert found == pytest.approx(reached, abs=0.01)
    assert rounds < 300


def test_a_fit_goes_on_from_a_given_one_for_many_samples() -> None:
    w = histogram((0.4, 0.3, 0.08), (0.6, 0.9, 0.15))
    one = fit_two(X, w)
    assert one is not None
    both = fit_two(X, np.stack([w, 2 * w]), one)
    assert both is not None
    assert both.means.shape == (2, 2)
    np.testing.assert_allclose(both.means, np.stack([one.means] * 2, axis=1), atol=1e-3)
    np.testing.assert_allclose(both.sds, np.stack([one.sds] * 2, axis=1), atol=1e-3)


def test_ashmans_distance_is_in_mean_widths() -> None:
    pair = Populations(np.array([0.5, 0.5]), np.array([1.0, 2.0]), np.array([0.3, 0.4]), np.array(20.0))
    assert pair.ashman_d == pytest.approx(2**0.5 / 0.5)


# --- copies -------------------------------------------------------------------------------------------


def test_copies_are_as_wide_as_truncation_makes_them_and_half_a_signal_at_least() -> None:
    assert truncation_floor(0.9)(np.array([1.0, 2.0, 4.0])).tolist() == pytest.approx([0.25, 0.25, 0.4])
    found = fit_copies([2, 8], [50, 50], 0.7)
    assert found is not None
    assert found.sds == pytest.approx([0.6**0.5, 2.4**0.5], rel=1e-3)
    assert found.separated


def test_seen_signals_have_the_mean_that_was_seen() -> None:
    for mean in (1.0, 1.4, 2.0, 3.7, 11.2):
        seen = seen_signals(mean, 0.7)
        assert seen.sum() == pytest.approx(1.0)
        assert seen[0] == 0
        assert (seen * np.arange(len(seen))).sum() == pytest.approx(mean)
    for mean, retention in ((0.99, 0.7), (2.0, 0.0), (2.0, 1.0)):
        with pytest.raises(ValueError):
            seen_signals(mean, retention)


def test_a_nucleus_on_the_cut_off_is_not_beyond_it() -> None:
    """Hardly any signal is lost: all nuclei show 4 and 2."""
    assert truncation_null(4.0, 2.0, 0.9999, (2, 1)) == pytest.approx(0.0, abs=0.01)
    assert truncation_null(4.0, 2.0, 0.9999, (19, 10)) == pytest.approx(1.0, abs=0.01)
    assert truncation_null(4.0, None, 0.9999, (4, 1)) == pytest.approx(0.0, abs=0.01)


def test_a_single_signal_is_found_under_clusters_of_every_size() -> None:
    """Signals around 100, spread by focus by half an octave, and clusters of 4 to 30 copies."""
    random = np.random.default_rng(7)
    focus = np.exp2(random.normal(0, 0.4, 4000))
    copies = np.where(np.arange(4000) < 1500, 1.0, random.uniform(4, 30, 4000))
    assert single_signal(100 * copies * focus) == pytest.approx(100, rel=0.08)
    assert single_signal(100 * focus) == pytest.approx(100, rel=0.04)
    assert np.isnan(single_signal(np.zeros(3)))
