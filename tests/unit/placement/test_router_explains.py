"""What is explained is what would happen, and leaves no trace."""

from __future__ import annotations

from typing import Any

import pytest
from tests.support.routing import ACME, NOW, document, request, tenant
from tests.unit.placement.test_router import FAST, TIERS, WIDE, World, full_of_premium

from paretoserve.domain.decision import Decision, Outcome
from paretoserve.domain.policy import PolicyDocument
from paretoserve.domain.tenant import Contract, Quota, Tenant
from paretoserve.placement.router import Answer, Held, Refused
from paretoserve.policy.policy import Policy
from paretoserve.policy.rollout import News, Progress, Shadowed, Trial
from paretoserve.telemetry.decision_memory import DecisionMemory

SMALL = {name: Contract(gpu_seconds_per_s=0.1, burst_s=1) for name in ("premium", "strict")}
CONTRACTED = tenant("acme", contracts=SMALL)
ONE_AT_A_TIME = tenant(quota=Quota(max_in_flight=1))
POOR = tenant(quota=Quota(gpu_seconds_per_minute=0.1))
FULL = ["strict", "strict"]
"""What the fast replica admits."""


def in_agreement(told: Decision, answer: Answer) -> None:
    if answer.decision is not None and not (isinstance(answer, Refused) and answer.error):
        assert told == answer.decision
    elif isinstance(answer, Refused):
        assert (told.outcome, told.chosen) == (Outcome.REJECTED, None)
    else:
        assert isinstance(answer, Held)
        assert (told.outcome, told.rule) == (Outcome.HELD, "queue")
    assert (told.tier, told.in_contract) == (answer.request.tier, answer.request.in_contract)


@pytest.mark.parametrize(
    ("tier", "before", "room", "of", "outcome", "rule", "served_as"),
    [
        ("premium", [], 9, ACME, Outcome.PLACED, "confident", "premium"),
        ("premium", ["premium"], 9, CONTRACTED, Outcome.PLACED, "confident", "standard"),
        ("strict", ["strict"], 9, CONTRACTED, Outcome.REJECTED, "contract", "strict"),
        ("premium", ["premium"], 9, ONE_AT_A_TIME, Outcome.REJECTED, "quota", "premium"),
        ("premium", ["premium"], 9, POOR, Outcome.REJECTED, "quota", "premium"),
        ("premium", FULL, 9, ACME, Outcome.HELD, "hold", "premium"),
        ("premium", [*FULL, "premium"], 9, ACME, Outcome.HELD, "queue", "premium"),
        ("premium", [*FULL, "premium"], 1, ACME, Outcome.REJECTED, "queue", "premium"),
        ("premium", [*FULL, "strict"], 1, ACME, Outcome.REJECTED, "queue", "premium"),
        ("strict", [*FULL, "premium"], 1, ACME, Outcome.HELD, "hold", "strict"),
    ],
)
def test_it_is_what_the_next_request_gets(
    tier: str,
    before: list[str],
    room: int,
    of: Tenant,
    outcome: Outcome,
    rule: str,
    served_as: str,
) -> None:
    world = World(room=room)
    for number, name in enumerate(before):
        world.arrive(name, f"before {number}", of=of)
    for _ in range(3):
        told = world.router.explain(request(tier, "r"), of, NOW)
    assert (told.outcome, told.rule, told.tier) == (outcome, rule, served_as)
    assert world.ledger.in_flight("acme") == len(before)
    answer = world.arrive(tier, "r", of=of)
    in_agreement(told, answer)
    if isinstance(answer, Refused) and rule in ("contract", "quota"):
        assert answer.error is not None
        assert (told.reason, told.retry_after_s) == (
            answer.error.message,
            answer.error.retry_after_s,
        )


def test_it_counts_from_when_its_call_came() -> None:
    world = World()
    told = world.router.explain(request("premium", "r"), ACME, NOW, NOW - 0.25)
    in_agreement(told, world.router.arrive(request("premium", "r"), ACME, NOW, NOW - 0.25))
    world = full_of_premium()
    world.arrive("premium", "c")
    told = world.router.explain(request("premium", "r"), ACME, NOW, NOW - 0.1)
    assert told.hold_s == pytest.approx(0.7 * (0.3 - 0.1))


# Nobody takes note.


class Broken:
    """A candidate that raises."""

    document: PolicyDocument = document()

    def decide(self, *_: Any) -> Decision:
        raise ZeroDivisionError


def test_neither_a_shadow_nor_the_decision_log_takes_note() -> None:
    news: list[News] = []
    live = Policy(document(), TIERS, (FAST, WIDE))
    progress = Progress()
    for candidate in (live, Broken()):
        shadowed = Shadowed(live, Trial(candidate, progress, news.append), 1.0)
        memory = DecisionMemory(shadowed)
        world = World()
        world.router.reconfigure(memory, TIERS, (FAST, WIDE))
        told = world.router.explain(request("premium", "r"), ACME, NOW)
        assert told.outcome is Outcome.PLACED
        assert (news, memory.take("r"), progress.failures) == ([], None, 0)
    in_agreement(told, world.arrive("premium", "r"))
    assert memory.take("r") is not None
    assert len(news) == 1
