"""Write docs/third-party.md: the licence of every package of requirements.lock, from what is installed.

python docs/third_party.py > docs/third-party.md
"""

from __future__ import annotations

import re
import sys
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[1]
PYTHONS = ("3.11", "3.12", "3.13")
LONGEST = 60  # characters of a licence field; longer ones are the licence's whole text
LINKED = re.compile(r"\b(LGPL|MPL|EPL)|Lesser General Public|Mozilla Public", re.IGNORECASE)
STRONG = re.compile(r"(?<!L)(?<!Lesser )\b(A?GPL|GNU (Affero )?General Public)", re.IGNORECASE)
CHOICE = re.compile(r"\([^()]* OR [^()]*\)")  # of an expression: who receives the package chooses one
DUAL = {"text-unidecode": "the Artistic License or the GPL, by choice of who receives it"}

# What wheels bring along beside their own code, as their licence files state it.
BUNDLED = {
    "imagecodecs": "codecs under BSD, MIT, zlib, IJG and similar licences (its folder `licenses`); libgomp "
    "(GPL with the GCC runtime exception)",
    "numpy": "OpenBLAS (BSD); libgfortran and libquadmath (GPL and LGPL with the GCC runtime exception)",
    "opencv-python-headless": "FFmpeg (LGPL-2.1) and others; see its `LICENSE-3RD-PARTY.txt`",
    "openslide-bin": "OpenSlide and GLib (LGPL-2.1), cairo (LGPL-2.1 or MPL-1.1) and others",
    "scipy": "OpenBLAS (BSD); libgfortran and libquadmath (GPL and LGPL with the GCC runtime exception)",
    "shapely": "GEOS (LGPL-2.1)",
}

PAGE = """# Third-party licences

The packages of the runtime lock and the licence that each states in its own metadata, written by
`docs/third_party.py`. her2cohort itself is under Apache-2.0; it contains plotly.js (MIT, in
`her2core/report/assets`), OpenLayers (BSD-2-Clause, with rbush, MIT, and quickselect, ISC, in
`her2core/viewer/assets`) and none of the packages' code; the container image does contain them. This list is
an aid, not legal advice: the licence texts in the installed packages are what holds.

## Copyleft

Weak copyleft (LGPL, MPL) asks for the source of the library itself and leaves what uses it alone; strong
copyleft (GPL, AGPL) covers the whole that is passed on.

{copyleft}

Libraries inside wheels, which the metadata above does not show:

{bundled}

## All packages

| package | version | licence | copyleft |
|---|---|---|---|
{packages}
{absent}"""


def locked() -> list[tuple[str, str]]:
    """Names and versions of the runtime lock that Linux needs, with any Python."""
    found = set()
    for line in (ROOT / "requirements.lock").read_text().replace("\\\n", " ").splitlines():
        entry = Requirement(line.split("--hash")[0].strip())
        for python in PYTHONS:
            where = {"python_version": python, "python_full_version": f"{python}.9", "sys_platform": "linux"}
            if entry.marker is None or entry.marker.evaluate(where):
                found.add((entry.name.lower(), str(entry.specifier).removeprefix("==")))
    return sorted(found)


def licence(of: metadata.PackageMetadata) -> str:
    """The licence that a distribution states: as an expression, else by its classifiers, else in words."""
    expression = of.get("License-Expression")
    if expression:
        return str(expression)
    names = [c.split(" :: ")[-1] for c in of.get_all("Classifier") or [] if c.startswith("License ::")]
    names = [name for name in names if name != "OSI Approved"]
    if names:
        return "; ".join(names)
    text = str(of.get("License") or "").strip()
    return text.splitlines()[0][:LONGEST] if text else "not stated"


def copyleft(text: str) -> str:
    """``strong``, ``weak`` or nothing: whether who passes the software on owes its source code."""
    if STRONG.search(CHOICE.sub("", text)):
        return "strong"
    return "weak" if LINKED.search(text) else ""


def page() -> str:
    """The page as Markdown."""
    rows, flagged, missing = [], [], []
    for name, version in locked():
        try:
            found = metadata.metadata(name)
        except metadata.PackageNotFoundError:
            missing.append(name)
            continue
        text = licence(found)
        kind = "by choice" if name in DUAL else copyleft(text)
        rows.append(f"| {name} | {version} | {text} | {kind} |")
        if kind:
            flagged.append(f"- **{name}**: {DUAL.get(name, f'{text} ({kind} copyleft)')}")
    return PAGE.format(
        copyleft="\n".join(flagged) or "None of the packages states a copyleft licence.",
        bundled="\n".join(f"- **{name}**: {what}" for name, what in BUNDLED.items()),
        packages="\n".join(rows),
        absent=f"\nNot installed here, and so not listed: {', '.join(missing)}.\n" if missing else "",
    )


if __name__ == "__main__":
    sys.stdout.write(page())
