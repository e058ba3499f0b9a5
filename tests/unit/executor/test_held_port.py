"""A fixed port is one executor's alone, although SO_REUSEPORT would let it be shared."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from contextlib import closing

import grpc.aio
import pytest

from paretoserve.domain.errors import Unavailable
from paretoserve.executor.held_port import HeldPort


@pytest.fixture
def port() -> int:
    """Free a moment ago."""
    with closing(socket.create_server(("127.0.0.1", 0))) as found:
        return int(found.getsockname()[1])


@pytest.fixture
def sharing(port: int) -> Iterator[socket.socket]:
    """What another program that shares its port looks like."""
    with closing(socket.socket()) as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        other.bind(("127.0.0.1", port))
        yield other


async def test_grpc_listens_on_it_again_and_again(port: int) -> None:
    held = HeldPort("127.0.0.1", port)
    for _ in range(2):
        server = grpc.aio.server()
        assert server.add_insecure_port(held.address) == port
        await server.start()
        with closing(socket.create_connection(("127.0.0.1", port))):
            await server.stop(None)
    held.release()
    HeldPort("127.0.0.1", port).release()


@pytest.mark.parametrize("listening", [False, True])
def test_a_port_that_something_else_has_is_refused(
    port: int, sharing: socket.socket, listening: bool
) -> None:
    if listening:
        sharing.listen()
    with pytest.raises(OSError, match="in use"):
        HeldPort("127.0.0.1", port)
    sharing.close()
    HeldPort("127.0.0.1", port).release()


def test_two_holders_do_not_share(port: int) -> None:
    held = HeldPort("127.0.0.1", port)
    with pytest.raises(OSError, match="in use"):
        HeldPort("127.0.0.1", port)
    HeldPort("127.0.0.2", port).release()
    held.release()


async def test_it_is_waited_for_and_then_named(port: int) -> None:
    held = HeldPort("127.0.0.1", port)
    with pytest.raises(Unavailable, match=f"cannot listen on 127.0.0.1:{port}.*has this port"):
        await HeldPort.take("127.0.0.1", port, patience_s=0.3)
    waiting = asyncio.create_task(HeldPort.take("127.0.0.1", port, patience_s=20))
    await asyncio.sleep(0.1)
    held.release()
    (await waiting).release()


@pytest.mark.parametrize("number", [0, 9500])
async def test_an_address_of_another_machine_is_told_at_once(number: int) -> None:
    with pytest.raises(
        Unavailable, match=rf"cannot listen on 203\.0\.113\.7:{number}: Cannot"
    ) as told:
        await asyncio.wait_for(HeldPort.take("203.0.113.7", number, patience_s=60), 30)
    assert "another" not in str(told.value)
