"""HER2 slide cohorts to tables: the science and the storage, without an orchestrator. Research use only.

One image, or one table of cells::

    her2core.score_field(rgb, mpp=0.25)
    her2core.score_cells(cells)

The command line's verbs, for Python::

    her2core.inspect_slide("slide.svs")
    her2core.plan_cohort(her2core.read_manifest("manifest.csv"), her2core.load_config())
    flows.run_cohort("manifest.csv", "s3://bucket/out")
    her2core.cohort_status(her2core.Store("s3://bucket/out"))
    her2core.synth_cohort("folder")
    her2core.open_level("s3://bucket/out/pyramids/KEY", 2)
    her2core.open_regions("s3://bucket/out/regions/KEY", 250)
    her2core.open_cohort_cube("s3://bucket/out/cubes/RUN")

Nothing is imported before it is used, so that ``import her2core`` costs nothing on a worker.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from her2core.config import Config, load_config
    from her2core.field import FieldScore, score_cells, score_field
    from her2core.intake.inspect import inspect_slide
    from her2core.intake.manifest import read_manifest
    from her2core.lake.cube import open_cohort_cube, open_regions
    from her2core.phantom import synth_cohort
    from her2core.plan import plan_cohort
    from her2core.pyramid.dataset import open_level, open_pyramid
    from her2core.storage.journal import cohort_status
    from her2core.storage.store import Store

__version__: str
_HOMES = {
    "Config": "config",
    "FieldScore": "field",
    "Store": "storage.store",
    "cohort_status": "storage.journal",
    "inspect_slide": "intake.inspect",
    "load_config": "config",
    "open_cohort_cube": "lake.cube",
    "open_level": "pyramid.dataset",
    "open_pyramid": "pyramid.dataset",
    "open_regions": "lake.cube",
    "plan_cohort": "plan",
    "read_manifest": "intake.manifest",
    "score_cells": "field",
    "score_field": "field",
    "synth_cohort": "phantom",
}

__all__ = [
    "Config",
    "FieldScore",
    "Store",
    "__version__",
    "cohort_status",
    "inspect_slide",
    "load_config",
    "open_cohort_cube",
    "open_level",
    "open_pyramid",
    "open_regions",
    "plan_cohort",
    "read_manifest",
    "score_cells",
    "score_field",
    "synth_cohort",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return version("her2cohort")
    if name not in _HOMES:
        raise AttributeError(f"module 'her2core' has no attribute {name!r}")
    return getattr(import_module(f"her2core.{_HOMES[name]}"), name)
