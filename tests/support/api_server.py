"""A Kubernetes API server as far as `helm install`, `upgrade` and `uninstall` need one: it keeps
objects in memory. It checks and starts nothing.

Patches are merged as JSON merge patches (RFC 7386), which is what a strategic one comes to for the
objects without lists that the tests look at.
"""

from __future__ import annotations

import copy
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import parse_qs

import yaml

Object = dict[str, Any]

KINDS: dict[str, dict[str, str]] = {
    "v1": {
        "ConfigMap": "configmaps", "PersistentVolumeClaim": "persistentvolumeclaims", "Pod": "pods",
        "Secret": "secrets", "Service": "services", "ServiceAccount": "serviceaccounts",
    },
    "apps/v1": {"Deployment": "deployments"},
    "autoscaling/v2": {"HorizontalPodAutoscaler": "horizontalpodautoscalers"},
    "networking.k8s.io/v1": {"NetworkPolicy": "networkpolicies"},
    "policy/v1": {"PodDisruptionBudget": "poddisruptionbudgets"},
    "ray.io/v1": {"RayService": "rayservices"},
}  # fmt: skip


class ApiServer(ThreadingHTTPServer):
    """Objects by their path, such as /api/v1/namespaces/llm/secrets/demo."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.objects: dict[str, Object] = {}

    def kubeconfig(self, path: Path) -> Path:
        """Written to `path`: what Helm needs to reach this server."""
        cluster = {"server": f"http://127.0.0.1:{self.server_address[1]}"}
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "test", "cluster": cluster}],
            "users": [{"name": "test", "user": {}}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
            "current-context": "test",
        }
        path.write_text(yaml.safe_dump(config), encoding="utf-8")
        path.chmod(0o600)
        return path

    def secret(self, name: str) -> Object | None:
        """The Secret of that name in namespace llm."""
        return self.objects.get(f"/api/v1/namespaces/llm/secrets/{name}")


@contextmanager
def api_server() -> Iterator[ApiServer]:
    """A server that listens on a free port of 127.0.0.1."""
    server = ApiServer()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: ApiServer
    discovery: ClassVar[dict[str, Object]] = {
        "/version": {"major": "1", "minor": "33", "gitVersion": "v1.33.0"},
        "/api": {"kind": "APIVersions", "versions": ["v1"]},
        "/apis": {
            "kind": "APIGroupList",
            "apiVersion": "v1",
            "groups": [
                {
                    "name": version.partition("/")[0],
                    "versions": [{"groupVersion": version, "version": version.partition("/")[2]}],
                }
                for version in KINDS
                if "/" in version
            ],
        },
    } | {
        f"/{'apis' if '/' in version else 'api'}/{version}": {
            "kind": "APIResourceList",
            "apiVersion": "v1",
            "groupVersion": version,
            "resources": [
                {
                    "name": plural,
                    "singularName": "",
                    "namespaced": True,
                    "kind": kind,
                    "verbs": ["get"],
                }
                for kind, plural in kinds.items()
            ],
        }
        for version, kinds in KINDS.items()
    }

    def do_GET(self) -> None:
        path, _, query = self.path.partition("?")
        objects = self.server.objects
        if path in self.discovery:
            self._answer(self.discovery[path])
        elif path in objects:
            self._answer(objects[path])
        elif any(
            path.endswith(f"/{plural}") for kinds in KINDS.values() for plural in kinds.values()
        ):
            items = self._list(path, query)
            kind = items[0]["kind"] if items else "Secret"
            self._answer({"kind": f"{kind}List", "apiVersion": "v1", "items": items})
        else:
            self._missing()

    def do_POST(self) -> None:
        thing = self._body()
        path = f"{self.path.partition('?')[0]}/{thing['metadata']['name']}"
        if path in self.server.objects:
            self._answer({"kind": "Status", "status": "Failure", "reason": "AlreadyExists"}, 409)
            return
        self.server.objects[path] = thing
        self._answer(thing, 201)

    def do_PUT(self) -> None:
        self.server.objects[self.path.partition("?")[0]] = thing = self._body()
        self._answer(thing)

    def do_PATCH(self) -> None:
        path = self.path.partition("?")[0]
        merged = _merge(self.server.objects[path], self._body())
        self.server.objects[path] = merged
        self._answer(merged)

    def do_DELETE(self) -> None:
        self._body()
        if self.server.objects.pop(self.path.partition("?")[0], None) is None:
            self._missing()
        else:
            self._answer({"kind": "Status", "status": "Success"})

    def _list(self, path: str, query: str) -> list[Object]:
        """Objects in a collection, by labels that must be equal."""
        selector = parse_qs(query).get("labelSelector", [""])[0]
        wanted = dict(part.split("=") for part in selector.split(",") if part.count("=") == 1)
        found = [o for at, o in self.server.objects.items() if at.rpartition("/")[0] == path]
        return [o for o in found if wanted.items() <= o["metadata"].get("labels", {}).items()]

    def _body(self) -> Object:
        content = self.rfile.read(int(self.headers.get("content-length", 0)))
        body: Object = json.loads(content) if content else {}
        return body

    def _missing(self) -> None:
        status = {"kind": "Status", "status": "Failure", "reason": "NotFound", "code": 404}
        self._answer(status, 404)

    def _answer(self, body: Object, status: int = 200) -> None:
        content = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Silence."""


def _merge(target: Any, patch: Any) -> Any:
    if not isinstance(patch, dict) or not isinstance(target, dict):
        return copy.deepcopy(patch)
    merged = dict(target)
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        elif not key.startswith("$"):
            merged[key] = _merge(merged.get(key), value)
    return merged
