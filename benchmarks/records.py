"""Real results of small phantoms, and as many slides as wanted that look like them.

What draws and scores phantoms is loaded where that happens: who reads results that were made has no more in
memory than the driver of a run.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path

from her2core.config import Config, load_config
from her2core.records import Assay, SlideRow
from her2core.stages.finished import SlideFinished
from her2core.storage.store import Store

SIDE_PX = 1536
"""Edge of a phantom: the smallest that has a few regions of every size."""


@dataclass(frozen=True, slots=True)
class Template:
    """A slide that was scored, and the bytes of its files of rows, by their table."""

    finished: SlideFinished
    files: dict[str, bytes]

    def like(self, row: SlideRow, key: str, store: Store | None) -> SlideFinished:
        """The result of another slide; its files are written where a store is given.

        Their rows stay those of the phantom: nobody reads them but by slide, and the tables of slides'
        files take them as they are.
        """
        done = self.finished
        outcome = replace(done.outcome, slide=row, score_key=key)
        named = {}
        for name, file in (("cells", done.cells), ("regions", done.regions)):
            assert file is not None
            stats = json.loads(file.stats)
            for end in ("minValues", "maxValues"):
                stats[end] |= {"slide_id": row.slide_id, "case_id": row.case_id}
            named[name] = replace(file, path=f"{key}.parquet", stats=json.dumps(stats))
            if store is not None:
                table = "nuclei" if name == "cells" and row.assay != Assay.IHC else name
                store.write_bytes(f"tables/{table}/{key}.parquet", self.files[name])
        return replace(done, outcome=outcome, **named)


def score_here(store: Store, config: Config, row: SlideRow) -> SlideFinished:
    """One slide through all its tasks in this process."""
    from her2core.stages import tasks
    from her2core.stages.tasks import Share, SlideWork

    work = SlideWork(store, config, row, row)
    found = tasks.inspect(work)
    to = (work.store, found.source, f"pyramids/{found.keys.pyramid}", found.settled)
    tasks.convert(*to, Share(0, 1))
    ref = tasks.finish_pyramid(*to, found.keys.pyramid).record
    frozen = tasks.profile(work, ref, found.keys.profile).record
    key = found.keys.cells
    measured = tasks.measure(work.store, ref, frozen, work.kernel, key, None, None, Share(0, 1))
    cells = tasks.publish_cells(work.store, key, [measured]).record
    return tasks.finish(work, found.source.info, ref, frozen, cells, None, key)[1].record


def templates(folder: Path, config: Config | None = None) -> dict[Assay, Template]:
    """An IHC and an ISH phantom, written and scored in ``folder``."""
    from her2core.phantom import ISHSpec, PhantomSpec, Population, plant_ish
    from her2core.phantom.slides import write_slide
    from her2core.phantom.tissue import plant

    config = config or load_config(environment={})
    store = Store(folder / "scored")
    spec = PhantomSpec(seed=5, height_px=SIDE_PX, width_px=SIDE_PX, mix=(0.2, 0.2, 0.2, 0.2, 0.2))
    write_slide(folder / "ihc.tif", plant(spec))
    population = Population(1.0, 6.0, 2.0)
    write_slide(
        folder / "dish.tif", plant_ish(ISHSpec("DISH", 3, 1100, 1200, 0.12, (population,))), quality=95
    )
    found = {}
    for name, assay in (("ihc", Assay.IHC), ("dish", Assay.DISH)):
        row = SlideRow(name, name, str(folder / f"{name}.tif"), assay)
        finished = score_here(store, config, row)
        assert finished.cells is not None
        assert finished.regions is not None
        table = "cells" if assay == Assay.IHC else "nuclei"
        files = {
            "cells": store.read_bytes(f"tables/{table}/{finished.cells.path}"),
            "regions": store.read_bytes(f"tables/regions/{finished.regions.path}"),
        }
        found[assay] = Template(finished, files)
    return found
