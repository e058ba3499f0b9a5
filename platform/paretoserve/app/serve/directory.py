"""Which replicas exist, as far as this process has been told.

Serve's request routers write it and the gateway's discovery reads it. It stands in a module of its
own because Serve pickles a router's module by value: a global there would exist twice.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping

from paretoserve.gateway.discovery import Endpoint

Listener = Callable[[Mapping[str, Endpoint]], None]
"""Receives the whole present set by replica id, on the announcing thread; must not block."""


class ReplicaDirectory:
    """Replicas of all deployments. Thread-safe; listeners hear every change, in order."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._by_deployment: dict[str, dict[str, Endpoint]] = {}
        self._listeners: list[Listener] = []

    def announce(self, deployment: str, endpoints: Mapping[str, Endpoint]) -> None:
        """These, and no others, are the running replicas of `deployment`."""
        with self._lock:
            if self._by_deployment.get(deployment) == endpoints:
                return
            self._by_deployment[deployment] = dict(endpoints)
            present = self._present()
            for listener in self._listeners:
                listener(present)

    def subscribe(self, listener: Listener) -> Callable[[], None]:
        """Tell `listener` the present set now and each change; returns what ends that."""
        with self._lock:
            self._listeners.append(listener)
            listener(self._present())
        return lambda: self._unsubscribe(listener)

    def _unsubscribe(self, listener: Listener) -> None:
        with self._lock:
            if listener in self._listeners:
                self._listeners.remove(listener)

    def _present(self) -> dict[str, Endpoint]:
        return {
            replica_id: endpoint
            for endpoints in self._by_deployment.values()
            for replica_id, endpoint in endpoints.items()
        }


DIRECTORY = ReplicaDirectory()
"""This process's directory."""
