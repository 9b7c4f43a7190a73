"""Codecs of a pyramid side by side: bytes, requests and time, on a folder and on a slow bucket.

    python benchmarks/bench_codecs.py [--slide FILE] [--codecs source,blosc-lz4] [--latency-ms 30] [--mb-s 60]

One slide goes through what depends on the codec: it is converted, profiled, and read by the work units of
its cells, halo included. What the kernel takes is the same for all and left out. The bucket is moto's server
behind a proxy that delays each request and bounds each connection's bytes a second, in a process of its own.
Processor time is that of this process, all threads; `busy` is its share of the seconds.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("AWS_ACCESS_KEY_ID", "bench")
os.environ.setdefault("AWS_SECRET_ACCESS_KEY", "bench")
os.environ.setdefault("AWS_DEFAULT_REGION", "us-east-1")

import argparse
import asyncio
import multiprocessing
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from bench_convert import make_slide
from slides import machine

from her2core.params import IHCParams, ProfileParams, PyramidParams
from her2core.profile.build import build_profile
from her2core.pyramid import writer
from her2core.pyramid.labels import write_label
from her2core.pyramid.reader import PyramidReader
from her2core.readers import open_slide
from her2core.readers.base import SlideReader
from her2core.stages import cells
from her2core.storage.store import Store

HALO_PX = 100
"""Context that the IHC kernel asks for at 0.25 µm/px, about."""


class Counts:
    """Requests and bytes that went through the proxy, shared between processes."""

    def __init__(self) -> None:
        self.requests = multiprocessing.Value("q", 0)
        self.up = multiprocessing.Value("q", 0)
        self.down = multiprocessing.Value("q", 0)

    def now(self) -> np.ndarray:
        return np.array([self.requests.value, self.up.value, self.down.value])


def serve(port: int, target: int, latency_s: float, bytes_s: float, counts: Counts) -> None:
    """A proxy that delays the first bytes of every request, and all bytes by the bandwidth."""

    async def pump(reader: Any, writer: Any, total: Any, talk: dict[str, bool], *, asks: bool) -> None:
        try:
            while data := await reader.read(1 << 16):
                if asks and not talk["asking"]:
                    talk["asking"] = True
                    counts.requests.value += 1
                    await asyncio.sleep(latency_s)
                elif not asks:
                    talk["asking"] = False
                total.value += len(data)
                await asyncio.sleep(len(data) / bytes_s)
                writer.write(data)
                await writer.drain()
        except OSError:
            pass
        finally:
            writer.close()

    async def accept(reader: Any, writer: Any) -> None:
        theirs, ours = await asyncio.open_connection("127.0.0.1", target)
        talk = {"asking": False}
        await asyncio.gather(
            pump(reader, ours, counts.up, talk, asks=True),
            pump(theirs, writer, counts.down, talk, asks=False),
        )

    async def run() -> None:
        server = await asyncio.start_server(accept, "127.0.0.1", port)
        await server.serve_forever()

    asyncio.run(run())


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


@contextmanager
def bucket(latency_s: float, bytes_s: float) -> Iterator[tuple[str, Counts]]:
    """A slow S3 server's address, and what goes through it."""
    direct, slow, counts = free_port(), free_port(), Counts()
    command = [sys.executable, "-m", "moto.server", "-p", str(direct)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    proxy = multiprocessing.Process(
        target=serve, args=(slow, direct, latency_s, bytes_s, counts), daemon=True
    )
    proxy.start()
    try:
        for _ in range(100):
            try:
                put = urllib.request.Request(f"http://127.0.0.1:{direct}/bench", method="PUT")
                urllib.request.urlopen(put, timeout=5)
                break
            except OSError:
                time.sleep(0.2)
        yield f"http://127.0.0.1:{slow}", counts
    finally:
        proxy.terminate()
        server.terminate()
        server.wait()


def stages(slide: SlideReader, store: Store, codec: str) -> Iterator[str]:
    """Do what depends on the codec; yield the name of each stage when it is done."""
    ref = writer.convert(slide, store, "p", PyramidParams(codec=codec), mpp=0.25)
    yield "pyramid"
    profile, mask = build_profile(PyramidReader(store, ref), ref, ProfileParams())
    write_label(store, ref, "tissue", mask, profile.tissue_level)
    yield "profile"
    reader = PyramidReader(store, ref)
    for unit in cells.units(store, ref, profile, IHCParams(), "cells"):
        box = unit.box.grown(HALO_PX)
        reader.read(unit.level, box.y0, box.x0, np.empty((box.height, box.width, 3), np.uint8))
    yield "cells, reading"


def measure(slide: SlideReader, store: Store, codec: str, counts: Counts | None) -> None:
    """Print a line a stage."""
    megapixels = slide.info.height * slide.info.width / 1e6
    cpu, wall, before = time.process_time(), time.perf_counter(), counts.now() if counts else np.zeros(3)
    for stage in stages(slide, store, codec):
        took, seconds = time.process_time() - cpu, time.perf_counter() - wall
        moved = (counts.now() if counts else np.zeros(3)) - before
        line = f"{codec:12}{stage:16}{took * 1e3 / megapixels:8.2f}{seconds:9.2f}{took / seconds:7.0%}"
        if counts:
            requests, up, down = moved
            line += f"{requests:10.0f}{up / slide.info.size_bytes:10.2f}{down / slide.info.size_bytes:10.2f}"
        print(line, flush=True)
        cpu, wall, before = time.process_time(), time.perf_counter(), counts.now() if counts else before


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--slide", type=Path, help="tiled slide; default: synthetic")
    parser.add_argument("--side", type=int, default=8192, help="of the synthetic slide")
    parser.add_argument("--codecs", default="source,blosc-lz4,zstd,htj2k,jpeg-90")
    parser.add_argument("--latency-ms", type=float, default=30)
    parser.add_argument("--mb-s", type=float, default=60, help="of one connection")
    args = parser.parse_args()
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory() as folder:
        path = args.slide or Path(folder) / "slide.tif"
        if args.slide is None:
            make_slide(path, args.side)
        print(f"{machine('imagecodecs', 'zarr')}; one thread; {path.stat().st_size / 1e6:.1f} MB")
        with open_slide(str(path), mpp=0.25) as slide:
            print(f"folder\n{'':28}{'ms/MP':>8}{'s':>9}{'busy':>7}")
            for codec in args.codecs.split(","):
                measure(slide, Store(Path(folder) / codec), codec, None)
            print(f"bucket, {args.latency_ms:g} ms, {args.mb_s:g} MB/s a connection; bytes in slides")
            print(f"{'':28}{'ms/MP':>8}{'s':>9}{'busy':>7}{'requests':>10}{'written':>10}{'read':>10}")
            with bucket(args.latency_ms / 1e3, args.mb_s * 1e6) as (endpoint, counts):
                for codec in args.codecs.split(","):
                    measure(slide, Store(f"s3://bench/{codec}", endpoint_url=endpoint), codec, counts)


if __name__ == "__main__":
    main()
