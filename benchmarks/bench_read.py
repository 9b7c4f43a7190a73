"""Reading pixels: slides beside OpenSlide, pyramids beside zarr-python, on the same files.

    python benchmarks/bench_read.py [--rounds 5]

Compared is the processor time of the whole process, all threads, for RGB pixels in memory. The rivals read
the same regions and take turns within each round; the first round is not counted, nor is opening. Printed are
medians, the smallest and largest ratio of a round, and by how much the pixels differ.

Slides are read by native tiles and by squares of 1024 px, each tile or square once. A slide is opened anew
for every round, so that OpenSlide's cache of tiles serves the round that filled it and no later one. Its RGBA
is made RGB with OpenCV. Regions of a pyramid lie anywhere at level 0; ours remembers the shards' indexes, as
in a run, and zarr-python may leave its own order of axes.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import itertools
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import openslide
import zarr
from numpy.typing import NDArray
from slides import SHARED, machine, real_slide

from her2core.params import PyramidParams
from her2core.pyramid.reader import PyramidReader
from her2core.pyramid.writer import finalise, grid_of, write_shards, write_top
from her2core.readers import open_slide
from her2core.storage.store import Store

Pixels = NDArray[np.uint8]
Read = Callable[[int, int, int], Pixels]
"""``read(y, x, edge)`` gives a square of pixels, ``(edge, edge, 3)``; the next call may overwrite it."""
Rival = Callable[[], AbstractContextManager[Read]]
Corners = list[tuple[int, int]]

WINDOW_PX = 3072
"""Edge of the part of a slide that is read."""
SQUARE_PX = 1024
REGION_PX = (256, 512, 1024, 2048)
REGIONS_MP = 24
"""Megapixels of regions a round."""
WSI = SHARED / "data" / "wsi"


def our_slide(path: Path) -> Rival:
    @contextmanager
    def opened() -> Iterator[Read]:
        with open_slide(path, identity="bench") as slide:
            yield into(slide.read_region)

    return opened


def openslide_slide(path: Path) -> Rival:
    @contextmanager
    def opened() -> Iterator[Read]:
        with openslide.OpenSlide(path) as slide:

            def fill(y: int, x: int, out: Pixels) -> None:
                image = slide.read_region((x, y), 0, (out.shape[1], out.shape[0]))
                cv2.cvtColor(np.asarray(image), cv2.COLOR_RGBA2RGB, dst=out)

            yield into(fill)

    return opened


def our_pyramid(reader: PyramidReader) -> Rival:
    @contextmanager
    def opened() -> Iterator[Read]:
        yield into(lambda y, x, out: reader.read(0, y, x, out))

    return opened


def zarr_python(array: zarr.Array[Any]) -> Rival:
    @contextmanager
    def opened() -> Iterator[Read]:
        yield lambda y, x, edge: np.moveaxis(np.asarray(array[:, y : y + edge, x : x + edge]), 0, -1)

    return opened


def into(fill: Callable[[int, int, Pixels], None]) -> Read:
    """Read into one buffer, as a worker does."""
    out = np.empty((0, 0, 3), np.uint8)

    def read(y: int, x: int, edge: int) -> Pixels:
        nonlocal out
        if len(out) != edge:
            out = np.empty((edge, edge, 3), np.uint8)
        fill(y, x, out)
        return out

    return read


def measure(ours: Rival, theirs: Rival, corners: Corners, edge: int, rounds: int) -> list[list[float]]:
    """Processor seconds of every round of both rivals, after one that is not counted."""
    seconds: list[list[float]] = [[], []]
    for _ in range(rounds + 1):
        for taken, rival in zip(seconds, (ours, theirs), strict=True):
            with rival() as read:
                start = time.process_time()
                for y, x in corners:
                    read(y, x, edge)
                taken.append(time.process_time() - start)
    return [taken[1:] for taken in seconds]


def largest_difference(ours: Rival, theirs: Rival, corners: Corners, edge: int) -> int:
    """Between the rivals' pixels, in grey values, over some of the regions."""
    with ours() as mine, theirs() as other:
        pairs = ((mine(y, x, edge), other(y, x, edge)) for y, x in corners[:8])
        return max(int(cv2.absdiff(a, np.ascontiguousarray(b)).max()) for a, b in pairs)


def compare(what: str, ours: Rival, theirs: Rival, corners: Corners, edge: int, rounds: int) -> None:
    seconds = measure(ours, theirs, corners, edge, rounds)
    megapixels = len(corners) * edge**2 / 1e6
    mine, other = (megapixels / statistics.median(taken) for taken in seconds)
    ratios = [b / a for a, b in zip(*seconds, strict=True)]
    spread = f"{min(ratios):.1f}-{max(ratios):.1f}"
    differ = largest_difference(ours, theirs, corners, edge)
    print(f"{what:42}{mine:10.1f}{other:10.1f}{mine / other:8.1f} x{spread:>13}{differ:8}", flush=True)


def compare_slide(what: str, path: Path, rounds: int) -> None:
    """By native tiles and by larger squares, in the middle of the slide."""
    ours, theirs = our_slide(path), openslide_slide(path)
    with open_slide(path, identity="bench") as slide:
        info = slide.info
    tile = info.tile_width
    for name, edge in ((f"tiles of {tile} px", tile), (f"{SQUARE_PX} px", SQUARE_PX)):
        rows, columns = (
            range(max(size - WINDOW_PX, 0) // 2 // tile * tile, size - edge + 1, edge)[: WINDOW_PX // edge]
            for size in (info.height, info.width)
        )
        compare(f"{what}, {name}", ours, theirs, list(itertools.product(rows, columns)), edge, rounds)


def compare_pyramid(path: Path, out: Path, rounds: int) -> None:
    """Regions that begin anywhere, of the default pyramid of a slide."""
    params, store, random = PyramidParams(codec="blosc-lz4"), Store(out), np.random.default_rng(3)
    with open_slide(path, identity="bench") as slide:
        height, width = slide.info.height, slide.info.width
        grid = grid_of(height, width, params)
        for task in grid.tasks():
            write_shards(slide, store, "slide", grid, params, [task])
    write_top(store, "slide", grid, params)
    ref = finalise(store, "slide", grid, params, identity="bench", mpp=0.25)
    ours = our_pyramid(PyramidReader(store, ref))
    theirs = zarr_python(zarr.open_array(out / "slide" / "0", mode="r"))
    for edge in REGION_PX:
        count = int(REGIONS_MP * 1e6 / edge**2)
        corners = random.integers(0, (height - edge, width - edge), (count, 2))
        compare(f"zarr-python, {params.codec}, {edge} px", ours, theirs, corners.tolist(), edge, rounds)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    cv2.setNumThreads(1)
    zarr.config.set({"threading.max_workers": 1})
    print(f"{machine('imagecodecs', 'openslide-bin', 'zarr')}; one thread")
    header = ("MP/s/core:", "ours", "theirs", "ratio", "spread", "differ")
    with tempfile.TemporaryDirectory() as folder:
        slide = Path(folder) / "slide.svs"
        print(f"JPEG mosaic: {real_slide(slide, 1)}; differ: largest difference of a value, 0 to 255")
        print("{:42}{:>10}{:>10}{:>10}{:>13}{:>8}".format(*header))
        compare_slide("OpenSlide, JPEG mosaic", slide, args.rounds)
        for what, name in (("JPEG SVS", "cmu-1-small-region"), ("JPEG 2000 SVS", "tcga-cr-7395-01a-01-ts1")):
            path = WSI / f"{name}.svs"
            if path.exists():
                compare_slide(f"OpenSlide, {what}", path, args.rounds)
            else:
                print(f"OpenSlide, {what}: skipped, {path.name} is not in {SHARED.name}/ beside the checkout")
        compare_pyramid(slide, Path(folder) / "out", args.rounds)


if __name__ == "__main__":
    main()
