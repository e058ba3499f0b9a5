"""The conformance suite catches engines that break the contract, each in one way."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Sequence
from dataclasses import replace

import pytest
from tests.support.emulated import MODEL, emulated_profile

from paretoserve.domain.errors import EngineError
from paretoserve.executor import conformance
from paretoserve.executor.conformance import CHECKS, Subject, Violation, life, limits, output
from paretoserve.executor.contract import Chunk, Deliver, GenerationRequest
from paretoserve.executor.engines.emulator import EmulatorEngine

PROFILE = emulated_profile(max_batch=4, max_queue=2, context_tokens=2048)


class Good(EmulatorEngine):
    def __init__(self) -> None:
        super().__init__(PROFILE, MODEL)


class Bending(Good):
    """Passes what it delivers through `bend`."""

    def generate(self, request: GenerationRequest, deliver: Deliver) -> None:
        super().generate(request, _Bent(self, deliver))

    def bend(self, chunks: Sequence[Chunk]) -> list[Chunk]:
        return list(chunks)

    def pass_on(self, deliver: Deliver, chunks: Sequence[Chunk]) -> None:
        if bent := self.bend(chunks):
            deliver(bent)


class _Bent:
    """A callable that is equal for equal targets, so that the engine still groups by it."""

    def __init__(self, engine: Bending, deliver: Deliver) -> None:
        self._engine, self._deliver = engine, deliver

    def __call__(self, chunks: Sequence[Chunk]) -> None:
        self._engine.pass_on(self._deliver, chunks)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Bent) and self._deliver == other._deliver

    def __hash__(self) -> int:
        return hash(self._deliver)


class TwoTerminals(Bending):
    def bend(self, chunks):
        return [*chunks, *(chunk for chunk in chunks if chunk.finish)]


class LostTerminal(Bending):
    def bend(self, chunks):
        return [replace(chunk, finish=None) for chunk in chunks]


class LostToken(Bending):
    def bend(self, chunks):
        return [replace(c, token_ids=c.token_ids[:-1]) if c.finish else c for c in chunks]


class WrongUsage(Bending):
    def bend(self, chunks):
        return [replace(c, finish=self._off(c.finish)) if c.finish else c for c in chunks]

    def _off(self, finish):
        return replace(finish, usage=replace(finish.usage, prompt_tokens=1))


class Random(Bending):
    _count = itertools.count()

    def bend(self, chunks):
        return [replace(c, token_ids=tuple(next(self._count) for _ in c.token_ids)) for c in chunks]


class CallPerChunk(Bending):
    def pass_on(self, deliver, chunks):
        for chunk in chunks:
            deliver([chunk])


class DeliversInGenerate(Good):
    def generate(self, request, deliver):
        super().generate(request, deliver)
        deliver([Chunk(request.request_id)])


class DeafToAbort(Good):
    def abort(self, request_id):
        pass


class EndlessQueue(Good):
    def __init__(self) -> None:
        EmulatorEngine.__init__(
            self, emulated_profile(max_batch=4, max_queue=2000, context_tokens=2048), MODEL
        )


class SilentStop(Bending):
    _stopping = False

    async def stop(self):
        self._stopping = True
        await super().stop()

    def bend(self, chunks):
        return [] if self._stopping else list(chunks)


class StopHangs(Good):
    async def stop(self):
        await super().stop()
        if self._player is None:
            await asyncio.sleep(60)


class Leaks(Good):
    _leaked = 0

    def generate(self, request, deliver):
        super().generate(request, deliver)
        self._leaked += 16

    def stats(self):
        stats = super().stats()
        return replace(stats, kv_used_tokens=stats.kv_used_tokens + self._leaked)


BROKEN = [
    (TwoTerminals, output.ends_exactly_once, "after its terminal one"),
    (LostTerminal, output.ends_exactly_once, "no terminal chunk"),
    (LostToken, output.ends_exactly_once, "tokens delivered"),
    (LostToken, output.concurrent_streams, "of 6 streams"),
    (WrongUsage, output.ends_exactly_once, "prompt tokens"),
    (Random, output.same_seed_same_tokens, "different tokens"),
    (Random, output.stop_ids_end_a_stream, "was due"),
    (CallPerChunk, output.one_call_per_step, "deliver was called"),
    (DeliversInGenerate, output.ends_exactly_once, "before generate returned"),
    (LostToken, output.slow_reader_is_bounded, "of 48 tokens|tokens delivered"),
    (DeafToAbort, limits.abort_frees_the_slot, "no terminal chunk"),
    (DeafToAbort, limits.abort_of_a_waiting_request, "no terminal chunk"),
    (EndlessQueue, limits.a_full_queue_refuses, "but the request was taken"),
    (Leaks, limits.load_returns_to_idle, "KV use of the idle engine grows"),
    (SilentStop, life.stop_while_streaming, "had no end after stop"),
    (StopHangs, life.stop_twice, "stop did not return"),
]


def subject(engine: type[EmulatorEngine], patience_s: float = 0.5) -> Subject:
    return Subject(PROFILE, engine, engine, patience_s)


@pytest.mark.parametrize(("engine", "check", "complaint"), BROKEN)
async def test_a_broken_engine_is_caught(engine, check, complaint) -> None:
    with pytest.raises(Violation, match=complaint):
        await check(subject(engine))


async def test_an_engine_that_starts_although_it_should_not_is_caught() -> None:
    with pytest.raises(Violation, match="a broken engine started"):
        await life.start_fails_cleanly(subject(Good))


async def test_an_error_that_says_nothing_is_caught() -> None:
    def create():
        raise EngineError("bad")

    with pytest.raises(Violation, match="does not say what is wrong"):
        await life.start_fails_cleanly(Subject(PROFILE, Good, create))


def test_the_suite_needs_no_test_framework() -> None:
    assert all(check.__doc__ for check in CHECKS)
    assert "pytest" not in vars(conformance)
