"""What the kernels measure in small fields of many kinds is pinned beside the version of the stage.

A field is chosen for the rules that it leads through: crowded nests, pale counterstain, strong membranes
without a nucleus, cells across gaps, debris, blur, coarse pixels; clusters, overlaps, haze, weak signals. A
failure names the field and the columns that changed, and how their means moved. Where the change is meant,
raise CELLS in her2core/versions.py, say why in CHANGELOG.md, and write the pins anew::

    python -m tests.test_kernel_outputs
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from her2core import versions
from her2core.kernels.ihc.kernel import IHCKernel
from her2core.kernels.ish.dish import estimate_dish
from her2core.kernels.ish.kernel import ISHKernel
from her2core.kernels.nuclei import Given
from her2core.kernels.stain import (
    HematoxylinRange,
    VectorRules,
    dab_doubt,
    estimate_vectors,
    reference_stain,
    unmix,
)
from her2core.params import IHCParams, ISHParams
from her2core.phantom import ish_render as light
from her2core.records import Box
from tests.helpers.fields import IHC, ISH, pixels_of
from tests.helpers.stains import stain_of

PINNED = Path(__file__).parent / "data" / "kernel_outputs.json"
DIGITS = 5
"""Significant digits that are compared: processors differ in the last bits of logarithms and means."""
GLASS = (243.0, 242.0, 240.0)

Pins = dict[str, list[Any]]


def mirrored(pixels: np.ndarray, by: int) -> np.ndarray:
    """Pixels, and their mirror images all around."""
    return np.pad(pixels, ((by, by), (by, by), (0, 0)), mode="symmetric")


def pinned(columns: dict[str, Any]) -> Pins:
    """For every column: how many values, their mean, and the name of all of them."""
    out: Pins = {}
    for name, values in columns.items():
        column = np.asarray(values, np.float64).ravel()
        text = " ".join(f"{value:.{DIGITS}g}" for value in column.tolist())
        mean = float(f"{column.mean():.4g}") if column.size else 0.0
        out[name] = [column.size, mean, hashlib.sha256(text.encode()).hexdigest()[:12]]
    return out


def columns_of(rows: np.ndarray, word: str = "") -> dict[str, np.ndarray]:
    return {word + name: rows[name] for name in rows.dtype.names or ()}


def ihc_outputs(name: str) -> Iterator[tuple[str, Pins]]:
    """What the kernel and the estimate of stain make of a field."""
    mpp, pixels = IHC[name][0], pixels_of(name)
    stain = reference_stain(GLASS)
    kernel = IHCKernel(IHCParams(), stain, mpp)
    by, core = kernel.halo_px, Box(0, 0, *pixels.shape[:2])
    cells, lines = kernel.outline(mirrored(pixels, by), (-by, -by), core)
    yield "cells", pinned({**columns_of(cells), **lines._asdict()})
    given = Given(cells["y_px0"][::2], cells["x_px0"][::2], (lines.nucleus_um[::2] / mpp).astype(np.float32))
    cells, lines = kernel.outline(mirrored(pixels, by), (-by, -by), core, given)
    yield "cells of given nuclei", pinned({**columns_of(cells), **lines._asdict()})
    od = unmix(pixels, stain)
    levels = HematoxylinRange()
    levels.add(od[..., 0], np.ones(od.shape[:2], np.bool_), mpp)
    found = estimate_vectors(pixels.reshape(-1, 3), GLASS, VectorRules())
    vectors = {"hematoxylin": found.hematoxylin, "dab": found.dab}
    angles = {"angles": (found.hematoxylin_angle_deg, found.dab_angle_deg), "doubt": dab_doubt(stain)}
    lengths = list(asdict(kernel.geometry).values())
    limits = {
        "halo_px": kernel.halo_px,
        "lengths": lengths,
        "usual_od": (stain.hematoxylin_low_od, stain.hematoxylin_high_od),
    }
    yield "stain", pinned({"range_od": levels.result(), **vectors, **angles, **limits})


def ish_outputs(name: str) -> Iterator[tuple[str, Pins]]:
    """What the kernel makes of a field."""
    spec, pixels = ISH[name], pixels_of(name)
    kernel = ISHKernel(ISHParams(), stain_of(spec.modality), spec.mpp, extent=pixels.shape[:2])
    by, core = kernel.halo_px, Box(0, 0, *pixels.shape[:2])
    nuclei, spots = kernel(mirrored(pixels, by), (-by, -by), core)
    yield "nuclei", pinned(columns_of(nuclei))
    yield "signals", pinned({**columns_of(spots), "halo_px": kernel.halo_px})
    if spec.modality == "DISH":
        step = round(0.5 / spec.mpp)
        tile = np.ascontiguousarray(pixels[::step, ::step])
        found = estimate_dish([(tile, np.ones(tile.shape[:2], np.bool_))], light.GLASS, step * spec.mpp)
        range_od = found.hematoxylin_low_od, found.hematoxylin_high_od
        yield "stain", pinned({"hematoxylin": found.hematoxylin, "red": found.red, "range_od": range_od})


def outputs(name: str) -> dict[str, Pins]:
    return dict(ihc_outputs(name) if name in IHC else ish_outputs(name))


@pytest.mark.parametrize("name", [*IHC, *ISH])
def test_the_kernels_measure_what_they_did(name: str) -> None:
    pins = json.loads(PINNED.read_text(encoding="utf-8"))
    made, wanted = outputs(name), pins["fields"][name]
    assert pins["version"] == versions.CELLS, "python -m tests.test_kernel_outputs"
    changed = {
        f"{table}.{column}": (was, made[table].get(column))
        for table, columns in wanted.items()
        for column, was in columns.items()
        if made[table].get(column) != was
    }
    assert not changed, f"{name}: raise CELLS, see above"
    assert {table: set(columns) for table, columns in made.items()} == {t: set(c) for t, c in wanted.items()}


def write_pins() -> None:
    """Pin what the kernels measure now."""
    fields = {name: outputs(name) for name in (*IHC, *ISH)}
    text = json.dumps({"version": versions.CELLS, "fields": fields}, indent=1)
    PINNED.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    write_pins()
