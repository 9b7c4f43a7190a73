"""Colour judged where it is known: background on crops without glass, vectors on planted stain, zeros.

    python benchmarks/judge_colour.py [background | vectors | zeros ...]

**Background**: crops of the real cores in which hardly a pixel is glass; the core's own glass is the truth.
**Vectors**: membranes planted on real unstained tissue (see `planted`) with known DAB vectors, on tissue with
its own, a pale and a strong counterstain, and on a grey background. Hematoxylin's truth is the mean optical
density of the nuclei that were marked by eye, before anything was planted. **Zeros**: the unstained fields as
they are, with haze, and with colour that is off: how many cells read as stained, and as what class.
"""

from __future__ import annotations

import itertools
import sys
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray
from planted import RULES, UNSTAINED, Plant, PlantedField, marked_fields, measured, plant_field, read
from slides import MPP, RGB, SHARED, OneLevel

from her2core.guidelines.rules_ihc import load_rules
from her2core.kernels.stain import REFERENCE_DAB, REFERENCE_HEMATOXYLIN, Vector, angle_deg, unit
from her2core.params import ProfileParams, ScoreParams
from her2core.profile.build import build_profile
from her2core.profile.sampling import SampledSlide
from her2core.profile.tissue import find_background
from her2core.records import Box, PyramidRef, StainProfile
from her2core.scoring.false_stain import expected_false_stain
from her2core.scoring.ihc import count_classes, judge

NO_GLASS = 0.003  # largest share of a crop, at 8 µm/px, that may be within 4 levels of the glass
CROPS = 12  # most crops of one size from a core
MIRROR_PX = 320  # what the kernel looks at beyond a field
GREY = 0.75  # light that is left on the grey background


def profiled(rgb: RGB, background: Vector | None = None) -> StainProfile:
    """Frozen colour of a picture at `MPP`, its background told or not."""
    ref = PyramidRef("bench", "bench", (rgb.shape[:2],), 512, 4096, MPP, "none", 0, 0)
    stain = build_profile(OneLevel(rgb), ref, ProfileParams(background=background))[0].stain
    assert isinstance(stain, StainProfile)
    return stain


def core(name: str) -> RGB:
    return np.ascontiguousarray(cv2.imread(str(SHARED / "data" / "ihc_cores" / name))[..., ::-1])


def crops_without_glass(side: int) -> Iterator[tuple[str, RGB, Vector]]:
    """Crops of the cores without their glass, and the background that it gives."""
    for path in sorted((SHARED / "data" / "ihc_cores").glob("*.jpg")):
        rgb = core(path.name)
        ref = PyramidRef("bench", "bench", (rgb.shape[:2],), 512, 4096, MPP, "none", 0, 0)
        slide = SampledSlide(OneLevel(rgb), ref, ProfileParams())
        coarse, step = slide.coarse(), 2**slide.coarse_halvings
        found = find_background(coarse, ProfileParams())
        assert found is not None
        glassy = (np.abs(coarse.astype(float) - found.i0).max(axis=2) <= 4).astype(np.float64)
        n = side // step
        corners = itertools.product(*(range(0, edge - n, n // 2) for edge in coarse.shape[:2]))
        free = [(y, x) for y, x in corners if glassy[y : y + n, x : x + n].mean() <= NO_GLASS]
        order = np.random.default_rng(0).permutation(len(free))[:CROPS]
        for y, x in (free[k] for k in order):
            part = rgb[y * step : y * step + side, x * step : x * step + side]
            yield path.name[:6], np.ascontiguousarray(part), found.i0


def judge_background() -> None:
    print("background without glass, grey levels off the core's own glass (worst channel)")
    for side in (512, 1024, 2048):
        off, sources, over = [], defaultdict(int), []
        for _, rgb, truth in crops_without_glass(side):
            stain = profiled(rgb)
            error = np.array(stain.i0) - truth
            off.append(error[np.abs(error).argmax()])
            sources[stain.i0_source] += 1
            if stain.i0_brightest is not None:
                over.append(stain.i0_brightest >= max(truth))
        error = np.array(off)
        print(
            f"{side:5d} px: {len(error)} crops, mean {error.mean():+.1f}, range {error.min():+.1f} to "
            f"{error.max():+.1f}, within 4: {(np.abs(error) <= 4).mean():.2f}; {dict(sources)}; bounds hold "
            f"{np.mean(over) if over else float('nan'):.2f}"
        )


@dataclass(frozen=True)
class Ground:
    """What a planted field stands on: how strong its own counterstain is, and the light."""

    name: str
    counterstain: float = 1.0
    light: float = 1.0


GROUNDS = (Ground("own"), Ground("pale", 0.5), Ground("strong", 2.0), Ground("grey", 1.0, GREY))
PLANTS = (
    Plant("0", 0.0, 0.0, 0.64, (0.0, 0.0), haze_od=0.0, seed=21),
    Plant("0 haze", 0.0, 0.0, 0.64, (0.0, 0.0), haze_od=0.06, unstained_haze=1.0, seed=22),
    Plant("1+", 0.28, 0.25, 0.64, (0.05, 0.85), seed=11),
    Plant("2+", 0.48, 0.22, 1.0, (0.2, 1.0), haze_od=0.06, seed=12),
    Plant("3+", 0.95, 0.22, 2.14, (0.5, 1.0), haze_od=0.12, seed=13),
)


def turned(vector: Vector, in_plane: float, out_of_plane: float) -> Vector:
    """The DAB vector turned towards hematoxylin, and out of the plane of both, in degrees."""
    d, normal = unit(vector), unit(np.cross(REFERENCE_HEMATOXYLIN, vector))
    across = unit(np.cross(normal, d))
    new = unit(d + np.tan(np.radians(in_plane)) * across + np.tan(np.radians(out_of_plane)) * normal)
    return float(new[0]), float(new[1]), float(new[2])


DABS = {"reference": REFERENCE_DAB, "turned in": turned(REFERENCE_DAB, 6, 0),
        "turned out": turned(REFERENCE_DAB, -4, 5)}  # fmt: skip


def unstained_fields() -> Iterator[tuple[str, RGB, Box, NDArray[np.float64], Vector]]:
    """Marked fields of unstained tissue: name, pixels of the field alone, its box, marks, background."""
    for (name, y0, x0, side), marks in sorted(marked_fields().items()):
        if name.startswith(UNSTAINED) and side >= 512:
            rgb = core(name)
            i0 = profiled(rgb).i0
            part = np.ascontiguousarray(rgb[y0 : y0 + side, x0 : x0 + side])
            yield f"{name[:6]} {y0} {x0}", part, Box(y0, x0, y0 + side, x0 + side), marks, i0


def relit(rgb: RGB, i0: Vector, ground: Ground) -> tuple[RGB, Vector]:
    """The field with its counterstain and light changed, and its background then."""
    light = np.array(i0) * ground.light
    clear = (np.maximum(rgb, 1) / np.array(i0)) ** ground.counterstain * light
    red, green, blue = light.tolist()
    return np.clip(np.rint(clear), 0, 255).astype(np.uint8), (red, green, blue)


def nuclear_vector(rgb: RGB, box: Box, marks: NDArray[np.float64], i0: Vector) -> Vector:
    """Mean direction of optical density within 1.5 µm of the marks."""
    away = np.ones(rgb.shape[:2], np.uint8)
    y, x = np.rint(marks[:, :2] - (box.y0, box.x0)).astype(int).T
    away[y.clip(0, len(rgb) - 1), x.clip(0, rgb.shape[1] - 1)] = 0
    near = cv2.distanceTransform(away, cv2.DIST_L2, 5) * MPP <= 1.5
    red, green, blue = unit(np.log10(np.array(i0) / np.maximum(rgb[near], 1)).sum(axis=0)).tolist()
    return red, green, blue


def planted(ground: Ground, plant: Plant, dab: Vector) -> Iterator[tuple[PlantedField, Vector, Vector]]:
    """Fields on that ground, their background, and their hematoxylin."""
    for name, own, box, marks, i0 in unstained_fields():
        rgb, light = relit(own, i0, ground)
        h = nuclear_vector(rgb, box, marks, light)
        stain = StainProfile(light, h, dab, "planted", None, 0.0, 0.0, 0.05, 0.15)
        field = plant_field(rgb, (box.y0, box.x0), box, marks, stain, plant)
        yield replace(field, name=name), light, h


def judge_vectors() -> None:
    print("angle to the planted vectors, degrees: hematoxylin, DAB (R: the reference was taken); background")
    for ground, plant, (which, dab) in itertools.product(GROUNDS, PLANTS, DABS.items()):
        if which != "reference" and (ground.name != "own" or plant.od == 0):
            continue
        cells = []
        for field, light, h in planted(ground, plant, dab):
            stain = profiled(field.rgb, light)
            own = "" if stain.dab_angle_deg else "R"
            guess = profiled(field.rgb)
            off = np.array(guess.i0) - light
            cells.append(
                f"{angle_deg(stain.hematoxylin, h):5.1f} {angle_deg(stain.dab, dab):5.1f}{own:1s} "
                f"{off[np.abs(off).argmax()]:+5.0f}/{guess.i0_brightest or 0:3.0f}"
            )
        print(f"{ground.name:7s} {plant.name:7s} {which:11s} " + " | ".join(cells), flush=True)


def judge_zeros() -> None:
    """Cells that read as stained where nothing, or haze alone, was planted; fields are mirrored.

    In brackets is what the field's own unstained cells explain. Every cell counts, as in a drawn region.
    """
    rules, params = load_rules(RULES), ScoreParams()
    for ground, plant in itertools.product(GROUNDS, PLANTS[:2]):
        for stated in (True, False):
            shown = []
            for field, light, _ in planted(ground, plant, REFERENCE_DAB):
                field = mirrored(replace(field, stain=profiled(field.rgb, light if stated else None)))
                cells = measured(read(field)[0])
                counts, false = count_classes(cells, params, rules), expected_false_stain(cells, params)
                verdict = judge(counts, params, rules, (), false_stained=false)
                stained, expected = (100 * k / counts.n for k in (counts.stained, false))
                shown.append(f"{stained:4.1f} % ({expected:4.1f}) of {counts.n} {verdict.her2_class}")
            light_is = "given" if stated else "guessed"
            print(f"{ground.name:7s} {plant.name:7s} {light_is:7s}" + " | ".join(shown),
                  flush=True)  # fmt: skip


def mirrored(field: PlantedField, by: int = MIRROR_PX) -> PlantedField:
    """The field with its own mirror image around it: an edge of white would be glass beside its cells."""
    rgb = np.ascontiguousarray(np.pad(field.rgb, ((by, by), (by, by), (0, 0)), mode="reflect"))
    return replace(field, rgb=rgb, origin=(field.origin[0] - by, field.origin[1] - by))


def main() -> None:
    parts = {"background": judge_background, "vectors": judge_vectors, "zeros": judge_zeros}
    for name in sys.argv[1:] or parts:
        parts[name]()


if __name__ == "__main__":
    main()
