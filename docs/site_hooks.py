"""What MkDocs does to pages of the site: references to the specification become links."""

from __future__ import annotations

import re
from typing import Any

REFERENCE = re.compile(r"(?<![`\w])([Ss]pec )§(\d+(?:\.\d+)*)(?!`)")


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Link every ``spec §4.3.5`` to its paragraph; in the specification itself there is none to link."""
    if page.file.src_uri == "specification.md":
        return markdown
    parts = markdown.split("```")  # every second one is code
    parts[::2] = [REFERENCE.sub(r"[\1§\2](specification.md#s\2)", part) for part in parts[::2]]
    return "```".join(parts)
