"""A stand-in for Kubernetes with pods that run: an API server, the few controllers needed, and a kubelet.

Every pod is a process in a network and a mount namespace of its own: another address, a read-only root, its
volumes, the user it names, and no way out of the bridge that joins the pods. Kubernetes' own clients work on
it, and the Dask operator. It knows no admission, RBAC, NetworkPolicy, quota, image or scheduling: what
depends on those, only a real cluster shows.

``python -m tests.tools.fakekube FOLDER CRD.yaml...`` prints the address of its API as JSON, and ends with its
standard input.
"""

from __future__ import annotations

import asyncio
import base64
import copy
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
TOOLS = Path(sys.prefix).resolve() / "tools"
"""Where ``.ci/run`` puts what requirements-tools.lock names."""
CRDS = TOOLS / "dask_kubernetes/operator/deployment/helm/dask-kubernetes-operator/crds"
SYSTEM = ("bin", "dev", "etc", "lib", "lib32", "lib64", "proc", "sbin", "sys", "usr")
START = r"""
set -e
root=$1; shift; user=$1; shift; mounts=$1; shift
mount -t tmpfs -o mode=755 tmpfs "$root"
for name in $SYSTEM; do
  if [ -L "/$name" ]; then cp -P "/$name" "$root/"
  elif [ -d "/$name" ]; then mkdir "$root/$name"; mount --rbind "/$name" "$root/$name"; fi
done
mount --bind "$HOSTS" "$root/etc/hosts"
while IFS='|' read -r kind source target; do
  case $kind in
    file) mkdir -p "$root$(dirname "$target")"; touch "$root$target"; mount --bind "$source" "$root$target";;
    folder) mkdir -p "$root$target"; mount --bind "$source" "$root$target";;
    empty) mkdir -p "$root$target"; mount -t tmpfs -o mode=1777 tmpfs "$root$target";;
  esac
done < "$mounts"
mount -o remount,bind,ro "$root/usr"; mount -o remount,bind,ro "$root/etc"; mount -o remount,ro "$root"
unset SYSTEM HOSTS
exec chroot "$root" setpriv --reuid "$user" --regid "$user" --clear-groups --no-new-privs "$@"
"""
Object = dict[str, Any]
Key = tuple[str, str, str | None, str]


def unavailable() -> str | None:
    """Why the stand-in cannot run here; None if it can."""
    if os.geteuid() != 0:
        return "pods in namespaces need root"
    if missing := [name for name in ("ip", "unshare", "setpriv", "chroot") if shutil.which(name) is None]:
        return f"pods in namespaces need {', '.join(missing)}"
    if subprocess.run(["unshare", "--net", "--mount", "true"], capture_output=True).returncode:
        return "namespaces are not allowed here"
    if not CRDS.is_dir():
        return f"no Dask operator in {TOOLS}; .ci/run installs requirements-tools.lock there"
    return None


@dataclass(frozen=True)
class FakeKube:
    """A running stand-in: where its API answers, and a folder that pods may mount."""

    api: str
    folder: Path

    def ask(self, method: str, path: str, body: Any = None, **query: Any) -> Any:
        """Answer of the API; `FileNotFoundError` for what is not there."""
        import httpx

        kind = "application/merge-patch+json" if method == "PATCH" else "application/json"
        reply = httpx.request(
            method, f"{self.api}{path}", json=body, params=query, headers={"Content-Type": kind}, timeout=30
        )
        if reply.status_code == 404:
            raise FileNotFoundError(path)
        reply.raise_for_status()
        return reply.json()

    def names(self, path: str, **query: Any) -> set[str]:
        """Names of the objects of a kind."""
        return {item["metadata"]["name"] for item in self.ask("GET", path, **query)["items"]}


@contextmanager
def running() -> Iterator[FakeKube]:
    """A stand-in with the resources of the Dask operator, without the operator."""
    with tempfile.TemporaryDirectory(prefix="fakekube-") as folder:
        log = Path(folder) / "log"
        words = [sys.executable, "-m", "tests.tools.fakekube", folder, *map(str, sorted(CRDS.glob("*.yaml")))]
        with (
            log.open("wb") as out,
            subprocess.Popen(
                words,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=out,
                cwd=ROOT,
                start_new_session=True,
            ) as process,
        ):
            assert process.stdout is not None
            assert process.stdin is not None
            line = process.stdout.readline()
            assert line, log.read_text()
            try:
                yield FakeKube(json.loads(line)["api"], Path(folder))
            finally:
                process.stdin.close()
                process.wait(30)


KINDS = {
    ("v1", "pods"): "Pod",
    ("v1", "services"): "Service",
    ("v1", "events"): "Event",
    ("v1", "namespaces"): "Namespace",
    ("v1", "secrets"): "Secret",
    ("apps/v1", "deployments"): "Deployment",
    ("apiextensions.k8s.io/v1", "customresourcedefinitions"): "CustomResourceDefinition",
}
CLUSTER_WIDE = ("namespaces", "customresourcedefinitions")


def strict(schema: Any) -> Any:
    """A resource's schema as ``fieldValidation=Strict`` reads it: no field that it does not name."""
    if isinstance(schema, list):
        return [strict(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    made = {name: strict(part) for name, part in schema.items()}
    if (
        made.get("type") == "object"
        and made.get("properties")
        and "additionalProperties" not in made
        and not made.get("x-kubernetes-preserve-unknown-fields")
    ):
        made["additionalProperties"] = False
    if made.get("x-kubernetes-int-or-string"):
        made.pop("type", None)
    return made


def resource_schema(crd: Object) -> Object:
    """JSON schema of a custom resource, from its definition."""
    schema: Object = strict(crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"])
    schema.setdefault("properties", {}).update(apiVersion={}, kind={}, metadata={"type": "object"}, status={})
    return schema


class RefusedError(Exception):
    """An answer that is an error."""

    def __init__(self, code: int, reason: str, message: str) -> None:
        super().__init__(code, reason, message)
        self.code, self.reason, self.message = code, reason, message


class Server:
    """The API server's objects, and who watches them."""

    def __init__(self) -> None:
        self.kinds = dict(KINDS)
        self.objects: dict[Key, Object] = {}
        self.log: list[tuple[int, str, str, str, Object]] = []
        self.versions = itertools.count(1)
        self.changed = asyncio.Condition()
        self.validators: dict[tuple[str, str], Any] = {}
        self.kubelet = Kubelet(self)

    def define(self, crd: Object) -> None:
        """Take up a custom resource."""
        import jsonschema

        names, version = crd["spec"]["names"], crd["spec"]["versions"][0]["name"]
        place = (f"{crd['spec']['group']}/{version}", names["plural"])
        self.kinds[place] = names["kind"]
        self.validators[place] = jsonschema.Draft4Validator(resource_schema(crd))
        self.add("apiextensions.k8s.io/v1", "customresourcedefinitions", None, crd)

    def emit(self, event: str, group: str, plural: str, body: Object) -> None:
        version = next(self.versions)
        body["metadata"]["resourceVersion"] = str(version)
        self.log.append((version, event, group, plural, copy.deepcopy(body)))

        async def wake() -> None:
            async with self.changed:
                self.changed.notify_all()

        asyncio.get_running_loop().create_task(wake())

    def check(self, group: str, plural: str, body: Object) -> None:
        if validator := self.validators.get((group, plural)):
            wrong = [f"{'/'.join(map(str, e.path))}: {e.message[:200]}" for e in validator.iter_errors(body)]
            if wrong:
                raise RefusedError(422, "Invalid", "; ".join(wrong))

    def add(self, group: str, plural: str, namespace: str | None, body: Object) -> Object:
        self.check(group, plural, body)
        meta = body.setdefault("metadata", {})
        body |= {"apiVersion": group, "kind": self.kinds[group, plural]}
        if "name" not in meta:
            meta["name"] = meta["generateName"] + uuid.uuid4().hex[:5]
        if plural in CLUSTER_WIDE:
            namespace = None
        else:
            meta["namespace"] = namespace
        key = (group, plural, namespace, meta["name"])
        if key in self.objects:
            raise RefusedError(409, "AlreadyExists", f"{plural} {meta['name']} already exists")
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        meta.update(uid=str(uuid.uuid4()), creationTimestamp=now, generation=1)
        meta.setdefault("labels", {})
        if plural == "secrets":
            texts = {
                name: base64.b64encode(t.encode()).decode() for name, t in body.pop("stringData", {}).items()
            }
            body["data"] = {**body.get("data", {}), **texts}
        if plural == "services":
            body["spec"] |= {"type": "ClusterIP", "clusterIP": "None"}
            body["status"] = {"loadBalancer": {}}
        if plural == "pods":
            body["status"] = {"phase": "Pending", "conditions": []}
        self.objects[key] = body
        self.emit("ADDED", group, plural, body)
        if plural == "services":
            self.emit("MODIFIED", group, plural, body)
        if plural == "pods":
            self.kubelet.start(key)
        if plural == "deployments":
            self.replace_pod(key)
        return body

    def replace_pod(self, key: Key) -> None:
        """The one pod of a deployment, made anew where it is missing."""
        if (deployment := self.objects.get(key)) is None:
            return
        template, meta = copy.deepcopy(deployment["spec"]["template"]), deployment["metadata"]
        owner = {"apiVersion": "apps/v1", "kind": "Deployment", "name": meta["name"], "uid": meta["uid"]}
        made = {
            "metadata": {
                "name": f"{meta['name']}-{uuid.uuid4().hex[:5]}",
                "labels": template["metadata"].get("labels", {}),
                "ownerReferences": [owner],
            },
            "spec": {"restartPolicy": "Always", **template["spec"]},
        }
        self.add("v1", "pods", key[2], made)

    def change(self, key: Key, body: Object) -> Object:
        self.check(key[0], key[1], body)
        old = self.objects[key]
        if body == old:
            return old
        if body.get("spec") != old.get("spec"):
            body["metadata"]["generation"] = old["metadata"].get("generation", 1) + 1
        self.objects[key] = body
        self.emit("MODIFIED", key[0], key[1], body)
        if body["metadata"].get("deletionTimestamp") and not body["metadata"].get("finalizers"):
            self.remove(key)
        return body

    def delete(self, key: Key, grace_s: float | None = None) -> None:
        body = self.objects[key]
        if body["metadata"].get("finalizers"):
            now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
            body["metadata"].setdefault("deletionTimestamp", now)
            self.emit("MODIFIED", key[0], key[1], body)
        else:
            self.remove(key, grace_s)

    def remove(self, key: Key, grace_s: float | None = None) -> None:
        """Take an object away, and what it owns; a pod's process is ended."""
        if (body := self.objects.pop(key, None)) is None:
            return
        self.emit("DELETED", key[0], key[1], body)
        if key[1] == "pods":
            self.kubelet.end(body, grace_s)
            for owner in body["metadata"].get("ownerReferences", []):
                if owner["kind"] == "Deployment":
                    self.replace_pod(("apps/v1", "deployments", key[2], owner["name"]))
        gone = body["metadata"]["uid"]
        for other, found in list(self.objects.items()):
            owners = found["metadata"].get("ownerReferences", [])
            if any(owner["uid"] == gone for owner in owners) and other in self.objects:
                self.delete(other)


def selected(body: Object, query: Any) -> bool:
    """Whether an object has the labels and fields that a query asks for."""
    for part in filter(None, query.get("labelSelector", "").split(",")):
        name, _, value = part.replace("==", "=").partition("=")
        if body["metadata"]["labels"].get(name) != value:
            return False
    for part in filter(None, query.get("fieldSelector", "").split(",")):
        path, _, wanted = part.replace("==", "=").partition("=")
        found: Any = body
        for name in path.split("."):
            found = found.get(name) if isinstance(found, dict) else None
        if str(found) != wanted:
            return False
    return True


def merged(old: Object, patch: Object) -> Object:
    """JSON merge patch (RFC 7386)."""
    made = dict(old)
    for name, value in patch.items():
        if value is None:
            made.pop(name, None)
        elif isinstance(value, dict):
            made[name] = merged(made[name] if isinstance(made.get(name), dict) else {}, value)
        else:
            made[name] = value
    return made


async def answer(server: Server, request: Any) -> Any:
    """One request, as Kubernetes answers it."""
    from aiohttp import web

    try:
        return await _answer(server, request)
    except RefusedError as refused:
        body = {
            "kind": "Status", "apiVersion": "v1", "status": "Failure",
            "code": refused.code, "reason": refused.reason, "message": refused.message,
        }  # fmt: skip
        return web.json_response(body, status=refused.code)


async def _answer(server: Server, request: Any) -> Any:
    from aiohttp import web

    path, query = [part for part in request.path.split("/") if part], request.query
    if path == ["pids"]:
        return web.json_response(server.kubelet.pids())
    if path == ["version"]:
        return web.json_response({"major": "1", "minor": "37", "gitVersion": "v1.37.0-stand-in"})
    if path == ["api"]:
        return web.json_response({"kind": "APIVersions", "versions": ["v1"]})
    if path == ["apis"]:
        groups = sorted({group for group, _ in server.kinds if "/" in group})
        listed = [
            {"name": group.split("/")[0], "versions": [found], "preferredVersion": found}
            for group in groups
            for found in [{"groupVersion": group, "version": group.split("/")[1]}]
        ]
        return web.json_response({"kind": "APIGroupList", "apiVersion": "v1", "groups": listed})
    if path and path[0] == "api":
        group, rest = "v1", path[2:]
    elif path and path[0] == "apis" and len(path) > 2:
        group, rest = f"{path[1]}/{path[2]}", path[3:]
    else:
        raise RefusedError(404, "NotFound", request.path)
    if not rest:
        verbs = ["get", "list", "watch", "create", "update", "patch", "delete"]
        resources = [
            {
                "name": plural, "singularName": kind.lower(), "kind": kind, "verbs": verbs,
                "namespaced": plural not in CLUSTER_WIDE,
            }
            for (found, plural), kind in server.kinds.items()
            if found == group
        ]  # fmt: skip
        return web.json_response(
            {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group, "resources": resources}
        )
    namespace = None
    if rest[0] == "namespaces" and len(rest) > 2:
        namespace, rest = rest[1], rest[2:]
    plural, name = rest[0], rest[1] if len(rest) > 1 else None
    if (group, plural) not in server.kinds:
        raise RefusedError(404, "NotFound", f"{group} has no {plural}")
    if name is None and request.method == "GET":
        if query.get("watch", "").lower() in ("true", "1"):
            return await _watch(server, request, group, plural, namespace)
        items = [
            body
            for (found, kind, place, _), body in server.objects.items()
            if (found, kind) == (group, plural) and namespace in (None, place) and selected(body, query)
        ]
        last = str(server.log[-1][0]) if server.log else "0"
        kind = server.kinds[group, plural]
        return web.json_response(
            {
                "kind": f"{kind}List",
                "apiVersion": group,
                "metadata": {"resourceVersion": last},
                "items": items,
            }
        )
    if request.method == "POST":
        return web.json_response(server.add(group, plural, namespace, await request.json()), status=201)
    key = (group, plural, None if plural in CLUSTER_WIDE else namespace, str(name))
    if key not in server.objects:
        raise RefusedError(404, "NotFound", f'{plural} "{name}" not found')
    body = server.objects[key]
    if request.method == "DELETE":
        grace = query.get("gracePeriodSeconds")
        server.delete(key, None if grace is None else float(grace))
    elif request.method in ("PUT", "PATCH"):
        sent = json.loads(await request.text())
        if request.method == "PATCH" and "json-patch" in request.headers.get("Content-Type", ""):
            import jsonpatch

            sent = jsonpatch.apply_patch(body, sent)
        elif request.method == "PATCH":
            sent = merged(copy.deepcopy(body), sent)
        body = server.change(key, sent)
    return web.json_response(body)


async def _watch(server: Server, request: Any, group: str, plural: str, namespace: str | None) -> Any:
    from aiohttp import web

    response = web.StreamResponse(headers={"Content-Type": "application/json"})
    await response.prepare(request)
    since = int(request.query.get("resourceVersion") or 0)
    ends = time.monotonic() + float(request.query.get("timeoutSeconds") or 3600)
    at = next((i for i, entry in enumerate(server.log) if entry[0] > since), len(server.log)) if since else 0
    with suppress(ConnectionError):
        while time.monotonic() < ends:
            while at < len(server.log):
                _, event, found, kind, body = server.log[at]
                at += 1
                here = namespace in (None, body["metadata"].get("namespace"))
                if (found, kind) == (group, plural) and here and selected(body, request.query):
                    await response.write(json.dumps({"type": event, "object": body}).encode() + b"\n")
            with suppress(TimeoutError):
                async with server.changed, asyncio.timeout(1.0):
                    await server.changed.wait()
    return response


@dataclass
class Running:
    """A pod's process and its place in the network."""

    number: int
    folder: Path
    process: asyncio.subprocess.Process | None = None
    ending: bool = False


class Kubelet:
    """Starts, looks after and ends the processes of pods."""

    def __init__(self, server: Server) -> None:
        self.server, self.pods = server, dict[str, Running]()
        self.numbers = itertools.count(10)
        self.tasks: set[asyncio.Task[None]] = set()
        self.bridge = f"h2k{os.getpid() % 100_000}"
        self.net = f"198.18.{os.getpid() % 250}"
        self.folder = Path()

    def open(self, folder: Path) -> None:
        """Make the bridge that joins the pods."""
        self.folder = folder
        (folder / "start.sh").write_text(START)
        (folder / "hosts").write_text("127.0.0.1 localhost\n")
        cluster = {"name": "c", "cluster": {"server": f"http://{self.net}.1:8001"}}
        context = {"name": "c", "context": {"cluster": "c", "user": "u", "namespace": "her2"}}
        config = {
            "apiVersion": "v1", "kind": "Config", "current-context": "c",
            "clusters": [cluster], "contexts": [context], "users": [{"name": "u", "user": {"token": "none"}}],
        }  # fmt: skip
        (folder / "kubeconfig").write_text(json.dumps(config))
        folder.chmod(0o755)
        ip("link", "add", self.bridge, "type", "bridge")
        ip("addr", "add", f"{self.net}.1/24", "dev", self.bridge)
        ip("link", "set", self.bridge, "up")

    async def close(self) -> None:
        """End every pod, and take the bridge away."""
        for task in self.tasks:
            task.cancel()
        for pod in self.pods.values():
            if pod.process is not None and pod.process.returncode is None:
                with suppress(ProcessLookupError):
                    os.killpg(pod.process.pid, signal.SIGKILL)
                await pod.process.wait()
            subprocess.run(["ip", "netns", "del", f"{self.bridge}-{pod.number}"], capture_output=True)
        ip("link", "del", self.bridge)

    def pids(self) -> dict[str, int]:
        """Process of every pod that runs, by the pod's name."""
        names = {
            body["metadata"]["uid"]: key[3] for key, body in self.server.objects.items() if key[1] == "pods"
        }
        return {
            names[uid]: pod.process.pid
            for uid, pod in self.pods.items()
            if pod.process is not None and pod.process.returncode is None and uid in names
        }

    def start(self, key: Key) -> None:
        number = next(self.numbers)
        folder = self.folder / f"pod-{number}"
        folder.mkdir(mode=0o755)
        self.pods[self.server.objects[key]["metadata"]["uid"]] = Running(number, folder)
        self._later(self._run(key))

    def end(self, body: Object, grace_s: float | None) -> None:
        pod = self.pods[body["metadata"]["uid"]]
        pod.ending = True
        if grace_s is None:
            grace_s = body["spec"].get("terminationGracePeriodSeconds", 30)

        async def end() -> None:
            if pod.process is not None and pod.process.returncode is None:
                with suppress(ProcessLookupError):
                    os.kill(pod.process.pid, signal.SIGTERM if grace_s else signal.SIGKILL)
                    with suppress(TimeoutError):
                        await asyncio.wait_for(pod.process.wait(), max(float(grace_s), 0.01))
                    os.killpg(pod.process.pid, signal.SIGKILL)
            subprocess.run(["ip", "netns", "del", f"{self.bridge}-{pod.number}"], capture_output=True)

        self._later(end())

    def _later(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def _run(self, key: Key) -> None:
        body = self.server.objects[key]
        pod = self.pods[body["metadata"]["uid"]]
        space, address = f"{self.bridge}-{pod.number}", f"{self.net}.{pod.number}"
        link, inside = f"{self.bridge}q{pod.number}"[-15:], f"{self.bridge}v{pod.number}"[-15:]
        ip("netns", "add", space)
        ip("link", "add", link, "type", "veth", "peer", "name", inside, "netns", space)
        ip("link", "set", link, "master", self.bridge, "up")
        for words in (f"addr add {address}/24 dev {inside}", f"link set {inside} up", "link set lo up"):
            ip("-n", space, *words.split())
        self._name(body, address)
        restarts = 0
        while self.server.objects.get(key) is not None and not pod.ending:
            body = self.server.objects[key]
            if (mounts := self._mounts(body, pod)) is None:
                await asyncio.sleep(0.2)  # a Secret that is not there yet
                continue
            container = body["spec"]["containers"][0]
            environment = self._environment(body, container, address)
            words = [*container.get("command", []), *container.get("args", [])]
            for name, value in environment.items():
                words = [word.replace(f"$({name})", value) for word in words]
            root = pod.folder / "root"
            root.mkdir(exist_ok=True)
            user = str(body["spec"].get("securityContext", {}).get("runAsUser", 0))
            start = ["bash", str(self.folder / "start.sh"), str(root), user, str(mounts), *words]
            with (self.folder / f"log-{key[3]}").open("ab") as log:
                pod.process = await asyncio.create_subprocess_exec(
                    *("ip", "netns", "exec", space, "unshare", "--mount", *start),
                    env={**environment, "SYSTEM": " ".join(SYSTEM), "HOSTS": str(self.folder / "hosts")},
                    stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, cwd="/",
                )  # fmt: skip
            body["status"] |= {"phase": "Running", "podIP": address}
            await self._watch(key, container, pod.process, address, restarts)
            if body["spec"].get("restartPolicy", "Always") != "Always":
                body["status"]["phase"] = "Failed" if pod.process.returncode else "Succeeded"
                self.server.emit("MODIFIED", "v1", "pods", body)
                return
            restarts += 1
            await asyncio.sleep(0.2)

    async def _watch(
        self, key: Key, container: Object, process: asyncio.subprocess.Process, address: str, restarts: int
    ) -> None:
        """Tell how a container is until it ends."""
        told = None
        while (body := self.server.objects.get(key)) is not None:
            ended = process.returncode is not None
            ready = not ended and await _ready(container, address)
            if (ready, ended) != told:
                told = (ready, ended)
                state = {"terminated": {"exitCode": process.returncode}} if ended else {"running": {}}
                word = str(ready)
                body["status"]["conditions"] = [
                    {"type": kind, "status": word} for kind in ("Ready", "ContainersReady")
                ]
                body["status"]["containerStatuses"] = [
                    {"name": container["name"], "ready": ready, "restartCount": restarts, "state": state,
                     "image": container["image"], "imageID": container["image"]}
                ]  # fmt: skip
                self.server.emit("MODIFIED", "v1", "pods", body)
            if ended:
                return
            await asyncio.sleep(0.2)

    def _name(self, body: Object, address: str) -> None:
        """Let the Services that select a pod resolve to it."""
        labels = body["metadata"]["labels"]
        for (_, kind, namespace, name), service in self.server.objects.items():
            if kind == "services" and service["spec"]["selector"].items() <= labels.items():
                self._host(address, name, namespace)
        if (cluster := labels.get("dask.org/cluster-name")) and labels["dask.org/component"] == "scheduler":
            self._host(address, f"{cluster}-scheduler", body["metadata"]["namespace"])

    def _host(self, address: str, name: str, namespace: str | None) -> None:
        short = f"{name}.{namespace}"
        with (self.folder / "hosts").open("a") as hosts:
            hosts.write(f"{address} {short} {short}.svc {short}.svc.cluster.local\n")

    def _mounts(self, body: Object, pod: Running) -> Path | None:
        """The list of mounts for the start script; None while a Secret is missing."""
        base, prefix = Path(sys.base_prefix).resolve(), Path(sys.prefix).resolve()
        lines = [
            f"folder|{path}|{path}" for path in dict.fromkeys((base, prefix, ROOT)) if str(path) != "/usr"
        ]
        if (ROOT / ".venv").is_symlink():
            lines += [f"folder|{prefix}|{prefix}"]
        lines.append(f"file|{self.folder / 'kubeconfig'}|/her2-kube/config")
        volumes = {volume["name"]: volume for volume in body["spec"].get("volumes", [])}
        for mount in body["spec"]["containers"][0].get("volumeMounts", []):
            volume, target = volumes[mount["name"]], mount["mountPath"]
            if "secret" in volume:
                name = volume["secret"]["secretName"]
                secret = self.server.objects.get(("v1", "secrets", body["metadata"]["namespace"], name))
                if secret is None:
                    return None
                place = pod.folder / mount["name"]
                place.mkdir(exist_ok=True, mode=0o755)
                for file, text in secret["data"].items():
                    (place / file).write_bytes(base64.b64decode(text))
                lines.append(f"folder|{place}|{target}")
            elif "hostPath" in volume:
                lines.append(f"folder|{volume['hostPath']['path']}|{target}")
            else:
                lines.append(f"empty||{target}")
        made = pod.folder / "mounts"
        made.write_text("\n".join(lines) + "\n")
        return made

    def _environment(self, body: Object, container: Object, address: str) -> dict[str, str]:
        """What an image would hold, and what the pod adds."""
        meta = body["metadata"]
        known = {
            "metadata.name": meta["name"], "metadata.uid": meta["uid"],
            "metadata.namespace": meta["namespace"], "status.podIP": address,
        }  # fmt: skip
        made = {
            "PATH": f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin",
            "PYTHONPATH": f"{ROOT}:{TOOLS}",
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        if body["spec"].get("automountServiceAccountToken", True):
            made["KUBECONFIG"] = "/her2-kube/config"
        for entry in container.get("env", []):
            value = entry.get("value")
            made[entry["name"]] = (
                known[entry["valueFrom"]["fieldRef"]["fieldPath"]] if value is None else value
            )
        return made


async def _ready(container: Object, address: str) -> bool:
    """What the readiness probe says; a container without one is ready when it runs."""
    import aiohttp

    if (probe := container.get("readinessProbe", {}).get("httpGet")) is None:
        return True
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    url = f"http://{address}:{ports.get(probe['port'], probe['port'])}{probe['path']}"
    try:
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(2)) as session,
            session.get(url) as reply,
        ):
            return reply.status == 200
    except (aiohttp.ClientError, TimeoutError):
        return False


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


async def main(folder: Path, crds: list[str]) -> None:
    """Serve until standard input ends."""
    import yaml
    from aiohttp import web

    server = Server()
    server.kubelet.open(folder)
    for name in ("default", "her2", "dask-operator"):
        server.add("v1", "namespaces", None, {"metadata": {"name": name}})
    for path in crds:
        server.define(yaml.safe_load(Path(path).read_text()))

    async def handle(request: web.Request) -> Any:
        return await answer(server, request)

    app = web.Application(client_max_size=1 << 26)
    app.router.add_route("*", "/{path:.*}", handle)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    address = f"{server.kubelet.net}.1"
    await web.TCPSite(runner, address, 8001).start()
    print(json.dumps({"api": f"http://{address}:8001"}), flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    await server.kubelet.close()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), sys.argv[2:]))
    os._exit(0)
