"""A decision row as one line of JSON, and back. docs/decision-log.md describes every key.

What a decision depends on is written exactly, so that any later policy can decide it again;
predictions are whole microseconds. A value of the fleet or of the candidates is a column with one
entry for each replica or candidate, or the entry alone where all are equal. JSON has no
infinity: null stands for it in the fleet and in targets, -1 in predictions and prices.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import fields
from itertools import repeat
from operator import attrgetter
from typing import Any

from paretoserve.domain.decision import Candidate, Decision, Outcome, Verdict
from paretoserve.domain.estimate import Estimate
from paretoserve.domain.prediction import Prediction
from paretoserve.domain.replica import Health, ReplicaState, Snapshot
from paretoserve.domain.request import Request
from paretoserve.domain.residual import Factors, Residuals
from paretoserve.domain.targets import FEWEST_WITH_TPOT, Targets
from paretoserve.telemetry.columns import (
    finite,
    from_micros,
    infinite,
    micros,
    pack,
    pack_words,
    spread,
    spread_words,
)
from paretoserve.telemetry.decision_row import DecisionRow, Result

SCHEMA = 1
WORDS = ("profile", "health")
"""Columns of few distinct words."""
NUMBERS = (
    "running",
    "waiting",
    "waiting_tokens",
    "kv_used_tokens",
    "kv_total_tokens",
    "acceptance_length",
    "step_ms",
    "observed_at",
    "prefill_rate",
    "guests",
)
TIGHTEST = "tightest_tpot_ms"
REPLICA_NOT_LOGGED = ("address", "own")
"""No decision reads them."""
_TO_MICROS = {"gpu_seconds": 1e6}
PREDICTED = tuple(
    (name, name.replace("_ms", "_us").replace("gpu_seconds", "gpu_us"), _TO_MICROS.get(name, 1e3))
    for name in Prediction._fields
)
"""A prediction's field, its column, and what it is multiplied by."""
REQUEST_PLAIN = (
    "model",
    "tenant",
    "tier",
    "prompt_tokens",
    "max_tokens",
    "penalized",
    "logprobs",
    "seeded",
    "biased",
    "ttft_ms",
    "tpot_ms",
    "e2e_ms",
    "home",
    "waited_ms",
    "held",
    "generated",
    "in_contract",
    "draw",
)
"""What is written of a request as it stands, unless it is the field's default."""
REQUEST_DEFAULTS = {field.name: field.default for field in fields(Request)}
REQUEST_NOT_LOGGED = ("blocks", "running")
"""Blocks tell equal prompts apart from others, and no decision reads them; what is logged is a
request's first placement, before it runs.
"""

Json = dict[str, Any]


class SchemaError(ValueError):
    """A row of another schema version, or one that lacks what this version has."""


def encode(row: DecisionRow, weight: float, pseudonym: Callable[[str], str]) -> str:
    """One line without its newline. `pseudonym` replaces identifiers that a client chose."""
    decision = row.decision
    replicas = row.snapshot.replicas
    candidates = tuple(decision.candidates)
    value = {
        "v": SCHEMA,
        "time": row.time,
        "gateway": row.gateway,
        "weight": weight,
        "policy": decision.policy_version,
        "request": _request(row.request, pseudonym),
        "tier": decision.tier,
        "in_contract": decision.in_contract,
        "targets": _targets(decision.targets),
        "outcome": decision.outcome,
        "rule": decision.rule,
        "reason": decision.reason,
        "rule_errors": decision.rule_errors,
        "propensity": decision.propensity,
        "chosen": None if decision.chosen is None else candidates.index(decision.chosen),
        "hold_s": decision.hold_s,
        "retry_after_s": decision.retry_after_s,
        "result": {field.name: getattr(row.result, field.name) for field in fields(Result)},
        "now": row.now,
        "taken_at": row.snapshot.taken_at,
        "fleet": _fleet(replicas),
        "residuals": {
            profile: [None if factors == Factors() else factors for factors in residuals.buckets]
            for profile, residuals in row.snapshot.residuals.items()
        },
        "burn": {
            tier: burn
            for (tenant, tier), burn in row.snapshot.burn.items()
            if tenant == row.request.tenant
        },
        "candidates": _candidates(candidates, replicas),
    }
    return json.dumps(value, separators=(",", ":"), allow_nan=False, ensure_ascii=False)


def decode(line: str | bytes) -> DecisionRow:
    """The row of one line. Raises ValueError for no JSON, SchemaError for none of this schema."""
    value = json.loads(line)
    version = value.get("v") if isinstance(value, dict) else None
    if version != SCHEMA:
        raise SchemaError(f"row of schema version {version!r}; this program reads {SCHEMA}")
    try:
        return _row(value)
    except (KeyError, TypeError, IndexError, ValueError) as error:
        raise SchemaError(f"row does not follow schema {SCHEMA}: {error!r}") from error


def _row(value: Json) -> DecisionRow:
    replicas = _replicas(value["fleet"])
    request = _request_of(value["request"])
    residuals = {
        profile: Residuals(tuple(Factors() if f is None else Factors(*f) for f in buckets))
        for profile, buckets in value["residuals"].items()
    }
    burn = {(request.tenant, tier): burn for tier, burn in value["burn"].items()}
    return DecisionRow(
        time=value["time"],
        gateway=value["gateway"],
        request=request,
        snapshot=Snapshot(replicas, value["taken_at"], residuals, burn),
        now=value["now"],
        decision=_decision_of(value, request, replicas),
        result=Result(**value["result"]),
        weight=value["weight"],
    )


def _request(request: Request, pseudonym: Callable[[str], str]) -> Json:
    value: Json = {"id": pseudonym(request.request_id)}
    for name in REQUEST_PLAIN:
        found = getattr(request, name)
        if found != REQUEST_DEFAULTS[name]:
            value[name] = found
    if request.session_id:
        value["session"] = pseudonym(request.session_id)
    if request.excluded_replicas:
        value["excluded_replicas"] = sorted(request.excluded_replicas)
    if request.cached:
        value["cached"] = request.cached
    value["estimate"] = request.estimate
    return value


def _request_of(value: Json) -> Request:
    plain = {name: value[name] for name in REQUEST_PLAIN if name in value}
    return Request(
        request_id=value["id"],
        session_id=value.get("session", ""),
        excluded_replicas=frozenset(value.get("excluded_replicas", ())),
        estimate=_estimate_of(*value["estimate"]),
        cached=tuple((replica_id, tokens) for replica_id, tokens in value.get("cached", ())),
        **plain,
    )


def _estimate_of(output: float, high: float, acceptance: Iterable[Sequence[Any]]) -> Estimate:
    return Estimate(output, high, tuple((profile, factor) for profile, factor in acceptance))


def _fleet(replicas: Sequence[ReplicaState]) -> Json:
    value: Json = {"replica_id": [replica.replica_id for replica in replicas]}
    for name in WORDS:
        value[name] = pack_words([getattr(replica, name) for replica in replicas])
    columns = zip(*map(attrgetter(*NUMBERS), replicas), strict=True) if replicas else repeat(())
    for name, column in zip(NUMBERS, columns, strict=False):
        value[name] = pack(list(column))
    value[TIGHTEST] = pack([finite(replica.tightest_tpot_ms) for replica in replicas])
    return value


def _replicas(fleet: Json) -> tuple[ReplicaState, ...]:
    ids = fleet["replica_id"]
    profiles, healths = (spread_words(fleet[name], len(ids)) for name in WORDS)
    columns = {name: spread(fleet[name], len(ids)) for name in NUMBERS}
    tightest = spread(fleet[TIGHTEST], len(ids))
    return tuple(
        ReplicaState(
            replica_id,
            profiles[at],
            "",
            Health(healths[at]),
            tightest_tpot_ms=infinite(tightest[at]),
            **{name: column[at] for name, column in columns.items()},
        )
        for at, replica_id in enumerate(ids)
    )


def _candidates(candidates: Sequence[Candidate], replicas: Sequence[ReplicaState]) -> Json:
    """`replica` is an index into the fleet, -1 where a profile has no replica."""
    indexes = {replica.replica_id: index for index, replica in enumerate(replicas)}
    value: Json = {
        "replica": [indexes.get(candidate.replica_id, -1) for candidate in candidates],
        "profile": pack_words([candidate.profile for candidate in candidates]),
        "verdict": pack_words([candidate.verdict for candidate in candidates]),
        "price_us": pack(micros((candidate.price for candidate in candidates), 1e6)),
    }
    predictions = [candidate.prediction for candidate in candidates]
    known = [at for at, prediction in enumerate(predictions) if prediction is not None]
    figures = zip(*(p for p in predictions if p is not None), strict=True) if known else repeat(())
    for (_, name, scale), column in zip(PREDICTED, figures, strict=False):
        value[name] = pack(_scattered(micros(column, scale), known, len(predictions)))
    return value


def _scattered(values: list[int], places: list[int], count: int) -> list[int | None]:
    """`count` entries with the values at their places and None at the others."""
    found: list[int | None] = [None] * count
    for place, value in zip(places, values, strict=True):
        found[place] = value
    return found


def _candidates_of(value: Json, replicas: Sequence[ReplicaState]) -> tuple[Candidate, ...]:
    at, count = value["replica"], len(value["replica"])
    predicted = zip(
        *([from_micros(number, scale) for number in spread(value[column], count)]
          for _, column, scale in PREDICTED),
        strict=True,
    )  # fmt: skip
    rows = zip(
        at,
        spread_words(value["profile"], count),
        spread_words(value["verdict"], count),
        spread(value["price_us"], count),
        predicted,
        strict=True,
    )
    return tuple(
        Candidate(
            profile,
            replicas[index].replica_id if index >= 0 else "",
            Verdict(verdict),
            "",
            None if numbers[0] is None else Prediction(*numbers),
            price=from_micros(price, 1e6) or 0.0,
        )
        for index, profile, verdict, price, numbers in rows
    )


def _decision_of(value: Json, request: Request, replicas: Sequence[ReplicaState]) -> Decision:
    candidates = _candidates_of(value["candidates"], replicas)
    chosen = value["chosen"]
    return Decision(
        request_id=request.request_id,
        policy_version=value["policy"],
        tier=value["tier"],
        outcome=Outcome(value["outcome"]),
        rule=value["rule"],
        reason=value["reason"],
        targets=_targets_of(*value["targets"]),
        candidates=candidates,
        chosen=None if chosen is None else candidates[chosen],
        retry_after_s=value["retry_after_s"],
        hold_s=value["hold_s"],
        propensity=value["propensity"],
        in_contract=value["in_contract"],
        rule_errors=tuple(value.get("rule_errors", ())),
    )


def _targets(targets: Targets) -> list[float | None]:
    """Its bounds, and from how many tokens on TPOT is promised where not every answer has one."""
    bounds = [finite(bound) for bound in (targets.ttft_ms, targets.tpot_ms, targets.e2e_ms)]
    few = targets.tpot_from_tokens == FEWEST_WITH_TPOT
    return bounds if few else [*bounds, targets.tpot_from_tokens]


def _targets_of(
    ttft_ms: float | None,
    tpot_ms: float | None,
    e2e_ms: float | None,
    tpot_from_tokens: int = FEWEST_WITH_TPOT,
) -> Targets:
    return Targets(infinite(ttft_ms), infinite(tpot_ms), infinite(e2e_ms), tpot_from_tokens)
