"""Ray clusters on this machine whose nodes have loopback addresses of their own, as hosts have."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from ray.cluster_utils import Cluster

from paretoserve.app.serve import processes

_COMMON: dict[str, Any] = {
    "include_dashboard": False,
    "object_store_memory": 80 << 20,
    "include_log_monitor": False,
}


class RayNodes:
    """A head that runs nothing, and a node for each host; made by `ray_nodes`."""

    def __init__(self, head: str, port: int) -> None:
        self.address = f"{head}:{port}"
        self._head = _COMMON | {"num_cpus": 0, "node_ip_address": head, "gcs_server_port": port}
        self._cluster = Cluster(initialize_head=True, head_node_args=dict(self._head))
        self._nodes: dict[str, Any] = {}

    def add(self, host: str, resources: Mapping[str, float]) -> None:
        """A host that says that it has these, CPU and GPU among them."""
        custom = dict(resources)
        self._nodes[host] = self._cluster.add_node(
            num_cpus=custom.pop("CPU", 0),
            num_gpus=custom.pop("GPU", 0),
            resources=custom,
            node_ip_address=host,
            wait=False,
            **_COMMON,
        )

    def remove(self, host: str) -> None:
        """As a pod goes: SIGTERM to all of it."""
        self._cluster.remove_node(self._nodes.pop(host), allow_graceful=True)

    def lose_head(self) -> None:
        """At once and without a word."""
        self._cluster.head_node.kill_all_processes(check_alive=False, allow_graceful=False)

    def restore_head(self) -> None:
        """Another one at the same address, as KubeRay starts it."""
        self._cluster.head_node = None
        self._cluster.add_node(**self._head, wait=False)

    def shutdown(self) -> None:
        self._cluster.shutdown()


@contextmanager
def ray_folder() -> Iterator[Path]:
    """Where clusters have their files; no process of theirs is left behind."""
    folder = Path(tempfile.mkdtemp(prefix="pserve-"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_TMPDIR", str(folder))
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        try:
            yield folder
        finally:
            left = processes.wait_gone(processes.family(folder), timeout_s=20)
            shutil.rmtree(folder, ignore_errors=True)
    assert not left, "a cluster that was shut down leaves nothing behind"


@contextmanager
def ray_nodes(head: str, port: int, store: Path | None = None) -> Iterator[RayNodes]:
    """A cluster; with a `store`, its head keeps there what another head needs to go on.

    That is the store on disk that Ray has beside Redis for the same purpose.
    """
    with ExitStack() as stack:
        if store is not None:
            patch = stack.enter_context(pytest.MonkeyPatch.context())
            patch.setenv("RAY_gcs_storage", "rocksdb")
            patch.setenv("RAY_gcs_storage_path", str(store))
        cluster = RayNodes(head, port)
        stack.callback(cluster.shutdown)
        yield cluster
