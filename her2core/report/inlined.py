"""Which pictures the page carries itself, so that it opens from a mail, and which it only refers to.

Pictures are made WebP at their full size for the page; the files of the run stay as they are. What a
person should look at comes first, until the page's budget is spent.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from PIL import Image

from her2core.report.run_tables import Row
from her2core.storage.store import Store

Which = TypeVar("Which", int, str)

KINDS = {"picture": "slide", "fields_picture": "fields", "regions_picture": "regions"}
"""Columns of ``slides`` that name pictures, and what they are called in the page."""
PICTURE_BYTES = 12 * 10**6
"""Pictures at full size that a page carries. With the rest it stays below 25 MB, the limit of most mail."""
THUMBNAIL_BYTES = 4 * 10**6
"""Thumbnails that a page carries: of about 600 slides. Ours."""
THUMBNAIL_PX = 300
"""Longest edge of a thumbnail. Ours."""
QUALITY, THUMBNAIL_QUALITY = 88, 76
"""Quality of WebP: at 88 the lines of a cell's contour are as in the stored picture. Ours."""
MOST_PIXELS = 64 * 10**6
"""Largest picture that is decoded; ours have 2 megapixels. Ours."""
THREADS = 4
"""Pictures that are read and encoded at the same time. Ours."""


@dataclass(frozen=True, slots=True)
class Inlined:
    """Pictures by slide.

    Attributes
    ----------
    thumbnails
        Data URI by place of the slide.
    pictures
        Data URIs by kind, by place of the slide.
    n_slides
        Slides that have a picture.
    """

    thumbnails: dict[int, str]
    pictures: dict[int, dict[str, str]]
    n_slides: int


def inline_pictures(
    store: Store,
    slides: Sequence[Row],
    order: Sequence[int],
    picture_bytes: int = PICTURE_BYTES,
    thumbnail_bytes: int = THUMBNAIL_BYTES,
) -> Inlined:
    """Read pictures, in this order of slides, until the budgets are spent.

    Parameters
    ----------
    store
        Output of the run.
    slides
        Rows of the table ``slides``.
    order
        Places of the slides, those that matter most first.
    """
    pictured = [at for at in order if slides[at]["picture"]]
    thumbnails: dict[int, str] = {}
    left = thumbnail_bytes
    for at, data in _made(store, [(at, slides[at]["picture"]) for at in pictured], small=True):
        if data is None:
            continue
        left -= len(data)
        if left < 0:
            break
        thumbnails[at] = _uri(data)
    pictures: dict[int, dict[str, str]] = {}
    left = picture_bytes
    for at in pictured:
        wanted = [(kind, slides[at][kind]) for kind in KINDS if slides[at][kind]]
        found = dict(_made(store, wanted, small=False))
        left -= sum(len(data) for data in found.values() if data is not None)
        if left < 0:
            break
        pictures[at] = {KINDS[kind]: _uri(data) for kind, data in found.items() if data is not None}
    return Inlined(thumbnails, pictures, len(pictured))


def _made(
    store: Store, wanted: Sequence[tuple[Which, str]], *, small: bool
) -> Iterator[tuple[Which, bytes | None]]:
    """The pictures of these paths as WebP, in their order; None for one that is not there any more."""
    with ThreadPoolExecutor(THREADS) as pool:
        for start in range(0, len(wanted), 4 * THREADS):  # few beyond the budget are made in vain
            some = wanted[start : start + 4 * THREADS]
            made = pool.map(partial(_webp, store, small=small), [path for _, path in some])
            for (which, _), data in zip(some, made, strict=True):
                yield which, data


def _webp(store: Store, path: str, *, small: bool) -> bytes | None:
    try:
        data = store.read_bytes(path)
    except FileNotFoundError:
        return None
    with Image.open(io.BytesIO(data), formats=["JPEG", "PNG"]) as stored:
        if stored.width * stored.height > MOST_PIXELS:
            return None
        image = stored.convert("RGB")
    if small:
        image.thumbnail((THUMBNAIL_PX, THUMBNAIL_PX))
    out = io.BytesIO()
    image.save(out, "WEBP", quality=THUMBNAIL_QUALITY if small else QUALITY, method=4)
    return out.getvalue()


def _uri(data: bytes) -> str:
    return f"data:image/webp;base64,{base64.b64encode(data).decode()}"
