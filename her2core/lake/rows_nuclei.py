"""Nuclei and their spots as Arrow tables: one row a nucleus, its spots nested in it.

A spot belongs to the nucleus that contains it and to nothing else, so it needs no table, and no rule of
ownership, of its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from her2core.columns import NUCLEUS_DTYPE, PROBES, SPOT_DTYPE
from her2core.lake.rows_cells import cell_ids, in_schema, tumour_mask
from her2core.lake.schema import NUCLEI
from her2core.records import SlideRow
from her2core.scoring.ish_copies import cluster_copies, single_signal
from her2core.scoring.signal_filter import PALE, WEAK, SignalFilter, Signals

_NO_SIGNALS = (np.empty(0, np.int64), np.empty(0, np.int64), *(np.empty(0),) * 3)
MEASURED = tuple(name for name in SPOT_DTYPE.names or () if name != "nucleus")


@dataclass(frozen=True, slots=True)
class Spots:
    """Spots of many nuclei: columns of ``SPOT_DTYPE``, flat, and the row of the nucleus of each."""

    nucleus: NDArray[np.int64]
    columns: dict[str, NDArray[Any]]

    @classmethod
    def of(cls, table: pa.Table) -> Spots:
        """Spots of a table made by `kernel_table`."""
        column = table["spots"].combine_chunks()
        counts = np.asarray(column.value_lengths(), np.int64)
        flat = column.flatten()
        columns = {name: flat.field(name).to_numpy(zero_copy_only=False) for name in MEASURED}
        return cls(np.repeat(np.arange(len(table)), counts), columns)

    def signals(self, mpp: float, first: int = 0) -> Signals:
        """What `SignalFilter` decides by, nuclei numbered from ``first``."""
        c = self.columns
        y_um, x_um = (c[name] * mpp for name in ("y_px0", "x_px0"))
        contrast = c["contrast"].astype(np.float64)
        return Signals(self.nucleus + first, c["probe"].astype(np.int64), y_um, x_um, contrast)


def kernel_table(nuclei: NDArray[np.void], spots: NDArray[np.void], kept: NDArray[np.bool_]) -> pa.Table:
    """Kernel rows as a table: the columns of ``NUCLEUS_DTYPE``, and ``spots`` as a list of structs.

    Parameters
    ----------
    kept
        Shape ``(len(nuclei),)``: nuclei to keep, with their spots.
    """
    counts = np.bincount(spots["nucleus"], minlength=len(nuclei))[kept]
    spots = spots[kept[spots["nucleus"]]]
    flat = [pa.array(np.ascontiguousarray(spots[name])) for name in MEASURED]
    column = _lists(counts, pa.StructArray.from_arrays(flat, list(MEASURED)))
    nuclei = nuclei[kept]
    return pa.table(
        {n: np.ascontiguousarray(nuclei[n]) for n in NUCLEUS_DTYPE.names or ()} | {"spots": column}
    )


@dataclass(frozen=True, slots=True)
class SingleSignals:
    """What a slide's signals are measured by: which to count, and a single one's integrated density.

    Attributes
    ----------
    her2, cep17
        Integrated density of a single signal of each probe: the measure of clusters.
    mpp
        Level-0 µm/px.
    """

    signal_filter: SignalFilter
    her2: float
    cep17: float
    mpp: float

    @classmethod
    def of(cls, spots: list[Spots], mpp: float, *, bright_field: bool) -> SingleSignals:
        """From all spots of a slide, in any order the same; a nucleus's spots in one of the list."""
        first = np.cumsum([0, *(int(s.nucleus.max(initial=-1)) + 1 for s in spots)])
        parts = [s.signals(mpp, int(k)) for s, k in zip(spots, first, strict=False)]
        signals = Signals(*(np.concatenate(column) for column in zip(_NO_SIGNALS, *parts, strict=True)))
        signal_filter = SignalFilter.of(signals, PALE if bright_field else WEAK)
        accepted = signal_filter.accepts(signals)

        def single(probe: int) -> float:
            which = accepted & (signals.probe == probe)
            integrated = np.concatenate([np.empty(0, np.float32), *(s.columns["integrated"] for s in spots)])
            return float(single_signal(integrated[which]))

        return cls(signal_filter, single(0), single(1), mpp)

    def copies(self, spots: Spots) -> NDArray[np.int64]:
        """Copies that each spot counts for; 0 of a spot that the signal filter rejects."""
        copies = np.ones(len(spots.nucleus), np.int64)
        for probe, single in enumerate((self.her2, self.cep17)):
            of_probe = spots.columns["probe"] == probe
            copies[of_probe] = cluster_copies(spots.columns["integrated"][of_probe], single)
        return np.where(self.signal_filter.accepts(spots.signals(self.mpp)), copies, 0)


def nucleus_rows(
    nuclei: pa.Table,
    slide: SlideRow,
    mpp: float,
    in_roi: NDArray[np.bool_] | None,
    single: SingleSignals,
    *,
    dual: bool,
) -> pa.Table:
    """Rows of the ``nuclei`` table from kernel rows, in the order they come; ``evaluable`` is false yet.

    Parameters
    ----------
    nuclei
        Made by `kernel_table`, n rows.
    mpp
        Level-0 µm/px.
    in_roi
        Shape ``(n,)``, or None if the slide has no region of interest.
    dual
        Whether there is a CEP17 probe.
    """
    n, spots = len(nuclei), Spots.of(nuclei)
    copies = single.copies(spots)
    y_px0, x_px0 = nuclei["y_px0"].to_numpy(), nuclei["x_px0"].to_numpy()
    rule = nuclei["tumour_rule"].to_numpy()
    inside = np.ones(n, np.bool_) if in_roi is None else in_roi
    counted = [(spots.columns["probe"] == p) & (copies > 0) for p in range(len(PROBES))]

    def sums(weights: NDArray[Any]) -> list[NDArray[Any]]:
        return [np.bincount(spots.nucleus[which], weights[which], n) for which in counted]

    seen, signals, integrated = sums(np.ones(len(copies))), sums(copies), sums(spots.columns["integrated"])
    columns: dict[str, Any] = {name: nuclei[name] for name in nuclei.column_names}
    columns |= {
        "slide_id": pa.repeat(slide.slide_id, n),
        "case_id": pa.repeat(slide.case_id, n),
        "nucleus_id": cell_ids(y_px0, x_px0),
        "y_um": y_px0 * mpp,
        "x_um": x_px0 * mpp,
        "her2_spots": seen[0],
        "cep17_spots": seen[1],
        "her2_signals": signals[0],
        "cep17_signals": signals[1],
        "her2_integrated": integrated[0],
        "cep17_integrated": integrated[1],
        "in_roi": inside,
        "is_tumour": inside & rule,
        "tumour_mask": pa.repeat(tumour_mask(in_roi is not None, slide.assay), n),
        "evaluable": np.zeros(n, np.bool_),
        "spots": _named(spots, copies, n),
    }
    if not dual:
        columns |= {f.name: pa.nulls(n, f.type) for f in NUCLEI.schema if f.name.startswith("cep17_")}
    return in_schema(columns, NUCLEI.schema)


def _named(spots: Spots, copies: NDArray[np.int64], n: int) -> pa.ListArray:
    """Spots as the lake holds them: with their probe's name and the copies they count for."""
    fields = list(NUCLEI.schema.field("spots").type.value_type)
    values: dict[str, Any] = spots.columns | {
        "probe": np.array(PROBES, object)[spots.columns["probe"]],
        "copies": copies,
    }
    flat = [pa.array(values[field.name], field.type) for field in fields]
    return _lists(np.bincount(spots.nucleus, minlength=n), pa.StructArray.from_arrays(flat, fields=fields))


def _lists(counts: NDArray[np.int64], values: pa.StructArray) -> pa.ListArray:
    starts = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
    kind = pa.list_(pa.field("element", values.type))
    return pa.ListArray.from_arrays(pa.array(starts), values, type=kind)
