"""The chart in deploy/helm: what Helm makes of several sets of values, against schemas and our own code."""

from __future__ import annotations

import copy
import inspect
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

from flows.clusters import pods
from flows.clusters.pods import Owner, PodSettings
from flows.deployments import LIMIT
from tests.conftest import ROOT
from tests.tools import helm

CHART = ROOT / "deploy" / "helm"
VALUES = sorted((CHART / "ci").glob("*.yaml"))
NAMES = [file.stem for file in VALUES]
Object = dict[str, Any]

TEXT: Object = {"type": "string"}


def exactly(required: tuple[str, ...] = (), **properties: Object) -> Object:
    """Schema of an object that has no other fields."""
    return {
        "type": "object",
        "additionalProperties": False,
        "required": list(required),
        "properties": properties,
    }


def listing(items: Object) -> Object:
    return {"type": "array", "items": items}


FREE: Object = {"type": "object"}
RULE = exactly(("alert", "expr"), alert=TEXT, expr=TEXT, labels=FREE, annotations=FREE, **{"for": TEXT})
MONITORING = {
    "PrometheusRule": exactly(groups=listing(exactly(("name", "rules"), name=TEXT, rules=listing(RULE)))),
    "PodMonitor": exactly(("selector",), selector=FREE, podMetricsEndpoints=listing(exactly(port=TEXT))),
}
"""What we use of the Prometheus operator's resources."""


@pytest.fixture(autouse=True)
def _helm() -> None:
    if reason := helm.unavailable():
        pytest.skip(reason)


_made: dict[str, list[Object]] = {}


def made(name: str) -> list[Object]:
    """Every object that the chart makes of a set of values."""
    if name not in _made:
        text = helm.helm(
            "template", "lab", str(CHART), "--namespace", "her2", "-f", str(CHART / "ci" / f"{name}.yaml")
        )
        _made[name] = [body for body in yaml.safe_load_all(text) if body]
    return copy.deepcopy(_made[name])


def one(name: str, kind: str, called: str) -> Object:
    (body,) = (o for o in made(name) if (o["kind"], o["metadata"]["name"]) == (kind, called))
    return body


def settings(name: str, file: str) -> Any:
    text = one(name, "ConfigMap", "lab-settings")["data"][file]
    return json.loads(text) if file.endswith("json") else yaml.safe_load(text)


def job(name: str, **variables: Any) -> Object:
    """The Job that Prefect's worker would make of a flow run, by its own code."""
    from prefect.utilities.templating import apply_values
    from prefect_kubernetes.worker import KubernetesWorkerJobConfiguration

    given = {
        "command": "prefect flow-run execute",
        "name": "lab-run",
        "env": {"A": "1"},
        "labels": {},
        **variables,
    }
    template = settings(name, "job-template.json")
    known = template["variables"]["properties"].items()
    defaults = {variable: entry["default"] for variable, entry in known if "default" in entry}
    filled = KubernetesWorkerJobConfiguration(**apply_values(template["job_configuration"], defaults | given))
    filled.env = {**filled.env, "PREFECT__FLOW_RUN_ID": "x"}
    filled._populate_env_in_manifest()
    filled._propagate_labels_to_pod()
    filled._populate_command_if_not_present()
    manifest: Object = filled.job_manifest
    manifest["metadata"].setdefault("name", "x")
    return manifest


def pod_specs(name: str) -> Iterator[tuple[str, Object, Object]]:
    """Every pod of a release: name, labels, specification."""
    for body in made(name):
        if body["kind"] == "Deployment":
            template = body["spec"]["template"]
            yield body["metadata"]["name"], template["metadata"]["labels"], template["spec"]
    template = job(name)["spec"]["template"]
    yield "flow", template["metadata"]["labels"], template["spec"]
    cluster = dask_cluster(name)
    for kind in ("scheduler", "worker"):
        labels = {**cluster["metadata"]["labels"], "dask.org/component": kind}
        yield kind, labels, cluster["spec"][kind]["spec"]


def dask_cluster(name: str) -> Object:
    chosen = PodSettings.model_validate(settings(name, "cluster.yaml"))
    return pods.dask_cluster(chosen, "her2-0123456789", "her2", Owner("flow", "uid"))


@pytest.mark.parametrize("name", NAMES)
def test_helm_finds_no_fault(name: str) -> None:
    helm.helm("lint", str(CHART), "--strict", "-f", str(CHART / "ci" / f"{name}.yaml"))


@pytest.mark.parametrize("name", NAMES)
def test_every_object_is_what_kubernetes_takes(name: str) -> None:
    latest = kubernetes_validate.latest_version()
    for body in [*made(name), job(name)]:
        if body["kind"] in MONITORING:
            jsonschema.validate(body["spec"], MONITORING[body["kind"]])
        else:
            kubernetes_validate.validate(body, latest, strict=True)
    names = [
        (body["kind"], body["metadata"]["name"], body["metadata"].get("namespace")) for body in made(name)
    ]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("name", NAMES)
def test_a_cluster_made_of_the_settings_is_what_the_operator_takes(name: str) -> None:
    from tests.test_kubernetes import schema_of

    jsonschema.validate(dask_cluster(name), schema_of("daskcluster"), jsonschema.Draft4Validator)


@pytest.mark.parametrize("name", NAMES)
def test_every_pod_is_restricted_of_one_image_and_without_variables_of_services(name: str) -> None:
    images = set()
    for who, _, spec in pod_specs(name):
        security = spec["securityContext"]
        assert (security["runAsNonRoot"], security["runAsUser"]) == (True, 10001), who
        assert security["seccompProfile"] == {"type": "RuntimeDefault"}, who
        assert spec["enableServiceLinks"] is False, who
        for container in [*spec["containers"], *spec.get("initContainers", [])]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }, who
            assert "/scratch" in {mount["mountPath"] for mount in container["volumeMounts"]}, who
            assert container["resources"]["limits"]["memory"], who
            images.add(container["image"])
    assert len(images) == 1
    assert "@sha256:" in images.pop()


def test_spot_nodes_are_for_workers_alone() -> None:
    for who, _, spec in pod_specs("aws"):
        text = json.dumps([spec.get("tolerations"), spec.get("nodeSelector")])
        assert ("spot" in text) == (who == "worker"), who


@pytest.mark.parametrize("name", NAMES)
def test_a_flow_run_is_a_job_that_prefect_schedules_anew_and_that_owns_its_cluster(name: str) -> None:
    spec = job(name)["spec"]
    assert spec["backoffLimit"] == 0
    (container,) = spec["template"]["spec"]["containers"]
    assert container["args"] == ["prefect", "flow-run", "execute"]
    environment = {entry["name"]: entry for entry in container["env"]}
    assert environment["POD_UID"]["valueFrom"]["fieldRef"]["fieldPath"] == "metadata.uid"
    assert environment["A"]["value"] == "1"
    assert {"mountPath": "/etc/her2", "name": "settings", "readOnly": True} in container["volumeMounts"]
    assert "HER2_RUN__METRICS_PORT" in environment


def test_the_flow_s_variables_are_configuration_that_we_know(monkeypatch: pytest.MonkeyPatch) -> None:
    from her2core.config import load_config

    (container,) = job("own-hardware")["spec"]["template"]["spec"]["containers"]
    for entry in container["env"]:
        if entry["name"].startswith("HER2_"):
            monkeypatch.setenv(entry["name"], entry["value"])
    run = load_config().run
    assert (run.metrics_port, run.json_logs, run.slides_in_flight) == (9464, True, 8)


def test_a_key_of_prefect_is_never_in_plain_text() -> None:
    worker = one("aws", "Deployment", "lab-prefect-worker")["spec"]["template"]["spec"]["containers"][0]
    environment = {entry["name"]: entry for entry in worker["env"]}
    assert "value" not in environment["PREFECT_API_KEY"]
    assert environment["PREFECT_INTEGRATIONS_KUBERNETES_WORKER_API_KEY_SECRET_NAME"]["value"] == "prefect-key"


@pytest.mark.parametrize("name", ["aws", "own-hardware"])
def test_schedules_are_deployments_that_prefect_takes(name: str) -> None:
    from prefect.cli.deploy._models import PrefectYamlModel
    from prefect.flows import load_flow_from_entrypoint

    file = settings(name, "prefect.yaml")
    PrefectYamlModel.model_validate(file)
    given = yaml.safe_load((CHART / "ci" / f"{name}.yaml").read_text())["cohorts"]
    taken = [d for d in file["deployments"] if d["name"].endswith("-ingest")]
    assert [d["name"] for d in taken] == [
        f"{cohort['name']}-ingest" for cohort in given if "ingest" in cohort
    ]
    for deployment in taken:
        ingest = load_flow_from_entrypoint(deployment["entrypoint"])
        bound = inspect.signature(ingest.fn).bind(**deployment["parameters"]).arguments
        assert (bound["place"], bound["deployment"]) == ("s3://her2/incoming", "her2-cohort/nightly")
        assert bound["rule"] == given[0]["ingest"]["rule"]
    whole = [d for d in file["deployments"] if d not in taken]
    assert [d["name"] for d in whole] == [cohort["name"] for cohort in given]
    assert {str(d["concurrency_limit"]) for d in file["deployments"]} == {str(LIMIT)}
    for deployment, cohort in zip(whole, given, strict=True):
        flow = load_flow_from_entrypoint(deployment["entrypoint"])
        assert set(deployment["parameters"]) == set(inspect.signature(flow.fn).parameters)
        assert deployment["parameters"]["cluster"] == "kubernetes"
        assert deployment["parameters"]["manifest"] == cohort["manifest"]
        (schedule,) = deployment["schedules"]
        assert (schedule["cron"], schedule["active"]) == (cohort["cron"], cohort.get("active", True))


def chosen_by(policy: Object, labels: Object) -> bool:
    selector = policy["spec"]["podSelector"]
    expressions = selector.get("matchExpressions", [])
    return selector.get("matchLabels", {}).items() <= labels.items() and all(
        labels.get(e["key"]) in e["values"] for e in expressions
    )


def test_every_pod_is_closed_and_opened_only_for_what_it_needs() -> None:
    policies = [body for body in made("aws") if body["kind"] == "NetworkPolicy"]
    s3, prefect, api, identity = "52.218.0.0/17", "203.0.113.10/32", "172.20.0.1/32", "169.254.170.23/32"
    reaches: dict[str, set[str]] = {}
    for who, labels, _ in pod_specs("aws"):
        mine = [policy for policy in policies if chosen_by(policy, labels)]
        closed = [
            p
            for p in mine
            if set(p["spec"]["policyTypes"]) == {"Ingress", "Egress"} and not p["spec"].get("ingress")
        ]
        assert closed, who
        peers = [peer for p in mine for rule in p["spec"].get("egress", []) for peer in rule["to"]]
        assert all(peer for peer in peers), who
        reaches[who] = {peer["ipBlock"]["cidr"] for peer in peers if "ipBlock" in peer} - {"3.5.64.0/21"}
    assert reaches == {
        "lab-prefect-worker": {prefect, api},
        "lab-metrics": {s3, identity},
        "flow": {prefect, api, s3, identity},
        "scheduler": {s3, identity},
        "worker": {s3, identity},
    }


def test_the_scheduler_s_open_routes_are_for_the_operator_and_prometheus() -> None:
    policy = one("aws", "NetworkPolicy", "lab-dask")
    rules = [r for r in policy["spec"]["ingress"] if pods.HTTP_PORT in {port["port"] for port in r["ports"]}]
    (rule,) = rules
    names = {peer["namespaceSelector"]["matchLabels"]["kubernetes.io/metadata.name"] for peer in rule["from"]}
    assert names == {"dask-operator", "monitoring"}


def test_accounts_may_do_what_the_code_does_and_no_more() -> None:
    rules = one("smallest", "Role", "lab-flow")["rules"]
    allowed = {(resource, verb) for rule in rules for resource in rule["resources"] for verb in rule["verbs"]}
    assert allowed == {
        *(
            (kind, verb)
            for kind in ("daskclusters", "daskautoscalers")
            for verb in ("get", "list", "create", "delete")
        ),
        ("secrets", "create"),
        ("pods", "list"),
    }
    assert not any(body["kind"].startswith("Cluster") for body in made("smallest"))


SPOT = {"key": "cloud.google.com/gke-spot", "operator": "Exists"}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"image": {"digest": "latest"}}, "digest"),
        ({"prefect": {"apiUrl": "http://user:word@prefect/api"}}, "apiUrl"),
        ({"networkPolicy": {"s3": {"to": []}}}, "s3"),
        ({"dask": {"idleTimeoutSeconds": 0}}, "idleTimeoutSeconds"),
        ({"dask": {"scheduler": {"tolerations": [SPOT]}}}, "tolerations"),
        ({"flow": {"tolerations": [{"operator": "Exists"}]}}, "tolerations"),
        ({"cohort": []}, "cohort"),
        ({"cohorts": [{"name": "x", "manifest": "m", "out": "s3://b/o", "cron": "0 1 * * *"}]}, "manifest"),
    ],
)  # fmt: skip
def test_values_that_would_do_harm_are_refused(change: Object, says: str, tmp_path: Path) -> None:
    file = tmp_path / "change.yaml"
    file.write_text(yaml.safe_dump(change))
    words = ["template", "lab", str(CHART), "-f", str(CHART / "ci" / "smallest.yaml"), "-f", str(file)]
    done = subprocess.run([helm.HELM, *words], capture_output=True, text=True)
    assert done.returncode != 0
    assert says in done.stderr


def test_the_dockerfile_follows_the_rules_of_its_trade() -> None:
    program = Path(helm.FOLDER).parent / "bin" / "hadolint"
    if not program.exists():
        pytest.skip("no hadolint in the environment")
    done = subprocess.run([program, str(ROOT / "deploy" / "Dockerfile")], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
