"""The executor as a process of its own: start, ready line, drain, death of its parent."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import grpc.aio
import pytest
import yaml
from tests.support.emulated import deployment_documents, emulated_profile

from paretoserve.wire._pb import common_pb2
from paretoserve.wire._pb import executor_pb2 as pb
from paretoserve.wire._pb import executor_pb2_grpc as rpc


@pytest.fixture
def deployment(tmp_path: Path) -> Path:
    profile = emulated_profile(tpot_ms=5.0, context_tokens=4096)
    for name, document in deployment_documents(profile).items():
        path = tmp_path / "deployment" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(yaml.safe_dump(document))
    return tmp_path / "deployment"


def command(deployment: Path, *more: str) -> list[str]:
    return [
        *(sys.executable, "-m", "paretoserve.app.executor"),
        *("--deployment", str(deployment), "--profile", "fast", *more),
    ]


@contextlib.asynccontextmanager
async def running(deployment: Path, *more: str):
    process = await asyncio.create_subprocess_exec(
        *command(deployment, *more), stdout=subprocess.PIPE
    )
    try:
        ready = json.loads(await asyncio.wait_for(process.stdout.readline(), 30))
        async with grpc.aio.insecure_channel(ready["address"]) as channel:
            yield process, ready, rpc.ExecutorStub(channel)
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


def submit(max_tokens: int) -> pb.Submit:
    message = pb.Submit(request_id="r", prompt_token_ids=[1, 2, 3])
    message.sampling.max_tokens = max_tokens
    message.sampling.ignore_eos = True
    return message


async def test_it_says_where_it_serves_and_drains_on_sigterm(
    deployment: Path, tmp_path: Path
) -> None:
    ready_file = tmp_path / "ready.json"
    async with running(deployment, "--ready-file", str(ready_file)) as (process, ready, stub):
        assert json.loads(ready_file.read_text()) == ready
        deltas = aiter(stub.Generate(submit(100)))
        first = await anext(deltas)
        process.send_signal(signal.SIGTERM)
        tokens = len(first.token_ids)
        async for delta in deltas:
            tokens += len(delta.token_ids)
        assert (tokens, delta.finish.reason) == (100, common_pb2.FINISH_REASON_LENGTH)
        assert await asyncio.wait_for(process.wait(), 20) == 0


async def test_the_end_of_the_grace_aborts_and_says_so(deployment: Path) -> None:
    async with running(deployment, "--grace", "0.2") as (process, _, stub):
        deltas = aiter(stub.Generate(submit(4000)))
        await anext(deltas)
        process.send_signal(signal.SIGTERM)
        delta = [delta async for delta in deltas][-1]
        assert delta.finish.reason == common_pb2.FINISH_REASON_ABORTED
        assert delta.finish.error_reason == "evicted"
        assert await asyncio.wait_for(process.wait(), 20) == 0


async def test_a_second_sigterm_ends_it_at_once(deployment: Path) -> None:
    async with running(deployment) as (process, _, stub):
        deltas = aiter(stub.Generate(submit(4000)))
        await anext(deltas)
        process.send_signal(signal.SIGTERM)
        while (await stub.Health(pb.HealthRequest())).lifecycle != pb.LIFECYCLE_DRAINING:
            await asyncio.sleep(0.01)
        process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(process.wait(), 5) == 128 + signal.SIGTERM


async def test_it_ends_with_its_parent(deployment: Path) -> None:
    parent = await asyncio.create_subprocess_exec("sleep", "60")
    async with running(deployment, "--parent-pid", str(parent.pid)) as (process, _, _stub):
        parent.kill()
        assert await asyncio.wait_for(process.wait(), 20) == 0
    await parent.wait()


async def test_it_ends_with_its_engine_and_says_why(deployment: Path) -> None:
    program = (
        "import sys; from paretoserve.app import executor\n"
        "from paretoserve.executor.engines.emulator.batch import Batch\n"
        "def end(self, now): raise RuntimeError('the pacer is on fire')\n"
        "Batch.end = end; sys.exit(executor.main())"
    )
    interpreter, _, _, *arguments = command(deployment)
    process = await asyncio.create_subprocess_exec(
        *(interpreter, "-c", program, *arguments), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    ready = json.loads(await asyncio.wait_for(process.stdout.readline(), 30))
    async with grpc.aio.insecure_channel(ready["address"]) as channel:
        deltas = [delta async for delta in rpc.ExecutorStub(channel).Generate(submit(10))]
    _, errors = await asyncio.wait_for(process.communicate(), 20)
    assert [delta.finish.reason for delta in deltas] == [common_pb2.FINISH_REASON_ABORTED]
    assert process.returncode == 1
    (said,) = [line for line in errors.decode().splitlines() if line.startswith("executor:")]
    assert "on fire" in said


@pytest.mark.parametrize(
    ("engine_args", "listen", "complaint"),
    [
        ({"kv_tokns": 4}, "127.0.0.1:0", "engine_args.kv_tokns"),
        ({}, "203.0.113.7:1", "cannot listen on 203.0.113.7:1"),
        ({}, "localhost", "cannot listen on 'localhost': it must be HOST:PORT"),
        ({}, "127.0.0.1:99999", "it must be HOST:PORT"),
    ],
)
def test_a_failed_start_is_one_sentence(
    deployment: Path, engine_args: dict, listen: str, complaint: str
) -> None:
    path = deployment / "profiles" / "fast.yaml"
    profile = yaml.safe_load(path.read_text())
    path.write_text(yaml.safe_dump({**profile, "engine_args": engine_args}))
    done = subprocess.run(
        command(deployment, "--listen", listen),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    said = [line for line in done.stderr.splitlines() if line.startswith("executor:")]
    assert len(said) == 1
    assert complaint in said[0]
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("option", "value"), [("--grace", "-1"), ("--grace", "nan"), ("--stall-after", "0")]
)
def test_times_that_mean_nothing_are_refused(deployment: Path, option: str, value: str) -> None:
    done = subprocess.run(
        command(deployment, option, value),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2
    assert f"argument {option}: {value!r} is not a number" in done.stderr


def test_an_unknown_profile_names_the_known_ones(deployment: Path) -> None:
    done = subprocess.run(
        [arg if arg != "fast" else "fsat" for arg in command(deployment)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert "no profile 'fsat'; known are fast" in done.stderr


def test_it_imports_no_cluster_no_web_server_no_telemetry_and_no_weights() -> None:
    code = "import sys, paretoserve.app.executor, paretoserve.executor.engines.emulator"
    done = subprocess.run(
        [sys.executable, "-c", f"{code}; print(*sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": "platform"},
    )
    loaded = {name.partition(".")[0] for name in done.stdout.split()}
    assert not loaded & {"ray", "starlette", "uvicorn", "opentelemetry", "torch", "numpy"}


@pytest.mark.parametrize(
    ("engine", "more", "sentence"),
    [
        ("trtllm-grpc", (), "engine 'trtllm-grpc' needs a package that is not installed"),
        ("emulator", ("--protocol", "trtllm"), "--protocol trtllm needs the extra trtllm-grpc"),
    ],
)
async def test_a_missing_extra_is_named(
    deployment: Path, engine: str, more: tuple[str, ...], sentence: str
) -> None:
    path = deployment / "profiles/fast.yaml"
    path.write_text(path.read_text().replace("engine: emulator", f"engine: {engine}"))
    hidden = "import sys; sys.modules['smg_grpc_proto'] = None; "
    run = f"from paretoserve.app.executor import main; sys.exit(main({command(deployment, *more)[3:]}))"
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", hidden + run, stderr=asyncio.subprocess.PIPE
    )
    _, said = await asyncio.wait_for(process.communicate(), 30)
    assert process.returncode == 1
    assert sentence in said.decode()


async def test_two_executors_do_not_share_a_port(deployment: Path) -> None:
    """gRPC would let them, each with a part of the connections."""
    async with running(deployment, "--listen", "127.0.0.1:0") as (_, ready, _stub):
        done = await asyncio.create_subprocess_exec(
            *command(deployment, "--listen", ready["address"]), stderr=subprocess.PIPE
        )
        _, said = await asyncio.wait_for(done.communicate(), 30)
    assert done.returncode == 1
    assert f"executor: cannot listen on {ready['address']}: Address already in use" in said.decode()
