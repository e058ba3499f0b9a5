"""A gateway process that finds executor processes by name, and what it does as names change."""

from __future__ import annotations

import signal
import socket
from collections.abc import Iterator
from contextlib import ExitStack, closing, suppress
from pathlib import Path

import grpc
import httpx
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from toy_platform import Client, Stream, executor, gateway, until, write_deployment

from paretoserve.app.cli import main


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_deployment(tmp_path_factory.mktemp("deployment"))
    (folder / "names").mkdir()
    return folder


@pytest.fixture
def port() -> int:
    """Free a moment ago, at every address."""
    with closing(socket.create_server(("0.0.0.0", 0))) as found:
        return int(found.getsockname()[1])


@pytest.fixture
def start() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def name(folder: Path, host: str, *addresses: str) -> None:
    """From now on the host has these; renamed into place, as it is read at any moment."""
    (folder / "new").write_text(" ".join(addresses))
    (folder / "new").rename(folder / "names" / host)


def ready(http: str) -> bool:
    return httpx.get(f"{http}/ready", timeout=10).status_code == 200


def grpc_health(address: str) -> int:
    with grpc.insecure_channel(address) as channel:
        return health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest()).status


def replicas(client: Client, tier: str) -> set[str]:
    """Those that two requests of the tier at a time go to; that is spread over the idle ones.

    One may be refused: what has just ended still counts until the executor's next report.
    """
    streams: list[Stream] = []
    with suppress(grpc.RpcError):
        streams.extend(client.generate(tier, max_tokens=10) for _ in range(2))
    for stream in streams:
        stream.completed()
    return {stream.started.replica_id for stream in streams}


def test_ready_once_an_executor_serves_and_streams_outlive_their_name(
    folder: Path, port: int, start: ExitStack
) -> None:
    name(folder, "fast.test")
    name(folder, "wide.test", "127.0.0.4")
    discover = [f"--discover={p}={p}.test:{port}" for p in ("fast", "wide")]
    program, http, address = start.enter_context(gateway(folder, *discover))
    assert not ready(http)
    assert grpc_health(address) == health_pb2.HealthCheckResponse.NOT_SERVING
    assert httpx.get(f"{http}/health", timeout=10).status_code == 200, "alive, though not ready"

    for host in ("127.0.0.2", "127.0.0.3"):
        start.enter_context(executor(folder, "fast", f"{host}:{port}"))
    name(folder, "fast.test", "127.0.0.2", "127.0.0.3")
    until(lambda: ready(http), "ready")
    until(lambda: grpc_health(address) == health_pb2.HealthCheckResponse.SERVING, "gRPC too")

    client = Client(address)
    start.callback(client.close)
    both = until(lambda: len(r := replicas(client, "fast-first")) == 2 and r, "both are used")
    streams = [client.generate("fast-first", max_tokens=800) for _ in range(2)]
    for stream in streams:
        stream.wait_flowing()
    assert {stream.started.replica_id for stream in streams} == both

    name(folder, "fast.test", "127.0.0.3")
    left = until(lambda: len(r := replicas(client, "fast-first")) == 1 and r, "one is used")
    name(folder, "fast.test", "failing")
    until(
        lambda: "cannot be looked up: no name server; its 1 addresses stay" in program.said(),
        "told",
    )
    assert until(lambda: replicas(client, "fast-first"), "it serves") == left
    assert all(stream.tokens < 800 for stream in streams), "they still run"
    for stream in streams:
        end = stream.completed()
        assert (end.usage.completion_tokens, end.moves) == (800, 0)
        assert stream.exact(800)

    name(folder, "fast.test", "127.0.0.3", "127.0.0.2")
    assert both == until(lambda: len(r := replicas(client, "fast-first")) == 2 and r, "back again")
    assert program.said().count("cannot be looked up") == 1
    assert program.said().count("can be looked up again") == 1


def test_an_executor_of_another_profile_is_not_used(
    folder: Path, port: int, start: ExitStack
) -> None:
    start.enter_context(executor(folder, "wide", f"127.0.0.5:{port}"))
    program, http, address = start.enter_context(
        gateway(folder, f"--discover=fast=127.0.0.5:{port}", f"--executor=wide=127.0.0.6:{port}")
    )
    said = f"executor at 127.0.0.5:{port} is lost: it runs profile wide, not fast as it should"
    until(lambda: said in program.said(), "it is told")
    assert not ready(http)

    start.enter_context(executor(folder, "wide", f"127.0.0.6:{port}"))
    until(lambda: ready(http), "ready")
    client = Client(address)
    start.callback(client.close)
    stream = client.generate("fast-first")
    assert (stream.started.profile, stream.started.replica_id) == ("wide", "wide-0")
    assert stream.completed().usage.completion_tokens == 4
    assert program.said().count(said) == 1, "once, however often it is tried"


def test_a_gateway_that_drains_says_so_and_lets_streams_end(
    folder: Path, port: int, start: ExitStack
) -> None:
    start.enter_context(executor(folder, "fast", f"127.0.0.7:{port}"))
    program, http, address = start.enter_context(
        gateway(folder, f"--discover=fast=127.0.0.7:{port}")
    )
    serving = health_pb2.HealthCheckResponse.SERVING
    until(lambda: grpc_health(address) == serving, "ready")
    client = Client(address)
    start.callback(client.close)
    channel = start.enter_context(grpc.insecure_channel(address))
    watched = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
    assert next(watched).status == serving
    stream = client.generate("fast-first", max_tokens=300)
    stream.wait_flowing()

    program.process.terminate()
    assert next(watched).status == health_pb2.HealthCheckResponse.NOT_SERVING
    until(lambda: not _reachable(http), "no new connections", 10)
    assert stream.tokens < 300, "it still runs"
    watched.cancel()
    assert stream.completed().usage.completion_tokens == 300
    assert program.process.wait(30) == 0


def test_a_second_sigterm_ends_it_at_once(folder: Path, port: int, start: ExitStack) -> None:
    start.enter_context(executor(folder, "fast", f"127.0.0.8:{port}"))
    program, http, address = start.enter_context(
        gateway(folder, f"--discover=fast=127.0.0.8:{port}")
    )
    until(lambda: ready(http), "ready")
    client = Client(address)
    start.callback(client.close)
    stream = client.generate("fast-first", max_tokens=4000)
    stream.wait_flowing()
    program.process.terminate()
    until(lambda: not _reachable(http), "no new connections", 10)
    program.process.terminate()
    assert program.process.wait(5) == 128 + signal.SIGTERM
    with pytest.raises(grpc.RpcError):
        stream.completed()


def _reachable(http: str) -> bool:
    try:
        return ready(http)
    except httpx.TransportError:
        return False


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ((), "no executor: give --executor or --discover"),
        (
            ("--discover=fats=x:1",),
            "--discover fats=x:1: write PROFILE=HOST:PORT; profiles are fast, wide",
        ),
        (("--discover=fast=x",), "write PROFILE=HOST:PORT; of 'x': it must be HOST:PORT"),
        (("--discover=fast=[]:1",), "write PROFILE=HOST:PORT; of '[]:1'"),
        (("--discover=fast=::1:50051",), "an IPv6 address in brackets"),
        (("--executor=fast=127.0.0.1:0",), "the port 1 to 65535"),
        (("--executor=fast=127.0.0.1:http",), "write PROFILE=HOST:PORT"),
        (("--executor=fast=x:1", "--executor=fast=x:1"), "--executor fast=x:1: given twice"),
        (("--discover=fast=x:1", "--discover=fast=x:1"), "--discover fast=x:1: given twice"),
        (("--executor=fast=x:1", "--http=203.0.113.7:0"), "cannot listen on 203.0.113.7:0: Cannot"),
        (("--executor=fast=x:1", "--grpc=203.0.113.7:0"), "cannot listen on 203.0.113.7:0"),
    ],
)
def test_a_bad_option_says_what_would_be_right(
    folder: Path, capsys: pytest.CaptureFixture[str], options: tuple[str, ...], said: str
) -> None:
    listen = ("--http=127.0.0.1:0", "--grpc=127.0.0.1:0")
    assert main(["gateway", "--deployment", str(folder), *listen, *options]) == 1
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("--http=x", "'x': it must be HOST:PORT, the port 0 to 65535"),
        ("--http=:8000", "':8000': it must be HOST:PORT"),
        ("--grpc=127.0.0.1:99999", "'127.0.0.1:99999': it must be HOST:PORT"),
        ("--grace=nan", "'nan' is not a number 0 or more"),
        ("--grace=-1", "'-1' is not a number 0 or more"),
    ],
)
def test_what_cannot_be_an_option_is_refused(
    folder: Path, capsys: pytest.CaptureFixture[str], option: str, said: str
) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["gateway", "--deployment", str(folder), "--executor=fast=x:1", option])
    assert said in capsys.readouterr().err
