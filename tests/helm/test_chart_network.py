"""NetworkPolicies let in what is needed, and nothing else."""

from __future__ import annotations

import pytest
from tests.support.chart import Object, case, one, pods, render, rendered
from tests.support.network_policy import Peer, allowed

RAY_PORTS = {"dashboard": 8265, "metrics": 8080, "serve": 9500}
KUBE_SYSTEM = Peer(namespace={"kubernetes.io/metadata.name": "kube-system"}, ours=False)
STRANGER = Peer(namespace={"kubernetes.io/metadata.name": "elsewhere"}, ours=False)
NEIGHBOUR = Peer(labels={"app": "other"})
EDGE = Peer(namespace={"kubernetes.io/metadata.name": "edge"}, ours=False)
PROMETHEUS = Peer(namespace={"kubernetes.io/metadata.name": "monitoring"}, ours=False)
REDIS = Peer(namespace={"kubernetes.io/metadata.name": "data"}, ours=False)
OPERATOR = Peer(
    labels={"app.kubernetes.io/component": "kuberay-operator"},
    namespace={"kubernetes.io/metadata.name": "kuberay"},
    ours=False,
)


def _peers(objects: list[Object]) -> dict[str, Peer]:
    found = {
        "kube-system": KUBE_SYSTEM, "stranger": STRANGER, "neighbour": NEIGHBOUR, "edge": EDGE,
        "prometheus": PROMETHEUS, "redis": REDIS, "operator": OPERATOR,
    }  # fmt: skip
    for name, pod in pods(objects):
        # What KubeRay adds to labels is not looked at by any policy.
        labels = pod["metadata"]["labels"]
        component = labels["app.kubernetes.io/component"]
        assert labels, name
        found[component] = Peer(labels=labels, ports=RAY_PORTS)
    return found


def _through(objects: list[Object], source: str, target: str, port: int) -> bool:
    policies = [each for each in objects if each["kind"] == "NetworkPolicy"]
    peers = _peers(objects)
    return allowed(policies, peers[source], peers[target], port)


ALWAYS = [
    ("gateway", "executor", 9500, True),
    ("gateway", "executor", 8265, False),
    ("gateway", "head", 8265, False),
    ("head", "executor", 34567, True),
    ("executor", "head", 6379, True),
    ("executor", "executor", 34567, True),
    ("smoke", "gateway", 9000, True),
    ("smoke", "gateway", 8000, True),
    ("smoke", "executor", 9500, False),
    ("operator", "head", 8265, True),
    ("operator", "executor", 8265, False),
    ("stranger", "head", 8265, False),
    ("neighbour", "head", 8265, False),
    ("neighbour", "head", 6379, False),
    ("stranger", "executor", 9500, False),
    ("neighbour", "executor", 9500, False),
    ("prometheus", "executor", 8080, True),
    ("prometheus", "head", 8080, True),
    ("executor", "gateway", 8000, False),
    ("gateway", "stranger", 80, False),
    ("executor", "stranger", 80, False),
    ("gateway", "kube-system", 53, True),
    ("gateway", "kube-system", 5353, True),
    ("executor", "kube-system", 5353, True),
    ("head", "kube-system", 5353, True),
    ("smoke", "kube-system", 5353, True),
    ("gateway", "kube-system", 443, False),
    ("executor", "kube-system", 53, True),
    ("head", "kube-system", 53, True),
    ("smoke", "kube-system", 53, True),
]


@pytest.mark.parametrize("name", ["smallest", "everything"])
@pytest.mark.parametrize(("source", "target", "port", "through"), ALWAYS)
def test_who_may_talk_to_whom(
    name: str, source: str, target: str, port: int, through: bool
) -> None:
    assert _through(rendered(name), source, target, port) is through


@pytest.mark.parametrize(
    ("source", "target", "port", "open_to_all", "with_clients"),
    [
        ("edge", "gateway", 8000, True, True),
        ("edge", "gateway", 9000, True, True),
        ("stranger", "gateway", 9000, True, False),
        ("neighbour", "gateway", 8000, True, False),
        ("prometheus", "gateway", 8081, True, True),
        ("prometheus", "gateway", 8000, True, False),
        ("edge", "gateway", 8081, True, False),
        ("stranger", "gateway", 8081, True, False),
        ("prometheus", "gateway", 9000, True, False),
        ("stranger", "executor", 8080, True, False),
    ],
)
def test_clients_and_monitoring_can_be_named(
    source: str, target: str, port: int, open_to_all: bool, with_clients: bool
) -> None:
    assert _through(rendered("smallest"), source, target, port) is open_to_all
    assert _through(rendered("everything"), source, target, port) is with_clients


def test_the_head_reaches_redis_and_the_api_server_where_it_needs_them() -> None:
    assert _through(rendered("everything"), "head", "redis", 6380)
    assert not _through(rendered("everything"), "head", "redis", 6379)
    assert not _through(rendered("everything"), "executor", "redis", 6380)
    egress = one(rendered("everything"), "NetworkPolicy", "-head")["spec"]["egress"]
    assert {
        "ports": [{"port": 443}, {"port": 6443}],
        "to": [{"ipBlock": {"cidr": "10.0.0.1/32"}}],
    } in egress
    plain = one(rendered("smallest"), "NetworkPolicy", "-head")["spec"]["egress"]
    assert not [rule for rule in plain if {"port": 443} in rule.get("ports", [])]


@pytest.mark.parametrize(
    ("address", "port"),
    [("redis", 6379), ("redis:6380", 6380), ("rediss://redis.data:7000", 7000), ("redis://redis", 6379), ("redis-0", 6379), ("redis-0:7001", 7001)],
)  # fmt: skip
def test_the_port_of_redis_is_the_addresss(address: str, port: int) -> None:
    values = case("smallest")
    values["ray"] = {"faultTolerance": {"enabled": True, "redisAddress": address}}
    egress = one(render(values), "NetworkPolicy", "-head")["spec"]["egress"]
    assert {"ports": [{"port": port}]} in egress


def test_no_policy_is_made_where_none_is_wanted() -> None:
    assert not [each for each in rendered("dgx-h200") if each["kind"] == "NetworkPolicy"]
