"""Hold what the IHC kernel traces against contours drawn by eye on real tissue.

    python benchmarks/judge_contours.py [--fields] [--all] [--nuclei] [--pictures FOLDER]

`tests/data/contours_by_eye.csv` holds the cells of small complete windows; the images have to be at hand. For
every image, every kind of image and all of them are printed:

    found     share of the drawn cells of the windows that have a cell of the kernel's within 3 um of their
              nucleus, one to one; `more` are the kernel's cells in the windows that lie on no nucleus
    off       distance of the traced contour from the drawn one, um: median over all rays, the median with its
              sign (inside is negative), and the share within 1.5 um
    area      share of cells whose traced area is 0.8 to 1.25 times the drawn, and the median of that ratio
    agree     share of the sixteenths of all cells that are stained for both or for neither, faint counting;
              kappa of the same; and kappa where faint counts as unstained. Where nearly all are stained
              kappa says nothing
    complete  error of the stained share of the contour, faint counting: mean absolute, and mean with its sign

Distances and what follows are of certain cells that were found; ``--all`` takes the uncertain ones in. The
last line is the eye against itself: some of the cells were drawn twice (`contours_by_eye_second.csv`).

A second table says what parts arcs that the kernel and the eye call alike from those that they do not:

    stained   share of the arcs that were drawn as stained, and that are read so
    near      kappa of the arcs whose traced contour lies within 0.25 um of the drawn
    far       share of all arcs that lie 1 um off or more, and of those that are not alike
    auc       area under the curve of an arc's DAB OD, without a cut: of the traced contour, and of the drawn
              line itself, read by the same means
    best      kappa at the one cut in OD that is best on these very arcs, of both: a ceiling
    rho       of the grade and the OD, of both (Spearman)

``--nuclei`` puts the nuclei drawn by eye in the place of those that the kernel finds, so that what is left is
owed to the contours.
"""

from __future__ import annotations

import argparse
import csv
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import map_coordinates
from scipy.optimize import linear_sum_assignment
from scipy.stats import mannwhitneyu, spearmanr
from slides import RGB, SHARED, OneLevel

from her2core.analysis.kappa import UNWEIGHTED, cohens_kappa
from her2core.kernels.ihc.kernel import IHCKernel
from her2core.kernels.nuclei import Given
from her2core.kernels.polar import N_RAYS
from her2core.kernels.stain import unmix
from her2core.params import IHCParams, ProfileParams
from her2core.profile.build import build_profile
from her2core.records import Box, PyramidRef, StainProfile

DATA = Path(__file__).resolve().parents[1] / "tests" / "data"
FOLDERS = {"ihc_cores": "cores", "ihc_tiles": "tiles", "ihc_fields": "camera fields"}
FOUND_UM = 3.0
NEAR_UM = 1.5  # a contour so near is the drawn one
LIKE = (0.8, 1.25)  # so many times the drawn area is alike
AROUND_UM = 15.0  # beyond a window: cells whose centre the eye and the kernel see on either side of its edge
N_ARCS = 16
FAINT, MODERATE = 1, 2
ON_UM, FAR_UM = 0.25, 1.0  # an arc so near is on the drawn one; so far off it may lie on another membrane
READ_UM = np.arange(-6, 7) / 8  # an arc's OD is the greatest so far across it, as the kernel reads
CUTS = 100  # of OD that are tried

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Traced:
    """A cell of the kernel's; all places ``(y, x)`` in pixels of the image."""

    centre: Array  # centroid of the nucleus
    nucleus: Array  # (ray, 2)
    contour: Array  # (ray, 2)
    stained: NDArray[np.bool_]  # (ray,)
    valid: NDArray[np.bool_]  # (ray,)


@dataclass(frozen=True, slots=True)
class Drawn:
    """A nucleus that was drawn, with its cell where that could be outlined."""

    name: str
    centre: Array
    nucleus: Array
    contour: Array  # (0, 2): none
    grades: NDArray[np.int64]
    certain: bool


@dataclass(frozen=True, slots=True)
class Field:
    """A window, whole: every nucleus in it is drawn."""

    image: str
    name: str
    mpp: float
    box: Box
    drawn: list[Drawn]


@dataclass(frozen=True, slots=True)
class Arc:
    """A sixteenth of a cell, drawn and traced."""

    grade: int
    stained: bool  # traced as stained
    off: float  # um, mean
    od: float  # DAB along the traced contour; drawn again: the second grade
    drawn_od: float  # DAB along the drawn line


@dataclass
class Tally:
    """What was found, and how far off it is: lists of rays, cells or arcs."""

    drawn: int
    found: int
    more: int
    off: list[float]  # um, inside negative
    ratio: list[float]
    arcs: list[Arc]
    share: list[tuple[float, float]]  # stained share of the contour: drawn, traced

    @classmethod
    def empty(cls) -> Tally:
        return cls(0, 0, 0, [], [], [], [])

    def add(self, other: Tally) -> None:
        self.drawn, self.found, self.more = (
            self.drawn + other.drawn,
            self.found + other.found,
            self.more + other.more,
        )
        for name in ("off", "ratio", "arcs", "share"):
            getattr(self, name).extend(getattr(other, name))

    def line(self, title: str) -> str:
        found = f"{title:24s} {self.drawn:5d} {self.found / max(self.drawn, 1):6.2f} {self.more:5d}"
        if not self.ratio:
            return found
        off, ratio, share = np.array(self.off), np.array(self.ratio), np.array(self.share)
        grade = np.array([arc.grade for arc in self.arcs])
        drawn, traced = grade >= FAINT, np.array([arc.stained for arc in self.arcs])
        error = share[:, 1] - share[:, 0]
        return (
            f"{found} {np.median(abs(off)):7.2f} {np.median(off):+6.2f} {(abs(off) <= NEAR_UM).mean():6.2f}"
            f" {((ratio >= LIKE[0]) & (ratio <= LIKE[1])).mean():6.2f} {np.median(ratio):6.2f}"
            f" {(drawn == traced).mean():6.2f} {kappa(drawn, traced):6.2f}"
            f" {kappa(grade >= MODERATE, traced):6.2f} {abs(error).mean():7.2f} {error.mean():+6.2f}"
        )

    def arc_line(self, title: str) -> str:
        """What parts arcs that are alike from those that are not."""
        grade = np.array([arc.grade for arc in self.arcs])
        drawn, traced = grade >= FAINT, np.array([arc.stained for arc in self.arcs])
        off, ods = (
            np.array([arc.off for arc in self.arcs]),
            np.array([(arc.od, arc.drawn_od) for arc in self.arcs]).T,
        )
        on, far, unlike = off <= ON_UM, off >= FAR_UM, drawn != traced
        both = [f(od, drawn) for f in (area_under_curve, best_kappa) for od in ods]
        rho = [float(spearmanr(od, grade).statistic) if np.ptp(od) > 0 else np.nan for od in ods]
        return (
            f"{title:24s} {len(grade):5d} {drawn.mean():7.2f} {traced.mean():5.2f} {(~unlike).mean():6.2f}"
            f" {kappa(drawn, traced):6.2f} {kappa(drawn[on], traced[on]):6.2f} {far.mean():6.2f}"
            f" {far[unlike].mean() if unlike.any() else np.nan:6.2f}"
            + "".join(f" {value:6.2f}" for value in (*both, *rho))
        )


ARC_HEAD = (
    f"{'':24s} {'arcs':>5s} {'stained':>7s} {'read':>5s} {'agree':>6s} {'kappa':>6s} {'near':>6s} {'far':>6s}"
    f" {'unlike':>6s} {'auc':>6s} {'drawn':>6s} {'best':>6s} {'drawn':>6s} {'rho':>6s} {'drawn':>6s}"
)
AGAIN = "drawn again by eye"
HEAD = (
    f"{'':24s} {'cells':>5s} {'found':>6s} {'more':>5s} {'off, um':>7s} {'signed':>6s} {'within':>6s}"
    f" {'area':>6s} {'ratio':>6s} {'agree':>6s} {'kappa':>6s} {'kappa':>6s} {'complete':>8s} {'signed':>6s}"
)


def contours_of(
    image: RGB, mpp: float, stain: StainProfile, box: Box, given: Given | None = None
) -> list[Traced]:
    """Cells of an image whose centroid lies in ``box``, as the kernel outlines them."""
    kernel = IHCKernel(IHCParams(), stain, mpp)
    need = box.grown(kernel.halo_px)
    padded = np.full((need.height, need.width, 3), 255, np.uint8)
    part = image[max(need.y0, 0) : need.y1, max(need.x0, 0) : need.x1]
    padded[max(-need.y0, 0) :, max(-need.x0, 0) :][: part.shape[0], : part.shape[1]] = part
    cells, lines = kernel.outline(padded, (need.y0, need.x0), box, given)
    turn = 2 * np.pi * np.arange(N_RAYS) / N_RAYS
    towards = np.stack([np.sin(turn), np.cos(turn)], axis=1) / mpp
    found = []
    for i in range(len(cells)):
        seed = np.array([lines.y_px[i], lines.x_px[i]])
        found.append(
            Traced(
                np.array([cells["y_px0"][i], cells["x_px0"][i]]),
                seed + towards * lines.nucleus_um[i][:, None],
                seed + towards * lines.contour_um[i][:, None],
                (lines.dab_od[i] > 0) & lines.evaluable[i],
                lines.evaluable[i],
            )
        )
    return found


def drawn_fields() -> list[Field]:
    """All windows with what was drawn in and around them."""
    fields: dict[str, Field] = {}
    with (DATA / "contours_by_eye.csv").open() as rows:
        for row in csv.DictReader(rows):
            y0, x0, height, width = (int(row[f"window_{k}"]) for k in ("y0", "x0", "height", "width"))
            box = Box(y0, x0, y0 + height, x0 + width)
            one = Field(row["image"], row["field"], float(row["mpp"]), box, [])
            fields.setdefault(row["field"], one).drawn.append(
                Drawn(
                    row["cell"],
                    np.array([float(row["y_px0"]), float(row["x_px0"])]),
                    polygon(row["nucleus"]),
                    polygon(row["contour"]),
                    np.array([int(grade) for grade in row["arcs"]], np.int64),
                    row["certain"] == "1",
                )
            )
    return list(fields.values())


def given_nuclei(field: Field, found: list[Traced]) -> Given:
    """The nuclei drawn in a field, and around them those that were ``found`` where none is drawn."""
    nuclei = [(one.centre, one.nucleus) for one in found if not on_a_nucleus(one, field)]
    nuclei = sorted(nuclei + [(d.centre, d.nucleus) for d in field.drawn], key=lambda one: tuple(one[0]))
    ray = 2 * np.pi * np.arange(N_RAYS) / N_RAYS
    radius = []
    for centre, outline in nuclei:
        way = dense(outline) - centre
        turn = np.arctan2(way[:, 0], way[:, 1])
        order = np.argsort(turn)
        radius.append(np.interp(ray, turn[order], np.hypot(*way[order].T), period=2 * np.pi))
    y, x = np.array([centre for centre, _ in nuclei]).T
    return Given(y, x, (field.mpp * np.array(radius)).astype(np.float32))


def drawn_again(fields: list[Field]) -> dict[str, Tally]:
    """Cells that were drawn twice, the second time against the first: of every window, and last of all."""
    tallies: dict[str, Tally] = defaultdict(Tally.empty)
    first = {(field.name, d.name): (d, field.mpp) for field in fields for d in field.drawn}
    with (DATA / "contours_by_eye_second.csv").open() as rows:
        for row in csv.DictReader(rows):
            drawn, mpp = first[row["field"], row["cell"]]
            contour, grades = dense(polygon(row["contour"])), np.array([int(grade) for grade in row["arcs"]])
            stained = grades[arc_of(contour, drawn.centre)] >= FAINT
            again = Traced(drawn.centre, drawn.nucleus, contour, stained, np.ones(len(contour), np.bool_))
            one, ods = Tally.empty(), [grades.astype(float), np.full(N_ARCS, np.nan)]
            compare(drawn, again, mpp, one, ods)
            one.drawn = one.found = 1
            tallies[f"  again: {row['field']}"].add(one)
    whole = Tally.empty()
    for tally in tallies.values():
        whole.add(tally)
    return {**tallies, AGAIN: whole}


def polygon(text: str) -> Array:
    points = [[float(v) for v in point.split()] for point in text.split(";") if point]
    return np.array(points).reshape(-1, 2)


def judge(field: Field, traced: list[Traced], uncertain: bool, dab: NDArray[np.float32]) -> Tally:
    """Compare one window, and the drawn cells around it."""
    tally = Tally.empty()
    within = field.box.grown(round(AROUND_UM / field.mpp))
    traced = [one for one in traced if inside(one.centre, within)]
    for drawn, found in pairs(field, traced):
        whole = len(drawn.contour) > 0 and (drawn.certain or uncertain)
        if whole and inside(drawn.centre, field.box):
            tally.drawn += 1
            tally.found += found is not None
        if whole and found is not None:
            ods = [od_by_arc(dab, one.contour, drawn.centre, field.mpp) for one in (found, drawn)]
            compare(drawn, found, field.mpp, tally, ods)
    taken = {id(found) for _, found in pairs(field, traced)}
    tally.more = sum(
        id(one) not in taken and inside(one.centre, field.box) and not on_a_nucleus(one, field)
        for one in traced
    )
    return tally


def inside(place: Array, box: Box) -> bool:
    return bool(box.y0 - 0.5 <= place[0] < box.y1 - 0.5 and box.x0 - 0.5 <= place[1] < box.x1 - 0.5)


def on_a_nucleus(one: Traced, field: Field) -> bool:
    """Whether it lies within 3 um of any nucleus that was drawn: half of one is no other cell."""
    return any(np.hypot(*(one.centre - d.centre)) * field.mpp <= FOUND_UM for d in field.drawn)


def pairs(field: Field, traced: list[Traced]) -> Iterator[tuple[Drawn, Traced | None]]:
    """Every nucleus drawn, and the cell of the kernel's that is its own."""
    matched: dict[int, Traced] = {}
    if traced:
        a, b = np.array([d.centre for d in field.drawn]), np.array([t.centre for t in traced])
        apart = np.hypot(*(a[:, None] - b[None]).transpose(2, 0, 1)) * field.mpp
        rows, columns = linear_sum_assignment(np.where(apart <= FOUND_UM, apart, 1e6))
        matched = {int(i): traced[j] for i, j in zip(rows, columns, strict=True) if apart[i, j] <= FOUND_UM}
    for i, drawn in enumerate(field.drawn):
        yield drawn, matched.get(i)


def compare(drawn: Drawn, found: Traced, mpp: float, tally: Tally, ods: list[Array]) -> None:
    corners = np.ascontiguousarray(drawn.contour, np.float32)
    depth = [cv2.pointPolygonTest(corners, (float(y), float(x)), True) for y, x in found.contour]
    off = -mpp * np.array(depth)
    tally.off.extend(off)
    own = np.ascontiguousarray(found.contour, np.float32)
    tally.ratio.append(cv2.contourArea(own) / cv2.contourArea(corners))
    stained, length = by_arc(found.contour, drawn.centre, found.stained)
    beside, weight = by_arc(found.contour, drawn.centre, np.abs(off))
    columns = (drawn.grades, stained > 0.5 * length, beside / np.maximum(weight, 1e-9), *ods)
    tally.arcs.extend(Arc(*row) for row in zip(*(column.tolist() for column in columns), strict=True))
    fine, grades = dense(drawn.contour), drawn.grades >= FAINT
    faint, all_round = by_arc(fine, drawn.centre, grades[arc_of(fine, drawn.centre)])
    weight = lengths(found.contour)
    judged = max(weight[found.valid].sum(), 1e-9)
    tally.share.append((faint.sum() / all_round.sum(), weight[found.stained].sum() / judged))


def od_by_arc(dab: NDArray[np.float32], contour: Array, centre: Array, mpp: float) -> Array:
    """Mean DAB OD of every sixteenth of a contour: at each of its points the greatest across it."""
    fine = dense(contour)
    out = fine - centre
    out /= np.maximum(np.hypot(*out.T), 1e-9)[:, None]
    places = fine[:, None] + out[:, None] * (READ_UM / mpp)[:, None]
    od = map_coordinates(dab, places.transpose(2, 0, 1), order=1, mode="nearest").max(axis=1)
    arc, weight = arc_of(fine, centre), lengths(fine)
    return np.bincount(arc, weight * od, N_ARCS) / np.maximum(np.bincount(arc, weight, N_ARCS), 1e-9)


def arc_of(points: Array, centre: Array) -> NDArray[np.int64]:
    """Sixteenth in which every point is seen from ``centre``, from the x axis towards the y axis."""
    turn = np.arctan2(points[:, 0] - centre[0], points[:, 1] - centre[1]) / (2 * np.pi) % 1
    return np.minimum((turn * N_ARCS).astype(np.int64), N_ARCS - 1)


def lengths(points: Array) -> Array:
    """Length of a closed contour that every point of it stands for."""
    step = np.hypot(*(np.roll(points, -1, axis=0) - points).T)
    return (step + np.roll(step, 1)) / 2


def dense(points: Array, parts: int = 8) -> Array:
    """A closed contour with ``parts`` times as many points."""
    t = np.arange(parts)[None, :, None] / parts
    return (points[:, None] * (1 - t) + np.roll(points, -1, axis=0)[:, None] * t).reshape(-1, 2)


def by_arc(points: Array, centre: Array, value: Array | NDArray[np.bool_]) -> tuple[Array, Array]:
    """Length of a contour in every sixteenth, first times the value of its points: 1 for the stained."""
    fine = dense(points)
    of = np.repeat(np.arange(len(points)), 8)
    nearest = (of + (np.arange(len(fine)) % 8 >= 4)) % len(points)
    weight, arc = lengths(fine), arc_of(fine, centre)
    total = np.bincount(arc, weight, N_ARCS)
    return np.bincount(arc, weight * value[nearest], N_ARCS), total


def kappa(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> float:
    """Cohen's kappa of yes and no; not a number where both say always the same."""
    return cohens_kappa(a.astype(np.int64), b.astype(np.int64), 2, UNWEIGHTED)


def area_under_curve(value: Array, yes: NDArray[np.bool_]) -> float:
    """Chance that a ``yes`` has the greater value than a no; not a number where there is but one of them."""
    if yes.all() or not yes.any() or np.isnan(value).any():
        return np.nan
    pairs = yes.sum() * (~yes).sum()
    return float(mannwhitneyu(value[yes], value[~yes]).statistic / pairs)


def best_kappa(value: Array, yes: NDArray[np.bool_]) -> float:
    """Kappa at the cut in ``value`` where it is greatest; not a number where all are yes or no."""
    if yes.all() or not yes.any() or np.isnan(value).any():
        return np.nan
    cuts = np.quantile(value, np.arange(1, CUTS) / CUTS)
    return max(kappa(value >= cut, yes) for cut in cuts)


def profile_of(rgb: RGB, mpp: float) -> StainProfile:
    """Frozen colour of an image."""
    ref = PyramidRef("judge", "judge", (rgb.shape[:2],), 512, 4096, mpp, "none", 0, 0)
    return build_profile(OneLevel(rgb), ref, ProfileParams())[0].stain


def draw(field: Field, image: RGB, traced: Iterable[Traced], path: Path, zoom: int = 8) -> None:
    """The window with its surroundings: drawn green, traced red where stained and blue where not."""
    box = field.box.grown(round(5.0 / field.mpp))
    box = Box(max(box.y0, 0), max(box.x0, 0), min(box.y1, image.shape[0]), min(box.x1, image.shape[1]))
    crop = image[box.y0 : box.y1, box.x0 : box.x1, ::-1]
    picture = cv2.resize(crop, None, fx=zoom, fy=zoom, interpolation=cv2.INTER_CUBIC)

    def line(points: Array, colour: tuple[int, int, int], closed: bool = True) -> None:
        at = np.rint(((points - (box.y0, box.x0)) + 0.5)[:, ::-1] * zoom).astype(np.int32)
        cv2.polylines(picture, [at], closed, colour, 1, cv2.LINE_AA)

    for drawn in field.drawn:
        for points in (drawn.nucleus, drawn.contour):
            if len(points):
                line(points, (0, 200, 0))
    for one in traced:
        line(one.nucleus, (200, 120, 0))
        for a in range(len(one.contour)):
            pair = one.contour[[a, (a + 1) % len(one.contour)]]
            line(pair, (0, 0, 255) if one.stained[a] else (255, 0, 0), closed=False)
    cv2.imwrite(str(path / f"{field.name}.png"), picture)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--fields", action="store_true", help="a line for every window too")
    parser.add_argument("--all", action="store_true", help="count uncertain cells too")
    parser.add_argument("--nuclei", action="store_true", help="outline cells around the nuclei drawn")
    parser.add_argument("--pictures", type=Path, metavar="FOLDER", help="draw both contours over windows")
    options = parser.parse_args()
    if options.pictures:
        options.pictures.mkdir(parents=True, exist_ok=True)
    where = {path.name: path for path in (SHARED / "data").glob("ihc_*/*")}
    totals: dict[str, Tally] = defaultdict(Tally.empty)
    fields = [field for field in drawn_fields() if field.image in where]
    if not fields:
        raise SystemExit(f"none of the images is in {SHARED / 'data'}: nothing to judge on")
    print(HEAD)
    for image in dict.fromkeys(field.image for field in fields):
        rgb = np.ascontiguousarray(cv2.imread(str(where[image]))[..., ::-1])
        own = [field for field in fields if field.image == image]
        stain, kind = profile_of(rgb, own[0].mpp), FOLDERS[where[image].parent.name]
        dab = unmix(rgb, stain)[..., 1]
        for field in own:
            around = field.box.grown(round(AROUND_UM / field.mpp))
            given = None
            if options.nuclei:
                wider = around.grown(round(2 * AROUND_UM / field.mpp))  # a nucleus bounds cells as far off
                given = given_nuclei(field, contours_of(rgb, field.mpp, stain, wider))
            traced = contours_of(rgb, field.mpp, stain, around, given)
            tally = judge(field, traced, options.all, dab)
            for name in (image[:24], kind, "all"):
                totals[name].add(tally)
            if options.fields:
                print(tally.line(f"  {field.name}"))
            if options.pictures:
                draw(field, rgb, traced, options.pictures)
        print(totals[image[:24]].line(image[:24]))
    print()
    for name in (*FOLDERS.values(), "all"):
        if name in totals:
            print(totals[name].line(name))
    again = drawn_again(drawn_fields())
    print(f"\n{again[AGAIN].line(AGAIN)}\n\n{ARC_HEAD}")
    kinds = (*FOLDERS.values(), "all")
    images = [name for name in totals if name not in kinds]
    for name in (*images, *(kind for kind in kinds if kind in totals)):
        print(totals[name].arc_line(name))
    for name, tally in again.items():
        print(tally.arc_line(name))


if __name__ == "__main__":
    main()
