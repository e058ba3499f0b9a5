"""A candidate policy in the shadow of the live one, and as a canary that may be rolled back."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.decided import decided, prediction
from tests.support.policy_tables import fields, table

from paretoserve.domain.decision import Candidate, Decision, Outcome, Verdict
from paretoserve.domain.document import Document
from paretoserve.domain.policy import PolicyDocument
from paretoserve.domain.replica import Snapshot
from paretoserve.domain.request import Request
from paretoserve.domain.rollout import Rollback, Rollout
from paretoserve.domain.tenant import Tenant
from paretoserve.policy.comparison import Comparison, Contrast, Tally, summary
from paretoserve.policy.protocols import preview
from paretoserve.policy.rollback import (
    Burned,
    Counts,
    binomial,
    hypergeometric,
    judge,
    window_at,
)
from paretoserve.policy.rollout import (
    JUDGE_EVERY_S,
    MOST_FAILURES,
    Canary,
    Failed,
    News,
    Progress,
    RolledBack,
    Shadowed,
    Share,
    Trial,
)

NOWHERE = Snapshot((), 0.0)
names = st.text(min_size=1, max_size=20)


def placed(profile: str, replica: str = "r0", **fields: object) -> Decision:
    chosen = Candidate(profile, replica, Verdict.CHOSEN, "", prediction(100, 2, high=1.5, cost=3))
    return decided(Outcome.PLACED, chosen, **fields)


HELD = decided(Outcome.HELD, hold_s=1.0)
REJECTED = decided(Outcome.REJECTED)


@dataclass
class Scripted:
    """Decides as it is told, or raises what it is told; remembers what it was asked."""

    version: str
    answer: Decision | Exception
    asked: list[str] = field(default_factory=list)

    @property
    def document(self) -> PolicyDocument:
        return PolicyDocument(version=self.version)

    def decide(self, request: Request, tenant: Tenant, snapshot: Snapshot, now: float) -> Decision:
        self.asked.append(request.request_id)
        if isinstance(self.answer, Exception):
            raise self.answer
        return replace(self.answer, request_id=request.request_id, policy_version=self.version)


def request(request_id: str = "r", tenant: str = "acme", **changes: object) -> Request:
    asked = Request(request_id, "m", tenant, "premium", prompt_tokens=9, max_tokens=9)
    return replace(asked, **changes)


def tenant(name: str = "acme") -> Tenant:
    return Tenant(name=name, key_hashes=("sha256:" + "0" * 64,), tiers=("premium",))


class Stage:
    """Two scripted policies, and what was told of the second."""

    def __init__(self, live: Decision, candidate: Decision | Exception) -> None:
        self.live, self.candidate = Scripted("1", live), Scripted("2", candidate)
        self.news: list[News] = []
        self.progress = Progress()
        self.trial = Trial(self.candidate, self.progress, self.news.append)

    def shadowed(self, sample: float = 1.0) -> Shadowed:
        return Shadowed(self.live, self.trial, sample)

    def canary(
        self, *tenants: str, judge: Callable[[float, float], Burned | None] = lambda age, now: None
    ) -> Canary:
        return Canary(self.live, self.trial, Share(0.0, tenants), judge)

    @property
    def comparison(self) -> Comparison:
        (found,) = self.news
        assert isinstance(found, Comparison)
        return found


# Shares of tenants.


@given(names, st.floats(0, 1), st.floats(0, 1), st.text(max_size=5))
def test_a_tenants_side_is_stable_and_a_larger_share_keeps_those_of_a_smaller(
    name: str, one: float, two: float, salt: str
) -> None:
    small, large = Share(min(one, two), salt=salt), Share(max(one, two), salt=salt)
    assert small(name) == small(name) == Share(min(one, two), salt=salt)(name)
    assert large(name) or not small(name)
    assert Share(1.0, salt=salt)(name)
    assert not Share(0.0, salt=salt)(name)
    assert Share(0.0, [name], salt)(name)


@settings(max_examples=25)
@given(st.sampled_from([0.01, 0.1, 0.5, 0.9]), st.integers(0, 10**9))
def test_shares_converge_and_salts_choose_anew(share: float, salt: int) -> None:
    tenants = [f"tenant-{number}" for number in range(1000)]
    taken = {name for name in tenants if Share(share, salt=str(salt))(name)}
    other = {name for name in tenants if Share(share, salt=str(salt + 1))(name)}
    spread = 5 * math.sqrt(1000 * share * (1 - share))
    assert abs(len(taken) - 1000 * share) < spread
    assert abs(len(taken & other) - 1000 * share**2) < spread


# Shadow.


@given(
    st.sampled_from([placed("fast"), HELD, REJECTED]),
    st.sampled_from([placed("wide"), HELD, REJECTED, KeyError("gold")]),
    st.lists(names, unique=True, max_size=40),
)
def test_a_shadow_never_changes_what_is_decided(
    live: Decision, candidate: Decision | Exception, ids: list[str]
) -> None:
    stage = Stage(live, candidate)
    policy = stage.shadowed(0.5)
    assert policy.document.version == "1"
    for request_id in ids:
        decision = policy.decide(request(request_id), tenant(), NOWHERE, 0.0)
        assert decision == replace(live, request_id=request_id, policy_version="1")
    assert stage.live.asked == ids
    asked = set(stage.candidate.asked)
    told = [news for news in stage.news if isinstance(news, Comparison)]
    assert asked <= set(ids)
    if not isinstance(candidate, Exception):
        assert [comparison.request_id for comparison in told] == stage.candidate.asked


def test_the_sample_is_a_share_of_requests_and_the_same_anywhere() -> None:
    ids = [f"{number:032x}" for number in range(5000)]
    asked = []
    for _ in range(2):
        stage = Stage(placed("fast"), placed("fast"))
        for request_id in ids:
            stage.shadowed(0.1).decide(request(request_id), tenant(), NOWHERE, 0.0)
        asked.append(stage.candidate.asked)
    assert asked[0] == asked[1]
    assert 400 < len(asked[0]) < 600


@pytest.mark.parametrize(
    ("live", "changes", "compared"),
    [
        (placed("fast"), {}, True),
        (HELD, {}, True),  # at arrival
        (HELD, {"waited_ms": 20.0}, True),  # at arrival, its prompt took long to tokenize
        (HELD, {"held": True}, False),  # still: it is asked about every few milliseconds
        (placed("fast"), {"held": True}, True),
        (REJECTED, {"held": True}, True),
        (placed("fast"), {"held": True, "generated": 8}, False),  # about to be moved
    ],
)
def test_what_is_compared(live: Decision, changes: dict[str, object], compared: bool) -> None:
    stage = Stage(live, placed("fast"))
    stage.shadowed().decide(request(**changes), tenant(), NOWHERE, 0.0)
    assert bool(stage.news) is bool(stage.candidate.asked) is compared


@pytest.mark.parametrize(
    ("live", "candidate", "contrast"),
    [
        (placed("fast"), placed("fast"), Contrast.SAME),
        (placed("fast", "r0"), placed("fast", "r1"), Contrast.REPLICA),
        (placed("fast"), placed("wide"), Contrast.PROFILE),
        (placed("fast"), HELD, Contrast.OUTCOME),
        (placed("fast"), replace(placed("wide"), outcome=Outcome.DEGRADED), Contrast.OUTCOME),
        (REJECTED, REJECTED, Contrast.SAME),
    ],
)
def test_how_two_decisions_differ(live: Decision, candidate: Decision, contrast: Contrast) -> None:
    stage = Stage(live, candidate)
    stage.shadowed().decide(request(), tenant(), NOWHERE, 0.0)
    found = stage.comparison
    assert (found.tenant, found.tier, found.contrast) == ("acme", "premium", contrast)
    assert (found.live.version, found.candidate.version) == ("1", "2")
    assert found.foreseeable is (Outcome.HELD not in (live.outcome, candidate.outcome))


def test_sums_by_tier_are_over_what_both_foresee() -> None:
    tally = Tally()
    for live, candidate in ((placed("fast"), REJECTED), (placed("fast"), HELD)):
        stage = Stage(live, candidate)
        stage.shadowed().decide(request(), tenant(), NOWHERE, 0.0)
        tally.add(stage.comparison)
    (sums,) = tally.tiers.values()
    assert (sums.compared, sums.foreseeable) == (2, 1)
    assert sums.contrasts == {Contrast.OUTCOME: 2}
    assert sums.gpu_seconds == (3, 0)
    assert sums.attained.candidate == 0
    assert 0.99 < sums.attained.live <= 1  # a third of its target at the median
    (line,) = summary(tally)
    assert line.startswith("tier premium: 0 of 2 decisions the same (2 another outcome); expected")


def test_a_candidate_that_keeps_failing_is_given_up() -> None:
    stage = Stage(placed("fast"), ZeroDivisionError("x"))
    policy = stage.shadowed()
    for number in range(MOST_FAILURES + 5):
        policy.decide(request(str(number)), tenant(), NOWHERE, 0.0)
    assert len(stage.candidate.asked) == MOST_FAILURES
    failures = [news for news in stage.news if isinstance(news, Failed)]
    assert [failed.last for failed in failures] == [False] * (MOST_FAILURES - 1) + [True]
    assert stage.progress.over


# Canary.


def test_each_tenant_is_decided_for_by_its_own_side() -> None:
    stage = Stage(placed("fast"), placed("wide"))
    policy = stage.canary("acme")
    assert policy.document.version == "1"
    for number, name in enumerate(["acme", "borealis"] * 20):
        decision = policy.decide(request(str(number), name), tenant(name), NOWHERE, number)
        assert decision.policy_version == ("2" if name == "acme" else "1")


def test_where_a_canary_fails_the_live_policy_decides() -> None:
    stage = Stage(placed("fast"), KeyError("gold"))
    policy = stage.canary("acme")
    for number in range(MOST_FAILURES + 5):
        decision = policy.decide(request(str(number)), tenant(), NOWHERE, 0.0)
        assert decision.policy_version == "1"
    assert len(stage.candidate.asked) == MOST_FAILURES
    assert stage.progress.over
    assert stage.progress.rolled_back is None


BURNED = Burned(("premium",), 60.0, 4.0, Counts(20, 100), Counts(5, 1000), 1e-9)


def test_a_canary_is_judged_now_and_then_and_stays_rolled_back() -> None:
    ages: list[float] = []

    def verdict(age: float, now: float) -> Burned | None:
        ages.append(age)
        return BURNED if age >= 3 * JUDGE_EVERY_S else None

    stage = Stage(placed("fast"), placed("wide"))
    versions = []
    for second in range(40):
        policy = stage.canary("acme", judge=verdict)  # made anew, as at a reload
        decision = policy.decide(request(str(second)), tenant(), NOWHERE, 1000.0 + second)
        versions.append(decision.policy_version)
    assert ages[-1] == 3 * JUDGE_EVERY_S
    assert versions == ["2"] * 15 + ["1"] * 25
    assert stage.news == [RolledBack(BURNED)]

    ages.clear()
    steady = Stage(placed("fast"), placed("wide"))
    policy = steady.canary("acme", judge=verdict)
    for tenth in range(100):
        policy.decide(request(str(tenth)), tenant(), NOWHERE, 1000.0 + tenth / 10)
    assert ages == [JUDGE_EVERY_S]


# When to roll back.

TWICE = Rollback(burn=2, requests=50)


@pytest.mark.parametrize(
    ("canary", "others", "rolled_back"),
    [
        ((0, 1000), (0, 9000), False),
        ((50, 1000), (450, 9000), False),  # just what is allowed
        ((90, 1000), (450, 9000), False),  # worse than the others, but within burn 2
        ((300, 1000), (450, 9000), True),
        ((300, 1000), (2700, 9000), False),  # all burn alike
        ((300, 1000), (2400, 9000), False),  # a little worse: p is 4e-3 and no more
        ((400, 1000), (2700, 9000), True),  # all burn, the canary clearly worse
        ((1000, 1000), (0, 9000), True),
        # Small numbers do not trigger.
        ((49, 49), (0, 9000), False),
        ((8, 50), (450, 9000), False),
        ((1, 50), (0, 9000), False),
        # Nor do they hide.
        ((25, 50), (450, 9000), True),
        ((1000, 1000), (9, 49), True),  # too few others: against what is allowed
        ((60, 1000), (0, 0), False),
        ((130, 1000), (0, 0), True),
        ((9, 60), (0, 0), False),
        ((0, 0), (500, 1000), False),
    ],
)  # fmt: skip
def test_rolls_back(canary: Counts, others: Counts, rolled_back: bool) -> None:
    sides = (Counts(*canary), Counts(*others))
    found = judge({"gold": 0.95}, lambda _: sides[0], lambda _: sides[1], TWICE, 300.0)
    assert (found is not None) is rolled_back
    if found is not None:
        assert (found.tiers, found.canary, found.window_s) == (("gold",), sides[0], 300.0)
        assert f"{canary[0]} of {canary[1]} requests of the canary's tenants" in str(found)


def both(**tiers: tuple[tuple[int, int], tuple[int, int]]) -> Burned | None:
    objectives = dict.fromkeys(tiers, 0.95)
    return judge(
        objectives,
        lambda tier: Counts(*tiers[tier][0]),
        lambda tier: Counts(*tiers[tier][1]),
        TWICE,
        60.0,
    )


def test_a_tier_does_not_hide_behind_a_larger_one() -> None:
    found = both(batch=((0, 10_000), (0, 90_000)), premium=((30, 60), (25, 500)))
    assert found is not None
    assert found.tiers == ("premium",)


def test_tiers_that_are_small_alone_are_judged_together_each_against_its_own_others() -> None:
    assert both(a=((15, 40), (25, 500)), b=((15, 40), (25, 500))) is not None
    assert both(a=((15, 24), (25, 500)), b=((15, 24), (25, 500))) is None, "48 requests"
    mixed = both(a=((20, 40), (5000, 10_000)), b=((2, 40), (500, 10_000)))
    assert mixed is None, "a tier that burns for all is no fault of the canary"


def test_a_threshold_that_missing_everything_cannot_reach_is_lowered() -> None:
    everything = Counts(500, 500)
    assert judge({"half": 0.5}, lambda _: everything, lambda _: Counts(100, 1000), TWICE, 60.0)


@pytest.mark.parametrize(
    ("window", "age_s", "looked_at_s"),
    [
        ("5m", 59, None), ("5m", 60, 60), ("5m", 299, 60), ("5m", 300, 300), ("5m", 9999, 300),
        ("1m", 9999, 60), ("1h", 3599, 300), ("1h", 3600, 3600),
    ],
)  # fmt: skip
def test_the_window_holds_nothing_from_before_the_canary(
    window: str, age_s: float, looked_at_s: float | None
) -> None:
    assert window_at(Rollback.model_validate({"window": window}), age_s) == looked_at_s


@given(st.integers(0, 30), st.integers(0, 30), st.data())
def test_chances_are_those_of_drawing_without_replacement(
    count_: int, others: int, data: st.DataObject
) -> None:
    hits = data.draw(st.integers(0, count_ + others))
    every = math.comb(count_ + others, hits)
    exact = [math.comb(count_, k) * math.comb(others, hits - k) / every for k in range(min(count_, hits) + 1)]  # fmt: skip
    assert hypergeometric(count_, others, hits) == pytest.approx(exact, rel=1e-9)


@given(st.integers(0, 60), st.floats(0.001, 0.999))
def test_chances_are_those_of_independent_draws(count_: int, share: float) -> None:
    exact = [math.comb(count_, k) * share**k * (1 - share) ** (count_ - k) for k in range(count_ + 1)]  # fmt: skip
    assert binomial(count_, share) == pytest.approx(exact, rel=1e-9, abs=1e-300)


def test_no_false_alarm_while_the_whole_fleet_burns_and_a_bad_candidate_is_found() -> None:
    """A day of five-minute windows, 30 requests of the canary and 300 others a minute."""
    draws = np.random.default_rng(7)

    def day(canary_misses: float, others_miss: float) -> int:
        bad = draws.binomial(150, canary_misses, 288), draws.binomial(1500, others_miss, 288)
        sides = zip(*bad, strict=True)
        return sum(
            bool(judge({"t": 0.95}, lambda _: Counts(int(c), 150), lambda _: Counts(int(o), 1500), TWICE, 300.0))  # noqa: B023
            for c, o in sides
        )  # fmt: skip

    assert day(0.05, 0.05) == 0
    assert day(0.3, 0.3) == 0
    assert day(0.2, 0.05) > 250
    assert day(0.5, 0.3) > 200


# Documents.


@pytest.mark.parametrize(
    ("document", "said"),
    [
        ({"mode": "canary"}, "a canary needs tenants: set share above 0, or name them"),
        ({"mode": "canary", "share": 0.1, "sample": 0.5}, "mode canary has no sample"),
        ({"mode": "shadow", "share": 0.1, "tenants": ["a"]}, "mode shadow has no share, tenants"),
        ({"mode": "dark"}, "Input should be 'shadow' or 'canary'"),
        ({"mode": "canary", "share": 5}, "less than or equal to 1"),
        ({"mode": "canary", "share": 0.1, "rollback": {"window": "2m"}}, "'1m', '5m' or '1h'"),
    ],
)
def test_a_rollout_that_makes_no_sense(document: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Rollout.model_validate(document)


# docs/rollout.md.

DOCUMENT = Path(__file__).parents[3] / "docs" / "rollout.md"
TEXT = DOCUMENT.read_text(encoding="utf-8")


@pytest.mark.parametrize("model", [Rollout, Rollback])
def test_the_tables_of_the_page_are_current(model: type[Document]) -> None:
    keys = table(("key", "value", "default", "meaning"), fields(model.model_json_schema()))
    assert f"<!-- table: {model.__name__} -->\n{keys}<!-- end -->" in TEXT


@pytest.mark.parametrize("text", re.findall(r"```yaml\n(.*?)```", TEXT, re.DOTALL))
def test_the_examples_of_the_page_are_valid(text: str) -> None:
    content = yaml.safe_load(text)
    (Rollout if "mode" in content else PolicyDocument).model_validate(content)


def test_a_preview_is_the_side_that_would_decide_and_neither_judged_nor_counted() -> None:
    asked = []

    def judge(age: float, now: float) -> Burned | None:
        asked.append((age, now))
        return None

    stage = Stage(placed("fast"), placed("wide"))
    policy = stage.canary("acme", judge=judge)
    for name, version in (("acme", "2"), ("borealis", "1")):
        told = preview(policy, request("r", name), tenant(name), NOWHERE, 1000.0)
        assert told.policy_version == version
    assert (asked, stage.progress) == ([], Progress())
    stage = Stage(placed("fast"), ZeroDivisionError("x"))
    told = preview(stage.canary("acme"), request("r", "acme"), tenant("acme"), NOWHERE, 0.0)
    assert told.policy_version == "1"
    assert (stage.news, stage.progress) == ([], Progress())
