"""A manifest drafted from a folder of slides, for a person to complete; and the slides of a folder.

What a file cannot show is left empty: whose tissue it is. What only its name or its colours show is a
guess, and the draft names what it guessed from.
"""

from __future__ import annotations

import csv
import io
import logging
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from botocore.exceptions import BotoCoreError

from her2core.errors import ManifestError, SlideError
from her2core.intake.discover import DICOM_ENDING, SLIDE_ENDINGS, discover, file_stem
from her2core.intake.inspect import inspect_slide
from her2core.intake.manifest import MAX_TEXT, UNSAFE
from her2core.readers.marks import MARKERS
from her2core.records import Assay, SlideInfo, SlideRow
from her2core.spelling import folded
from her2core.storage.sources import Scratch
from her2core.storage.store import Store
from her2core.text import cut, harmless

log = logging.getLogger(__name__)

MAX_SLIDES = 20_000
"""Most slides of one folder. Ours."""
COLUMNS = (
    *(
        "slide_id",
        "case_id",
        "patient_id",
        "specimen_id",
        "block_id",
        "site",
        "uri",
        "assay",
        "mpp",
        "roi_uri",
    ),
    *("reader_score", "x_assay_from", "x_size_px", "x_um_px", "x_problem"),
)
"""Columns of a draft: those that most cohorts need, and what was found."""
ASSAY_WORDS = {
    Assay.FISH: ("fish",),
    Assay.DISH: ("dish", "sish", "cish", "duish", "ddish"),
    Assay.IHC: ("ihc", "her2", "herceptest", "4b5", "cerbb2", "erbb2"),
}
"""Words of a file's name that identify the assay; the first that fits counts."""
OTHER_STAINS = frozenset(
    {"he", "hes", "h&e", "er", "pr", "ki67", "ki", "pdl1", "ck", "neg", "negative", "control"}
)
"""Words of a file's name that mean that it is no HER2 slide, or one to look at."""


@dataclass(frozen=True, slots=True)
class Drafted:
    """One slide of a draft: a row, and what is known of it."""

    row: SlideRow
    assay_from: str
    info: SlideInfo | None
    problem: str

    def cells(self) -> dict[str, str]:
        """The row as it is written; what a person must fill in is empty."""
        info = self.info
        known = info is not None and info.mpp is not None
        return {
            "slide_id": self.row.slide_id,
            "uri": self.row.uri,
            "assay": str(self.row.assay) if self.assay_from else "",
            "x_assay_from": self.assay_from,
            "x_size_px": f"{info.width} x {info.height}" if info else "",
            "x_um_px": f"{info.mpp:g} ({info.mpp_source})" if info and known else "",
            "x_problem": self.problem,
        }


def is_folder(uri: str, endpoint_url: str | None = None) -> bool:
    """Whether an address is a folder that is no slide itself."""
    store = Store(uri, endpoint_url=endpoint_url)
    if uri.rstrip("/").lower().endswith((*SLIDE_ENDINGS, DICOM_ENDING, ".csv", ".tsv", ".txt")):
        return False
    try:
        names = _names_in(store)
    except (NotADirectoryError, FileNotFoundError, PermissionError):
        return False  # reading it as a slide or a manifest reports what is wrong
    return bool(names) and not _is_slide_folder(names)


def find_slides(uri: str, endpoint_url: str | None = None) -> list[str]:
    """Addresses of the slides in a folder and the folders in it, sorted.

    A folder that is an OME-Zarr or holds a DICOM series is one slide, and so is a MIRAX file with its folder.

    Raises
    ------
    ManifestError
        If there is none, or more than anybody means.
    StoreError
        If the store cannot be reached.
    """
    store = Store(uri, endpoint_url=endpoint_url)
    store.reach()
    if store.is_local and not os.path.isdir(store.root):
        raise ManifestError(f"{uri}: no folder that can be read.")
    found = [store.uri(slide.path) for slide in discover(store).slides]
    if len(found) > MAX_SLIDES:
        raise ManifestError(f"{uri}: more than {MAX_SLIDES} slides; name a smaller folder.")
    if not found:
        raise ManifestError(f"{uri}: no slides in it; expected files such as {', '.join(SLIDE_ENDINGS[:6])}.")
    return found


def _names_in(store: Store) -> list[str]:
    """Names of what a folder holds; nothing hidden."""
    root = store.root.rstrip("/")
    listed: list[str] = store.fs.ls(root, detail=False)
    paths = (path.rstrip("/") for path in listed)
    names = [path.rpartition("/")[2] for path in paths if path != root]  # of a file, ls lists itself
    return [name for name in names if not name.startswith(".")]


def _is_slide_folder(names: Sequence[str]) -> bool:
    """Whether a folder of these names is one slide: an OME-Zarr, or a DICOM series and no other slides."""
    if any(name in MARKERS for name in names):
        return True
    slides = [name for name in names if name.lower().endswith((*SLIDE_ENDINGS, DICOM_ENDING))]
    return bool(slides) and all(name.lower().endswith(DICOM_ENDING) for name in slides)


def draft(uris: Sequence[str], scratch: Scratch, endpoint_url: str | None = None) -> Iterator[Drafted]:
    """A row for each slide, in order: named after its file, of the assay that name or colours suggest."""
    taken: set[str] = set()
    for uri in uris:
        name = uri.rstrip("/").rpartition("/")[2]
        info, problem = None, ""
        try:
            # An identity that serves no key: nothing is hashed.
            info = inspect_slide(uri, identity="draft", endpoint_url=endpoint_url, scratch=scratch)
            problem = "; ".join(info.problems)
        except SlideError as error:
            problem = str(error)
        except (OSError, BotoCoreError) as error:
            problem = f"cannot be read: {type(error).__name__}"
        assay, source = assay_of(name, info)
        row = SlideRow(slide_id_of(name, taken), "", uri, assay or Assay.IHC)
        yield Drafted(row, source, info, cut(" ".join(problem.split()), 300))


def as_csv(drafted: Sequence[Drafted]) -> str:
    """The draft as a manifest."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, restval="", lineterminator="\n")
    writer.writeheader()
    for one in drafted:
        writer.writerow({name: harmless(cell) for name, cell in one.cells().items()})
    return text.getvalue()


def assay_of(name: str, info: SlideInfo | None) -> tuple[Assay | None, str]:
    """The assay by the name, or else by the pixels, and which of them decided."""
    words = {word for word in re.split(r"[^a-z0-9&]+", name.casefold()) if word}
    for assay, known in ASSAY_WORDS.items():
        if words & set(known):
            return assay, "name"
    if words & OTHER_STAINS:
        return None, ""
    if info is not None and info.assay_guess:
        return Assay(info.assay_guess), "pixels"
    return None, ""


def slide_id_of(name: str, taken: set[str]) -> str:
    """A file's name without its ending, made fit to name a slide and unlike all others."""
    stem = file_stem(name)
    plain = "".join(letter if letter.isprintable() else "-" for letter in stem)
    plain = re.sub(r'[/\\:*?"<>|#%&]+|\.\.+', "-", plain).strip()
    plain = re.sub(r"^[\W_]+", "", plain)[: MAX_TEXT - 8] or "slide"
    if UNSAFE.search(plain):
        plain = "slide"
    unique, number = plain, 2
    while folded(unique) in taken:
        unique, number = f"{plain}-{number}", number + 1
    taken.add(folded(unique))
    return unique
