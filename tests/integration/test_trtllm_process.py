"""The trtllm engine in an executor of another environment, which has neither Ray nor fastapi.

A virtual environment is made with what an executor imports and no more, and the stand-in of
TensorRT-LLM; the supervisor starts the executor with its interpreter, as a replica does for a
profile with `python:`.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import grpc.aio
import pytest
import yaml
from tests.support.emulated import deployment_documents, emulated_profile

from paretoserve.domain.errors import EngineError
from paretoserve.executor.supervisor import (
    Backoff,
    ExecutorSupervisor,
    SupervisorState,
    Timing,
    executor_command,
)
from paretoserve.wire._pb import common_pb2
from paretoserve.wire._pb import executor_pb2 as pb
from paretoserve.wire._pb import executor_pb2_grpc as rpc

ROOT = Path(__file__).parents[2]
EXECUTOR_IMPORTS = (
    *("grpc", "grpc_health", "grpc_reflection", "grpc_status", "google", "yaml", "_yaml"),
    *("pydantic", "pydantic_core", "annotated_types", "typing_extensions", "typing_inspection"),
    *("cel_expr_python",),
)
QUICK = Timing(probe_interval_s=0.05, hang_after_s=10, start_timeout_s=60, term_grace_s=2)
SOON = Backoff(initial_s=0.05, cap_s=0.1, give_up_after=2)


def environment(folder: Path, *also: Path) -> Path:
    """Make a virtual environment of the executor's imports; returns its interpreter."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    site = next((folder / "lib").glob("python*")) / "site-packages"
    for name in EXECUTOR_IMPORTS:
        found = importlib.util.find_spec(name)
        if found is not None:
            origin = list(found.submodule_search_locations or [])[:1] or [found.origin]
            source = Path(str(origin[0]))
            (site / source.name).symlink_to(source)
    (site / "here.pth").write_text("\n".join(map(str, (ROOT / "platform", *also))) + "\n")
    return folder / "bin" / "python"


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return environment(tmp_path_factory.mktemp("trtllm") / "venv", ROOT / "tests" / "stand_ins")


@pytest.fixture(autouse=True)
def _no_inherited_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PYTHONPATH", raising=False)


@pytest.fixture
def deployment(tmp_path: Path) -> Path:
    profile = emulated_profile(context_tokens=2048)
    args = {"max_batch_size": profile.limits.max_batch, "tensor_parallel_size": int(profile.gpus)}
    documents = deployment_documents(profile)
    name = next(name for name in documents if name.startswith("profiles/"))
    documents[name] |= {
        "engine": "trtllm",
        "engine_args": args,
        "capabilities": {"resumed_penalties": False},
    }
    documents["models.yaml"]["models"][0]["path"] = str(ROOT / "deployments/local/models/scribe")
    for name, document in documents.items():
        path = tmp_path / "deployment" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(yaml.safe_dump(document))
    return tmp_path / "deployment"


@contextlib.asynccontextmanager
async def supervised(
    deployment: Path, python: Path, *options: str, env: dict[str, str] | None = None
) -> AsyncIterator[ExecutorSupervisor]:
    command = executor_command(deployment, "fast", python=str(python), options=options)
    supervisor = ExecutorSupervisor(command, env=env, timing=QUICK, backoff=SOON)
    try:
        yield supervisor
    finally:
        await supervisor.stop()


async def generate(address: str, max_tokens: int = 5) -> pb.Delta:
    """The last delta of a request."""
    message = pb.Submit(request_id="r", prompt_token_ids=[1, 2, 3])
    message.sampling.max_tokens = max_tokens
    message.sampling.ignore_eos = True
    async with grpc.aio.insecure_channel(address) as channel:
        deltas = [delta async for delta in rpc.ExecutorStub(channel).Generate(message)]
    assert sum(len(delta.token_ids) for delta in deltas) == max_tokens
    return deltas[-1]


async def until(supervisor: ExecutorSupervisor, restarts: int) -> None:
    async with asyncio.timeout(60):
        while supervisor.status.restarts < restarts:
            await asyncio.sleep(0.05)
    await supervisor.wait_serving()


def test_that_environment_has_neither_ray_nor_fastapi(python: Path) -> None:
    for name in ("ray", "fastapi", "starlette", "torch"):
        code = (
            f"import importlib.util, sys; sys.exit(importlib.util.find_spec({name!r}) is not None)"
        )
        assert subprocess.run([python, "-c", code], check=False).returncode == 0, name


async def test_it_serves_from_the_other_environment(deployment: Path, python: Path) -> None:
    async with supervised(deployment, python) as supervisor:
        await supervisor.start()
        assert supervisor.status.pid is not None
        running = Path(f"/proc/{supervisor.status.pid}/cmdline").read_bytes().split(b"\0")[0]
        assert running.decode() == str(python)
        assert (await generate(supervisor.address)).finish.reason == common_pb2.FINISH_REASON_LENGTH


async def test_without_the_wheel_it_says_what_is_missing(deployment: Path, tmp_path: Path) -> None:
    async with supervised(deployment, environment(tmp_path / "bare")) as supervisor:
        with pytest.raises(EngineError, match=r"engine 'trtllm' needs a package.*tensorrt_llm"):
            await supervisor.start()
        assert supervisor.status.state is SupervisorState.FAILED


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("hang", "the engine made no step for"),
        ("ill", "TensorRT-LLM says that it is not healthy"),
        ("hard-kill", "exited with status 137, which is SIGKILL"),
        ("fatal", "TensorRT-LLM failed: CppExecutorError"),
    ],
)
async def test_a_broken_engine_is_replaced(
    deployment: Path, python: Path, tmp_path: Path, fault: str, said: str
) -> None:
    order = tmp_path / "fault"
    env = {"STAND_IN_FAULT_FILE": str(order)}
    async with supervised(deployment, python, "--stall-after", "0.5", env=env) as supervisor:
        await supervisor.start()
        await generate(supervisor.address)
        written = order.with_suffix(".partial")
        written.write_text(fault)
        written.replace(order)  # whoever reads it never finds half of it
        with contextlib.suppress(grpc.aio.AioRpcError, AssertionError):
            await generate(supervisor.address, max_tokens=400)
        await until(supervisor, restarts=1)
        assert said in supervisor.status.last_exit
        await generate(supervisor.address)
