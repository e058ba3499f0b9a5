"""The platform on one Ray node, deployed and changed by Serve config files."""

from __future__ import annotations

import os
import signal

import grpc
import httpx
import pytest
from ray_platform import describe, serve_document
from toy_platform import KEY, Client, policy, tenant, until, write_deployment

from paretoserve.app.config import ConfigError
from paretoserve.app.serve import processes, up

pytestmark = pytest.mark.ray

WIDE_TWICE = {"num_replicas": 2}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_deployment(tmp_path_factory.mktemp("deployment"))


@pytest.fixture(scope="module")
def platform(folder):
    with up.local_cluster(num_cpus=8) as temporary:
        yield up.Platform.deploy(serve_document(folder, wide=WIDE_TWICE))
        started = processes.family(temporary)
        assert len(started) > 8, "Ray's daemons, replicas and executors"
    assert not [process for process in started if process.alive]
    assert not temporary.exists()


@pytest.fixture(scope="module")
def client(platform):
    client = Client(platform.grpc)
    until(lambda: serves(client, "fast-first") and serves(client, "wide-only"), "both serve")
    yield client
    client.close()


def serves(client: Client, tier: str) -> bool:
    try:
        return client.generate(tier).completed().usage.completion_tokens == 4
    except grpc.RpcError:
        return False


def test_requests_reach_both_profiles_over_grpc(client):
    assert client.generate("fast-first").started.profile == "fast"
    stream = client.generate("wide-only", max_tokens=9)
    assert stream.started.profile == "wide"
    assert stream.started.replica_id.startswith("wide-")
    assert stream.completed().usage.completion_tokens == 9
    assert stream.tokens == 9


def test_requests_are_served_over_openai_http(client, platform):
    answer = httpx.post(
        f"http://{platform.http}/v1/completions",
        headers={"authorization": f"Bearer {KEY}"},
        json={"model": "toy", "prompt": "once", "max_tokens": 5, "ignore_eos": True},
        timeout=30,
    )
    assert answer.status_code == 200, answer.text
    assert answer.json()["usage"]["completion_tokens"] == 5


def test_policy_and_tenants_change_without_a_restart(client, platform, folder):
    before = describe("fast"), platform.gateway()["gateway_id"]
    newcomer = Client(platform.grpc, key="sk-test-newcomer")
    with pytest.raises(grpc.RpcError) as refused:
        newcomer.generate("wide-only")
    assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED

    running = client.generate("wide-only", max_tokens=200)
    tenants = [
        tenant("acme", KEY, ["fast-first", "wide-first", "wide-only"]),
        tenant("newcomer", "sk-test-newcomer", ["wide-only"]),
    ]
    changed = {"revision": "2", "policy": policy("test-2"), "tenants": tenants}
    up.Platform.deploy(serve_document(folder, wide=WIDE_TWICE, gateway={"user_config": changed}))

    stream = newcomer.generate("wide-only")
    assert stream.started.decision.policy_version == "test-2"
    assert running.completed().usage.completion_tokens == 200
    assert (describe("fast"), platform.gateway()["gateway_id"]) == before
    assert platform.gateway()["revision"] == "2"
    newcomer.close()


def test_a_bad_user_config_is_reported_and_the_last_good_one_stays(client, platform, folder):
    in_force = platform.gateway()["revision"]
    bad = {"revision": "3", "policy": {"verson": "x"}}
    with pytest.raises(ConfigError, match=r"policy\.verson"):
        up.Platform.deploy(serve_document(folder, wide=WIDE_TWICE, gateway={"user_config": bad}))
    assert platform.gateway()["revision"] == in_force
    assert serves(client, "wide-only")


def test_a_killed_executor_serves_again_at_the_same_address(client):
    before = describe("fast")
    os.kill(before["pid"], signal.SIGKILL)
    until(lambda: describe("fast")["restarts"] == before["restarts"] + 1, "it was noticed")
    after = until(lambda: _serving("fast"), "the executor serves again")
    assert after["address"] == before["address"]
    assert after["replica_id"] == before["replica_id"]
    assert after["pid"] != before["pid"]
    assert after["last_exit"].startswith("killed by SIGKILL")
    until(lambda: client.generate("fast-first").started.profile == "fast", "it is chosen again")


def test_scale_down_lets_running_streams_end(client, folder):
    """Eight seconds of tokens: longer than a process is given between SIGTERM and SIGKILL."""
    streams = [client.generate("wide-only", max_tokens=600) for _ in range(6)]
    for stream in streams:
        stream.wait_flowing()
    assert len({stream.started.replica_id for stream in streams}) == 2
    up.Platform.deploy(serve_document(folder, wide={"num_replicas": 1}))
    assert [s.completed().usage.completion_tokens for s in streams] == [600] * 6
    survivor = describe("wide")["replica_id"]
    until(
        lambda: {client.generate("wide-only").started.replica_id for _ in range(4)} == {survivor},
        "only the remaining replica is chosen",
    )


def test_streams_that_serve_cannot_see_scale_a_profile_up(platform, folder):
    """Last here: an autoscaling policy is part of the code version, so everything restarts."""
    scaling = {"policy_function": "paretoserve.app.serve.autoscaling:by_streams"}
    autoscaling = {
        "min_replicas": 1,
        "max_replicas": 2,
        "target_ongoing_requests": 3,
        "metrics_interval_s": 0.2,
        "look_back_period_s": 1,
        "upscale_delay_s": 0.5,
        "policy": scaling,
    }
    restarted = up.Platform.deploy(serve_document(folder, wide={"autoscaling_config": autoscaling}))
    client = Client(restarted.grpc)
    until(lambda: serves(client, "wide-only"), "it serves")
    streams = [client.generate("wide-only", max_tokens=600) for _ in range(6)]
    until(
        lambda: len({client.generate("wide-only").started.replica_id for _ in range(3)}) == 2,
        "a second replica is chosen",
    )
    assert [s.completed().usage.completion_tokens for s in streams] == [600] * 6
    client.close()


def _serving(deployment: str):
    description = describe(deployment)
    return description if description["state"] == "serving" else None
