"""What a slide is, from its header and a few of its pixels, before anything expensive is done with it."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np
import numpy.typing as npt

from her2core.errors import Reason, SlideError
from her2core.readers import SlideReader, needs_local_copy, open_slide
from her2core.readers.base import list_scenes
from her2core.readers.probe import probe
from her2core.readers.scale import plausible_range
from her2core.readers.tiled import begin_reading
from her2core.records import RGB, Assay, Box, SlideInfo, SlideRow
from her2core.storage.sources import Scratch, file_identity, slide_bytes
from her2core.text import counted

SAMPLES = 6
"""Sample fields along each axis of the slide; 36 fields meet any tissue of a few mm."""
SAMPLE_PX = 128
"""Edge of a sample field, px."""
STAINED_OD = 0.15
"""OD of the strongest channel above which a pixel is stained (ours; glass stays below 0.05)."""
BROWN_FRACTION = 0.02
"""Least share of brown among the stained pixels for the guess HER2-IHC (ours)."""
BROWN_OD = 0.3
"""OD in blue from which a pixel can be called brown (ours)."""
BROWN_RATIO = 1.2
"""Least ratio of a brown pixel's OD in blue to green, and in green to red: DAB has 1.4 and 2.1 (ours)."""
DARK = 80
"""Median brightness below which a picture can only be fluorescence (ours)."""


def inspect_slide(
    uri: str | os.PathLike[str],
    *,
    mpp: float | None = None,
    scene: str | None = None,
    assay: Assay | None = None,
    channels: str | None = None,
    endpoint_url: str | None = None,
    name: str | None = None,
    identity: str | None = None,
    header_only: bool = False,
    scratch: Scratch | None = None,
) -> SlideInfo:
    """Open a slide, check its header, and look at a few fields.

    Parameters
    ----------
    uri
        Local path or URI; a slide that ``needs_local_copy`` is given by its copy, with its URI as ``name``.
    mpp, scene, assay, channels
        The manifest's values. Without the assay a slide is taken as bright field, or as fluorescence where
        it cannot be that.
    identity
        Identity of the slide where it is known (``sources.file_identity``); otherwise it is found here.
    header_only
        Neither hash the file nor decode a pixel. The identity then serves no content key, and no assay is
        guessed.
    scratch
        Where a remote slide whose format needs the whole file is copied to first; without, it is refused.

    Raises
    ------
    SlideError
        Where the slide cannot be read at all. What merely forbids scoring it (no scale, an implausible
        one) is in ``problems``; ``require_scorable`` raises that.
    """
    if scratch is not None and needs_local_copy(os.fspath(uri), endpoint_url=endpoint_url):
        remote = os.fspath(uri)
        with scratch.stage(remote, endpoint_url) as path:
            known = identity or file_identity(remote, endpoint_url)[1]
            return inspect_slide(
                path,
                mpp=mpp,
                scene=scene,
                assay=assay,
                channels=channels,
                name=name or remote,
                identity=known,
                header_only=header_only,
            )
    if header_only and identity is None:
        identity = f"{slide_bytes(os.fspath(uri), endpoint_url)}-unverified"
    opened = partial(
        open_slide,
        uri,
        scene=scene,
        mpp=mpp,
        uri=name,
        identity=identity,
        channels=channels,
        endpoint_url=endpoint_url,
    )
    with opened(assay=assay) if assay else _opened_as_it_can_be(opened) as reader:
        if header_only:
            return reader.info
        probe(reader)
        return replace(reader.info, assay_guess=guess_assay(reader))


def inspect_row(
    row: SlideRow, scratch: Scratch, endpoint_url: str | None, *, header_only: bool = False
) -> SlideInfo:
    """Inspect a slide as its manifest row has it, and refuse what cannot be scored; see `inspect_slide`.

    Raises
    ------
    SlideError
        Where the slide cannot be read, or has no usable scale.
    """
    info = inspect_slide(
        row.uri,
        mpp=row.mpp,
        scene=row.scene,
        assay=row.assay,
        channels=row.channels,
        endpoint_url=endpoint_url,
        header_only=header_only,
        scratch=scratch,
    )
    require_scorable(info, row.assay)
    return info


def _opened_as_it_can_be(opened: Callable[..., SlideReader]) -> SlideReader:
    """A slide of unknown assay: in colour or, where it has none, by its channels."""
    try:
        return opened(assay=None)
    except SlideError as error:
        if error.reason not in (Reason.FILE_UNREADABLE, Reason.SCENE_AMBIGUOUS):  # pages may be channels
            raise
        try:
            return opened(assay=Assay.FISH)
        except SlideError as other:
            raise (other if other.reason == Reason.CHANNELS_UNKNOWN else error) from None


def require_scorable(info: SlideInfo, assay: Assay) -> float:
    """The slide's µm/px, when its header allows it to be scored.

    Raises
    ------
    SlideError
        ``SCALE_UNKNOWN`` or ``SCALE_IMPLAUSIBLE``, naming the manifest column that corrects it.
    """
    if info.mpp is None:
        raise SlideError(
            Reason.SCALE_UNKNOWN,
            f"{info.uri}: neither the manifest nor the file gives a credible pixel size in µm; {assay} "
            "cannot be measured without. Give it in the manifest column `mpp`",
        )
    low, high = plausible_range(assay)
    if not low <= info.mpp <= high:
        raise SlideError(
            Reason.SCALE_IMPLAUSIBLE,
            f"{info.uri}: {info.mpp:g} µm/px (from {info.mpp_source}); a scan for {assay} has {low}-{high}. "
            "Correct the manifest column `mpp`",
        )
    return info.mpp


def guess_assay(reader: SlideReader) -> str | None:
    """Assay that the colours of a few fields suggest, or None where they suggest none.

    Brown means an IHC with DAB (of HER2, it is assumed), a dark ground FISH. Blue alone decides nothing: an
    IHC without any stain, a H&E and a brightfield ISH all look so at a distance.
    """
    if reader.info.channels != RGB:
        return str(Assay.FISH)
    sample = _sample(reader)
    if float(np.median(sample.max(axis=0))) < DARK:
        return str(Assay.FISH)
    ground = np.maximum(np.percentile(sample, 95, axis=1), 1.0)
    of_level = -np.log10(np.clip(np.arange(256) / ground[:, None], 1 / 255, 1.0))
    red, green, blue = (od[channel] for od, channel in zip(of_level, sample, strict=True))
    stained = (red > STAINED_OD) | (green > STAINED_OD) | (blue > STAINED_OD)
    brown = (blue > BROWN_OD) & (blue > BROWN_RATIO * green) & (green > BROWN_RATIO * red)
    return str(Assay.IHC) if stained.any() and brown[stained].mean() > BROWN_FRACTION else None


def _sample(reader: SlideReader) -> npt.NDArray[np.uint8]:
    """Pixels of evenly spread fields, shape ``(3, pixel)``."""
    info = reader.info
    h, w = min(SAMPLE_PX, info.height), min(SAMPLE_PX, info.width)
    ys, xs = (
        [step * (size - edge) // (2 * SAMPLES) for step in range(1, 2 * SAMPLES, 2)]
        for size, edge in ((info.height, h), (info.width, w))
    )
    boxes = [Box(y0, x0, y0 + h, x0 + w) for y0 in ys for x0 in xs]
    begin_reading(reader, boxes)
    fields = np.empty((len(boxes), h, w, 3), np.uint8)
    for field, box in zip(fields, boxes, strict=True):
        reader.read_region(box.y0, box.x0, field)
    return np.ascontiguousarray(fields.reshape(-1, 3).T)


def describe(info: SlideInfo) -> str:
    """A slide in a few lines of text.

    Examples
    --------
    ::

        cohort/a1.svs
          aperio, 11456 x 5728 px in tiles of 256 x 256 (jpeg), 3 levels, 8.2 MB, read by tiff
          0.25 µm/px (aperio): 2.9 x 1.4 mm, objective 40x
          looks like HER2-IHC
    """
    lines = [
        info.uri,
        f"  {info.format}, {info.width} x {info.height} px in tiles of {info.tile_width} x "
        f"{info.tile_height} ({info.compression}), {counted(len(info.levels), 'level')}, "
        f"{info.size_bytes / 1e6:.1f} MB, read by {info.reader}",
    ]
    power = f", objective {info.objective_power:g}x" if info.objective_power else ""
    if info.mpp is not None:
        width_mm, height_mm = info.width * info.mpp / 1e3, info.height * info.mpp / 1e3
        lines.append(f"  {info.mpp:g} µm/px ({info.mpp_source}): {width_mm:.1f} x {height_mm:.1f} mm{power}")
    elif power:
        lines.append(f"  {power[2:]}")
    if len(info.scenes) > 1:
        sizes = dict(zip(info.scenes, info.scene_sizes, strict=False))
        lines.append(f"  scene {info.scene} of {list_scenes(sizes) or ', '.join(info.scenes)}")
    if info.channels != RGB:
        foci = f", {info.z_planes} focal planes" if info.z_planes > 1 else ""
        lines.append(f"  channels {info.source_channels} of the file, {info.dtype}{foci}")
    if info.colour_profile:
        lines.append(f"  colour profile {info.colour_profile}: carried along, not applied")
    if info.assay_guess:
        lines.append(f"  looks like {info.assay_guess}")
    lines += [f"  ! {problem}" for problem in info.problems]
    return "\n".join(lines)
