"""DAPI's light in a probe's channel: measured by the texture of chromatin, taken off, and no signal."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from her2core.kernels.ish.kernel import ISHKernel
from her2core.params import ISHParams, ProfileParams
from her2core.profile.fluorescence import fluorescence_profile
from her2core.profile.sampling import SampledSlide
from her2core.records import Box, Fluorescence, PyramidRef

MPP, EDGE, FIELD, NUCLEUS = 0.1, 1024, 20.0, 80.0
BEADS, BEAD = 10, 100.0  # of a nucleus, grey levels
CENTRES = [(200 * i, 200 * j) for i in range(1, 5) for j in range(1, 5)]
Pixels = npt.NDArray[np.uint16]


class Flat:
    """Pixels as a pyramid of one level."""

    def __init__(self, pixels: Pixels) -> None:
        self.pixels = pixels

    def read(self, level: int, y0: int, x0: int, out: npt.NDArray[np.generic]) -> None:
        out[...] = np.array(0, out.dtype)
        y, x = max(y0, 0), max(x0, 0)
        part = self.pixels[y : y0 + out.shape[0], x : x0 + out.shape[1]]
        out[y - y0 : y - y0 + part.shape[0], x - x0 : x - x0 + part.shape[1]] = part


def light(at: npt.NDArray[np.float64], height: float) -> npt.NDArray[np.float64]:
    """Points of light, as wide as a signal in focus."""
    plane = np.zeros((EDGE, EDGE))
    plane[tuple(np.rint(at).astype(int).T)] = 1.0
    sigma = 0.23 / MPP
    return cv2.GaussianBlur(plane, (0, 0), sigma) * (height * 2 * np.pi * sigma**2)


def slide(share: float) -> Pixels:
    """Sixteen round nuclei with chromatin beads, two CEP17 signals each, and ``share`` of DAPI with CEP17."""
    rng = np.random.default_rng(3)
    dapi = np.zeros((EDGE, EDGE))
    for y, x in CENTRES:
        cv2.circle(dapi, (x, y), round(5.5 / MPP), NUCLEUS, -1)
    dapi = cv2.GaussianBlur(dapi, (0, 0), 0.3 / MPP)
    beads = [np.array(c) + rng.uniform(-32, 32, 2) for c in CENTRES for _ in range(BEADS)]
    dapi += light(np.array(beads), BEAD)
    signals = light(np.array([[y, x + d] for y, x in CENTRES for d in (-36, 36)], np.float64), 100.0)
    planes = np.stack([dapi, np.zeros_like(dapi), signals + share * dapi], axis=-1)
    return np.rint(planes + FIELD + rng.normal(0, 2.0, planes.shape)).clip(0).astype(np.uint16)


def profiled(pixels: Pixels) -> Fluorescence:
    channels = ("DAPI", "HER2", "CEP17")
    ref = PyramidRef("p", "i", (pixels.shape[:2],), 512, 4096, MPP, "zstd", 0, 0, channels, "uint16")
    params = ProfileParams()
    return fluorescence_profile(SampledSlide(Flat(pixels), ref, params), ref, params)[0]


def counted_signals(pixels: Pixels, levels: Fluorescence) -> npt.NDArray[np.int64]:
    """CEP17 signals of every nucleus with more than half of a true one's contrast."""
    kernel = ISHKernel(ISHParams(), levels, MPP, extent=pixels.shape[:2])
    halo = kernel.halo_px
    region = np.zeros((EDGE + 2 * halo, EDGE + 2 * halo, 3), np.uint16)
    Flat(pixels).read(0, -halo, -halo, region)
    nuclei, spots = kernel(region, (-halo, -halo), Box(0, 0, EDGE, EDGE))
    cep17 = spots[(spots["probe"] == 1) & (spots["contrast"] > 35)]
    return np.bincount(cep17["nucleus"], minlength=len(nuclei))


@pytest.mark.parametrize("share", [0.0, 0.3, 0.8])
def test_share_is_that_of_the_slide(share: float) -> None:
    dapi, her2, cep17 = profiled(slide(share)).dapi_share
    assert (dapi, her2) == (0.0, 0.0)
    assert cep17 == pytest.approx(share, abs=0.08)


def test_chromatin_is_no_signal() -> None:
    pixels = slide(0.8)
    levels = profiled(pixels)
    assert counted_signals(pixels, replace(levels, dapi_share=())).mean() > 4  # beads count, unless taken off
    counts = counted_signals(pixels, levels)
    assert len(counts) == len(CENTRES)
    assert counts.tolist() == [2] * len(CENTRES)


def test_without_nuclei_there_is_no_share() -> None:
    empty = np.random.default_rng(0).normal(20, 2, (EDGE, EDGE, 3)).clip(0).astype(np.uint16)
    assert profiled(empty).dapi_share == (0.0, 0.0, 0.0)
