"""`paretoserve drain` on a real executor under a real supervisor."""

from __future__ import annotations

import asyncio
import re
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import grpc.aio
import pytest
import yaml
from tests.support.emulated import deployment_documents, emulated_profile

from paretoserve.app.cli import main
from paretoserve.executor.supervisor import (
    ExecutorSupervisor,
    SupervisorState,
    Timing,
    executor_command,
)
from paretoserve.wire._pb import common_pb2
from paretoserve.wire._pb import executor_pb2 as pb
from paretoserve.wire._pb import executor_pb2_grpc as rpc

QUICK = Timing(probe_interval_s=0.05, hang_after_s=10, start_timeout_s=60, term_grace_s=2)


@pytest.fixture
async def supervisor(tmp_path: Path) -> AsyncIterator[ExecutorSupervisor]:
    profile = emulated_profile(tpot_ms=5.0, context_tokens=4096)
    for name, document in deployment_documents(profile).items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(yaml.safe_dump(document))
    supervisor = ExecutorSupervisor(executor_command(tmp_path, "fast"), timing=QUICK)
    try:
        await supervisor.start()
        yield supervisor
    finally:
        await supervisor.stop()


async def drain(address: str, grace: str) -> tuple[int, str]:
    """Exit status and output of the command."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "paretoserve.app.cli", "drain", address, "--grace", grace),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said, _ = await asyncio.wait_for(process.communicate(), 60)
    return process.returncode, said.decode()


def submit(request_id: str, max_tokens: int) -> pb.Submit:
    message = pb.Submit(request_id=request_id, prompt_token_ids=[1, 2, 3])
    message.sampling.max_tokens = max_tokens
    message.sampling.ignore_eos = True
    return message


@pytest.mark.parametrize(
    ("tokens", "grace", "status", "ended", "reason"),
    [
        (300, "30", 0, "1 ended, 0 aborted", common_pb2.FINISH_REASON_LENGTH),
        (4000, "0.3", 3, "0 ended, 1 aborted", common_pb2.FINISH_REASON_ABORTED),
    ],
)
async def test_it_waits_for_streams_and_its_status_says_how_they_ended(
    supervisor: ExecutorSupervisor, tokens: int, grace: str, status: int, ended: str, reason: int
) -> None:
    address, pid = supervisor.address, supervisor.status.pid
    async with grpc.aio.insecure_channel(address) as channel:
        stub = rpc.ExecutorStub(channel)
        deltas = aiter(stub.Generate(submit("running", tokens)))
        await anext(deltas)
        draining = asyncio.create_task(drain(address, grace))
        async for delta in deltas:
            last = delta
        assert last.finish.reason == reason
        assert await draining == (status, f"{address}: drained, {ended}\n")

        with pytest.raises(grpc.aio.AioRpcError, match="takes no requests: it is draining"):
            await anext(aiter(stub.Generate(submit("late", 1))))
    await asyncio.sleep(4 * QUICK.probe_interval_s)
    status_now = supervisor.status
    assert (status_now.pid, status_now.restarts) == (pid, 0), "it stays, and stays drained"
    assert status_now.state is SupervisorState.DRAINING


async def test_nothing_that_answers_is_an_error() -> None:
    status, said = await drain("127.0.0.1:9", "5")
    assert status == 1
    assert re.match("no executor answers at 127.0.0.1:9", said)


@pytest.mark.parametrize("address", ["x", "127.0.0.1:0", "127.0.0.1:99999", ":1", "http://x:1"])
def test_what_is_no_address_is_not_taken_for_an_executor_that_has_ended(
    address: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["drain", address])
    assert f"{address!r}: it must be HOST:PORT, the port 1 to 65535" in capsys.readouterr().err


def test_a_grace_that_no_executor_takes_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    for grace in ("-1", "nan", "3601"):
        assert main(["drain", "127.0.0.1:9", f"--grace={grace}"]) == 1
    assert capsys.readouterr().err.count("0 to 3600 seconds are allowed") == 3
