"""Two policies on the same simulated requests, paired request by request."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import NamedTuple

from paretoserve.app.difference import Pair, Side, describe
from paretoserve.domain.decision import Decision
from paretoserve.domain.policy import PolicyDocument
from paretoserve.domain.replica import Snapshot
from paretoserve.domain.request import Request
from paretoserve.domain.tenant import Tenant
from paretoserve.policy.protocols import Decides
from paretoserve.policy.redecide import REFUSED
from paretoserve.sim.contenders import Setting, contend, of_policy
from paretoserve.sim.records import Record
from paretoserve.sim.workload import Workload

UNFINISHED = "(unfinished)"


class _Note(NamedTuple):
    request: Request
    reason: str


class _Noting:
    """A policy that notes of each request why it was first placed, or refused."""

    def __init__(self, policy: Decides, notes: dict[str, _Note]) -> None:
        self._policy = policy
        self._notes = notes

    @property
    def document(self) -> PolicyDocument:
        return self._policy.document

    def decide(self, request: Request, tenant: Tenant, snapshot: Snapshot, now: float) -> Decision:
        decision = self._policy.decide(request, tenant, snapshot, now)
        if decision.hold_s is None and request.request_id not in self._notes:
            self._notes[request.request_id] = _Note(request, decision.reason)
        return decision


def simulated(
    a: PolicyDocument, b: PolicyDocument, setting: Setting, workload: Workload
) -> Iterator[Pair]:
    """Each request of the workload under both policies, as the simulator played it out.

    What differs is not only decided differently: a policy also meets the load that it made.
    """
    (notes, ours), (others, theirs) = (_play(document, setting, workload) for document in (a, b))
    for request_id, record in ours.items():
        other = theirs[request_id]
        note = notes.get(request_id)
        yield Pair(
            record.tier,
            record.tenant,
            describe(note.request) if note else f"{record.prompt_tokens} prompt tokens",
            _side(record, note),
            _side(other, others.get(request_id)),
        )


def _play(
    document: PolicyDocument, setting: Setting, workload: Workload
) -> tuple[dict[str, _Note], Mapping[str, Record]]:
    notes: dict[str, _Note] = {}
    contender = of_policy(document.version, document, setting)
    noting = replace(contender, policy=lambda: _Noting(contender.policy(), notes))
    run = contend(noting, setting, workload)
    return notes, {record.request_id: record for record in run.records}


def _side(record: Record, note: _Note | None) -> Side:
    reason = note.reason if note else f"refused without a decision: {record.refused}"
    spent = sum(record.gpu_seconds_by_profile.values())
    return Side(_place(record), reason, spent, float(record.met))


def _place(record: Record) -> str:
    """Where it began, and where it ended if it was moved."""
    if record.refused:
        return REFUSED
    if not record.first_profile:
        return UNFINISHED
    moved = record.profile != record.first_profile
    return f"{record.first_profile} then {record.profile}" if moved else record.first_profile
