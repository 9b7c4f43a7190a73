"""The rule sets that come with the package, as text: one YAML file each, in folders of their own."""

from __future__ import annotations

from functools import lru_cache
from importlib import resources

import yaml

from her2core.errors import ConfigError
from her2core.text import shown

UNREADABLE = (AttributeError, KeyError, RecursionError, TypeError, ValueError, yaml.YAMLError)
"""What a text raises that is no rule set (brackets nested a thousand deep: RecursionError)."""


@lru_cache
def rule_files(folder: str) -> dict[str, str]:
    """Text of every rule set in a folder of ``her2core/guidelines``, sorted by name."""
    files = resources.files("her2core").joinpath("guidelines", folder).iterdir()
    texts = {f.name: f.read_text(encoding="utf-8") for f in files if f.name.endswith(".yaml")}
    return {name.removesuffix(".yaml"): texts[name] for name in sorted(texts)}


def rule_text(folder: str, name: str) -> str:
    """Text of one rule set.

    Raises
    ------
    ConfigError
        Naming those that there are, if there is none of that name.
    """
    known = rule_files(folder)
    if name not in known:
        key = {"ihc": "ihc_score.rules", "ish": "ish_score.rules"}.get(folder, "rules")
        raise ConfigError(
            f"{key} is {shown(name)}, which is not a rule set; expected one of {', '.join(known)}"
        )
    return known[name]
