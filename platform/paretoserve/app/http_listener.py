"""An ASGI application on its own address, by uvicorn, inside a running event loop."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import uvicorn

from paretoserve.app.http_guard import GuardedProtocol
from paretoserve.domain.address import Address
from paretoserve.domain.errors import Unavailable

MAX_CONNECTIONS = 4096
"""Beyond, uvicorn answers 503."""


class _Server(uvicorn.Server):
    """uvicorn without its signal handlers: whoever runs the loop decides when to stop."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class HttpListener:
    """Serves `app` on `address`: HOST:PORT, port 0 takes a free one. ValueError for another text."""

    def __init__(self, app: Any, address: str) -> None:
        self._app = app
        self._address = Address.parse(address)
        self._server: _Server | None = None
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> str:
        """Listen; returns host:port. Raises Unavailable for an address that cannot be had."""
        at = self._address
        family = socket.AF_INET6 if ":" in at.host else socket.AF_INET
        try:
            bound = socket.create_server((at.host, at.port), family=family)
        except OSError as error:
            raise Unavailable(f"cannot listen on {at}: {error.strerror}") from error
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
        return str(replace(at, port=bound.getsockname()[1]))

    async def stop(self, grace_s: float) -> None:
        """Take no new requests; those that run may go on for `grace_s`. Idempotent."""
        server, task = self._server, self._task
        self._server = self._task = None
        if server is None or task is None:
            return
        server.config.timeout_graceful_shutdown = max(1, round(grace_s))
        server.should_exit = True
        await task
