"""A gRPC server around one engine, from bind to drained; which protocol it speaks, subclasses say."""

from __future__ import annotations

from dataclasses import replace

import grpc.aio

from paretoserve.domain.address import Address
from paretoserve.domain.errors import Unavailable
from paretoserve.executor.contract import Engine, EngineInfo
from paretoserve.executor.host import EngineHost
from paretoserve.executor.transport import SERVER_OPTIONS
from paretoserve.executor.watchdog import STALL_AFTER_S

_CLOSE_S = 2.0


class EngineServer:
    """Hosts one engine. `bind`, then `start_engine`, in the end `stop`; one event loop.

    A subclass adds its services to `_server` before `bind`.
    """

    def __init__(
        self, engine: Engine, profile: str, *, stall_after_s: float = STALL_AFTER_S
    ) -> None:
        self.host = EngineHost(engine, profile, stall_after_s=stall_after_s)
        self._server = grpc.aio.server(options=SERVER_OPTIONS)

    async def bind(self, listen: str) -> str:
        """Listen on host:port (0: any free port) and answer as starting; returns the address.

        Raises Unavailable when the address cannot be had.
        """
        at = listen_address(listen)
        try:
            port = self._server.add_insecure_port(str(at))
        except RuntimeError as error:
            raise Unavailable(f"cannot listen on {listen}: {error}") from error
        await self._announce(serving=False)
        await self._server.start()
        return str(replace(at, port=port))

    async def start_engine(self) -> EngineInfo:
        """Load the engine and serve. Raises EngineError; the server then tells why it failed."""
        info = await self.host.start()
        await self._announce(serving=True)
        return info

    async def stop(self, grace_s: float = 0.0) -> None:
        """Let running requests end for up to `grace_s`, abort the rest, close. Idempotent."""
        await self._drain(grace_s)
        self.host.end_watches()
        await self._server.stop(_CLOSE_S)
        await self.host.stop()

    async def _announce(self, *, serving: bool) -> None:
        """Tell those who ask for the server's health in a way of the protocol's own."""

    async def _drain(self, grace_s: float) -> None:
        """Drain the host, and let calls end that would wait for more."""
        await self.host.drain(grace_s)


def listen_address(text: str) -> Address:
    """Where to listen. Raises Unavailable for what is no address."""
    try:
        return Address.parse(text)
    except ValueError as error:
        raise Unavailable(f"cannot listen on {text!r}: {error}") from None
