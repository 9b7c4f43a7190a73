"""Progress of long work, told through ``logging``: one mechanism for terminals, log files and Prefect.

A stage calls `report`; whoever wants bars attaches a handler and reads ``record.progress``. Without such a
handler the same records are plain log lines.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

log = logging.getLogger("her2core.stages.progress")

COHORT, SLIDES = "cohort", "slides"
"""The name under which a run reports how many of its slides have ended."""
ENDED = "ended"
"""Last report of every slide, scored or not."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far one stage of one slide is: ``done`` of ``total`` units."""

    slide_id: str
    stage: str
    done: int
    total: int


def report(slide_id: str, stage: str, done: int, total: int) -> None:
    """Log that ``done`` of ``total`` units of a stage are finished; INFO at its ends, DEBUG between."""
    level = logging.INFO if done in (0, total) else logging.DEBUG
    log.log(
        level,
        "%s: %s %d/%d",
        slide_id,
        stage,
        done,
        total,
        extra={"progress": Progress(slide_id, stage, done, total)},
    )
