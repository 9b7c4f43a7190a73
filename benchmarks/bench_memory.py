"""Peak memory of a worker and of the driver against the size of the slide.

    python benchmarks/bench_memory.py [--across 1 2 4]

Every size is a run of its own: a fresh driver with a fresh local cluster of one worker process, one slide
through all stages with the default configuration. Reported is Linux's high-water mark of resident memory
(``VmHWM``), which counts imports, compiled code and files mapped as well as pixels.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from slides import CORE_PX, machine, real_slide

GOAL_MIB = 1536
FLAT = 1.1
"""Largest over smallest peak, from the second size on, that is still flat; the first may not fill a unit."""


def peak_mib() -> float:
    """High-water mark of this process's own resident memory; ``ru_maxrss`` may be its parent's."""
    status = Path("/proc/self/status").read_text()
    (line,) = (line for line in status.splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) / 1024


def drive(slide: str, out: str) -> dict[str, float]:
    """Score one slide on a cluster of one worker; peaks of both processes in MiB."""
    from flows.clusters import open_cluster
    from her2core.pipeline import score_slide
    from her2core.publish import publish
    from her2core.stages.fanout import Workers
    from her2core.stages.run import open_run

    manifest = Path(out) / "manifest.csv"
    manifest.parent.mkdir(parents=True)
    manifest.write_text(f"slide_id,case_id,uri,assay\nbench,bench,{slide},HER2-IHC\n")
    run = open_run(str(manifest), out)
    with open_cluster("local", 1).connect() as client:
        (before,) = client.run(peak_mib).values()
        finished = score_slide(run, run.rows[0], Workers(client))
        (worker,) = client.run(peak_mib).values()
    publish(run, [finished])
    score = finished.outcome.score
    return {"idle": before, "worker": worker, "driver": peak_mib(), "cells": score.n_cells if score else 0}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--across", type=int, nargs="+", default=[1, 2, 4], help="cores along the slide's edge"
    )
    parser.add_argument("--drive", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.drive:
        print(json.dumps(drive(*args.drive)))
        return
    print(f"{machine('dask', 'numba', 'numpy')}; MiB")
    print(f"{'slide':>16}{'MP':>7}{'cells':>9}{'worker, idle':>14}{'worker, peak':>14}{'driver, peak':>14}")
    peaks = []
    for across in args.across:
        with tempfile.TemporaryDirectory() as folder:
            slide = Path(folder) / "slide.svs"
            real_slide(slide, across)
            words = [sys.executable, __file__, "--drive", str(slide), f"{folder}/out"]
            answer = subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True).stdout
            peak = json.loads(answer.splitlines()[-1])
        side = across * CORE_PX
        peaks.append(peak["worker"])
        print(
            f"{f'{side} x {side}':>16}{side**2 / 1e6:7.0f}{peak['cells']:9.0f}"
            f"{peak['idle']:14.0f}{peak['worker']:14.0f}{peak['driver']:14.0f}",
            flush=True,
        )
    later = peaks[1:] or peaks
    print(f"highest worker peak: {max(peaks):.0f} MiB  (to reach: below {GOAL_MIB})")
    ratio = max(later) / min(later)
    print(f"largest / smallest peak, first size left out: {ratio:.2f}  (flat: up to {FLAT})")


if __name__ == "__main__":
    main()
