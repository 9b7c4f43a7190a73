"""Slides with something wrong, one thing each: what a cohort of real scans contains and tests must meet."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Final

import cv2
import numpy as np

from her2core.phantom.slides import write_slide
from her2core.phantom.spec import RGB, Bools, PhantomSpec
from her2core.phantom.tissue import plant
from her2core.records import Box

LABEL_TEXT: Final = ("DOE, JANE", "*1961-02-03", "B26-004711 A1 HER2")
"""What stands on the label page: no picture, table or log of ours may ever show it."""

PEN_UM: Final = 60.0  # width of an ink line
FOLD_UM: Final = 40.0  # width of a fold
WAVE_UM: Final = 400.0  # they meander with this period
INK: Final = np.array((0.25, 0.45, 0.30))  # what green ink lets through of R, G and B


def write_defects(out_dir: str | Path, *, seed: int = 7, side_px: int = 2048) -> dict[str, Path]:
    """Write one slide for each defect.

    Returns
    -------
    dict
        File by defect: ``truncated`` (the last 40 % are missing), ``no_scale`` (no micrometres per pixel),
        ``label`` (a label page with a patient's name), ``blurred``, ``pen``, ``fold``, ``empty`` (0 bytes).
    """
    folder = Path(out_dir)
    folder.mkdir(parents=True, exist_ok=True)
    names = ("truncated", "no_scale", "label", "blurred", "pen", "fold", "empty")
    path = {name: folder / f"{name}.tif" for name in names}
    spec = PhantomSpec(seed=seed, height_px=side_px, width_px=side_px, mix=(0.1, 0.3, 0.0, 0.6, 0.0))
    tissue = plant(spec)
    mpp = spec.mpp

    write_slide(path["label"], tissue, associated={"label": label_picture()})
    whole = path["label"].read_bytes()
    path["truncated"].write_bytes(whole[: len(whole) * 6 // 10])
    path["empty"].write_bytes(b"")
    write_slide(path["no_scale"], tissue, scale_known=False)
    write_slide(path["blurred"], plant(replace(spec, defocus_um=2.5)))
    write_slide(path["pen"], tissue, alter=lambda rgb, box: pen_mark(rgb, box, mpp))
    write_slide(path["fold"], tissue, alter=lambda rgb, box: fold(rgb, box, mpp, spec.i0))
    return path


def label_picture() -> RGB:
    """A slide label with a patient's name on it."""
    picture = np.full((160, 320, 3), 250, np.uint8)
    for i, line in enumerate(LABEL_TEXT):
        cv2.putText(picture, line, (12, 45 + 40 * i), cv2.FONT_HERSHEY_SIMPLEX, 0.8, (20, 20, 20), 2)
    return picture


def pen_mark(rgb: RGB, box: Box, mpp: float) -> RGB:
    """A meandering line of green ink down the slide at 500 um from its left edge."""
    marked = rgb.astype(np.float32)
    marked[_meander(box, mpp, 500.0, PEN_UM)] *= INK.astype(np.float32)
    return np.rint(marked).astype(np.uint8)


def fold(rgb: RGB, box: Box, mpp: float, i0: tuple[float, float, float]) -> RGB:
    """A meandering band, 350 um from the left edge, where tissue lies on itself: optical density doubles."""
    band = _meander(box, mpp, 350.0, FOLD_UM)
    folded = rgb.copy()
    light = np.asarray(i0, np.float32)
    folded[band] = np.clip(np.rint(rgb[band] ** 2.0 / light), 0, 255).astype(np.uint8)
    return folded


def _meander(box: Box, mpp: float, x_um: float, width_um: float) -> Bools:
    """Pixels of the box within half a width of a line that sways by a width around x."""
    y = np.arange(box.y0, box.y1)[:, None] * mpp
    x = np.arange(box.x0, box.x1)[None] * mpp
    middle = x_um + width_um * np.sin(2 * np.pi * y / WAVE_UM)
    return np.asarray(np.abs(x - middle) < width_um / 2)
