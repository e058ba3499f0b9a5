"""The engine without its thread: queue, step, and what each step tells whom."""

from __future__ import annotations

import random
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path

from paretoserve.domain.errors import EngineError
from paretoserve.domain.model import Model
from paretoserve.domain.profile import Profile
from paretoserve.domain.request import Sampling
from paretoserve.executor.contract import (
    Chunk,
    Deliver,
    EngineStats,
    Finish,
    FinishReason,
    GenerationRequest,
)
from paretoserve.executor.engines.local.config import read_model_config
from paretoserve.executor.engines.local.kv_cache import BlockCache
from paretoserve.executor.engines.local.options import Options
from paretoserve.executor.engines.local.penalties import Penalties
from paretoserve.executor.engines.local.runner import Emission, Runner
from paretoserve.executor.engines.local.scheduler import Plan, Scheduler
from paretoserve.executor.engines.local.sequence import Sequence
from paretoserve.executor.stopping import Decode, Stop, StopRule
from paretoserve.executor.tokenizer import Tokenizer

RECENT_STEPS = 256

Output = list[tuple[Deliver, Chunk]]
Emit = Callable[[Output], None]


class Core:
    """All state of a running engine. Used by one thread."""

    def __init__(self, profile: Profile, model: Model, options: Options) -> None:
        """Load everything. Raises EngineError for a model that cannot be served as asked."""
        folder = Path(model.path)
        self.config = read_model_config(folder)
        self.options = options
        self.context = min(profile.limits.context_tokens, model.context_tokens)
        if not 2 <= self.context <= self.config.max_positions:
            raise EngineError(
                f"profile {profile.name}: limits.context_tokens is {self.context}; it must be from "
                f"2 to the {self.config.max_positions} positions of the model in {folder}"
            )
        self.decode = _decoder(folder)
        self.runner = Runner(
            options,
            self.config,
            folder,
            places=profile.limits.max_batch,
            context=self.context,
        )
        self._cache = BlockCache(
            options.kv_tokens // options.block_tokens,
            options.block_tokens,
            lookahead=1 if options.speculation else 0,
            reuse=options.prefix_cache,
        )
        self._scheduler = Scheduler(
            self._cache,
            max_batch=profile.limits.max_batch,
            step_tokens=options.step_tokens,
            drafted=options.drafted,
        )
        self._seeds = random.Random(options.seed)  # noqa: S311 - sampling, not secrets
        self._sequences: dict[str, Sequence] = {}
        self._arrivals = 0
        self._reset_counters()

    @property
    def busy(self) -> bool:
        """Whether anything waits or runs."""
        return bool(self._sequences)

    def add(self, request: GenerationRequest, deliver: Deliver, arrived: float) -> None:
        """Queue a valid request. `arrived` is a time of `time.monotonic`."""
        seed = request.sampling.seed
        self._arrivals += 1
        rng = random.Random(self._seeds.getrandbits(64) if seed is None else seed)  # noqa: S311
        stop_rule = StopRule(request.sampling, self.config.eos_ids, self.decode)
        for token in request.replayed_token_ids:
            rng.random()  # each was drawn with one number
            stop_rule.recall(token)
        sequence = Sequence(
            request=request,
            deliver=deliver,
            rng=rng,
            stop_rule=stop_rule,
            arrived=arrived,
            order=self._arrivals,
        )
        self._sequences[request.request_id] = sequence
        self._scheduler.add(sequence)

    def abort(self, request_id: str, emit: Emit) -> None:
        """End one request as ABORTED; an unknown id is ignored."""
        self._abort([request_id], "the request was aborted", emit)

    def abort_all(self, message: str, emit: Emit) -> None:
        """End every request as ABORTED."""
        self._abort(list(self._sequences), message, emit)

    def fail_all(self, message: str, emit: Emit) -> None:
        """End every request as ABORTED, relying on nothing that a failed step may have broken."""
        sequences, now = list(self._sequences.values()), time.monotonic()
        self._sequences.clear()
        emit(
            [
                (
                    s.deliver,
                    Chunk(
                        s.request.request_id,
                        finish=_finish(s, FinishReason.ABORTED, now, message=message),
                    ),
                )
                for s in sequences
            ]
        )

    def step(self, emit: Emit) -> None:
        """Run one step. What it says is emitted before the drafts for the next are computed."""
        began = time.monotonic()
        plan = self._scheduler.plan(began)
        for sequence in plan.admitted:
            self._welcome(sequence)
        emissions = self.runner.step(plan)
        self._count(plan, emissions)
        now = time.monotonic()
        output: Output = []
        try:
            for emission in emissions:
                output.append((emission.sequence.deliver, self._advance(emission, now)))
        finally:
            emit(output)  # also when one cannot go on: another's end may be in it
        self.runner.draft(self._scheduler.running)
        for work in plan.chunks:
            self._commit(work.sequence)
        self._step_ms = (time.monotonic() - began) * 1e3

    def warm_up(self) -> None:
        """Run a short request through everything, so that the first real one is not slow."""
        prompt = tuple(range(min(8, max(1, self.context - 4), self.config.vocab)))
        most = min(4, self.context - len(prompt))
        sampling = Sampling(max_tokens=most, temperature=0.0, ignore_eos=True)
        self.add(GenerationRequest("warm-up", prompt, sampling), _ignore, time.monotonic())
        while self.busy:
            self.step(_ignore)
        self._reset_counters()

    def stats(self) -> EngineStats:
        """The load as of the last step."""
        running, waiting = self._scheduler.running, self._scheduler.waiting
        tokens = sum(s.prompt_tokens - s.computed for s in running if not s.decoding)
        said, steps = map(sum, zip(*self._recent, strict=True)) if self._recent else (0, 0)
        return EngineStats(
            running=len(running),
            waiting=len(waiting),
            waiting_tokens=tokens + sum(sequence.prompt_tokens for sequence in waiting),
            batch=self._batch,
            kv_used_tokens=sum(sequence.computed for sequence in running),
            kv_total_tokens=self.kv_total_tokens,
            step_ms=self._step_ms,
            acceptance_length=said / steps if steps else 1.0,
            steps_total=self._steps,
            prompt_tokens_total=self._prompt_tokens,
            cached_tokens_total=self._cached_tokens,
            generated_tokens_total=self._generated_tokens,
        )

    @property
    def kv_total_tokens(self) -> int:
        return self._cache.total * self._cache.block_tokens

    def _welcome(self, sequence: Sequence) -> None:
        self.runner.seat(sequence)
        sampling = sequence.request.sampling
        if sampling.penalized or sampling.logit_bias:
            prompt = sequence.request.original_prompt
            penalties = Penalties(sampling, prompt, self.config.vocab, self.runner.device)
            for token in sequence.request.replayed_token_ids:
                penalties.add(token)
            sequence.penalties = penalties
        self._prompt_tokens += sequence.prompt_tokens
        self._cached_tokens += sequence.cached_tokens

    def _advance(self, emission: Emission, now: float) -> Chunk:
        """Append what a sequence said up to where it ends; the chunk that says so."""
        sequence = emission.sequence
        sequence.first_token = sequence.first_token or now
        delivered: list[int] = []
        stop: Stop | None = None
        for token in emission.tokens:
            sequence.tokens.append(token)
            self._generated_tokens += 1
            if sequence.penalties:
                sequence.penalties.add(token)
            stop = sequence.stop_rule.check(token)
            if stop is None or stop.delivered:
                delivered.append(token)
            if stop:
                break
        finish = None
        if stop:
            self._end(sequence)
            finish = _finish(sequence, stop.reason, now, stop=stop.stop)
        return Chunk(
            sequence.request.request_id,
            tuple(delivered),
            tuple(emission.logprobs[: len(delivered)]),
            finish,
        )

    def _end(self, sequence: Sequence) -> None:
        self._commit(sequence)
        self._scheduler.remove(sequence)
        del self._sequences[sequence.request.request_id]

    def _commit(self, sequence: Sequence) -> None:
        """Index what a sequence has filled, in the draft head's layer too where there is one."""
        filled = sequence.followed if self.options.speculation else sequence.computed
        if sequence.allocation:
            self._cache.commit(sequence.allocation, sequence.tokens, filled)

    def _count(self, plan: Plan, emissions: list[Emission]) -> None:
        decodes = len(plan.decodes)
        self._steps += 1
        self._batch = decodes + len(plan.chunks)
        if decodes:
            prompts_done = len(emissions) - decodes
            said = sum(len(emission.tokens) for emission in emissions) - prompts_done
            self._recent.append((said, decodes))

    def _abort(self, request_ids: list[str], message: str, emit: Emit) -> None:
        now, output = time.monotonic(), []
        for request_id in request_ids:
            sequence = self._sequences.get(request_id)
            if sequence:
                self._end(sequence)
                finish = _finish(sequence, FinishReason.ABORTED, now, message=message)
                output.append((sequence.deliver, Chunk(request_id, finish=finish)))
        emit(output)

    def _reset_counters(self) -> None:
        self._steps = self._prompt_tokens = self._cached_tokens = self._generated_tokens = 0
        self._batch, self._step_ms = 0, 0.0
        self._recent: deque[tuple[int, int]] = deque(maxlen=RECENT_STEPS)


def _finish(
    sequence: Sequence, reason: FinishReason, now: float, *, stop: str = "", message: str = ""
) -> Finish:
    usage, timing = sequence.usage(), sequence.timing(now)
    return Finish(reason, usage, timing, sequence.acceptance(), stop, message)


def _decoder(folder: Path) -> Decode | None:
    return Tokenizer.load(folder).decode if (folder / "tokenizer.json").exists() else None


def _ignore(_: object) -> None:
    """Where the warm-up's output goes."""
