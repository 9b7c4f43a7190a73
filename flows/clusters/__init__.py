"""The Dask cluster of a run: processes here, a scheduler by address, or pods made for the run alone."""

from __future__ import annotations

from urllib.parse import urlsplit

from flows.clusters.base import SETTINGS, Cluster
from flows.environment import WORKER_ENVIRONMENT
from her2core.errors import ConfigError
from her2core.text import shown

__all__ = ["SETTINGS", "WORKER_ENVIRONMENT", "Cluster", "check_address", "open_cluster"]

KUBERNETES = "kubernetes"
EXPECTED = "expected local, tcp://HOST:PORT, tls://HOST:PORT, kubernetes or kubernetes:FILE"


def open_cluster(cluster: str, workers: int | None = None) -> Cluster:
    """The cluster that a run names; nothing is started before `Cluster.connect`.

    Parameters
    ----------
    cluster
        ``local`` for worker processes on this machine; the address of a scheduler (``tcp://host:8786``,
        ``tls://host:8786``); ``kubernetes`` for pods of this run's own, which the file that the chart mounts
        describes, or ``kubernetes:FILE`` for another file.
    workers
        Worker processes of a local cluster; one a core by default.

    Raises
    ------
    ConfigError
        If it is none of these.
    """
    check_address(cluster)
    kind, _, rest = cluster.partition(":")
    if kind == KUBERNETES:
        from flows.clusters.kubernetes import KubernetesCluster, PodSettings

        return KubernetesCluster(PodSettings.read(rest) if rest else PodSettings.read())
    if kind == "local":
        from flows.clusters.local import LocalMachine

        return LocalMachine(workers)
    from flows.clusters.scheduler import RunningScheduler

    return RunningScheduler(cluster)


def open_clusters(cluster: str, workers: int | None = None) -> list[Cluster]:
    """The clusters that share a run's slides: schedulers, or as many as the settings of Kubernetes give.

    Parameters
    ----------
    cluster
        As of `open_cluster`; several schedulers with commas between them.
    """
    check_address(cluster)
    named = [open_cluster(each, workers) for each in cluster.split(",")]
    return [one for one in named for _ in range(one.count)]


def check_address(cluster: str) -> None:
    """Refuse what names no cluster, with `ConfigError`; also of several, each once and a scheduler."""
    several = cluster.split(",")
    if len(several) > 1:
        if len(set(several)) < len(several) or not all("://" in each for each in several):
            raise ConfigError("cluster names several; expected addresses of schedulers, each once")
        for each in several:
            check_address(each)
        return
    if cluster in ("local", KUBERNETES) or cluster.startswith(f"{KUBERNETES}:"):
        return
    if "@" in cluster or "?" in cluster:
        raise ConfigError(f"cluster carries a user name or a query; {EXPECTED}")
    try:
        parts = urlsplit(cluster)
        whole = parts.scheme in ("tcp", "tls") and parts.hostname and parts.port and parts.path in ("", "/")
    except ValueError:  # a port that is none
        whole = False
    if not whole:
        raise ConfigError(f"cluster is {shown(cluster)}; {EXPECTED}")
