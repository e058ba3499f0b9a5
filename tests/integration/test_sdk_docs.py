"""The code in docs/sdk.md runs as it stands, against another address, and its samples are ours."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.integration.live_gateway import DEPLOYMENT
from tests.integration.sdk_gateway import scripted_gateway
from tests.support.decided import decided, prediction

from paretoserve.domain.decision import Candidate, Decision, Outcome, Verdict
from paretoserve.domain.replica import Health, ReplicaState, Snapshot
from paretoserve.domain.request import Request
from paretoserve.domain.targets import Targets
from paretoserve.gateway.decision_header import decision_header
from paretoserve.policy.policy import Policy
from paretoserve.sdk._render import decision_table

DOCUMENT = Path(__file__).parents[2] / "docs" / "sdk.md"
WRITTEN = DOCUMENT.read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", WRITTEN, re.DOTALL)
SAMPLES = re.findall(r"```text\n(.*?)\n```", WRITTEN, re.DOTALL)
ADDRESS = "127.0.0.1:9000"
PREMIUM = Targets(ttft_ms=300, tpot_ms=2)


def real_reason(*running: str) -> str:
    """What the policy says of a premium request where these profiles have a replica."""
    policy = Policy(DEPLOYMENT.policy, DEPLOYMENT.tiers, DEPLOYMENT.profiles)
    states = tuple(ReplicaState(f"{name}-0", name, "", Health.SERVING) for name in running)
    request = Request("req-1", "scribe", "acme", "premium", 5, 16)
    return policy.decide(request, DEPLOYMENT.tenants[0], Snapshot(states, 0.0), 0.0).reason


def placed() -> Decision:
    told = prediction(43, 1.5, wait_ms=2, cost=0.3, high=1.2)
    fast = Candidate("min-latency", "ml-1", Verdict.CHOSEN, "in time at 95%", told, (), 0.26)
    slow = prediction(240, 6.85, wait_ms=3, cost=0.07, high=1.1)
    late = f"TPOT {slow.tpot_ms:.1f} ms predicted, {PREMIUM.tpot_ms:g} ms promised"
    wide = Candidate("max-throughput", "mt-2", Verdict.LATE_TPOT, late, slow, (), 0.051)
    return decided(
        Outcome.PLACED, wide, fast, fast._replace(replica_id="ml-0", verdict=Verdict.FEASIBLE),
        targets=PREMIUM, request_id="req-1", reason=real_reason("min-latency", "max-throughput"),
    )  # fmt: skip


def refused() -> Decision:
    wide, *fast = placed().candidates
    full = (each._replace(verdict=Verdict.FULL) for each in fast)
    return decided(
        Outcome.REJECTED, wide, *full, targets=PREMIUM, rule="shed",
        reason=(
            "no allowed profile can take it (max-throughput: 1 late_tpot; min-latency: 2 full)"
        ),
    )  # fmt: skip


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with scripted_gateway() as (address, _):
        yield address


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block.strip().splitlines()[-1].strip())
def test_block_runs(block: str, address: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert ADDRESS in block
    code = compile(block.replace(ADDRESS, address), str(DOCUMENT), "exec")
    exec(code, {"__name__": "__main__"})  # the documentation's own code
    assert "print(" not in block or capsys.readouterr().out


def test_samples_are_what_is_printed() -> None:
    table, *lines = SAMPLES
    assert table == decision_table(placed())
    assert lines == [decision_header(placed()), decision_header(refused())]


def test_there_are_blocks() -> None:
    assert len(BLOCKS) >= 7
