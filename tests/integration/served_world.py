"""A world of executors behind real client ports."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

import httpx
import openai
from lifecycle_world import KEYS, World
from tests.unit.gateway.scripted_serving import running

from paretoserve import sdk
from paretoserve.gateway.grpc_server import GrpcServer
from paretoserve.gateway.http_server import create_app

KEY = KEYS["acme"]


@dataclass(slots=True)
class Clients:
    """One client of each kind; all of them have the same tenant's key."""

    grpc: str
    sdk: sdk.AsyncClient
    http: httpx.AsyncClient
    openai: openai.AsyncOpenAI


@asynccontextmanager
async def served(world: World) -> AsyncGenerator[Clients, None]:
    """Serve a world on free ports of 127.0.0.1."""
    async with AsyncExitStack() as stack:
        base = f"http://{await stack.enter_async_context(running(create_app(world.lifecycle)))}"
        server = GrpcServer(world.lifecycle, "127.0.0.1:0")
        grpc = f"127.0.0.1:{await server.start()}"
        stack.push_async_callback(server.stop, 0.0)
        once = sdk.RetryPolicy(attempts=1)
        options = sdk.ClientOptions(api_key=KEY, retry=once, timeout_s=30)
        headers = {"authorization": f"Bearer {KEY}"}
        yield Clients(
            grpc,
            await stack.enter_async_context(sdk.AsyncClient(grpc, options=options)),
            await stack.enter_async_context(
                httpx.AsyncClient(base_url=base, headers=headers, timeout=30)
            ),
            await stack.enter_async_context(
                openai.AsyncOpenAI(base_url=f"{base}/v1", api_key=KEY, max_retries=0)
            ),
        )
