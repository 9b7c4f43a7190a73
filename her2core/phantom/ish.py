"""Synthetic ISH slides with planted truth: every nucleus and every signal is chosen, then drawn.

    spec = ISHSpec("FISH", seed=1, height_px=1500, width_px=1500, populations=(Population(1.0, 8.0, 2.0),))
    planted = plant_ish(spec)                      # planted.nuclei, planted.spots
    pixels = render_ish(planted, Box(0, 0, 1500, 1500))

Nuclei are lobed ellipses on a jittered grid; some touch and some overlap. Signals lie inside them, farther
apart than they are wide, so that each is resolved; a cluster is one place that holds several copies.

Phantoms prove plumbing and arithmetic, not clinical validity.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from shapely import STRtree
from shapely.geometry import Polygon

F64 = npt.NDArray[np.float64]

NUCLEUS_TRUTH: Final = np.dtype(
    [("y_px0", "f8"), ("x_px0", "f8"), ("long_um", "f8"), ("short_um", "f8"), ("angle", "f8"),
     ("population", "i4"), ("overlapped", "?"), ("her2", "i4"), ("cep17", "i4"), ("area_um2", "f8"),
     ("lobe2", "f8"), ("lobe3", "f8"), ("phase2", "f8"), ("phase3", "f8")]
)  # fmt: skip
"""One nucleus: centre, semi-axes, angle of the long one from x towards y, the copies that were planted in it,
and second and third harmonic of its outline."""
SPOT_TRUTH: Final = np.dtype(
    [("nucleus", "i4"), ("probe", "u1"), ("y_px0", "f8"), ("x_px0", "f8"), ("copies", "i4")]
)
"""One signal: row of its nucleus (-1: it lies outside of any), probe (0 HER2, 1 CEP17), place, and copies
(more than 1 in a cluster)."""

JITTER_UM: Final = 1.2
SEMI_UM: Final = (4.6, 6.4)  # long semi-axis: nuclei of 9 to 13 µm
ROUNDNESS: Final = (0.78, 1.0)  # short over long
LOBE: Final = 0.035  # standard deviation of an outline's harmonics, as a fraction of its radius
SHARED: Final = 0.01  # part of a nucleus from which another one overlaps it
INNER: Final = 0.78  # signals keep this far from the outline, as a fraction of the axes
CLUSTER_COPIES: Final = 6  # copies a cluster, about (spec §8.1: small cluster 6)
TRIES: Final = 200


@dataclass(frozen=True, slots=True)
class Population:
    """Tumour cells of one kind: their share of all, and their mean copies.

    Attributes
    ----------
    clustered
        HER2 copies lie in clusters, as in homogeneously staining regions.
    """

    fraction: float
    her2: float
    cep17: float
    clustered: bool = False


@dataclass(frozen=True, slots=True)
class ISHSpec:
    """One synthetic ISH field.

    Attributes
    ----------
    modality
        ``FISH`` or ``DISH``.
    spacing_um
        Distance of neighbouring nuclei, or pairs of nuclei, on the grid; below 18 they crowd and overlap.
    overlapping, touching
        Share of nuclei that another one covers in part, or that another one touches.
    noise
        Sensor noise in standard deviations of the usual (1.0); 0 draws none.
    defocus_um
        Standard deviation of blur beyond the lens's own.
    depth_um
        Signals lie at different depths: each is blurred on its own, by a normal deviate of this scale, and
        keeps its integral.
    haze
        Uneven light or stain between nuclei (autofluorescence; cytoplasm and debris); 1 is usual.
    stray
        Signals outside nuclei, a nucleus.
    retention
        Chance that a section keeps a copy: nuclei of a 4 µm section are cut (spec §2.4.1: 0.7).
    dual
        Whether there is a CEP17 probe.
    islands
        Populations lie apart, from left to right, instead of mixed.
    """

    modality: str
    seed: int
    height_px: int
    width_px: int
    mpp: float = 0.1
    populations: tuple[Population, ...] = (Population(1.0, 2.0, 2.0),)
    spacing_um: float = 19.0
    overlapping: float = 0.06
    touching: float = 0.12
    noise: float = 1.0
    defocus_um: float = 0.0
    depth_um: float = 0.08
    haze: float = 1.0
    stray: float = 0.05
    retention: float = 1.0
    spot_um: float = 0.55
    dual: bool = True
    islands: bool = False
    margin_um: float = 20.0

    def __post_init__(self) -> None:
        if self.modality not in ("FISH", "DISH"):
            raise ValueError(f"modality {self.modality!r}: expected FISH or DISH")
        if abs(sum(p.fraction for p in self.populations) - 1) > 1e-6:
            raise ValueError(f"populations {self.populations}: fractions must add up to 1")


@dataclass(frozen=True, slots=True)
class PlantedISH:
    """A planted field: ``nuclei`` of `NUCLEUS_TRUTH`, sorted by (y, x), and ``spots`` of `SPOT_TRUTH`."""

    spec: ISHSpec
    nuclei: npt.NDArray[np.void]
    spots: npt.NDArray[np.void]

    def outline(self, row: int) -> F64:
        """Outline of a nucleus, ``(96, 2)`` as (y, x) in level-0 px."""
        return _outline(self.nuclei[row], self.spec.mpp)


def outline_radius(nucleus: Any, phi: F64) -> F64:
    """Radius of an outline at polar angles ``phi`` of its ellipse, in units of the ellipse's."""
    second, third = (nucleus[f"lobe{k}"] * np.cos(k * phi + nucleus[f"phase{k}"]) for k in (2, 3))
    return np.asarray(1 + second + third)


def _outline(nucleus: Any, mpp: float) -> F64:
    phi = np.linspace(0, 2 * math.pi, 96, endpoint=False)
    radius = outline_radius(nucleus, phi) / mpp
    u, v = radius * nucleus["long_um"] * np.cos(phi), radius * nucleus["short_um"] * np.sin(phi)
    sin, cos = math.sin(nucleus["angle"]), math.cos(nucleus["angle"])
    return np.stack([nucleus["y_px0"] + u * sin + v * cos, nucleus["x_px0"] + u * cos - v * sin], 1)


def plant_ish(spec: ISHSpec) -> PlantedISH:
    """Choose every nucleus and signal of a field; deterministic in the spec."""
    rng = np.random.default_rng([spec.seed, 30])
    nuclei = _nuclei(spec, rng)
    spots: list[tuple[Any, ...]] = []
    for k, nucleus in enumerate(nuclei):
        population = spec.populations[nucleus["population"]]
        taken: list[tuple[float, float, int]] = []
        for probe, mean in enumerate((population.her2, population.cep17)):
            if probe == 1 and not spec.dual:
                continue
            copies = max(0, round(rng.normal(mean, 0.15 * math.sqrt(max(mean, 0.0)))))
            if spec.retention < 1:
                copies = int(rng.binomial(copies, spec.retention))
            groups = _clusters(copies, population.clustered and probe == 0, rng)
            for n in groups:
                place = _place(nucleus, probe, n, taken, spec, rng)
                if place is not None:
                    taken.append((*place, probe))
                    spots.append((k, probe, *_pixels(nucleus, place, spec), n))
    spots += _stray(spec, nuclei)
    planted = np.array(spots, SPOT_TRUTH)
    for probe, name in enumerate(("her2", "cep17")):
        of = (planted["probe"] == probe) & (planted["nucleus"] >= 0)
        nuclei[name] = np.bincount(planted["nucleus"][of], planted["copies"][of], len(nuclei)).astype(int)
    return PlantedISH(spec, nuclei, planted)


def _nuclei(spec: ISHSpec, rng: np.random.Generator) -> npt.NDArray[np.void]:
    """Ellipses on a jittered hexagonal grid, and companions that touch or overlap some of them."""
    height, width = spec.height_px * spec.mpp, spec.width_px * spec.mpp
    rows: list[tuple[Any, ...]] = []
    shapes = np.random.default_rng([spec.seed, 33])
    down = spec.spacing_um * math.sqrt(0.75)
    for i, y in enumerate(np.arange(spec.margin_um, height - spec.margin_um, down)):
        for x in np.arange(
            spec.margin_um + (i % 2) * spec.spacing_um / 2, width - spec.margin_um, spec.spacing_um
        ):
            cy, cx = y + rng.normal(0, JITTER_UM), x + rng.normal(0, JITTER_UM)
            long = rng.uniform(*SEMI_UM)
            short, angle = long * rng.uniform(*ROUNDNESS), rng.uniform(0, math.pi)
            population = _population(spec, cx / width, rng)
            kind = rng.random()
            if kind < spec.overlapping + spec.touching:  # a pair along the line between them
                turn = rng.uniform(0, 2 * math.pi)
                long = short = rng.uniform(4.0, 4.4)
                apart = long * (1.45 if kind < spec.overlapping else 2.06)
                away = (apart / 2 * math.sin(turn), apart / 2 * math.cos(turn))
                pair = [(cy + s * away[0], cx + s * away[1]) for s in (-1, 1)]
            else:
                pair = [(cy, cx)]
            for py, px in pair:
                place = (py / spec.mpp - 0.5, px / spec.mpp - 0.5)
                shape = (long, short, angle, population, False)
                lobe = shapes.normal(0, LOBE, 2).clip(-2 * LOBE, 2 * LOBE) * (
                    len(pair) == 1
                )  # pairs stay round
                area = math.pi * long * short * (1 + 0.5 * float(lobe @ lobe))
                rows.append((*place, *shape, 0, 0, area, *lobe, *shapes.uniform(0, 2 * math.pi, 2)))
    nuclei = np.array(rows, NUCLEUS_TRUTH)
    nuclei["overlapped"] = _overlapped(nuclei, spec.mpp)  # jitter makes neighbours meet, too
    return nuclei[np.lexsort((nuclei["x_px0"], nuclei["y_px0"]))]


def _overlapped(nuclei: npt.NDArray[np.void], mpp: float) -> npt.NDArray[np.bool_]:
    """Which nuclei another one covers in part."""
    shapes, shared = [Polygon(_outline(nucleus, mpp)) for nucleus in nuclei], np.zeros(len(nuclei))
    for a, b in STRtree(shapes).query(shapes, "intersects").T:
        if a != b:
            shared[a] += shapes[a].intersection(shapes[b]).area / shapes[a].area
    return np.asarray(shared >= SHARED)


def _population(spec: ISHSpec, across: float, rng: np.random.Generator) -> int:
    """Which population a nucleus belongs to: by chance, or by its place from left to right."""
    at = across if spec.islands else rng.random()
    shares = np.cumsum([p.fraction for p in spec.populations])
    return min(int(np.searchsorted(shares, at, side="right")), len(shares) - 1)


def _clusters(copies: int, clustered: bool, rng: np.random.Generator) -> list[int]:
    """Copies in each place."""
    if not clustered or copies < CLUSTER_COPIES:
        return [1] * copies
    together = min(copies, int(rng.integers(CLUSTER_COPIES - 1, CLUSTER_COPIES + 3)))
    return [together, *_clusters(copies - together, clustered, rng)]


def _place(
    nucleus: Any,
    probe: int,
    copies: int,
    taken: list[tuple[float, float, int]],
    spec: ISHSpec,
    rng: np.random.Generator,
) -> tuple[float, float] | None:
    """A place in the nucleus, µm from its centre, clear of the signals in it; None if none is free."""
    wide = spec.spot_um * (1.0 if copies == 1 else 1.2 * math.sqrt(copies))
    for _ in range(TRIES):
        radius, turn = math.sqrt(rng.random()) * INNER, rng.uniform(0, 2 * math.pi)
        u, v = radius * nucleus["long_um"] * math.cos(turn), radius * nucleus["short_um"] * math.sin(turn)
        y = u * math.sin(nucleus["angle"]) + v * math.cos(nucleus["angle"])
        x = u * math.cos(nucleus["angle"]) - v * math.sin(nucleus["angle"])
        clear = (2.0 if spec.modality == "FISH" else 2.4) * spec.spot_um
        needed = [(clear if p == probe else 0.5 * clear) + (wide - spec.spot_um) for _, _, p in taken]
        if all(math.hypot(y - ty, x - tx) > n for (ty, tx, _), n in zip(taken, needed, strict=True)):
            return y, x
    return None


def _stray(spec: ISHSpec, nuclei: npt.NDArray[np.void]) -> list[tuple[Any, ...]]:
    """Signals between nuclei, at least a micrometre clear of all."""
    rng = np.random.default_rng([spec.seed, 34])
    found: list[tuple[Any, ...]] = []
    for _ in range(int(rng.poisson(spec.stray * len(nuclei)))):
        probe = int(rng.integers(2)) if spec.dual else 0
        y, x = rng.uniform(0, spec.height_px), rng.uniform(0, spec.width_px)
        away = np.hypot(nuclei["y_px0"] - y, nuclei["x_px0"] - x) * spec.mpp
        if (away > nuclei["long_um"] * (1 + 4 * LOBE) + 1.0).all():
            found.append((-1, probe, y, x, 1))
    return found


def _pixels(nucleus: Any, place: tuple[float, float], spec: ISHSpec) -> tuple[float, float]:
    return nucleus["y_px0"] + place[0] / spec.mpp, nucleus["x_px0"] + place[1] / spec.mpp
