"""Pseudonyms for files and folders, where the configuration requests them: file names may be people's names.

A pseudonym is random and reveals nothing; which file it stands for is in a table of its own, apart from the
results, that a run reads, completes and needs again for the same names. Workers, readers and terminals see
real names; tables, journal, records and Prefect's database see pseudonyms.
"""

from __future__ import annotations

import csv
import io
import os
import re
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from her2core.errors import ConfigError
from her2core.storage.sources import read_small
from her2core.storage.store import Store
from her2core.text import HIDDEN, harmless

COLUMNS = ("pseudonym", "name")
MOST_BYTES = 2**30
"""Most that is read of a table of pseudonyms: some millions of files. Ours."""

_PATH = re.compile(r"""(?:s3://|file://|(?<![\w.:/])/)[^\s'"<>()\[\]{}|,;]*|…/[^\s'"<>()\[\]{}|,;:]+""")
_QUOTED = re.compile(r"""(['"])(?:s3:/|file:/|…)?/[^'"\n]*\1""")
_FILE = re.compile(
    r"""(?i)[^\s'"<>()\[\]{}|,;:/=]+\.(?:svs|tiff?|ndpi|mrxs|dcm|ini|dat|czi|vsi|scn|bif|isyntax|zarr|(?:geo)?json|"""
    r"""xml|annotations|png|jpe?g|jp2|csv|ya?ml)\b"""
)


@dataclass(frozen=True, slots=True)
class Names:
    """Pseudonyms by real name; empty where names are shown as they are."""

    pseudonyms: Mapping[str, str] = field(default_factory=dict)

    def of(self, name: str) -> str:
        """What a name is called where others read it."""
        return self.pseudonyms.get(name, name)

    def hide(self, text: str, names: Iterable[str] = ()) -> str:
        """A text with pseudonyms for these names, and without any other path or file's name."""
        if not self.pseudonyms:
            return text
        replaced: dict[str, str] = {}
        for name in filter(None, names):
            pseudonym = self.pseudonyms.get(name, HIDDEN)
            local = name.removeprefix("file://")
            replaced |= {PurePosixPath(local).name: pseudonym, local: pseudonym, name: pseudonym}
        for name in sorted(replaced, key=len, reverse=True):
            text = re.sub(rf"(?<!\w){re.escape(name)}(?!\w)", lambda _, name=name: replaced[name], text)  # type: ignore[misc]
        kept = set(replaced.values())

        def last(found: re.Match[str]) -> str:
            name = found[0].strip("'\"").rpartition("/")[2]
            return name if name in kept else HIDDEN

        return _FILE.sub(last, _PATH.sub(last, _QUOTED.sub(last, text)))


def open_names(table: str | None, names: Iterable[str], out: Store, endpoint_url: str | None) -> Names:
    """Read the table of pseudonyms, and add those that it lacks.

    Parameters
    ----------
    table
        CSV (path or ``s3://``), made at the first run; None for no pseudonyms.
    names
        Everything that needs one.
    out
        The output, which the table must not lie in.

    Raises
    ------
    ConfigError
        If the table lies in the output, or is not one of ours.
    """
    if table is None:
        return Names()
    folder, _, name = _absolute(table).rpartition("/")
    if f"{folder}/".startswith(out.uri().rstrip("/") + "/"):
        raise ConfigError(
            "run.pseudonyms lies in the output that it is to keep names out of; put it elsewhere"
        )
    try:
        known = _parsed(read_small(table, endpoint_url, MOST_BYTES))
    except FileNotFoundError:
        known = {}
    new = {each: _pseudonym(each) for each in dict.fromkeys(names) if each and each not in known}
    if new:
        text = io.StringIO()
        writer = csv.writer(text)
        writer.writerow(COLUMNS)
        writer.writerows((pseudonym, _written(each)) for each, pseudonym in (known | new).items())
        Store(folder or "/", endpoint_url=endpoint_url).write_bytes(name, text.getvalue().encode())
    return Names(known | new)


def _written(name: str) -> str:
    """A file's name as a cell that no spreadsheet takes for a formula."""
    return f"'{name}" if harmless(name.lstrip("'")) != name.lstrip("'") else name


def _read(cell: str) -> str:
    """The name that `_written` wrote."""
    name = cell.removeprefix("'")
    return name if _written(name) == cell else cell


def _parsed(data: bytes) -> dict[str, str]:
    try:
        rows = list(csv.reader(io.StringIO(data.decode("utf-8-sig"), newline="")))
        if tuple(rows[0]) != COLUMNS:
            raise ValueError
        return {_read(name): pseudonym for pseudonym, name in rows[1:]}
    except (UnicodeDecodeError, ValueError, IndexError, csv.Error):
        raise ConfigError(
            f"run.pseudonyms is no table of pseudonyms; expected the columns {', '.join(COLUMNS)}, or no "
            "file yet"
        ) from None


def _pseudonym(name: str) -> str:
    """A new one, with the ending of its kind of file."""
    ending = PurePosixPath(name.rstrip("/")).suffix
    return f"file-{secrets.token_hex(6)}{ending if re.fullmatch(r'[.][A-Za-z0-9]{1,10}', ending) else ''}"


def _absolute(place: str) -> str:
    if place.startswith("s3://"):
        return place
    return os.path.abspath(os.path.expanduser(place.removeprefix("file://")))
