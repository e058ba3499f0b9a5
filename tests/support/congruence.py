"""One small workload for the simulator and for a live gateway, and how far the two are apart.

The profiles are slow, so that a few milliseconds of a busy machine's scheduling are little beside
a step. Arrivals, lengths, tiers, tenants and the policy are the same on both sides; a prompt is
random token ids, so that none shares a prefix with another.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean, pstdev
from typing import Any, NamedTuple

from paretoserve.domain.deployment import Deployment
from paretoserve.gateway.tenants import hash_key
from paretoserve.policy.policy import Policy
from paretoserve.sim.records import Run
from paretoserve.sim.simulation import simulate
from paretoserve.sim.statistics import percentile, quantiles
from paretoserve.sim.workload import Arrival, Workload
from paretoserve.sim.world import World

MODEL_PATH = Path(__file__).parents[2] / "deployments/local/models/scribe"
CONTEXT_TOKENS = 1024

FLEET = (("quick", 1), ("wide", 2))
TELEMETRY_S = 0.02
"""How often the gateway's links let a replica report."""
ATTAINMENT_POINTS = 3.0
"""How far attainment may be apart, and times as a share of the simulated ones."""
TIMES_SHARE = 0.10
STEADY = 1 / 4
"""Of what is allowed, the spread over simulated runs up to which a figure is steady."""
SHIFT_S = 0.004
"""How much later a request may come in one of them."""


class Phase(NamedTuple):
    """Requests of each tier per second, for so many seconds."""

    seconds: float
    rates: dict[str, float]


CALM = {"premium": 4.0, "standard": 5.0, "batch": 3.0}
PHASES = (
    Phase(6.0, CALM),
    Phase(1.5, {"premium": 40.0, "standard": 6.0, "batch": 4.0}),
    Phase(6.0, CALM),
    Phase(4.0, {"premium": 4.0, "standard": 32.0, "batch": 12.0}),
    Phase(6.0, CALM),
)
"""One tier after the other is offered more than there is room for."""
DURATION_S = sum(phase.seconds for phase in PHASES)
TENANTS = {"premium": "acme", "standard": "globex", "batch": "initech"}


def _profile(
    name: str, gpus: int, points: tuple[tuple[int, float], ...], prefill: int
) -> dict[str, Any]:
    most = points[-1][0]
    return {
        "name": name,
        "model": "scribe",
        "engine": "emulator",
        "gpus": gpus,
        "limits": {
            "context_tokens": CONTEXT_TOKENS,
            "max_batch": most,
            "admit": most,
            "max_queue": 64,
        },
        "curve": {
            "source": "emulated",
            "hardware": "none",
            "points": [{"batch": batch, "tpot_ms": tpot} for batch, tpot in points],
            "prefill_tokens_per_s": prefill,
            "chunk_tokens": 256,
        },
    }


def _tier(name: str, priority: int, profiles: list[str], **more: Any) -> dict[str, Any]:
    return {"name": name, "priority": priority, "profiles": profiles, **more}


DEPLOYMENT = Deployment.model_validate(
    {
        "models": [{"name": "scribe", "path": str(MODEL_PATH), "context_tokens": CONTEXT_TOKENS}],
        "profiles": [
            _profile("quick", 2, ((1, 30.0), (12, 48.0)), 12000),
            _profile("wide", 1, ((1, 45.0), (32, 90.0)), 12000),
        ],
        "tiers": [
            _tier("premium", 90, ["quick"], ttft_ms=600, tpot_ms=48),
            _tier("standard", 40, ["quick", "wide"], ttft_ms=1000, tpot_ms=80),
            _tier("batch", 10, ["quick", "wide"], e2e_ms=1800),
        ],
        "tenants": [
            {
                "name": tenant,
                "key_hashes": [hash_key(tenant)],
                "tiers": [tier],
                "quota": {"max_in_flight": 1000},
            }
            for tier, tenant in TENANTS.items()
        ],
        # Who waits for like company makes hundreds of milliseconds of a few: simulated runs that
        # differ by 4 ms had 273 to 436 ms of TTFT in the median, and nothing could be compared.
        "policy": {"version": "congruence", "explore": 0, "group_wait": 0},
    }
)
"""The key of a tenant is its name."""


def arrivals() -> list[Arrival]:
    """Poisson in each phase. Every request runs to its max_tokens."""
    draw, begin, rows = random.Random("congruence/1"), 0.0, []
    for phase in PHASES:
        for tier, rate in phase.rates.items():
            at = begin + draw.expovariate(rate)
            while at < begin + phase.seconds:
                rows.append((at, tier, draw.randint(150, 450), draw.randint(10, 24)))
                at += draw.expovariate(rate)
        begin += phase.seconds
    return [
        Arrival(at, f"r{number}", TENANTS[tier], tier, prompt, output, output)
        for number, (at, tier, prompt, output) in enumerate(sorted(rows))
    ]


def simulated(offered: Sequence[Arrival]) -> Run:
    """The workload in the simulator."""
    deployment = DEPLOYMENT
    world = World(
        name="congruence",
        policy=lambda: Policy(deployment.policy, deployment.tiers, deployment.profiles),
        workload=Workload(offered, DURATION_S, 1.0, 1),
        tiers=deployment.tiers,
        profiles=deployment.profiles,
        tenants={tenant.name: tenant for tenant in deployment.tenants},
        fleet=FLEET,
        telemetry_s=TELEMETRY_S,
        warmup_s=0.0,
    )
    return simulate(world)


def shifted(offered: Sequence[Arrival], seed: int) -> list[Arrival]:
    """The same requests, each up to SHIFT_S later: what the way to a gateway does to them."""
    draw = random.Random(f"shift/{seed}")
    return sorted(a._replace(at_s=a.at_s + draw.uniform(0, SHIFT_S)) for a in offered)


class Got(NamedTuple):
    """What one request got, simulated or live, milliseconds; no times for one that was refused."""

    tier: str
    met: bool = False
    ttft_ms: float | None = None
    tpot_ms: float | None = None
    held: bool = False
    moves: int = 0


class Figures(NamedTuple):
    """Of many requests: attainment in percent, times in milliseconds."""

    attainment: float
    ttft_p50: float
    ttft_p95: float
    tpot_p50: float
    tpot_p95: float


FIGURES = Figures._fields
ALL = "all"


def of_records(run: Run) -> list[Got]:
    """What the simulated requests got."""
    return [Got(r.tier, r.met, r.ttft_ms, r.tpot_ms, r.held_ms > 0, r.moves) for r in run.records]


def figures(got: Sequence[Got]) -> Figures:
    """Raises ValueError where nobody got anything."""
    ttft = quantiles([g.ttft_ms for g in got if g.ttft_ms is not None])
    tpot = quantiles([g.tpot_ms for g in got if g.tpot_ms is not None])
    if ttft is None or tpot is None:
        raise ValueError(f"none of {len(got)} requests was served")
    met = 100 * sum(g.met for g in got) / len(got)
    return Figures(met, ttft.p50, ttft.p95, tpot.p50, tpot.p95)


def by_tier(got: Sequence[Got]) -> dict[str, Figures]:
    """The figures of each tier, and of ALL."""
    groups = {tier: [g for g in got if g.tier == tier] for tier in TENANTS}
    return {name: figures(group) for name, group in ((ALL, list(got)), *groups.items())}


class Expected(NamedTuple):
    """A figure's mean over repeated simulated runs, and how far a live one may be from it.

    Shares of that: `spread` is the standard deviation over the runs, `slope` how far the figure
    moves when ATTAINMENT_POINTS of the requests change sides. A figure that hangs on single
    decisions, or lies in the gap between the calm and the busy times, has much of one of them: one
    live run says nothing of it.
    """

    mean: float
    allowed: float
    spread: float
    slope: float

    @property
    def steady(self) -> bool:
        return self.spread <= STEADY and self.slope <= 1


def expected(runs: Sequence[Sequence[Got]]) -> dict[tuple[str, str], Expected]:
    """By tier and figure."""
    figures_of_runs = [by_tier(run) for run in runs]
    pooled = [got for run in runs for got in run]
    return {
        (tier, name): _expected(
            name,
            [float(getattr(run[tier], name)) for run in figures_of_runs],
            [got for got in pooled if tier in (ALL, got.tier)],
        )
        for tier in (ALL, *TENANTS)
        for name in FIGURES
    }


def _expected(name: str, values: Sequence[float], pooled: Sequence[Got]) -> Expected:
    mean = fmean(values)
    if name == "attainment":
        return Expected(mean, ATTAINMENT_POINTS, pstdev(values) / ATTAINMENT_POINTS, 0.0)
    metric, rank = name.rsplit("_p", 1)
    times = sorted(time for got in pooled if (time := getattr(got, f"{metric}_ms")) is not None)
    ranks = (float(rank) - ATTAINMENT_POINTS, float(rank) + ATTAINMENT_POINTS)
    slope = max(abs(percentile(times, rank / 100) - mean) for rank in ranks)
    allowed = TIMES_SHARE * mean
    return Expected(mean, allowed, pstdev(values) / allowed, slope / allowed)


def compared(
    expectations: Mapping[tuple[str, str], Expected],
) -> dict[tuple[str, str], Expected]:
    """The figures of all requests together, and those of single tiers that are steady."""
    return {key: e for key, e in expectations.items() if key[0] == ALL or e.steady}


def apart(
    expectations: Mapping[tuple[str, str], Expected], live: Mapping[str, Figures]
) -> list[str]:
    """Where a live run is further from the simulated ones than it may be, in words."""
    found = []
    for (tier, name), value in expectations.items():
        got = float(getattr(live[tier], name))
        if abs(got - value.mean) > value.allowed:
            unit = " points" if name == "attainment" else " ms"
            found.append(
                f"{tier}: {name} is {got:.1f} live and {value.mean:.1f} simulated; "
                f"{value.allowed:.1f}{unit} are allowed"
            )
    return found


def report(expectations: Mapping[tuple[str, str], Expected], **live: Mapping[str, Figures]) -> str:
    """Every figure of every side, simulated means first; those that spread much are in brackets."""
    lines = []
    for tier in (ALL, *TENANTS):
        mine = [expectations[tier, name] for name in FIGURES]
        cells = [f"{e.mean:9.2f} " if e.steady else f"({e.mean:8.2f})" for e in mine]
        lines.append(f"{tier:9} {'simulated':10}{''.join(cells)}")
        for side, figures_of in live.items():
            cells = [f"{float(getattr(figures_of[tier], name)):9.2f} " for name in FIGURES]
            lines.append(f"{tier:9} {side:10}{''.join(cells)}")
    return "\n".join([f"{'':20}{''.join(f'{name:>10}' for name in FIGURES)}", *lines])
