"""Discovery on Ray Serve: the profile deployments' replicas, as Serve's long poll tells them.

Serve may keep naming a replica for a minute after a network partition: liveness is the gateway's
own business (its executor streams and probes). This only tells which replicas exist.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from paretoserve.app.serve.directory import DIRECTORY, ReplicaDirectory
from paretoserve.gateway.discovery import Endpoint, OnEndpoints


class RayServeDiscovery:
    """Reports the replicas of the deployments behind `handles` (ray's DeploymentHandle)."""

    def __init__(self, handles: Iterable[Any], directory: ReplicaDirectory = DIRECTORY) -> None:
        self._handles = tuple(handles)
        self._directory = directory
        self._unsubscribe: Callable[[], None] | None = None

    async def start(self, on_endpoints: OnEndpoints) -> None:
        """Begin to report; see gateway/discovery.py."""
        loop = asyncio.get_running_loop()

        def forward(endpoints: Mapping[str, Endpoint]) -> None:
            loop.call_soon_threadsafe(on_endpoints, endpoints)

        self._unsubscribe = self._directory.subscribe(forward)
        for handle in self._handles:
            handle.options()  # the documented way to make Serve start a handle's router

    async def stop(self) -> None:
        """Report no more. Idempotent."""
        if self._unsubscribe is not None:
            self._unsubscribe()
            self._unsubscribe = None
