"""An ASGI application on its own address, by uvicorn, inside a running event loop."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterator
from typing import Any

import uvicorn

from paretoserve.app.http_guard import GuardedProtocol

MAX_CONNECTIONS = 4096
"""Beyond, uvicorn answers 503."""


class _Server(uvicorn.Server):
    """uvicorn without its signal handlers: whoever runs the loop decides when to stop."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class HttpListener:
    """Serves `app` on `address` (host:port; port 0 takes a free one)."""

    def __init__(self, app: Any, address: str) -> None:
        self._app = app
        self._host, _, port = address.rpartition(":")
        self._port = int(port)
        self._server: _Server | None = None
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> str:
        """Listen; returns host:port. Raises OSError for an address that cannot be bound."""
        family = socket.AF_INET6 if ":" in self._host else socket.AF_INET
        bound = socket.create_server((self._host.strip("[]"), self._port), family=family)
        self._server = _Server(
            uvicorn.Config(
                self._app,
                access_log=False,
                log_config=None,
                lifespan="off",
                timeout_keep_alive=30,
                limit_concurrency=MAX_CONNECTIONS,
                http=GuardedProtocol,
                ws="none",
            )
        )
        self._task = asyncio.create_task(self._server.serve(sockets=[bound]))
        while not self._server.started and not self._task.done():  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        return f"{self._host}:{bound.getsockname()[1]}"

    async def stop(self, grace_s: float) -> None:
        """Take no new requests; those that run may go on for `grace_s`. Idempotent."""
        server, task = self._server, self._task
        self._server = self._task = None
        if server is None or task is None:
            return
        server.config.timeout_graceful_shutdown = max(1, round(grace_s))
        server.should_exit = True
        await task
