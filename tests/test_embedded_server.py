"""The embedded Prefect server loads what a run uses, and what a user sets stands above that."""

from __future__ import annotations

import pytest

from flows.server import EMBEDDED, _environment


def test_the_embedded_server_leaves_blocks_alone_unless_a_user_wants_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from prefect.settings import Settings

    for name in EMBEDDED:
        monkeypatch.delenv(name, raising=False)
    for name, value in _environment(Settings()).items():
        monkeypatch.setenv(name, value)
    server = Settings().server
    assert (server.register_blocks_on_start, server.memoize_block_auto_registration) == (False, False)
    for name in EMBEDDED:
        monkeypatch.delenv(name)

    monkeypatch.setenv("PREFECT_API_BLOCKS_REGISTER_ON_START", "true")  # its other name
    for name, value in _environment(Settings()).items():
        monkeypatch.setenv(name, value)
    assert Settings().server.register_blocks_on_start
