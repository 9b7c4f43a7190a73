"""What every stage makes of one small slide is pinned beside the version of the stage.

Another output without another version would let a run mix old results with new ones: a stage is found again
by its version, its parameters and its inputs. Raise the version of the stage, say why in CHANGELOG.md, and
write the digests anew::

    python -m tests.test_stage_versions

which also pins what the kernels measure in fields of many kinds (`test_kernel_outputs`).
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, is_dataclass
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from her2core import versions
from her2core.columns import CELL_DTYPE, NUCLEUS_DTYPE
from her2core.params import PyramidParams
from her2core.phantom import ISHSpec, PhantomSpec, Population, plant_ish, render_field, render_ish
from her2core.pyramid.dataset import open_level
from her2core.records import Assay, Box
from her2core.scoring import ihc
from her2core.stages import slide_ihc
from tests import test_kernel_outputs
from tests.helpers import chain

PINNED = Path(__file__).parent / "data" / "stage_outputs.json"
VERSIONS = {
    "pyramid": versions.PYRAMID,
    "profile": versions.PROFILE,
    "cells": versions.CELLS,
    "slide": versions.SLIDE,
}
DIGITS = 5
"""Significant digits that are compared: processors differ in the last bits of logarithms and means."""


def plain(value: Any) -> Any:
    """Numbers, words, lists and mappings alone; reals cut to `DIGITS`."""
    if is_dataclass(value) and not isinstance(value, type):
        return plain(asdict(value))
    if isinstance(value, dict):
        return {str(key): plain(value[key]) for key in sorted(value, key=str)}
    if isinstance(value, list | tuple):
        return [plain(one) for one in value]
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, float):
        return float(f"{value:.{DIGITS}g}")
    return value


def digest(value: Any) -> str:
    """Name of a stage's output."""
    return hashlib.sha256(json.dumps(plain(value), sort_keys=True, default=str).encode()).hexdigest()[:16]


def outputs(assay: Assay) -> Iterator[tuple[str, str]]:
    """Every stage of a small slide, and the digest of what it made."""
    params = PyramidParams(chunk=256, shard=512)
    if assay is Assay.IHC:
        spec = PhantomSpec(
            seed=3, height_px=700, width_px=800, mix=(0.2, 0.2, 0.2, 0.2, 0.2), pattern="mosaic"
        )
        pixels, mpp = render_field(spec)[0], 0.25
    else:
        mpp, kinds = 0.12, (Population(0.6, 2.0, 2.0), Population(0.4, 9.0, 2.5, clustered=True))
        fish = ISHSpec("FISH", 5, 700, 800, mpp, kinds, overlapping=0.2)
        pixels = render_ish(plant_ish(fish), Box(0, 0, 700, 800))
    with tempfile.TemporaryDirectory() as folder:
        reader = chain.memory_slide(pixels, mpp)
        profiled, rows, finished = chain.score(reader, Path(folder), params, assay=assay)
        levels = [np.asarray(open_level(f"{folder}/pyramids/p", level).data) for level in (0, 1, 2)]
        yield "pyramid", digest([hashlib.sha256(level.tobytes()).hexdigest() for level in levels])
        yield "profile", digest(profiled)
        fields = CELL_DTYPE.names if assay is Assay.IHC else NUCLEUS_DTYPE.names
        measured = [name for name in fields or () if name in rows.column_names]
        yield "cells", digest(rows.select(measured).to_pydict())
        outcome = finished.outcome
        yield "slide", digest([rows.to_pydict(), outcome.score, outcome.ish, list(finished.metrics)])


@pytest.mark.parametrize("assay", [Assay.IHC, Assay.FISH])
def test_another_output_has_another_version(assay: Assay, monkeypatch: pytest.MonkeyPatch) -> None:
    judged: list[str] = []

    def counted(cells: ihc.MeasuredCells, *rest: Any) -> Any:
        classes = classify(cells, *rest)
        judged.append(digest(cells.intensity_od))
        return classes

    classify = ihc.classify
    for module in (ihc, slide_ihc):
        monkeypatch.setattr(module, "classify", counted)
    pinned = json.loads(PINNED.read_text(encoding="utf-8"))[assay]
    for stage, made in outputs(assay):
        version = VERSIONS[stage]
        assert pinned[stage]["version"] == version, f"{stage} {version}: python -m tests.test_stage_versions"
        assert pinned[stage]["output"] == made, (
            f"{stage} {version} makes other output than it did: raise it in her2core/versions.py, state the "
            "change in CHANGELOG.md, then python -m tests.test_stage_versions"
        )
    assert len(judged) == len(set(judged)), "the same cells were judged twice"
    assert bool(judged) == (assay is Assay.IHC)


if __name__ == "__main__":
    found = {
        assay: {stage: {"version": VERSIONS[stage], "output": made} for stage, made in outputs(assay)}
        for assay in (Assay.IHC, Assay.FISH)
    }
    PINNED.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    test_kernel_outputs.write_pins()
