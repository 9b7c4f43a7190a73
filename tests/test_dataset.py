"""Levels as xarray: the right pixels at the right micrometres, read when asked for."""

from __future__ import annotations

from pathlib import Path

import dask
import numpy as np
import pytest
import xarray as xr

from her2core.errors import StoreError
from her2core.params import PyramidParams
from her2core.pyramid.dataset import open_level, open_pyramid
from her2core.pyramid.writer import finalise, grid_of, write_shards, write_top
from her2core.readers.memory import MemoryReader
from her2core.storage.store import Store

MPP = 0.5


def make(store: Store, image: np.ndarray, codec: str = "blosc-lz4") -> str:
    params, reader = PyramidParams(32, 64, codec), MemoryReader(image)
    grid = grid_of(*image.shape[:2], params)
    for task in grid.tasks():
        write_shards(reader, store, "pyramids/key", grid, params, [task])
    write_top(store, "pyramids/key", grid, params)
    finalise(store, "pyramids/key", grid, params, identity="1-x", mpp=MPP)
    return store.uri("pyramids/key")


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    return np.random.default_rng(2).integers(0, 256, (150, 101, 3), dtype=np.uint8)


@pytest.mark.parametrize("codec", ["blosc-lz4", "zstd", "htj2k"])
def test_a_level_holds_the_pixels(codec: str, image: np.ndarray, tmp_path: Path) -> None:
    level = open_level(make(Store(tmp_path), image, codec), 0)
    assert level.dims == ("c", "y", "x")
    assert level.name == "image"
    assert dask.is_dask_collection(level)
    assert np.array_equal(level.transpose("y", "x", "c").values, image)
    assert list(level["c"].values) == ["R", "G", "B"]
    assert np.array_equal(level.sel(c="G").values, image[..., 1])


def test_coordinates_are_pixel_centres_in_micrometres(image: np.ndarray, tmp_path: Path) -> None:
    uri = make(Store(tmp_path), image)
    fine, coarse = open_level(uri, 0), open_level(uri, 2)
    assert fine["y"].values[:2].tolist() == [0.0, 0.5]
    # Pixel 0 of level 2 covers pixels 0 to 3 of level 0, whose centres have the mean 1.5 px = 0.75 µm.
    assert coarse["x"].values[:2].tolist() == [0.75, 2.75]
    assert fine["y"].attrs["units"] == fine.attrs["units"] == "micrometer"
    assert (fine.attrs["mpp"], coarse.attrs["mpp"]) == (0.5, 2.0)
    here = fine.sel(y=slice(10.0, 12.0), x=slice(20.0, 20.5))
    assert np.array_equal(here.transpose("y", "x", "c").values, image[20:25, 40:42])


def test_a_tree_of_all_levels(image: np.ndarray, tmp_path: Path) -> None:
    uri = make(Store(tmp_path), image)
    tree = open_pyramid(uri)
    assert isinstance(tree, xr.DataTree)
    assert tree.attrs["levels"] == len(tree.children) == 4
    for n, node in enumerate(tree.children.values()):
        assert node["image"].identical(open_level(uri, n))
    means = [float(node["image"].mean()) for node in tree.children.values()]
    assert np.ptp(means) < 2


def test_nothing_is_read_before_it_is_asked_for(image: np.ndarray, tmp_path: Path) -> None:
    store = Store(tmp_path)
    level = open_level(make(store, image), 0)
    for name in store.list("pyramids/key/0/c", recursive=True):
        store.write_bytes(name, b"")
    with pytest.raises(ValueError, match=r"\S"):
        level.values  # noqa: B018


def test_what_is_not_there_is_said(image: np.ndarray, tmp_path: Path) -> None:
    uri = make(Store(tmp_path), image)
    with pytest.raises(StoreError, match="levels 0, 1, 2, 3; level 4"):
        open_level(uri, 4)
    with pytest.raises(StoreError, match="levels 0, 1, 2, 3; level -1"):
        open_level(uri, -1)
    for wrong in (tmp_path / "nothing", tmp_path):
        with pytest.raises(StoreError, match="not an OME-Zarr"):
            open_pyramid(str(wrong))
