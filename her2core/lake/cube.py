"""Regions and metrics as Zarr on the output store: written once and whole, opened lazily by xarray.

::

    OUT/regions/<score key>.zarr.zip    maps of one slide's regions, dims (r, column), one group a size in µm
    OUT/cubes/<run id>/                 metrics of a run, dims (slide, metric, scale_um)

Regions are a hundred small arrays a slide, and lie zipped in one object. Both follow from what the lake's
tables hold, and are for arrays rather than for queries.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numcodecs import Zstd

from her2core.errors import StoreError
from her2core.heterogeneity.dataset import RegionMap, Variable, map_of
from her2core.heterogeneity.metrics import Status
from her2core.heterogeneity.regions import NucleusRegions, Regions
from her2core.lake.schema import HETEROGENEITY
from her2core.lake.tables import read_rows
from her2core.storage.store import Store

if TYPE_CHECKING:
    import xarray as xr  # slow to import, as Zarr: not where a slide's regions are written

REGIONS_FOLDER, CUBES_FOLDER = "regions", "cubes"
ZIPPED = ".zarr.zip"
"""Ending of a Zarr hierarchy in one object, as zarr-python's ``ZipStore`` opens it."""
NO_ROW = -1
"""Status code where a slide has no such metric at that scale."""
STATUS_CODES = {Status.OK: 0, Status.INSUFFICIENT: 1, Status.DEGENERATE: 2}
NO_SCALE = 0.0
"""Place on the axis ``scale_um`` of metrics without a scale."""
SLIDES_CHUNK = 500
"""Slides of a chunk of a cohort's cube: some ten megabytes in memory. Ours."""
_METADATA = "zarr.json"
_ZSTD = Zstd(level=0, checksum=False)  # what zarr-python compresses with by default
_NAN, _NAN_BYTES = "NaN", "AAAAAAAA+H8="
"""How Zarr's documents, and xarray's attribute ``_FillValue``, write not-a-number (float64, base64)."""
_CUBED = HETEROGENEITY.schema


def write_regions(
    store: Store, key: str, sweep: Sequence[Regions | NucleusRegions], slide_id: str
) -> str | None:
    """Write the maps of a slide's regions; its path, or None if no region holds a cell.

    Parameters
    ----------
    key
        Content key of the slide's score; the same key is the same bytes.
    sweep
        Regions at every size.
    """
    maps = {_group(regions.grid.size_um): map_of(regions) for regions in sweep if len(regions)}
    if not maps:
        return None
    path = f"{REGIONS_FOLDER}/{key}{ZIPPED}"
    store.write_bytes(path, _zipped(_encoded(maps, {"slide_id": slide_id})))
    return path


def open_regions(
    uri: str, scale_um: float = 250.0, storage_options: Mapping[str, Any] | None = None
) -> xr.Dataset:
    """Open the maps of one slide's regions at one size; values are read when they are used.

    Parameters
    ----------
    uri
        ``OUT/regions/<score_key>`` in a folder or ``s3://bucket/prefix``, with or without ``.zarr.zip``.
    scale_um
        Width of the hexagons from flat to flat side.
    storage_options
        ``endpoint_url`` of an S3 server other than AWS. Credentials come by the standard chain.

    Returns
    -------
    xarray.Dataset
        Dims ``(r, column)``, one cell a hexagon, see `heterogeneity.dataset.to_map`; Dask-backed.

    Raises
    ------
    StoreError
        If there are no such regions.
    """
    from zarr.buffer.cpu import Buffer
    from zarr.storage import MemoryStore

    name = uri.rstrip("/").removesuffix(ZIPPED)
    try:
        data = Store(name + ZIPPED, **(storage_options or {})).read_bytes("")
    except FileNotFoundError:  # as versions before 17 of the stage wrote them, or none
        zarr_store = Store(name, **(storage_options or {})).zarr_store()
    else:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            bodies = {each: archive.read(each) for each in archive.namelist()}
        zarr_store = MemoryStore({each: Buffer.from_bytes(body) for each, body in bodies.items()})
    return _opened(zarr_store, _group(scale_um), name)


def cohort_cube(
    rows: Sequence[Mapping[str, Any]] | pa.Table,
    metrics: Sequence[str] | None = None,
    scales_um: Sequence[float] | None = None,
) -> xr.Dataset:
    """Rows of the table ``heterogeneity`` as a cube.

    Parameters
    ----------
    metrics, scales_um
        What the axes are to hold, each sorted; what the rows hold by default.

    Returns
    -------
    xarray.Dataset
        Dims ``(slide, metric, scale_um)``, each sorted; metrics without a scale stand at 0.
        ``value``, ``low`` and ``high`` (NaN where there is none), ``n``, and ``status``: -1 no such row,
        0 ok, 1 insufficient, 2 degenerate. Coordinate ``case_id`` along ``slide``.

    Raises
    ------
    ValueError
        If two rows have one place.
    """
    import xarray as xr

    table = rows if isinstance(rows, pa.Table) else pa.Table.from_pylist([dict(r) for r in rows], _CUBED)
    scales = pc.fill_null(table["scale_um"], NO_SCALE)
    (slides, of_slide), (names, of_metric), (reaches, of_reach) = (
        _axis(table["slide_id"], np.str_),
        _axis(table["metric"], np.str_, metrics),
        _axis(scales, np.float64, scales_um),
    )
    shape = (len(slides), len(names), len(reaches))
    at = (of_slide, of_metric, of_reach)
    places = np.ravel_multi_index(at, shape) if len(table) else np.zeros(0, np.int64)
    if len(np.unique(places)) < len(table):
        raise ValueError("two rows have one slide, metric and scale; expected one at most")

    def filled(values: np.ndarray[Any, Any], empty: float, kind: type[np.generic]) -> np.ndarray[Any, Any]:
        cube = np.full(shape, empty, kind)
        cube.reshape(-1)[places] = values.astype(kind)
        return cube

    dims = ("slide", "metric", "scale_um")
    meaning = {
        "value": "Value of the metric; NaN unless status is ok",
        "low": "Lower end of its 95 % interval; NaN where none is given",
        "high": "Upper end of its 95 % interval; NaN where none is given",
    }
    variables: dict[str, Any] = {
        name: (
            dims,
            filled(pc.fill_null(table[name], np.nan).to_numpy(), np.nan, np.float64),
            {"long_name": text},
        )
        for name, text in meaning.items()
    }
    counts = filled(table["n"].to_numpy(), 0, np.int64)
    variables["n"] = (dims, counts, {"long_name": "Cells, nuclei or regions that it rests on"})
    statuses, of_status = _axis(table["status"], np.str_)
    known = np.array([STATUS_CODES[Status(name)] for name in statuses.tolist()], np.int8)
    codes = filled(known[of_status], NO_ROW, np.int8)
    flags = {"no_row": NO_ROW} | {str(status): code for status, code in STATUS_CODES.items()}
    variables["status"] = (
        dims,
        codes,
        {
            "long_name": "Whether there is a value, and why not",
            "flag_values": list(flags.values()),
            "flag_meanings": " ".join(flags),
        },
    )
    pairs = table.select(["slide_id", "case_id"]).group_by(["slide_id", "case_id"]).aggregate([])
    case_of = dict(zip(pairs["slide_id"].to_pylist(), pairs["case_id"].to_pylist(), strict=True))
    reach = {"units": "micrometer", "long_name": "Size of the regions, or reach; 0 of what knows no place"}
    return xr.Dataset(
        variables,
        coords={
            "slide": slides.astype(object),
            "metric": names.astype(object),
            "scale_um": ("scale_um", reaches, reach),
            "case_id": ("slide", np.array([case_of[slide] for slide in slides.tolist()], object)),
        },
        attrs={"title": "HER2 heterogeneity of a cohort", "comment": "Research use only, not for diagnosis."},
    )


def _axis(
    column: pa.ChunkedArray, kind: type[np.generic], given: Sequence[Any] | None = None
) -> tuple[np.ndarray[Any, Any], Any]:
    """Sorted values of a column, or those given, and the place of every row among them."""
    encoded = column.combine_chunks().dictionary_encode()
    found = np.array(encoded.dictionary.to_pylist(), kind)
    values = np.sort(found) if given is None else np.array(given, kind)
    return values, np.searchsorted(values, found)[encoded.indices.to_numpy()]


def write_cube_of_table(store: Store, run_id: str, slides: Sequence[str]) -> str | None:
    """Write the metrics of some slides, as the table ``heterogeneity`` has them, as a cube; its path, if any.

    `SLIDES_CHUNK` slides at a time are in memory, and are a chunk. Of no more the table is read once.
    """
    path, names = f"{CUBES_FOLDER}/{run_id}", [column.name for column in HETEROGENEITY.columns]
    if len(slides) <= SLIDES_CHUNK:
        rows = read_rows(store, HETEROGENEITY, names, {"slide_id": sorted(slides)})
        if len(rows):
            _append(store, path, [cohort_cube(rows).assign_attrs(run_id=run_id)])
        return path if len(rows) else None
    there = read_rows(store, HETEROGENEITY, ["slide_id"], distinct=True)["slide_id"].to_pylist()
    ids = sorted(set(slides).intersection(there))
    if not ids:
        return None
    among = None if len(ids) == len(there) else {"slide_id": ids}
    axes = read_rows(store, HETEROGENEITY, ["metric", "scale_um"], among, distinct=True)
    metrics = sorted(set(axes["metric"].to_pylist()))
    scales = sorted(set(pc.fill_null(axes["scale_um"], NO_SCALE).to_pylist()))
    blocks = (ids[start : start + SLIDES_CHUNK] for start in range(0, len(ids), SLIDES_CHUNK))
    parts = (read_rows(store, HETEROGENEITY, names, {"slide_id": block}) for block in blocks)
    _append(store, path, (cohort_cube(part, metrics, scales).assign_attrs(run_id=run_id) for part in parts))
    return path


def open_cohort_cube(uri: str, storage_options: Mapping[str, Any] | None = None) -> xr.Dataset:
    """Open the metrics of a run, see `cohort_cube`; values are read when they are used.

    Parameters
    ----------
    uri
        ``OUT/cubes/<run_id>``: a folder or ``s3://bucket/prefix``.
    storage_options
        As of `open_regions`.

    Raises
    ------
    StoreError
        If there is no cube.
    """
    return _opened(Store(uri, **(storage_options or {})).zarr_store(), None, uri)


def _append(store: Store, path: str, parts: Iterable[xr.Dataset]) -> None:
    """Write Datasets one behind the other along ``slide``, each a chunk, and the metadata last.

    All but the last have `SLIDES_CHUNK` slides. What is written is no longer in memory.
    """
    from zarr.storage import MemoryStore

    objects: dict[str, Any] = {}
    memory = MemoryStore(objects)
    how: dict[str, Any] = {"zarr_format": 3, "consolidated": False}
    for number, part in enumerate(parts):
        if number == 0:
            chunks = {v: {"chunks": tuple(part.sizes[dim] for dim in part[v].dims)} for v in part.variables}
            part.to_zarr(memory, mode="a", encoding=chunks, **how)
        else:
            part.to_zarr(memory, mode="a", append_dim="slide", **how)
        written = {name: objects.pop(name).to_bytes() for name in list(objects) if not _is_metadata(name)}
        store.write_many({f"{path}/{name}": body for name, body in sorted(written.items())})
    data = _consolidated({name: value.to_bytes() for name, value in objects.items()})
    store.write_many({f"{path}/{name}": body for name, body in sorted(data.items()) if name != _METADATA})
    store.write_bytes(f"{path}/{_METADATA}", data[_METADATA])


def _group(size_um: float) -> str:
    return f"{size_um:g}"


def _zipped(objects: Mapping[str, bytes]) -> bytes:
    """Objects of one Zarr hierarchy in one ZIP file: the same bytes for the same content."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, body in sorted(objects.items()):
            archive.writestr(zipfile.ZipInfo(name), body)
    return buffer.getvalue()


def _encoded(groups: Mapping[str, RegionMap], more: Mapping[str, str]) -> dict[str, bytes]:
    """Objects of one Zarr hierarchy with maps as its groups, each with ``more`` attributes.

    They are what `xarray.Dataset.to_zarr` writes of the same Datasets, arrays in one chunk, in a tenth of its
    time: it takes more than a small slide's cells do.
    """
    data = {_METADATA: _document({}, "group")}
    for name, each in groups.items():
        data[f"{name}/{_METADATA}"] = _document({**each.attrs, **more}, "group")
        beside = " ".join(sorted(coord for coord, (dims, *_) in each.coords.items() if (coord,) != dims))
        for variable, values in each.variables.items():
            data |= _array(f"{name}/{variable}", values, {"coordinates": beside})
        for variable, values in each.coords.items():
            data |= _array(f"{name}/{variable}", values, {})
    return _consolidated(data)


def _array(path: str, variable: Variable, more: Mapping[str, str]) -> dict[str, bytes]:
    """Objects of one array in one chunk; a chunk of nothing but what fills is left out."""
    dims, values, attrs = variable
    attributes = {**attrs, **more}
    kind, shape = values.dtype, list(values.shape)
    numbers = np.ascontiguousarray(values, kind.newbyteorder("<"))
    fill, empty = (_NAN, np.isnan(numbers)) if kind.kind == "f" else (0, numbers == 0)
    if kind == np.float64:
        attributes = attributes | {"_FillValue": _NAN_BYTES}
    order = {"configuration": {"endian": "little"}} if kind.itemsize > 1 else {}
    about = {
        "shape": shape,
        "data_type": kind.name,
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": shape}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        "fill_value": fill,
        "codecs": [
            {"name": "bytes"} | order,
            {"name": "zstd", "configuration": {"level": 0, "checksum": False}},
        ],
        "dimension_names": list(dims),
        "storage_transformers": [],
    }
    data = {f"{path}/{_METADATA}": _document(attributes, "array", about)}
    if not empty.all():
        data["/".join([path, "c", *("0" for _ in shape)])] = bytes(_ZSTD.encode(numbers))
    return data


def _document(attributes: Mapping[Any, Any], kind: str, about: Mapping[str, Any] | None = None) -> bytes:
    whole = {**(about or {}), "attributes": attributes, "zarr_format": 3, "node_type": kind}
    return json.dumps(whole).encode()


def _consolidated(data: dict[str, bytes]) -> dict[str, bytes]:
    """Objects of a Zarr hierarchy, each group with its own metadata and that of all below it."""
    nodes = {name: json.loads(body) for name, body in data.items() if _is_metadata(name)}
    for name, node in nodes.items():
        if node["node_type"] == "group":
            folder = name.removesuffix(_METADATA)
            below = {
                other.removesuffix(f"/{_METADATA}").removeprefix(folder): found
                for other, found in sorted(nodes.items())
                if other.startswith(folder) and other != name
            }
            inline = {"kind": "inline", "must_understand": False, "metadata": below}
            data[name] = json.dumps(node | {"consolidated_metadata": inline}).encode()
    return data


def _is_metadata(name: str) -> bool:
    return name == _METADATA or name.endswith(f"/{_METADATA}")


def _opened(zarr_store: Any, group: str | None, uri: str) -> xr.Dataset:
    import xarray as xr

    try:
        opened: xr.Dataset = xr.open_zarr(
            zarr_store, group=group, consolidated=True, zarr_format=3, chunks={}
        )
        return opened
    except (FileNotFoundError, KeyError, ValueError) as error:
        inside = f"group {group} of " if group else ""
        raise StoreError(f"{inside}{uri} is no Zarr group of this program ({error}).") from error
