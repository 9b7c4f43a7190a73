"""How often 95 % intervals of heterogeneity hold the truth, on simulated tissue (ten minutes).

    python benchmarks/simulate_intervals.py [--fields 200] [--side 6] [--reach 140 350 870]

Tumours of 1 500 cells/mm² whose stain is a Gaussian field, resembling itself over ``--reach`` µm (the
practical range of an exponential model), and noise of each cell. The truth is each metric's mean over all
fields.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from her2core.guidelines.rules_ihc import CellClass, load_rules
from her2core.heterogeneity import ihc as heterogeneity
from her2core.heterogeneity import spatial
from her2core.heterogeneity.metrics import Metric
from her2core.heterogeneity.regions import regions_of_cells
from her2core.params import HeterogeneityParams
from her2core.scoring.ihc import MeasuredCells
from her2core.statistics import Z95

Reals = NDArray[np.float64]

STEP_UM = 20.0
CELLS_PER_MM2 = 1500
STRUCTURE = 0.6
"""Share of the variance of cells that is the field's; the rest is each cell's own."""
MEAN_OD, SD_OD = 0.4, 0.12
SHARES = (0.35, 0.30, 0.25, 0.10)
"""Cells of score 0 to 3 (2 as class 2)."""
KINDS = np.array([CellClass.C0, CellClass.C1, CellClass.C2, CellClass.C3], np.int8)


def gaussian_fields(random: np.random.Generator, side_um: float, reach_um: float) -> Iterator[Reals]:
    """Fields of mean 0 and variance 1, by circulant embedding on twice the side."""
    n = 2 * int(np.ceil(side_um / STEP_UM))
    steps = np.minimum(np.arange(n), n - np.arange(n)) * STEP_UM
    power = np.fft.fft2(np.exp(-3 * np.hypot(steps[:, None], steps) / reach_um)).real
    while True:
        noise = random.normal(size=(2, n, n))
        both = np.fft.fft2(np.sqrt(np.maximum(power, 0)) * (noise[0] + 1j * noise[1])) / n
        yield from (both.real[: n // 2, : n // 2], both.imag[: n // 2, : n // 2])


def tumour(
    random: np.random.Generator, field: Reals, side_um: float
) -> tuple[MeasuredCells, NDArray[np.int8]]:
    """Cells at random places of a field, and their classes."""
    n = int(CELLS_PER_MM2 * side_um**2 / 1e6)
    y, x = random.uniform(0, side_um, (2, n))
    level = field[(y / STEP_UM).astype(int), (x / STEP_UM).astype(int)]
    z = np.sqrt(STRUCTURE) * level + np.sqrt(1 - STRUCTURE) * random.normal(size=n)
    od = np.maximum(MEAN_OD + SD_OD * z, 0.0).astype(np.float32)
    cuts = np.quantile(np.random.default_rng(0).normal(size=1_000_000), np.cumsum(SHARES)[:-1])
    everyone = np.ones(n, np.bool_)
    cells = MeasuredCells(y, x, np.minimum(od, 1.0), od, od, od, everyone, everyone, np.ones_like(od), od)
    return cells, KINDS[np.searchsorted(cuts, z)]


def measure(cells: MeasuredCells, classes: NDArray[np.int8], params: HeterogeneityParams) -> Iterator[Metric]:
    """Metrics of cells, and those of regions of 250 µm."""
    rules = load_rules("breast_asco_cap_2018")
    regions = regions_of_cells(cells, classes, params.region_um, rules, params.region_score_cells)
    y, x, od = cells.y_um, cells.x_um, cells.membrane_od.astype(np.float64)
    yield from heterogeneity.cell_metrics(regions, y, x, od, params)
    yield from spatial.cell_metrics(regions, y, x, classes, od, params)
    yield from heterogeneity.region_metrics(regions, params, "2+")
    yield from spatial.region_metrics(regions, params)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--fields", type=int, default=200)
    parser.add_argument("--side", type=float, default=6.0, help="mm")
    parser.add_argument("--reach", type=float, nargs="+", default=[140.0, 350.0, 870.0], help="µm")
    args = parser.parse_args()
    params, held = HeterogeneityParams(permutations=99), defaultdict(dict)
    for reach in args.reach:
        random, found = np.random.default_rng(1), defaultdict(list)
        fields = gaussian_fields(random, 1000 * args.side, reach)
        for _, field in zip(range(args.fields), fields, strict=False):
            for metric in measure(*tumour(random, field, 1000 * args.side), params):
                if metric.value is not None:
                    key = (metric.name, metric.scale_um or 0.0)
                    ends = (np.nan if end is None else end for end in (metric.low, metric.high))
                    found[key].append((metric.value, *ends))
        for key, rows in found.items():
            value, low, high = np.array(rows).T
            given = np.isfinite(low)
            inside = (low <= value.mean()) & (value.mean() <= high)
            if given.sum() > 1:
                width = np.median((high - low)[given]) / (2 * Z95 * value.std())
                percent = 100 * inside[given].mean()
                held[key][reach] = f"{percent:9.0f} ({width:4.2f};{given.sum():4d})"
    print("% of the intervals that hold the truth (median width beside 3.92 standard deviations; intervals)")
    print(f"{'metric':36}" + "".join(f"{reach:>18g} µm" for reach in args.reach))
    for (name, scale), answers in held.items():
        named = f"{name}_{scale:g}um" if scale else name
        print(f"{named:36}" + "".join(f"{answers.get(reach, '–'):>21}" for reach in args.reach))


if __name__ == "__main__":
    main()
