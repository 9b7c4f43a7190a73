"""The objects of a cluster in Kubernetes, as plain values: a `DaskCluster`, its autoscaler, and a Secret.

Nothing here contacts a cluster. What the chart decides (image, sizes, nodes, accounts) comes from a file
that it mounts into the flow's pod; what only the run has (names, certificates, the owner) is added here,
and what must never differ (one thread a worker, TLS, restricted pods, a time limit for idling) is written
here alone.

References
----------
Dask Kubernetes operator, custom resources of ``kubernetes.dask.org/v1``.
Kubernetes pod security standards, profile *restricted*.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from flows.clusters.base import SETTINGS
from flows.environment import WORKER_ENVIRONMENT
from her2core.errors import ConfigError
from her2core.text import shown

Object = dict[str, Any]
"""A Kubernetes object, as its API takes it."""

PLACE = "/etc/her2/cluster.yaml"
"""Where the chart mounts the settings in the flow's pod."""
API_VERSION = "kubernetes.dask.org/v1"
SCRATCH, RUN_FILES = "/scratch", "/etc/her2-dask"
USER = 10001
"""User and group of the image."""
COMM_PORT, HTTP_PORT, WORKER_PORT, NANNY_PORT = 8786, 8787, 8788, 8789
LEAST_IDLE_S = 300
"""Shortest time limit for idling. Ours: a run has pauses without a task, while tables are written."""
DEATH_TIMEOUT_S = 300
"""A worker without its scheduler for so long ends. Ours."""
COMPONENT = "dask.org/component"
APP = {"app.kubernetes.io/name": "her2cohort", "app.kubernetes.io/part-of": "her2cohort"}
"""Labels of every pod, which the chart's NetworkPolicies select."""
KEPT = {
    "cluster-autoscaler.kubernetes.io/safe-to-evict": "false",
    "karpenter.sh/do-not-disrupt": "true",
}
"""Annotations of a pod whose loss ends the run: nodes are not emptied of it to save money."""


class _Settings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Pods(_Settings):
    """Size and place of one kind of pods."""

    cpu: str = "1"
    memory: str = "4Gi"
    scratch: str = Field(default="20Gi", description="Size of the volume at /scratch.")
    node_selector: dict[str, str] = {}
    tolerations: list[dict[str, Any]] = []
    affinity: dict[str, Any] = {}
    priority_class: str | None = None


class PodSettings(_Settings):
    """What the chart decides of a run's cluster: the file at `PLACE`."""

    image: str = Field(pattern=r"^[^\s@]+@sha256:[0-9a-f]{64}$")
    pull_secrets: list[str] = []
    namespace: str | None = None
    service_account: str = "default"
    operator_namespace: str = "dask-operator"
    minimum: int = Field(default=1, ge=1)
    maximum: int = Field(default=10, ge=1)
    clusters: int = Field(default=1, ge=1, le=100, description="Clusters that share a run's slides.")
    idle_timeout_s: int = Field(default=1800, ge=LEAST_IDLE_S)
    start_timeout_s: int = Field(default=900, ge=1)
    environment: dict[str, str] = {}
    secrets: list[str] = Field(default=[], description="Secrets whose keys become environment variables.")
    labels: dict[str, str] = {}
    scheduler: Pods = Pods()
    worker: Pods = Pods()

    @model_validator(mode="after")
    def _ordered(self) -> PodSettings:
        if self.minimum > self.maximum:
            raise ValueError(f"minimum {self.minimum} is above maximum {self.maximum}")
        return self

    @classmethod
    def read(cls, place: str = PLACE) -> PodSettings:
        """Read the file that the chart mounted, or another one.

        Raises
        ------
        ConfigError
            If there is none, or it cannot be used.
        """
        try:
            values = yaml.safe_load(Path(place).read_text(encoding="utf-8"))
            return cls.model_validate(values)
        except FileNotFoundError:
            raise ConfigError(
                f"cluster kubernetes: no file {place}; the chart (deploy/helm) mounts it into the flow's "
                "pod; elsewhere name one as kubernetes:FILE"
            ) from None
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise ConfigError(f"{place}: cannot be read: {type(error).__name__}: {error}") from None
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"])) or "the file"
            raise ConfigError(f"{place}: {where}: {first['msg']}; found {shown(first['input'])}") from None


@dataclass(frozen=True, slots=True)
class Certificates:
    """PEM texts with which client, scheduler and workers of one run recognise each other. Never logged."""

    authority: str
    certificate: str
    key: str

    def __repr__(self) -> str:
        return "Certificates(...)"


@dataclass(frozen=True, slots=True)
class Owner:
    """The pod that a run works in; when it is deleted, so is what it owns."""

    name: str
    uid: str

    def reference(self, kind: str = "Pod", version: str = "v1") -> Object:
        """An owner reference, for the metadata of what is owned."""
        return {"apiVersion": version, "kind": kind, "name": self.name, "uid": self.uid}


def scheduler_address(name: str, namespace: str) -> str:
    """Where the scheduler of a cluster answers, inside Kubernetes."""
    return f"tls://{name}-scheduler.{namespace}.svc:{COMM_PORT}"


def dask_cluster(settings: PodSettings, name: str, namespace: str, owner: Owner | None) -> Object:
    """The `DaskCluster` of one run."""
    labels = {**settings.labels, **APP}
    metadata: Object = {"name": name, "namespace": namespace, "labels": labels}
    if owner is not None:
        metadata["ownerReferences"] = [owner.reference()]
    selector = {"dask.org/cluster-name": name, COMPONENT: "scheduler"}
    ports = [
        {"name": "tcp-comm", "port": COMM_PORT, "protocol": "TCP", "targetPort": "tcp-comm"},
        {"name": "http-dashboard", "port": HTTP_PORT, "protocol": "TCP", "targetPort": "http-dashboard"},
    ]
    return {
        "apiVersion": API_VERSION,
        "kind": "DaskCluster",
        "metadata": metadata,
        "spec": {
            "idleTimeout": settings.idle_timeout_s,
            "scheduler": {
                "metadata": {"annotations": KEPT},
                "spec": _scheduler(settings, name, namespace),
                "service": {"type": "ClusterIP", "selector": selector, "ports": ports},
            },
            "worker": {"replicas": settings.minimum, "spec": _worker(settings, name, namespace)},
        },
    }


def autoscaler(settings: PodSettings, name: str, namespace: str, cluster: Owner) -> Object:
    """The `DaskAutoscaler` of one run's cluster."""
    return {
        "apiVersion": API_VERSION,
        "kind": "DaskAutoscaler",
        "metadata": _owned(name, namespace, cluster),
        "spec": {"cluster": name, "minimum": settings.minimum, "maximum": settings.maximum},
    }


def run_files(certificates: Certificates, name: str, namespace: str, cluster: Owner) -> Object:
    """The Secret that scheduler and workers mount: certificates, and Dask's configuration."""
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "type": "Opaque",
        "metadata": _owned(name, namespace, cluster),
        "stringData": {
            "ca.pem": certificates.authority,
            "cert.pem": certificates.certificate,
            "key.pem": certificates.key,
            "dask.yaml": yaml.safe_dump(dask_configuration()),
        },
    }


def dask_configuration() -> Object:
    """Dask's configuration in the pods: that of every cluster of ours, TLS, and the HTTP routes.

    Without the route ``api`` the operator cannot read the number of workers or which of them are idle, and
    would end workers blindly or never. It has no authentication; a NetworkPolicy keeps others away.
    """
    here = {"cert": f"{RUN_FILES}/cert.pem", "key": f"{RUN_FILES}/key.pem"}
    flat = {
        **SETTINGS,
        "distributed.comm.require-encryption": True,
        "distributed.comm.tls.ca-file": f"{RUN_FILES}/ca.pem",
        **{f"distributed.comm.tls.{role}": here for role in ("scheduler", "worker", "client")},
        "distributed.scheduler.http.routes": [
            "distributed.http.scheduler.api",
            "distributed.http.scheduler.prometheus",
            "distributed.http.health",
        ],
        "distributed.worker.http.routes": ["distributed.http.health"],
        "temporary-directory": SCRATCH,
    }
    nested: Object = {}
    for dotted, value in flat.items():
        *parents, last = dotted.split(".")
        part = nested
        for parent in parents:
            part = part.setdefault(parent, {})
        part[last] = value
    return nested


def _owned(name: str, namespace: str, cluster: Owner) -> Object:
    reference = cluster.reference("DaskCluster", API_VERSION)
    return {"name": name, "namespace": namespace, "labels": APP, "ownerReferences": [reference]}


def _scheduler(settings: PodSettings, name: str, namespace: str) -> Object:
    words = ["dask", "scheduler", "--protocol", "tls", "--port", str(COMM_PORT)]
    health = {"httpGet": {"path": "/health", "port": "http-dashboard"}}
    ports = [
        {"name": "tcp-comm", "containerPort": COMM_PORT, "protocol": "TCP"},
        {"name": "http-dashboard", "containerPort": HTTP_PORT, "protocol": "TCP"},
    ]
    container = {
        **_container(settings, settings.scheduler, "scheduler", name, namespace),
        "args": [*words, "--dashboard-address", f":{HTTP_PORT}"],
        "ports": ports,
        "readinessProbe": {**health, "periodSeconds": 5, "timeoutSeconds": 5},
        "livenessProbe": {**health, "periodSeconds": 15, "timeoutSeconds": 10, "failureThreshold": 20},
    }
    return _pod(settings, settings.scheduler, container, name)


def _worker(settings: PodSettings, name: str, namespace: str) -> Object:
    ports = {"--worker-port": WORKER_PORT, "--nanny-port": NANNY_PORT}
    container = {
        **_container(settings, settings.worker, "worker", name, namespace),
        "args": [
            *("dask", "worker", scheduler_address(name, namespace)),
            # The operator deletes the deployment that the scheduler names, so that names must agree.
            *("--name", "$(DASK_WORKER_NAME)"),
            *("--nworkers", "1", "--nthreads", "1", "--memory-limit", "auto", "--no-dashboard"),
            *("--local-directory", SCRATCH, "--death-timeout", str(DEATH_TIMEOUT_S)),
            *(word for option, port in ports.items() for word in (option, str(port))),
        ],
        "ports": [
            {"name": "worker", "containerPort": WORKER_PORT, "protocol": "TCP"},
            {"name": "nanny", "containerPort": NANNY_PORT, "protocol": "TCP"},
        ],
    }
    return _pod(settings, settings.worker, container, name)


def _container(settings: PodSettings, pods: Pods, kind: str, name: str, namespace: str) -> Object:
    """What scheduler and workers have alike."""
    environment: Mapping[str, object] = {
        **settings.environment,
        **WORKER_ENVIRONMENT,
        "DASK_CONFIG": f"{RUN_FILES}/dask.yaml",
        "DASK_SCHEDULER_ADDRESS": scheduler_address(name, namespace),  # the operator's own is without TLS
        "HOME": SCRATCH,
        "TMPDIR": SCRATCH,
        "NUMBA_CACHE_DIR": f"{SCRATCH}/numba",  # the image's start copies what it was built with there
    }
    requests = {"cpu": pods.cpu, "memory": pods.memory}
    return {
        "name": kind,
        "image": settings.image,
        "imagePullPolicy": "IfNotPresent",
        "env": [{"name": name, "value": str(value)} for name, value in environment.items()],
        "envFrom": [{"secretRef": {"name": secret}} for secret in settings.secrets],
        "resources": {"requests": requests, "limits": {"memory": pods.memory}},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [
            {"name": "scratch", "mountPath": SCRATCH},
            {"name": "run-files", "mountPath": RUN_FILES, "readOnly": True},
        ],
    }


def _pod(settings: PodSettings, pods: Pods, container: Object, name: str) -> Object:
    """A pod of the profile *restricted*, without a token for the API and without variables of Services."""
    more = {
        "nodeSelector": pods.node_selector,
        "tolerations": pods.tolerations,
        "affinity": pods.affinity,
        "priorityClassName": pods.priority_class,
        "imagePullSecrets": [{"name": secret} for secret in settings.pull_secrets],
    }
    return {
        "serviceAccountName": settings.service_account,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": 30,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER,
            "runAsGroup": USER,
            "fsGroup": USER,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [container],
        "volumes": [
            {"name": "scratch", "emptyDir": {"sizeLimit": pods.scratch}},
            {"name": "run-files", "secret": {"secretName": name, "defaultMode": 0o440}},
        ],
        **{field: value for field, value in more.items() if value},
    }
