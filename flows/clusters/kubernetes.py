"""A Dask cluster of pods that is made for one run and goes with it.

The run's pod owns the cluster, so that Kubernetes deletes it with the pod; a run that ends deletes it
itself; and where neither happens (the pod was killed and is kept) the operator deletes it when it has idled
for long enough.
"""

from __future__ import annotations

import json
import logging
import os
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distributed import Client
from distributed.security import Security

from flows.clusters import pods
from flows.clusters.base import check_workers, quieten
from flows.clusters.pods import Certificates, Object, Owner, PodSettings
from her2core.errors import ClusterError, ConfigError

log = logging.getLogger("her2core.cluster")

__all__ = ["KubernetesCluster", "PodSettings"]

GROUP, VERSION = pods.API_VERSION.split("/")
CLUSTERS, AUTOSCALERS = "daskclusters", "daskautoscalers"
OPERATOR = "app.kubernetes.io/name=dask-kubernetes-operator"
LEAST_OPERATOR = (2025, 1)
"""Earlier operators do not scale down (dask-kubernetes, pull request 912)."""
NAMESPACE_FILE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
NOT_FOUND = 404
TRY_S = 15
"""Patience for one attempt to reach a scheduler that is still starting. Ours."""


@dataclass(frozen=True, slots=True)
class KubernetesCluster:
    """Pods for one run, as many as it has work for between a minimum and a maximum."""

    settings: PodSettings
    title: str = "Kubernetes"

    @property
    def count(self) -> int:
        """By the settings."""
        return self.settings.clusters

    @contextmanager
    def connect(self) -> Iterator[Client]:
        """See `flows.clusters.base.Cluster`."""
        quieten()
        api = _Api.open(self.settings.namespace)
        _check_operator(api, self.settings.operator_namespace)
        name = f"her2-{secrets.token_hex(5)}"
        security = Security.temporary()  # type: ignore[no-untyped-call]
        try:
            made = pods.dask_cluster(self.settings, name, api.namespace, _this_pod())
            cluster = Owner(name, api.create(CLUSTERS, made))
            log.info("cluster %s: %d to %d workers", name, self.settings.minimum, self.settings.maximum)
            api.create_secret(pods.run_files(_certificates(security), name, api.namespace, cluster))
            api.create(AUTOSCALERS, pods.autoscaler(self.settings, name, api.namespace, cluster))
            with self._client(api, name, security) as client:
                check_workers(client, name)
                yield client
        finally:
            api.delete_cluster(name)

    def check(self) -> None:
        """Check Kubernetes and the operator; nothing is made."""
        api = _Api.open(self.settings.namespace)
        _check_operator(api, self.settings.operator_namespace)
        api.look()

    def _client(self, api: _Api, name: str, security: Security) -> Client:
        """A client as soon as the scheduler answers and one worker is there."""
        address = pods.scheduler_address(name, api.namespace)
        deadline = time.monotonic() + self.settings.start_timeout_s
        while True:
            try:
                client = Client(  # type: ignore[no-untyped-call]
                    address, security=security, timeout=f"{TRY_S}s", set_as_default=False
                )
                break
            except OSError as error:
                if time.monotonic() > deadline:
                    raise self._late(api, name, f"its scheduler does not answer ({error})") from None
        try:
            client.wait_for_workers(1, timeout=max(deadline - time.monotonic(), 1.0))
        except BaseException as error:
            client.close()  # type: ignore[no-untyped-call]
            if isinstance(error, TimeoutError):
                raise self._late(api, name, "no worker has come") from None
            raise
        return client

    def _late(self, api: _Api, name: str, what: str) -> ClusterError:
        waits = "; ".join(api.waiting(name)) or "Kubernetes gives no reason"
        return ClusterError(f"cluster {name}: {what} after {self.settings.start_timeout_s} s: {waits}")


def _certificates(security: Any) -> Certificates:
    """One certificate for the whole run, made in memory: who has it belongs to the run."""
    return Certificates(security.tls_ca_file, security.tls_client_cert, security.tls_client_key)


def _this_pod() -> Owner | None:
    """The pod that this process runs in, from the downward API."""
    name, uid = os.environ.get("POD_NAME"), os.environ.get("POD_UID")
    if name and uid:
        return Owner(name, uid)
    log.warning("POD_NAME and POD_UID are not set: a run that is killed leaves its cluster until that idles")
    return None


def _check_operator(api: _Api, namespace: str) -> None:
    """Refuse an operator that is too old; one that cannot be seen is reported.

    Raises
    ------
    ClusterError
        If it is too old.
    """
    least = ".".join(map(str, LEAST_OPERATOR))
    found = api.operator_version(namespace)
    if found is None:
        log.warning(
            "the version of the Dask operator in namespace %s is not known; %s is needed", namespace, least
        )
        return
    numbers = tuple(int(part) for part in found.lstrip("v").split(".")[:2] if part.isdecimal())
    if numbers < LEAST_OPERATOR:
        raise ClusterError(
            f"the Dask operator in namespace {namespace} is {found}, which does not scale down; "
            f"upgrade it to {least} or newer"
        )


class _Api:
    """The few calls of Kubernetes' API that a run makes, with errors in words."""

    def __init__(self, client: Any, namespace: str) -> None:
        self.namespace = namespace
        self._objects = client.CustomObjectsApi()
        self._core = client.CoreV1Api()
        self._apps = client.AppsV1Api()

    @classmethod
    def open(cls, namespace: str | None) -> _Api:
        """Use the pod's service account, or the configuration of kubectl outside a pod."""
        try:
            from kubernetes import client, config
        except ImportError:
            raise ConfigError(
                'cluster kubernetes needs the extra kubernetes: pip install "her2cohort[kubernetes]"'
            ) from None
        try:
            if kubeconfig := os.environ.get("KUBECONFIG"):  # the library reads it once, when it is imported
                config.load_kube_config(config_file=kubeconfig)  # type: ignore[no-untyped-call]
            else:
                config.load_config()  # type: ignore[no-untyped-call]
        except config.ConfigException as error:
            raise ClusterError(f"no access to Kubernetes: {error}") from None
        if namespace is None:
            with suppress(OSError):
                namespace = NAMESPACE_FILE.read_text().strip()
        return cls(client, namespace or os.environ.get("POD_NAMESPACE") or "default")

    def create(self, plural: str, body: Object) -> str:
        """Create a custom resource; its uid."""
        with _in_words(f"create {plural}", self.namespace):
            made = self._objects.create_namespaced_custom_object(
                GROUP, VERSION, self.namespace, plural, body, field_validation="Strict"
            )
        return str(made["metadata"]["uid"])

    def create_secret(self, body: Object) -> None:
        with _in_words("create secrets", self.namespace):
            self._core.create_namespaced_secret(self.namespace, body)

    def look(self) -> None:
        """See whether Dask's resources are known and may be used."""
        with _in_words(f"list {CLUSTERS}", self.namespace):
            self._objects.list_namespaced_custom_object(GROUP, VERSION, self.namespace, CLUSTERS, limit=1)

    def delete_cluster(self, name: str) -> None:
        """Delete a cluster and all that it owns; a failure is reported only, since idling ends it as well."""
        from kubernetes.client.exceptions import ApiException

        try:
            with _in_words(f"delete {CLUSTERS}", self.namespace):
                self._objects.delete_namespaced_custom_object(GROUP, VERSION, self.namespace, CLUSTERS, name)
        except ClusterError as error:
            if isinstance(error.__context__, ApiException) and error.__context__.status == NOT_FOUND:
                return
            log.warning("cluster %s could not be deleted and ends when it has idled: %s", name, error)

    def operator_version(self, namespace: str) -> str | None:
        """Version of the Dask operator, from its label or its image; None if it cannot be seen."""
        try:
            with _in_words("list deployments", namespace):
                found = _items(self._apps.list_namespaced_deployment, namespace, OPERATOR)
        except ClusterError as error:
            log.debug("%s", error)
            return None
        for deployment in found:
            label = deployment["metadata"].get("labels", {}).get("app.kubernetes.io/version", "")
            image = deployment["spec"]["template"]["spec"]["containers"][0]["image"]
            for text in (image.partition("@")[0].rpartition(":")[2], label):
                if text.lstrip("v")[:4].isdecimal():
                    return str(text)
        return None

    def waiting(self, name: str) -> list[str]:
        """What the pods of a cluster wait for, one line a pod that is not ready."""
        try:
            with _in_words("list pods", self.namespace):
                found = _items(
                    self._core.list_namespaced_pod, self.namespace, f"dask.org/cluster-name={name}"
                )
        except ClusterError as error:
            return [str(error)]
        if not found:
            return ["it has no pods yet; is the Dask operator at work, and does a quota allow them?"]
        return [line for pod in found if (line := _why_not_ready(pod))]


def _items(call: Callable[..., Any], namespace: str, selector: str) -> list[Object]:
    """What a list call finds, as plain values: a newer server may return fields that the client lacks."""
    reply = call(namespace, label_selector=selector, _preload_content=False)
    found: list[Object] = json.loads(reply.data)["items"]
    return found


def _why_not_ready(pod: Object) -> str:
    """In one line, why a pod does not run; empty if it does."""
    name, status = pod["metadata"]["name"], pod["status"]
    for container in status.get("containerStatuses", ()):
        for how in ("waiting", "terminated"):
            if (state := container.get("state", {}).get(how)) is not None:
                return f"{name}: {state.get('reason', how)}: {state.get('message', '')}".rstrip(": ")
    for condition in status.get("conditions", ()):
        if condition["type"] == "PodScheduled" and condition["status"] == "False":
            return f"{name}: {condition.get('reason')}: {condition.get('message')}"
    return "" if status["phase"] == "Running" else f"{name}: {status['phase']}"


@contextmanager
def _in_words(what: str, namespace: str) -> Iterator[None]:
    """State what Kubernetes refuses and what to do.

    Raises
    ------
    ClusterError
    """
    from kubernetes.client.exceptions import ApiException
    from urllib3.exceptions import HTTPError

    try:
        yield
    except ApiException as error:
        remedy = {
            401: "the credentials are not accepted",
            403: "this service account may not; see the Role of deploy/helm",
            404: "the Dask operator is not installed, or the object is gone",
            422: "the operator's resources are of another version",
        }.get(error.status, "see the log of the API server")
        body = " ".join(str(error.body or error.reason).split())[:300]
        raise ClusterError(
            f"Kubernetes refuses to {what} in namespace {namespace}: {error.status} {body}; {remedy}"
        ) from None
    except (HTTPError, OSError) as error:
        raise ClusterError(f"Kubernetes' API does not answer ({type(error).__name__}: {error})") from None
