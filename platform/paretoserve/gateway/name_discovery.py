"""Discovery by names: every address that a name resolves to is an executor of its profile.

On Kubernetes the name is a headless Service's, so gateways need no access to any API, and see the
executors of two Ray clusters while one takes over from the other. A name only tells which addresses
exist: whether something serves there, and runs that profile, the links find out.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import socket
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass

from paretoserve.gateway.discovery import Endpoint, OnEndpoints

logger = logging.getLogger(__name__)

EVERY_S = 2.0

Resolve = Callable[[str, int], Sequence[str]]
"""From a host and a port to its addresses, host:port each; blocks. Empty: the name has none.

Raises OSError when no answer can be had.
"""


@dataclass(frozen=True, slots=True)
class Name:
    """A profile and the name under which its executors are found."""

    profile: str
    host: str
    port: int

    def __str__(self) -> str:
        return f"{self.host}:{self.port} of profile {self.profile}"


def resolve(host: str, port: int) -> Sequence[str]:
    """Of both families, by the system's resolver. Raises OSError when it does not answer."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except socket.gaierror as error:
        if error.errno in {socket.EAI_NONAME, socket.EAI_NODATA}:  # an answer: there is none
            return ()
        raise
    except UnicodeError as error:  # a label of more than 63 characters
        raise OSError(f"{host!r} is not a host name: {error}") from error
    hosts = (str(address[0]) for *_, address in found)
    return [f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host in hosts]


def replica_id(endpoint: Endpoint) -> str:
    """The same at every gateway and after every look; does not tell clients the address."""
    digest = hashlib.sha256(endpoint.address.encode()).hexdigest()[:8]
    return f"{endpoint.profile}-{digest}"


class NameDiscovery:
    """Looks every name up at intervals, each by itself, and reports what has changed.

    While no answer can be had for a name, what it resolved to last stays. `fixed` endpoints are
    always among those reported.
    """

    def __init__(
        self,
        names: Iterable[Name],
        fixed: Mapping[str, Endpoint] | None = None,
        *,
        resolve: Resolve = resolve,
        every_s: float = EVERY_S,
    ) -> None:
        self._fixed = dict(fixed or {})
        self._resolve = resolve
        self._every_s = every_s
        self._known: dict[Name, frozenset[str] | None] = dict.fromkeys(names)
        self._failing: set[Name] = set()
        self._told: dict[str, Endpoint] | None = None
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self, on_endpoints: OnEndpoints) -> None:
        """Begin to look; see gateway/discovery.py."""
        self._report(on_endpoints)
        self._tasks = [
            asyncio.create_task(self._follow(name, on_endpoints)) for name in self._known
        ]

    async def stop(self) -> None:
        """Report no more. Idempotent."""
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _follow(self, name: Name, on_endpoints: OnEndpoints) -> None:
        while True:
            try:
                found = await _in_thread(lambda: self._resolve(name.host, name.port))
            except OSError as error:
                self._failed(name, error)
            except Exception:
                logger.exception("%s cannot be looked up", name)
            else:
                self._found(name, frozenset(found))
                self._report(on_endpoints)
            await asyncio.sleep(self._every_s)

    def _failed(self, name: Name, error: OSError) -> None:
        if name not in self._failing:
            self._failing.add(name)
            kept = len(self._known[name] or ())
            why = error.strerror or error
            logger.warning("%s cannot be looked up: %s; its %d addresses stay", name, why, kept)

    def _found(self, name: Name, addresses: frozenset[str]) -> None:
        if name in self._failing:
            self._failing.discard(name)
            logger.info("%s can be looked up again", name)
        before = self._known[name]
        if not addresses and before != addresses:
            logger.warning("%s has no address", name)
        for address in sorted(addresses - (before or frozenset())):
            endpoint = Endpoint(name.profile, address)
            logger.info("replica %s is at %s", replica_id(endpoint), address)
        self._known[name] = addresses

    def _report(self, on_endpoints: OnEndpoints) -> None:
        named = (
            Endpoint(name.profile, address)
            for name, addresses in self._known.items()
            for address in sorted(addresses or ())
        )
        fixed = set(self._fixed.values())
        present = self._fixed | {replica_id(e): e for e in named if e not in fixed}
        if present != self._told:
            self._told = present
            on_endpoints(present)


async def _in_thread(call: Callable[[], Sequence[str]]) -> Sequence[str]:
    """On a daemon thread: a resolver that hangs must neither fill a pool nor delay the exit."""
    answer: Future[Sequence[str]] = Future()
    answer.set_running_or_notify_cancel()

    def run() -> None:
        try:
            answer.set_result(call())
        except Exception as error:  # noqa: BLE001 (raised to who waits)
            answer.set_exception(error)

    threading.Thread(target=run, name="resolver", daemon=True).start()
    return await asyncio.wrap_future(answer)
