"""Decisions to log: a small deployment, fleets in any state, rows with their results."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from pathlib import Path

import yaml

from paretoserve.domain.document import Document
from paretoserve.domain.estimate import Estimate
from paretoserve.domain.policy import PolicyDocument
from paretoserve.domain.profile import CurvePoint, LatencyCurve, Limits, Profile
from paretoserve.domain.replica import Health, ReplicaState, Snapshot
from paretoserve.domain.request import Request
from paretoserve.domain.residual import LOAD_BUCKETS, Factors, Residuals
from paretoserve.domain.tenant import Tenant
from paretoserve.domain.tier import Tier
from paretoserve.policy.policy import Policy
from paretoserve.telemetry.decision_codec import encode
from paretoserve.telemetry.decision_row import COMPLETED, REFUSED, DecisionRow, Result


def profile(name: str, gpus: float, points: tuple[tuple[int, float], ...]) -> Profile:
    return Profile(
        name=name,
        model="m",
        engine="emulator",
        gpus=gpus,
        limits=Limits(
            context_tokens=32_768, max_batch=points[-1][0], max_queue=8, admit=points[-1][0]
        ),
        curve=LatencyCurve(
            source="emulated",
            hardware="test",
            points=tuple(CurvePoint(batch=batch, tpot_ms=tpot) for batch, tpot in points),
            prefill_tokens_per_s=100_000,
        ),
    )


PROFILES = (
    profile("fast", 8, ((1, 1.0), (32, 3.0))),
    profile("slow", 8, ((1, 6.0), (256, 20.0))),
)
TIERS = (
    Tier(name="premium", ttft_ms=300, tpot_ms=2, profiles=("fast", "slow"),
         overload=("spill", "degrade")),
    Tier(name="standard", ttft_ms=1000, tpot_ms=25, profiles=("fast", "slow")),
    Tier(name="batch", e2e_ms=60_000, profiles=("slow",)),
)  # fmt: skip
TENANTS = tuple(
    Tenant(name=name, key_hashes=(f"sha256:{digit * 64}",), tiers=("premium", "standard", "batch"))
    for name, digit in (("acme", "a"), ("borealis", "b"))
)


@dataclass(frozen=True)
class Draws:
    """Random states and requests, the same for a seed."""

    draw: random.Random

    def state(self, index: int, name: str) -> ReplicaState:
        most = 12 if name == "fast" else 200
        return ReplicaState(
            replica_id=f"{name}#{index:04x}",
            profile=name,
            address=f"10.0.0.{index}:9000",
            health=self.draw.choices(list(Health), (1, 20, 1, 1))[0],
            running=self.draw.randrange(most),
            waiting=self.draw.randrange(3),
            waiting_tokens=self.draw.randrange(20_000),
            kv_used_tokens=self.draw.randrange(400_000),
            kv_total_tokens=500_000,
            acceptance_length=1 + self.draw.random(),
            step_ms=self.draw.random() * 9,
            observed_at=1000 + self.draw.random(),
            tightest_tpot_ms=self.draw.choice((2.0, 25.0, math.inf)),
            prefill_rate=self.draw.random() * 20_000,
            guests=self.draw.randrange(4),
        )

    def snapshot(self, replicas: int) -> Snapshot:
        names = [PROFILES[at % 2].name for at in range(replicas)]
        return Snapshot(
            tuple(self.state(at, name) for at, name in enumerate(names)),
            1001.0,
            {name: self.residuals() for name in sorted(set(names))},
            {(tenant.name, "premium"): self.draw.random() * 3 for tenant in TENANTS},
        )

    def residuals(self) -> Residuals:
        return Residuals(
            tuple(
                Factors(*(0.6 + self.draw.random() for _ in Factors._fields))
                if self.draw.random() < 0.7
                else Factors()
                for _ in range(LOAD_BUCKETS)
            )
        )

    def request(self, snapshot: Snapshot) -> Request:
        ids = [state.replica_id for state in snapshot.replicas]
        some = self.draw.sample(ids, min(2, len(ids)))
        return Request(
            request_id=f"{self.draw.getrandbits(128):032x}",
            model="m",
            tenant=self.draw.choice(TENANTS).name,
            tier=self.draw.choice(TIERS).name,
            prompt_tokens=self.draw.randrange(1, 8000),
            max_tokens=self.draw.randrange(1, 1024),
            penalized=self.draw.random() < 0.1,
            session_id=self.draw.choice(("", "a session that names a person")),
            tpot_ms=self.draw.choice((None, None, 4.5)),
            excluded_replicas=frozenset(some[:1]) if self.draw.random() < 0.1 else frozenset(),
            estimate=Estimate(self.draw.random() * 300, 600.0, (("fast", 0.9),)),
            cached=tuple((replica_id, 64) for replica_id in some),
            blocks=(17, 23),
            home=self.draw.choice(("", "fast")),
            waited_ms=self.draw.choice((0.0, 120.5)),
            in_contract=self.draw.random() < 0.9,
            draw=self.draw.random(),
        )


def document(version: str = "v1", **parameters: object) -> PolicyDocument:
    return PolicyDocument.model_validate(
        {"version": version, "explore": 0.2, "reserve": 0.0, "group_wait": 0.0, **parameters}
    )


def policy(
    version: str = "v1", *, profiles: tuple[Profile, ...] = PROFILES, **parameters: object
) -> Policy:
    return Policy(document(version, **parameters), TIERS, profiles)


MEETS = {"fast": 0.95, "slow": 0.6}
"""How often a profile keeps its promise, whatever was predicted."""
COSTS = {"fast": 0.4, "slow": 0.1}
"""GPU-seconds of one request."""


def rows(
    seed: int, count: int, *, replicas: int = 6, by: Policy | None = None
) -> list[DecisionRow]:
    """Rows of requests in unrelated states, decided by `by`; none of them is held."""
    draws, policy_ = Draws(random.Random(seed)), by or policy()
    found: list[DecisionRow] = []
    tenants = {tenant.name: tenant for tenant in TENANTS}
    while len(found) < count:
        snapshot = draws.snapshot(replicas)
        request = draws.request(snapshot)
        decision = policy_.decide(request, tenants[request.tenant], snapshot, 1001.5)
        if decision.hold_s is None:
            result = Result(REFUSED)
            if decision.chosen is not None:
                name = decision.chosen.profile
                met = draws.draw.random() < MEETS[name]
                result = Result(COMPLETED, met, 123.25, 2.5, 1500.0, 128, 64, COSTS[name], 1)
            time = 1_767_225_600.0 + 3 * len(found)
            found.append(DecisionRow(time, "gw", request, snapshot, 1001.5, decision, result))
    return found


def write_log(path: Path, rows: list[DecisionRow]) -> None:
    """A file as a DecisionLog would write it."""
    lines = [encode(row, row.weight, lambda identifier: identifier) for row in rows]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def write_deployment(folder: Path, document: PolicyDocument) -> None:
    """PROFILES, TIERS, TENANTS and a policy as a deployment folder."""
    model = {"name": "m", "path": "no/weights", "context_tokens": 32_768}
    documents: dict[str, object] = {"models": {"models": [model]}, "policy": _plain(document)}
    for kind, found in (("profiles", PROFILES), ("tiers", TIERS), ("tenants", TENANTS)):
        documents |= {f"{kind}/{one.name}": _plain(one) for one in found}
    for name, value in documents.items():
        path = folder / f"{name}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(yaml.safe_dump(value), encoding="utf-8")


def _plain(document: Document) -> object:
    return document.model_dump(mode="json", exclude_defaults=True)
