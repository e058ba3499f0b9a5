"""`paretoserve explain` and `generate` against the real gRPC server."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
from tests.integration.sdk_gateway import (
    CHOSEN,
    DECISION,
    FULL,
    KEY,
    Script,
    moved,
    scripted_gateway,
    started,
)

from paretoserve.app.cli import main
from paretoserve.gateway.calls import Call, Event, Started

REPLICAS = 64
CROWD = tuple(FULL._replace(replica_id=f"mt-{at}") for at in range(REPLICAS - 1))


async def crowded(_attempt: int, call: Call) -> AsyncIterator[Event]:
    yield replace(started(call), decision=replace(DECISION, candidates=(CHOSEN, *CROWD)))


@pytest.mark.parametrize(("option", "rows"), [((), 1 + 3), (("--all",), REPLICAS)])
def test_explain(option: tuple[str, ...], rows: int, capsys: pytest.CaptureFixture[str]) -> None:
    with scripted_gateway() as (address, serving):
        serving.script = crowded
        given = ["explain", "Once", "--address", address, "--api-key", KEY, *option]
        assert main(given) == 0
    text = capsys.readouterr().out
    assert text.count(" ml-") + text.count(" mt-") - text.count("replica ml-0") == rows
    assert ("    and 60 more: 60 late_tpot" in text.splitlines()) is (not option)


@pytest.mark.parametrize("command", ["explain", "generate"])
def test_a_session_and_targets_of_its_own_reach_the_gateway(command: str) -> None:
    with scripted_gateway() as (address, serving):
        given = [command, "Once", "--address", address, "--api-key", KEY]
        assert main(given) == 0
        own = ["--session", "chat-1", "--ttft-ms", "250", "--tpot-ms", "12.5", "--e2e-ms", "4000"]
        assert main([*given, *own]) == 0
        plain, call = serving.calls
    assert (plain.session_id, plain.ttft_ms, plain.tpot_ms, plain.e2e_ms) == ("", None, None, None)
    assert (call.session_id, call.ttft_ms, call.tpot_ms, call.e2e_ms) == ("chat-1", 250, 12.5, 4000)


def test_a_bad_target_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    with scripted_gateway() as (address, serving):
        given = ["explain", "Once", "--address", address, "--api-key", KEY, "--tpot-ms", "-1"]
        assert main(given) == 1
        assert not serving.calls
    assert "tpot-ms must be a positive number" in capsys.readouterr().err


async def beyond(_attempt: int, call: Call) -> AsyncIterator[Event]:
    async for event in moved(1, call):
        if isinstance(event, Started):
            decision = replace(event.decision, in_contract=False)
            yield replace(event, decision=decision, tier="standard")
        else:
            yield event


@pytest.mark.parametrize(
    ("script", "told"),
    [
        (moved, "premium on min-latency, then max-throughput: 5 tokens"),
        (beyond, "standard, in place of one whose contract is used up, on min-latency, then max"),
    ],
)
def test_generate_says_where_the_answer_came_from(
    script: Script, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with scripted_gateway() as (address, serving):
        serving.script = script
        assert main(["generate", "Once", "--address", address, "--api-key", KEY]) == 0
    assert capsys.readouterr().err.startswith(told)
