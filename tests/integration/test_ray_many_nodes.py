"""Several Ray nodes on this machine, each standing for a host of eight GPUs; one of them dies."""

from __future__ import annotations

import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import grpc
import pytest
from ray.cluster_utils import Cluster
from ray_platform import describe, serve_document
from toy_platform import Client, profile_serving, until, write_deployment

from paretoserve.app.serve import processes, up

pytestmark = pytest.mark.ray

NOTICED_WITHIN_S = 10.0
"""The gateway's own probes; Ray needs longer."""
ON_WIDE = 600
"""Seven seconds of tokens: it still runs when its host dies."""
EIGHT_BUNDLES = [{"CPU": 1, "gpu_slot": 1}, *[{"gpu_slot": 1}] * 7]
"""As an engine wants it that starts a Ray worker per GPU."""
ONE_BUNDLE = [{"CPU": 1, "GPU": 8, "gpu_slot": 8}]
"""As an engine wants it that starts its ranks itself: all eight GPUs are the replica's own."""


@pytest.fixture(scope="module")
def hosts():
    """A head for the gateway and three hosts: two in use, one spare."""
    folder = Path(tempfile.mkdtemp(prefix="pserve-"))
    (folder / "ray").mkdir()
    patch = pytest.MonkeyPatch()
    patch.setenv("RAY_TMPDIR", str(folder))
    # Without it Ray would look for the head, which is on 127.0.0.1, at the machine's own address.
    patch.setattr("ray._private.ray_constants.ENABLE_RAY_CLUSTER", False)
    patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    common = {
        "include_dashboard": False,
        "object_store_memory": 80 << 20,
        "node_ip_address": "127.0.0.1",
    }
    head = {"num_cpus": 2, "resources": {"front": 1}}
    cluster = Cluster(initialize_head=True, head_node_args=common | head)
    try:
        nodes = [
            cluster.add_node(
                num_cpus=1, num_gpus=8, resources={"gpu_slot": 8}, wait=False, **common
            )
            for _ in range(3)
        ]
        cluster.wait_for_nodes()
        with up.existing_cluster(cluster.address):
            yield cluster, {node.node_id: node for node in nodes}
    finally:
        started = processes.family(folder)
        cluster.shutdown()
        left = processes.wait_gone(started, timeout_s=20)
        patch.undo()
        shutil.rmtree(folder, ignore_errors=True)
    assert not left, "dead hosts leave no executor behind"


@pytest.fixture(scope="module")
def platform(hosts, tmp_path_factory):
    folder = write_deployment(tmp_path_factory.mktemp("deployment"))
    config = serve_document(
        folder,
        gateway={"ray_actor_options": {"num_cpus": 1, "resources": {"front": 1}}},
        fast=_tp8(ONE_BUNDLE),
        wide=_tp8(EIGHT_BUNDLES),
    )
    return up.Platform.deploy(config)


@pytest.fixture(scope="module")
def client(platform):
    client = Client(platform.grpc)
    until(lambda: profile_serving(client, "fast-first") == "fast", "fast serves")
    until(lambda: profile_serving(client, "wide-only") == "wide", "wide serves")
    yield client
    client.close()


def test_the_executor_sees_the_gpus_that_ray_gave_its_replica(client):
    environment = Path(f"/proc/{describe('fast')['pid']}/environ").read_bytes().split(b"\0")
    assert b"CUDA_VISIBLE_DEVICES=0,1,2,3,4,5,6,7" in environment


def test_a_lost_host_disturbs_its_own_streams_only_and_is_replaced(client, hosts):
    cluster, nodes = hosts
    fast, wide = describe("fast"), describe("wide")
    assert {fast["node_id"], wide["node_id"]} < set(nodes), "each profile on a host of its own"

    on_fast = client.generate("fast-first", max_tokens=400)
    on_wide = client.generate("wide-only", max_tokens=ON_WIDE)
    on_fast.wait_flowing()
    on_wide.wait_flowing()
    cluster.remove_node(nodes[wide["node_id"]], allow_graceful=False)
    killed_at = time.monotonic()

    until(lambda: profile_serving(client, "wide-first") == "fast", "requests spill", 30)
    assert time.monotonic() - killed_at < NOTICED_WITHIN_S
    _goes_on_or_says_why_not(on_wide, ON_WIDE)
    assert on_fast.completed().usage.completion_tokens == 400

    _served_without_a_gap_until_recovered(client)
    recovered = describe("wide")
    assert recovered["replica_id"] != wide["replica_id"]
    assert recovered["node_id"] in set(nodes) - {fast["node_id"], wide["node_id"]}


def _goes_on_or_says_why_not(stream: Any, tokens: int) -> None:
    """Only the lost profile may have it: it waits some seconds for Serve to replace the replica."""
    completed, code = None, None
    try:
        completed = stream.completed()
    except grpc.RpcError as error:
        code = error.code()
    if completed is None:
        assert code is grpc.StatusCode.UNAVAILABLE
    else:
        assert (completed.usage.completion_tokens, completed.moves) == (tokens, 1)


def _served_without_a_gap_until_recovered(client: Client) -> None:
    """While Serve replaces the replica, the other profile takes every request that may go there."""

    def recovered() -> bool:
        assert client.generate("wide-first").completed().usage.completion_tokens == 4
        return profile_serving(client, "wide-only") == "wide"

    until(recovered, "Serve has a replica on the spare host", timeout_s=120)


def _tp8(bundles):
    first = bundles[0]
    gpus = {"num_gpus": first["GPU"]} if "GPU" in first else {}
    slots = {"gpu_slot": first["gpu_slot"]}
    return {
        "ray_actor_options": {"num_cpus": 1, "resources": slots, **gpus},
        "placement_group_bundles": bundles,
        "placement_group_strategy": "STRICT_PACK",
    }
