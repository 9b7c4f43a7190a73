"""End to end, from slide file to published rows and picture, beside pipelines that people write by hand.

    python benchmarks/bench_end_to_end.py [--across 2] [--rounds 3]

Ours is the real run: `score_slide` and the tables' commit, with the default configuration, on a local cluster
of one worker process. We report the CPU time of driver and worker together, Dask's own included; the
first run, which loads compiled code, is not.

The peers read the same slide with OpenSlide, tile by tile, and keep a table of cells in memory: nuclei from
unmixed hematoxylin, mean DAB in a ring around each. They make no pyramid, no profile and no picture, measure
no membrane, and drop no cell that a tile's edge cuts. Each takes its turn in every round, on tiles that lie
in tissue. "On tissue" divides the area of the tissue mask, not of the slide, by the whole time.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import itertools
import logging
import shutil
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import openslide
from distributed import Client
from numpy.typing import NDArray
from scipy import ndimage
from skimage import color, feature, filters, measure, morphology, segmentation
from slides import machine, real_slide

from flows.clusters import open_cluster
from her2core.pipeline import score_slide
from her2core.profile.tissue import TissueMask, read_tissue
from her2core.publish import publish
from her2core.records import Box
from her2core.stages.fanout import Workers
from her2core.stages.finished import SlideFinished
from her2core.stages.progress import ENDED, Progress
from her2core.stages.progress import log as progress_log
from her2core.stages.run import open_run
from her2core.storage.store import Store

Pixels = NDArray[np.uint8]
TILE = 1024
GOAL_TISSUE = 20.0  # megapixels of tissue a second and core


class Stages(logging.Handler):
    """Processor seconds of driver and worker together, by stage."""

    def __init__(self, client: Client) -> None:
        super().__init__(logging.INFO)
        self._client = client
        self.seconds: Counter[str] = Counter()
        self.last = self.now()

    def now(self) -> float:
        return time.process_time() + sum(self._client.run(time.process_time).values())

    def lap(self, stage: str) -> None:
        """Count what was spent since the last call towards ``stage``."""
        now = self.now()
        self.seconds[stage] += now - self.last
        self.last = now

    def emit(self, record: logging.LogRecord) -> None:
        progress: Progress | None = getattr(record, "progress", None)
        if progress and progress.done == progress.total and progress.stage != ENDED:
            self.lap(progress.stage)


def ours(client: Client, slide: Path, out: Path) -> tuple[SlideFinished, dict[str, float]]:
    """One run to a fresh output; the result and the seconds of every stage."""
    out.mkdir()
    manifest = out / "manifest.csv"
    manifest.write_text(f"slide_id,case_id,uri,assay\nbench,bench,{slide},HER2-IHC\n")
    run = open_run(str(manifest), str(out))
    stages = Stages(client)
    progress_log.addHandler(stages)
    progress_log.setLevel(logging.INFO)
    try:
        finished = score_slide(run, run.rows[0], Workers(client))
    finally:
        progress_log.removeHandler(stages)
    publish(run, [finished])
    stages.lap("tables")
    return finished, stages.seconds


def scikit_image(rgb: Pixels, um: float) -> int:
    """The textbook: colour deconvolution, Otsu, distance transform, watershed, a ring around each nucleus."""
    stains = color.rgb2hed(rgb)
    hematoxylin = filters.gaussian(stains[..., 0], 1.0 / um)
    nuclei = morphology.remove_small_objects(
        hematoxylin > filters.threshold_otsu(hematoxylin), max_size=int(10 / um**2)
    )
    distance = filters.gaussian(ndimage.distance_transform_edt(nuclei), 0.5 / um)
    peaks = feature.peak_local_max(distance, min_distance=int(2.0 / um), labels=measure.label(nuclei))
    seeds = np.zeros(nuclei.shape, np.int32)
    seeds[tuple(peaks.T)] = np.arange(1, len(peaks) + 1)
    labels = segmentation.watershed(-distance, seeds, mask=nuclei)
    rings = segmentation.expand_labels(labels, 3.0 / um)
    columns = ["label", "centroid", "area", "intensity_mean"]
    return len(measure.regionprops_table(rings, stains[..., 2], columns)["label"])


OD = -np.log10((np.arange(256) + 1.0) / 256).astype(np.float32)
UNMIX = np.linalg.inv(np.array([[0.650, 0.704, 0.286], [0.268, 0.570, 0.776], [0.711, 0.424, 0.562]]))


def opencv(rgb: Pixels, um: float) -> int:
    """The same steps at half the resolution, all in OpenCV and integers where it can."""
    half = cv2.resize(rgb, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    um *= 2
    stains = cv2.transform(cv2.LUT(half, OD), UNMIX.T.astype(np.float32))
    grey = cv2.convertScaleAbs(stains[..., 0], alpha=160)
    smooth = cv2.GaussianBlur(grey, (0, 0), 1.0 / um)
    _, nuclei = cv2.threshold(smooth, 0, 255, cv2.THRESH_BINARY | cv2.THRESH_OTSU)
    distance = cv2.distanceTransform(nuclei, cv2.DIST_L2, 3)
    size = 2 * int(2.0 / um) + 1
    peaks = ((distance == cv2.dilate(distance, np.ones((size, size)))) & (distance > 1.0 / um)).astype(
        np.uint8
    )
    count, seeds = cv2.connectedComponents(peaks)
    beyond = cv2.distanceTransform(cv2.bitwise_not(nuclei), cv2.DIST_L2, 3) > 3.0 / um
    seeds[beyond] = count
    labels = cv2.watershed(half, seeds)
    inside = (labels > 0) & (labels < count)
    cells = labels[inside]
    area = np.maximum(np.bincount(cells, minlength=count), 1)
    return len(np.bincount(cells, stains[..., 2][inside], count) / area) - 1


def by_hand(slide: Path, tiles: list[Box], score: Callable[[Pixels, float], int]) -> int:
    """A peer's whole way: OpenSlide's pixels, tile by tile, and the cells that it finds."""
    with openslide.OpenSlide(str(slide)) as source:
        um = float(source.properties[openslide.PROPERTY_NAME_MPP_X])
        found = 0
        for tile in tiles:
            image = source.read_region((tile.x0, tile.y0), 0, (tile.width, tile.height))
            found += score(np.asarray(image)[..., :3].copy(), um)
        return found


def tissue_tiles(tissue: TissueMask, height: int, width: int, count: int) -> list[Box]:
    """``count`` tiles that are all tissue, spread over the slide."""
    step = TILE // tissue.downsample
    corners = itertools.product(range(0, height - TILE, TILE), range(0, width - TILE, TILE))
    full = [
        Box(y, x, y + TILE, x + TILE)
        for y, x in corners
        if tissue.mask[y // tissue.downsample :, x // tissue.downsample :][:step, :step].all()
    ]
    return full[:: max(len(full) // count, 1)][:count]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--across", type=int, default=3, help="cores along the slide's edge")
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory() as folder, open_cluster("local", 1).connect() as client:
        slide, out = Path(folder) / "slide.svs", Path(folder) / "out"
        what = real_slide(slide, args.across)
        finished, _ = ours(client, slide, out)
        done = finished.outcome
        if not (done.info and done.pyramid and done.profile):
            raise SystemExit(f"the slide was not scored: {done.state} {done.message}")
        info, tissue = done.info, read_tissue(Store(str(out)), done.pyramid, done.profile)
        tissue_mp = int(np.count_nonzero(tissue.mask)) * tissue.downsample**2 / 1e6
        peers = {
            "OpenSlide + OpenCV at 20x": (opencv, tissue_tiles(tissue, info.height, info.width, 16)),
            "OpenSlide + scikit-image": (scikit_image, tissue_tiles(tissue, info.height, info.width, 2)),
        }
        stages: list[dict[str, float]] = []
        rates: dict[str, list[float]] = {name: [] for name in ("ours", *peers)}
        found: dict[str, float] = {}
        for _ in range(args.rounds):
            shutil.rmtree(out)
            finished, seconds = ours(client, slide, out)
            stages.append(seconds)
            rates["ours"].append(tissue_mp / sum(seconds.values()))
            for name, (score, tiles) in peers.items():
                start = time.process_time()
                cells = by_hand(slide, tiles, score)
                mp = len(tiles) * TILE**2 / 1e6
                rates[name].append(mp / (time.process_time() - start))
                found[name] = cells / mp
    cells = finished.cells.rows if finished.cells else 0
    found["ours"] = cells / tissue_mp
    print(machine("opencv-python-headless", "openslide-bin", "scikit-image", "numba", "dask"))
    print(
        f"{info.width} x {info.height} at {info.mpp} um/px, {what}; "
        f"{tissue_mp:.0f} MP of tissue, {cells} cells"
    )
    report(stages, rates, found, info.height * info.width / 1e6, tissue_mp)


def report(
    stages: list[dict[str, float]],
    rates: dict[str, list[float]],
    found: dict[str, float],
    slide_mp: float,
    tissue_mp: float,
) -> None:
    """Print medians: our stages, then every pipeline on tissue, then the ratios."""
    median = {stage: statistics.median(run[stage] for run in stages) for stage in stages[0]}
    total = statistics.median(sum(run.values()) for run in stages)
    print(f"{'':28}{'CPU s':>8}{'share':>8}")
    for stage, seconds in median.items():
        print(f"{stage:28}{seconds:8.2f}{seconds / total:8.0%}")
    print(f"{'whole slide':28}{total:8.2f}  {slide_mp / total:.1f} MP/s/core on all pixels")
    fixed = sum(median[stage] for stage in ("inspect", "profile", "slide", "tables"))
    print(f"{'of it, once a slide':28}{fixed:8.2f}  {tissue_mp / (total - fixed):.1f} MP/s/core without")
    print(f"{'on tissue':28}{'MP/s/core':>10}{'spread':>14}{'cells/MP':>10}")
    for name, values in rates.items():
        spread = f"{min(values):.1f}-{max(values):.1f}"
        print(f"{name:28}{statistics.median(values):10.1f}{spread:>14}{found[name]:10.0f}")
    mine = statistics.median(rates["ours"])
    for name in list(rates)[1:]:
        print(f"ours / {name}: {mine / statistics.median(rates[name]):.1f} x")
    print(f"ours on tissue: {mine:.1f} MP/s/core  (to reach: {GOAL_TISSUE:g})")


if __name__ == "__main__":
    main()
