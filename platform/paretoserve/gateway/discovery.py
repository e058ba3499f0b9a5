"""Where the executors are. Ray Serve is one source, names another, a fixed list a third."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One replica's executor: the profile it runs and its gRPC address, host:port."""

    profile: str
    address: str


OnEndpoints = Callable[[Mapping[str, Endpoint]], None]
"""Receives the whole present set by replica id. Called on the gateway's event loop."""


class Discovery(Protocol):
    """Tells the gateway which replicas exist now."""

    async def start(self, on_endpoints: OnEndpoints) -> None:
        """Begin to report: the present set soon, then each change."""

    async def stop(self) -> None:
        """Report no more. Idempotent."""


class StaticDiscovery:
    """A fixed set of executors, for tests and for running without Ray."""

    def __init__(self, endpoints: Mapping[str, Endpoint]) -> None:
        self._endpoints = dict(endpoints)

    async def start(self, on_endpoints: OnEndpoints) -> None:
        on_endpoints(self._endpoints)

    async def stop(self) -> None:
        return
