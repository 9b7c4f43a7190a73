"""What was done to a tissue before it was scanned, against what guidelines recommend."""

from __future__ import annotations

from her2core.records import SlideRow

MAX_COLD_ISCHAEMIA_MIN = 60.0
"""Longest time from removal to fixation, minutes (ASCO/CAP 2018; spec §7.1)."""
FIXATION_H = (6.0, 72.0)
"""Shortest and longest time in 10 % neutral buffered formalin, hours (ASCO/CAP 2018; spec §7.1)."""
MAX_SECTION_AGE_DAYS = 42.0
"""Oldest section that is stained: six weeks, in days (ASCO/CAP 2018; spec §7.1)."""


def preanalytic_notes(slide: SlideRow) -> list[str]:
    """Values of the manifest outside these limits, in words; they change no score."""
    ischaemia, fixation, age = slide.cold_ischaemia_min, slide.fixation_h, slide.section_age_days
    shortest, longest = FIXATION_H
    notes = []
    if ischaemia is not None and ischaemia > MAX_COLD_ISCHAEMIA_MIN:
        notes.append(f"cold ischaemia {ischaemia:g} min, recommended at most {MAX_COLD_ISCHAEMIA_MIN:g}")
    if fixation is not None and not shortest <= fixation <= longest:
        notes.append(f"fixation {fixation:g} h, recommended {shortest:g} to {longest:g}")
    if age is not None and age > MAX_SECTION_AGE_DAYS:
        notes.append(f"section {age:g} days old, recommended at most {MAX_SECTION_AGE_DAYS:g}")
    return notes
