"""Processor time and peak memory of all metrics of heterogeneity, against the number of cells.

    python benchmarks/bench_heterogeneity.py [--cells 100000 500000 2000000]

A made-up tumour of constant density, so that its regions grow with the cells: patches 1 mm wide of
every class and OD. Every size is a process of its own with one thread. Imports and compilation are left out
(a small slide goes before), and so is reading the cells table.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Sized

import numpy as np
from slides import machine

from her2core.guidelines.rules_ihc import load_rules
from her2core.heterogeneity import ihc as heterogeneity
from her2core.heterogeneity import spatial
from her2core.heterogeneity.biopsy import virtual_biopsies
from her2core.params import HeterogeneityParams, ScoreParams
from her2core.scoring.ihc import MeasuredCells, classify

GOAL_S, GOAL_MIB = 60, 2048
CELL_UM2 = 150.0
"""Area a cell takes."""
PARTS = ("regions", "indices", "differ", "lattice", "cells", "biopsies")


def made_up(n: int) -> MeasuredCells:
    """Cells at random places; their OD follows waves 1 mm long."""
    random = np.random.default_rng(1)
    side = float(np.sqrt(n * CELL_UM2))
    y, x = random.uniform(0, side, (2, n))
    wave = 0.5 + 0.4 * np.sin(y * 2 * np.pi / 1000) * np.sin(x * 2 * np.pi / 1000)
    od = np.maximum(random.normal(wave, 0.1), 0.0).astype(np.float32)
    everyone = np.ones(n, np.bool_)
    return MeasuredCells(
        y, x, np.minimum(od * 1.5, 1.0), od, od, od, everyone, everyone, np.ones_like(od), od
    )


def measure(n: int) -> dict[str, float]:
    """Seconds of each part with the default parameters, all sizes of region together."""
    params, score, cells = HeterogeneityParams(), ScoreParams(), made_up(n)
    rules = load_rules(score.rules)
    classes = classify(cells, score, rules)
    y, x, od = cells.y_um, cells.x_um, cells.membrane_od
    seconds: dict[str, float] = {}
    found: list[Sized] = []

    def timed(part: str, work: Callable[[], Sized]) -> Sized:
        start = time.process_time()
        found.append(work())
        seconds[part] = time.process_time() - start
        return found[-1]

    sweep = timed("regions", lambda: heterogeneity.sweep_regions(cells, classes, params, rules))
    base = next(regions for regions in sweep if regions.grid.size_um == params.region_um)
    timed("indices", lambda: [*heterogeneity.cell_metrics(base, y, x, od.astype(np.float64), params)])
    timed("differ", lambda: [m for r in sweep for m in heterogeneity.region_metrics(r, params, "2+")])
    timed("lattice", lambda: [m for r in sweep for m in spatial.region_metrics(r, params)])
    timed("cells", lambda: [*spatial.cell_metrics(base, y, x, classes, od, params)])
    timed("biopsies", lambda: virtual_biopsies(y, x, classes, rules, params))
    return {**seconds, "metrics": sum(map(len, found[1:])), "smallest": len(sweep[0])}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cells", type=int, nargs="+", default=[100_000, 500_000, 2_000_000])
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        measure(20_000)
        answer = measure(args.one)
        answer["MiB"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(json.dumps(answer))
        return
    print(f"{machine('numba', 'numpy', 'scipy')}; seconds of one core; to reach: {GOAL_S} s, {GOAL_MIB} MiB")
    heads = ("cells", "regions", "metrics", *(f"{part}, s" for part in PARTS), "all, s", "µs/cell", "MiB")
    print("".join(f"{head:>13}" for head in heads))
    one_thread = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    for n in args.cells:
        words = [sys.executable, __file__, "--one", str(n)]
        answer = subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True, env=one_thread).stdout
        got = json.loads(answer.splitlines()[-1])
        total = sum(got[part] for part in PARTS)
        numbers = (*(got[part] for part in PARTS), total, 1e6 * total / n)
        line = f"{n:13}{got['smallest']:13}{got['metrics']:13}" + "".join(f"{x:13.2f}" for x in numbers)
        print(f"{line}{got['MiB']:13.0f}", flush=True)


if __name__ == "__main__":
    main()
