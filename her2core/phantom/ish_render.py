"""Draw planted ISH nuclei: fluorescence as light in three channels, bright field as what is absorbed.

A field is drawn in square tiles of a fixed absolute grid, each with a margin, so that any part of it shows
the same pixels as the whole.
"""

from __future__ import annotations

import math
from typing import Any, Final

import cv2
import numpy as np
import numpy.typing as npt

from her2core.kernels.stain import unit
from her2core.phantom.ish import ISHSpec, PlantedISH, outline_radius
from her2core.phantom.render import grain, window
from her2core.records import Box

F32 = npt.NDArray[np.float32]
Pixels = npt.NDArray[Any]

TILE: Final = 512  # edge of a drawing tile, px
MARGIN_UM: Final = 9.0  # drawn and thrown away around it: wider than a nucleus's half, a cluster and any blur

# Fluorescence, grey levels of a 12-bit camera in uint16. Ours.
FIELD: Final = (180.0, 150.0, 150.0)
DAPI_LEVEL: Final = 1400.0
IN_NUCLEUS: Final = (0.0, 60.0, 50.0)  # light of the probes' channels inside nuclei: autofluorescence
SIGNAL_LEVEL: Final = (900.0, 800.0)  # peak of a single HER2 and CEP17 signal
GAIN: Final = 0.25  # grey levels of noise variance a grey level of light: shot noise
READ_NOISE: Final = 8.0

# Bright field: optical density and its direction (R, G, B). Ours, measured on real dual-ISH fields, and not
# the references that the kernel falls back on.
HEMATOXYLIN: Final = unit((0.78, 0.59, 0.20))
RED: Final = unit((0.08, 0.98, 0.16))  # less the hematoxylin beneath
GLASS: Final = (236.0, 235.0, 232.0)
HEMATOXYLIN_OD: Final = 0.21
BLACK_OD: Final = 0.70  # peak of a single silver dot, in every channel
RED_OD: Final = 0.95  # peak of a single red dot, along its vector
RED_WIDER: Final = 1.35  # red chromogen spreads farther than silver
GREY_NOISE: Final = 2.0
HAZE_UM: Final = 6.0  # haze is correlated over this
HAZE_LEVEL: Final = (60.0, 40.0, 30.0)  # its mean, grey levels of fluorescence
HAZE_OD: Final = (0.020, 0.026, 0.040)  # its mean, R, G, B: cream


def render_ish(planted: PlantedISH, box: Box) -> Pixels:
    """Part of the field.

    Returns
    -------
    FISH: uint16 ``(h, w, 3)``, DAPI, HER2, CEP17 (two channels with a single probe). DISH: uint8 RGB.
    """
    channels = 3 if planted.spec.modality == "DISH" or planted.spec.dual else 2
    dtype = np.uint8 if planted.spec.modality == "DISH" else np.uint16
    out = np.empty((box.height, box.width, channels), dtype)
    for ty in range(box.y0 // TILE, -(-box.y1 // TILE)):
        for tx in range(box.x0 // TILE, -(-box.x1 // TILE)):
            y0, x0 = max(box.y0, ty * TILE), max(box.x0, tx * TILE)
            y1, x1 = min(box.y1, (ty + 1) * TILE), min(box.x1, (tx + 1) * TILE)
            tile = _tile(planted, ty, tx)
            out[y0 - box.y0 : y1 - box.y0, x0 - box.x0 : x1 - box.x0] = tile[
                y0 - ty * TILE : y1 - ty * TILE, x0 - tx * TILE : x1 - tx * TILE, :channels
            ]
    return out


def _tile(planted: PlantedISH, ty: int, tx: int) -> Pixels:
    spec = planted.spec
    margin = math.ceil(MARGIN_UM / spec.mpp)
    area = Box(ty * TILE, tx * TILE, (ty + 1) * TILE, (tx + 1) * TILE).grown(margin)
    nuclear = _nuclear(planted, area)
    signals = [_signals(planted, area, probe) for probe in range(2)]
    inner = (slice(margin, margin + TILE), slice(margin, margin + TILE))
    noise = np.random.default_rng([spec.seed, 31, ty, tx]).standard_normal((TILE, TILE, 3), np.float32)
    haze = spec.haze * _haze(spec, area)[inner][..., None]
    if spec.modality == "FISH":
        layers = [DAPI_LEVEL * nuclear, *signals]
        light = np.stack([_blurred(layer, spec)[inner] for layer in layers], -1)
        light += haze * np.asarray(HAZE_LEVEL, np.float32)
        for channel in range(3):
            light[..., channel] += FIELD[channel] + IN_NUCLEUS[channel] * nuclear[inner]
        light += spec.noise * np.sqrt(GAIN * light + READ_NOISE**2) * noise
        return np.clip(np.rint(light), 0, 65535).astype(np.uint16)
    od = [_blurred(layer, spec)[inner] for layer in (HEMATOXYLIN_OD * nuclear, *signals)]
    density = 0.006 + haze * np.asarray(HAZE_OD, np.float32)
    for layer, vector in zip(od, (HEMATOXYLIN, np.ones(3), RED), strict=True):
        density += layer[..., None] * np.asarray(vector, np.float32)
    light = np.asarray(GLASS, np.float32) * 10 ** -np.minimum(density, 2.2)
    light += spec.noise * GREY_NOISE * noise
    rgb: Pixels = np.clip(np.rint(light), 0, 255).astype(np.uint8)
    return rgb


def _blurred(layer: F32, spec: ISHSpec) -> F32:
    if spec.defocus_um <= 0:
        return layer
    return np.asarray(cv2.GaussianBlur(layer, (0, 0), spec.defocus_um / spec.mpp), np.float32)


def _haze(spec: ISHSpec, area: Box) -> F32:
    """Mean 1, never below 0: patches a few micrometres wide, everywhere."""
    patches = window(grain(spec.seed + 1, HAZE_UM / spec.mpp), area)
    fine = window(grain(spec.seed, max(0.5 / spec.mpp, 1.0)), area)
    return np.maximum(1 + 0.35 * patches + 0.15 * fine, 0)


def _nuclear(planted: PlantedISH, area: Box) -> F32:
    """Counterstain, about 1 inside a nucleus, with a soft rim and chromatin; overlapping nuclei add up."""
    spec = planted.spec
    layer = np.zeros((area.height, area.width), np.float32)
    chromatin = window(grain(spec.seed, max(0.35 / spec.mpp, 1.0)), area)
    for k, nucleus in enumerate(planted.nuclei):
        reach = nucleus["long_um"] * 1.2 / spec.mpp + 2
        part = _window_of(nucleus["y_px0"], nucleus["x_px0"], reach, area)
        if part is None:
            continue
        rows, columns, y, x = part
        sin, cos = math.sin(nucleus["angle"]), math.cos(nucleus["angle"])
        u = (x * cos + y * sin) * spec.mpp / nucleus["long_um"]
        v = (y * cos - x * sin) * spec.mpp / nucleus["short_um"]
        rho = np.hypot(u, v) / outline_radius(nucleus, np.arctan2(v, u))
        cover = np.clip((1 - rho) * nucleus["short_um"] / 0.5 + 0.5, 0, 1)
        shade = 0.75 + 0.5 * ((k * 7919) % 97) / 97
        layer[rows, columns] += cover * shade * np.clip(1 + 0.10 * chromatin[rows, columns], 0.5, 1.5)
    return layer


def _signals(planted: PlantedISH, area: Box, probe: int) -> F32:
    """Signals of one probe: Gaussian spots of one peak; clusters are several within a blob."""
    spec = planted.spec
    layer = np.zeros((area.height, area.width), np.float32)
    bright = spec.modality == "FISH"
    peak = SIGNAL_LEVEL[probe] if bright else (BLACK_OD, RED_OD)[probe]
    wider = RED_WIDER if probe == 1 and not bright else 1.0
    sigma = wider * spec.spot_um / math.sqrt(8 * math.log(2)) / spec.mpp
    for i in np.flatnonzero(planted.spots["probe"] == probe):
        spot = planted.spots[i]
        rng = np.random.default_rng([spec.seed, 32, int(i)])
        strength = rng.uniform(0.85, 1.15)
        blur = spec.depth_um * min(abs(rng.normal()), 3.0) / spec.mpp
        wide2 = sigma * sigma + blur * blur
        away = 0.42 * spec.spot_um * math.sqrt(spot["copies"]) / spec.mpp if spot["copies"] > 1 else 0.0
        for _ in range(spot["copies"]):
            turn, radius = rng.uniform(0, 2 * math.pi), away * math.sqrt(rng.random()) * 1.5
            y, x = spot["y_px0"] + radius * math.sin(turn), spot["x_px0"] + radius * math.cos(turn)
            part = _window_of(y, x, 4 * math.sqrt(wide2) + 1, area)
            if part is not None:
                rows, columns, dy, dx = part
                top = strength * peak * sigma * sigma / wide2  # the integral stays
                layer[rows, columns] += top * np.exp(-(dy * dy + dx * dx) / (2 * wide2))
    return layer


def _window_of(y: float, x: float, reach: float, area: Box) -> tuple[slice, slice, F32, F32] | None:
    """Rows and columns of `area` within reach of a place, and their distances from it; None if none are."""
    top, bottom = max(math.floor(y - reach), area.y0), min(math.ceil(y + reach) + 1, area.y1)
    left, right = max(math.floor(x - reach), area.x0), min(math.ceil(x + reach) + 1, area.x1)
    if top >= bottom or left >= right:
        return None
    dy = (np.arange(top, bottom) - y).astype(np.float32)[:, None]
    dx = (np.arange(left, right) - x).astype(np.float32)[None]
    return slice(top - area.y0, bottom - area.y0), slice(left - area.x0, right - area.x0), dy, dx
