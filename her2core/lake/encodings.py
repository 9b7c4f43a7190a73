"""How columns of cells and nuclei are encoded in Parquet: the same rows in fewer bytes.

Ours, measured on the demo's slides. Dictionaries, Arrow's default, only serve columns of few values; what all
readers of Parquet can decode is used in tables, byte streams in parts, which only we read.
"""

from __future__ import annotations

import io
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from her2core.lake.schema import TEXT

FEW_VALUES = frozenset(
    {"nucleus_area_um2", "cytoplasm_od", "membrane_od_median", "membrane_od_p90", "largest_gap_deg"}
)
"""Numbers that many cells share: areas of whole pixels, quantiles of whole grey levels."""
MANY_VALUES = frozenset(
    {
        "x_px0", "nucleus_od", "membrane_od_mean", "nucleus_elongation", "nucleus_contrast", "cell_area_um2",
        "elongation", "solidity", "counterstain", "sharpness",
    }
)  # fmt: skip
"""Numbers of which hardly two are alike: byte by byte their exponents are."""
IDS = frozenset({"cell_id", "nucleus_id"})
"""Whole numbers that ascend."""


def table_options(schema: pa.Schema) -> dict[str, Any]:
    """Arguments of a `pyarrow.parquet.ParquetWriter` for a table's file."""
    text = [field.name for field in schema if field.type == TEXT]
    few = [name for name in schema.names if name in FEW_VALUES]
    ascending = {name: "DELTA_BINARY_PACKED" for name in schema.names if name in IDS}
    return {"compression": "zstd", "use_dictionary": text + few, "column_encoding": ascending}


def part_bytes(rows: pa.Table) -> memoryview:
    """A part of a slide's cells or nuclei as a Parquet file."""
    buffer = io.BytesIO()
    pq.write_table(
        rows,
        buffer,
        compression="zstd",
        compression_level=1,
        use_dictionary=[name for name in rows.column_names if name in FEW_VALUES],
        use_byte_stream_split=[name for name in rows.column_names if name in MANY_VALUES],
    )
    return buffer.getbuffer()
