"""The rules of a policy document in its decisions: what they do, and when they are said to decide."""

from __future__ import annotations

import pytest
from tests.support.routing import ACME, NOW, fleet, policy, request, state

from paretoserve.domain.decision import Decision, Outcome, Verdict
from paretoserve.domain.policy import Rule

IDLE = fleet(state("fast-0"), state("wide-0"))


def decide(*rules: Rule, **asked: object) -> Decision:
    """Standard's request in an idle fleet: without rules it is given to wide."""
    return policy(rules=rules).decide(request(**asked), ACME, IDLE, NOW)


@pytest.mark.parametrize(
    ("rules", "profile", "decided", "reason"),
    [
        ((), "wide", "confident", "wide is the cheapest that is in time for tier standard"),
        (
            (Rule(name="a", prefer=("fast",)),),
            "fast",
            "a",
            "rule 'a' prefers fast, which is in time for tier standard",
        ),
        (
            (Rule(name="a", prefer=("fast",)), Rule(name="b", prefer=("wide",))),
            "wide",
            "b",
            "rule 'b' prefers wide, which is in time for tier standard",
        ),
        (
            (Rule(name="a", forbid=("wide",)),),
            "fast",
            "a",
            "rule 'a' leaves only fast, which is in time for tier standard",
        ),
        (
            (Rule(name="a", allow=("fast",)),),
            "fast",
            "a",
            "rule 'a' leaves only fast, which is in time for tier standard",
        ),
        (
            (Rule(name="a", weigh={"wide": 1000}),),
            "fast",
            "confident",
            "fast is the cheapest that is in time for tier standard",
        ),
        (
            (Rule(name="a", weigh={"fast": 0.001}), Rule(name="b", weigh={"fast": 0.5})),
            "fast",
            "confident",
            "fast is the cheapest that is in time for tier standard, as rules 'a' and 'b' weigh it",
        ),
        (
            (Rule(name="a", when="request.prompt_tokens < 10", prefer=("fast",)),),
            "wide",
            "confident",
            "wide is the cheapest that is in time for tier standard",
        ),
    ],
)
def test_what_rules_do_and_who_decided(
    rules: tuple[Rule, ...], profile: str, decided: str, reason: str
) -> None:
    decision = decide(*rules)
    assert decision.chosen is not None
    assert (decision.chosen.profile, decision.rule, decision.reason) == (profile, decided, reason)


def test_where_no_profile_is_left_the_rule_refuses() -> None:
    decision = decide(Rule(name="a", forbid=("wide",)), Rule(name="b", forbid=("wide", "fast")))
    assert (decision.outcome, decision.reason) == (Outcome.REJECTED, "rule 'a' leaves no profile")
    assert {(c.profile, c.verdict, c.detail) for c in decision.candidates} == {
        ("wide", Verdict.FORBIDDEN, "rule 'a' forbids it"),
        ("fast", Verdict.FORBIDDEN, "rule 'b' forbids it"),
    }


def test_a_preferred_profile_that_is_late_decides_nothing() -> None:
    decision = decide(Rule(name="a", prefer=("wide",)), tier="premium")
    assert decision.chosen is not None
    assert (decision.chosen.profile, decision.rule) == ("fast", "confident")


def test_weights_multiply_prices() -> None:
    weighed = decide(Rule(name="a", weigh={"wide": 2}), Rule(name="b", weigh={"wide": 3}))
    (plain,) = [c.price for c in decide().candidates if c.profile == "wide"]
    assert [c.price for c in weighed.candidates if c.profile == "wide"] == pytest.approx(
        [6 * plain]
    )


def test_a_rule_without_a_value_is_told_of_and_does_nothing() -> None:
    decision = decide(Rule(name="a", when="1 / request.generated > 0", prefer=("fast",)))
    assert decision.chosen is not None
    assert (decision.chosen.profile, decision.rule) == ("wide", "confident")
    assert decision.rule_errors == ("a",)
    assert "; rule 'a' did not apply: " in decision.reason
    assert decide().rule_errors == ()
