"""An ingest as it is requested, in words, checked before anything is listed."""

from __future__ import annotations

from collections.abc import Mapping

from her2core.config import load_config
from her2core.intake.identifiers import NamingRule, read_sidecar
from her2core.intake.ingest import SETTLE_S, Intake
from her2core.records import Assay


def open_intake(
    place: str,
    manifest: str,
    *,
    rule: str | None = None,
    table: str | None = None,
    mapping: Mapping[str, str] | None = None,
    file_column: str | None = None,
    assay: str | None = None,
    settle_s: float = SETTLE_S,
    endpoint_url: str | None = None,
    config: str | None = None,
) -> Intake:
    """Read rule and table, and how slides are opened.

    Parameters
    ----------
    place
        Folder or ``s3://bucket/prefix`` that slides arrive in.
    manifest
        Path or ``s3://`` address of the manifest to build or extend.
    rule
        See `identifiers.NamingRule`.
    table, mapping, file_column
        See `identifiers.read_sidecar`.
    assay
        Of all slides for which neither rule nor table gives it.
    settle_s
        How long nothing of a slide may have changed, in seconds.
    config
        Configuration of the cohort, for its endpoint and scratch folder.

    Raises
    ------
    ConfigError, ManifestError
        If rule or table cannot be used.
    """
    settings = load_config(config).run
    endpoint = endpoint_url or settings.endpoint_url
    return Intake(
        place=place,
        manifest=manifest,
        scratch=settings.scratch(),
        rule=None if rule is None else NamingRule.of(rule),
        sidecar=None if table is None else read_sidecar(table, mapping or {}, file_column, endpoint),
        assay=None if assay is None else Assay(assay),
        settle_s=settle_s,
        endpoint_url=endpoint,
    )
