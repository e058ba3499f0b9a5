"""Whether NetworkPolicies let one pod of a release reach another."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

Policy = dict[str, Any]


@dataclass(frozen=True)
class Peer:
    """A pod, by what policies see of it. `ours` is in the release's namespace."""

    labels: dict[str, str] = field(default_factory=dict)
    namespace: dict[str, str] = field(default_factory=dict)
    ours: bool = True
    ports: dict[str, int] = field(default_factory=dict)


def allowed(policies: list[Policy], source: Peer, target: Peer, port: int) -> bool:
    """Whether both sides let TCP from `source` to `port` of `target` through."""
    return _side(policies, source, target, port, target, "Egress") and _side(
        policies, target, source, port, target, "Ingress"
    )


def _side(
    policies: list[Policy], pod: Peer, other: Peer, port: int, listener: Peer, kind: str
) -> bool:
    """Whether the policies that select `pod` let `other` through; without any all may."""
    mine = [p for p in policies if pod.ours and _selects(p["spec"]["podSelector"], pod.labels)]
    mine = [p for p in mine if kind in p["spec"]["policyTypes"]]
    rules = [rule for p in mine for rule in p["spec"].get(kind.lower(), [])]
    peers = "to" if kind == "Egress" else "from"
    return not mine or any(
        _ports(rule.get("ports"), port, listener) and _peers(rule.get(peers), other)
        for rule in rules
    )


def _selects(selector: dict[str, Any], labels: dict[str, str]) -> bool:
    return selector.get("matchLabels", {}).items() <= labels.items()


def _ports(ports: list[dict[str, Any]] | None, port: int, listener: Peer) -> bool:
    if ports is None:
        return True
    tcp = [each for each in ports if each.get("protocol", "TCP") == "TCP"]
    return any(listener.ports.get(each["port"], each["port"]) == port for each in tcp)


def _peers(peers: list[dict[str, Any]] | None, other: Peer) -> bool:
    return peers is None or any(_is(peer, other) for peer in peers)


def _is(peer: dict[str, Any], other: Peer) -> bool:
    if "ipBlock" in peer:
        return False  # no address is known of a pod
    if "namespaceSelector" in peer:
        in_namespace = _selects(peer["namespaceSelector"], other.namespace)
    else:
        in_namespace = other.ours
    return in_namespace and _selects(peer.get("podSelector", {}), other.labels)
