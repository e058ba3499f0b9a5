"""The emulator as an Engine: a Batch played against the clock of the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from pydantic import ValidationError

from paretoserve.domain.errors import EngineError, Unavailable
from paretoserve.domain.model import Model
from paretoserve.domain.profile import Profile
from paretoserve.executor.contract import (
    Chunk,
    Deliver,
    EngineInfo,
    EngineStats,
    GenerationRequest,
)
from paretoserve.executor.engines.emulator.arguments import EmulatorArgs
from paretoserve.executor.engines.emulator.batch import Batch
from paretoserve.executor.engines.emulator.sequence import Sequence
from paretoserve.executor.model_files import read_vocabulary

MAX_DEBT_S = 0.25
"""An emulator that fell behind by more forgets the rest: it is then slower than its curve."""
CATCH_UP_STEPS = 8
"""Late steps that may follow each other before others on the event loop get their turn."""


class EmulatorEngine:
    """Plays tokens on absolute deadlines, so that a late wake-up delays one step and not the rest.

    No weights and no text: token ids are drawn from the seed and the prompt. Stop ids are
    honoured; stop strings never match; what shapes a distribution has no effect. Its pace is
    what the profile's curve says, never a measurement.
    """

    def __init__(self, profile: Profile, model: Model) -> None:
        """Raises EngineError for arguments that it does not know."""
        self._profile = profile
        self._model = model
        self._args = _arguments(profile)
        self._vocab_size = self._args.vocab_size
        self._batch = Batch(profile, self._args, self._vocab_size)
        self._work = asyncio.Event()
        self._player: asyncio.Task[None] | None = None
        self._stopped = False

    async def start(self) -> EngineInfo:
        """See Engine."""
        if self._stopped:
            raise EngineError("the engine was stopped; it cannot be started again")
        self._vocab_size = read_vocabulary(Path(self._model.path)).size or self._args.vocab_size
        self._batch = Batch(self._profile, self._args, self._vocab_size)
        self._player = asyncio.create_task(self._play())
        self._player.add_done_callback(self._end_all)
        return EngineInfo(
            engine="emulator",
            model=self._model.name,
            device=f"none; emulates {self._profile.curve.hardware}",
            vocab_size=self._vocab_size,
            context_tokens=self._profile.limits.context_tokens,
            max_batch=self._profile.limits.max_batch,
            kv_total_tokens=self._batch.kv_total,
        )

    def generate(self, request: GenerationRequest, deliver: Deliver) -> None:
        """See Engine."""
        if self._player is None or self._stopped:
            raise Unavailable("the engine is not running")
        self._batch.add(request, deliver, asyncio.get_running_loop().time())
        self._work.set()

    def abort(self, request_id: str) -> None:
        """See Engine."""
        self._batch.abort(request_id)

    def stats(self) -> EngineStats:
        """See Engine."""
        stats = self._batch.stats()
        if self._stopped or self._player is None or not self._player.done():
            return stats
        return replace(stats, failure=f"the emulator failed: {self._player.exception()!r}")

    async def stop(self) -> None:
        """See Engine."""
        if self._stopped:
            return
        self._stopped = True
        if self._player is not None:
            self._player.cancel()
            await asyncio.wait({self._player})

    def _end_all(self, player: asyncio.Task[None]) -> None:
        """Whether it was stopped or failed: nobody may wait for what will not come."""
        _deliver(self._batch.abort_all(player.get_loop().time()))

    async def _play(self) -> None:
        clock = asyncio.get_running_loop().time
        due, late_steps = clock(), 0
        while True:
            if not self._batch:
                self._work.clear()
                await self._work.wait()
                due = clock()
            due = max(due + self._batch.begin(clock()), clock() - MAX_DEBT_S)
            late_steps = late_steps + 1 if due <= clock() else 0
            if late_steps % CATCH_UP_STEPS == 0:
                await asyncio.sleep(max(0.0, due - clock()))
            _deliver(self._batch.end(clock()))


def _deliver(output: Iterable[tuple[Sequence, Chunk]]) -> None:
    """One call for each callable, with all its chunks of the step."""
    by_reader: dict[Deliver, list[Chunk]] = {}
    for sequence, chunk in output:
        by_reader.setdefault(sequence.deliver, []).append(chunk)
    for deliver, chunks in by_reader.items():
        deliver(chunks)


def _arguments(profile: Profile) -> EmulatorArgs:
    try:
        return EmulatorArgs.model_validate(profile.engine_args)
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        field = ".".join(str(part) for part in problem["loc"])
        known = ", ".join(EmulatorArgs.model_fields)
        raise EngineError(
            f"profile {profile.name}: engine_args.{field}: {problem['msg']}; known are {known}"
        ) from error
