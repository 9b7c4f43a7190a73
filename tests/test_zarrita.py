"""Pyramids of copied tiles open with zarrita and our codec, in Node."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from her2core.params import PyramidParams
from her2core.pyramid import writer
from her2core.pyramid.reader import PyramidReader
from her2core.readers import open_slide
from her2core.storage.store import Store
from tests.helpers.jpegslides import jpeg, write_slide

CODEC = Path(__file__).parents[1] / "her2core" / "viewer" / "imagecodecs_jpeg.js"
PACKAGES = ("zarrita@0.7.5", "jpeg-js@0.4.4")
READ = """
import jpeg from "jpeg-js";
import * as zarr from "zarrita";
import { FileSystemStore } from "@zarrita/storage";
import { imagecodecsJpeg } from "./imagecodecs_jpeg.mjs";
const decode = (bytes) => jpeg.decode(bytes, { useTArray: true });
zarr.registry.set("imagecodecs_jpeg", () => imagecodecsJpeg(decode));
const image = zarr.root(new FileSystemStore(process.argv[2]));
const found = {};
for (const level of ["0", "2", "4"]) {
  const array = await zarr.open(image.resolve(level), { kind: "array" });
  const one = await zarr.get(array, [1, null, null]);  // zarrita before 0.7.4 fails on one channel
  const all = await zarr.get(array, [null, zarr.slice(0, 9), zarr.slice(0, 11)]);
  const told = (part) => [part.shape, part.stride, Array.from(part.data)];
  found[level] = { one: told(one), all: told(all) };
}
console.log(JSON.stringify(found));
"""


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder where Node finds zarrita, a JPEG decoder and our codec."""
    folder = tmp_path_factory.mktemp("node")
    if not (shutil.which("node") and shutil.which("npm")):
        pytest.skip("needs node and npm")
    (folder / "package.json").write_text("{}")
    try:
        subprocess.run(
            ["npm", "install", "--no-audit", "--no-fund", *PACKAGES],
            cwd=folder, check=True, capture_output=True, timeout=60,
        )  # fmt: skip
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired):
        pytest.skip(f"npm cannot install {', '.join(PACKAGES)} here")
    shutil.copy(CODEC, folder / "imagecodecs_jpeg.mjs")
    (folder / "read.mjs").write_text(READ)
    return folder


def test_zarrita_reads_tiles_and_overviews(node: Path, tmp_path: Path) -> None:
    y, x = np.mgrid[:150, :210]
    pixels = np.stack([120 + 60 * np.sin(x / 17 + c) * np.cos(y / 23) for c in range(3)], -1).astype(np.uint8)
    path = write_slide(tmp_path / "a.svs", pixels, 64, lambda tile: jpeg(tile, subsampling="444"))
    store = Store(tmp_path / "out")
    with open_slide(path, mpp=0.25) as reader:
        ref = writer.convert(reader, store, "p", PyramidParams(16, 256, "source"), mpp=0.25)
    command = ["node", "read.mjs", store.uri("p")]
    answer = subprocess.run(command, cwd=node, check=True, capture_output=True, timeout=60)
    for level, parts in json.loads(answer.stdout).items():
        want = np.empty((*ref.shapes[int(level)], 3), np.uint8)
        PyramidReader(store, ref).read(int(level), 0, 0, want)
        planes = np.moveaxis(want.astype(int), -1, 0)
        for key, part in (("one", planes[1]), ("all", planes[:, :9, :11])):
            shape, strides, data = parts[key]  # a result lies as its chunks do: pixel by pixel
            seen = np.lib.stride_tricks.as_strided(np.array(data), shape, [8 * stride for stride in strides])
            off = np.abs(seen - part)
            assert off.max() <= {"0": 2, "2": 20, "4": 0}[level], (level, key)
            assert off.mean() < {"0": 2, "2": 4, "4": 1}[level], (level, key)  # level 2 has half the colour
