"""Slides under a folder or bucket prefix, found while it is listed once.

What one slide is made of is gathered as the listing passes by: a MIRAX file with its folder, a key file of
Hamamatsu with its pictures, a folder that holds a DICOM series or an OME-Zarr is one slide. Memory grows with
the slides and not with the objects.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from her2core.readers.marks import MARKERS
from her2core.storage.listing import Listed, uploads_in_flight, walk
from her2core.storage.sources import KEY_FILE_BYTES, KEY_FILES, file_identity, named_in
from her2core.storage.store import Store

SLIDE_ENDINGS = (
    *(".svs", ".tif", ".tiff", ".btf", ".qptiff", ".scn", ".bif", ".ndpi", ".mrxs", ".vms", ".vmu"),
    *(".svslide", ".zvi", ".czi", ".jpg", ".jpeg", ".png", ".jp2"),
)
"""Endings of the files that may be slides."""
DICOM_ENDING = ".dcm"
ZARR_ENDINGS = (".ome.zarr", ".zarr")
MIRAX = ".mrxs"
_ENDINGS = (*SLIDE_ENDINGS, DICOM_ENDING)
OUTPUT_FOLDERS = frozenset({"stages", "pyramids"})
"""Folders that stand beside each other in an output of ``her2 run``: its pyramids are no new slides."""


@dataclass(frozen=True, slots=True)
class Found:
    """One slide as the listing shows it.

    Attributes
    ----------
    path
        Of the file, or of the folder that is the slide, relative to the place that was listed.
    size
        Bytes of all its files.
    files
        How many they are.
    changed
        When the last of them was written, in seconds since 1970.
    stamp
        Digest of names, sizes and tags of its files: other bytes have another one.
    """

    path: str
    size: int
    files: int
    changed: float
    stamp: str

    def identity(self, store: Store) -> str:
        """Identity of the slide in a run: from the listing where that has it, else its content is digested.

        Raises
        ------
        SlideError
            If it cannot be read.
        """
        if store.is_local or self.stamp.count("-") > 1:  # more than a size and an ETag or digest
            return file_identity(store.uri(self.path), store.endpoint_url)[1]
        return self.stamp


@dataclass(frozen=True, slots=True)
class Discovered:
    """What a place holds.

    Attributes
    ----------
    objects
        Everything that was listed.
    slides
        Sorted by path.
    arriving
        Paths of uploads that have begun and not ended.
    outputs
        Outputs of runs, which were passed over.
    """

    objects: int
    slides: tuple[Found, ...]
    arriving: frozenset[str]
    outputs: tuple[str, ...]

    def upload_of(self, slide: Found) -> str | None:
        """An upload in flight that belongs to a slide."""
        own = (slide.path, slide.path[: -len(MIRAX)] if slide.path.lower().endswith(MIRAX) else slide.path)
        below = tuple(f"{path}/" for path in own)
        return next((u for u in sorted(self.arriving) if u in own or u.startswith(below)), None)


def discover(store: Store) -> Discovered:
    """List a place and gather its slides.

    Raises
    ------
    StoreError
        If it cannot be listed.
    """
    arriving = uploads_in_flight(store)  # first: what ends meanwhile is in the listing
    root = gather(walk(store))
    slides = sorted(_finished(root, store), key=lambda slide: slide.path)
    return Discovered(root.files, tuple(slides), arriving, tuple(root.outputs))


@dataclass(slots=True)
class _Folder:
    """What is known of a folder while its objects pass by."""

    path: str
    size: int = 0
    files: int = 0
    changed: float = 0.0
    digest: Any = field(default_factory=hashlib.sha256)
    is_zarr: bool = False
    direct: list[Listed] = field(default_factory=list)
    inner: list[Found] = field(default_factory=list)
    companions: dict[str, _Folder] = field(default_factory=dict)
    names: set[str] = field(default_factory=set)
    mirax: set[str] = field(default_factory=set)
    outputs: list[str] = field(default_factory=list)

    def add(self, each: Listed) -> None:
        """Count an object that lies in the folder, at whatever depth."""
        self.size += each.size
        self.files += 1
        self.changed = max(self.changed, each.changed)
        parent = len(self.path.rpartition("/")[0]) + 1 if "/" in self.path else 0
        self.digest.update(f"{each.path[parent:]}\n{each.size}-{each.tag}\n".encode())

    def as_slide(self) -> Found:
        return Found(self.path, self.size, self.files, self.changed, f"{self.size}-{self.digest.hexdigest()}")


def gather(listed: Iterable[Listed]) -> _Folder:
    """The root of a listing in which the objects of every folder stand together, with what it holds."""
    root = _Folder("")
    opened: list[_Folder] = []
    for each in listed:
        parts = each.path.split("/")
        while opened and not each.path.startswith(f"{opened[-1].path}/"):
            _close(opened.pop(), opened[-1] if opened else root)
        for depth in range(len(opened), len(parts) - 1):
            parent, name = opened[-1] if opened else root, parts[depth]
            parent.names.add(name)
            folder = _Folder("/".join(parts[: depth + 1]), is_zarr=name.lower().endswith(ZARR_ENDINGS))
            opened.append(folder)
        root.files += 1
        for folder in opened:
            folder.add(each)
        _place(opened[-1] if opened else root, each, parts[-1])
    while opened:
        _close(opened.pop(), opened[-1] if opened else root)
    return root


def _place(folder: _Folder, each: Listed, name: str) -> None:
    """Note a file that lies directly in a folder, if it matters by its name."""
    if name in MARKERS:
        folder.is_zarr = True
    elif name.lower().endswith(_ENDINGS) and not name.startswith("."):
        folder.direct.append(each)
        if name.lower().endswith(MIRAX):
            folder.mirax.add(name[: -len(MIRAX)])


def _close(folder: _Folder, parent: _Folder) -> None:
    """Hand over to its parent what a folder turned out to be."""
    name = folder.path.rpartition("/")[2]
    parent.outputs += folder.outputs
    if name.startswith("."):
        return
    if name in parent.mirax:
        parent.companions[name] = folder
    elif folder.names >= OUTPUT_FOLDERS:
        parent.outputs.append(folder.path)
    elif folder.is_zarr or (_is_series(folder) and not folder.inner):
        parent.inner.append(folder.as_slide())
    else:
        parent.inner += folder.inner
        parent.inner += _files(folder)
    folder.inner = []


def _is_series(folder: _Folder) -> bool:
    """Whether all slides directly in a folder are DICOM instances: levels and tiles of one slide."""
    return bool(folder.direct) and all(each.path.lower().endswith(DICOM_ENDING) for each in folder.direct)


def _finished(root: _Folder, store: Store) -> Iterator[Found]:
    """Slides of the root, without the pictures that key files name."""
    if root.names >= OUTPUT_FOLDERS:
        root.outputs.append("")
        return
    slides = [*root.inner, *([_series(root)] if _is_series(root) else _files(root))]
    named: set[str] = set()
    for slide in slides:
        if slide.path.lower().endswith(KEY_FILES):
            folder, slash, _ = slide.path.rpartition("/")
            key_file = store.cat_range(slide.path, 0, min(slide.size, KEY_FILE_BYTES))
            named.update(f"{folder}{slash}{name}" for name in named_in(key_file))
    by_path = {slide.path: slide for slide in slides}
    for slide in slides:
        if slide.path.lower().endswith(KEY_FILES):
            folder = slide.path.rpartition("/")[0]
            beside = [by_path[p] for p in sorted(named & by_path.keys()) if p.rpartition("/")[0] == folder]
            yield _together(slide, beside)
        elif slide.path not in named:
            yield slide


def _series(root: _Folder) -> Found:
    """The listed place itself as one DICOM slide, whose instances lie directly in it."""
    lines = "".join(f"{each.path}\n{each.size}-{each.tag}\n" for each in root.direct)
    size = sum(each.size for each in root.direct)
    stamp = f"{size}-series-{hashlib.sha256(lines.encode()).hexdigest()}"
    return Found("", size, len(root.direct), max(each.changed for each in root.direct), stamp)


def _together(key_file: Found, beside: Sequence[Found]) -> Found:
    """A key file with the pictures beside it; all those of its folder, if several key files share it."""
    every = [key_file, *beside]
    digest = hashlib.sha256("".join(f"{each.path}\n{each.stamp}\n" for each in every).encode()).hexdigest()
    size = sum(each.size for each in every)
    return Found(key_file.path, size, len(every), max(each.changed for each in every), f"{size}-key-{digest}")


def _files(folder: _Folder) -> Iterator[Found]:
    """Slides that are files directly in a folder, a MIRAX file with the folder beside it."""
    for each in folder.direct:
        stem = each.path.rpartition("/")[2][: -len(MIRAX)]
        beside = folder.companions.get(stem) if each.path.lower().endswith(MIRAX) else None
        if beside is None:
            yield Found(each.path, each.size, 1, each.changed, f"{each.size}-{each.tag}")
            continue
        size = each.size + beside.size
        # As a run digests it: the file first, then the folder's, which its own digest has in order.
        yield Found(
            each.path,
            size,
            1 + beside.files,
            max(each.changed, beside.changed),
            f"{size}-mirax-{each.size}-{each.tag}-{beside.digest.hexdigest()}",
        )


def file_stem(name: str) -> str:
    """A slide's name without the ending of its format."""
    for ending in (*ZARR_ENDINGS, ".ome.tif", ".ome.tiff", *SLIDE_ENDINGS, DICOM_ENDING):
        if name.lower().endswith(ending):
            return name[: -len(ending)]
    return name
