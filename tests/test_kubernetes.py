"""A run's cluster in Kubernetes: its objects against their schemas, its life on a stand-in with real pods."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import jsonschema
import pytest
import yaml

from flows.clusters import check_address, open_cluster, pods
from flows.clusters.pods import Certificates, Owner, PodSettings
from her2core.errors import ClusterError, ConfigError
from tests.conftest import ROOT
from tests.tools import fakekube
from tests.tools.kubeflow import TASKS

IMAGE = f"registry.example/her2cohort@sha256:{'a' * 64}"
SETTINGS = PodSettings(
    image=IMAGE,
    pull_secrets=["pull"],
    environment={"AWS_ENDPOINT_URL": "https://s3.example"},
    secrets=["her2-s3"],
    labels={"app.kubernetes.io/instance": "her2"},
    scheduler=pods.Pods(priority_class="her2-driver"),
    worker=pods.Pods(
        node_selector={"pool": "spot"},
        tolerations=[{"key": "spot", "operator": "Exists", "effect": "NoSchedule"}],
    ),
)
OWNER = Owner("flow-abc", "11111111-2222-3333-4444-555555555555")
CERTIFICATES = Certificates("authority", "certificate", "key")
SCHEMAS = ROOT / "tests" / "data" / "kubernetes"
T = TypeVar("T")


def schema_of(kind: str) -> dict[str, Any]:
    crd = yaml.safe_load((SCHEMAS / f"{kind}.yaml").read_text())
    return fakekube.resource_schema(crd)


CLUSTER = pods.dask_cluster(SETTINGS, "her2-0123456789", "her2", OWNER)
SECRET = pods.run_files(CERTIFICATES, "her2-0123456789", "her2", OWNER)


def pod_specs() -> dict[str, dict[str, Any]]:
    return {kind: CLUSTER["spec"][kind]["spec"] for kind in ("scheduler", "worker")}


def test_the_operator_s_resources_have_no_field_that_their_schema_does_not_name() -> None:
    for body, kind in (
        (CLUSTER, "daskcluster"),
        (pods.autoscaler(SETTINGS, "her2-0123456789", "her2", OWNER), "daskautoscaler"),
    ):
        jsonschema.validate(body, schema_of(kind), jsonschema.Draft4Validator)
    wrong = json.loads(json.dumps(CLUSTER))
    wrong["spec"]["idleTimeOut"] = 1
    with pytest.raises(jsonschema.ValidationError, match="idleTimeOut"):
        jsonschema.validate(wrong, schema_of("daskcluster"), jsonschema.Draft4Validator)


def test_pods_service_and_secret_are_what_kubernetes_takes() -> None:
    import kubernetes_validate

    meta = {"name": "x"}
    service = {**CLUSTER["spec"]["scheduler"]["service"]}
    made = [SECRET, {"apiVersion": "v1", "kind": "Service", "metadata": meta, "spec": service}]
    made += [
        {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec} for spec in pod_specs().values()
    ]
    for body in made:
        kubernetes_validate.validate(body, kubernetes_validate.latest_version(), strict=True)


@pytest.mark.parametrize("kind", ["scheduler", "worker"])
def test_pods_are_restricted_and_know_nothing_of_the_api_or_of_services(kind: str) -> None:
    spec = pod_specs()[kind]
    assert spec["securityContext"]["runAsNonRoot"]
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert (spec["automountServiceAccountToken"], spec["enableServiceLinks"]) == (False, False)
    (container,) = spec["containers"]
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert container["image"] == IMAGE
    assert "tolerations" in spec if kind == "worker" else "tolerations" not in spec
    environment = {entry["name"]: entry["value"] for entry in container["env"]}
    assert environment["MALLOC_TRIM_THRESHOLD_"] == str(1 << 30)
    assert environment["DASK_SCHEDULER_ADDRESS"] == "tls://her2-0123456789-scheduler.her2.svc:8786"
    assert environment["AWS_ENDPOINT_URL"] == "https://s3.example"


def test_a_cluster_idles_for_a_limited_time_has_an_owner_and_one_thread_a_worker() -> None:
    assert CLUSTER["spec"]["idleTimeout"] == 1800
    assert CLUSTER["metadata"]["ownerReferences"] == [
        {"apiVersion": "v1", "kind": "Pod", "name": OWNER.name, "uid": OWNER.uid}
    ]
    words = " ".join(pod_specs()["worker"]["containers"][0]["args"])
    assert "--nthreads 1" in words
    assert "--name $(DASK_WORKER_NAME)" in words
    configuration = yaml.safe_load(SECRET["stringData"]["dask.yaml"])["distributed"]
    assert configuration["comm"]["require-encryption"] is True
    assert "distributed.http.scheduler.api" in configuration["scheduler"]["http"]["routes"]
    assert configuration["scheduler"]["allowed-failures"] == 1


def test_certificates_are_not_shown() -> None:
    assert "key" not in repr(CERTIFICATES)
    assert "certificate" not in repr(replace(CERTIFICATES, authority="x")).lower().removeprefix(
        "certificates"
    )


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("image: registry/her2:latest", "image"),
        (f"image: {IMAGE}\nidle_timeout_s: 0", "idle_timeout_s"),
        (f"image: {IMAGE}\nminimum: 5\nmaximum: 2", "minimum 5 is above maximum 2"),
        (f"image: {IMAGE}\nidleTimeout: 600", "idleTimeout"),
        ("image: [", "cannot be read"),
    ],
)
def test_settings_that_cannot_be_used_are_refused_by_name(tmp_path: Path, text: str, says: str) -> None:
    file = tmp_path / "cluster.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=says):
        open_cluster(f"kubernetes:{file}")


def test_without_settings_the_chart_is_named() -> None:
    check_address("kubernetes")
    with pytest.raises(ConfigError, match=r"/etc/her2/cluster.yaml; the chart"):
        open_cluster("kubernetes")


# a life on the stand-in

PATIENCE_S = 120


def until(what: str, ready: Callable[[], T], kube: fakekube.FakeKube) -> T:
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        try:
            if found := ready():
                return found
        except FileNotFoundError:
            pass
        time.sleep(0.2)
    logs = "\n".join(f"== {log.name}\n{log.read_text()[-3000:]}" for log in sorted(kube.folder.glob("log*")))
    raise AssertionError(f"{what}: not within {PATIENCE_S} s\n{logs}")


@pytest.fixture(scope="module")
def kube() -> Iterator[fakekube.FakeKube]:
    """The stand-in with the Dask operator at work on it, as its chart deploys it."""
    if reason := fakekube.unavailable():
        pytest.skip(reason)
    with fakekube.running() as kube:
        operator = {
            "metadata": {
                "name": "operator",
                "labels": {"app.kubernetes.io/name": "dask-kubernetes-operator"},
            },
            "spec": {
                "selector": {"matchLabels": {}},
                "template": {
                    "metadata": {"labels": {}},
                    "spec": {
                        "securityContext": {"runAsUser": 10001},
                        "containers": [
                            {
                                "name": "operator",
                                "image": "ghcr.io/dask/dask-kubernetes-operator:2026.3.0",
                                "command": ["kopf", "run", "-A", "-m", "dask_kubernetes.operator.controller"],
                                "env": [{"name": n, "value": "/scratch"} for n in ("HOME", "USER")],
                                "volumeMounts": [{"name": "scratch", "mountPath": "/scratch"}],
                            }
                        ],
                        "volumes": [{"name": "scratch", "emptyDir": {}}],
                    },
                },
            },
        }
        kube.ask("POST", "/apis/apps/v1/namespaces/dask-operator/deployments", operator)
        yield kube


def start_flow(kube: fakekube.FakeKube, name: str) -> Path:
    """A pod that is a flow's; the folder that it shares with the test."""
    folder = kube.folder / name
    folder.mkdir()
    folder.chmod(0o777)
    settings = {"image": IMAGE, "minimum": 1, "maximum": 3, "service_account": "her2-dask"}
    (kube.folder / f"{name}-settings").mkdir()
    (kube.folder / f"{name}-settings" / "cluster.yaml").write_text(yaml.safe_dump(settings))
    downward = {"POD_NAME": "metadata.name", "POD_UID": "metadata.uid", "POD_NAMESPACE": "metadata.namespace"}
    environment = [
        *({"name": key, "valueFrom": {"fieldRef": {"fieldPath": path}}} for key, path in downward.items()),
        *({"name": key, "value": "/scratch"} for key in ("HOME", "TMPDIR", "NUMBA_CACHE_DIR")),
    ]
    places = {"scratch": "/scratch", "settings": "/her2", "shared": "/shared"}
    paths = {"settings": kube.folder / f"{name}-settings", "shared": folder}
    body = {
        "metadata": {"name": name, "labels": {}},
        "spec": {
            "restartPolicy": "Never",
            "securityContext": {"runAsUser": 10001},
            "containers": [
                {
                    "name": "flow",
                    "image": IMAGE,
                    "command": ["python", "-m", "tests.tools.kubeflow", "/shared"],
                    "env": environment,
                    "volumeMounts": [{"name": n, "mountPath": place} for n, place in places.items()],
                }
            ],
            "volumes": [
                {"name": "scratch", "emptyDir": {}},
                *({"name": n, "hostPath": {"path": str(path)}} for n, path in paths.items()),
            ],
        },
    }
    kube.ask("POST", "/api/v1/namespaces/her2/pods", body)
    return folder


CLUSTERS = "/apis/kubernetes.dask.org/v1/namespaces/her2/daskclusters"
GROUPS = "/apis/kubernetes.dask.org/v1/namespaces/her2/daskworkergroups"
AUTOSCALERS = "/apis/kubernetes.dask.org/v1/namespaces/her2/daskautoscalers"
PODS = "/api/v1/namespaces/her2/pods"


def owned_by(kube: fakekube.FakeKube, pod: str) -> str:
    """The one cluster of a flow's pod."""
    uid = kube.ask("GET", f"{PODS}/{pod}")["metadata"]["uid"]
    (name,) = (
        item["metadata"]["name"]
        for item in kube.ask("GET", CLUSTERS)["items"]
        if item["metadata"]["ownerReferences"][0]["uid"] == uid
    )
    return str(name)


def workers_of(kube: fakekube.FakeKube, cluster: str) -> set[str]:
    return kube.names(PODS, labelSelector=f"dask.org/cluster-name={cluster},dask.org/component=worker")


def anything_of(kube: fakekube.FakeKube, cluster: str) -> set[str]:
    """What is left of a cluster: pods, deployments, resources, its Secret."""
    left = kube.names(PODS, labelSelector=f"dask.org/cluster-name={cluster}")
    places = (CLUSTERS, GROUPS, AUTOSCALERS, "/api/v1/namespaces/her2/secrets")
    return left | {name for place in places for name in kube.names(place) if name.startswith(cluster)}


@pytest.mark.timeout(400)
def test_a_cluster_starts_scales_refuses_strangers_survives_deletions_and_goes(
    kube: fakekube.FakeKube,
) -> None:
    folder = start_flow(kube, "flow-a")
    facts = json.loads(until("connection", lambda: (folder / "connected").read_text(), kube))
    cluster = owned_by(kube, "flow-a")
    assert facts["threads"] == [1]
    assert facts["plain"] != "let in"
    assert facts["stranger"] != "let in"
    (folder / "work").touch()
    until("more workers", lambda: len(workers_of(kube, cluster)) > 1, kube)
    peak = len(workers_of(kube, cluster))
    assert peak <= 3
    kube.ask("DELETE", f"{PODS}/{min(workers_of(kube, cluster))}", gracePeriodSeconds=0)
    assert json.loads(until("results", lambda: (folder / "done").read_text(), kube)) == list(range(TASKS))
    now = {"metadata": {"annotations": {"kubernetes.dask.org/cooldown-until": "0"}}}
    kube.ask("PATCH", f"{AUTOSCALERS}/{cluster}", now)
    until("fewer workers", lambda: len(workers_of(kube, cluster)) < peak, kube)
    (folder / "end").touch()
    until("an end", lambda: kube.ask("GET", f"{PODS}/flow-a")["status"]["phase"] == "Succeeded", kube)
    until("nothing left", lambda: not anything_of(kube, cluster), kube)


@pytest.mark.timeout(400)
def test_a_killed_run_leaves_nothing_once_its_pod_is_deleted_or_its_cluster_idles(
    kube: fakekube.FakeKube,
) -> None:
    """A pod that ran out of memory is kept, so that nobody deletes what it owns: idling ends the cluster."""
    killed, deleted = start_flow(kube, "flow-b"), start_flow(kube, "flow-c")
    for folder in (killed, deleted):
        until("connection", lambda folder=folder: (folder / "connected").exists(), kube)  # type: ignore[misc]
    idles, goes = owned_by(kube, "flow-b"), owned_by(kube, "flow-c")
    os.kill(kube.ask("GET", "/pids")["flow-b"], signal.SIGKILL)
    kube.ask("DELETE", f"{PODS}/flow-c", gracePeriodSeconds=0)
    until("nothing left of the deleted", lambda: not anything_of(kube, goes), kube)
    until("an end", lambda: kube.ask("GET", f"{PODS}/flow-b")["status"]["phase"] == "Failed", kube)
    assert idles in kube.names(CLUSTERS)
    kube.ask("PATCH", f"{CLUSTERS}/{idles}", {"spec": {"idleTimeout": 1}})
    until("nothing left of the idle", lambda: not anything_of(kube, idles), kube)


def test_an_operator_that_does_not_scale_down_is_refused(
    kube: fakekube.FakeKube, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBECONFIG", str(kube.folder / "kubeconfig"))
    file = tmp_path / "cluster.yaml"
    file.write_text(f"image: {IMAGE}\nnamespace: her2\noperator_namespace: old\n")
    open_cluster(f"kubernetes:{file}").check()  # it cannot be seen there: only a warning
    labels = {"app.kubernetes.io/name": "dask-kubernetes-operator"}
    container = {"name": "o", "image": "ghcr.io/dask/dask-kubernetes-operator:2024.9.0", "command": ["true"]}
    template = {"metadata": {}, "spec": {"containers": [container]}}
    spec = {"selector": {}, "template": template}
    body = {"metadata": {"name": "operator", "labels": labels}, "spec": spec}
    kube.ask("POST", "/apis/apps/v1/namespaces/old/deployments", body)
    with pytest.raises(
        ClusterError, match=r"is 2024\.9\.0, which does not scale down; upgrade it to 2025\.1"
    ):
        open_cluster(f"kubernetes:{file}").check()
