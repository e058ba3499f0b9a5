"""`paretoserve explain` against the real gRPC server."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
from tests.integration.sdk_gateway import CHOSEN, DECISION, FULL, KEY, scripted_gateway, started

from paretoserve.app.cli import main
from paretoserve.gateway.calls import Call, Event

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
