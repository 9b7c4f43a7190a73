"""The locks give every version with hashes, for every Python, and name no registry and no machine."""

from __future__ import annotations

import re
import tomllib

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

from tests.conftest import ROOT

LOCKS = ("requirements.lock", "requirements-dev.lock")
IMAGE, CORE, LOWEST = "requirements-image.lock", "requirements-core.lock", "requirements-lowest.lock"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def entries(name: str) -> list[str]:
    """Requirements of a lock, each with its continuation lines joined."""
    return (ROOT / name).read_text().replace("\\\n", " ").splitlines()


def locked(name: str, python: str) -> dict[str, Version]:
    """What pip installs from a lock on Linux with one Python."""
    environment = {"python_version": python, "python_full_version": f"{python}.9", "sys_platform": "linux"}
    found = {}
    for line in entries(name):
        requirement = Requirement(line.split("--hash")[0].strip())
        if requirement.marker is None or requirement.marker.evaluate(environment):
            assert requirement.name not in found, f"{requirement.name} twice on {python}"
            (pin,) = requirement.specifier
            found[requirement.name] = Version(pin.version)
    return found


@pytest.mark.parametrize("name", [*LOCKS, CORE, IMAGE, LOWEST, "requirements-tools.lock"])
def test_every_requirement_is_pinned_and_hashed_and_no_place_is_named(name: str) -> None:
    for line in entries(name):
        assert re.fullmatch(r"[a-z0-9._-]+==[^ ]+( ; [^\\]+?)?( +--hash=sha256:[0-9a-f]{64})+ *", line), line
    assert "://" not in (ROOT / name).read_text()


@pytest.mark.parametrize("python", ["3.11", "3.12", "3.13"])
def test_the_locks_satisfy_the_project_and_each_other(python: str) -> None:
    runtime, everything = (locked(name, python) for name in LOCKS)
    core, image = locked(CORE, python), locked(IMAGE, python)
    assert not {"prefect", "fastapi", "typer", "rich"} & core.keys()
    assert core.items() <= runtime.items()
    assert runtime.items() <= image.items() <= everything.items()
    assert {"kubernetes", "prefect-kubernetes", "prometheus-client"} <= image.keys()
    assert "hatchling" in runtime  # the build backend: the package installs without build isolation
    extras = [text for group in PROJECT["optional-dependencies"].values() for text in group]
    for texts, lock in ((PROJECT["dependencies"], core), (extras, everything)):
        for requirement in map(Requirement, texts):
            if requirement.marker and not requirement.marker.evaluate({"python_version": python}):
                continue
            assert requirement.specifier.contains(lock[requirement.name.lower()], prereleases=True), (
                requirement
            )


def test_every_dependency_has_a_lower_bound_and_the_lowest_lock_starts_there() -> None:
    extras = [text for group in PROJECT["optional-dependencies"].values() for text in group]
    lowest, off = locked(LOWEST, "3.11"), []
    for requirement in map(Requirement, [*PROJECT["dependencies"], *extras]):
        if requirement.marker and not requirement.marker.evaluate({"python_version": "3.11"}):
            continue
        bounds = [
            Version(each.version).release for each in requirement.specifier if each.operator in ("==", ">=")
        ]
        found = lowest[requirement.name.lower()]
        if len(bounds) != 1 or found.release[: len(bounds[0])] != bounds[0]:
            off.append(f"{requirement}: {found}")
    assert not off


def test_the_licence_of_every_locked_package_is_listed() -> None:
    """Else: python docs/third_party.py > docs/third-party.md"""
    page = (ROOT / "docs" / "third-party.md").read_text()
    rows = set(re.findall(r"^\| ([a-z0-9._-]+) \| (\S+) \|", page, re.MULTILINE))
    absent = re.findall(r"Not installed here, and so not listed: (.*)\.$", page, re.MULTILINE)
    unlisted = {name for names in absent for name in names.split(", ")}
    for python in ("3.11", "3.12", "3.13"):
        for name, version in locked("requirements.lock", python).items():
            assert name in unlisted or (name, str(version)) in rows, f"{name} {version}"
