"""Draw planted tissue: hematoxylin and DAB layers in optical density, then light, noise and JPEG.

A slide is drawn in square tiles of a fixed absolute grid, each with a margin, so that memory is bounded and
any part of a slide shows the same pixels as the whole.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Final

import cv2
import numba as nb
import numpy as np
import numpy.typing as npt

from her2core.phantom.spec import EMPTY, F64, I64, LYMPHOCYTE, RGB, TUMOUR, Bools, Noise, PhantomSpec, Regions
from her2core.phantom.tissue import plant
from her2core.phantom.truth import REACH, SHARPNESS, Tissue, Truth
from her2core.records import Box

F32 = npt.NDArray[np.float32]

# Unit OD vectors (R, G, B), QuPath's defaults; rows hematoxylin and DAB.
_VECTORS: Final = np.array([(0.651, 0.701, 0.290), (0.269, 0.568, 0.778)])
STAINS: Final = _VECTORS / np.linalg.norm(_VECTORS, axis=1, keepdims=True)

TILE: Final = 1024  # edge of a drawing tile, in drawing pixels
MARGIN: Final = 64  # drawn and thrown away around a tile: wider than any line, nucleus part or blur
COARSE: Final = 16  # smooth maps are evaluated on every 16th pixel
FINEST_UM: Final = 0.25  # coarser scans are drawn finer and averaged, as a camera does


def render_field(spec: PhantomSpec) -> tuple[RGB, Truth]:
    """Plant and draw one field.

    Returns
    -------
    rgb
        uint8 (height, width, 3), JPEG artefacts of `spec.jpeg_quality` included.
    truth
        TRUTH_DTYPE, one row for every nucleus whose centre lies in the image, sorted by (y, x).
    """
    tissue = plant(spec)
    rgb = render_region(tissue, Box(0, 0, spec.height_px, spec.width_px))
    if spec.jpeg_quality is not None:
        how = [cv2.IMWRITE_JPEG_QUALITY, spec.jpeg_quality]
        how += [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_422]  # as scanners write
        _, code = cv2.imencode(".jpg", rgb[..., ::-1], how)
        rgb = np.ascontiguousarray(np.asarray(cv2.imdecode(code, cv2.IMREAD_COLOR), np.uint8)[..., ::-1])
    return rgb, tissue.truth


def render_region(tissue: Tissue, box: Box) -> RGB:
    """Light through part of the slide, uint8 (box.height, box.width, 3), without JPEG."""
    out = np.empty((box.height, box.width, 3), np.uint8)
    edge = TILE // _finer(tissue.spec)
    for ty in range(box.y0 // edge, -(-box.y1 // edge)):
        for tx in range(box.x0 // edge, -(-box.x1 // edge)):
            y0, x0 = max(box.y0, ty * edge), max(box.x0, tx * edge)
            y1, x1 = min(box.y1, (ty + 1) * edge), min(box.x1, (tx + 1) * edge)
            tile = _expose(tissue, ty, tx)
            out[y0 - box.y0 : y1 - box.y0, x0 - box.x0 : x1 - box.x0] = tile[
                y0 - ty * edge : y1 - ty * edge, x0 - tx * edge : x1 - tx * edge
            ]
    return out


def _finer(spec: PhantomSpec) -> int:
    """Drawing pixels along one scan pixel."""
    return max(1, round(spec.mpp / FINEST_UM))


def _expose(tissue: Tissue, ty: int, tx: int) -> RGB:
    """Scan one tile of the drawing grid: Beer-Lambert, pixel integration, sensor noise."""
    spec, finer = tissue.spec, _finer(tissue.spec)
    y0, x0 = ty * TILE, tx * TILE
    hematoxylin, dab = stain_layers(tissue, Box(y0, x0, y0 + TILE, x0 + TILE))
    light = np.empty((TILE, TILE, 3), np.float32)
    _transmit(hematoxylin, dab, STAINS, np.array(spec.i0), light)
    if finer > 1:
        light = np.asarray(cv2.resize(light, (TILE // finer, TILE // finer), interpolation=cv2.INTER_AREA))
    if spec.noise_sd > 0:
        noise = np.random.default_rng([spec.seed, 20, ty, tx]).standard_normal(light.shape, np.float32)
        light += spec.noise_sd * noise
    return np.clip(np.rint(light), 0, 255).astype(np.uint8)


def stain_layers(tissue: Tissue, box: Box) -> tuple[F32, F32]:
    """Hematoxylin and DAB optical density, each float32 (box.height, box.width), in drawing pixels.

    Along a stained contour the DAB layer is the planted OD: it is the stronger of haze and membrane line.
    """
    spec = tissue.spec
    mpp = spec.mpp / _finer(spec)
    area = box.grown(MARGIN)
    hematoxylin, dab = _ground(spec, area, mpp)
    speckle = window(grain(spec.seed, 1.5), area)
    _fill_cytoplasm(tissue, area, mpp, hematoxylin, dab)
    hematoxylin *= 1 + 0.22 * speckle
    dab *= 1 + 0.35 * speckle
    _draw_nuclei(tissue, area, mpp, hematoxylin, dab)
    if spec.blur_um > 0:
        for layer in (hematoxylin, dab):
            cv2.GaussianBlur(layer, (0, 0), spec.blur_um / mpp, dst=layer)
    _draw_membranes(tissue, area, mpp, dab)
    if spec.defocus_um > 0:
        for layer in (hematoxylin, dab):
            cv2.GaussianBlur(layer, (0, 0), spec.defocus_um / mpp, dst=layer)
    inner = (slice(MARGIN, MARGIN + box.height), slice(MARGIN, MARGIN + box.width))
    return np.ascontiguousarray(hematoxylin[inner]), np.ascontiguousarray(dab[inner])


@lru_cache(maxsize=8)
def grain(seed: int, scale_px: float, stretch: float = 1.0) -> F32:
    """Periodic TILE x TILE noise of unit variance: fine grain over coarser mottle, stretched along x."""
    fy = np.fft.fftfreq(TILE)[:, None]
    fx = np.fft.rfftfreq(TILE)[None] * stretch
    f = np.hypot(fy, fx)
    shape = np.exp(-0.5 * (2 * np.pi * f * scale_px) ** 2) / np.maximum(f, 0.01) ** 0.6
    shape[0, 0] = 0
    white = np.random.default_rng([seed, 21, int(stretch)]).standard_normal((TILE, TILE))
    field = np.fft.irfft2(np.fft.rfft2(white) * shape, s=(TILE, TILE))
    return np.asarray(field / field.std(), np.float32)


def window(texture: F32, area: Box) -> F32:
    """The part of a periodic texture under `area`."""
    rows, cols = np.arange(area.y0, area.y1) % TILE, np.arange(area.x0, area.x1) % TILE
    return texture[rows[:, None], cols]


def _ground(spec: PhantomSpec, area: Box, mpp: float) -> tuple[F32, F32]:
    """Glass, and stroma with wavy fibres; tumour regions are left pale for the cells to fill."""
    top, left = area.y0 % COARSE, area.x0 % COARSE
    rows = area.y0 - top + COARSE * np.arange((area.height + top) // COARSE + 2)
    cols = area.x0 - left + COARSE * np.arange((area.width + left) // COARSE + 2)
    points = np.stack(np.meshgrid(rows, cols, indexing="ij"), -1).reshape(-1, 2) * np.float64(mpp)
    regions = Regions(spec)
    inside = np.clip(regions.tissue(points) / 2.0, 0, 1)  # 2 um of fading margin
    stroma = inside * np.clip(0.5 - 3 * regions.tumour(points), 0.25, 1)
    sway = 15.0 / mpp * Noise(spec.rng(22), 45.0)(points)
    maps = np.stack([inside, stroma, sway]).reshape(3, len(rows), len(cols)).astype(np.float32)
    hematoxylin = np.zeros((area.height, area.width), np.float32)
    dab = np.zeros_like(hematoxylin)
    if inside.any():
        _weave(maps, grain(spec.seed, 1.6, 9.0), area.y0, area.x0, hematoxylin, dab)
    return hematoxylin, dab


@nb.njit(nogil=True, cache=True)
def _between(grid: F32, i: int, j: int, ty: float, tx: float) -> float:
    """Bilinear value of a coarse map, ty and tx of the way from node (i, j) to the next."""
    above = (1 - tx) * grid[i, j] + tx * grid[i, j + 1]
    below = (1 - tx) * grid[i + 1, j] + tx * grid[i + 1, j + 1]
    return float((1 - ty) * above + ty * below)


@nb.njit(nogil=True, cache=True)
def _weave(maps: F32, fibres: F32, y0: int, x0: int, hematoxylin: F32, dab: F32) -> None:
    """Lay fibres along the stroma; `maps` are tissue, stroma and the sway of fibres at every COARSE pixel."""
    for y in range(hematoxylin.shape[0]):
        i, fy = divmod(y + y0 % COARSE, COARSE)
        for x in range(hematoxylin.shape[1]):
            j, fx = divmod(x + x0 % COARSE, COARSE)
            ty, tx = fy / COARSE, fx / COARSE
            stroma = _between(maps[1], i, j, ty, tx)
            sway = int(_between(maps[2], i, j, ty, tx))
            strand = 0.5 + 0.5 * fibres[(y + y0 + sway) % TILE, (x + x0 + sway // 3) % TILE]
            strand = min(3.0, max(0.0, strand))
            hematoxylin[y, x] = stroma * (0.012 + 0.028 * strand)
            dab[y, x] = 0.006 * _between(maps[0], i, j, ty, tx) + 0.008 * stroma * strand


def _near(place: F64, layer: F32, reach: float = MARGIN) -> Bools:
    """Which points (n, 2) in pixels lie on the layer or within reach of it."""
    return np.asarray(((place > -reach) & (place < np.array(layer.shape) + reach)).all(1))


def _fill_cytoplasm(tissue: Tissue, area: Box, mpp: float, hematoxylin: F32, dab: F32) -> None:
    """A faint blush inside every tumour cell, a hair short of its outline; DAB haze by class."""
    spec, cells, contours = tissue.spec, tissue.cells, tissue.contours
    place = cells.centre / mpp - 0.5 - (area.y0, area.x0)
    reach = 3 * spec.spacing_um / mpp
    for cell in np.flatnonzero((cells.kind == TUMOUR) & _near(place, hematoxylin, reach)):
        samples = contours.sample[contours.first[cell] : contours.first[cell + 1]]
        outline = place[cell] + 0.97 * (contours.at[samples] - cells.centre[cell]) / mpp
        fixed = np.rint(outline[:, ::-1] * 16).astype(np.int32)
        cv2.fillPoly(hematoxylin, [fixed], cells.blush[cell], cv2.LINE_8, 4)
        cv2.fillPoly(dab, [fixed], cells.haze[cell], cv2.LINE_8, 4)


def _draw_nuclei(tissue: Tissue, area: Box, mpp: float, hematoxylin: F32, dab: F32) -> None:
    cells = tissue.cells
    place = cells.nucleus / mpp - 0.5 - (area.y0, area.x0)
    k = np.flatnonzero((cells.kind != EMPTY) & _near(place, hematoxylin))
    shape = np.column_stack([place, cells.semi / mpp, cells.angle, cells.od, cells.lobes])[k]
    mottle = window(grain(tissue.spec.seed, 1.5), area)
    _paint_nuclei(shape, cells.kind[k], k, mottle, hematoxylin, dab)


def _draw_membranes(tissue: Tissue, area: Box, mpp: float, dab: F32) -> None:
    contours = tissue.contours
    place = contours.at / mpp - 0.5 - (area.y0, area.x0)
    k = np.flatnonzero((contours.od > 0) & _near(place, dab))
    joined = contours.joined[k] & (np.diff(k, prepend=-2) == 1)
    _paint_lines(place[k], contours.od[k], contours.width[k] / mpp, joined, dab)


@nb.njit(nogil=True, cache=True)
def _span(low: float, high: float, size: int) -> tuple[int, int]:
    """Half-open range of the pixels from low to high inside the image."""
    return max(0, math.ceil(low)), min(size, math.floor(high) + 1)


@nb.njit(nogil=True, cache=True)
def _paint_lines(at: F64, od: F64, width: F64, joined: Bools, dab: F32) -> None:
    """Keep the stronger of what is there and a line of Gaussian profile: peak OD, full width at half."""
    for k in range(len(at)):
        y1, x1, od1, width1 = at[k, 0], at[k, 1], od[k], width[k]
        y0, x0, od0, width0 = y1, x1, od1, width1
        if joined[k]:
            y0, x0, od0, width0 = at[k - 1, 0], at[k - 1, 1], od[k - 1], width[k - 1]
        reach = REACH * max(width0, width1)
        ly, lx = y1 - y0, x1 - x0
        l2 = max(ly * ly + lx * lx, 1e-9)
        top, bottom = _span(min(y0, y1) - reach, max(y0, y1) + reach, dab.shape[0])
        left, right = _span(min(x0, x1) - reach, max(x0, x1) + reach, dab.shape[1])
        for y in range(top, bottom):
            for x in range(left, right):
                t = min(1.0, max(0.0, ((y - y0) * ly + (x - x0) * lx) / l2))
                dy, dx, wide = y - y0 - t * ly, x - x0 - t * lx, width0 + t * (width1 - width0)
                value = (od0 + t * (od1 - od0)) * math.exp(-SHARPNESS * (dy * dy + dx * dx) / (wide * wide))
                dab[y, x] = max(dab[y, x], value)


@nb.njit(nogil=True, cache=True)
def _paint_nuclei(shape: F64, kind: I64, ident: I64, mottle: F32, hematoxylin: F32, dab: F32) -> None:
    """Lobed ellipses with a darker rim, mottled chromatin and, in tumour cells, up to two nucleoli."""
    for k in range(len(shape)):
        cy, cx, a, b, angle, od, lobe2, lobe3, phase2, phase3 = shape[k]
        cos, sin = math.cos(angle), math.sin(angle)
        reach = 1.15 * a + 2
        clump = 0.22 if kind[k] == TUMOUR else 0.15
        edge = 0.0 if kind[k] == LYMPHOCYTE else 0.35
        nucleoli = ident[k] % 3 if kind[k] == TUMOUR else 0
        top, bottom = _span(cy - reach, cy + reach, hematoxylin.shape[0])
        left, right = _span(cx - reach, cx + reach, hematoxylin.shape[1])
        for y in range(top, bottom):
            for x in range(left, right):
                u = ((x - cx) * cos + (y - cy) * sin) / a
                v = ((y - cy) * cos - (x - cx) * sin) / b
                rho = math.sqrt(u * u + v * v)
                if rho > 1.3:
                    continue
                phi = math.atan2(v, u)
                rho /= 1 + lobe2 * math.cos(2 * phi + phase2) + lobe3 * math.cos(3 * phi + phase3)
                cover = min(1.0, max(0.0, (1 - rho) * b / 1.5 + 0.5))
                if cover == 0.0:
                    continue
                value = 0.92 + edge * math.exp(-(((rho - 0.88) / 0.12) ** 2)) + clump * mottle[y, x]
                for i in range(nucleoli):
                    turn = 1.7 * ident[k] + 2.5 * i
                    du, dv = u - 0.35 * math.cos(turn), v - 0.35 * math.sin(turn)
                    value += 0.9 * math.exp(-(du * du * a / b + dv * dv * b / a) / 0.05)
                hematoxylin[y, x] += cover * (od * max(value, 0.2) - hematoxylin[y, x])
                dab[y, x] *= 1 - 0.7 * cover


@nb.njit(nogil=True, cache=True)
def _transmit(hematoxylin: F32, dab: F32, stains: F64, i0: F64, light: F32) -> None:
    """Beer-Lambert: I = I0 * 10 ** -(H h + D d)."""
    ln10 = math.log(10.0)
    for y in range(hematoxylin.shape[0]):
        for x in range(hematoxylin.shape[1]):
            for c in range(3):
                od = hematoxylin[y, x] * stains[0, c] + dab[y, x] * stains[1, c]
                light[y, x, c] = i0[c] * math.exp(-ln10 * od)
