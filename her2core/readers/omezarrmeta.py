"""The metadata of an OME-Zarr group, each part checked to be what it should be.

Zarr parses every document before anything of it can be looked at: ``BoundedStore`` bounds them before that.

References
----------
OME-NGFF 0.4 and 0.5, https://ngff.openmicroscopy.org.
"""

from __future__ import annotations

import asyncio
import math
import re
from dataclasses import dataclass
from typing import Any

import numpy as np
import zarr
from zarr.abc.store import ByteRequest, RangeByteRequest, Store
from zarr.core.buffer import Buffer, BufferPrototype
from zarr.storage import WrapperStore

from her2core.errors import Reason, SlideError
from her2core.readers.base import names_picture
from her2core.readers.ome import parse_ome
from her2core.readers.scale import Scale, unit_um
from her2core.readers.zarr_chunks import MAX_CHUNK_BYTES, Shard, expanding_codecs, shard_of, unpacks_beyond

DOCUMENTS = ("zarr.json", ".zattrs", ".zgroup", ".zarray", ".zmetadata")
"""Names of the files that hold metadata."""
MAX_DOCUMENT_BYTES = 1 << 22
"""Longest of them (ours); those of a whole slide stay below 100 kB."""
MAX_DEPTH = 64
"""Deepest nesting in them (ours); OME-Zarr's own is 8."""
MAX_ARRAYS = 1024
"""Most images of a group, and most levels of all of them together (ours)."""
MAX_PATH = 200
"""Longest path of an array inside its group, characters (ours)."""
AXES = "tczyx"
OLD_VERSION = re.compile(r"0\.[123]\b")
SERIES_LAYOUT = 3
"""The layout in which bioformats2raw writes several images into one group."""


class BoundedStore(WrapperStore[Store]):
    """A store of a slide whose metadata documents are refused where they are larger or deeper than any.

    And chunks that unpack to more than memory holds.
    """

    def __init__(self, store: Store, name: str) -> None:
        super().__init__(store)
        self._name = name
        self.shards: dict[str, Shard] = {}

    def _with_store(self, store: Store) -> BoundedStore:
        made = type(self)(store, self._name)
        made.shards = self.shards
        return made

    def _shard_of(self, key: str) -> Shard | None:
        """How the shard of this key lists its chunks, of arrays that `check_packing` has looked at."""
        return next((shard for path, shard in self.shards.items() if key.startswith(path)), None)

    async def get(
        self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        if byte_range is not None or key.rpartition("/")[2] not in DOCUMENTS:
            chunk = await super().get(key, prototype, byte_range)
            shard = None if byte_range is not None else self._shard_of(key)
            beyond = unpacks_beyond if shard is None else shard.unpacks_beyond
            if chunk is not None and await asyncio.to_thread(beyond, chunk.to_bytes()):
                raise SlideError(
                    Reason.FILE_BEYOND_LIMITS,
                    f"{self._name}: {key} unpacks to more than {shard.most if shard else MAX_CHUNK_BYTES} "
                    "bytes a chunk, the most that are read. Store smaller chunks",
                )
            return chunk
        found = await super().get(key, prototype, RangeByteRequest(0, MAX_DOCUMENT_BYTES + 1))
        if found is not None:
            self._check(found.to_bytes())
        return found

    def _check(self, document: bytes) -> None:
        if len(document) > MAX_DOCUMENT_BYTES:
            raise SlideError(
                Reason.FILE_BEYOND_LIMITS,
                f"{self._name}: more than {MAX_DOCUMENT_BYTES} bytes of OME-Zarr metadata in one file; "
                "expected a slide's",
            )
        step = np.zeros(256, np.int32)
        step[list(b"[{")], step[list(b"]}")] = 1, -1
        depth = int(np.cumsum(step[np.frombuffer(document, np.uint8)]).max(initial=0))
        if depth > MAX_DEPTH:
            raise SlideError(
                Reason.FILE_BEYOND_LIMITS,
                f"{self._name}: OME-Zarr metadata nested more than {MAX_DEPTH} deep; expected a slide's",
            )


def check_packing(name: str, array: zarr.Array[Any]) -> None:
    """Refuse an array whose chunks are packed twice: what they unpack to is known of one time alone.

    Its store learns how its shards list their chunks.
    """
    metadata = array.metadata.to_dict()
    packed = expanding_codecs(metadata)
    try:
        shard = shard_of(metadata, array.dtype.itemsize)
    except ValueError as error:
        raise SlideError(
            Reason.FILE_BEYOND_LIMITS, f"{name}: {error}. Store it in plain shards, or in chunks"
        ) from error
    if shard is not None and isinstance(array.store, BoundedStore):
        array.store.shards[f"{array.path}/".lstrip("/")] = shard
    if len(packed) > 1:
        raise SlideError(
            Reason.FILE_BEYOND_LIMITS,
            f"{name}: chunks compressed by {', '.join(packed[:4])}, one behind the other; expected one of "
            "them. Store it again with one",
        )


@dataclass(frozen=True, slots=True)
class Level:
    """One array of an image.

    Attributes
    ----------
    scale
        Size of a pixel along each axis, in the axis' unit; None where it is not stated here as numbers.
    """

    path: str
    scale: tuple[float, ...] | None


@dataclass(frozen=True, slots=True)
class Multiscale:
    """One image: a group, its axes, and its levels in the order of the metadata.

    Attributes
    ----------
    units
        Micrometres of each axis' unit, None where it has none or no length.
    """

    group: zarr.Group
    axes: str
    units: tuple[float | None, ...]
    levels: tuple[Level, ...]

    def scale_of(self, level: Level) -> list[Scale]:
        """Pixel size of a level, where the file states one."""
        y, x = self.axes.index("y"), self.axes.index("x")
        y_um, x_um = self.units[y], self.units[x]
        if level.scale is None or y_um is None or x_um is None:
            return []
        return [Scale("ome-zarr", level.scale[y] * y_um, level.scale[x] * x_um)]


def read_images(name: str, root: zarr.Group, series_xml: str) -> dict[str, Multiscale]:
    """Slide images by number: the root's own, or the series that bioformats2raw writes.

    Label, macro and thumbnail pictures are left out.

    Raises
    ------
    SlideError
        ``NOT_A_SLIDE`` for other groups, ``FILE_UNREADABLE`` for metadata of another kind or version.
    """
    attributes = ome_attributes(root)
    if "multiscales" in attributes:
        listed = _list(name, attributes["multiscales"], "`multiscales`")
        images = {str(i): _Document(name, root, _dict(name, one, "an image")) for i, one in enumerate(listed)}
    elif attributes.get("bioformats2raw.layout") == SERIES_LAYOUT:
        images = _series(name, root, series_xml)
    else:
        raise SlideError(
            Reason.NOT_A_SLIDE,
            f"{name}: a Zarr group without OME `multiscales`; expected an OME-Zarr 0.4 or 0.5 image",
        )
    found = {number: one.read() for number, one in images.items() if not one.is_picture}
    if sum(len(one.levels) for one in found.values()) > MAX_ARRAYS:
        raise SlideError(
            Reason.FILE_BEYOND_LIMITS,
            f"{name}: its OME-Zarr metadata list more than {MAX_ARRAYS} levels in all",
        )
    return found


def read_multiscale(name: str, group: zarr.Group) -> Multiscale:
    """The first image of a group, whatever it is called: a label, too.

    Raises
    ------
    SlideError
        ``FILE_UNREADABLE`` for metadata of another kind or version.
    """
    listed = _list(name, ome_attributes(group).get("multiscales"), "`multiscales`")
    return _Document(name, group, _dict(name, listed[0] if listed else None, "an image")).read()


def ome_attributes(group: zarr.Group) -> dict[str, Any]:
    """OME attributes: under ``ome`` in 0.5, at the top in 0.4."""
    attributes = dict(group.attrs)
    inner = attributes.get("ome")
    return inner if isinstance(inner, dict) else attributes


def _series(name: str, root: zarr.Group, xml: str) -> dict[str, _Document]:
    """Images of several groups, without those that the OME-XML beside them names as pictures."""
    pictures = {image.number for image in parse_ome(name, xml or "<OME/>") if not image.is_slide}
    beside = root.get("OME")
    listed = ome_attributes(beside).get("series") if isinstance(beside, zarr.Group) else None
    paths = _numbered(root) if listed is None else _list(name, listed, "`series`")
    found = {}
    for i, path in enumerate(paths):
        group = root[_text(name, path, "the path of a series")]
        if i in pictures or not isinstance(group, zarr.Group):
            continue
        images = _list(name, ome_attributes(group).get("multiscales"), "`multiscales` of a series")
        found[str(i)] = _Document(name, group, _dict(name, images[0] if images else None, "an image"))
    return found


def _numbered(root: zarr.Group) -> list[str]:
    found: list[str] = []
    while len(found) < MAX_ARRAYS and str(len(found)) in root:
        found.append(str(len(found)))
    return found


@dataclass(frozen=True, slots=True)
class _Document:
    """One entry of ``multiscales`` as it stands."""

    name: str
    group: zarr.Group
    content: dict[str, Any]

    @property
    def is_picture(self) -> bool:
        title = self.content.get("name")
        return isinstance(title, str) and names_picture(title)

    def read(self) -> Multiscale:
        self._check_version()
        axes = [_dict(self.name, axis, "an axis") for axis in self._axes()]
        names = [axis.get("name") for axis in axes]
        if not all(isinstance(axis, str) and len(axis) == 1 and axis in AXES for axis in names):
            raise _other_kind(self.name, f"the names of axes, which must be among {', '.join(AXES)}")
        if len(set(names)) < len(names) or not {"y", "x"} <= set(names):
            raise _other_kind(self.name, "the axes: expected y and x, and none twice")
        units = [axis.get("unit") for axis in axes]
        shared = self._scale(self.content.get("coordinateTransformations"), len(axes))
        datasets = _list(self.name, self.content.get("datasets"), "`datasets`")
        if not datasets:
            raise _other_kind(self.name, "`datasets`: an image without any level")
        return Multiscale(
            self.group,
            "".join(map(str, names)),
            tuple(unit_um(unit) if isinstance(unit, str) else None for unit in units),
            tuple(self._level(_dict(self.name, one, "a level"), shared, len(axes)) for one in datasets),
        )

    def _check_version(self) -> None:
        """Refuse versions before 0.4, which state neither the axes nor the size of a pixel."""
        version = self.content.get("version", ome_attributes(self.group).get("version"))
        stated = version if isinstance(version, str) and OLD_VERSION.match(version) else None
        axes = self.content.get("axes")
        by_name = isinstance(axes, list) and any(isinstance(axis, str) for axis in axes)
        if stated is not None or by_name or (axes is None and "coordinateSystems" not in self.content):
            what = f"version {stated[:8]}" if stated else "a version before 0.4, going by its axes"
            raise SlideError(
                Reason.FILE_UNREADABLE,
                f"{self.name}: OME-Zarr of {what}; read are 0.4 and 0.5. Convert the slide again with a "
                "current bioformats2raw",
            )

    def _axes(self) -> list[Any]:
        if "coordinateSystems" in self.content and "axes" not in self.content:
            raise SlideError(
                Reason.FILE_UNREADABLE,
                f"{self.name}: OME-Zarr of a version after 0.5, going by its coordinate systems; read are "
                "0.4 and 0.5",
            )
        return _list(self.name, self.content["axes"], "`axes`")

    def _level(self, dataset: dict[str, Any], shared: _Scale, axes: int) -> Level:
        own = self._scale(dataset.get("coordinateTransformations"), axes)
        path = _text(self.name, dataset.get("path"), "the path of a level")
        if own.unknown or shared.unknown or (own.factors is None and shared.factors is None):
            return Level(path, None)
        ones = (1.0,) * axes
        pairs = zip(own.factors or ones, shared.factors or ones, strict=True)
        return Level(path, tuple(a * b for a, b in pairs))

    def _scale(self, transformations: Any, axes: int) -> _Scale:
        """The product of the scales in a list; one that is kept in an array of its own is not read."""
        factors: tuple[float, ...] | None = None
        for one in [] if transformations is None else _list(self.name, transformations, "transformations"):
            transformation = _dict(self.name, one, "a transformation")
            kind = transformation.get("type")
            if kind in ("identity", "translation"):
                continue
            if kind != "scale" or ("scale" not in transformation and "path" in transformation):
                return _Scale(None, unknown=True)
            values = _list(self.name, transformation.get("scale"), "a scale")
            if len(values) != axes or not all(_is_number(value) for value in values):
                raise _other_kind(self.name, f"a scale: expected {axes} numbers, one an axis")
            if not all(math.isfinite(value) and value > 0 for value in values):
                return _Scale(None, unknown=True)
            factors = tuple(a * float(b) for a, b in zip(factors or (1.0,) * axes, values, strict=True))
        return _Scale(factors)


@dataclass(frozen=True, slots=True)
class _Scale:
    """A stated scale, none, or one that cannot be known from what stands here."""

    factors: tuple[float, ...] | None
    unknown: bool = False


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e300


def _list(name: str, value: Any, what: str) -> list[Any]:
    if not isinstance(value, list):
        raise _other_kind(name, f"{what}: expected a list, found {type(value).__name__}")
    if len(value) > MAX_ARRAYS:
        raise SlideError(
            Reason.FILE_BEYOND_LIMITS, f"{name}: {len(value)} entries in {what}; accepted are {MAX_ARRAYS}"
        )
    return value


def _dict(name: str, value: Any, what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _other_kind(name, f"{what}: expected an object, found {type(value).__name__}")
    return value


def _text(name: str, value: Any, what: str) -> str:
    if not isinstance(value, str) or not value:
        raise _other_kind(name, f"{what}: expected a text, found {type(value).__name__}")
    if len(value) > MAX_PATH:
        raise _other_kind(name, f"{what}: {len(value)} characters; accepted are {MAX_PATH}")
    return value


def _other_kind(name: str, what: str) -> SlideError:
    """The error for metadata that do not follow OME-Zarr; never shows what stands there instead."""
    return SlideError(
        Reason.FILE_UNREADABLE,
        f"{name}: its OME-Zarr metadata are of another kind in {what}. Export it again",
    )
