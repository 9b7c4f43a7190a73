"""A finished run as exports read it: its tables, its last row, and the records behind a slide.

Exports name what tables name: where a run has pseudonyms for files, so have its tables. What is made to be
given away (all but the tables themselves) holds no address of a slide and no place of the output.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
from deltalake import DeltaTable
from pydantic import TypeAdapter, ValidationError

from her2core.errors import ConfigError, StoreError
from her2core.lake.finished import finished_batches, finished_rows, finished_runs, opened, whole_run
from her2core.lake.schema import CASES, CELLS, SLIDES, Table
from her2core.lake.tables import sql_text
from her2core.params import IHCParams, ProfileParams, RoiParams
from her2core.records import Assay
from her2core.stages.finished import SlideFinished
from her2core.storage.store import Store, record_of

Row = dict[str, Any]
P = TypeVar("P")
W = TypeVar("W")


@dataclass(frozen=True, slots=True)
class Selection:
    """Which slides and cells are exported; empty is all.

    Attributes
    ----------
    box
        ``(x, y, width, height)`` in level-0 px, as QuPath gives it; cells whose centroid lies in it.
    """

    slides: tuple[str, ...] = ()
    cases: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()
    box: tuple[float, float, float, float] | None = None
    tumour_only: bool = False

    def takes(self, slide: Row) -> bool:
        """Whether a slide is among them."""
        named = not self.slides or slide["slide_id"] in self.slides
        return named and (not self.cases or slide["case_id"] in self.cases)

    def condition(self, slide_id: str) -> str:
        """Condition in SQL on the cells of a slide."""
        parts = [of_slide(slide_id)]
        if self.classes:
            parts.append(f"cell_class IN ({', '.join(map(sql_text, self.classes))})")
        if self.box:
            x, y, w, h = self.box
            parts.append(f"x_px0 + 0.5 >= {x!r} AND x_px0 + 0.5 < {x + w!r}")
            parts.append(f"y_px0 + 0.5 >= {y!r} AND y_px0 + 0.5 < {y + h!r}")
        if self.tumour_only:
            parts.append("is_tumour")
        return " AND ".join(parts)


def export_each(slides: Sequence[Row], write: Callable[[Row], W]) -> list[W]:
    """Write slide by slide; one that cannot be written does not keep the others.

    Raises
    ------
    ConfigError
        In the end, with every slide that was not written and why.
    """
    written, failed = [], []
    for slide in slides:
        try:
            written.append(write(slide))
        except (ConfigError, StoreError) as error:
            failed.append(str(error))
    if failed:
        raise ConfigError(
            f"{len(failed)} of {len(slides)} slides are not exported, {len(written)} are:\n"
            + "\n".join(failed)
        )
    return written


def write_folder(out: Store, name: str, local: Path) -> None:
    """Write a folder of this machine with all its files, as ``name``."""
    for file in sorted(p for p in local.rglob("*") if p.is_file()):
        out.write_file(f"{name}/{file.relative_to(local).as_posix()}", file)


def of_slide(slide_id: str) -> str:
    """Condition in SQL on the rows of a slide."""
    return f"slide_id = {sql_text(slide_id)}"


@dataclass(frozen=True)
class FinishedRun:
    """The output of a run."""

    store: Store
    _open: dict[str, DeltaTable] = field(default_factory=dict, init=False, repr=False, compare=False)

    def rows(self, table: Table, columns: Sequence[str] | None = None) -> list[Row]:
        """Rows of a table, sorted by its key; null where the run's version did not write a column."""
        return finished_rows(self.store, table, columns or [c.name for c in table.columns])

    @cached_property
    def slides(self) -> list[Row]:
        """Rows of `slides`."""
        return self.rows(SLIDES)

    @cached_property
    def cases(self) -> list[Row]:
        """Rows of `cases`."""
        return self.rows(CASES)

    @cached_property
    def run(self) -> Row:
        """The run that finished last.

        Raises
        ------
        StoreError
            If none did.
        """
        ended = finished_runs(self.store)
        if not ended:
            raise StoreError(f"{self.store.uri('tables/runs')}: no run has finished here")
        return whole_run(self.store, ended[-1])

    def chosen(self, selection: Selection, assay: Assay | None = None) -> list[Row]:
        """Slides of a selection that have rows.

        Raises
        ------
        ConfigError
            If it names slides or cases that the run has not, or takes none.
        """
        ids = {s["slide_id"] for s in self.slides}, {s["case_id"] for s in self.slides}
        unknown = sorted((set(selection.slides) - ids[0]) | (set(selection.cases) - ids[1]))
        if unknown:
            raise ConfigError(f"{', '.join(unknown)}: not in this run; see her2 status")
        found = [
            s
            for s in self.slides
            if selection.takes(s)
            and s["state"] in ("scored", "indeterminate")
            and assay in (None, s["assay"])
        ]
        if not found:
            raise ConfigError("the selection takes no slide that was measured")
        return found

    def batches(
        self, slide: Row, selection: Selection, columns: Sequence[str], table: Table = CELLS
    ) -> pa.RecordBatchReader:
        """Cells of a slide in order of their ids, a few thousand at a time; absent columns are left out.

        All slides are read from one version of the table, also while another run writes to it.
        """
        if table.name not in self._open:
            self._open[table.name] = opened(self.store, table)
        condition = selection.condition(slide["slide_id"])
        return finished_batches(self.store, table, columns, condition, self._open[table.name])

    def record(self, slide: Row) -> SlideFinished:
        """What a slide left behind.

        Raises
        ------
        StoreError
            If its record is gone, or of another version.
        """
        path = record_of("slide", slide["score_key"])
        try:
            return _FINISHED.validate_json(self.store.read_bytes(path))
        except FileNotFoundError:
            raise StoreError(
                f"{self.store.uri(path)}: the slide's record is gone; run again to make it"
            ) from None
        except ValidationError as error:
            raise StoreError(
                f"{self.store.uri(path)}: the record of another version; run again to make it "
                f"({error.error_count()} fields differ)"
            ) from None

    @property
    def ihc_params(self) -> IHCParams:
        """Parameters that cells were measured with.

        Raises
        ------
        StoreError
            If they are of another version.
        """
        found = self._params("ihc", _IHC)
        if found is None:
            raise StoreError(
                f"{self.store.uri('tables/runs')}: the configuration of another version; run again to "
                "measure with this one, or export without contours"
            )
        return found

    @property
    def profile_params(self) -> ProfileParams | None:
        """Parameters that slides were profiled with; None if they are of another version."""
        return self._params("profile", _PROFILE)

    @property
    def roi_params(self) -> RoiParams | None:
        """Which classes of annotations count; None if they are of another version."""
        return self._params("roi", _ROI)

    def _params(self, section: str, of: TypeAdapter[P]) -> P | None:
        try:
            return of.validate_python(json.loads(self.run["configuration"])[section])
        except (KeyError, ValidationError):
            return None


_IHC: TypeAdapter[IHCParams] = TypeAdapter(IHCParams)
_PROFILE: TypeAdapter[ProfileParams] = TypeAdapter(ProfileParams)
_ROI: TypeAdapter[RoiParams] = TypeAdapter(RoiParams)
_FINISHED: TypeAdapter[SlideFinished] = TypeAdapter(SlideFinished)
