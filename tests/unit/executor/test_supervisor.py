"""The supervisor against real processes that are killed, stopped, refused and drained."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import grpc.aio
import pytest

from paretoserve.domain.errors import EngineError
from paretoserve.executor.supervisor import (
    Backoff,
    ExecutorSupervisor,
    SupervisorState,
    Timing,
    executor_command,
)
from paretoserve.wire._pb import executor_pb2 as pb
from paretoserve.wire._pb import executor_pb2_grpc as rpc

STAND_IN = Path(__file__).with_name("stand_in_executor.py")
QUICK = Timing(probe_interval_s=0.05, hang_after_s=0.5, start_timeout_s=20, term_grace_s=1)
SOON = Backoff(initial_s=0.05, cap_s=0.1, give_up_after=3)


@asynccontextmanager
async def supervised(behaviour: str = "serve", **options):
    options = {"timing": QUICK, "backoff": SOON} | options
    supervisor = ExecutorSupervisor(
        lambda address: [sys.executable, str(STAND_IN), address, behaviour], **options
    )
    try:
        yield supervisor
    finally:
        await supervisor.stop()


async def until(condition, timeout_s: float = 20.0) -> None:
    async with asyncio.timeout(timeout_s):
        while not condition():
            await asyncio.sleep(0.02)


def alive(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return stat.rsplit(")", 1)[1].split()[0] != "Z"


async def tokens(address: str, count: int) -> list[int]:
    async with grpc.aio.insecure_channel(address) as channel:
        submit = pb.Submit(request_id="r", prompt_token_ids=range(count))
        return [t async for d in rpc.ExecutorStub(channel).Generate(submit) for t in d.token_ids]


async def test_it_serves_at_its_address_and_reports_load():
    async with supervised() as supervisor:
        await supervisor.start()
        assert supervisor.status.state is SupervisorState.SERVING
        assert supervisor.status.pid
        assert await tokens(supervisor.address, 3) == [0, 1, 2]
        load = await supervisor.load()
        assert load is not None
        assert (load.executor_id, load.waiting, load.waiting_tokens) == (
            str(supervisor.status.pid),
            3,
            70,
        )


async def test_a_killed_process_is_replaced_at_the_same_address():
    async with supervised() as supervisor:
        await supervisor.start()
        address, pid = supervisor.address, supervisor.status.pid
        os.kill(pid, signal.SIGKILL)
        await until(lambda: supervisor.status.restarts == 1)
        await supervisor.wait_serving()
        assert supervisor.status.last_exit.startswith("killed by SIGKILL (memory ran out, or")
        assert supervisor.status.pid != pid
        assert supervisor.address == address
        assert await tokens(address, 2) == [0, 1]


async def test_a_hanging_process_is_killed_with_its_children_and_replaced(tmp_path):
    child_file = tmp_path / "child"
    async with supervised(f"child:{child_file}") as supervisor:
        await supervisor.start()
        child, pid = int(child_file.read_text()), supervisor.status.pid
        os.kill(pid, signal.SIGSTOP)
        await until(lambda: supervisor.status.restarts == 1)
        await supervisor.wait_serving()
        assert supervisor.status.last_exit.startswith("hung: no answer for")
        assert not alive(pid)
        assert not alive(child)
        assert await tokens(supervisor.address, 1) == [0]


async def test_ranks_in_groups_of_their_own_do_not_outlive_their_executor(tmp_path):
    """They would keep the memory that the next life needs."""
    rank_file = tmp_path / "rank"
    async with supervised(f"rank:{rank_file}") as supervisor:
        await supervisor.start()
        first = int(rank_file.read_text())
        os.kill(supervisor.status.pid, signal.SIGKILL)
        await until(lambda: supervisor.status.restarts == 1)
        assert not alive(first)
        await supervisor.wait_serving()
        second = int(rank_file.read_text())
        assert alive(second)
    await until(lambda: not alive(second))  # a kill takes effect when the process is next scheduled


async def test_what_an_executor_prints_does_not_come_out_of_our_stdout(capfd):
    async with supervised() as supervisor:
        await supervisor.start()
    out, errors = capfd.readouterr()
    assert (out, "serves\n" in errors) == ("", True)


async def test_a_hard_kill_of_all_ranks_is_explained_and_replaced():
    async with supervised("mpi-abort") as supervisor:
        with pytest.raises(EngineError) as caught:
            await supervisor.start()
        assert "exited with status 137, which is SIGKILL" in caught.value.message
        assert "MPI_Abort" in caught.value.message
        assert "Hang detected after 300 seconds." in caught.value.message
        assert supervisor.status.restarts == SOON.give_up_after - 1


async def test_it_gives_up_with_the_reason_after_failed_starts():
    async with supervised("exit") as supervisor:
        with pytest.raises(EngineError, match="exited with status 7: weights are missing"):
            await supervisor.start()
        assert supervisor.status.state is SupervisorState.FAILED
        assert supervisor.status.restarts == SOON.give_up_after - 1


async def test_an_executor_that_says_it_failed_is_replaced_and_given_up():
    async with supervised("failed") as supervisor:
        with pytest.raises(EngineError, match="no memory left"):
            await supervisor.start()


async def test_a_state_of_a_newer_executor_is_not_taken_for_serving_nor_for_failed():
    async with supervised("newer", backoff=SOON, timing=replace(QUICK, start_timeout_s=0.8)) as s:
        with pytest.raises(EngineError, match="did not serve within"):
            await s.start()


async def test_a_command_that_cannot_run_is_an_error_not_a_crash():
    supervisor = ExecutorSupervisor(lambda _: ["/no/such/python"], timing=QUICK, backoff=SOON)
    with pytest.raises(EngineError, match="cannot start"):
        await supervisor.start()
    await supervisor.stop()


async def test_failures_far_apart_do_not_add_up(tmp_path):
    lives = tmp_path / "lives"
    backoff = Backoff(initial_s=0.01, cap_s=0.01, reset_after_s=0.0, give_up_after=2)
    async with supervised(f"count:{lives}", backoff=backoff) as supervisor:
        await supervisor.start()
        for restart in range(1, 4):
            os.kill(supervisor.status.pid, signal.SIGKILL)
            await until(lambda restart=restart: supervisor.status.restarts == restart)
            await supervisor.wait_serving()
        assert lives.read_text().count("life") == 4


async def test_drain_lets_running_streams_finish():
    async with supervised() as supervisor:
        await supervisor.start()
        pid = supervisor.status.pid
        stream = asyncio.create_task(tokens(supervisor.address, 40))
        await until_async(supervisor, running=1)
        await supervisor.drain(grace_s=20)
        assert await stream == list(range(40))
        assert supervisor.status.state is SupervisorState.STOPPED
        assert not alive(pid)


async def test_an_executor_that_others_drained_is_left_alone_and_not_started_again():
    async with supervised() as supervisor:
        await supervisor.start()
        pid = supervisor.status.pid
        async with grpc.aio.insecure_channel(supervisor.address) as channel:
            await rpc.ExecutorStub(channel).Drain(pb.DrainRequest(grace_s=5))
        await until(lambda: supervisor.status.state is SupervisorState.DRAINING)
        await asyncio.sleep(4 * QUICK.probe_interval_s)
        assert (supervisor.status.pid, supervisor.status.restarts) == (pid, 0)
        os.kill(pid, signal.SIGKILL)
        await until(lambda: supervisor.status.pid is None)
        await asyncio.sleep(4 * SOON.cap_s)
        assert supervisor.status.state is SupervisorState.DRAINING
        assert supervisor.status.restarts == 0
        await supervisor.drain(grace_s=5)
        assert supervisor.status.state is SupervisorState.STOPPED


async def test_one_that_is_drained_before_it_serves_never_will_and_is_not_started_again():
    async with supervised("drained") as supervisor:
        with pytest.raises(EngineError, match="draining: drained before it served"):
            await asyncio.wait_for(supervisor.start(), 20)
        await asyncio.sleep(4 * SOON.cap_s)
        assert supervisor.status.state is SupervisorState.DRAINING
        assert supervisor.status.restarts == 0


async def until_async(supervisor: ExecutorSupervisor, running: int) -> None:
    async with asyncio.timeout(20):
        while True:
            load = await supervisor.load()
            if load is not None and load.running == running:
                return
            await asyncio.sleep(0.02)


async def test_stop_is_idempotent_and_wakes_who_waits():
    async with supervised("exit", backoff=Backoff(initial_s=30)) as supervisor:
        starting = asyncio.create_task(supervisor.start())
        await until(lambda: supervisor.status.restarts == 1)
        await asyncio.gather(supervisor.stop(), supervisor.stop())
        await supervisor.stop()
        with pytest.raises(EngineError, match="stopped"):
            await starting


async def test_environment_is_passed_on():
    code = "import os; raise SystemExit(int(os.environ['CUDA_VISIBLE_DEVICES'] == '4,5'))"
    supervisor = ExecutorSupervisor(
        lambda _: [sys.executable, "-c", code],
        env={"CUDA_VISIBLE_DEVICES": "4,5"},
        timing=QUICK,
        backoff=Backoff(give_up_after=1),
    )
    with pytest.raises(EngineError, match=r"exited with status 1$"):
        await supervisor.start()
    await supervisor.stop()


def test_delays_double_up_to_the_cap_and_jitter_around_it():
    backoff = Backoff(initial_s=1, cap_s=8, jitter=0.25)
    assert [backoff.delay_s(n, 0.5) for n in range(1, 6)] == [1, 2, 4, 8, 8]
    assert backoff.delay_s(4, 0.0) == 6
    assert backoff.delay_s(4, 1.0) == 10


def test_the_command_names_the_environments_own_python():
    command = executor_command(Path("/d"), "max-throughput", python="/venv/bin/python")
    assert command("127.0.0.1:5") == [
        *("/venv/bin/python", "-m", "paretoserve.app.executor"),
        *("--deployment", "/d", "--profile", "max-throughput"),
        *("--listen", "127.0.0.1:5", "--parent-pid", str(os.getpid())),
    ]
    command = executor_command(Path("/d"), "p", options=("--stall-after", "5"))
    assert command("127.0.0.1:5")[-2:] == ["--stall-after", "5"]
