"""Cohorts on a schedule: the file for ``prefect deploy``, and one machine that serves them."""

from __future__ import annotations

import ctypes
import hashlib
import json
import os
import secrets
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from flows.environment import ServerError
from her2core.errors import ConfigError
from her2core.strict_yaml import YamlError, parse_yaml
from her2core.text import shown

POOL = "her2"
TAG = "her2-served"
"""Tag of deployments that a file of cohorts made; the tag of that one file begins with it, see `owner`."""
LIMIT = {"limit": 1, "collision_strategy": "ENQUEUE"}
"""A run waits for another of its deployment, and is not lost: ingest may have requested it."""
LEASES = "prefect.server.concurrency.lease_storage.filesystem"
"""Where our server keeps who holds that limit; in memory, a run that died with it would hold it for ever."""
START_S = 180.0
"""Patience for the Prefect server; it takes 30 to 40 s on a loaded machine."""
END_S = 30.0
"""Patience for what is to end: a flow run writes down where it is."""
PR_SET_PDEATHSIG = 1
"""Of prctl(2): the signal that a process gets when its parent dies."""
WATCH_S = 2.0
"""How often the parts are looked at. Ours."""
JOB_ENVIRONMENT = {
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_LOGGING_LEVEL": "INFO",
    "PREFECT_LOGGING_EXTRA_LOGGERS": "her2core",
}
CRON = r"^\S+ \S+ \S+ \S+ \S+$"


class _Entry(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class ScheduledIngest(_Entry):
    """Where slides of a cohort arrive, how they are named, and when it is listed; see `flows.ingest`."""

    place: str
    cron: str = Field(pattern=CRON)
    rule: str | None = None
    table: str | None = None


class ScheduledCohort(_Entry):
    """One cohort and when it is scored."""

    name: str = Field(pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")
    manifest: str
    out: str
    config: str | None = None
    cron: str = Field(pattern=CRON)
    timezone: str = "UTC"
    active: bool = True
    cluster: str = "local"
    ingest: ScheduledIngest | None = None

    def addresses(self) -> list[str]:
        """All that is read or written."""
        taken = (self.ingest.place, self.ingest.table) if self.ingest else ()
        return [path for path in (self.manifest, self.out, self.config, *taken) if path is not None]


def read_cohorts(place: str) -> list[ScheduledCohort]:
    """Read a file of cohorts: a YAML list, as the chart's value ``cohorts``.

    Raises
    ------
    ConfigError
        Naming what cannot be used.
    """
    try:
        values = parse_yaml(Path(place).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{place}: no such file; expected a YAML list of cohorts") from None
    except YamlError as error:
        raise ConfigError(f"{place}: {error}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{place}: cannot be read: {type(error).__name__}: {error}") from None
    if not isinstance(values, list) or not values:
        raise ConfigError(f"{place}: expected a list of cohorts, each with name, manifest, out and cron")
    found = []
    for number, entry in enumerate(values, 1):
        try:
            found.append(ScheduledCohort.model_validate(entry))
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"])) or "entry"
            raise ConfigError(
                f"{place}: cohort {number}: {where}: {first['msg']}; found {shown(first['input'])}"
            ) from None
        for path in found[-1].addresses():
            if "://" not in path and not Path(path).is_absolute():
                raise ConfigError(
                    f"{place}: cohort {number}: {shown(path)} is relative; a run works in a folder of its "
                    "own, so write an absolute path or an s3:// address"
                )
    names = [cohort.name for cohort in found]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ConfigError(f"{place}: {', '.join(twice)} is named twice")
    return found


def owner(home: Path, file: str) -> str:
    """The tag of what a file of cohorts makes, the same at every start with this home folder."""
    kept = home / "service-id"
    if not kept.exists():
        kept.write_text(secrets.token_hex(8))
    named = f"{kept.read_text().strip()} {Path(file).resolve()}"
    return f"{TAG}-{hashlib.sha256(named.encode()).hexdigest()[:12]}"


def deployment_file(cohorts: Sequence[ScheduledCohort], own: str = TAG) -> dict[str, Any]:
    """What ``prefect deploy`` reads: the installed package holds the flows, so nothing is pulled.

    Parameters
    ----------
    own
        Of `owner`.
    """
    deployments = [_deployment(cohort) for cohort in cohorts]
    deployments += [_ingest(cohort, cohort.ingest) for cohort in cohorts if cohort.ingest is not None]
    for deployment in deployments:
        deployment["tags"] = ["her2", *sorted({TAG, own})]
    return {"name": "her2cohort", "pull": [], "deployments": deployments}


def _deployment(cohort: ScheduledCohort) -> dict[str, Any]:
    return {
        "name": cohort.name,
        "description": "Score every slide of the manifest that is not scored yet. Research use only.",
        "entrypoint": "flows.cohort.cohort",
        "parameters": {**_common(cohort), "only": [], "new_only": False},
        **_schedule(cohort, cohort.cron),
    }


def _ingest(cohort: ScheduledCohort, ingest: ScheduledIngest) -> dict[str, Any]:
    """Takes in what arrived, and starts the cohort's own deployment for what is new."""
    given = {"place": ingest.place, "rule": ingest.rule, "table": ingest.table}
    return {
        "name": f"{cohort.name}-ingest",
        "description": "Take in what arrived, and score what no run has seen. Research use only.",
        "entrypoint": "flows.ingest.ingest_slides",
        "parameters": {**_common(cohort), **given, "deployment": f"her2-cohort/{cohort.name}"},
        **_schedule(cohort, ingest.cron),
    }


def _common(cohort: ScheduledCohort) -> dict[str, Any]:
    names = ("manifest", "out", "config", "cluster")
    return {name: getattr(cohort, name) for name in names}


def _schedule(cohort: ScheduledCohort, cron: str) -> dict[str, Any]:
    return {
        "concurrency_limit": LIMIT,
        "schedules": [{"cron": cron, "timezone": cohort.timezone, "active": cohort.active}],
        "work_pool": {"name": POOL, "job_variables": {"env": JOB_ENVIRONMENT}},
    }


@dataclass(frozen=True, slots=True)
class Served:
    """Prefect at work: the server's address, and the processes that must not end."""

    api: str
    home: Path
    parts: Sequence[subprocess.Popen[bytes]]

    def watch(self) -> None:
        """Look after the parts until the caller is interrupted.

        Raises
        ------
        ServerError
            If a part of Prefect has ended by itself.
        """
        while all(part.poll() is None for part in self.parts):
            time.sleep(WATCH_S)
        raise ServerError(f"a part of Prefect has ended; see the logs in {self.home}")


@contextmanager
def served(
    cohorts: Sequence[ScheduledCohort], home: Path, port: int, file: str = "cohorts"
) -> Iterator[Served]:
    """Prefect's server, the cohorts' schedules and a process worker, for the length of the block.

    Parameters
    ----------
    file
        Where the cohorts were read: only what came from there is taken off the schedule.
    home
        Folder that keeps Prefect's database and logs between starts.
    port
        Of the server, on this machine alone. The server of ``PREFECT_API_URL`` is used instead, if set.

    Raises
    ------
    ServerError
        If Prefect does not start, or does not take the schedules.
    """
    try:
        home.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise ConfigError(f"{home}: cannot be made: {error.strerror}") from error
    named = os.environ.get("PREFECT_API_URL")
    api = named or f"http://127.0.0.1:{port}/api"
    environment = {
        **os.environ,
        "PREFECT_HOME": str(home),
        "PREFECT_API_URL": api,
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_LOGGING_LEVEL": "INFO",
        "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": LEASES,
        "DO_NOT_TRACK": "1",
    }
    with ExitStack() as stack:
        if named is None:
            words = ["server", "start", "--host", "127.0.0.1", "--port", str(port)]
            server = stack.enter_context(_running(words, environment, home / "server.log"))
            _await(api, server, home / "server.log")
        _register(cohorts, owner(home, file), environment, home)
        words = ["worker", "start", "--pool", POOL, "--type", "process"]
        worker = stack.enter_context(_running(words, environment, home / "worker.log"))
        yield Served(api, home, [worker] if named else [server, worker])


def _prefect(*words: str) -> list[str]:
    return [sys.executable, "-m", "prefect", "--no-prompt", *words]


def _ending_with_us() -> Callable[[], None] | None:
    """What a child of ours does before it begins, so that it is terminated when we die, SIGKILL included.

    Linux signals it; elsewhere it stays, as it does for what a child starts in turn.
    """
    prctl = getattr(ctypes.CDLL(None), "prctl", None)
    return None if prctl is None else partial(prctl, PR_SET_PDEATHSIG, int(signal.SIGTERM))


@contextmanager
def _running(
    words: Sequence[str], environment: dict[str, str], log: Path
) -> Iterator[subprocess.Popen[bytes]]:
    """A part of Prefect in a session of its own, terminated with the block and then killed."""
    with log.open("ab") as out:
        process = subprocess.Popen(
            _prefect(*words),
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            env=environment,
            cwd=log.parent,
            start_new_session=True,
            preexec_fn=_ending_with_us(),
        )
    try:
        yield process
    finally:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(END_S)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _await(api: str, server: subprocess.Popen[bytes], log: Path) -> None:
    """Wait until the server answers."""
    deadline = time.monotonic() + START_S
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    while time.monotonic() < deadline and server.poll() is None:
        with suppress(OSError), opener.open(f"{api}/health", timeout=5) as reply:
            if json.load(reply) is True and server.poll() is None:
                return
        time.sleep(0.5)
    raise ServerError(f"the Prefect server did not start; see {log}")


def _register(cohorts: Sequence[ScheduledCohort], own: str, environment: dict[str, str], home: Path) -> None:
    """Make the work pool and the schedules, and take away what the file no longer names.

    Raises
    ------
    ServerError
        If Prefect refuses, or another file's cohort has one of these names.
    """
    named = deployment_file(cohorts, own)
    names = {entry["name"] for entry in named["deployments"]}
    with _asking(environment["PREFECT_API_URL"]) as (client, found):
        if others := sorted(
            {one.name for one in found if one.name in names and _is_of_another(one.tags, own)}
        ):
            raise ServerError(
                f"{', '.join(others)}: on this Prefect server another her2 serve has a cohort of that name; "
                "give yours another, or remove that one with prefect deployment delete"
            )
    with tempfile.TemporaryDirectory(dir=home) as folder:
        place = Path(folder) / "prefect.yaml"
        place.write_text(yaml.safe_dump(named))
        for words in (
            ("work-pool", "create", POOL, "--type", "process", "--overwrite"),
            ("deploy", "--all", "--prefect-file", str(place)),
        ):
            done = subprocess.run(
                _prefect(*words), env=environment, cwd=folder, capture_output=True, text=True
            )
            if done.returncode:
                last_line = (done.stdout + done.stderr).strip().splitlines()[-1:]
                raise ServerError(f"prefect {' '.join(words[:2])} failed: {' '.join(last_line)}")
    with _asking(environment["PREFECT_API_URL"]) as (client, found):
        for deployment in found:
            if own in deployment.tags and deployment.name not in names:
                client.delete_deployment(deployment.id)


def _is_of_another(tags: Sequence[str], own: str) -> bool:
    """Whether a deployment was made by another file of cohorts; those of earlier versions are nobody's."""
    return own not in tags and any(tag.startswith(f"{TAG}-") for tag in tags)


@contextmanager
def _asking(api: str) -> Iterator[tuple[Any, list[Any]]]:
    """A client of the server, and the deployments that files of cohorts made there."""
    from prefect import get_client
    from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterTags
    from prefect.settings import PREFECT_API_URL, temporary_settings

    made = DeploymentFilter(tags=DeploymentFilterTags(all_=[TAG]))
    with temporary_settings({PREFECT_API_URL: api}), get_client(sync_client=True) as client:
        yield client, client.read_deployments(deployment_filter=made)
