"""The rows of one slide as a finished Parquet file under ``tables/``, which `tables` commits.

A worker writes it, band by band, and needs no Delta for it; until it is committed no reader sees it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from her2core.lake.encodings import table_options
from her2core.lake.schema import Table
from her2core.storage.store import Store
from her2core.storage.temporary import temporary_folder

FOLDER = "tables"
"""Place of the tables under the output root."""
ROW_GROUP = 131_072
"""Cells a row group: about 20 MB in memory, which is what a writer holds."""


NEEDS = "about 100 bytes a cell or nucleus of each slide at work"
"""What the rows of a slide take as a file (ours, measured on the demo: 65 to 100 bytes)."""


@dataclass(frozen=True, slots=True)
class DataFile:
    """A finished Parquet file that waits to be committed.

    Attributes
    ----------
    path
        Name inside its table's folder.
    stats
        Delta statistics as JSON: number of rows, lowest and highest value of some columns.
    """

    path: str
    size_bytes: int
    rows: int
    stats: str


def write_slide_file(store: Store, table: Table, key: str, bands: Iterable[pa.Table]) -> DataFile | None:
    """Write all cells or nuclei of a slide as one Parquet file, holding no more than a band and a row group.

    Parameters
    ----------
    table
        ``cells`` or ``nuclei``: its last key column names a row within the slide, and ascends.
    key
        Content key of the result; names the file, so that a retry replaces its own debris.
    bands
        Rows of the table, of one slide; each band lies below the one before, and may be
        in any order inside.

    Returns
    -------
    DataFile or None
        None if there are no rows.

    Raises
    ------
    ValueError
        If a row comes twice or bands overlap: ids must ascend.
    """
    statistics = _Statistics(table)
    name = f"{key}.parquet"
    with temporary_folder(f"her2-{table.name}-", NEEDS) as folder:
        local = folder / name
        with pq.ParquetWriter(local, table.schema, **table_options(table.schema)) as writer:
            for group in _row_groups(table, statistics.watch(bands)):
                writer.write_table(group)
        if not statistics.rows:
            return None
        store.write_file(f"{FOLDER}/{table.name}/{name}", local)
        return DataFile(name, local.stat().st_size, statistics.rows, statistics.as_json())


class _Statistics:
    """Statistics of a file for Delta, collected while its rows pass; checks that their ids ascend."""

    def __init__(self, table: Table) -> None:
        self.id = table.key[-1]
        self.columns = ("slide_id", "case_id", self.id, "y_um", "x_um")
        self.rows = 0
        self.low: dict[str, Any] = {}
        self.high: dict[str, Any] = {}

    def watch(self, bands: Iterable[pa.Table]) -> Iterator[pa.Table]:
        for unsorted in bands:
            if not len(unsorted):
                continue
            band = unsorted if _ascends(unsorted[self.id]) else unsorted.sort_by(self.id)
            if band[self.id][0].as_py() <= self.high.get(self.id, -1) or not _ascends(band[self.id]):
                raise ValueError(f"a row comes twice, or bands overlap: {self.id} must ascend strictly")
            self.rows += len(band)
            for name in self.columns:
                low, high = pc.min_max(band[name]).as_py().values()
                self.low[name] = min(low, self.low.get(name, low))
                self.high[name] = max(high, self.high.get(name, high))
            yield band

    def as_json(self) -> str:
        nulls = dict.fromkeys(self.columns, 0)
        stats = {"numRecords": self.rows, "minValues": self.low, "maxValues": self.high, "nullCount": nulls}
        return json.dumps(stats)


def _ascends(ids: pa.ChunkedArray) -> bool:
    """Whether every id is above the one before."""
    return bool((np.diff(ids.to_numpy()) > 0).all())


def _row_groups(table: Table, bands: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """Cut a stream of tables into row groups that do not depend on where the bands ended."""
    held = table.schema.empty_table()
    for band in bands:
        held = pa.concat_tables([held, band])
        while len(held) >= ROW_GROUP:
            yield held.slice(0, ROW_GROUP)
            held = held.slice(ROW_GROUP).combine_chunks()
    if len(held):
        yield held
