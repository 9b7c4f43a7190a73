"""Stage ``slide`` for ISH: from nucleus parts to lake file, score and picture. No pixel is searched again."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from her2core.columns import PROBES
from her2core.errors import Reason
from her2core.guidelines.rules_ish import load_ish_rules
from her2core.heterogeneity.ish import measure_ish_heterogeneity, sweep_nuclei
from her2core.kernels.ish.kernel import resolvable
from her2core.lake.rows_nuclei import SingleSignals, Spots, nucleus_rows
from her2core.lake.schema import NUCLEI
from her2core.lake.slide_files import FOLDER, DataFile, write_slide_file
from her2core.params import ISHParams, ISHScoreParams
from her2core.pictures.ish import CloseUp, ISHNuclei, ISHSummary, crop_box, gallery, ish_picture, read_crops
from her2core.profile.sampling import Pixels
from her2core.pyramid.reader import PyramidReader
from her2core.records import Assay, Fluorescence
from her2core.scoring.ish import ISHScore, score_ish
from her2core.scoring.ish_nuclei import MeasuredNuclei, ish_columns
from her2core.stages.finished import SlideFinished
from her2core.stages.slide import SlideJob, SlideResult, inside, state_of, write_outputs

ISHJob = SlideJob[ISHScoreParams, ISHParams]


def finish_ish(job: ISHJob, key: str) -> SlideFinished:
    """Write the slide's files of nuclei and regions and its picture, score it and measure its heterogeneity.

    Raises
    ------
    SlideError
        ``ROI_INVALID`` if the manifest's region of interest cannot be used.
    """
    rules, roi, dual = load_ish_rules(job.params.rules), job.roi(), two_probes(job)
    spots = [Spots.of(band) for band in job.bands()]
    single = SingleSignals.of(spots, job.pyramid.mpp, bright_field=job.row.assay is Assay.DISH)
    seen: list[pa.Table] = [NUCLEI.schema.empty_table().select(ish_columns(dual=dual))]

    def rows() -> Iterator[pa.Table]:
        for band in job.bands():
            found = nucleus_rows(band, job.row, job.pyramid.mpp, inside(roi, band), single, dual=dual)
            found = found.sort_by("nucleus_id").combine_chunks()
            measured = MeasuredNuclei.of(found, dual=dual)
            place = found.column_names.index("evaluable")
            field = found.schema.field(place)
            found = found.set_column(place, field, pa.array(measured.evaluable(job.params)))
            seen.append(found.select(ish_columns(dual=dual)))
            yield found

    file = write_slide_file(job.store, NUCLEI, key, rows())
    nuclei = MeasuredNuclei.of(pa.concat_tables(seen), dual=dual)
    coarse = resolvable(job.row.assay, job.pyramid.mpp, job.kernel) is not None
    unresolved = Reason.SIGNALS_UNRESOLVED if coarse else None
    score = score_ish(nuclei, job.params, rules, job.profile.quality, unresolved)
    sweep = sweep_nuclei(nuclei, job.heterogeneity, job.params, rules)
    genetic = score.heterogeneity
    metrics = measure_ish_heterogeneity(nuclei, sweep, job.heterogeneity, job.params, rules, genetic)
    draw = partial(_picture, job, nuclei, score, file)
    return write_outputs(job, key, SlideResult(score, file, sweep, metrics, draw, roi, probes_of(job)))


def two_probes(job: ISHJob) -> bool:
    """Whether the slide shows CEP17 beside HER2."""
    if isinstance(job.profile.stain, Fluorescence):
        return "CEP17" in job.profile.stain.channels
    return job.kernel.red_probe is not None


def probes_of(job: ISHJob) -> tuple[str, ...]:
    """What marks what: by channel of the file in fluorescence, by colour in bright field."""
    if job.info.source_channels:
        return tuple(job.info.source_channels.split(";"))
    colours = {job.kernel.black_probe: "black", job.kernel.red_probe: "red"}
    return tuple(f"{probe}={colour}" for probe, colour in colours.items() if probe)


def _picture(
    job: ISHJob,
    nuclei: MeasuredNuclei,
    score: ISHScore,
    file: DataFile | None,
    thumbnail: Pixels,
    um_px: float,
) -> bytes:
    reader, ref = PyramidReader(job.store, job.pyramid), job.pyramid
    her2, cep17 = nuclei.counted(job.params)
    drawn = ISHNuclei(nuclei.y_um, nuclei.x_um, her2, cep17, nuclei.evaluable(job.params))
    chosen = nuclei.nucleus_id[gallery(drawn)]
    close_ups = [] if file is None else _close_ups(job, reader, file, chosen.tolist())
    verdict, found = score.verdict, score.verdict.estimates
    summary = ISHSummary(
        slide_id=job.row.slide_id,
        state=state_of(score),
        result=None,
        group=verdict.group,
        ratio=found.ratio.value if found and found.ratio else None,
        ratio_interval=found.ratio.range if found and found.ratio else None,
        her2_mean=found.her2.value if found else None,
        cep17_mean=found.cep17.value if found and found.cep17 else None,
        note=", ".join(verdict.reasons),
    )
    return ish_picture(thumbnail, um_px, ref.channels, drawn, close_ups, ref.mpp, summary)


def _close_ups(job: ISHJob, reader: PyramidReader, file: DataFile, ids: list[int]) -> list[CloseUp]:
    """The nuclei of these names at full resolution, with their spots, in the order of the names."""
    written = pa.BufferReader(job.store.read_bytes(f"{FOLDER}/{NUCLEI.name}/{file.path}"))
    rows = {
        row["nucleus_id"]: row
        for row in pq.read_table(written, filters=[("nucleus_id", "in", ids)]).to_pylist()
    }
    boxes = [crop_box(rows[i]["y_px0"], rows[i]["x_px0"], job.pyramid.mpp) for i in ids]
    counted = "signals" if job.params.count == "signals" else "spots"
    for row in rows.values():
        row["spots"] = [spot for spot in row["spots"] if spot["copies"]]
    return [
        CloseUp(
            pixels=pixels,
            her2=row[f"her2_{counted}"],
            cep17=row[f"cep17_{counted}"],
            probe=np.array([PROBES.index(spot["probe"]) for spot in row["spots"]], np.int64),
            y_px=np.array([spot["y_px0"] - box.y0 for spot in row["spots"]]),
            x_px=np.array([spot["x_px0"] - box.x0 for spot in row["spots"]]),
            diameter_px=np.array([spot["diameter_um"] / job.pyramid.mpp for spot in row["spots"]]),
        )
        for row, box, pixels in zip(
            (rows[i] for i in ids), boxes, read_crops(reader, job.pyramid, boxes), strict=True
        )
    ]
