"""The verb that proposes the background of slides without glass: ``background``."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from her2cli.common import EXIT_CODES, Endpoint, Json, RunOutput, app, console, folder_of
from her2core.errors import ConfigError, StoreError
from her2core.text import counted, first_few

if TYPE_CHECKING:
    from her2core.analysis.background import Proposal

MOST_NAMED = 5
"""Most slides that a line names. Ours."""


@app.command("background", epilog=EXIT_CODES)
def background_command(
    run: RunOutput,
    manifest: Annotated[
        str | None, typer.Option(help="Manifest to complete with what is proposed; with --out.")
    ] = None,
    out: Annotated[
        str | None, typer.Option("--out", "-o", help="The completed manifest, a new file beside the other.")
    ] = None,
    endpoint_url: Endpoint = None,
    as_json: Json = False,
) -> None:
    """Propose the light through glass for slides that show none, from slides of the same scanner that do."""
    from flows.show import row_table
    from her2core.analysis.background import complete_manifest, propose
    from her2core.storage.store import Store

    if (manifest is None) != (out is None):
        raise ConfigError("--manifest and --out go together: the manifest, and the file to write beside it")
    if manifest is not None and out is not None and folder_of(manifest) != folder_of(out):
        raise ConfigError(f"--out {out}: expected a file beside {manifest}, from where its addresses count")
    store = Store(run, endpoint_url=endpoint_url)
    store.reach()
    place = None if out is None else Store(folder_of(out), endpoint_url=endpoint_url)
    if place is not None:
        place.reach("write to")
    found = propose(store)
    filled = None
    if manifest is not None and out is not None and place is not None:
        data, filled = complete_manifest(manifest, found, endpoint_url)
        if not place.put_if_absent(out.rpartition("/")[2], data):
            raise StoreError(f"--out {out}: there is a file already; name another")
    if as_json:
        batches = [asdict(one) | {"proposed": one.text or None} for one in found]
        typer.echo(json.dumps({"batches": batches, "manifest": out, "filled": filled}, indent=1))
        return
    console.print("Light through empty glass, by batch")
    console.print(row_table(_rows(found), console.width))
    if out is not None:
        console.print(
            f"{out}: background of {counted(filled or 0, 'slide')}. Look at it, then run with it.",
            soft_wrap=True,
        )
    console.print("Research use only, not for diagnosis.", highlight=False)


def _rows(found: tuple[Proposal, ...]) -> list[dict[str, str]]:
    rows = []
    for one in found:
        why = ""
        if one.lacking:
            why = f"{'proposed for ' if one.text else f'{one.refused}: '}{first_few(one.lacking, MOST_NAMED)}"
        if one.outshone:
            why += f"; brighter than this glass, not given: {first_few(one.outshone, MOST_NAMED)}"
        levels = "–" if one.background is None else ";".join(f"{level:g}" for level in one.background)
        off = "–" if one.off is None else f"{one.off:g}"
        batch = {"assay": one.assay, "scanner": one.scanner or "–", "laboratory": one.laboratory or "–"}
        rows.append({**batch, "with glass": str(one.with_glass), "R;G;B": levels, "off by": off, "why": why})
    return rows
