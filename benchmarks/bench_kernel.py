"""The IHC kernel against a scikit-image pipeline of the same steps and an OpenCV one at 20x, side by side.

    python benchmarks/bench_kernel.py [--image FILE] [--side 4096] [--rounds 5]

Compared is the processor time of one thread per megapixel. Each does the same steps: unmix the stains, find
nuclei, outline them, bound every cell against its neighbours, sample DAB along 36 rays, and report OD and
completeness. The peers take turns with the kernel within each round, on a square of their own size (the
slow one gets a small one); medians and ratios are printed. The kernel's megapixels are those of the core;
what it reads beyond it, its halo, is on the clock and not in the count. The rate with the halo counted is
printed beside it: that is what a larger core tends to. ``--image`` takes a real image at
0.25 um/px; without it a synthetic field is used.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import platform
import statistics
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
from scipy import ndimage
from skimage.color import rgb2hed
from skimage.feature import peak_local_max
from skimage.filters import gaussian
from skimage.measure import regionprops_table
from skimage.segmentation import expand_labels, watershed
from slides import MPP, RGB, profile_of

from her2core.kernels.ihc.kernel import IHCKernel, warm
from her2core.params import IHCParams
from her2core.phantom import PhantomSpec, render_field
from her2core.records import Box

RAYS = 36
Result = tuple[int, float]  # cells, processor seconds


def field(image: Path | None, side: int) -> RGB:
    """A square of tissue, mirrored until it is ``side`` wide."""
    if image is not None:
        rgb = np.ascontiguousarray(cv2.imread(str(image))[..., ::-1])
        inset = rgb.shape[0] // 6  # the corners of a tissue core are glass
        rgb = rgb[inset:-inset, inset:-inset]
    else:
        spec = PhantomSpec(seed=3, height_px=2048, width_px=2048, mix=(0.2, 0.2, 0.1, 0.3, 0.2))
        rgb = render_field(spec)[0]
    pad = max(0, side - min(rgb.shape[:2]))
    return np.ascontiguousarray(np.pad(rgb, ((0, pad), (0, pad), (0, 0)), "symmetric")[:side, :side])


def ours(kernel: IHCKernel, rgb: RGB) -> Callable[[], Result]:
    halo = kernel.halo_px
    region = np.pad(rgb, ((halo, halo), (halo, halo), (0, 0)), "symmetric")
    core = Box(0, 0, rgb.shape[0], rgb.shape[1])

    def run() -> Result:
        start = time.process_time()
        cells = kernel(region, (-halo, -halo), core)
        return len(cells), time.process_time() - start

    return run


def by_scikit_image(rgb: RGB) -> Callable[[], Result]:
    """The textbook pipeline at full resolution: rgb2hed, blur, peaks, watershed, rays by map_coordinates."""

    def run() -> Result:
        start = time.process_time()
        stains = rgb2hed(rgb) * 6.0  # its OD is one sixth of the base-10 one
        hematoxylin, dab = gaussian(stains[..., 0], 1.25 / MPP), gaussian(stains[..., 2], 0.25 / MPP)
        seeds = np.zeros(rgb.shape[:2], np.int32)
        peaks = peak_local_max(hematoxylin, min_distance=int(2.0 / MPP), threshold_abs=0.1)
        seeds[tuple(peaks.T)] = np.arange(1, len(peaks) + 1)
        nuclei = watershed(-hematoxylin, seeds, mask=hematoxylin > 0.1)
        cells = expand_labels(nuclei, 8.0 / MPP)
        found = regionprops_table(
            nuclei, hematoxylin, ("label", "centroid", "area", "eccentricity", "intensity_mean")
        )
        cytoplasm = np.where(nuclei > 0, 0, cells)
        ndimage.median(dab, cytoplasm, found["label"])
        for label, y, x in zip(found["label"], found["centroid-0"], found["centroid-1"], strict=True):
            _rays_by_map((y, x), dab, cells, label)
        return len(found["label"]), time.process_time() - start

    return run


def _rays_by_map(
    centre: tuple[float, float], dab: npt.NDArray[np.floating], cells: npt.NDArray[np.int32], label: int
) -> None:
    angle = 2 * np.pi * np.arange(RAYS) / RAYS
    radius = np.arange(4, int(16 / MPP))
    y = centre[0] + radius * np.sin(angle)[:, None]
    x = centre[1] + radius * np.cos(angle)[:, None]
    inside = ndimage.map_coordinates(cells, [y, x], order=0) == label
    sampled = ndimage.map_coordinates(dab, [y, x], order=1)
    peak = np.where(inside, sampled, 0).max(axis=1)
    [(peak >= cut).mean() for cut in IHCParams().ladder_od]


def by_opencv(rgb: RGB) -> Callable[[], Result]:
    """At half resolution, as a person in a hurry would: matrix, blur, dilate, watershed, warpPolar."""
    matrix = np.linalg.pinv(np.array([(0.651, 0.701, 0.290), (0.269, 0.568, 0.778)])).T.astype(np.float32)
    table = (-np.log10(np.maximum(np.arange(256), 1) / 242.0)).clip(0).astype(np.float32)

    def run() -> Result:
        start = time.process_time()
        half = cv2.resize(rgb, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
        stains = cv2.transform(cv2.LUT(half, table), matrix)
        hematoxylin = cv2.GaussianBlur(stains[..., 0], (0, 0), 1.25 / (2 * MPP))
        dab = np.ascontiguousarray(stains[..., 1])
        disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (9, 9))
        peak = (hematoxylin == cv2.dilate(hematoxylin, disc)) & (hematoxylin > 0.1)
        count, labels, _, centres = cv2.connectedComponentsWithStats(peak.astype(np.uint8))
        cv2.watershed(half, labels)
        for x, y in centres[1:]:
            polar = cv2.warpPolar(dab, (32, RAYS), (x, y), 32, cv2.WARP_POLAR_LINEAR)
            ray = polar[:, 4:].max(axis=1)
            [(ray >= cut).mean() for cut in IHCParams().ladder_od]
        return count - 1, time.process_time() - start

    return run


def machine() -> str:
    cpu = platform.processor() or platform.machine()
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            cpu = line.split(":")[1].strip()
            break
    packages = ("numba", "opencv-python-headless", "scikit-image", "numpy")
    return f"{cpu}, Python {platform.python_version()}, " + ", ".join(f"{p} {_version(p)}" for p in packages)


def _version(package: str) -> str:
    try:
        return version(package)
    except ModuleNotFoundError:
        return "-"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--image", type=Path)
    parser.add_argument("--side", type=int, default=4096)
    parser.add_argument("--peer-side", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=5)
    choice = parser.parse_args()
    cv2.setNumThreads(1)
    warm()
    rgb = field(choice.image, choice.side)
    peer = np.ascontiguousarray(rgb[: choice.peer_side, : choice.peer_side])
    kernel = IHCKernel(IHCParams(), profile_of(rgb), MPP)
    runs = {
        "her2core kernel, 40x": (ours(kernel, rgb), rgb),
        "OpenCV, 20x": (by_opencv(peer), peer),
        "scikit-image, 40x": (by_scikit_image(peer), peer),
    }
    speeds: dict[str, list[float]] = {name: [] for name in runs}
    cells = dict.fromkeys(runs, 0.0)
    for run, _ in runs.values():
        run()  # buffers and caches are warm on both sides
    for _ in range(choice.rounds):
        for name, (run, image) in runs.items():
            found, seconds = run()
            megapixels = image.shape[0] * image.shape[1] / 1e6
            speeds[name].append(megapixels / seconds)
            cells[name] = found / (megapixels * MPP * MPP)
    print(machine())
    print(f"{choice.image or 'synthetic field'}, halo {kernel.halo_px} px, CPU time of one thread")
    own = statistics.median(speeds["her2core kernel, 40x"])
    for name, values in speeds.items():
        median = statistics.median(values)
        ratio = f"kernel is {own / median:6.1f} x"
        print(f"{name:24s} {median:8.2f} MP/s/core   {ratio}   {cells[name]:6.0f} cells/mm2")
    gross = own * ((choice.side + 2 * kernel.halo_px) / choice.side) ** 2
    print(f"kernel with its halo counted: {gross:.1f} MP/s/core")


if __name__ == "__main__":
    main()
