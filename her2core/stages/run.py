"""One run of a cohort: its manifest, configuration and output store, all checked before any work starts."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from datetime import UTC, datetime

from her2core.config import Config, load_config
from her2core.lake.tables import check_tables
from her2core.manifest import read_manifest, require_rules
from her2core.records import SlideRow
from her2core.scoring.ihc import completeness_column
from her2core.scoring.keyed import Judging
from her2core.storage.sources import open_remote
from her2core.storage.store import Store


@dataclass(frozen=True, slots=True)
class Run:
    """What every stage of a run may know. Picklable, without secrets.

    Attributes
    ----------
    run_id
        UTC start time and a digest of manifest and output: unique, and sorts by time.
    started
        UTC, ISO 8601.
    """

    run_id: str
    started: str
    manifest_uri: str
    manifest_sha256: str
    rows: tuple[SlideRow, ...]
    store: Store
    config: Config

    @property
    def cohort(self) -> str:
        """What tells this cohort from others in the same output: its name, or else where its manifest lies.

        The address is kept as a digest: folders may be named after people.
        """
        if self.config.run.cohort is not None:
            return self.config.run.cohort
        uri = self.manifest_uri.removeprefix("file://")
        place = uri if "://" in uri else os.path.abspath(uri)
        return f"manifest-{hashlib.sha256(place.encode()).hexdigest()[:12]}"

    def places(self, row: SlideRow) -> tuple[str, ...]:
        """Paths of this run and slide, to be kept out of what libraries say."""
        uris = (
            row.uri,
            row.roi_uri or "",
            self.manifest_uri,
            self.store.uri(),
            self.config.run.scratch().directory,
        )
        local = [uri.removeprefix("file://") for uri in uris]
        return tuple(path for path in {*uris, *local} if "/" in path.rstrip("/"))


def open_run(manifest: str, out: str, config: str | None = None) -> Run:
    """Validate manifest, configuration and store, and give the run a name.

    Raises
    ------
    ManifestError, ConfigError, StoreError
        Before anything is written but the store's own probe.
    """
    settings = load_config(config)
    completeness_column(settings.score, settings.ihc.ladder_od)
    endpoint = settings.run.endpoint_url
    rows = read_manifest(manifest, endpoint_url=endpoint)
    require_rules(rows, Judging(settings.score, settings.ish_score), manifest)
    with open_remote(manifest, endpoint) as file:
        manifest_sha256 = hashlib.sha256(file.read()).hexdigest()
    store = Store(out, endpoint_url=endpoint)
    store.probe()
    check_tables(store)
    now = datetime.now(UTC)
    digest = hashlib.sha256(f"{manifest} {store.uri()} {now.isoformat()}".encode()).hexdigest()[:6]
    return Run(
        run_id=f"{now:%Y%m%dT%H%M%SZ}-{digest}",
        started=now.isoformat(timespec="seconds"),
        manifest_uri=manifest,
        manifest_sha256=manifest_sha256,
        rows=rows,
        store=store,
        config=settings,
    )
