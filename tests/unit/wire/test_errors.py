from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from paretoserve.domain import errors
from paretoserve.domain.errors import (
    Cancelled,
    DeadlineExceeded,
    Evicted,
    InvalidRequest,
    ParetoserveError,
    PermissionDenied,
    QueueFull,
    QuotaExceeded,
    Rejected,
    ReplicaLost,
    Saturated,
    Unauthenticated,
    Unavailable,
)
from paretoserve.gateway.decision_header import MOST_CHARS
from paretoserve.wire.errors import (
    MAX_MESSAGE_BYTES,
    TABLE,
    Fate,
    decision_headers,
    error_from_reason,
    error_from_rpc,
    grpc_status,
    http_headers,
    openai_error,
    row_of,
)


def _tree(cls: type[ParetoserveError] = ParetoserveError) -> Iterator[type[ParetoserveError]]:
    yield cls
    for child in cls.__subclasses__():
        if child.__module__ == errors.__name__:
            yield from _tree(child)


TREE = sorted(set(_tree()), key=lambda cls: cls.__name__)


DECISION = 'outcome=rejected, rule="shed", tier="premium"'


def _example(cls: type[ParetoserveError]) -> ParetoserveError:
    if issubclass(cls, ReplicaLost):
        error: ParetoserveError = cls("executor é went away", delivered=7)
        error.retry_after_s = 2.25
    else:
        error = cls("what, where, é", param="messages[0]", retry_after_s=2.25)
    error.decision = DECISION
    return error


class _Raising(grpc.GenericRpcHandler):
    """A service whose every method answers with the error that the test put in `error`."""

    error: ParetoserveError = ParetoserveError("none set")

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        async def answer(_request: bytes, context: Any) -> bytes:
            if handler_call_details.method == "/t/Plain":
                await context.abort(row_of(self.error).grpc, self.error.message)
            status = grpc_status(self.error)
            trailing = (*status.trailing_metadata, *decision_headers(self.error).items())
            await context.abort(status.code, status.details, trailing)
            return b""

        return grpc.unary_unary_rpc_method_handler(answer)


@pytest.fixture
async def raising() -> AsyncIterator[tuple[_Raising, grpc.aio.Channel]]:
    handler = _Raising()
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((handler,))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield handler, channel
    await server.stop(None)


async def _call(
    raising: tuple[_Raising, grpc.aio.Channel], error: ParetoserveError, method: str = "Rich"
) -> grpc.aio.AioRpcError:
    handler, channel = raising
    handler.error = error
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await channel.unary_unary(f"/t/{method}")(b"")
    return raised.value


def test_every_error_has_its_own_row_and_its_own_word() -> None:
    assert set(TABLE) == set(TREE)
    assert len({cls.reason for cls in TREE}) == len(TREE)


@pytest.mark.parametrize("cls", TREE)
async def test_an_error_comes_back_through_grpc_as_itself(cls: type, raising: Any) -> None:
    sent = _example(cls)
    rpc_error = await _call(raising, sent)
    assert rpc_error.code() is TABLE[cls].grpc
    got = error_from_rpc(rpc_error)
    assert type(got) is cls
    assert (got.message, got.param) == (sent.message, sent.param)
    assert (got.retry_after_s, got.decision) == (sent.retry_after_s, DECISION)
    if isinstance(sent, ReplicaLost):
        assert isinstance(got, ReplicaLost)
        assert got.delivered == 7


async def test_a_sync_client_gets_the_same_error() -> None:
    status = grpc_status(Saturated("busy", retry_after_s=0.5))

    def answer(_request: bytes, context: grpc.ServicerContext) -> bytes:
        context.abort_with_status(status)
        raise AssertionError("abort raises")

    server = grpc.server(ThreadPoolExecutor(1))
    method = grpc.unary_unary_rpc_method_handler(answer)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("t", {"M": method}),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    channel = grpc.insecure_channel(f"127.0.0.1:{port}")
    with channel, pytest.raises(grpc.RpcError) as raised:
        channel.unary_unary("/t/M")(b"")
    server.stop(None).wait()
    got = error_from_rpc(raised.value)
    assert type(got) is Saturated
    assert got.retry_after_s == 0.5


async def test_error_info_names_domain_fate_and_param(raising: Any) -> None:
    rpc_error = await _call(raising, InvalidRequest("no", param="top_p"))
    status = rpc_status.from_call(rpc_error)  # type: ignore[arg-type]
    assert status is not None
    info = error_details_pb2.ErrorInfo()
    assert status.details[0].Unpack(info)
    assert (info.reason, info.domain) == ("invalid_request", "paretoserve")
    assert dict(info.metadata) == {"fate": "rejected", "param": "top_p"}
    assert len(status.details) == 1, "no RetryInfo: trying again cannot help"


@pytest.mark.parametrize(
    ("sent", "got"),
    [
        (InvalidRequest("x"), InvalidRequest),
        (Unauthenticated("x"), Unauthenticated),
        (PermissionDenied("x"), PermissionDenied),
        (QueueFull("x"), Rejected),
        (ReplicaLost("x"), Unavailable),
        (Evicted("x"), Evicted),
        (DeadlineExceeded("x"), DeadlineExceeded),
        (Cancelled("x"), Cancelled),
        (ParetoserveError("x"), ParetoserveError),
    ],
)
async def test_a_plain_status_becomes_the_nearest_class(
    sent: ParetoserveError, got: type, raising: Any
) -> None:
    assert type(error_from_rpc(await _call(raising, sent, "Plain"))) is got


async def test_an_unreachable_server_is_unavailable() -> None:
    async with grpc.aio.insecure_channel("127.0.0.1:1") as channel:
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await channel.unary_unary("/t/M")(b"")
    assert type(error_from_rpc(raised.value)) is Unavailable


async def test_a_message_over_grpcs_limit_is_the_callers_fault(raising: Any) -> None:
    _, channel = raising
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await channel.unary_unary("/t/M")(b"x" * (5 << 20))
    assert type(error_from_rpc(raised.value)) is InvalidRequest


@pytest.mark.parametrize("text", ["m" * 100_000, "é" * 100_000, "bad \ud800 surrogate"])
async def test_a_message_that_quotes_the_caller_still_arrives(text: str, raising: Any) -> None:
    sent = InvalidRequest(text, param=text)
    sent.decision = "d" * MOST_CHARS
    got = error_from_rpc(await _call(raising, sent))
    assert type(got) is InvalidRequest
    assert got.decision == sent.decision
    assert 0 < len(got.message.encode()) <= MAX_MESSAGE_BYTES
    assert len(openai_error(InvalidRequest(text))["error"]["message"].encode()) <= MAX_MESSAGE_BYTES


@pytest.mark.parametrize("cls", TREE)
def test_http_tells_rejected_from_evicted(cls: type[ParetoserveError]) -> None:
    row, headers = TABLE[cls], http_headers(_example(cls))
    assert headers["x-paretoserve-reason"] == f"{row.fate}; {cls.reason}"
    assert headers["x-paretoserve-decision"] == DECISION
    assert "x-paretoserve-decision" not in http_headers(cls("x")), "nothing was decided"
    assert ("retry-after" in http_headers(cls("x"))) == (row.http in {429, 503})
    assert row.fate is not Fate.EVICTED or issubclass(cls, Evicted)
    assert (row.http in {400, 401, 403, 404, 429}) <= (row.fate is Fate.REJECTED)


def test_openai_body_and_headers() -> None:
    error = QuotaExceeded("too many", param=None, retry_after_s=0.25)
    assert openai_error(error) == {
        "error": {
            "message": "too many",
            "type": "rate_limit_error",
            "param": None,
            "code": "rate_limit_exceeded",
        }
    }
    headers = http_headers(error)
    assert (headers["retry-after"], headers["retry-after-ms"]) == ("1", "250")
    assert http_headers(Unauthenticated("who"))["www-authenticate"] == "Bearer"


@pytest.mark.parametrize("seconds", [float("inf"), float("nan"), -1.0])
def test_a_retry_time_that_makes_no_sense_is_bounded(seconds: float) -> None:
    error = Saturated("busy", retry_after_s=seconds)
    assert 1 <= int(http_headers(error)["retry-after"]) <= 3600
    assert grpc_status(error).trailing_metadata


def test_a_subclass_outside_the_tree_uses_its_parents_row() -> None:
    class Odd(QueueFull):
        reason = "odd"

    assert row_of(Odd("x")) is TABLE[QueueFull]


def test_reasons_name_classes() -> None:
    assert type(error_from_reason("queue_full", "x")) is QueueFull
    assert type(error_from_reason("from_the_future", "x")) is ParetoserveError
