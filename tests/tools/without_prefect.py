"""Score a slide and publish its tables in an environment that has no Prefect and no command line.

The project's checks run it in an environment made of ``requirements-core.lock`` and the built wheel alone::

    python without_prefect.py FOLDER
"""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path

from distributed import Client, LocalCluster

import her2core
from her2core.phantom.cohort import PLAN, synth_cohort
from her2core.pipeline import score_slide
from her2core.publish import publish
from her2core.stages.fanout import Workers
from her2core.stages.run import open_run

ABSENT = ("prefect", "rich", "typer")


def main(folder: Path) -> int:
    """Exit code 0 if the slide is in the tables with its planted score."""
    if present := [name for name in ABSENT if find_spec(name)]:
        print(f"{', '.join(present)}: installed, so that this proves nothing")
        return 2
    strong = [slide for slide in PLAN if slide.case == "THREE"]
    manifest = synth_cohort(folder / "slides", side_px=2560, plan=strong, ish_plan=(), workers=1)
    run = open_run(str(manifest), str(folder / "out"))
    quiet = {"n_workers": 1, "threads_per_worker": 1, "dashboard_address": None}
    with LocalCluster(**quiet) as cluster, Client(cluster) as client:  # type: ignore[no-untyped-call]
        workers = Workers(client)
        summary = publish(run, [score_slide(run, row, workers) for row in run.rows])
    (slide,) = summary.slides
    print(f"{her2core.__file__}, version {her2core.__version__}: {slide['slide_id']} is {slide['score']}")
    return 0 if slide["score"] == "3+" else 1


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
