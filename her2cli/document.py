"""Write docs/cli.md, every verb with its arguments and options, from the program.

python -m her2cli.document > docs/cli.md
"""

from __future__ import annotations

import re
import sys

import typer
from typer.cli import get_docs_for_click

from her2cli import app
from her2cli.common import EXIT_CODES

LONGEST = 200
"""Characters of a verb's first sentence in the table."""

HEAD = """# Command line

Written from the program by `python -m her2cli.document`. `her2 VERB --help` prints the same in a terminal,
and `her2 --install-completion` completes verbs and options in your shell.

"""


def page() -> str:
    """The page as Markdown."""
    command = typer.main.get_command(app)
    assert isinstance(command, typer.core.TyperGroup)
    text = get_docs_for_click(obj=command, ctx=typer.Context(command, info_name="her2"), name="her2")
    text = text.replace("```console\n$ ", "```text\n").replace(f"{EXIT_CODES}\n", "")
    verbs = "".join(
        f"| [`{name}`](#her2-{name}) | {verb.get_short_help_str(limit=LONGEST)} |\n"
        for name, verb in command.commands.items()
    )
    table = f"{EXIT_CODES}\n\n| verb | what it does |\n|---|---|\n{verbs}\n"
    text = re.sub(r"\*\*Commands\*\*:\n\n(\* .*\n)+", lambda _: table, text, count=1)
    text = re.sub(r"\n{3,}", "\n\n", re.sub(r"^#", "##", text, flags=re.MULTILINE))
    return HEAD + text.rstrip() + "\n"


if __name__ == "__main__":
    sys.stdout.write(page())
