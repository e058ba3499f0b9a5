"""Conditions: what is refused and in which words, what a condition needs, what it is worth."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paretoserve.policy.expressions import Expression, ExpressionError, Facts, Failure


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("request.prompt_tokns > 3", "column 8: 'request.prompt_tokns' is not a fact; did you mean 'request.prompt_tokens'?"),
        ("tier.colour == 'red'", "'tier.colour' is not a fact; known are tier.name, tier.priority"),
        ("request == 1", "'request' is a group of facts; name one, such as request.model"),
        ("prompt_tokens > 3", "'prompt_tokens' is unknown; facts begin with request., tenant."),
        ("request.prompt_tokens > 1.5", "column 23: '>' does not work on int and double; write a whole number"),
        ("tenant.burn > 1", "column 13: '>' does not work on double and int; write a whole number"),
        ("tenant.name > 1", "'>' does not work on string and int"),
        ("fleet['a'].laod > 1.0", "'laod' is not known of a profile; did you mean 'load'?"),
        ("fleet['a'].load > 1", "'>' does not work on double and int"),
        ("fleet['a']", "gives a value of type facts.fleet; a condition is true or false"),
        ("tenant.name", "gives a value of type string; a condition is true or false"),
        ("tenant.burn >", "column 14: not valid CEL: mismatched input 'end'"),
        ("request.penalized and true", "column 19: not valid CEL: mismatched input 'and'"),
        ("request.penalized\n&& tier.priority > 'a'", "line 2, column 18: '>' does not work on int and string"),
        ("tier.nme == 'a' && tenant.nme == 'b'", "did you mean 'tier.name'?; column 26: 'tenant.nme' is not a fact"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_with_its_place(text: str, said: str) -> None:
    with pytest.raises(ExpressionError) as caught:
        Expression(text)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("text", "facts"),
    [
        ("true", []),
        ("tier.name == 'premium' && request.prompt_tokens > 9", ["request.prompt_tokens", "tier.name"]),
        ("request.output_tokens_high > 9.0", ["request.output_tokens_high"]),
        ("tenant.name in ['a', 'b']", ["tenant.name"]),
        ("['a', 'b'].exists(n, tier . name.startsWith(n))", ["tier.name"]),
    ],
)  # fmt: skip
def test_a_condition_knows_its_facts(text: str, facts: list[str]) -> None:
    expression = Expression(text)
    assert [fact.name for fact in expression.facts] == facts
    assert not expression.reads_fleet


def test_profiles_are_found_where_they_are_named_and_not_in_comments_or_text() -> None:
    expression = Expression(
        """fleet["min-latency"].load > 0.5 || fleet . wide.held > 3  // fleet["old"]
        || tenant.name == 'fleet["text"]' || fleet[tenant.name].load > 0.1"""
    )
    assert expression.reads_fleet
    assert expression.fleet_profiles == ("min-latency", "wide")


@pytest.mark.parametrize(
    ("text", "values", "worth"),
    [
        ("tenant.burn > 1.0", {"tenant.burn": 1.5}, True),
        ("tenant.burn > 1.0", {}, None),
        ("tenant.burn > 1.0 && false", {}, False),
        ("false && tenant.burn > 1.0", {}, False),
        ("tenant.burn > 1.0 || tier.name == 'a'", {"tier.name": "a"}, True),
        ("tier.ttft_ms > 1000.0", {"tier.ttft_ms": float("inf")}, True),
        ("8 / request.generated > 1", {"request.generated": 0}, Failure("divide by zero")),
        ("fleet['b'].held > 1", {"fleet": {"a": {"held": 2}}}, Failure('Key not found in map : "b"')),
        ("fleet['a'].held > 1", {"fleet": {"a": {"held": 2}}}, True),
        ("fleet.exists(p, fleet[p].load > 0.5)", {"fleet": {"a": {"load": 0.1}, "b": {"load": 0.6}}}, True),
        ("'b' in fleet && fleet['b'].held > 1", {"fleet": {}}, False),
    ],
)  # fmt: skip
def test_worth(text: str, values: dict[str, object], worth: object) -> None:
    assert Expression(text).evaluate(Facts(values)) == worth  # type: ignore[arg-type]


JANE = "jane.doe@example.org (["


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("fleet[session.id].held > 1", "a key is not there"),
        ("1 / request.generated > 1", "division by zero"),
        ("1 % request.generated > 1", "division by zero"),
        ("[1, 2][request.max_tokens] > 1", "an index is beyond its list"),
        ("session.id.matches(session.id)", "a regular expression is not valid"),
        ("dyn(session.id) > 1", "types do not go together"),
        ("int(session.id) > 1", "a value cannot be converted"),
        ("bool(session.id)", "a value cannot be converted"),
        ("timestamp(session.id) > timestamp('2020-01-01T00:00:00Z')", "a value cannot be converted"),
        ("request.max_tokens * 9223372036854775807 > 1", "a number is out of range"),
        ("int(tenant.burn) > 1", "a number is out of range"),
    ],
)  # fmt: skip
def test_a_failures_kind_is_told_without_the_value_that_failed(text: str, kind: str) -> None:
    facts = {
        "session.id": JANE,
        "request.generated": 0,
        "request.max_tokens": 9,
        "tenant.burn": 1e300,
        "fleet": {"a": {"held": 2}},
    }
    failure = Expression(text).evaluate(Facts(facts))
    assert isinstance(failure, Failure)
    assert failure.kind == kind


def test_a_failure_of_no_known_kind_is_told_without_its_message() -> None:
    assert Failure(f"something new about {JANE}").kind == "its condition has no value"


NAMES = st.sampled_from(["tenant.weight", "tenant.burn", "tier.ttft_ms"])
LEAVES = st.builds(
    lambda name, operator, number: f"{name} {operator} {number}.0",
    NAMES,
    st.sampled_from(["<", ">=", "=="]),
    st.integers(0, 3),
)
CONDITIONS = st.recursive(
    LEAVES | st.sampled_from(["true", "1 / 0 == 1"]),
    lambda inner: (
        st.builds(
            lambda a, operator, b: f"({a}) {operator} ({b})",
            inner,
            st.sampled_from(["&&", "||"]),
            inner,
        )
        | inner.map(lambda a: f"!({a})")
    ),
    max_leaves=6,
)


@given(CONDITIONS, st.fixed_dictionaries({}, optional=dict.fromkeys(["tenant.weight", "tenant.burn", "tier.ttft_ms"], st.floats(0, 3))))  # fmt: skip
def test_what_is_true_of_some_facts_stays_so_whatever_the_others_are(
    text: str, some: dict[str, float]
) -> None:
    """What lets `policy check` say that a condition always or never holds."""
    expression = Expression(text)
    known = expression.evaluate(Facts(some))
    if isinstance(known, bool):
        for other in (0.0, 1.0, 2.5):
            rest = dict.fromkeys(["tenant.weight", "tenant.burn", "tier.ttft_ms"], other)
            assert expression.evaluate(Facts(rest | some)) is known
