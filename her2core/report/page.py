"""The page: template, style, script and data in one file that loads nothing from the network.

Whatever comes from outside enters as JSON without ``<``, ``>`` and ``&``, which no markup can end, and the
script puts it into the page as text alone. A content security policy names the page's own scripts by their
digests, and forbids all others and every connection.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from importlib.resources import files
from typing import Any

ASSETS = files("her2core.report") / "assets"
PLOTLY = "plotly-cartesian.min.js"
"""As in plotly.js-cartesian-dist-min 3.0.1 of npm, unchanged; MIT, see plotly.LICENSE.txt."""
DIGITS = 5
"""Significant digits of numbers in the page; the data files beside it have all."""
MOST_DISTINCT = 0.5
"""Share of distinct texts up to which a column is stored as a list of them and their numbers. Ours."""

_PLACE = re.compile(r"\{\{(\w+)\}\}")


def asset(name: str) -> str:
    """One of the files that pages are made of."""
    return (ASSETS / name).read_text(encoding="utf-8")


def assemble(
    body: str,
    kicker: str,
    title: str,
    scripts: Sequence[str],
    data: Mapping[str, Any],
    blocks: Mapping[str, str] | None = None,
    viewer: str | None = None,
) -> bytes:
    """One HTML file.

    Parameters
    ----------
    body
        Asset with the page's own part, which has the names of ``blocks`` in double braces; the rest is
        ``page.html``.
    kicker, title
        Text; it is escaped.
    scripts
        Assets; the page's own ones are joined in this order, behind Plotly.
    data
        JSON that the scripts read, each in an element of the id ``data-NAME``.
    blocks
        Markup that is put in as it is.
    viewer
        Address of a viewer with ``{slide_id}`` in it; none by default. A viewer that serves the page puts its
        own in.
    """
    own = "(() => {\n'use strict';\n" + "\n".join(asset(name) for name in scripts) + "\n})();\n"
    codes = [asset(PLOTLY), own]
    digests = " ".join(f"'sha256-{_digest(code)}'" for code in codes)
    policy = (
        f"default-src 'none'; script-src {digests}; style-src 'unsafe-inline'; "
        "img-src 'self' file: data: blob:; base-uri 'none'; form-action 'none'"
    )
    parts = {
        "kicker": html.escape(kicker),
        "title": html.escape(title),
        "policy": html.escape(policy, quote=True),
        "viewer": html.escape(viewer or "", quote=True),
        "style": asset("report.css"),
        "data": "\n".join(
            f'<script type="application/json" id="data-{name}">{as_json(value)}</script>'
            for name, value in data.items()
        ),
        "scripts": "\n".join(f"<script>{code}</script>" for code in codes),
        "body": _filled(asset(body), blocks or {}),
    }
    return _filled(asset("page.html"), parts).encode("utf-8")


def _filled(template: str, parts: Mapping[str, str]) -> str:
    return _PLACE.sub(lambda found: parts[found[1]], template)


def _digest(code: str) -> str:
    return base64.b64encode(hashlib.sha256(code.encode("utf-8")).digest()).decode()


def as_json(value: object) -> str:
    """JSON that may stand in a page: nothing in it can end its element."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for sign in "<>&\u2028\u2029":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return text


def columns(rows: Sequence[Mapping[str, Any]], names: Iterable[str]) -> dict[str, Any]:
    """Rows by column: repeated texts as ``{"d": distinct, "i": numbers}`` (-1 is null), numbers rounded."""
    return {name: _column([row[name] for row in rows]) for name in names}


def _column(values: list[Any]) -> Any:
    texts = [value for value in values if value is not None]
    if texts and all(isinstance(value, str) for value in texts):
        distinct = sorted(set(texts))
        if len(distinct) <= MOST_DISTINCT * len(values):
            at = {value: place for place, value in enumerate(distinct)}
            return {"d": distinct, "i": [-1 if value is None else at[value] for value in values]}
    return [rounded(value) for value in values]


def rounded(value: Any) -> Any:
    """A number with `DIGITS` significant digits, null if it is none; anything else as it is."""
    if not isinstance(value, float):
        return value
    if not math.isfinite(value):
        return None
    short = float(f"{value:.{DIGITS}g}")
    return int(short) if short.is_integer() else short
