"""A laboratory's own tumour model, learned from regions that it drew and the tables of a finished run.

Features are those of the model that comes with the package; how much each weighs is learned anew. Every slide
is classified by a model that was learned without the slides of its patient, as a run would choose its cells:
probability or stained nest. The model that comes with the package is assessed on the same cells.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter, ValidationError

from her2core.analysis.results import RESEARCH_ONLY
from her2core.errors import ConfigError, ManifestError, StoreError
from her2core.intake.roi import DrawnTissue, read_tissue
from her2core.lake.finished import finished_rows, finished_table
from her2core.lake.schema import CELLS, SLIDES
from her2core.lake.tables import sql_text
from her2core.params import RoiParams, ScoreParams
from her2core.records import Assay, SlideRow, StainProfile
from her2core.scoring.tissue_features import TissueFeatures
from her2core.scoring.tumour import (
    FROM_CELLS,
    LEARNED,
    TumourModel,
    choose_tumour,
    load_model,
    parse_model,
    shipped_models,
)
from her2core.scoring.tumour_fit import LEAST_EXAMPLES, DrawnCells, fit_model
from her2core.storage.sources import read_small
from her2core.storage.store import Store, record_of
from her2core.text import counted, first_few, shown

MARGIN_UM: Final = 2.5
"""Cells nearer to a drawn line are left out: half of a nucleus. Ours, as for the shipped model."""
LEAST_CELLS: Final = 200
"""Fewest drawn cells of tumour, and of other tissue, in all slides. Ours: ten examples for each of eight
weights, and twice that, for neighbours are alike."""
LEAST_PATIENTS: Final = 2
"""Fewest patients with tumour, and with other tissue: each is assessed by a model of the others."""
MAX_MODEL_BYTES: Final = 2**20
"""Longest file that is taken for an older version of the model. Ours."""
MAX_SHOWN: Final = 400
"""Most characters of an address in a message. Ours."""
MAX_NAMED: Final = 20
"""Most problems that a message lists. Ours."""

Flags = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Confusion:
    """Drawn cells of a slide, or of all, by what was drawn and what was chosen."""

    slide_id: str
    tumour_chosen: int
    tumour_dropped: int
    other_chosen: int
    other_dropped: int

    @property
    def sensitivity(self) -> float | None:
        """Tumour that is chosen; None with too few cells."""
        return _share(self.tumour_chosen, self.tumour_dropped)

    @property
    def specificity(self) -> float | None:
        """Other tissue that is dropped; None with too few cells."""
        return _share(self.other_dropped, self.other_chosen)


@dataclass(frozen=True, slots=True)
class Assessment:
    """How a model chooses: its confusion matrix slide by slide, and the means over slides."""

    slides: tuple[Confusion, ...]

    @property
    def total(self) -> Confusion:
        """All slides together."""
        names = ("tumour_chosen", "tumour_dropped", "other_chosen", "other_dropped")
        return Confusion("all", *(sum(getattr(slide, name) for slide in self.slides) for name in names))

    @property
    def sensitivity(self) -> float:
        """Mean over the slides with enough tumour."""
        return _mean(slide.sensitivity for slide in self.slides)

    @property
    def specificity(self) -> float:
        """Mean over the slides with enough other tissue."""
        return _mean(slide.specificity for slide in self.slides)

    @property
    def balanced_accuracy(self) -> float:
        """Mean of both."""
        return (self.sensitivity + self.specificity) / 2

    def plain(self) -> dict[str, Any]:
        """For JSON."""
        means = {name: round(getattr(self, name), 4) for name in MEANS}
        return {**means, "all": asdict(self.total), "slides": [asdict(slide) for slide in self.slides]}


MEANS: Final = ("sensitivity", "specificity", "balanced_accuracy")


@dataclass(frozen=True, slots=True)
class LearnedModel:
    """A model, how it does on slides that it was not learned from, and how the shipped one does on them."""

    model: TumourModel
    cross_validated: Assessment
    shipped: Assessment
    shipped_name: str

    @property
    def json(self) -> str:
        """The file: the model, and how it was learned."""
        learned = {
            "cross_validation": self.cross_validated.plain(),
            "shipped_model": {"name": self.shipped_name, **self.shipped.plain()},
            "note": RESEARCH_ONLY,
        }
        return json.dumps(asdict(self.model) | {LEARNED: learned}, indent=1) + "\n"


@dataclass(frozen=True, slots=True)
class _Slide:
    """All cells of a slide, and which of them are drawn as what."""

    slide_id: str
    patient: str
    cells: Mapping[str, NDArray[Any]]
    stained: Flags
    completeness: NDArray[np.float32]
    mpp: float
    stain: StainProfile
    tumour: Flags
    other: Flags
    digest: str

    def examples(self, features: tuple[str, ...]) -> DrawnCells:
        drawn = self.tumour | self.other
        table = TissueFeatures.of(self.cells, self.mpp, self.stain, self.stained).table(features)
        return DrawnCells(self.slide_id, table[drawn], self.tumour[drawn])

    def confusion(self, model: TumourModel) -> Confusion:
        choice = choose_tumour(self.cells, self.stained, self.completeness, self.mpp, self.stain, model)
        kinds = (self.tumour & choice.chosen, self.tumour & ~choice.chosen,
                 self.other & choice.chosen, self.other & ~choice.chosen)  # fmt: skip
        return Confusion(self.slide_id, *(int(np.count_nonzero(kind)) for kind in kinds))


def learn_tumour(
    rows: Iterable[SlideRow],
    store: Store,
    name: str,
    roi: RoiParams,
    *,
    before: TumourModel | None = None,
    endpoint_url: str | None = None,
) -> LearnedModel:
    """Learn a model from the IHC slides of a manifest that have a region of interest.

    Parameters
    ----------
    store
        Output of a finished run in which these slides were measured; no slide is opened.
    roi
        Which classes are tumour, and which are other tissue.
    before
        Model of the same name that is replaced: of other inputs this is the next version.

    Raises
    ------
    ManifestError
        If regions, slides or cells do not suffice.
    ConfigError
        If the name is that of a model that comes with the package.
    SlideError
        ``ROI_INVALID`` if a region cannot be used.
    StoreError
        If the output lacks a table or record.
    """
    if name in shipped_models():
        raise ConfigError(f"tumour model {name}: a model of this name comes with the package; choose another")
    slides = _read(rows, store, roi, endpoint_url)
    _check(slides)
    shipped = load_model(ScoreParams().tumour_model)
    examples = {slide.slide_id: slide.examples(shipped.features) for slide in slides}
    digest = hashlib.sha256("\n".join([*shipped.features, *(s.digest for s in slides)]).encode()).hexdigest()
    n_tumour, n_other = (sum(int(flags.sum()) for flags in kind) for kind in _kinds(slides))
    note = (
        f"{len(slides)} slides drawn by a laboratory: {n_tumour} cells of tumour, {n_other} of other tissue"
    )
    version = 1 if before is None else before.version + (before.inputs != digest)

    def fitted(chosen: Sequence[_Slide]) -> TumourModel:
        drawn = [examples[slide.slide_id] for slide in chosen]
        return replace(fit_model(drawn, shipped.features, name, version, note), inputs=digest)

    left_out = [
        slide.confusion(fitted([other for other in slides if other.patient != slide.patient]))
        for slide in slides
    ]
    found = LearnedModel(
        fitted(slides),
        Assessment(tuple(left_out)),
        Assessment(tuple(slide.confusion(shipped) for slide in slides)),
        shipped.name,
    )
    parse_model(found.json, name, expected=name)
    return found


def model_at(uri: str, name: str, endpoint_url: str | None) -> TumourModel | None:
    """The model of a name that lies at an address; None if nothing lies there.

    Raises
    ------
    ConfigError
        If something else does.
    """
    try:
        data = read_small(uri, endpoint_url, MAX_MODEL_BYTES)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ConfigError(f"--out {uri}: cannot be read: {error.strerror or error}") from error
    try:
        return parse_model(data.decode("utf-8-sig"), shown(uri, MAX_SHOWN), expected=name)
    except (ConfigError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"--out {uri}: holds something else than tumour model {name}, and is not replaced "
            f"({error}). Name another file."
        ) from None


def _read(rows: Iterable[SlideRow], store: Store, roi: RoiParams, endpoint_url: str | None) -> list[_Slide]:
    """Slides with a region, in the order of their ids."""
    drawn = [r for r in rows if r.roi_uri is not None and r.assay == Assay.IHC and not r.exclude]
    columns = ("slide_id", "mpp", "height_px0", "width_px0", "score_key")
    known = {row["slide_id"]: row for row in finished_rows(store, SLIDES, columns)}
    problems = [
        f"{row.slide_id}: {'not in this run' if row.slide_id not in known else 'not measured in this run'}"
        for row in drawn
        if not (known.get(row.slide_id) or {}).get("score_key")
    ]
    if problems:
        raise ManifestError(
            f"{store.uri()} has no cells of slides that have a roi_uri: "
            f"{first_few(problems, MAX_NAMED, '; ')}. Run them first (her2 run), or empty their roi_uri."
        )
    ordered = sorted(drawn, key=lambda row: row.slide_id)
    return [_slide(row, known[row.slide_id], store, roi, endpoint_url) for row in ordered]


def _slide(
    row: SlideRow, found: Mapping[str, Any], store: Store, roi: RoiParams, endpoint_url: str | None
) -> _Slide:
    mpp = float(found["mpp"])
    size = (found["height_px0"], found["width_px0"])
    tissue = read_tissue(str(row.roi_uri), *size, mpp, roi, margin_um=MARGIN_UM, endpoint_url=endpoint_url)
    where = f"slide_id = {sql_text(row.slide_id)}"
    table = finished_table(store, CELLS, ("cell_id", *FROM_CELLS, "completeness", "cell_class"), where)
    old = [name for name in (*FROM_CELLS, "completeness") if table[name].null_count]
    if old:
        raise StoreError(
            f"{store.uri('tables/cells')}: slide {row.slide_id} has no {', '.join(old)}: measured by an "
            "older version. Run again to measure it."
        )
    cells = {name: table[name].to_numpy() for name in FROM_CELLS}
    classes = np.array([kind or "" for kind in table["cell_class"].to_pylist()], "U2")
    stained = ~np.isin(classes, ("", "0"))
    stain = _stain(store, found["score_key"])
    y, x = cells["y_px0"], cells["x_px0"]
    return _Slide(
        row.slide_id,
        row.patient_id or row.case_id,
        cells,
        stained,
        table["completeness"].to_numpy(),
        mpp,
        stain,
        tissue.tumour.contains(y, x),
        tissue.other.contains(y, x),
        _digest(row.slide_id, tissue, {**cells, "stained": stained}, mpp, stain, roi),
    )


def _stain(store: Store, key: str) -> StainProfile:
    """The slide's colour, from its published record."""
    path = record_of("slide", key)
    try:
        return _STAIN.validate_python(json.loads(store.read_bytes(path))["outcome"]["profile"]["stain"])
    except FileNotFoundError:
        raise StoreError(f"{store.uri(path)}: the slide's record is gone; run again to make it") from None
    except (KeyError, TypeError, ValidationError, ValueError):
        raise StoreError(f"{store.uri(path)}: the record of another version; run again to make it") from None


def _digest(
    slide_id: str,
    tissue: DrawnTissue,
    cells: Mapping[str, NDArray[Any]],
    mpp: float,
    stain: StainProfile,
    roi: RoiParams,
) -> str:
    """Of all that a slide gives: regions and the classes that count, and the columns of its cells."""
    given = (slide_id, tissue.digest, mpp, stain.hematoxylin_low_od, stain.hematoxylin_high_od, str(roi))
    digest = hashlib.sha256(repr(given).encode())
    for values in cells.values():
        digest.update(np.ascontiguousarray(values).tobytes())
    return digest.hexdigest()


def _kinds(slides: Sequence[_Slide]) -> tuple[list[Flags], list[Flags]]:
    return [slide.tumour for slide in slides], [slide.other for slide in slides]


def _check(slides: Sequence[_Slide]) -> None:
    """Whether there is enough to learn from, and to assess every slide by a model of the others."""
    if len(slides) < LEAST_PATIENTS:
        raise ManifestError(
            f"{counted(len(slides), 'IHC slide')} with a roi_uri in the manifest; expected "
            f"{LEAST_PATIENTS} or more. Name a GeoJSON in the column roi_uri, with annotations of tumour "
            "(Tumor) and of other tissue (Stroma, Immune cells, Normal, ...)."
        )
    for kind, what in zip(_kinds(slides), ("tumour (Tumor)", "other tissue (Stroma, ...)"), strict=True):
        counts = {slide.slide_id: int(flags.sum()) for slide, flags in zip(slides, kind, strict=True)}
        listed = ", ".join(f"{name} {n}" for name, n in list(counts.items())[:MAX_NAMED])
        if sum(counts.values()) < LEAST_CELLS:
            raise ManifestError(
                f"in regions of {what}: {counted(sum(counts.values()), 'cell')} ({listed}); expected "
                f"{LEAST_CELLS} or more. Draw more of it."
            )
        patients = {slide.patient for slide in slides if counts[slide.slide_id] >= LEAST_EXAMPLES}
        if len(patients) < LEAST_PATIENTS:
            raise ManifestError(
                f"with {LEAST_EXAMPLES} or more cells in regions of {what}: "
                f"{counted(len(patients), 'patient')} ({listed}); expected {LEAST_PATIENTS} or more: "
                "each is assessed by a model of the others."
            )


def _share(part: int, rest: int) -> float | None:
    return part / (part + rest) if part + rest >= LEAST_EXAMPLES else None


def _mean(values: Iterable[float | None]) -> float:
    return float(np.mean([value for value in values if value is not None]))


_STAIN: TypeAdapter[StainProfile] = TypeAdapter(StainProfile)
