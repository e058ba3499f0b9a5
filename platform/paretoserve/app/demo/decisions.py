"""Which of a replay's decisions explain most, and what they look like. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from paretoserve.app.demo.replay import Record
from paretoserve.domain.decision import Outcome, Verdict
from paretoserve.sdk import Decision
from paretoserve.wire.decisions import decision_to_dict

HOW_MANY = 3
_PASSED_OVER = (
    Verdict.LATE_TTFT,
    Verdict.LATE_TPOT,
    Verdict.LATE_E2E,
    Verdict.FULL,
    Verdict.CROWDS,
    Verdict.RESERVED,
)


@dataclass(frozen=True, slots=True)
class Explained:
    """A decision worth reading, and why it was picked."""

    title: str
    record: Record
    decision: Decision

    def figures(self) -> dict[str, Any]:
        """For results.json."""
        job = self.record.job
        return {
            "title": self.title,
            "tier": job.client.tier,
            "tenant": job.client.tenant,
            "at_s": job.at_s,
            "prompt_tokens": job.prompt_tokens,
            "max_tokens": job.max_tokens,
            "explained_after": self.record.explained_after,
            "decision": decision_to_dict(self.decision),
        }


def instructive(records: Sequence[Record]) -> tuple[Explained, ...]:
    """Three decisions: one placed in time, a spilled one, a rejected one.

    Where a kind did not occur, the most instructive other ones: those where most candidates were
    passed over, of tiers that are not shown yet.
    """
    known = [(r, r.decision) for r in records if r.decision is not None]
    shown: list[Explained] = []
    for title, wanted in _KINDS:
        if len(shown) == HOW_MANY:
            break
        fitting = [
            Explained(title, record, decision)
            for record, decision in known
            if wanted(decision) and all(record is not one.record for one in shown)
        ]
        fresh = [e for e in fitting if all(_tier(e) != _tier(one) for one in shown)]
        if fitting:
            shown.append(max(fresh or fitting, key=_lesson))
    return tuple(shown)


def render(explained: Sequence[Explained]) -> str:
    """The decisions as text: title, then the table of all candidates."""
    return "\n\n".join(_lines(number, one) for number, one in enumerate(explained, start=1))


def _lines(number: int, one: Explained) -> str:
    job = one.record.job
    asked = (
        f"{job.client.tenant} ({job.client.tier}) asks for {job.max_tokens} tokens after a prompt "
        f"of {job.prompt_tokens}, {job.at_s:.1f} s into the replay"
    )
    again = (
        "\n  what `explain` said right after the rejection:" if one.record.explained_after else ""
    )
    return f"{number}. {one.title}: {asked}{again}\n\n{_indented(one.decision.table())}"


def _indented(text: str) -> str:
    return "\n".join(f"   {line}".rstrip() for line in text.splitlines())


def _tier(one: Explained) -> str:
    return one.record.job.client.tier


def _lesson(one: Explained) -> tuple[int, float]:
    """How much a decision shows: candidates passed over, then how loaded the fleet was."""
    passed = sum(candidate.verdict in _PASSED_OVER for candidate in one.decision.candidates)
    return passed, max(_loads(one.decision), default=0.0)


def _loads(decision: Decision) -> Iterator[float]:
    for candidate in decision.candidates:
        if candidate.prediction is not None:
            yield candidate.prediction.tpot_ms


def _is(*outcomes: Outcome) -> Callable[[Decision], bool]:
    return lambda decision: decision.outcome in outcomes


_KINDS: tuple[tuple[str, Callable[[Decision], bool]], ...] = (
    ("Placed", _is(Outcome.PLACED)),
    ("Spilled", _is(Outcome.SPILLED)),
    ("Rejected", _is(Outcome.REJECTED)),
    ("Taken although late", _is(Outcome.DEGRADED)),
    ("Placed", _is(Outcome.PLACED)),
    ("Placed", _is(Outcome.PLACED)),
)
