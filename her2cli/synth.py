"""The verb that makes slides with planted truth: ``synth``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from her2cli.common import EXIT_CODES, app, console


@app.command("synth", epilog=EXIT_CODES)
def synth_command(
    folder: Annotated[Path, typer.Argument(help="Where the slides, manifest.csv and truth.csv go.")],
    seed: Annotated[int, typer.Option(help="Same seed, same pixels.")] = 1,
) -> None:
    """Make a synthetic cohort with planted truth: pyramidal JPEG-tiled TIFFs, manifest and truth."""
    from her2core.phantom import synth_cohort

    manifest = synth_cohort(folder, seed=seed)
    console.print(f"manifest: {manifest}", highlight=False, soft_wrap=True)
