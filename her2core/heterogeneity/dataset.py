"""Regions for analysis: named columns, and xarray Datasets with coordinates in micrometres."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from her2core.guidelines.rules_ihc import SCORES
from her2core.heterogeneity.regions import OD_PERCENTS, UNSCORED, NucleusRegions, Regions

if TYPE_CHECKING:
    import xarray as xr

Columns = dict[str, tuple[NDArray[np.generic], str, str]]
"""Name -> values of every region, unit (empty for counts) and meaning."""


Variable = tuple[tuple[str, ...], NDArray[Any], dict[str, str]]
"""Dims, values and attributes."""


@dataclass(frozen=True, slots=True)
class RegionMap:
    """Regions as a dense map, which needs no xarray to be written: it is slow to import."""

    variables: dict[str, Variable]
    coords: dict[str, Variable]
    attrs: dict[str, Any] = field(default_factory=dict)

    def dataset(self) -> xr.Dataset:
        """The same as a Dataset."""
        import xarray as xr

        return xr.Dataset(self.variables, coords=self.coords, attrs=self.attrs)


def columns_of(regions: Regions | NucleusRegions) -> Columns:
    """Measures of the regions, shape ``(m,)`` a column."""
    return _ish(regions) if isinstance(regions, NucleusRegions) else _ihc(regions)


def _ihc(regions: Regions) -> Columns:
    kinds = ("n0", "n1", "n2", "n2u", "n3")
    counts: Columns = {
        name: (regions.counts[:, i], "", f"Evaluable tumour cells of class {name[1:]}.")
        for i, name in enumerate(kinds)
    }
    quantiles: Columns = {
        f"membrane_od_p{percent}": (
            regions.od_quantiles[:, i],
            "OD",
            f"{percent} % quantile of the membrane OD of cells.",
        )
        for i, percent in enumerate(OD_PERCENTS)
    }
    return {
        "n": (regions.n, "", "Evaluable tumour cells."),
        **counts,
        "membrane_od_mean": (regions.od_mean, "OD", "Mean membrane OD of cells."),
        "membrane_od_sd": (regions.od_sd, "OD", "Standard deviation of the membrane OD of cells."),
        **quantiles,
        "completeness_mean": (regions.completeness_mean, "fraction", "Mean completeness of cells."),
        "score": (regions.score, "", f"Score 0 to 3 ({', '.join(SCORES)}); {UNSCORED} with too few cells."),
    }


def _ish(regions: NucleusRegions) -> Columns:
    found: Columns = {
        "n": (regions.n, "", "Evaluable nuclei."),
        "her2": (regions.her2, "signals", "HER2 signals of all of them."),
        "her2_squares": (regions.her2_squares, "signals²", "Sum of the squared HER2 signals of nuclei."),
        "amplified": (regions.amplified, "", "Nuclei beyond the CAP 2009 cut-off of the assay."),
        "copies_mean": (regions.copies_mean, "signals", "Mean HER2 signals a nucleus."),
        "amplified_fraction": (regions.amplified_fraction, "fraction", "Amplified among evaluable nuclei."),
    }
    if regions.cep17 is not None and regions.ratio is not None:
        found["cep17"] = (regions.cep17, "signals", "CEP17 signals of all nuclei.")
        found["ratio"] = (regions.ratio, "", "HER2 over CEP17 signals.")
    return found


def to_dataset(regions: Regions | NucleusRegions) -> xr.Dataset:
    """Regions as a Dataset with dim ``region``.

    Returns
    -------
    xarray.Dataset
        A variable a column of `columns_of`; coordinates ``q`` and ``r`` (axial, see `regions`) and the
        centres ``y_um`` and ``x_um``. Attribute ``size_um`` is the hexagons' width from flat to flat side.
    """
    import xarray as xr  # slow to import: not where a run is only driven

    place = {"units": "micrometer"}
    return xr.Dataset(
        {
            name: ("region", values, _attrs(unit, text))
            for name, (values, unit, text) in columns_of(regions).items()
        },
        coords={
            "q": ("region", regions.q),
            "r": ("region", regions.r),
            "y_um": ("region", regions.y_um, place | {"long_name": "Centre, down from the first pixel"}),
            "x_um": ("region", regions.x_um, place | {"long_name": "Centre, right of the first pixel"}),
        },
        attrs={"size_um": regions.grid.size_um, "layout": "hexagons, pointy top, axial coordinates"},
    )


def to_map(regions: Regions | NucleusRegions) -> xr.Dataset:
    """The same as a dense map, see `map_of`."""
    return map_of(regions).dataset()


def map_of(regions: Regions | NucleusRegions) -> RegionMap:
    """Regions as a dense map with dims ``(r, column)``, one cell a hexagon, for pictures and filters.

    Columns are shifted by half the row number, so that the map is upright; ``y_um`` depends on ``r`` alone
    and ``x_um`` on both. Where there is no region, numbers are NaN and counts 0.
    """
    column = regions.q + regions.r // 2
    if len(regions) == 0:
        raise ValueError("a map of no regions; expected at least one")
    top, left = int(regions.r.min()), int(column.min())
    shape = (int(regions.r.max()) - top + 1, int(column.max()) - left + 1)
    at = (regions.r - top, column - left)
    r, c = np.arange(shape[0]) + top, np.arange(shape[1]) + left
    y, x = regions.grid.centre(*np.broadcast_arrays(c[None, :] - r[:, None] // 2, r[:, None]))
    variables: dict[str, Variable] = {}
    for name, (values, unit, text) in columns_of(regions).items():
        empty = {"f": np.nan, "i": UNSCORED if name == "score" else 0}[values.dtype.kind]
        dense = np.full(shape, empty, values.dtype)
        dense[at] = values
        variables[name] = (("r", "column"), dense, _attrs(unit, text))
    place = {"units": "micrometer"}
    return RegionMap(
        variables,
        coords={
            "r": (("r",), r, {}),
            "column": (("column",), c, {}),
            "y_um": (("r",), y[:, 0], place),
            "x_um": (("r", "column"), x, place),
        },
        attrs={"size_um": regions.grid.size_um, "layout": "hexagons, pointy top, rows shifted by half"},
    )


def _attrs(unit: str, text: str) -> dict[str, str]:
    return {"long_name": text} | ({"units": unit} if unit else {})
