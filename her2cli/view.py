"""Verb ``view``: a run's slides and cells in a browser on this machine."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Annotated

import typer

from her2cli.common import EXIT_CODES, Endpoint, Json, app, console, ending_in_order
from her2core.errors import ConfigError
from her2core.text import counted


@app.command("view", epilog=EXIT_CODES)
def view_command(
    run: Annotated[str, typer.Argument(metavar="RUN", help="Output of a run (folder or s3://).")],
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 takes a free one.")] = 0,
    browser: Annotated[bool, typer.Option("--browser/--no-browser", help="Open the page.")] = True,
    endpoint_url: Endpoint = None,
    as_json: Json = False,
) -> None:
    """Show slides at full resolution with their cells and regions in a browser, until Ctrl-C."""
    import webbrowser

    from her2core.storage.store import Store
    from her2core.viewer.server import ViewerServer

    store = Store(run, endpoint_url=endpoint_url)
    store.reach()
    try:
        server = ViewerServer(store, port)
    except OSError as error:
        raise ConfigError(f"--port {port} cannot be used: {error.strerror}; 0 takes a free one") from error
    with ending_in_order(), suppress(KeyboardInterrupt), server:
        n = len(server.viewed.slides)
        if as_json:
            typer.echo(json.dumps({"address": server.address, "slides": n}))
        else:
            for line in (
                f"{counted(n, 'slide')}  {server.address}",
                "The address holds a token: anyone who has it on this machine sees the slides. Ctrl-C ends.",
                "Research use only, not for diagnosis.",
            ):
                console.print(line, highlight=False, markup=False, soft_wrap=True)
        if browser:
            webbrowser.open(server.address)
        server.serve_forever()
