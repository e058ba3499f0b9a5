"""Attaching: what the client makes of a server before it serves."""

from __future__ import annotations

from typing import Any

import pytest
from tests.support.emulated import MODEL, emulated_profile
from tests.unit.executor.engines.trtllm_grpc.scripted_trtllm import (
    ScriptedServer,
    engine_at,
    listen,
)

from paretoserve.domain.errors import EngineError
from paretoserve.executor.engines.trtllm_grpc import TrtllmGrpcEngine


@pytest.mark.parametrize(
    ("info", "args", "sentence"),
    [
        ({"max_seq_len": 511}, {}, r"holds 511; limits\.context_tokens promises 512"),
        ({"max_batch_size": 1}, {}, r"holds 1; limits\.max_batch promises 2"),
        ({"model_id": "b"}, {"served_model": "a"}, "serves 'b', not 'a'"),
        ({}, {"vocab_size": None}, r"set engine_args\.vocab_size"),
    ],
)
async def test_a_server_that_cannot_keep_the_profiles_promises(
    info: dict[str, Any], args: dict[str, Any], sentence: str
) -> None:
    servicer = ScriptedServer()
    servicer.info = info
    server, address = await listen(servicer)
    engine = engine_at(address, **args)
    with pytest.raises(EngineError, match=sentence):
        await engine.start()
    await engine.stop()
    await server.stop(None)


async def test_a_stock_server_that_tells_little_is_enough() -> None:
    servicer = ScriptedServer()
    servicer.info = {"model_id": "m", "max_seq_len": 4096, "vocab_size": 900}
    server, address = await listen(servicer)
    engine = engine_at(address, vocab_size=None)
    info = await engine.start()
    assert (info.vocab_size, info.context_tokens, info.max_batch) == (900, 512, 2)
    assert info.device == f"{address}, 8 ranks, tensorrt-llm 1.3"
    await engine.stop()
    await server.stop(None)


async def test_a_server_that_never_answers_is_waited_for_only_so_long() -> None:
    servicer = ScriptedServer()
    servicer.silent = True
    server, address = await listen(servicer)
    engine = engine_at(address, wait_s=0.3, health_timeout_s=0.1)
    with pytest.raises(EngineError, match=r"is away: no answer; waited 0\.3 s"):
        await engine.start()
    await engine.stop()
    await server.stop(None)


async def test_health_is_read_from_the_status_although_the_code_is_ok() -> None:
    servicer = ScriptedServer()
    servicer.status = "Executor is unhealthy"
    server, address = await listen(servicer)
    engine = engine_at(address, wait_s=0.3)
    with pytest.raises(EngineError, match=r"is unhealthy: Executor is unhealthy; waited 0\.3 s"):
        await engine.start()
    await engine.stop()
    await server.stop(None)


async def test_nobody_there() -> None:
    engine = engine_at("127.0.0.1:1", wait_s=0.3)
    with pytest.raises(EngineError, match=r"the server at 127\.0\.0\.1:1 is away"):
        await engine.start()
    await engine.stop()


@pytest.mark.parametrize("args", [{}, {"address": "no-port"}, {"address": "h:1", "adress": "h:1"}])
def test_arguments_are_checked(args: dict[str, Any]) -> None:
    profile = emulated_profile(engine_args=args)
    with pytest.raises(EngineError, match=r"profile fast, engine_args: add?ress: "):
        TrtllmGrpcEngine(profile, MODEL)
