"""A link whose executor stops answering without a word, and one that comes back."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from tests.support.emulated import MODEL, deployment_documents, emulated_profile, request

from paretoserve.domain.errors import ReplicaLost, Unavailable
from paretoserve.domain.replica import Health, ReplicaState
from paretoserve.executor.engines.emulator import EmulatorEngine
from paretoserve.executor.link import SILENT_AFTER_S, ExecutorLink
from paretoserve.executor.server import ExecutorServer


@contextlib.asynccontextmanager
async def frozen_and_linked(folder: Path):
    """An executor process with a request running, stopped by SIGSTOP; its link and readings."""
    for name, document in deployment_documents(emulated_profile(tpot_ms=5.0)).items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(yaml.safe_dump(document))
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "paretoserve.app.executor"),
        *("--deployment", str(folder), "--profile", "fast"),
        stdout=subprocess.PIPE,
    )
    readings: list[ReplicaState] = []
    ready = json.loads(await asyncio.wait_for(process.stdout.readline(), 30))
    link = ExecutorLink(
        ready["address"],
        replica_id="r",
        profile="fast",
        gateway_id="g",
        on_state=readings.append,
    )
    link.start()
    try:
        await until(readings, Health.SERVING)
        chunks = link.generate(request(max_tokens=100_000))
        await anext(chunks)
        process.send_signal(signal.SIGSTOP)
        yield process, link, readings, chunks
    finally:
        await link.close()
        process.kill()
        await process.wait()


async def until(readings: list[ReplicaState], health: Health) -> None:
    async with asyncio.timeout(15):
        while not (readings and readings[-1].health is health):
            await asyncio.sleep(0.02)


async def test_a_frozen_executor_is_lost_and_comes_back_with_its_requests(tmp_path: Path) -> None:
    async with frozen_and_linked(tmp_path) as (process, link, readings, chunks):
        frozen_at = time.monotonic()
        await until(readings, Health.LOST)
        assert readings[-1].observed_at - frozen_at < SILENT_AFTER_S + 1
        with pytest.raises(Unavailable):
            await anext(link.generate(request("new")))
        process.send_signal(signal.SIGCONT)
        await until(readings, Health.SERVING)
        async with asyncio.timeout(5):
            while not (await anext(chunks)).token_ids:
                pass
            assert (await anext(link.generate(request("new")))).token_ids


FROZEN_GATEWAY = """
import asyncio, sys
from paretoserve.executor.link import ExecutorLink
from tests.support.emulated import request

async def main(address):
    ready = asyncio.Event()
    link = ExecutorLink(
        address, replica_id="r", profile="fast", gateway_id="g", on_state=lambda state: ready.set()
    )
    link.start()
    await ready.wait()
    async for _ in link.generate(request(max_tokens=100_000)):
        pass

asyncio.run(main(sys.argv[1]))
"""


async def test_a_frozen_gateway_holds_its_slots_no_longer_than_ten_seconds() -> None:
    server = ExecutorServer(EmulatorEngine(emulated_profile(), MODEL), "fast")
    address = await server.bind("127.0.0.1:0")
    await server.start_engine()
    gateway = await asyncio.create_subprocess_exec(sys.executable, "-c", FROZEN_GATEWAY, address)
    try:
        async with asyncio.timeout(20):
            while server.host.state().running == 0:
                await asyncio.sleep(0.02)
        gateway.send_signal(signal.SIGSTOP)
        async with asyncio.timeout(10):
            while server.host.state().running:
                await asyncio.sleep(0.05)
    finally:
        gateway.kill()
        await gateway.wait()
        await server.stop()


async def test_one_that_stays_frozen_ends_its_requests_within_ten_seconds(tmp_path: Path) -> None:
    async with frozen_and_linked(tmp_path) as (_process, _link, _readings, chunks):
        async with asyncio.timeout(10):
            with pytest.raises(ReplicaLost):
                async for _ in chunks:
                    pass
