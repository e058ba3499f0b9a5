"""Admit, route, run, settle, on real executors; and whatever happens, nothing leaks."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing

import pytest
from lifecycle_world import FAST, KEYS, World, call, deployment, slow, tenant, until

from paretoserve.domain.completion import FinishReason
from paretoserve.domain.conversation import Message, TextDelta
from paretoserve.domain.decision import Outcome, Verdict
from paretoserve.domain.errors import (
    ContextTooLong,
    DeadlineExceeded,
    InvalidRequest,
    ModelNotFound,
    ParetoserveError,
    PermissionDenied,
    QuotaExceeded,
    Saturated,
    Unauthenticated,
    Unavailable,
)
from paretoserve.domain.profile import Capabilities
from paretoserve.executor.tokenizer import Tokenizer
from paretoserve.gateway.calls import Completed, Event, Started


@pytest.fixture
async def world() -> AsyncGenerator[World, None]:
    async with World.of(deployment(FAST), {"r1": FAST}) as world:
        yield world


def text_of(events: list[Event]) -> str:
    return "".join(event.text for event in events if isinstance(event, TextDelta))


async def test_a_request_runs_from_start_to_completion(world: World) -> None:
    started, *deltas, completed = await world.collect(call())
    assert isinstance(started, Started)
    assert (started.request_id, started.tenant, started.tier) == ("client-id", "acme", "standard")
    assert (started.profile, started.replica_id) == ("fast", "r1")
    assert started.decision.outcome is Outcome.PLACED
    assert started.decision.request_id == "client-id"
    ids = [i for delta in deltas if isinstance(delta, TextDelta) for i in delta.token_ids]
    assert len(ids) == 20
    tokenizer = Tokenizer.load(world.documents.models[0].path)
    assert text_of(list(deltas)) == tokenizer.decode(ids)
    assert isinstance(completed, Completed)
    assert completed.reason is FinishReason.LENGTH
    assert completed.usage.completion_tokens == 20
    assert completed.usage.prompt_tokens == started.prompt_tokens
    assert 0 < completed.timing.ttft_ms <= completed.timing.total_ms
    await world.assert_all_returned()


async def test_a_tenant_is_charged_what_the_completion_says(world: World) -> None:
    completed = (await world.collect(call()))[-1]
    assert isinstance(completed, Completed)
    assert completed.gpu_seconds > 0
    assert world.ledger.spent("acme") == pytest.approx(completed.gpu_seconds)


async def test_everything_is_given_back_before_the_completion_is_seen(world: World) -> None:
    async with aclosing(world.lifecycle.generate(call())) as events:
        async for event in events:
            if isinstance(event, Started):
                assert world.held_here() == 2  # one in the ledger, one in the fleet
            if isinstance(event, Completed):
                break
        assert world.held_here() == 0
    assert world.diaries.all[-1].entries[-1] == "completed"


async def test_a_chat_is_a_longer_prompt_than_its_text(world: World) -> None:
    chat = (Message("user", "Once upon a time"),)
    chatted, plain = await world.collect(call(input=chat)), await world.collect(call())
    assert isinstance(chatted[0], Started)
    assert isinstance(plain[0], Started)
    assert chatted[0].prompt_tokens > plain[0].prompt_tokens


@pytest.mark.parametrize("events_read", [0, 1, 2, 5])
async def test_a_client_may_leave_at_any_point(world: World, events_read: int) -> None:
    events = world.lifecycle.generate(call(max_tokens=1000))
    for _ in range(events_read):
        await anext(events)
    await events.aclose()
    await world.assert_all_returned()
    if events_read:
        assert world.diaries.all[-1].entries[-1] == "cancelled"
    charged = world.ledger.spent("acme") > 0
    assert charged == (events_read > 0), "who leaves before anything was submitted pays nothing"


async def test_a_cancelled_reader_gives_everything_back(world: World) -> None:
    reader = asyncio.create_task(world.collect(call(max_tokens=1000)))
    await until(lambda: world.on_engines() == 1)
    reader.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reader
    await world.assert_all_returned()


async def test_a_deadline_ends_a_running_request(world: World) -> None:
    with pytest.raises(DeadlineExceeded):
        await world.collect(call(max_tokens=1000, deadline=time.monotonic() + 0.1))
    await world.assert_all_returned()
    assert world.diaries.all[-1].entries[-2:] == ["tokens", "failed deadline_exceeded"]


async def test_a_deadline_ends_a_request_that_waits_for_its_first_token() -> None:
    profile = slow(FAST, prefill_ms=400)
    async with World.of(deployment(profile), {"r1": profile}) as world:
        with pytest.raises(DeadlineExceeded):
            await world.collect(call(deadline=time.monotonic() + 0.1))
        await world.assert_all_returned()


async def test_a_deadline_that_has_passed_costs_nothing(world: World) -> None:
    with pytest.raises(DeadlineExceeded):
        await world.collect(call(deadline=time.monotonic() - 1))
    await world.assert_all_returned()
    assert world.ledger.spent("acme") == 0


async def test_a_stop_string_that_only_the_text_shows_ends_the_request(world: World) -> None:
    whole = text_of(await world.collect(call(max_tokens=40)))
    stop = whole[20:24]
    events = await world.collect(call(max_tokens=1000, stop=(stop,)))
    completed = events[-1]
    assert isinstance(completed, Completed)
    assert (completed.reason, completed.stop) == (FinishReason.STOP, stop)
    assert text_of(events) == whole[: whole.index(stop)]
    assert completed.usage.completion_tokens < 1000
    await world.assert_all_returned()


async def test_two_clients_may_use_the_same_id(world: World) -> None:
    calls = [call(max_tokens=50), call(max_tokens=50, api_key=KEYS["borealis"])]
    both = await asyncio.gather(*(world.collect(one) for one in calls))
    for events, name in zip(both, ("acme", "borealis"), strict=True):
        assert isinstance(events[0], Started)
        assert (events[0].request_id, events[0].tenant) == ("client-id", name)
        assert isinstance(events[-1], Completed)
    await world.assert_all_returned()


async def test_many_at_once_leave_nothing_behind(world: World) -> None:
    await asyncio.gather(*(world.collect(call(seed=i)) for i in range(12)))
    await world.assert_all_returned()


async def test_a_quota_that_is_used_up_rejects_and_holds_nothing() -> None:
    tenants = (tenant("acme", max_in_flight=1),)
    async with World.of(deployment(FAST, tenants=tenants), {"r1": FAST}) as world:
        async with aclosing(world.lifecycle.generate(call(max_tokens=1000))) as running:
            await anext(running)
            with pytest.raises(QuotaExceeded) as refused:
                await world.collect(call())
            assert refused.value.retry_after_s == 1.0
            assert world.held_here() == 2, "only the one that runs"
        await world.assert_all_returned()


async def test_a_full_fleet_is_saturated_and_says_when_to_come_again() -> None:
    profile = FAST.model_copy(
        update={"limits": FAST.limits.model_copy(update={"admit": 1, "max_batch": 1})}
    )
    async with World.of(deployment(profile), {"r1": profile}) as world:
        async with aclosing(world.lifecycle.generate(call(max_tokens=1000))) as running:
            await anext(running)
            with pytest.raises(Saturated, match="fast: 1 full") as refused:
                await world.collect(call())
            assert refused.value.retry_after_s is not None
        await world.assert_all_returned()
        assert isinstance((await world.collect(call()))[-1], Completed)


async def test_a_fleet_without_replicas_is_unavailable() -> None:
    async with World.of(deployment(FAST), {}) as world:
        with pytest.raises(Unavailable, match="no replica runs this profile"):
            await world.collect(call())
        await world.assert_all_returned()


async def test_what_no_profile_can_do_is_the_callers_fault() -> None:
    profile = FAST.model_copy(update={"capabilities": Capabilities(penalties=False)})
    async with World.of(deployment(profile), {"r1": profile}) as world:
        with pytest.raises(InvalidRequest, match="cannot do penalties"):
            await world.collect(call(presence_penalty=1.0))
        await world.assert_all_returned()


async def test_explaining_runs_and_reserves_nothing(world: World) -> None:
    decision = await world.lifecycle.explain(call())
    assert (decision.request_id, decision.tier) == ("client-id", "standard")
    assert decision.chosen is not None
    assert decision.chosen.verdict is Verdict.CHOSEN
    await world.assert_all_returned()
    assert world.executors["r1"].host.state().generated_tokens_total == 0


async def test_explaining_a_rejection_returns_it() -> None:
    async with World.of(deployment(FAST, hold=False), {}) as world:
        assert (await world.lifecycle.explain(call())).outcome is Outcome.REJECTED


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"api_key": ""}, Unauthenticated),
        ({"api_key": "sk-stolen"}, Unauthenticated),
        ({"service_tier": "platinum"}, PermissionDenied),
        ({"model": "gpt-99"}, ModelNotFound),
        ({"temperature": float("nan")}, InvalidRequest),
        ({"max_tokens": 0}, InvalidRequest),
        ({"max_tokens": -1}, InvalidRequest),
        ({"max_tokens": 2048}, ContextTooLong),
        ({"stop": ("x",) * 5000}, InvalidRequest),
        ({"ttft_ms": float("nan")}, InvalidRequest),
        ({"tpot_ms": 0.0}, InvalidRequest),
        ({"input": "a\ud800"}, InvalidRequest),
        ({"input": (2048,)}, InvalidRequest),
        ({"input": ()}, InvalidRequest),
        ({"input": "word " * 3000}, ContextTooLong),
        ({"input": "x" * 20_000_000}, ContextTooLong),
        ({"input": (Message("tool", "x"),)}, InvalidRequest),
    ],
)
async def test_a_bad_call_is_refused_and_costs_nothing(
    world: World, changes: dict[str, object], error: type[ParetoserveError]
) -> None:
    with pytest.raises(error):
        await world.collect(call(**changes))
    await world.assert_all_returned()
    assert world.ledger.spent("acme") == 0
    assert world.diaries.all[-1].entries == [f"failed {error.reason}"]


async def test_new_documents_hold_for_new_calls_only(world: World) -> None:
    async with aclosing(world.lifecycle.generate(call(max_tokens=100))) as running:
        await anext(running)
        world.lifecycle.reconfigure(deployment(FAST, tenants=(tenant("borealis"),)))
        with pytest.raises(Unauthenticated):
            await world.collect(call())
        assert isinstance((await world.collect(call(api_key=KEYS["borealis"])))[-1], Completed)
        assert isinstance([event async for event in running][-1], Completed)
    await world.assert_all_returned()


def test_models_are_those_that_the_tenant_may_use() -> None:
    (model,) = World(deployment(FAST)).lifecycle.models(KEYS["acme"])
    assert (model.name, model.context_tokens) == ("scribe", 2048)
    assert (model.profiles, model.tiers) == (("fast",), ("standard",))
    with pytest.raises(Unauthenticated):
        World(deployment(FAST)).lifecycle.models("sk-stolen")
