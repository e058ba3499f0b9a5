"""A TCP port that outlives the executors which listen on it, and that is nobody else's."""

from __future__ import annotations

import asyncio
import errno
import socket
import sys
import time
from typing import Self

from paretoserve.domain.address import Address
from paretoserve.domain.errors import Unavailable

_RETRY_S = 0.25


class HeldPort:
    """A port that stays ours while no executor listens on it.

    A socket that is bound with SO_REUSEPORT and never listens takes no connections, keeps the
    kernel from giving the port to anyone else, and lets gRPC (which sets SO_REUSEPORT) bind it.
    The same option would let two holders of one user share a fixed port without a word, each with
    a part of the connections. So a fixed port is refused where anything is bound to it, and claimed
    by a name in the abstract socket namespace, which is as wide as the ports' own.
    """

    def __init__(self, host: str, port: int = 0) -> None:
        """`port` 0 takes a free one. Raises OSError for a port that something else has, and when
        `host` is not an address of this machine.
        """
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._claim = _claim(host, port) if port else None
        self._socket = socket.socket(family, socket.SOCK_STREAM)
        try:
            if port:
                _must_be_free(family, host, port)
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            self._socket.bind((host, port))
        except OSError:
            self.release()
            raise
        port = self._socket.getsockname()[1]
        self.address = str(Address(host, port))

    @classmethod
    async def take(cls, host: str, port: int, patience_s: float) -> Self:
        """Hold `port`, or any where it is 0; for up to `patience_s`, one that is taken is waited
        for, as it may be an executor's that is about to end with its supervisor.

        Raises Unavailable, naming the port.
        """
        deadline = time.monotonic() + patience_s
        while True:
            try:
                return cls(host, port)
            except OSError as error:
                taken = port and error.errno == errno.EADDRINUSE
                if not taken or time.monotonic() >= deadline:
                    whose = ": another executor or program has this port" if taken else ""
                    raise Unavailable(
                        f"cannot listen on {Address(host, port)}: {error.strerror}{whose}"
                    ) from error
            await asyncio.sleep(_RETRY_S)

    def release(self) -> None:
        """Give the port back. Idempotent."""
        self._socket.close()
        if self._claim is not None:
            self._claim.close()


def _claim(host: str, port: int) -> socket.socket | None:
    """A name that one process at a time can have; the kernel frees it with the process."""
    if sys.platform != "linux":
        return None
    claim = socket.socket(socket.AF_UNIX)
    try:
        claim.bind(f"\0paretoserve {host}:{port}")
    except OSError:
        claim.close()
        raise
    return claim


def _must_be_free(family: int, host: str, port: int) -> None:
    """Without SO_REUSEPORT nobody shares; with SO_REUSEADDR connections that are over do not count."""
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind((host, port))
