"""Rules applied: order, what is remembered, and conditions that fail."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.decisions import PROFILES, Draws
from tests.unit.policy.test_facts import case

from paretoserve.domain.policy import Rule
from paretoserve.domain.replica import Health, ReplicaState, Snapshot
from paretoserve.domain.request import Request
from paretoserve.policy.directives import (
    NO_DIRECTIVES,
    InvalidRules,
    Rulebook,
    RuleError,
    Said,
    combine,
)

NAMES = ("a", "b", "c")
REQUEST = Request("r", "m", "acme", "premium", 100, 100)
EMPTY = Snapshot((), 0.0)


def rule(name: str, when: str = "true", **does: Any) -> Rule:
    return Rule.model_validate({"name": name, "when": when, **does})


@pytest.mark.parametrize(
    ("rules", "said"),
    [
        ([rule("r", allow=["a"])], {"b": Said("r"), "c": Said("r")}),
        ([rule("r", forbid=["a"])], {"a": Said("r")}),
        ([rule("r", forbid=["elsewhere"])], {}),
        ([rule("r", forbid=["a"]), rule("s", allow=["a"])], {"a": Said("r"), "b": Said("s"), "c": Said("s")}),
        ([rule("r", prefer=["b", "a"])], {"b": Said(rank=-2, preferred_by="r"), "a": Said(rank=-1, preferred_by="r")}),
        ([rule("r", prefer=["a"]), rule("s", prefer=["b"])], {"a": Said(rank=-1, preferred_by="r"), "b": Said(rank=-2, preferred_by="s")}),
        ([rule("r", prefer=["a"]), rule("s", prefer=["b", "a"])], {"a": Said(rank=-2, preferred_by="s"), "b": Said(rank=-3, preferred_by="s")}),
        ([rule("r", weigh={"a": 2}), rule("s", weigh={"a": 0.25})], {"a": Said(weight=0.5, weighed_by=("r", "s"))}),
    ],
)  # fmt: skip
def test_what_rules_say_together(rules: list[Rule], said: dict[str, Said]) -> None:
    directives = combine(rules, NAMES)
    assert directives.profiles == said
    assert directives.applied == tuple(rule.name for rule in rules)
    assert all(directives.of(name) == said.get(name, Said()) for name in NAMES)


def test_without_rules_all_requests_share_one_answer() -> None:
    assert Rulebook((), PROFILES).apply(case(REQUEST), EMPTY) is NO_DIRECTIVES


def test_a_rule_applies_where_its_condition_holds() -> None:
    book = Rulebook(
        [
            rule("long", "request.prompt_tokens > 1000", forbid=["fast"]),
            rule("acme", "tenant.name == 'acme'", prefer=["slow"]),
            rule("busy", "fleet['fast'].load > 0.5", weigh={"fast": 3}),
        ],
        PROFILES,
    )
    busy = Snapshot((ReplicaState("x", "fast", "", Health.SERVING, running=30),), 0.0)
    assert book.apply(case(REQUEST), EMPTY).applied == (
        "acme",
        "busy",
    )  # none serves: infinite load
    assert book.apply(case(replace(REQUEST, tenant="borealis")), busy).applied == ("busy",)
    assert book.apply(case(replace(REQUEST, prompt_tokens=2000)), busy).of("fast") == Said(
        forbidden_by="long", weight=3, weighed_by=("busy",)
    )


def test_a_condition_without_a_value_does_not_apply_and_is_told() -> None:
    book = Rulebook(
        [
            rule("odd", "fleet[tenant.name].load > 0.1", forbid=["fast"]),
            rule("zero", "1 / request.generated > 0", forbid=["fast"]),
            rule("never", "1 / 0 == 1", forbid=["fast"]),
            rule("fine", prefer=["slow"]),
        ],
        PROFILES,
    )
    for _ in range(2):
        directives = book.apply(case(REQUEST), EMPTY)
        assert directives.applied == ("fine",)
        assert directives.errors == (
            RuleError("odd", "a key is not there"),
            RuleError("zero", "division by zero"),
            RuleError("never", "division by zero"),
        )


def test_every_bad_rule_is_named() -> None:
    rules = [rule("one", "tier.nme == 'a'", forbid=["a"]), rule("ok", forbid=["a"]), rule("two", "1", forbid=["a"])]  # fmt: skip
    with pytest.raises(InvalidRules) as caught:
        Rulebook(rules, PROFILES)
    first, second = str(caught.value).splitlines()
    assert first.startswith("rule one: when: column 5: 'tier.nme' is not a fact")
    assert second.startswith("rule two: when: gives a value of type int")


RULES = st.lists(
    st.builds(
        lambda when, does: (when, does),
        st.sampled_from(
            [
                "true",
                "tier.name == 'premium'",
                "request.penalized",
                "request.prompt_tokens > 4000",
                "tenant.burn > 1.0",
                "fleet['fast'].held > 40",
                "1 / request.generated == 1",
            ]
        ),
        st.sampled_from(
            [
                {"allow": ["fast"]},
                {"forbid": ["slow"]},
                {"prefer": ["slow"]},
                {"weigh": {"fast": 2}},
            ]
        ),
    ),
    max_size=5,
)


@given(RULES, st.integers(0, 1000))
def test_remembering_changes_nothing(pairs: list[tuple[str, dict[str, Any]]], seed: int) -> None:
    rules = [rule(f"r{at}", when, **does) for at, (when, does) in enumerate(pairs)]
    book, draws = Rulebook(rules, PROFILES), Draws(random.Random(seed))
    for _ in range(5):
        snapshot = draws.snapshot(3)
        about = case(draws.request(snapshot))
        assert book.apply(about, snapshot) == Rulebook(rules, PROFILES).apply(about, snapshot)
