"""From samples and records to the figures of results.json. Pure; docs/demo.md explains each key."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from paretoserve.app.demo.curves import points, ratios
from paretoserve.app.demo.plan import Plan
from paretoserve.app.demo.replay import Fate, Record
from paretoserve.app.demo.stats import median, percentile, share_of
from paretoserve.app.demo.sweep import Measured
from paretoserve.app.demo.watch import StateSample
from paretoserve.app.demo.workload import Pace
from paretoserve.domain.decision import Outcome, Verdict
from paretoserve.domain.deployment import Deployment
from paretoserve.domain.prediction import Prediction
from paretoserve.domain.tier import Tier
from paretoserve.latency.curve import tpot_ms

Figures = dict[str, Any]
IN_TIME = (Verdict.CHOSEN, Verdict.FEASIBLE, Verdict.LIKELY)
PLACED = (Outcome.PLACED, Outcome.SPILLED, Outcome.DEGRADED)


@dataclass(frozen=True, slots=True)
class Replayed:
    """What a replay left behind. `seconds` is from its first request to its last answer."""

    records: tuple[Record, ...]
    states: tuple[StateSample, ...]
    seconds: float
    restarts: Mapping[str, int]


def sweep_figures(plan: Plan, measured: Measured, deployment: Deployment) -> Figures:
    """What the sweep measured. `deployment` has the curves that were made of it."""
    return {
        "prompt_tokens": plan.sweep.prompt_tokens,
        "output_tokens": plan.sweep.output_tokens,
        "rounds": plan.sweep.rounds,
        "seconds": measured.seconds,
        "same_output_share": share_of(sum(measured.same_output), len(measured.same_output)),
        "profiles": [
            {
                "profile": profile.name,
                "engine": profile.engine,
                "points": [asdict(point) for point in points(measured.samples, profile.name)],
                "prefill_tokens_per_s": profile.curve.prefill_tokens_per_s,
                "prefill_ms": profile.curve.prefill_ms,
                "kv_ms_per_1k_tokens": profile.curve.kv_ms_per_1k_tokens,
                "acceptance_length": profile.curve.acceptance_length,
            }
            for profile in map(deployment.profile, plan.replay.profiles)
        ],
    }


def goal_figures(plan: Plan, measured: Measured) -> list[Figures]:
    """The two ratios that the picture should show, as measured."""
    fast, base = plan.replay.profiles
    least, largest = plan.sweep.batches[0], plan.sweep.batches[-1]
    return [
        _goal(
            f"{fast} over {base}: tokens/s/user with {least} stream",
            plan.goals.single_stream_speedup,
            ratios(measured, fast, base, least),
        ),
        _goal(
            f"{base} over {fast}: tokens/s with {largest} streams",
            plan.goals.full_batch_gain,
            ratios(measured, base, fast, largest),
        ),
    ]


def workload_figures(plan: Plan, pace: Pace, rows: int, requests: int) -> Figures:
    """How the trace became the replay."""
    return {
        "trace": plan.replay.trace.name,
        "trace_rows": rows,
        "requests": requests,
        "prompt_divisor": plan.replay.prompt_divisor,
        "output_divisor": plan.replay.output_divisor,
        "time_divisor": pace.time_divisor,
        "offered_load": pace.offered_load,
        "offered_load_of": plan.replay.base_profile,
        "requests_per_s": pace.requests_per_s,
        "output_tokens_per_s": pace.tokens_per_s,
        "seed": plan.seed,
        "clients": [client.model_dump(exclude={"key"}) for client in plan.clients],
    }


def replay_figures(plan: Plan, deployment: Deployment, replayed: Replayed) -> Figures:
    """What each tier got and what each profile did."""
    tiers = {tier.name: tier for tier in deployment.tiers}
    lags = [record.lag_ms for record in replayed.records]
    return {
        "seconds": replayed.seconds,
        "send_lag_p95_ms": percentile(lags, 0.95),
        "tiers": [
            _tier(tiers[name], replayed.records)
            for name in dict.fromkeys(client.tier for client in plan.clients)
        ],
        "profiles": [_profile(name, replayed) for name in plan.replay.profiles],
    }


def choice_figures(plan: Plan, deployment: Deployment, replayed: Replayed) -> Figures:
    """What the tiers that mostly ran on the fast profile would have got on the other one.

    Each request's decision holds the prediction for every candidate at the load that it found
    there. The load that it would have added itself to all others is not in it, so this flatters
    the profile that was not chosen.
    """
    fast, base = plan.replay.fast_profile, plan.replay.base_profile
    ran_on = Counter((r.job.client.tier, r.profile) for r in replayed.records)
    tiers = {t for (t, profile), n in ran_on.items() if profile == fast and n > ran_on[t, base]}
    chosen = [r for r in replayed.records if r.job.client.tier in tiers and r.profile == fast]
    other = [c for r in chosen if r.decision for c in r.decision.candidates if c.profile == base]
    predicted = [c.prediction for c in other if c.prediction]
    measured = [r.tpot_ms for r in chosen if r.tpot_ms is not None]
    batch = _mean([s.batch for s in replayed.states if s.profile == base and s.running])
    return {
        "tiers": sorted(tiers),
        "requests": len(chosen),
        "measured_tpot_p50_ms": percentile(measured, 0.5),
        "other_profile": base,
        "other_tpot_p50_ms": percentile([p.tpot_ms for p in predicted], 0.5),
        "other_tpot_p95_ms": percentile([p.tpot_ms for p in predicted], 0.95),
        "other_in_time_share": share_of(sum(c.verdict in IN_TIME for c in other), len(other)),
        "base_batch_mean": batch,
        "base_tpot_at_mean_ms": _tpot_at(deployment, base, batch),
        "fast_tpot_at_mean_ms": _tpot_at(deployment, fast, batch),
    }


def met_target(record: Record, tier: Tier) -> bool:
    """Whether a request was answered in full and within all targets of its tier."""
    return record.took is not None and tier.targets.met(record.took)


def _goal(text: str, target: float, by_round: list[float]) -> Figures:
    found = median(by_round)
    return {
        "goal": text,
        "target": target,
        "measured": found,
        "by_round": by_round,
        "met": found >= target,
    }


def _tier(tier: Tier, records: Sequence[Record]) -> Figures:
    own = [record for record in records if record.job.client.tier == tier.name]
    done = [record for record in own if record.fate is Fate.DONE]
    ttft = [record.ttft_ms for record in done if record.ttft_ms is not None]
    tpot = [record.tpot_ms for record in done if record.tpot_ms is not None]
    served = sorted({record.profile for record in own if record.profile})
    predicted = [p for record in done if (p := _predicted(record)) is not None]
    return {
        "tier": tier.name,
        "requests": len(own),
        **{str(fate): sum(r.fate is fate for r in own) for fate in Fate if fate != Fate.RUNNING},
        **{str(outcome): _decided(own, outcome) for outcome in PLACED},
        "profiles": [
            {"profile": name, "requests": sum(r.profile == name for r in own)} for name in served
        ],
        "ttft_target_ms": tier.ttft_ms,
        "ttft_p50_ms": percentile(ttft, 0.5),
        "ttft_p95_ms": percentile(ttft, 0.95),
        "ttft_predicted_p50_ms": percentile([p.ttft_ms for p in predicted], 0.5),
        "tpot_target_ms": tier.tpot_ms,
        "tpot_p50_ms": percentile(tpot, 0.5),
        "tpot_p95_ms": percentile(tpot, 0.95),
        "tpot_predicted_p50_ms": percentile([p.tpot_ms for p in predicted], 0.5),
        "attainment": share_of(sum(met_target(r, tier) for r in own), len(own)),
        "promised": tier.percentile,
    }


def _predicted(record: Record) -> Prediction | None:
    """What the router foresaw for the candidate that it chose."""
    if record.decision is None or record.decision.chosen is None:
        return None
    return record.decision.chosen.prediction


def _decided(records: Sequence[Record], outcome: Outcome) -> int:
    return sum(
        r.decision is not None and not r.explained_after and r.decision.outcome is outcome
        for r in records
    )


def _profile(name: str, replayed: Replayed) -> Figures:
    own = [record for record in replayed.records if record.profile == name]
    busy = [s for s in replayed.states if s.profile == name and s.running]
    seen = [s for s in replayed.states if s.profile == name]
    speeds = [1000 / record.tpot_ms for record in own if record.tpot_ms]
    return {
        "profile": name,
        "requests": len(own),
        "tokens": sum(record.completion_tokens for record in own),
        "tokens_per_s": sum(record.completion_tokens for record in own) / replayed.seconds,
        "tokens_per_s_busiest_second": _busiest_second(seen),
        "tokens_per_s_per_user": percentile(speeds, 0.5),
        "acceptance_length": _mean([state.acceptance_length for state in busy]),
        "batch_mean": _mean([state.batch for state in busy]),
        "batch_max": max((state.batch for state in busy), default=0),
        "gpu_seconds": sum(record.gpu_seconds for record in own),
        "restarts": replayed.restarts.get(name, 0),
    }


def _busiest_second(states: Sequence[StateSample]) -> float | None:
    """The most tokens that the executor's own counter rose by within one second of the watch."""
    at_end: dict[int, int] = {}
    for state in states:
        at_end[int(state.at_s)] = state.generated_tokens_total
    rises = [at_end[s + 1] - at_end[s] for s in at_end if s + 1 in at_end]
    return float(max(rises)) if rises else None


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _tpot_at(deployment: Deployment, profile: str, batch: float | None) -> float | None:
    if batch is None:
        return None
    return tpot_ms(deployment.profile(profile).curve, max(1, round(batch)))
