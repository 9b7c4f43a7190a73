"""Signals in nuclei: planted Gaussians are found, placed, measured and merged, wherever a chunk begins."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from her2core.kernels.ish.scale_space import fill_bins, scales
from her2core.kernels.ish.spot_peaks import median
from her2core.kernels.ish.spots import FOUND_DTYPE, Found, SpotFinder, find_spots
from her2core.params import ISHParams
from her2core.scoring.ish_copies import cluster_copies, single_signal

MPP = 0.15
PARAMS = ISHParams()
SIGMA_UM = 0.2  # diameter 0.57 um
HEIGHT = 600.0
Floats = npt.NDArray[np.float64]
Spot = tuple[float, float, float, float]  # y, x, height, sigma_um


def field(spots: list[Spot], shape: tuple[int, int], mpp: float = MPP, seed: int | None = 0) -> Floats:
    """Gaussians on a level of 200; with photon noise unless ``seed`` is None."""
    y, x = np.mgrid[: shape[0], : shape[1]]
    image = np.full(shape, 200.0)
    for sy, sx, height, sigma in spots:
        image += height * np.exp(-((y - sy) ** 2 + (x - sx) ** 2) / (2 * (sigma / mpp) ** 2))
    return image if seed is None else np.random.default_rng(seed).poisson(image).astype(np.float64)


def one_nucleus(shape: tuple[int, int], mpp: float = MPP) -> npt.NDArray[np.int32]:
    labels = np.zeros(shape, np.int32)
    axes = (round(6.5 / mpp), round(5.5 / mpp))
    cv2.ellipse(labels, (shape[1] // 2, shape[0] // 2), axes, 20, 0, 360, 1, -1)
    return labels


def find(image: Floats, labels: npt.NDArray[np.int32], params: ISHParams = PARAMS, mpp: float = MPP) -> Found:
    return SpotFinder(params, mpp, 60.0)(image.astype(np.uint16), labels, int(labels.max()))


def test_the_scales_fit_their_signals() -> None:
    bank = scales(3.0, 7.5, 3)
    assert bank.sigma_px == pytest.approx(np.array([3.0, 4.743, 7.5]) / 2.828, rel=1e-3)
    half = np.concatenate([bank.taps[:, :1], 2 * bank.taps[:, 1:]], axis=1)
    assert half.sum(axis=1) == pytest.approx(np.ones(4), abs=1e-5)


def test_the_median_is_that_of_numpy() -> None:
    rng = np.random.default_rng(6)
    for n in (*range(1, 30), 256, 289):
        for values in (rng.normal(0, 50, n), np.rint(rng.normal(0, 2, n)), rng.uniform(200, 210, n)):
            single = values.astype(np.float32)
            assert median(single.copy()) == np.median(single)


@pytest.mark.parametrize("mpp", [0.08, 0.1, 0.15, 0.2])
def test_planted_signals_are_found_placed_and_sized(mpp: float) -> None:
    rng = np.random.default_rng(5)
    side, recall, extra, errors, heights, widths = round(16 / mpp), 0, 0, [], [], []
    labels = one_nucleus((side, side), mpp)
    for k in range(12):
        truth = []
        while len(truth) < 5:
            y, x = side / 2 + rng.uniform(-3.5, 3.5, 2) / mpp
            if all(np.hypot(y - t[0], x - t[1]) * mpp > 1.4 for t in truth):
                truth.append((y, x, HEIGHT, SIGMA_UM))
        found = find(field(truth, labels.shape, mpp, seed=k), labels, mpp=mpp)
        for y, x, *_ in truth:
            away = np.hypot(found["y"] - y, found["x"] - x) * mpp
            recall += int(away.min() < 0.2)
            errors.append(away.min())
        extra += len(found) - len(truth)
        heights.extend(found["contrast"])
        widths.extend(found["diameter_um"])
    assert recall == 60
    assert extra == 0
    assert np.sqrt(np.mean(np.square(errors))) < 0.03
    assert np.median(heights) == pytest.approx(HEIGHT, rel=0.12)
    assert np.median(widths) == pytest.approx(2.828 * SIGMA_UM, rel=0.2)


def test_noise_nuclear_rims_and_chromatin_are_no_signals() -> None:
    side = round(16 / MPP)
    labels = one_nucleus((side, side))
    rng = np.random.default_rng(1)
    glow = cv2.GaussianBlur((labels > 0).astype(np.float64), (0, 0), 0.3 / MPP) * 300
    texture = cv2.GaussianBlur(rng.normal(size=labels.shape), (0, 0), 0.8 / MPP)
    image = rng.poisson(200 + glow + (labels > 0) * 25 * texture / texture.std()).astype(np.float64)
    assert len(find(image, labels)) == 0


def test_only_signals_inside_a_nucleus_count_and_each_goes_to_its_own() -> None:
    labels = np.zeros((120, 240), np.int32)
    labels[10:110, 10:110], labels[10:110, 112:220] = 1, 2
    spots = [(60, 40, HEIGHT, SIGMA_UM), (60, 180, HEIGHT, SIGMA_UM), (60, 230, HEIGHT, SIGMA_UM)]
    found = find(field(spots, labels.shape), labels)
    assert found["nucleus"].tolist() == [1, 2]
    assert found["x"] == pytest.approx([40, 180], abs=0.3)


@pytest.mark.parametrize(("apart_um", "count"), [(0.5, 1), (0.6, 1), (1.1, 2), (1.5, 2)])
def test_signals_closer_than_a_diameter_count_once(apart_um: float, count: int) -> None:
    side = round(16 / MPP)
    labels = one_nucleus((side, side))
    gap = apart_um / MPP / 2
    spots = [(side / 2, side / 2 - gap, HEIGHT, SIGMA_UM), (side / 2, side / 2 + gap, HEIGHT, SIGMA_UM)]
    assert len(find(field(spots, labels.shape), labels)) == count


def test_a_diffuse_signal_counts_once() -> None:
    side = round(16 / MPP)
    labels = one_nucleus((side, side))
    assert len(find(field([(side / 2, side / 2, HEIGHT / 2, 0.6)], labels.shape), labels)) == 1


def test_what_is_faint_beside_the_strongest_signal_is_left_out() -> None:
    side = round(16 / MPP)
    labels = one_nucleus((side, side))
    spots = [(side / 2, side / 2 - 15, HEIGHT, SIGMA_UM), (side / 2, side / 2 + 15, HEIGHT / 6, SIGMA_UM)]
    image = field(spots, labels.shape, seed=None)
    assert len(find(image, labels)) == 1
    assert len(find(image, labels, replace(PARAMS, spot_share=0.1))) == 2


def test_integrated_density_is_the_volume_of_the_signal() -> None:
    side = round(16 / MPP)
    labels = one_nucleus((side, side))
    single, double = (
        find(field([(side / 2, side / 2, h, SIGMA_UM)], labels.shape), labels) for h in (HEIGHT, 2 * HEIGHT)
    )
    volume = 2 * np.pi * SIGMA_UM**2 * HEIGHT  # grey levels x um2
    assert 0.75 * volume < single["integrated"][0] < volume
    assert double["integrated"][0] / single["integrated"][0] == pytest.approx(2.0, rel=0.05)


def test_a_cluster_holds_as_many_copies_as_were_planted() -> None:
    rng = np.random.default_rng(2)
    side, planted, counted, integrated = round(16 / MPP), [], [], []
    labels = one_nucleus((side, side))
    for k in range(24):
        copies = int(rng.integers(4, 13))
        spots = [(side / 2 - 18, side / 2 + dx, HEIGHT, SIGMA_UM) for dx in (-20.0, 20.0)]
        for _ in range(copies):
            r, turn = 0.2 * np.sqrt(copies * rng.random()) / MPP, 2 * np.pi * rng.random()
            y, x = side / 2 + 14 + r * np.sin(turn), side / 2 + r * np.cos(turn)
            spots.append((y, x, HEIGHT, SIGMA_UM))
        found = find(field(spots, labels.shape, seed=k), labels)
        planted.append(copies + 2)
        integrated.append(found)
    every = np.concatenate(integrated)
    single = single_signal(every["integrated"])
    counted = [int(cluster_copies(found["integrated"], single).sum()) for found in integrated]
    assert np.mean(counted) == pytest.approx(np.mean(planted), rel=0.07)
    assert np.abs(np.subtract(counted, planted)).mean() < 1.0


@pytest.mark.parametrize("mpp", [0.1, 0.15])
def test_a_nucleus_is_the_same_wherever_the_chunk_begins(mpp: float) -> None:
    rng = np.random.default_rng(3)
    side = round(16 / mpp)
    labels = one_nucleus((side, side), mpp)
    spots = [(*(side / 2 + rng.uniform(-3, 3, 2) / mpp), HEIGHT, SIGMA_UM) for _ in range(6)]
    image = field(spots, labels.shape, mpp).astype(np.uint16)
    finder = SpotFinder(PARAMS, mpp, 60.0)
    pad = finder.reach_px
    rows = []
    for before in ((0, 0), (1, 0), (2, 5), (37, 101)):
        wide = tuple((b + pad, pad) for b in before)
        plane, raster = np.pad(image, wide, "edge"), np.pad(labels, wide)
        origin = (-before[0] - pad, -before[1] - pad)
        found = finder(plane, raster, 1, origin)
        found["y"] += origin[0]
        found["x"] += origin[1]
        rows.append(found.tobytes())
    assert len(rows[0]) >= 3 * FOUND_DTYPE.itemsize
    assert len(set(rows)) == 1


def test_the_search_is_compiled_for_one_kind_of_plane() -> None:
    labels = one_nucleus((110, 110))
    plane = field([(55.0, 50.0, HEIGHT, SIGMA_UM)], labels.shape).astype(np.uint16)
    wide = np.zeros((110, 130), np.uint16)
    wide[:, 20:] = plane
    finder = SpotFinder(PARAMS, MPP, 60.0)
    found = [finder(each, labels, 1) for each in (plane, wide[:, 20:], plane.astype(np.float32))]
    assert len(found[0]) == 1
    assert len({rows.tobytes() for rows in found}) == 1
    assert len(find_spots.signatures) == 1


@pytest.mark.parametrize("bin_px", [1, 2, 3])
def test_bins_are_means_less_a_share_of_another_channel(bin_px: int) -> None:
    plane, other = np.random.default_rng(4).integers(0, 4000, (2, 20, 23)).astype(np.uint16)
    bins = np.empty((5, 6), np.float32)
    fill_bins(plane, other, np.float32(0.25), (1, 2), bin_px, bins)
    less = plane - 0.25 * other
    part = less[1 : 1 + 5 * bin_px, 2 : 2 + 6 * bin_px].reshape(5, bin_px, 6, bin_px)
    assert bins == pytest.approx(part.mean(axis=(1, 3)), abs=1e-3)


def test_neighbours_do_not_change_a_nucleus() -> None:
    labels = np.zeros((130, 260), np.int32)
    labels[20:110, 20:110], labels[20:110, 140:240] = 1, 2
    spots = [(50, 60, HEIGHT, SIGMA_UM), (80, 80, HEIGHT, SIGMA_UM), (60, 200, 5 * HEIGHT, SIGMA_UM)]
    image = field(spots, labels.shape)
    both, alone = find(image, labels), find(image, np.where(labels == 1, labels, 0).astype(np.int32))
    assert both[both["nucleus"] == 1].tobytes() == alone.tobytes()


def test_no_nuclei_no_signals_and_shapes_must_agree() -> None:
    image = field([(40, 40, HEIGHT, SIGMA_UM)], (80, 80))
    assert len(find(image, np.zeros((80, 80), np.int32))) == 0
    with pytest.raises(ValueError, match="one shape is wanted"):
        find(image, np.zeros((80, 79), np.int32))


def test_the_single_signal_is_found_below_the_clusters() -> None:
    rng = np.random.default_rng(4)
    singles, clusters = rng.lognormal(3.0, 0.15, 300), rng.lognormal(3.0 + np.log(8), 0.6, 700)
    both = np.concatenate([singles, clusters])
    assert single_signal(both) == pytest.approx(np.exp(3.0), rel=0.05)
    assert np.median(both) > 3 * np.exp(3.0)
    assert np.isnan(single_signal(np.empty(0)))


def test_copies_of_a_cluster_round_and_all_else_is_one() -> None:
    found = cluster_copies(np.array([0.2, 1.4, 3.4, 3.6, 6.1]), 1.0)
    assert found.tolist() == [1, 1, 1, 4, 6]
    assert cluster_copies(np.array([3.0]), float("nan")).tolist() == [1]
