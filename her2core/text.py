"""Text in messages and pictures: short whatever came in, without secrets, and names of specimens."""

from __future__ import annotations

import os
import re
import reprlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

SHOWN = 60
"""Most characters of a value that a message repeats. Ours."""
LONGEST = 4000
"""Most characters of somebody else's error text that are passed on. Ours."""
SECRET_NAMES = re.compile(r"SECRET|TOKEN|PASSWORD|PASSWD|CREDENTIAL|API_KEY|AUTH_STRING|ACCESS_KEY")
"""Environment variables of such names hold what must appear nowhere."""
SHORTEST_SECRET = 6
"""Shorter values are no secrets, and occur by chance. Ours."""
HIDDEN = "…"
"""What stands in the place of a secret."""

CARRIES_SECRET = (
    "carries a user name, a signature or a password; expected s3://bucket/key, without credentials"
)
"""What messages report of such an address, which is not repeated."""
_SECRET_PART = re.compile(r"://[^/]*@|\?[^?]*=")

_USER_INFO = re.compile(r"://[^/\s@'\"]+@")
_QUERY = re.compile(r"""(\w[\w+.-]*://[^\s?'"]+)\?[^\s'"]+""")
_KEY_ID = re.compile(r"\b(?:AKIA|ASIA)[A-Z0-9]{12,}\b")
_PAIR = re.compile(
    r"""(?i)\b([\w-]*(?:secret|password|passwd|token|signature|credential|authorization|access[_-]?key|api[_-]?key)"""
    r"""[\w-]*["']?\s*[=:]\s*)(?:(?:bearer|basic)\s+)?["']?[^\s"'&,;})]+"""
)


class _Short(reprlib.Repr):
    """Looks at a few items of a value only, however many it holds."""

    def __init__(self) -> None:
        super().__init__()
        self.maxlevel, self.maxstring, self.maxother = 2, SHOWN, SHOWN
        self.maxlist = self.maxtuple = self.maxdict = self.maxset = 4


_short = _Short()


def shown(value: object, most: int = SHOWN) -> str:
    """The value as Python writes it, at most ``most`` characters however large it is."""
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) >= 10**most:
        return "a whole number of very many digits"
    text = repr(value[:most]) if isinstance(value, str) else _short.repr(value)
    return text if len(text) <= most else text[: most - 3] + "..."


def first_few(parts: Sequence[str], most: int, between: str = ", ") -> str:
    """The first ``most`` parts as they are, and how many more there are."""
    more = f" and {len(parts) - most} more" if len(parts) > most else ""
    return between.join(parts[:most]) + more


def listed(names: Iterable[str], most: int = 12) -> str:
    """Names that came in from outside, such as columns: the first ``most``, short and fit to be printed."""
    short = [
        "".join(c if c.isprintable() else "�" for c in (n if len(n) <= SHOWN else f"{n[:SHOWN]}..."))
        for n in names
    ]
    return first_few(short, most)


def check_viewer(address: str, name: str) -> None:
    """Refuse what is no address of a viewer that opens slides.

    Raises
    ------
    ValueError
        In words that do not repeat what may hold credentials; ``name`` names the setting.
    """
    expected = "expected http(s)://host[:port]/... with {slide_id} where the slide's id belongs"
    try:
        parts = urlsplit(address)
    except ValueError:
        raise ValueError(f"{name} cannot be read; {expected}") from None
    if parts.username is not None or "@" in address.partition("{slide_id}")[0]:
        raise ValueError(f"{name} carries credentials; give an address without them")
    if _PAIR.search(f"{parts.query}&{parts.fragment}"):
        raise ValueError(f"{name} carries a token or a signature, and reports are given away; leave it out")
    if parts.scheme not in ("http", "https") or not parts.hostname or "{slide_id}" not in address:
        raise ValueError(f"{name} is {shown(address)}; {expected}")


def cut(text: str, most: int = LONGEST) -> str:
    """The text, or its beginning and end where it is longer than ``most`` characters."""
    if len(text) <= most:
        return text
    half = most // 2
    return f"{text[:half]}\n[... {len(text) - 2 * half} characters ...]\n{text[-half:]}"


def counted(number: int, one: str, several: str = "") -> str:
    """A number of things in words: ``1 slide``, ``2,000 slides``."""
    return f"{number:,} {one if number == 1 else several or one + 's'}"


def harmless(cell: str) -> str:
    """A cell of a table so that no spreadsheet takes it for a formula."""
    return f"'{cell}" if cell.startswith(("=", "+", "-", "@", "\t", "\r")) else cell


def carries_secret(address: str) -> bool:
    """Whether an address has a user name before its host, or a query, as signed addresses have."""
    return _SECRET_PART.search(address) is not None


def cleaned(text: str) -> str:
    """The text without credentials: user names in addresses, signed queries, values of secret variables."""
    for variable, value in os.environ.items():
        if len(value) >= SHORTEST_SECRET and SECRET_NAMES.search(variable.upper()):
            text = text.replace(value, HIDDEN)
    text = _USER_INFO.sub(f"://{HIDDEN}@", _QUERY.sub(rf"\1?{HIDDEN}", text))
    return _PAIR.sub(rf"\1{HIDDEN}", _KEY_ID.sub(HIDDEN, text))


def joined_name(row: Mapping[str, Any], between: str = " ") -> str:
    """Case, specimen and site of a table's row, without what another of them repeats."""
    parts = list(dict.fromkeys(row[name] for name in ("case_id", "specimen_id", "site") if row[name]))
    return between.join(p for p in parts if not any(p in other for other in parts if other != p))
