"""The listener's bounds, over real sockets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from paretoserve.app import http_guard
from paretoserve.app.http_listener import HttpListener


async def echo(request: Request) -> PlainTextResponse:
    return PlainTextResponse(str(len(await request.body())))


@asynccontextmanager
async def connected() -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    listener = HttpListener(Starlette(routes=[Route("/", echo, methods=["POST"])]), "127.0.0.1:0")
    host, _, port = (await listener.start()).rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        yield reader, writer
    finally:
        writer.close()
        await listener.stop(1.0)


async def first_line(reader: asyncio.StreamReader) -> bytes:
    return await asyncio.wait_for(reader.readline(), 10)


async def test_a_head_of_any_size_is_refused_long_before_it_ends() -> None:
    async with connected() as (_, writer):
        writer.write(b"POST / HTTP/1.1\r\nhost: x\r\n")
        with pytest.raises(ConnectionError):
            await flood(writer)


async def flood(writer: asyncio.StreamWriter) -> None:
    for _ in range(10_000):
        writer.write(b"x-filler: " + b"a" * 4000 + b"\r\n")
        await writer.drain()
        await asyncio.sleep(0)


async def test_a_large_head_is_told_431() -> None:
    async with connected() as (reader, writer):
        writer.write(b"POST / HTTP/1.1\r\nhost: x\r\nx-filler: " + b"a" * 70_000)
        assert b"431" in await first_line(reader)


async def test_a_head_that_never_ends_is_told_408(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_guard, "HEAD_TIMEOUT_S", 0.2)
    async with connected() as (reader, writer):
        writer.write(b"POST / HTTP/1.1\r\nhost: x\r\n")
        assert b"408" in await first_line(reader)
        assert b"connection: close" in await asyncio.wait_for(reader.read(), 10)


async def test_large_bodies_and_further_requests_pass() -> None:
    async with connected() as (reader, writer):
        for size in (300_000, 5):
            writer.write(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % size)
            writer.write(b"a" * size)
            assert b"200" in await first_line(reader)
            while await reader.readline() != b"\r\n":
                pass
            assert await reader.readexactly(len(str(size))) == str(size).encode()
