"""From a run's records to its figures: what each tier, tenant and profile got. Pure."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from paretoserve.sim.records import Record, Run
from paretoserve.sim.statistics import Quantiles, Share, quantiles

THOUSAND = 1000
K = TypeVar("K", str, tuple[str, str])


@dataclass(frozen=True, slots=True)
class Attainment:
    """Requests that met the targets of the tier that they asked for; a refused one missed.

    `in_contract` are those that their tenant's contract covered: what the SLA is about.
    """

    all: Share
    in_contract: Share

    @property
    def over_contract(self) -> Share:
        return Share(self.all.met - self.in_contract.met, self.all.total - self.in_contract.total)


@dataclass(frozen=True, slots=True)
class TierSummary:
    """One tier of one run. Milliseconds and GPU-seconds.

    Percentiles are of the requests that have the figure: a refused one has none, a single token
    has no TPOT. `profiles` and `first_profiles` are requests by the profile where they ended and
    began; `gpu_seconds_by_profile` counts the work of moved requests where it was done.
    `refusals` are by the reason word, `held_ms` of those that were held at all.
    """

    tier: str
    attainment: Attainment
    ttft_ms: Quantiles | None
    tpot_ms: Quantiles | None
    e2e_ms: Quantiles | None
    held_ms: Quantiles | None
    profiles: Mapping[str, int]
    first_profiles: Mapping[str, int]
    served_as: Mapping[str, int]
    gpu_seconds_by_profile: Mapping[str, float]
    refusals: Mapping[str, int]
    ended: Share
    """Of the in-contract requests, those that had ended when the run did."""
    unfinished: int
    """Placed, and not ended by then."""
    moves: int
    moved: int
    """Requests that were moved at least once."""
    failovers: int
    """Moves because a replica failed; the others are because the request would be late."""
    held_placed: int
    """Of the requests that were held, those that were placed later."""
    output_tokens: int

    @property
    def gpu_seconds(self) -> float:
        return math.fsum(self.gpu_seconds_by_profile.values())

    @property
    def gpu_seconds_per_1000_met(self) -> float | None:
        return per_1000_met(self.gpu_seconds, self.attainment.all.met)


@dataclass(frozen=True, slots=True)
class Summary:
    """One run's figures. Rates are requests per second; `rules` is decisions by the step that
    placed or refused, `held_rules` those of requests that were held first. `stopped_early`: the run
    was given up, and its figures are of a part of it.
    """

    policy: str
    policy_version: str
    seed: int
    load: float
    offered_rate: float
    duration_s: float
    replicas: Mapping[str, int]
    gpus: float
    """All that the fleet has."""
    requests: int
    goodput: float
    tiers: Mapping[str, TierSummary]
    tenants: Mapping[tuple[str, str], Attainment]
    """By tenant and tier."""
    rules: Mapping[str, int]
    held_rules: Mapping[str, int]
    refusals: Mapping[str, int]
    moves: int
    gpu_seconds: float
    gpu_seconds_per_1000_met: float | None
    wall_s: float
    decisions: int
    stopped_early: bool

    @property
    def worst(self) -> tuple[str, float] | None:
        """The tier with the least in-contract attainment, and that; None without any request.

        In a run that was given up: of the requests that had ended by then, and the tier that was
        surest to be bad, for some had hardly any.
        """
        ranked = [
            (interval.high if self.stopped_early else interval.value, name, interval.value)
            for name, tier in self.tiers.items()
            if (interval := self._judged(tier).interval) is not None
        ]
        least = min(ranked, default=None)
        return None if least is None else least[1:]

    def _judged(self, tier: TierSummary) -> Share:
        return tier.ended if self.stopped_early else tier.attainment.in_contract

    def attains(self, goal: float) -> bool:
        """Whether every tier's in-contract requests reached `goal` (0..1) in a run to the end."""
        worst = self.worst
        return not self.stopped_early and worst is not None and worst[1] >= goal


def summarize(run: Run) -> Summary:
    """Every figure of a run. Tiers and tenants come in the order of their names."""
    records = run.records
    met = sum(record.met for record in records)
    spent = math.fsum(
        seconds for record in records for seconds in record.gpu_seconds_by_profile.values()
    )
    return Summary(
        policy=run.policy,
        policy_version=run.policy_version,
        seed=run.seed,
        load=run.load,
        offered_rate=_offered(run),
        duration_s=run.duration_s,
        replicas=dict(run.replicas),
        gpus=math.fsum(count * run.gpus[profile] for profile, count in run.replicas.items()),
        requests=len(records),
        goodput=met / run.duration_s if run.duration_s else 0.0,
        tiers={
            tier: _tier(tier, own) for tier, own in _groups(records, lambda record: record.tier)
        },
        tenants={
            key: _attainment(own)
            for key, own in _groups(records, lambda record: (record.tenant, record.tier))
        },
        rules=_counts(record.rule for record in records),
        held_rules=_counts(record.rule for record in records if record.held_ms > 0),
        refusals=_counts(record.refused for record in records),
        moves=sum(record.moves for record in records),
        gpu_seconds=spent,
        gpu_seconds_per_1000_met=per_1000_met(spent, met),
        wall_s=run.wall_s,
        decisions=run.decisions,
        stopped_early=run.stopped_early,
    )


def _offered(run: Run) -> float:
    """Requests per second of those that were judged; of a part of them nothing follows."""
    if run.stopped_early or not run.duration_s:
        return run.offered_rate
    return len(run.records) / run.duration_s


def per_1000_met(gpu_seconds: float, met: int) -> float | None:
    """What 1,000 requests that met their SLA cost, the work for the others included."""
    return THOUSAND * gpu_seconds / met if met else None


def _tier(name: str, records: Sequence[Record]) -> TierSummary:
    spent: defaultdict[str, float] = defaultdict(float)
    for record in records:
        for profile, seconds in record.gpu_seconds_by_profile.items():
            spent[profile] += seconds
    return TierSummary(
        tier=name,
        attainment=_attainment(records),
        ttft_ms=quantiles([r.ttft_ms for r in records if r.ttft_ms is not None]),
        tpot_ms=quantiles([r.tpot_ms for r in records if r.tpot_ms is not None]),
        e2e_ms=quantiles([r.e2e_ms for r in records if r.e2e_ms is not None]),
        held_ms=quantiles([r.held_ms for r in records if r.held_ms > 0]),
        profiles=_counts(record.profile for record in records),
        first_profiles=_counts(record.first_profile for record in records),
        served_as=_counts(record.served_tier for record in records),
        gpu_seconds_by_profile=dict(sorted(spent.items())),
        refusals=_counts(record.refused for record in records),
        ended=_share([r for r in records if r.in_contract and _ended(r)]),
        unfinished=sum(not _ended(record) for record in records),
        moves=sum(record.moves for record in records),
        moved=sum(record.moves > 0 for record in records),
        failovers=sum(record.failovers for record in records),
        held_placed=sum(record.held_ms > 0 and bool(record.first_profile) for record in records),
        output_tokens=sum(record.output_tokens for record in records),
    )


def _ended(record: Record) -> bool:
    return bool(record.refused) or record.e2e_ms is not None


def _attainment(records: Sequence[Record]) -> Attainment:
    covered = [record for record in records if record.in_contract]
    return Attainment(_share(records), _share(covered))


def _share(records: Sequence[Record]) -> Share:
    return Share(sum(record.met for record in records), len(records))


def _groups(records: Iterable[Record], key: Callable[[Record], K]) -> list[tuple[K, list[Record]]]:
    groups: dict[K, list[Record]] = {}
    for record in records:
        groups.setdefault(key(record), []).append(record)
    return sorted(groups.items())


def _counts(words: Iterable[str]) -> dict[str, int]:
    """How often each word occurs, the most frequent first; the empty word is not one."""
    counts = Counter(word for word in words if word)
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))
