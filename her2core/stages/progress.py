"""Progress of long work, reported through ``logging``: one mechanism for terminals, log files and Prefect.

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
    state: str = ""
    """How the slide ended, in its last report."""


@dataclass(frozen=True, slots=True)
class Published:
    """A stage of a slide that was computed and published just now; one found published is not reported."""

    slide_id: str
    stage: str
    key: str
    seconds: float
    bytes_written: int


def report(slide_id: str, stage: str, done: int, total: int, state: str = "") -> None:
    """Log that ``done`` of ``total`` units of a stage are finished; INFO at its ends, DEBUG between."""
    level = logging.INFO if done in (0, total) else logging.DEBUG
    log.log(
        level,
        "%s: %s %d/%d",
        slide_id,
        stage,
        done,
        total,
        extra={"progress": Progress(slide_id, stage, done, total, state)},
    )


def report_published(published: Published) -> None:
    """Log that a stage was computed and published."""
    log.info(
        "%s: %s published after %.1f s",
        published.slide_id,
        published.stage,
        published.seconds,
        extra={"published": published},
    )
