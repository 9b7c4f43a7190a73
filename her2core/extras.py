"""Packages that only some questions need: extras, which an installation may lack."""

from __future__ import annotations

from importlib import import_module

from her2core.errors import ConfigError


def need(extra: str, package: str) -> None:
    """Refuse to go on without a package, naming the extra that brings it.

    Raises
    ------
    ConfigError
        If the package, or one that it needs, is not installed.
    """
    try:
        import_module(package)
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"{error.name} is not installed; install the extra: pip install 'her2cohort[{extra}]'"
        ) from error
