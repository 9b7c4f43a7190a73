"""The scores of a slide as a DICOM structured report: a measurement report (TID 1500) of one group.

It refers to the slide by the pseudonymous ids that the annotations beside it have (`her2core.export.dicom`).
It is preliminary and unverified: a person has to verify it. What has no code elsewhere has one of ours.

References
----------
DICOM PS3.16, TID 1500 Measurement Report and TID 1501 Measurement and Qualitative Evaluation Group.
"""

from __future__ import annotations

from typing import Any, Final

from her2core.export.dicom import SCHEME, SLIDE_CLASS, software_version, source_of, uid
from her2core.export.finished import FinishedRun, Row
from her2core.records import Assay
from her2core.report.words import HER2_CLASSES, ISH_GROUPS, REASONS, SLIDE_CLASSES

MEASURED: Final = {
    "n_scored": ("Evaluable tumour cells", "{cells}", "cells"),
    "p3_pct": ("Cells of class 3", "%", "percent"),
    "p2_pct": ("Cells of class 2 or 3", "%", "percent"),
    "p_any_pct": ("Cells with any membrane staining", "%", "percent"),
    "h_score": ("H-score of mean membrane OD", "1", "no units"),
    "membrane_od_mean": ("Mean membrane optical density", "1", "no units"),
    "completeness_mean": ("Mean completeness of membranes", "1", "no units"),
    "n_ish": ("Evaluable nuclei", "{cells}", "cells"),
    "ish_ratio": ("HER2/CEP17 ratio", "1", "no units"),
    "ish_her2_mean": ("Mean HER2 signals a nucleus", "1", "no units"),
    "ish_cep17_mean": ("Mean CEP17 signals a nucleus", "1", "no units"),
    "tissue_area_mm2": ("Area of tissue", "mm2", "square millimeter"),
}
"""Columns of `slides` that are reported where the slide has them: meaning, and unit in UCUM."""
ENDS: Final = {"low": "lower end of 95 % interval", "high": "upper end of 95 % interval"}
IMMUNE_STAIN: Final = {
    True: ("85319-2", "LN", "HER2 [Presence] in Breast cancer specimen by Immune stain"),
    False: ("18474-7", "LN", "HER2 [Presence] in Tissue by Immune stain"),
}
"""What the IHC score is called, in breast and elsewhere."""
PROCEDURES: Final = {
    Assay.IHC: ("117617002", "SCT", "Immunohistochemistry procedure"),
    Assay.FISH: ("HER2_FISH", SCHEME, "HER2 fluorescence in situ hybridization"),
    Assay.DISH: ("HER2_DISH", SCHEME, "HER2 bright-field in situ hybridization"),
}
RESEARCH: Final = ("RESEARCH_USE", SCHEME, "Research use only, not for diagnosis")


def slide_report(run: FinishedRun, slide: Row) -> Any:
    """The report of a slide as ``ComprehensiveSR``."""
    import highdicom.sr as sr
    from pydicom.sr.codedict import codes
    from pydicom.sr.coding import Code

    finished = run.run["finished_at"]
    identity = slide["identity"] or slide["slide_id"]
    source = source_of(slide, identity, finished)
    device = sr.DeviceObserverIdentifyingAttributes(
        uid=uid("device", software_version(run)),
        name="her2cohort",
        manufacturer_name="her2cohort",
        model_name=f"her2cohort {software_version(run)}",
    )
    specimen = sr.SubjectContextSpecimen(
        uid=uid("specimen", *(str(slide[name] or "") for name in ("case_id", "specimen_id", "site"))),
        identifier=str(slide["specimen_id"] or slide["case_id"]),
        container_identifier=str(slide["slide_id"]),
    )
    group = sr.MeasurementsAndQualitativeEvaluations(
        tracking_identifier=sr.TrackingIdentifier(uid("scores", identity), f"HER2 {slide['slide_id']}"),
        finding_type=Code("HER2_SCORES", SCHEME, "HER2 scores of a slide"),
        algorithm_id=sr.AlgorithmIdentification("her2cohort", software_version(run), _parameters(slide)),
        measurements=[
            sr.Measurement(name=Code(*name), value=value, unit=Code(*unit))
            for name, value, unit in measurements_of(slide)
        ],
        qualitative_evaluations=[
            sr.QualitativeEvaluation(Code(*name), Code(*value)) for name, value in evaluations_of(slide)
        ],
        source_images=[sr.SourceImageForMeasurementGroup(SLIDE_CLASS, source.SOPInstanceUID)],
    )
    report = sr.MeasurementReport(
        observation_context=sr.ObservationContext(
            observer_device_context=sr.ObserverContext(codes.DCM.Device, device),
            subject_context=sr.SubjectContext(codes.DCM.Specimen, specimen),
        ),
        procedure_reported=Code(*PROCEDURES[Assay(slide["assay"])]),
        imaging_measurements=[group],
    )
    made = sr.ComprehensiveSR(
        evidence=[source],
        content=report,
        series_instance_uid=uid("sr series", identity, run.run["run_id"]),
        series_number=2,
        sop_instance_uid=uid("sr", identity, run.run["run_id"]),
        instance_number=1,
        manufacturer="her2cohort",
        is_complete=True,
    )
    made.ManufacturerModelName, made.SoftwareVersions = "her2cohort", software_version(run)
    made.SeriesDescription = "HER2 scores. Research use only."
    # of the run, so that the same run gives the same bytes
    for name in ("Content", "InstanceCreation", "Series"):
        setattr(made, f"{name}Date", finished.strftime("%Y%m%d"))
        setattr(made, f"{name}Time", finished.strftime("%H%M%S"))
    for equipment in made.get("ContributingEquipmentSequence", ()):
        equipment.ContributionDateTime = finished.strftime("%Y%m%d%H%M%S")
    return made


Coded = tuple[str, str, str]


def measurements_of(slide: Row) -> list[tuple[Coded, float, Coded]]:
    """Names, values and units of what was measured, each with the ends of its interval where it has one."""
    found = []
    for column, (meaning, unit, of_unit) in MEASURED.items():
        stem, percent, _ = column.partition("_pct")
        for name, words in (
            (column, meaning),
            *((f"{stem}_{end}{percent}", f"{meaning}, {of}") for end, of in ENDS.items()),
        ):
            if slide.get(name) is not None:
                found.append(((name.upper(), SCHEME, words), float(slide[name]), (unit, "UCUM", of_unit)))
    return found


def evaluations_of(slide: Row) -> list[tuple[Coded, Coded]]:
    """Score, class, group, quality and reasons as questions and answers in codes."""
    found: list[tuple[Coded, Coded]] = [(("USE", SCHEME, "Intended use"), RESEARCH)]

    def answer(name: Coded, value: str, meaning: str) -> None:
        found.append((name, (value.upper(), SCHEME, meaning[:64])))

    if slide["assay"] == Assay.IHC:
        score = slide["score"]
        name = IMMUNE_STAIN[slide["tumour_type"] in (None, "breast")]
        answer(name, f"IHC_{score or 'INDETERMINATE'}", f"IHC {score}" if score else "indeterminate")
        if slide["her2_class"]:
            words = str((HER2_CLASSES | SLIDE_CLASSES).get(slide["her2_class"], slide["her2_class"]))
            answer(("HER2_CLASS", SCHEME, "HER2 class of the slide"), slide["her2_class"], words)
    else:
        group = slide["ish_group"]
        words = str(ISH_GROUPS.get(group, group)) if group else "indeterminate"
        answer(("ISH_GROUP", SCHEME, "HER2 ISH group"), f"ISH_{group or 'INDETERMINATE'}", words)
    if slide["qc_verdict"]:
        answer(("QC", SCHEME, "Quality control"), f"QC_{slide['qc_verdict']}", slide["qc_verdict"])
    for reason in slide["reasons"] or ():
        answer(("REASON", SCHEME, "What to know of the result"), reason, REASONS.get(reason, reason))
    return found


def _parameters(slide: Row) -> list[str] | None:
    """Rule sets by which the slide was scored."""
    rules = [
        (slide.get("rules"), slide.get("rules_version")),
        (slide.get("ish_rules"), slide.get("ish_rules_version")),
    ]
    return [f"rules {name} version {version}" for name, version in rules if name] or None
