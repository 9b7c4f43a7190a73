"""Slides to measure on, and the machine they are measured on."""

from __future__ import annotations

import itertools
import os
import platform
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np
import tifffile
from numpy.typing import NDArray

from her2core.params import ProfileParams
from her2core.phantom import PhantomSpec, render_field
from her2core.profile.build import build_profile
from her2core.records import PyramidRef, StainProfile

SHARED = Path(__file__).resolve().parents[2] / "shared"
CORE_PX = 5728
"""Edge of one core with its margin in a mosaic of `make_wsi.py`."""
MPP = 0.25
RGB = NDArray[np.uint8]


def real_slide(path: Path, across: int) -> str:
    """Write a slide of ``across x across`` cores (real pixels where they are at hand) and say what it is."""
    cores = sorted((SHARED / "data" / "ihc_cores").glob("*.jpg"))
    tool = SHARED / "tools" / "make_wsi.py"
    if not cores or not tool.exists():
        _phantom(path, across)
        return f"phantom, for want of the real cores that {SHARED.name}/ beside the checkout would hold"
    chosen = itertools.islice(itertools.cycle(cores), across**2)
    command = [sys.executable, tool, path, *chosen, "--columns", str(across), "--mpp", str(MPP)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return f"{min(across**2, len(cores))} real cores, {across} x {across}"


def _phantom(path: Path, across: int) -> None:
    """The same layout with one synthetic field, seven eighths of each place wide, and glass around it."""
    edge, tile = CORE_PX * 7 // 8 // 256 * 256, 256
    field, _ = render_field(PhantomSpec(seed=3, height_px=edge, width_px=edge, mix=(0.2, 0.2, 0.2, 0.2, 0.2)))
    place = np.full((-(-CORE_PX // tile) * tile,) * 2 + (3,), (243, 242, 240), np.uint8)
    place[:edge, :edge] = field
    side = across * len(place)

    def tiles() -> object:
        for y, x in itertools.product(range(0, side, tile), repeat=2):
            yield np.ascontiguousarray(place[y % len(place) :, x % len(place) :][:tile, :tile])

    with tifffile.TiffWriter(path, bigtiff=True) as tif:
        tif.write(tiles(), shape=(side, side, 3), dtype=np.uint8, tile=(tile, tile), photometric="rgb",
                  compression="jpeg", compressionargs={"level": 80, "outcolorspace": "ycbcr"},
                  resolution=(1e4 / MPP, 1e4 / MPP), resolutionunit="CENTIMETER")  # fmt: skip


def machine(*packages: str) -> str:
    """Processor, cores, Python and the versions of ``packages``, in a line."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    models = [line.partition(":")[2].strip() for line in lines if "model name" in line]
    versions = ", ".join(f"{name} {version(name)}" for name in packages)
    return (
        f"{models[0] if models else platform.processor()}, {os.cpu_count()} cores, "
        f"load {os.getloadavg()[0]:.1f}, Python {platform.python_version()}, {versions}"
    )


class OneLevel:
    """An image as a pyramid of one level, for the profile."""

    def __init__(self, rgb: RGB) -> None:
        self.rgb = rgb

    def read(self, level: int, y0: int, x0: int, out: RGB) -> None:
        out.fill(255)
        part = self.rgb[y0 : y0 + out.shape[0], x0 : x0 + out.shape[1]]
        out[: part.shape[0], : part.shape[1]] = part


def profile_of(rgb: RGB, mpp: float = MPP) -> StainProfile:
    """Frozen colour of an image."""
    ref = PyramidRef("bench", "bench", (rgb.shape[:2],), 512, 4096, mpp, "none", 0, 0)
    return build_profile(OneLevel(rgb), ref, ProfileParams())[0].stain
