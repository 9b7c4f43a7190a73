"""Cells as DICOM bulk annotations (ANN), a group a class, with their measurements.

Points of the total pixel matrix, level 0. The slide that they refer to is known by UIDs made of its digest: a
run keeps no DICOM header. An archive does not hold them.
"""

from __future__ import annotations

import hashlib
import io
import json
import warnings
from collections.abc import Sequence
from datetime import datetime
from functools import partial
from typing import Any

import numpy as np

from her2core.export.finished import FinishedRun, Row, Selection, export_each
from her2core.extras import need
from her2core.lake.schema import CELLS
from her2core.records import Assay
from her2core.storage.store import Store

SLIDE_CLASS = "1.2.840.10008.5.1.4.1.1.77.1.6"
"""VL Whole Slide Microscopy Image Storage."""
MEASURED = ("membrane_od_mean", "completeness", "nucleus_area_um2", "cell_area_um2")
"""Columns that go with every annotation."""
UNITS = {
    "OD": ("1", "no units"),
    "fraction": ("1", "no units"),
    "µm²": ("um2", "square micrometer"),
    "": ("1", "no units"),
}
SCHEME = "99HER2COHORT"
"""Private coding scheme of what has no code elsewhere."""


def export_dicom(run: FinishedRun, out: Store, selection: Selection) -> list[str]:
    """Write ``SLIDE.sr.dcm`` a slide, its scores, and of an IHC slide ``SLIDE.ann.dcm``, its cells."""
    need("export", "highdicom")
    from her2core.export.dicom_sr import slide_report

    def write(slide: Row) -> list[str]:
        made = {f"{slide['slide_id']}.sr.dcm": slide_report}
        if slide["assay"] == Assay.IHC:
            made[f"{slide['slide_id']}.ann.dcm"] = partial(cell_annotations, selection=selection)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # pydicom's, about ids that people chose
            for name, of in made.items():
                buffer = io.BytesIO()
                of(run, slide).save_as(buffer, enforce_file_format=True)
                out.write_bytes(name, buffer.getvalue())
        return list(made)

    return [name for names in export_each(run.chosen(selection), write) for name in names]


def uid(*parts: str) -> str:
    """A UID that follows from what it names (2.25, of a digest)."""
    digest = hashlib.sha256("/".join(parts).encode()).digest()[:16]
    return f"2.25.{int.from_bytes(digest, 'big')}"


def cell_annotations(run: FinishedRun, slide: Row, selection: Selection) -> Any:
    """The cells of a slide as ``MicroscopyBulkSimpleAnnotations``."""
    import highdicom as hd
    from pydicom.sr.coding import Code

    names = ("cell_id", "cell_class", "x_px0", "y_px0", *MEASURED)
    rows = run.batches(slide, selection, names).read_all().to_pylist()
    groups: list[Any] = []
    for label in sorted({row["cell_class"] or "" for row in rows}):
        of = [row for row in rows if (row["cell_class"] or "") == label]
        groups.append(_group(hd, Code, len(groups) + 1, slide["slide_id"], label, of, software_version(run)))
    identity = slide["identity"] or slide["slide_id"]
    return hd.ann.MicroscopyBulkSimpleAnnotations(
        source_images=[source_of(slide, identity, run.run["finished_at"])],
        annotation_coordinate_type=hd.ann.AnnotationCoordinateTypeValues.SCOORD,
        annotation_groups=groups,
        series_instance_uid=uid("series", identity, run.run["run_id"]),
        series_number=1,
        sop_instance_uid=uid("ann", identity, run.run["run_id"]),
        instance_number=1,
        manufacturer="her2cohort",
        manufacturer_model_name="her2cohort",
        software_versions=software_version(run),
        device_serial_number="none",
        content_label="HER2_CELLS",
        content_description="Cells by HER2 class. Research use only.",
    )


def _group(hd: Any, code: Any, number: int, slide: str, label: str, rows: Sequence[Row], version: str) -> Any:
    title = f"HER2 class {label}" if label else "not evaluable"
    measurements = [
        hd.ann.Measurements(
            name=code(name.upper()[:16], SCHEME, name.replace("_", " ")),
            values=np.array([np.nan if r[name] is None else r[name] for r in rows], np.float32),
            unit=code(*_unit(name)),
        )
        for name in MEASURED
    ]
    software = hd.AlgorithmIdentificationSequence(
        name="her2cohort", family=code("123109", "DCM", "Manual Processing"), version=version
    )
    software[0].AlgorithmFamilyCodeSequence = [hd.sr.CodedConcept("IMAGE_ANALYSIS", SCHEME, "Image analysis")]
    return hd.ann.AnnotationGroup(
        number=number,
        uid=uid("group", slide, label),
        label=title,
        annotated_property_category=code("4421005", "SCT", "Cell"),
        annotated_property_type=code(f"HER2_{label or 'NONE'}", SCHEME, title),
        graphic_type=hd.ann.GraphicTypeValues.POINT,
        graphic_data=[np.array([[r["x_px0"] + 0.5, r["y_px0"] + 0.5]], np.float32) for r in rows],
        algorithm_type=hd.ann.AnnotationGroupGenerationTypeValues.AUTOMATIC,
        algorithm_identification=software,
        measurements=measurements,
    )


def _unit(column: str) -> tuple[str, str, str]:
    unit = next(c.unit for c in CELLS.columns if c.name == column)
    value, meaning = UNITS[unit]
    return value, "UCUM", meaning


def software_version(run: FinishedRun) -> str:
    """Version of this software that made the run, as its row has it."""
    return str(json.loads(run.run["versions"]).get("her2cohort", "unknown"))


def source_of(slide: Row, identity: str, finished: datetime) -> Any:
    """What annotations and reports need of their slide; pseudonyms alone."""
    from pydicom.dataset import Dataset

    source = Dataset()
    source.PatientID = str(slide["patient_id"] or slide["case_id"])
    source.PatientName = source.PatientID
    source.PatientBirthDate = source.PatientSex = source.AccessionNumber = ""
    source.StudyID = str(slide["case_id"])[:16]
    source.StudyDate, source.StudyTime = finished.strftime("%Y%m%d"), finished.strftime("%H%M%S")
    source.ReferringPhysicianName = ""
    source.StudyInstanceUID = uid("study", str(slide["case_id"]))
    source.SeriesInstanceUID = uid("slide series", identity)
    source.SOPInstanceUID = uid("slide", identity)
    source.SOPClassUID = SLIDE_CLASS
    source.FrameOfReferenceUID = uid("frame", identity)
    source.PositionReferenceIndicator = "SLIDE_CORNER"
    source.ContainerIdentifier = str(slide["slide_id"])
    source.IssuerOfTheContainerIdentifierSequence = []
    source.ContainerTypeCodeSequence = []
    source.SpecimenDescriptionSequence = []
    source.Modality = "SM"
    source.TotalPixelMatrixRows, source.TotalPixelMatrixColumns = slide["height_px0"], slide["width_px0"]
    source.NumberOfFrames = 1
    return source
