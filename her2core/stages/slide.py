"""Stage ``slide``: what it works from and what it leaves behind, whatever the assay.

Everything in this stage follows from the published parts, the region of interest and the score's parameters,
so other cut-offs or another guideline re-score a slide in seconds. `slide_ihc` and `slide_ish` do the work.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from pathlib import PurePosixPath
from typing import Any, Generic, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from her2core.cases.specimens import SlideOutcome
from her2core.errors import Reason, SlideError
from her2core.guidelines.rules_ihc import load_rules
from her2core.guidelines.rules_ish import load_ish_rules
from her2core.heterogeneity.metrics import Metric
from her2core.heterogeneity.regions import NucleusRegions, Regions
from her2core.intake.roi import ReadRoi, read_roi, roi_identity
from her2core.lake.cube import write_regions
from her2core.lake.rows_cells import tumour_mask
from her2core.lake.rows_regions import region_rows
from her2core.lake.schema import REGIONS
from her2core.lake.slide_files import DataFile, write_slide_file
from her2core.params import HeterogeneityParams, IHCParams, ISHParams, ISHScoreParams, RoiParams, ScoreParams
from her2core.pictures.canvas import jpeg_bytes, read_thumbnail
from her2core.pictures.regions import regions_figure
from her2core.profile.sampling import Pixels
from her2core.pyramid.reader import PyramidReader
from her2core.records import (
    CellsRef,
    OutlinesRef,
    OutlinesUsed,
    PyramidRef,
    SlideInfo,
    SlideProfile,
    SlideRow,
    SlideState,
    keyed_fields,
)
from her2core.scoring.ihc import SlideScore, Verdict
from her2core.scoring.ish import ISHScore
from her2core.scoring.tumour import load_model
from her2core.stages.finished import SlideFinished
from her2core.stages.parts import forget_parts, read_parts
from her2core.storage.store import Store, content_key
from her2core.storage.waiting import Uploads
from her2core.versions import SLIDE

Score = TypeVar("Score", ScoreParams, ISHScoreParams)
Kernel = TypeVar("Kernel", IHCParams, ISHParams)


@dataclass(frozen=True, slots=True)
class SlideJob(Generic[Score, Kernel]):
    """What the last stage of a slide works from."""

    store: Store
    row: SlideRow
    info: SlideInfo
    pyramid: PyramidRef
    profile: SlideProfile
    cells: CellsRef
    params: Score
    kernel: Kernel
    endpoint_url: str | None
    heterogeneity: HeterogeneityParams
    roi_params: RoiParams = field(default_factory=RoiParams)
    roi_at: str | None = None
    outlines: OutlinesRef | None = None
    roi_digest: str | None = None
    contours: str | None = None

    @property
    def roi_uri(self) -> str | None:
        """Where the region of interest lies; the row may show a pseudonym."""
        return self.roi_at or self.row.roi_uri

    def region_digest(self) -> str:
        """Identity of the region's file when the job was made; nothing without a region."""
        if self.roi_uri is None:
            return ""
        return self.roi_digest or roi_identity(self.roi_uri, self.endpoint_url)

    def roi(self) -> ReadRoi | None:
        """Region of interest that the manifest names.

        Raises
        ------
        SlideError
            ``ROI_INVALID`` if it cannot be used, ``FILE_CHANGED`` if it is another one by now.
        """
        if self.roi_uri is None:
            return None
        found = read_roi(
            self.roi_uri,
            self.info.height,
            self.info.width,
            self.pyramid.mpp,
            self.roi_params,
            endpoint_url=self.endpoint_url,
            digest=self.region_digest(),
        )
        if roi_identity(self.roi_uri, self.endpoint_url) != self.region_digest():
            raise SlideError(
                Reason.FILE_CHANGED,
                f"{self.row.roi_uri}: replaced while it was read; run again when it is complete.",
            )
        return replace(found, used=replace(found.used, source=self.row.roi_uri or self.roi_uri))

    def outlines_used(self) -> OutlinesUsed | None:
        """What another program's nuclei were made of, by the name that may be shown."""
        if self.outlines is None:
            return None
        used = self.outlines.used
        return replace(used, source=self.row.cells_uri or used.source)

    def columns(self, names: Sequence[str]) -> pa.Table:
        """Columns of all kernel rows, in the order of `bands`."""
        if not self.cells.parts:
            return pa.table({name: pa.array([], pa.float64()) for name in names})
        parts = read_parts(self.store, sorted(self.cells.parts))
        return pa.concat_tables([pq.read_table(pa.BufferReader(p), columns=list(names)) for p in parts])

    def bands(self) -> Iterator[pa.Table]:
        """Kernel rows, one row of work units at a time: each band lies below the one before."""
        names = sorted(self.cells.parts)
        parts = zip(names, read_parts(self.store, names), strict=True)
        for _, band in groupby(parts, key=lambda part: PurePosixPath(part[0]).name.split("-")[0]):
            yield pa.concat_tables([pq.read_table(pa.BufferReader(body)) for _, body in band])


def result_key(
    row: SlideRow,
    cells_key: str,
    params: ScoreParams | ISHScoreParams,
    heterogeneity: HeterogeneityParams,
    roi: RoiParams,
    region: str,
    contours: str | None = None,
) -> str:
    """Content key of a slide's result: parameters, cells, manifest row and region of interest.

    Parameters
    ----------
    row
        As tables and records show it.
    region
        Identity of the region's file; empty without one.
    contours
        Where the outlines of its cells lie, if they are kept.
    """
    name, version = _rules(params)
    inputs = [cells_key, region, f"{name} {version}", str(heterogeneity), str(roi)]
    inputs += [f"{name}={value}" for name, value in keyed_fields(row).items()]
    if isinstance(params, ScoreParams):
        inputs.append(f"tumour model {load_model(params.tumour_model).version}")
    if contours is not None:  # the row gives their place
        inputs.append(contours)
    return content_key("slide", SLIDE, params, inputs)


def _rules(params: ScoreParams | ISHScoreParams) -> tuple[str, int]:
    """Name and version of the rule set."""
    if isinstance(params, ISHScoreParams):
        ish = load_ish_rules(params.rules)
        return ish.name, ish.version
    ihc = load_rules(params.rules)
    return ihc.name, ihc.version


def inside(roi: ReadRoi | None, band: pa.Table) -> NDArray[np.bool_] | None:
    """Which rows of a band lie in the region of interest; None without one."""
    if roi is None:
        return None
    return roi.region.contains(band["y_px0"].to_numpy(), band["x_px0"].to_numpy())


@dataclass(frozen=True, slots=True)
class CloseUp:
    """Fields at full resolution: a picture (JPEG), and the outlines in it (GeoJSON)."""

    picture: bytes
    outlines: bytes


@dataclass(frozen=True, slots=True)
class SlideResult:
    """What an assay makes of a slide's rows, before it is written down.

    Attributes
    ----------
    file
        Rows of ``cells`` or ``nuclei``.
    sweep
        Regions at every size.
    draw
        Draws the slide's picture over its thumbnail, given with its µm/px.
    roi
        Region of interest that was used.
    probes
        As in `SlideOutcome`.
    close_up
        Fields of the slide, where there are any.
    """

    score: SlideScore | ISHScore
    file: DataFile | None
    sweep: Sequence[Regions | NucleusRegions]
    metrics: tuple[Metric, ...]
    draw: Callable[[Pixels, float], bytes]
    roi: ReadRoi | None
    probes: tuple[str, ...] = ()
    close_up: CloseUp | None = None


def write_outputs(job: SlideJob[Any, Any], key: str, result: SlideResult) -> SlideFinished:
    """Write a slide's regions and pictures, and return its outcome."""
    forget_parts()
    store, row, ref, score = job.store, job.row, job.pyramid, result.score
    picture, maps, close_up = f"pictures/{row.slide_id}-{key[:8]}.jpg", None, None
    with Uploads(store) as uploads:
        write_regions(store, key, result.sweep, row.slide_id)
        thumbnail, um_px = read_thumbnail(PyramidReader(store, ref), ref)
        uploads.put({picture: result.draw(thumbnail, um_px)})
        if result.close_up is not None:
            close_up = f"pictures/{row.slide_id}-fields-{key[:8]}.jpg"
            shown, outlines = result.close_up.picture, result.close_up.outlines
            uploads.put({close_up: shown, close_up.removesuffix(".jpg") + ".geojson": outlines})
        if len(result.sweep[0]):
            maps = f"pictures/{row.slide_id}-regions-{key[:8]}.jpg"
            drawn = regions_figure(
                thumbnail, um_px, ref.channels, result.sweep, job.heterogeneity, row.slide_id
            )
            uploads.put({maps: jpeg_bytes(drawn)})
        region_file = write_slide_file(store, REGIONS, key, region_rows(row, result.sweep))
    outcome = SlideOutcome(
        slide=row,
        state=state_of(score),
        info=job.info,
        pyramid=ref,
        profile=job.profile,
        score=score if isinstance(score, SlideScore) else None,
        ish=score if isinstance(score, ISHScore) else None,
        tumour_mask=tumour_mask(row.roi_uri is not None, row.assay),
        roi=result.roi.used if result.roi else None,
        outlines=job.outlines_used(),
        probes=result.probes,
        picture=picture,
        regions_picture=maps,
        fields_picture=close_up,
        score_key=key,
        contours=job.contours,
    )
    return SlideFinished(outcome, result.file, region_file, result.metrics)


def state_of(score: SlideScore | ISHScore) -> SlideState:
    """Scored, or measured without a score."""
    verdict = score.verdict
    found = verdict.score if isinstance(verdict, Verdict) else verdict.group
    return SlideState.SCORED if found else SlideState.INDETERMINATE
