"""Conversion to a pyramid, against libvips and ome-zarr-py, side by side on one slide.

    python benchmarks/bench_convert.py [--slide FILE] [--side 8192] [--rounds 5]

Compared is the processor time of the whole process, all threads, per megapixel of level 0: from the slide
file's tiles to every level stored. The rivals take turns within each round; medians and ratios are printed.
Peers use the same 512-pixel chunks and the same codec at the same setting. libvips writes a pyramidal TIFF,
its own best format; it has no Blosc, so ours stands beside its fastest lossless one. Codec ``source`` copies
the slide's tiles, which no peer does; it stands beside libvips' JPEG, the nearest in size.
ome-zarr-py is given the pixels from our reader and its own 2 x 2 mean.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("VIPS_CONCURRENCY", "1")

import argparse
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import dask
import numpy as np
import pyvips
import tifffile
import zarr
from ome_zarr.scale import Methods
from ome_zarr.writer import write_image
from slides import machine
from zarr.codecs import BloscCodec, ZstdCodec

from her2core.params import PyramidParams
from her2core.phantom import PhantomSpec, render_field
from her2core.pyramid.writer import finalise, grid_of, settle, write_shards, write_top
from her2core.readers import open_slide
from her2core.readers.base import SlideReader
from her2core.storage.store import Store

CHUNK = 512
FIELD_PX = 2048


def make_slide(path: Path, side: int) -> None:
    """Repeat one synthetic field, a quarter of it glass, over a slide of 256-pixel JPEG tiles."""
    field, _ = render_field(
        PhantomSpec(seed=3, height_px=FIELD_PX, width_px=FIELD_PX, mix=(0.2, 0.2, 0.2, 0.2, 0.2))
    )
    glass = np.full_like(field, (243, 242, 240))

    def tiles() -> object:
        for y in range(0, side, 256):
            for x in range(0, side, 256):
                source = glass if (y // FIELD_PX + x // FIELD_PX) % 4 == 3 else field
                yield np.ascontiguousarray(source[y % FIELD_PX :, x % FIELD_PX :][:256, :256])

    with tifffile.TiffWriter(path, bigtiff=True) as tif:
        tif.write(tiles(), shape=(side, side, 3), dtype=np.uint8, tile=(256, 256), photometric="rgb",
                  compression="jpeg", compressionargs={"level": 80, "outcolorspace": "ycbcr"},
                  resolution=(40_000, 40_000), resolutionunit="CENTIMETER")  # fmt: skip


def ours(slide: SlideReader, side: int, codec: str) -> Callable[[Path], None]:
    def run(out: Path) -> None:
        params, store = settle(slide.info, PyramidParams(CHUNK, 4096, codec)).params, Store(out)
        grid = grid_of(side, side, params)
        for task in grid.tasks():
            write_shards(slide, store, "slide", grid, params, [task])
        write_top(store, "slide", grid, params)
        finalise(store, "slide", grid, params, identity="bench", mpp=0.25)

    return run


def libvips_jpeg(path: Path, side: int, quality: int) -> Callable[[Path], None]:
    """A Deep Zoom pyramid of JPEG tiles; chroma is not subsampled, as in ours."""

    def run(out: Path) -> None:
        out.mkdir()
        image = pyvips.Image.new_from_file(str(path), access="sequential").crop(0, 0, side, side)
        image.dzsave(str(out / "slide"), tile_size=CHUNK, overlap=0, depth="onetile", region_shrink="mean",
                     suffix=f".jpg[Q={quality},subsample_mode=off]")  # fmt: skip

    return run


def libvips_tiff(path: Path, side: int, **how: object) -> Callable[[Path], None]:
    """A pyramidal TIFF, for the codecs that Deep Zoom does not have."""

    def run(out: Path) -> None:
        out.mkdir()
        image = pyvips.Image.new_from_file(str(path), access="sequential").crop(0, 0, side, side)
        image.tiffsave(str(out / "slide.tif"), tile=True, tile_width=CHUNK, tile_height=CHUNK, pyramid=True,
                       bigtiff=True, region_shrink="mean", **how)  # fmt: skip

    return run


def ome_zarr_py(slide: SlideReader, side: int, codec: object) -> Callable[[Path], None]:
    def run(out: Path) -> None:
        pixels = np.empty((side, side, 3), np.uint8)
        slide.read_region(0, 0, pixels)
        group = zarr.open_group(out, mode="w", zarr_format=3)
        write_image(np.moveaxis(pixels, -1, 0), group, scale_factors=[2, 4, 8, 16], method=Methods.LOCAL_MEAN,
                    axes=["c", "y", "x"],
                    storage_options={"chunks": (3, CHUNK, CHUNK), "compressors": [codec]})  # fmt: skip

    return run


def measure(
    rivals: dict[str, Callable[[Path], None]], rounds: int, scratch: Path
) -> tuple[dict[str, list[float]], dict[str, int]]:
    """Processor seconds of every round, after one that is not counted, and bytes written."""
    seconds: dict[str, list[float]] = {name: [] for name in rivals}
    sizes: dict[str, int] = {}
    for _ in range(rounds + 1):
        for name, run in rivals.items():
            out = scratch / "out"
            start = time.process_time()
            run(out)
            seconds[name].append(time.process_time() - start)
            sizes[name] = sum(file.stat().st_size for file in out.rglob("*") if file.is_file())
            shutil.rmtree(out)
    return {name: taken[1:] for name, taken in seconds.items()}, sizes


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--slide", type=Path, help="tiled slide at least --side wide and high; default: synthetic"
    )
    parser.add_argument("--side", type=int, default=8192)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    cv2.setNumThreads(1)
    pyvips.cache_set_max(0)
    dask.config.set(scheduler="synchronous")
    zarr.config.set({"threading.max_workers": 1})
    with tempfile.TemporaryDirectory() as folder:
        path = args.slide or Path(folder) / "slide.tif"
        if args.slide is None:
            make_slide(path, args.side)
        with open_slide(str(path)) as slide:
            side = min(args.side, slide.info.height, slide.info.width)
            blosc = BloscCodec(cname="lz4", clevel=1, shuffle="bitshuffle", typesize=1)
            seconds, sizes = measure(
                {
                    "ours, source (default)": ours(slide, side, "source"),
                    "ours, blosc-lz4": ours(slide, side, "blosc-lz4"),
                    "ours, zstd": ours(slide, side, "zstd"),
                    "ours, jpeg-90": ours(slide, side, "jpeg-90"),
                    "ours, htj2k": ours(slide, side, "htj2k"),
                    "libvips, jpeg-90": libvips_jpeg(path, side, 90),
                    "libvips, lzw": libvips_tiff(path, side, compression="lzw", predictor="none"),
                    "libvips, deflate": libvips_tiff(path, side, compression="deflate", level=1),
                    "libvips, raw": libvips_tiff(path, side, compression="none"),
                    "ome-zarr-py, blosc-lz4": ome_zarr_py(slide, side, blosc),
                    "ome-zarr-py, zstd": ome_zarr_py(slide, side, ZstdCodec(level=1)),
                },
                args.rounds,
                Path(folder),
            )
        report(seconds, sizes, side, path.stat().st_size)


def report(seconds: dict[str, list[float]], sizes: dict[str, int], side: int, source_bytes: int) -> None:
    megapixels = side * side / 1e6
    print(f"{machine('imagecodecs', 'pyvips-binary', 'ome-zarr', 'zarr')}; one thread")
    print(f"level 0 {side} x {side}, source {source_bytes / 1e6:.1f} MB; processor time of the whole process")
    print(f"{'':28}{'MP/s/core':>10}{'spread':>15}{'MB':>9}")
    median = {name: statistics.median(taken) for name, taken in seconds.items()}
    for name, taken in seconds.items():
        low, high = megapixels / max(taken), megapixels / min(taken)
        print(
            f"{name:28}{megapixels / median[name]:10.1f}{f'{low:.1f}-{high:.1f}':>15}{sizes[name] / 1e6:9.1f}"
        )
    for mine, theirs, goal in (
        ("ours, source (default)", "libvips, jpeg-90", 2.0),
        ("ours, source (default)", "ours, blosc-lz4", None),
        ("ours, jpeg-90", "libvips, jpeg-90", 0.8),
        ("ours, blosc-lz4", "libvips, lzw", None),
        ("ours, blosc-lz4", "ome-zarr-py, blosc-lz4", 5.0),
        ("ours, zstd", "ome-zarr-py, zstd", 5.0),
    ):
        aim = "codecs differ" if goal is None else f"to reach: {goal:g}"
        print(f"{mine} / {theirs}: {median[theirs] / median[mine]:.2f} x  ({aim})")


if __name__ == "__main__":
    main()
