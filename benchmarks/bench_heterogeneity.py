"""Time and memory of all metrics of heterogeneity of one slide, against the number of its cells.

A made-up tumour of constant density, so that its area and its regions grow with the cells: patches 1 mm wide
of every class and OD. Prints processor seconds of one core and the process's peak of memory.

    python benchmarks/bench_heterogeneity.py 125000 500000 2000000
"""

from __future__ import annotations

import resource
import sys
import time

import numpy as np

from her2core.guideline import load_rules
from her2core.heterogeneity import measure_heterogeneity, sweep_regions
from her2core.params import HeterogeneityParams, ScoreParams
from her2core.scores import MeasuredCells, classify

CELL_UM2 = 150.0
"""Area a cell takes."""


def made_up(n: int) -> MeasuredCells:
    """Cells at random places; their OD follows waves 1 mm long."""
    random = np.random.default_rng(1)
    side = float(np.sqrt(n * CELL_UM2))
    y, x = random.uniform(0, side, (2, n))
    wave = 0.5 + 0.4 * np.sin(y * 2 * np.pi / 1000) * np.sin(x * 2 * np.pi / 1000)
    od = np.maximum(random.normal(wave, 0.1), 0.0).astype(np.float32)
    everyone = np.ones(n, np.bool_)
    return MeasuredCells(y, x, np.minimum(od * 1.5, 1.0), od, od, od, everyone, everyone)


def main(sizes: list[int]) -> None:
    params, score = HeterogeneityParams(), ScoreParams()
    rules = load_rules(score.rules)
    for n in (2_000, *sizes):  # the first compiles
        cells = made_up(n)
        start = time.process_time()
        classes = classify(cells, score, rules)
        sweep = sweep_regions(cells, classes, params, rules)
        regions = time.process_time()
        found = measure_heterogeneity(cells, classes, sweep, params, "2+")
        end = time.process_time()
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        print(
            f"{n:>9,} cells, {len(sweep[0]):>6,} regions of {params.sweep_um[0]:.0f} µm: regions "
            f"{regions - start:5.1f} s, {len(found)} metrics {end - regions:5.1f} s, peak {peak:.2f} GiB"
        )


if __name__ == "__main__":
    main([int(size) for size in sys.argv[1:]] or [125_000, 500_000, 2_000_000])
