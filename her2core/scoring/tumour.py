"""Which cells are tumour cells, computed from the table once all rows of a slide exist.

Two things make a tumour cell of it, and neither alone is enough:

probability    a logistic model over features of tissue (`tissue_features`), fitted on drawn tissue; half of
               it is the mean over the next cells: tissue does not change from cell to cell
nest           it is stained, and so are most of the cells around it: stained nests are tumour

Hematoxylin is hard to read under strong DAB, which is where the nest decides; unstained tumour is found by
the model alone. The models are data: a JSON file each, in this folder's ``tumour_models`` or learned by a
laboratory (``her2 learn-tumour``).
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import lru_cache
from importlib import resources
from importlib.resources.abc import Traversable
from typing import Any, Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from her2core.errors import ConfigError
from her2core.records import StainProfile
from her2core.scoring.tissue_features import MEASURED, TissueFeatures
from her2core.text import cut, shown

FROM_CELLS: Final = ("y_px0", "x_px0", *MEASURED)
"""Columns of the kernel's rows that a model reads."""
LIKELY: Final = 0.5
"""Probability from which a cell looks like a tumour cell."""
STEPS: Final = 4096
"""Steps of a probability: what processors make of the last bits of ``exp`` is lost in them."""
NEST_UM: Final = 25.0
"""Distance over which a nest is measured: a cell and its next neighbours. Ours."""
NEST_SHARE: Final = 0.7
"""Least share of stained cells there. Ours: of the stained cells of drawn nests one in twenty is lost."""
NEST_CONTOUR: Final = 0.5
"""Least completeness of the cell itself: cells of thin septa show the membranes of one neighbour. Ours: of
those between the glands of a 3+ core 0.6 are dropped, and 0.35 without."""
AROUND_UM: Final = 25.0
"""Distance over which half of the probability is averaged. Ours: 20 to 30 µm do as well."""
LEAST_IN_NEST: Final = 4
"""Least stained cells there: fewer are no nest. Ours."""
COLUMNS: Final = ("tumour_probability", "stained_nest", "tumour_rule")
"""Columns that are computed here."""
COMPACT_UM: Final = 50.0
"""Distance over which tumour is compact: a gland or a nest."""
COMPACT: Final = 0.75
"""Mean probability there from which tumour is compact. Ours."""
LEAST_COMPACT: Final = 0.02
"""Least share of a slide's cells in compact tumour. Ours: the seven cores, each left out, have 0.03 to 0.65,
unstained phantoms 0.26 and more."""
LEAST_COMPACT_CELLS: Final = 90
"""... and least number. Ours: half of what the least phantom has (184); the cores, each left out, have 156 or
more. The features are held against the slide's own cells, of which some look more like tumour than others on
any tissue: five tiles of fat, scar and a benign lobule, known when it was chosen, have 15 to 58."""
LEAST_NESTS: Final = 0.1
"""... or in stained nests. Ours."""
LEARNED: Final = "learned"
"""Key of a model's JSON that records how it was learned, and decides nothing."""
MAX_WORDS: Final = 256
"""Longest text in a model. Ours."""
SHOWN_ERROR: Final = 400
"""Most characters of what is wrong with one. Ours."""


@dataclass(frozen=True, slots=True)
class TumourModel:
    """A logistic model: probability = 1 / (1 + exp(-(bias + sum of weight x (feature - middle) / spread))).

    Attributes
    ----------
    features
        Names of `TissueFeatures`.
    fitted_on
        What it was fitted on, in words.
    inputs
        Digest (SHA-256) of what it was learned from; empty for those that come with the package.
    """

    name: str
    version: int
    fitted_on: str
    features: tuple[str, ...]
    middle: tuple[float, ...]
    spread: tuple[float, ...]
    weights: tuple[float, ...]
    bias: float
    inputs: str = ""

    @property
    def text(self) -> str:
        """The model as JSON, on one line: all that decides its choice, and equal for equal models."""
        return json.dumps(asdict(self), sort_keys=True, separators=(",", ":"))

    @property
    def label(self) -> str:
        """What people call it."""
        inputs = f", inputs {self.inputs[:12]}" if self.inputs else ""
        return f"{self.name} version {self.version}{inputs}"

    def probability(self, features: TissueFeatures) -> NDArray[np.float32]:
        """Chance of every cell to be a tumour cell, shape ``(n,)``."""
        table = features.table(self.features)
        lean = np.full(len(table), self.bias)
        for k in range(len(self.features)):  # column by column: the same bits with any linear algebra
            lean += self.weights[k] * ((table[:, k] - self.middle[k]) / self.spread[k])
        return np.asarray(np.rint(STEPS / (1.0 + np.exp(-lean))) / STEPS, np.float32)


@dataclass(frozen=True, slots=True)
class TumourChoice:
    """What was computed for a slide's cells, shape ``(n,)`` each, in their order.

    Attributes
    ----------
    nest
        Lies in a stained nest.
    found
        Whether the slide holds tumour at all: compact tumour or stained nests.
    """

    probability: NDArray[np.float32]
    nest: NDArray[np.bool_]
    found: bool

    @property
    def chosen(self) -> NDArray[np.bool_]:
        """Looks like a tumour cell."""
        return (self.probability >= np.float32(LIKELY)) | self.nest


def choose_tumour(
    cells: Mapping[str, NDArray[Any]],
    stained: NDArray[np.bool_],
    completeness: NDArray[np.floating[Any]],
    mpp: float,
    stain: StainProfile,
    model: TumourModel,
) -> TumourChoice:
    """Choose the tumour cells of a slide.

    Parameters
    ----------
    cells
        `FROM_CELLS`, shape ``(n,)`` each.
    stained
        Which cells are of class 1 or higher.
    completeness
        Stained share of their contours.
    mpp, stain
        Level-0 µm/px, and the slide's colour.
    """
    features = TissueFeatures.of(cells, mpp, stain, stained)
    alone = model.probability(features).astype(np.float64)
    together = (alone + features.mean_around(alone, AROUND_UM)) / 2
    probability = np.asarray(np.rint(STEPS * together) / STEPS, np.float32)
    marks = stained.astype(np.float64)
    nest = features.mean_around(marks, NEST_UM) >= NEST_SHARE
    nest &= features.sum_around(marks, NEST_UM) >= LEAST_IN_NEST
    nest &= completeness >= np.float32(NEST_CONTOUR)
    compact = features.mean_around(probability.astype(np.float64), COMPACT_UM) >= COMPACT
    n = len(probability)
    many = compact.sum() >= max(LEAST_COMPACT * n, LEAST_COMPACT_CELLS)
    found = bool(many or nest.sum() >= LEAST_NESTS * n)
    return TumourChoice(probability, nest, found)


def with_tumour(bands: Iterable[pa.Table], choice: TumourChoice) -> Iterator[pa.Table]:
    """Append what was computed to the kernel rows of a slide; ``bands`` are in the same order."""
    first = 0
    for band in bands:
        here = slice(first, first + len(band))
        first += len(band)
        for name, values in zip(COLUMNS, (choice.probability, choice.nest, choice.chosen), strict=True):
            band = band.append_column(name, pa.array(values[here]))
        yield band


@lru_cache
def load_model(named: str) -> TumourModel:
    """Model by name, one of those that come with the package; or given as JSON text.

    Raises
    ------
    ConfigError
        If there is none of that name, or the text does not hold what a model needs.
    """
    if named.lstrip().startswith("{"):
        return parse_model(named, "given as JSON")
    known = shipped_models()
    if named not in known:
        raise ConfigError(
            f"ihc_score.tumour_model is {shown(named)}, which is no model; expected one of "
            f"{', '.join(known)}, or the address of a model that her2 learn-tumour wrote (.json)"
        )
    text = _models().joinpath(f"{named}.json").read_text(encoding="utf-8")
    return parse_model(text, named, expected=named)


def shipped_models() -> list[str]:
    """Names of the models that come with the package."""
    return sorted(f.name.removesuffix(".json") for f in _models().iterdir() if f.name.endswith(".json"))


def _models() -> Traversable:
    return resources.files("her2core").joinpath("scoring", "tumour_models")


def parse_model(text: str, where: str, expected: str | None = None) -> TumourModel:
    """Model from JSON text.

    Parameters
    ----------
    where
        What messages call it.
    expected
        What the text must call itself; anything if None.

    Raises
    ------
    ConfigError
        Naming what is missing or impossible.
    """
    try:
        data: dict[str, Any] = json.loads(text)
        if not isinstance(data, dict):
            raise ValueError(f"found {type(data).__name__}, expected an object")
        data.pop(LEARNED, None)
        lists: dict[str, Any] = {k: tuple(data[k]) for k in ("features", "middle", "spread", "weights")}
        model = TumourModel(**(data | lists))
        _check(model, lists)
        if expected is not None and model.name != expected:
            raise ValueError(f"calls itself {model.name!r}, expected {expected!r}")
    except KeyError as error:
        raise ConfigError(f"tumour model {where}: has no {error}") from error
    except (RecursionError, TypeError, ValueError) as error:
        raise ConfigError(f"tumour model {where}: {cut(repr(error), SHOWN_ERROR)}") from error
    return model


def _check(model: TumourModel, lists: Mapping[str, tuple[Any, ...]]) -> None:
    for name in ("name", "fitted_on", "inputs"):
        words = getattr(model, name)
        if not (isinstance(words, str) and words.isprintable() and len(words) <= MAX_WORDS):
            raise ValueError(f"{name}: expected printable text of {MAX_WORDS} characters at most")
    if not model.name or not isinstance(model.version, int) or model.version < 1:
        raise ValueError("expected a name, and a version of 1 or more")
    if not model.features or len({len(values) for values in lists.values()}) != 1:
        raise ValueError("features, middle, spread and weights: expected lists of one length")
    if not all(math.isfinite(x) for x in (*model.middle, *model.spread, *model.weights, model.bias)):
        raise ValueError("middle, spread, weights and bias: expected finite numbers")
    if not all(spread > 0 for spread in model.spread):
        raise ValueError(f"spread {model.spread}: expected numbers above 0")
    unknown = [feature for feature in model.features if not TissueFeatures.knows(feature)]
    if unknown:
        raise ValueError(f"features {unknown}: not known")
