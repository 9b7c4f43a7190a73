"""One run of a cohort: its manifest, configuration and output store, all checked before any work starts."""

from __future__ import annotations

import difflib
import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from her2core.config import Config, load_config
from her2core.errors import ConfigError
from her2core.intake.manifest import REQUIRED, check_rows, identities_in, require_rules
from her2core.intake.manifest_sheet import manifest_bytes, parse_sheet
from her2core.lake.tables import check_tables
from her2core.records import SlideRow
from her2core.scoring.keyed import Judging
from her2core.stages.names import Names, open_names
from her2core.storage.s3check import BucketError, check_bucket
from her2core.storage.store import Store
from her2core.text import HIDDEN, shown


@dataclass(frozen=True, slots=True)
class Run:
    """What every stage of a run has access to. Picklable, without secrets.

    Attributes
    ----------
    run_id
        UTC start time and a digest of manifest and output: unique, and sorts by time.
    started
        UTC, ISO 8601.
    identities
        Identity that ingest gave each slide (``x_identity``), by slide; see `stages.unchanged`.
    columns_added
        Columns, as ``table.column``, that tables of an older version lacked when the run was opened.
    """

    run_id: str
    started: str
    manifest_uri: str
    manifest_sha256: str
    rows: tuple[SlideRow, ...]
    store: Store
    config: Config
    names: Names = field(default_factory=Names)
    identities: Mapping[str, str] = field(default_factory=dict)
    columns_added: tuple[str, ...] = ()

    @property
    def cohort(self) -> str:
        """What identifies this cohort in the output: its name, or else where its manifest lies.

        The address is kept as a digest: folders may be named after people.
        """
        if self.config.run.cohort is not None:
            return self.config.run.cohort
        uri = self.manifest_uri.removeprefix("file://")
        place = uri if "://" in uri else os.path.abspath(uri)
        return f"manifest-{hashlib.sha256(place.encode()).hexdigest()[:12]}"

    def places(self, row: SlideRow) -> tuple[str, ...]:
        """Paths of this run and slide, to be kept out of the messages of libraries."""
        uris = (
            row.uri,
            row.roi_uri or "",
            row.cells_uri or "",
            self.manifest_uri,
            self.store.uri(),
            self.config.run.scratch().directory,
        )
        local = [uri.removeprefix("file://") for uri in uris]
        return tuple(path for path in {*uris, *local} if "/" in path.rstrip("/"))

    def shown(self, row: SlideRow) -> SlideRow:
        """The row as tables and records show it."""
        roi, cells = (uri and self.names.of(uri) for uri in (row.roi_uri, row.cells_uri))
        return replace(row, uri=self.names.of(row.uri), roi_uri=roi, cells_uri=cells)

    def hide(self, text: str, row: SlideRow | None = None) -> str:
        """A text as tables, journal and Prefect may have it."""
        return self.names.hide(
            text, [self.manifest_uri, self.store.uri(), *(self.places(row) if row else ())]
        )

    def configuration(self) -> dict[str, Any]:
        """Every value in force, as it is stored with the run."""
        resolved = self.config.resolved()
        if self.names.pseudonyms:
            places = ("scratch_dir", "pseudonyms", "endpoint_url")
            resolved["run"] |= {name: HIDDEN for name in places if resolved["run"][name] is not None}
        return resolved


def read_inputs(manifest: str, config: str | None = None) -> tuple[Config, tuple[SlideRow, ...]]:
    """Configuration and manifest, checked by themselves and against each other, before any run or plan.

    Raises
    ------
    ManifestError, ConfigError
        Naming what cannot be used.
    StoreError
        If no bucket that slides lie in can be reached.
    """
    settings, rows, _ = _read_inputs(manifest, config)
    return settings, rows


def _read_inputs(manifest: str, config: str | None) -> tuple[Config, tuple[SlideRow, ...], bytes]:
    """The same, and the manifest as it was read, once: it may be replaced meanwhile."""
    settings = load_config(config)
    data = manifest_bytes(manifest, settings.run.endpoint_url)
    rows = check_rows(manifest, *parse_sheet(manifest, data, REQUIRED))
    require_rules(rows, Judging(settings.ihc_score, settings.ish_score), manifest)
    reach_slides([row.uri for row in rows if not row.exclude], settings.run.endpoint_url)
    return settings, rows, data


def reach_slides(uris: Sequence[str], endpoint_url: str | None) -> None:
    """See that the servers of remote slides answer. A bucket that is not there is the business of its slides.

    Raises
    ------
    StoreError
        If a server or the credentials are of no use, or no slide's bucket is there.
    """
    by_bucket = {uri.removeprefix("s3://").partition("/")[0]: uri for uri in uris if uri.startswith("s3://")}
    gone: list[BucketError] = []
    for uri in by_bucket.values():
        try:
            check_bucket(uri, endpoint_url)
        except BucketError as error:
            gone.append(error)
    if gone and len(gone) == len(by_bucket) and all(uri.startswith("s3://") for uri in uris):
        raise gone[0]


def chosen(rows: Sequence[SlideRow], only: Sequence[str]) -> tuple[SlideRow, ...]:
    """The rows of the requested slides; all if none was requested.

    Raises
    ------
    ConfigError
        Naming those that the manifest does not have.
    """
    names = [row.slide_id for row in rows]
    for wanted in only:
        if wanted not in names:
            near = difflib.get_close_matches(wanted[:128], names, n=1)
            meant = f"; did you mean {near[0]}?" if near else ""
            raise ConfigError(f"--only {shown(wanted)}: the manifest has no such slide{meant}")
    return tuple(row for row in rows if not only or row.slide_id in only)


def open_run(manifest: str, out: str, config: str | None = None, only: Sequence[str] = ()) -> Run:
    """Validate manifest, configuration and store, and give the run a name.

    Parameters
    ----------
    only
        Slides to work on; all without any.

    Raises
    ------
    ManifestError, ConfigError, StoreError
        Before anything is written but the store's own probe.
    """
    settings, all_rows, data = _read_inputs(manifest, config)
    rows, endpoint = chosen(all_rows, only), settings.run.endpoint_url
    store = Store(out, endpoint_url=endpoint)
    store.probe()
    columns_added = tuple(check_tables(store))
    addresses = (uri or "" for row in rows for uri in (row.uri, row.roi_uri, row.cells_uri))
    named = [manifest, out, config or "", *addresses]
    names = open_names(settings.run.pseudonyms, named, store, endpoint)
    now = datetime.now(UTC)
    digest = hashlib.sha256(f"{manifest} {store.uri()} {now.isoformat()}".encode()).hexdigest()[:6]
    return Run(
        run_id=f"{now:%Y%m%dT%H%M%SZ}-{digest}",
        started=now.isoformat(timespec="seconds"),
        manifest_uri=manifest,
        manifest_sha256=hashlib.sha256(data).hexdigest(),
        rows=rows,
        store=store,
        config=settings,
        names=names,
        identities=identities_in(manifest, data),
        columns_added=columns_added,
    )
