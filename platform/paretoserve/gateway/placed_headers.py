"""What a reply's headers, or a gRPC call's metadata, say of where a request went and why."""

from __future__ import annotations

from collections.abc import Iterator

from paretoserve.domain.decision import Decision
from paretoserve.gateway.calls import Completed

_MAX_NAME_CHARS = 64
_LARGEST = 1e12


def placed_headers(decision: Decision) -> dict[str, str]:
    """Where a request was placed, as printable ASCII. `contract` is there only when it is exceeded."""
    headers = {
        "x-paretoserve-profile": _plain(decision.chosen.profile if decision.chosen else ""),
        "x-paretoserve-tier": _plain(decision.tier),
        "x-paretoserve-decision": decision_header(decision),
    }
    if not decision.in_contract:
        headers["x-paretoserve-contract"] = "exceeded"
    return headers


def ended_headers(end: Completed) -> dict[str, str]:
    """Where a request ended, and for one that was moved, how it came there."""
    headers = placed_headers(end.decision)
    if end.moves:
        headers["x-paretoserve-moves"] = str(end.moves)
        headers["x-paretoserve-profiles"] = ", ".join(_quoted(name) for name in end.profiles)
    return headers


def decision_header(decision: Decision) -> str:
    """The decision in one line, a Dictionary of Structured Fields (RFC 9651).

    `outcome`, `profile`, `replica`, `rule`, `tier`; `ttft`, `tpot` and `e2e` predicted in
    milliseconds at the median, with the figure at the policy's confidence as `high` and what was
    promised, if anything, as `target`; `price-gpu-ms`; `policy`.
    """
    return ", ".join(f"{key}={value}" for key, value in _members(decision))


def _members(decision: Decision) -> Iterator[tuple[str, str]]:
    yield "outcome", str(decision.outcome)
    chosen = decision.chosen
    if chosen is not None:
        yield "profile", _quoted(chosen.profile)
        yield "replica", _quoted(chosen.replica_id)
    yield "rule", _quoted(decision.rule)
    yield "tier", _quoted(decision.tier)
    if chosen is not None:
        if (predicted := chosen.prediction) is not None:
            targets = decision.targets
            yield from _figure("ttft", predicted.ttft_ms, predicted.ttft_high_ms, targets.ttft_ms)
            yield from _figure("tpot", predicted.tpot_ms, predicted.tpot_high_ms, targets.tpot_ms)
            yield from _figure("e2e", predicted.e2e_ms, predicted.e2e_high_ms, targets.e2e_ms)
        if chosen.price < _LARGEST:
            yield "price-gpu-ms", _decimal(chosen.price * 1000)
    yield "policy", _quoted(decision.policy_version)


def _figure(key: str, predicted: float, high: float, target: float) -> Iterator[tuple[str, str]]:
    if predicted < _LARGEST:
        limits = (("high", high), ("target", target))
        parameters = (f";{name}={_decimal(value)}" for name, value in limits if value < _LARGEST)
        yield key, _decimal(predicted) + "".join(parameters)


def _decimal(value: float) -> str:
    return f"{value:.3f}".rstrip("0").rstrip(".")


def _quoted(name: str) -> str:
    return f'"{_plain(name)}"'


def _plain(name: str) -> str:
    """What needs no escape in a quoted string, and what any proxy lets through."""
    return "".join(c if " " <= c <= "~" and c not in '"\\' else "?" for c in name)[:_MAX_NAME_CHARS]
