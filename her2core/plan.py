"""What a cohort will take, from its slides' headers alone: shards, chunks, bytes, objects, CPU time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from botocore.exceptions import BotoCoreError

from her2core.config import Config
from her2core.errors import Her2Error, SlideError
from her2core.intake.inspect import inspect_row, require_scorable
from her2core.intake.manifest import require_rules
from her2core.intake.outlines import check_outlines
from her2core.intake.roi import read_roi
from her2core.pyramid.codecs import FALLBACK
from her2core.pyramid.writer import estimate_size, grid_of, settle
from her2core.records import SlideInfo, SlideRow
from her2core.scoring.keyed import Judging
from her2core.stages.failures import failure_of
from her2core.text import counted

CODEC_MS_MPX = {"source": 13.2, "blosc-lz4": 15.8, "zstd": 20.2, "jpeg-90": 17.9, "htj2k": 58.5}
"""Milliseconds a core takes for a megapixel that is converted and read again. Ours: bench_codecs.py on tissue
cores laid out as a JPEG slide of 131 megapixels; slides of JPEG 2000 take four times as long to read."""
CODEC_GETS = {"source": 2.2, "blosc-lz4": 9.8, "zstd": 8.6, "jpeg-90": 5.1, "htj2k": 7.7}
"""GET requests for each level-0 shard that cells are measured on. Ours, measured there."""
REST_MS_MPX = 16.0
"""Milliseconds a core takes for a megapixel beside that, glass included: cells 10.3, profile 2.3, slide 3.4.
Ours, measured on a mosaic of real cores of 525 megapixels, three fifths of it tissue; glass takes less."""
SLIDE_CPU_S = 1.3
"""Processor seconds of a slide that do not depend on its size: worker 0.9, driver with scheduler 0.2,
Prefect's server 0.2. Ours: 200 small slides on a crowded machine; see docs/scale.md."""
SLIDE_PUTS, SHARD_PUTS, SHARD_GETS = 36, 0.11, 12.4
"""PUT (with LIST) requests of a slide beside its pyramid, and PUT and GET (with HEAD) requests for each
level-0 shard: ranges of the slide, parts. Ours: bench_store.py, a slide of 525 megapixels."""


@dataclass(frozen=True, slots=True)
class CodecPlan:
    """What a cohort takes with one codec.

    Attributes
    ----------
    stored_bytes
        Size of the pyramids; tables and pictures are some percent of it.
    cpu_hours
        Of all processes, from slides to tables, where three fifths of a slide are tissue; more takes longer.
    requests, cpu, month
        Price of the run's requests, of its processor time, and of keeping the pyramids for a month.
    fallbacks
        Slides that are stored as `FALLBACK` instead: tiles that cannot be copied, or channels.
    """

    codec: str
    chosen: bool
    stored_bytes: int
    puts: int
    gets: int
    cpu_hours: float
    requests: float
    cpu: float
    month: float
    currency: str
    fallbacks: int = 0

    def cells(self, source_bytes: int) -> dict[str, str]:
        """The codec as a line of a table."""
        return {
            "codec": self.codec + (" *" if self.chosen else ""),
            "pyramids": f"{_size(self.stored_bytes)} (×{self.stored_bytes / max(source_bytes, 1):.1f})",
            "PUT": f"{self.puts:,}",
            "GET": f"{self.gets:,}",
            "CPU": _time(self.cpu_hours * 3600),
            f"{self.currency} S3": f"{self.requests:.2f}",
            f"{self.currency} CPU": f"{self.cpu:.2f}",
            f"{self.currency}/month": f"{self.month:.2f}",
            "as lz4": str(self.fallbacks) if self.fallbacks else "–",
        }


@dataclass(frozen=True, slots=True)
class SlidePlan:
    """One slide of a plan; of one that cannot be scored (``problem``) or is left out the rest is 0.

    Attributes
    ----------
    doubt
        What a person should look at, of a slide that can be scored.
    """

    slide_id: str
    height_px0: int = 0
    width_px0: int = 0
    mpp: float = 0.0
    tasks: int = 0
    chunks: int = 0
    objects: int = 0
    source_bytes: int = 0
    pyramid_bytes: int = 0
    cpu_s: float = 0.0
    problem: str = ""
    excluded: str = ""
    doubt: str = ""

    def cells(self) -> dict[str, str]:
        """The plan as a line of a table."""
        left_out = self.problem or (f"excluded: {self.excluded}" if self.excluded else "")
        names = ("size", "µm/px", "shards", "chunks", "objects", "source", "pyramid", "CPU")
        cells = ("–",) * len(names)
        if not left_out:
            growth = self.pyramid_bytes / max(self.source_bytes, 1)
            cells = (
                f"{self.width_px0} × {self.height_px0}",
                f"{self.mpp:.3f}",
                f"{self.tasks:,}",
                f"{self.chunks:,}",
                f"{self.objects:,}",
                _size(self.source_bytes),
                f"{_size(self.pyramid_bytes)} (×{growth:.1f})",
                _time(self.cpu_s),
            )
        return {"slide": self.slide_id, **dict(zip(names, cells, strict=True)), "why": left_out or self.doubt}


@dataclass(frozen=True, slots=True)
class CohortPlan:
    """The plan of a manifest."""

    slides: tuple[SlidePlan, ...]
    codecs: tuple[CodecPlan, ...] = ()

    def codec_cells(self) -> list[dict[str, str]]:
        """Every codec as a line of a table."""
        source = sum(slide.source_bytes for slide in self.slides)
        return [one.cells(source) for one in self.codecs] if source else []

    @property
    def problems(self) -> int:
        """Number of slides that cannot be scored as they are."""
        return sum(bool(slide.problem) for slide in self.slides)

    def lines(self) -> list[str]:
        """The sums, in a few lines of text."""
        source, stored = (sum(getattr(s, f) for s in self.slides) for f in ("source_bytes", "pyramid_bytes"))
        excluded = sum(bool(slide.excluded) for slide in self.slides)
        return [
            f"{counted(len(self.slides), 'slide')}, {self.problems} with problems, {excluded} excluded; "
            f"{counted(sum(s.tasks for s in self.slides), 'shard task')}, "
            f"{counted(sum(s.chunks for s in self.slides), 'chunk')}, "
            f"{counted(sum(s.objects for s in self.slides), 'object')}",
            f"{_size(source)} of slides become about {_size(stored)} of pyramids",
            f"about {_time(sum(s.cpu_s for s in self.slides))} of CPU time if three fifths of it is tissue",
        ]


def plan_cohort(rows: Sequence[SlideRow], config: Config) -> CohortPlan:
    """Plan a manifest without reading a pixel or hashing a file.

    A remote slide whose format needs the whole file on a disk is staged for its header.

    Raises
    ------
    ManifestError
        If there are no rules for the specimens that slides state.
    """
    require_rules(rows, Judging(config.ihc_score, config.ish_score))
    planned = [_plan(row, config) for row in rows]
    infos = [info for _, info in planned if info is not None]
    names = dict.fromkeys([config.pyramid.codec, *CODEC_MS_MPX])
    codecs = tuple(_plan_codec(infos, config, name) for name in names)
    return CohortPlan(tuple(slide for slide, _ in planned), codecs)


def _plan_codec(infos: Sequence[SlideInfo], config: Config, codec: str) -> CodecPlan:
    """What slides take with a codec."""
    stored, puts, gets, cpu, fallbacks = 0, 0, 0.0, 0.0, 0
    for info in infos:
        params, used = replace(config.pyramid, codec=codec), codec
        try:
            estimate = estimate_size(info, params)
        except SlideError:  # of channels; a run would refuse the slide
            params, used = replace(params, codec=FALLBACK), FALLBACK
            estimate = estimate_size(info, params)
        settled = settle(info, params)
        used = FALLBACK if settled.fallback else used
        fallbacks += used != codec
        stored += estimate.stored_bytes
        rows, columns = grid_of(info.height, info.width, settled.params).shard_counts(0)
        shards = rows * columns
        puts += round(estimate.objects + SLIDE_PUTS + shards * SHARD_PUTS)
        gets += shards * (CODEC_GETS[_measured(used)] + SHARD_GETS)
        cpu += _cpu_s(info, used)
    prices, hours, reads = config.prices, cpu / 3600, round(gets)
    return CodecPlan(
        codec=codec,
        chosen=codec == config.pyramid.codec,
        stored_bytes=stored,
        puts=puts,
        gets=reads,
        cpu_hours=hours,
        requests=(puts * prices.put_1000 + reads * prices.get_1000) / 1000,
        cpu=hours * prices.cpu_hour,
        month=stored / 1e9 * prices.gb_month,
        currency=prices.currency,
        fallbacks=fallbacks,
    )


def _measured(codec: str) -> str:
    """A codec that was measured: of JPEG of another quality, that of 90."""
    return codec if codec in CODEC_MS_MPX else "jpeg-90"


def _cpu_s(info: SlideInfo, codec: str) -> float:
    """Processor seconds of a slide that is stored with a codec."""
    return SLIDE_CPU_S + info.height * info.width / 1e9 * (CODEC_MS_MPX[_measured(codec)] + REST_MS_MPX)


def _plan(row: SlideRow, config: Config) -> tuple[SlidePlan, SlideInfo | None]:
    if row.exclude:
        return SlidePlan(row.slide_id, excluded=row.exclude), None
    try:
        info = inspect_row(row, config.run.scratch(), config.run.endpoint_url, header_only=True)
        estimate = estimate_size(info, config.pyramid)
        doubts: tuple[str, ...] = ()
        if row.roi_uri is not None:
            endpoint, size = config.run.endpoint_url, (info.height, info.width)
            mpp = require_scorable(info, row.assay)
            found = read_roi(row.roi_uri, *size, mpp, config.roi, endpoint_url=endpoint)
            doubts = found.used.doubts
        if row.cells_uri is not None:
            check_outlines(row.cells_uri, config.run.endpoint_url)
    except (Her2Error, OSError, BotoCoreError) as error:
        why = str(failure_of(error)).replace(f"{row.uri}: ", "", 1)  # the slide's own place adds nothing
        return SlidePlan(row.slide_id, problem=why), None
    settled = settle(info, config.pyramid)
    grid = grid_of(info.height, info.width, settled.params)
    chunks = 0
    for level in grid.stored:
        (height, width), chunk = grid.level_shape(level), grid.chunk_px(level)
        chunks += -(-height // chunk) * -(-width // chunk)
    slide = SlidePlan(
        row.slide_id,
        info.height,
        info.width,
        info.mpp or 0.0,
        tasks=len(grid.tasks()),
        chunks=chunks,
        objects=grid.objects,
        source_bytes=info.size_bytes,
        pyramid_bytes=estimate.stored_bytes,
        cpu_s=_cpu_s(info, FALLBACK if settled.fallback else config.pyramid.codec),
        doubt=f"region doubtful: {'; '.join(doubts)}" if doubts else "",
    )
    return slide, info


def _size(count: int) -> str:
    amount = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if amount < 1000:
            return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1000
    return f"{amount:.1f} TB"


def _time(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
