"""Signals in nuclei, and the whole ISH kernel, beside scipy, scikit-image and Big-FISH in one run.

    python benchmarks/bench_ish.py [--cores 6144 2048] [--rounds 5] [--mpp 0.1] [--big-fish PYTHON]

Compared is processor time of one thread per megapixel, on the same phantom. The peers find signals in the
plane of one probe and nothing else: no nuclei, no sizes, no densities, no merging by size; our finder does
all that, given the nuclei. They take turns within each round, on squares of their own size; medians and
ratios are printed, and how many of the planted signals in nuclei each found.

The kernel runs over a core of 6144 px, the unit of a run (1.5 shards of 4096 px), and over smaller ones, of
which the halo is more: on the same phantom, mirrored at its rims as often as it takes. Its megapixels are
those of the core alone; what it reads beyond, its halo, is on the clock and not in the count. Big-FISH wants
packages of its own: name the interpreter of an environment where it is installed.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import itertools
import json
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from bench_kernel import machine
from scipy import ndimage
from scipy.spatial import cKDTree
from skimage.feature import blob_log, peak_local_max

from her2core.kernels.ish.dish import PER_OD, REFERENCE_COUNTERSTAIN, REFERENCE_RED, DishUnmixer
from her2core.kernels.ish.kernel import ISHKernel
from her2core.kernels.ish.spots import SpotFinder
from her2core.params import ISHParams
from her2core.phantom.ish import ISHSpec, PlantedISH, Population, plant_ish
from her2core.phantom.ish_render import DAPI_LEVEL, FIELD, GLASS, HEMATOXYLIN_OD, render_ish
from her2core.records import Box, DishStain, Fluorescence

MATCH_UM = 0.4
SPACING_UM = 14.0  # 5 000 nuclei a mm2, which touch and overlap: the mean of six real fields (3 400 to 6 300)
Plane = npt.NDArray[np.uint16]
Points = npt.NDArray[np.float64]
Result = tuple[Points, float]  # signals (y, x), processor seconds
Run = Callable[[], Result]

BIG_FISH = """
import sys, json, time, numpy as np
from bigfish.detection import detect_spots
plane, sigma, threshold = np.load(sys.argv[1]), float(sys.argv[2]), float(sys.argv[3])
for line in sys.stdin:
    start = time.process_time()
    found = detect_spots(plane, threshold=threshold, log_kernel_size=[sigma] * 2, minimum_distance=[1] * 2)
    print(json.dumps([time.process_time() - start, found.tolist()]), flush=True)
"""


def phantom(modality: str, side: int, mpp: float) -> PlantedISH:
    mix = (Population(0.6, 2.0, 2.0), Population(0.4, 8.0, 2.0))
    spec = ISHSpec(
        modality, seed=3, height_px=side, width_px=side, mpp=mpp, populations=mix, spacing_um=SPACING_UM
    )
    return plant_ish(spec)


def stain_of(modality: str) -> DishStain | Fluorescence:
    if modality == "FISH":
        noise = (10.0, 10.0, 10.0)
        return Fluorescence(("DAPI", "HER2", "CEP17"), FIELD, noise, FIELD[0], FIELD[0] + DAPI_LEVEL)
    return DishStain(GLASS, REFERENCE_COUNTERSTAIN, REFERENCE_RED, "reference", None, 0.02, HEMATOXYLIN_OD)


def raster(planted: PlantedISH, side: int, mpp: float) -> npt.NDArray[np.int32]:
    labels = np.zeros((side, side), np.int32)
    for k, nucleus in enumerate(planted.nuclei):
        centre = (round(nucleus["x_px0"]), round(nucleus["y_px0"]))
        axes = (round(nucleus["long_um"] / mpp), round(nucleus["short_um"] / mpp))
        cv2.ellipse(labels, centre, axes, float(np.degrees(nucleus["angle"])), 0, 360, k + 1, -1)
    return labels


def finder(plane: npt.NDArray[np.generic], labels: npt.NDArray[np.int32], mpp: float, floor: float) -> Run:
    search = SpotFinder(ISHParams(), mpp, floor)
    n = int(labels.max())

    def run() -> Result:
        start = time.process_time()
        found = search(plane, labels, n)
        return np.stack([found["y"], found["x"]], axis=1), time.process_time() - start

    return run


def by_scipy(plane: Plane, sigma: float, floor: float) -> Run:
    def run() -> Result:
        start = time.process_time()
        answer = -(sigma**2) * ndimage.gaussian_laplace(plane.astype(np.float32), sigma)
        found = peak_local_max(answer, min_distance=max(1, round(sigma)), threshold_abs=floor / 2)
        return found.astype(np.float64), time.process_time() - start

    return run


def by_blob_log(plane: Plane, sigmas: tuple[float, float], floor: float) -> Run:
    def run() -> Result:
        start = time.process_time()
        found = blob_log(
            plane.astype(np.float32),
            min_sigma=sigmas[0],
            max_sigma=sigmas[1],
            num_sigma=3,
            threshold=floor / 2,
        )
        return found[:, :2], time.process_time() - start

    return run


class BigFish:
    """Big-FISH in its own interpreter: a line in, a detection out."""

    def __init__(self, python: str, plane: Plane, sigma: float, floor: float, folder: Path) -> None:
        np.save(folder / "plane.npy", plane)
        command = [python, "-c", BIG_FISH, str(folder / "plane.npy"), str(sigma), str(floor / 2 / sigma**2)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def __call__(self) -> Result:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write("go\n")
        self._process.stdin.flush()
        seconds, found = json.loads(self._process.stdout.readline())
        return np.array(found, np.float64).reshape(-1, 2), seconds

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


def kernel_run(modality: str, field: npt.NDArray[Any], core: int, mpp: float) -> tuple[Run, int]:
    kernel = ISHKernel(ISHParams(), stain_of(modality), mpp, (core, core))
    halo = kernel.halo_px
    more = max(core + 2 * halo - len(field), 0)
    whole = np.pad(field, ((0, more), (0, more), (0, 0)), "symmetric")
    whole = np.ascontiguousarray(whole[: core + 2 * halo, : core + 2 * halo])

    def run() -> Result:
        start = time.process_time()
        _, spots = kernel(whole, (0, 0), Box(halo, halo, halo + core, halo + core))
        return np.stack([spots["y_px0"], spots["x_px0"]], axis=1), time.process_time() - start

    return run, halo


def found_share(points: Points, truth: Points, mpp: float) -> tuple[float, float]:
    """Share of planted signals found, and of found ones that were planted."""
    if not len(points) or not len(truth):
        return 0.0, 0.0
    recall = (cKDTree(points).query(truth)[0] * mpp < MATCH_UM).mean()
    precision = (cKDTree(truth).query(points)[0] * mpp < MATCH_UM).mean()
    return float(recall), float(precision)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--side", type=int, default=3072)
    parser.add_argument("--peer-side", type=int, default=1024)
    parser.add_argument("--cores", type=int, nargs="+", default=[6144, 2048], help="edges, px")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--mpp", type=float, default=0.1)
    parser.add_argument("--big-fish", help="interpreter with Big-FISH")
    choice = parser.parse_args()
    cv2.setNumThreads(1)
    mpp, floor = choice.mpp, 60.0
    sigma = 0.25 / mpp  # of the phantom's signals, about
    with tempfile.TemporaryDirectory() as folder:
        runs: dict[str, tuple[Run, int]] = {}
        fish = {s: phantom("FISH", s, mpp) for s in {choice.side, choice.peer_side}}
        drawn = {s: render_ish(p, Box(0, 0, s, s)) for s, p in fish.items()}
        planes = {s: np.ascontiguousarray(field[..., 1]) for s, field in drawn.items()}
        labels = raster(fish[choice.side], choice.side, mpp)
        peer = planes[choice.peer_side]
        runs["her2core signals, FISH"] = finder(planes[choice.side], labels, mpp, floor), choice.side
        dish = phantom("DISH", choice.side, mpp)
        square = Box(0, 0, choice.side, choice.side)
        fields = {"FISH": drawn[choice.side], "DISH": render_ish(dish, square)}
        black = DishUnmixer(stain_of("DISH"), mpp)(fields["DISH"]).black
        runs["her2core signals, DISH black"] = (
            finder(black.copy(), raster(dish, choice.side, mpp), mpp, 0.1 * PER_OD),
            choice.side,
        )
        runs["scipy LoG, one scale"] = by_scipy(peer, sigma, floor), choice.peer_side
        runs["scikit-image blob_log"] = (
            by_blob_log(peer, (0.14 / mpp, 0.35 / mpp), floor),
            choice.peer_side,
        )
        big_fish = None
        if choice.big_fish:
            big_fish = BigFish(choice.big_fish, peer, sigma, floor, Path(folder))
            runs["Big-FISH detect_spots"] = big_fish, choice.peer_side
        halos = {}
        for modality, core in itertools.product(fields, choice.cores):
            name = f"her2core kernel, {modality}, core {core}"
            run, halos[name] = kernel_run(modality, fields[modality], core, mpp)
            runs[name] = run, core
        speeds: dict[str, list[float]] = {name: [] for name in runs}
        points: dict[str, Points] = {}
        for run, _ in runs.values():
            run()  # buffers and caches are warm on both sides
        for _ in range(choice.rounds):
            for name, (run, side) in runs.items():
                points[name], seconds = run()
                speeds[name].append(side * side / 1e6 / seconds)
        if big_fish is not None:
            big_fish.close()
    print(machine())
    print(f"phantom at {mpp} um/px, {100 * (labels > 0).mean():.0f} % of it nuclei, CPU time of one thread")
    own = statistics.median(speeds["her2core signals, FISH"])
    for name, values in speeds.items():
        median = statistics.median(values)
        text = f"{name:32s} {median:8.2f} MP/s/core"
        if name in halos:
            edge = runs[name][1] + 2 * halos[name]
            share = (edge / runs[name][1]) ** 2
            text += f"   with its halo of {halos[name]} px, {100 - 100 / share:.0f} %: {median * share:.1f}"
        else:
            planted = (dish if "black" in name else fish[runs[name][1]]).spots
            inside = planted[(planted["probe"] == 0) & (planted["nucleus"] >= 0)]
            truth = np.stack([inside["y_px0"], inside["x_px0"]], axis=1)
            recall, precision = found_share(points[name], truth, mpp)
            text += f"   ours is {own / median:6.1f} x   recall {recall:.3f} precision {precision:.3f}"
        print(text)


if __name__ == "__main__":
    main()
