"""A log of a run of the real router, simulated: every row can be decided again as it was."""

from __future__ import annotations

from pathlib import Path

from tests.support.decisions import PROFILES, TENANTS, TIERS, document, policy, write_log

from paretoserve.app.evidence import gather
from paretoserve.domain.deployment import Deployment
from paretoserve.domain.model import Model
from paretoserve.policy.offpolicy import appraise
from paretoserve.policy.support import support
from paretoserve.sim.records import Record
from paretoserve.sim.simulation import simulate
from paretoserve.sim.workload import Share, TraceRequest, Workload, build
from paretoserve.sim.world import World
from paretoserve.telemetry.decision_memory import DecisionMemory
from paretoserve.telemetry.decision_reader import DecisionLogReader
from paretoserve.telemetry.decision_row import COMPLETED, REFUSED, DecisionRow, Result

MIX = (Share("acme", "premium", 0.5), Share("borealis", "standard", 0.5))
DEPLOYMENT = Deployment(
    models=(Model(name="m", path="x", context_tokens=32_768),),
    profiles=PROFILES,
    tiers=TIERS,
    tenants=TENANTS,
    policy=document(),
)


def workload() -> Workload:
    trace = [TraceRequest(at / 10, 200 + 37 * (at % 50), 20 + 7 * (at % 23)) for at in range(600)]
    return build(trace, MIX, context_tokens=32_768, duration_s=60, seed=3)


def row_of(record: Record, memory: DecisionMemory) -> DecisionRow | None:
    seen = memory.take(record.request_id)
    if seen is None:
        return None
    spent = sum(record.gpu_seconds_by_profile.values())
    result = Result(
        REFUSED if record.refused else COMPLETED,
        record.met,
        record.ttft_ms,
        record.tpot_ms,
        record.e2e_ms,
        record.output_tokens,
        record.cached_tokens,
        spent,
        record.moves,
    )
    return seen.row("router-0", result)


def test_a_routers_own_decisions_are_made_again_with_their_propensities(tmp_path: Path) -> None:
    memory = DecisionMemory(policy(), clock=lambda: 0.0)
    run = simulate(
        World(
            name="v1",
            policy=lambda: memory,
            workload=workload(),
            tiers=TIERS,
            profiles=PROFILES,
            tenants={tenant.name: tenant for tenant in TENANTS},
            fleet=(("fast", 2), ("slow", 1)),
            telemetry_s=0.25,
        )
    )
    rows = [row for record in run.records if (row := row_of(record, memory)) is not None]
    assert len(rows) > 0.9 * len(run.records) > 400
    write_log(tmp_path / "log.jsonl", rows)
    log = DecisionLogReader(tmp_path / "log.jsonl")
    evidence = gather(log, DEPLOYMENT, policy(), policy(), "attainment")
    assert evidence.problems == []
    off = [t for t in evidence.trials if abs(t.logged[t.action] - t.propensity) > 1e-9]
    assert off == []
    assert {t.propensity for t in evidence.trials} >= {0.1, 0.9}
    found = appraise(evidence.trials)[""]
    assert found.ips.value == found.logged.value
    assert support(evidence.trials).untried == 0
