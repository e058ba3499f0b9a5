"""A stand-in for vLLM 0.26.0 where it cannot be installed: what the `vllm` engine uses of it.

Names, signatures and manners are those of 0.26.0: an engine core that steps by itself, an output
processor that puts each request's RequestOutput into its queue and forgets it when it ends, and
statistics after each message, of which the core sends one more when its last request has left. Tokens are drawn from the seed or, greedily, from the prompt.
"""

from __future__ import annotations

import asyncio
import dataclasses
import enum
import random
import sys
import time
import types
from typing import Any

import pytest

STEP_S = 0.001
VOCAB = 2048
BLOCK = 16


class EngineDeadError(Exception):
    """The engine core died."""


class RequestOutputKind(enum.Enum):
    CUMULATIVE = 0
    DELTA = 1
    FINAL_ONLY = 2


@dataclasses.dataclass
class SamplingParams:
    max_tokens: int = 16
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    seed: int | None = None
    stop_token_ids: list[int] = dataclasses.field(default_factory=list)
    ignore_eos: bool = False
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    logprobs: int | None = None
    logit_bias: dict[int, float] | None = None
    detokenize: bool = True
    output_kind: RequestOutputKind = RequestOutputKind.CUMULATIVE


@dataclasses.dataclass
class AsyncEngineArgs:
    model: str = ""
    max_model_len: int = 0
    max_num_seqs: int = 0
    scheduling_policy: str = "fcfs"
    skip_tokenizer_init: bool = False
    disable_log_stats: bool = False
    enable_log_requests: bool = False
    enforce_eager: bool = False
    speculative_config: dict[str, Any] | None = None


@dataclasses.dataclass
class EngineCoreRequest:
    request_id: str
    prompt_token_ids: list[int]
    params: SamplingParams
    priority: int
    external_req_id: str | None = None
    said: list[int] = dataclasses.field(default_factory=list)
    numbers: random.Random = dataclasses.field(default_factory=random.Random)


def some(**fields: Any) -> types.SimpleNamespace:
    return types.SimpleNamespace(**fields)


class InputProcessor:
    def process_inputs(
        self,
        request_id: str,
        prompt: dict[str, Any],
        params: SamplingParams,
        supported_tasks: tuple[str, ...],
        arrival_time: float | None = None,
        lora_request: object = None,
        tokenization_kwargs: object = None,
        trace_headers: object = None,
        priority: int = 0,
    ) -> EngineCoreRequest:
        assert supported_tasks == ("generate",)
        if (params.logprobs or 0) > 20:
            raise ValueError("too many logprobs")
        ids = prompt["prompt_token_ids"]
        seed = params.seed if params.temperature else hash(tuple(ids))
        return EngineCoreRequest(request_id, ids, params, priority, numbers=random.Random(seed))

    @staticmethod
    def assign_request_id(request: EngineCoreRequest) -> None:
        request.external_req_id = request.request_id
        request.request_id += f"-{random.getrandbits(32):08x}"


class OutputProcessor:
    def __init__(self) -> None:
        self.request_states: dict[str, tuple[EngineCoreRequest, Any]] = {}

    def add_request(self, request, prompt, parent_req=None, request_index=0, queue=None) -> None:
        self.request_states[request.request_id] = (request, queue)

    def propagate_error(self, error: Exception) -> None:
        for _, queue in self.request_states.values():
            queue.put(error)


class EngineCore:
    """The process beside, as a task: admits by priority, steps, and is told of aborts late."""

    def __init__(self, max_num_seqs: int, drafts: int) -> None:
        self.resources = some(engine_dead=False)
        self.max_num_seqs, self.drafts = max_num_seqs, drafts
        self.waiting: list[EngineCoreRequest] = []
        self.running: list[EngineCoreRequest] = []
        self.has_finished = False

    async def add_request_async(self, request: EngineCoreRequest) -> None:
        if self.resources.engine_dead:
            raise EngineDeadError
        self.waiting.append(request)

    async def abort_requests_async(self, request_ids: list[str]) -> None:
        for queue in (self.waiting, self.running):
            left = [r for r in queue if r.request_id not in request_ids]
            self.has_finished |= len(left) < len(queue)
            queue[:] = left

    async def get_output_async(self) -> tuple[list[Any], Any]:
        while True:
            if self.has_finished and not (self.waiting or self.running):
                return self._step()  # nothing to compute: at once
            await asyncio.sleep(STEP_S)
            if self.resources.engine_dead:
                raise EngineDeadError("the engine core is gone")
            if self.waiting or self.running:
                return self._step()

    def _step(self) -> tuple[list[Any], Any]:
        self.waiting.sort(key=lambda request: request.priority)
        while self.waiting and len(self.running) < self.max_num_seqs:
            self.running.append(self.waiting.pop(0))
        outputs, drafts, accepted = [], 0, 0
        self.has_finished = False
        for request in list(self.running):
            count = 1 + (request.numbers.randrange(self.drafts + 1) if request.said else 0)
            drafts, new = drafts + bool(request.said and self.drafts), []
            reason = stop = None
            while reason is None and len(new) < count:
                new.append(request.numbers.randrange(3, VOCAB))
                request.said.append(new[-1])
                if new[-1] in request.params.stop_token_ids:
                    reason, stop = "stop", new[-1]
                elif len(request.said) == request.params.max_tokens:
                    reason = "length"
            accepted += len(new) - 1
            if reason is not None:
                self.running.remove(request)
                self.has_finished = True
            outputs.append((request, new, reason, stop))
        speculation = some(num_drafts=drafts, num_accepted_tokens=accepted)
        held = sum(len(r.prompt_token_ids) + len(r.said) for r in self.running)
        stats = some(
            num_running_reqs=len(self.running),
            num_waiting_reqs=len(self.waiting),
            kv_cache_usage=held / (256 * BLOCK),
            spec_decoding_stats=speculation if drafts else None,
        )
        return outputs, stats


class AsyncLLM:
    last: AsyncLLM

    def __init__(self, args: AsyncEngineArgs, stat_loggers: list[Any]) -> None:
        drafts = (args.speculative_config or {}).get("num_speculative_tokens", 0)
        model = some(get_vocab_size=lambda: VOCAB, max_model_len=args.max_model_len)
        cache = some(num_gpu_blocks=256, block_size=BLOCK, kv_cache_size_tokens=256 * BLOCK)
        parallel = some(data_parallel_size=1, world_size=1)
        self.vllm_config = some(model_config=model, cache_config=cache, parallel_config=parallel)
        self.input_processor = InputProcessor()
        self.output_processor = OutputProcessor()
        self.engine_core = EngineCore(args.max_num_seqs, drafts)
        self.output_handler: asyncio.Task[None] | None = None
        self._loggers = [make(self.vllm_config, 0) for make in stat_loggers]
        AsyncLLM.last = self

    @classmethod
    def from_engine_args(
        cls, engine_args, start_engine_loop=True, usage_context=None, stat_loggers=None
    ):
        assert engine_args.scheduling_policy == "priority"
        assert engine_args.skip_tokenizer_init
        return cls(engine_args, stat_loggers)

    async def get_supported_tasks(self) -> tuple[str, ...]:
        return ("generate",)

    @property
    def errored(self) -> bool:
        handler = self.output_handler
        return self.engine_core.resources.engine_dead or bool(handler and handler.done())

    async def abort(self, request_id: str, internal: bool = False) -> None:
        assert internal
        _, queue = self.output_processor.request_states.pop(request_id, (None, None))
        if queue is not None:
            queue.put(request_output([], "abort", None, []))
            await self.engine_core.abort_requests_async([request_id])

    def shutdown(self, timeout: float | None = None) -> None:
        self.engine_core.resources.engine_dead = True
        if self.output_handler is not None:
            self.output_handler.get_loop().call_soon_threadsafe(self.output_handler.cancel)

    def _run_output_handler(self) -> None:
        if self.output_handler is None:
            self.output_handler = asyncio.create_task(self._handle_outputs())

    async def _handle_outputs(self) -> None:
        states = self.output_processor.request_states
        try:
            while True:
                outputs, stats = await self.engine_core.get_output_async()
                for request, new, reason, stop in outputs:
                    _, queue = states.get(request.request_id, (None, None))
                    if queue is None:
                        continue
                    if reason is not None:
                        del states[request.request_id]
                    queue.put(request_output(new, reason, stop, logprobs(request, new)))
                for logger in self._loggers:
                    logger.record(stats, None, mm_cache_stats=None, engine_idx=0)
        except EngineDeadError as error:
            self.output_processor.propagate_error(error)


def request_output(
    token_ids: list[int], reason: str | None, stop: int | None, positions: list[dict[int, Any]]
) -> types.SimpleNamespace:
    completion = some(
        token_ids=token_ids, finish_reason=reason, stop_reason=stop, logprobs=positions or None
    )
    made = 0.0 if reason == "abort" else time.monotonic()
    times = some(queued_ts=1.0, scheduled_ts=1.0005, last_token_ts=made)
    return some(
        outputs=[completion], finished=reason is not None, num_cached_tokens=0, metrics=times
    )


def logprobs(request: EngineCoreRequest, new: list[int]) -> list[dict[int, Any]]:
    """The chosen token, here the third best, and then the best ones."""
    wanted = request.params.logprobs
    if wanted is None:
        return []
    best = [(rank, some(logprob=-float(rank), rank=rank)) for rank in range(1, wanted + 1)]
    return [{token: some(logprob=-3.0, rank=3), **dict(best)} for token in new]


def install(monkeypatch: pytest.MonkeyPatch) -> None:
    """Put the stand-in where `import vllm...` finds it."""
    contents: dict[str, dict[str, Any]] = {
        "vllm": {},
        "vllm.engine": {},
        "vllm.engine.arg_utils": {"AsyncEngineArgs": AsyncEngineArgs},
        "vllm.inputs": {},
        "vllm.inputs.engine": {
            "tokens_input": lambda ids: {"type": "token", "prompt_token_ids": ids}
        },
        "vllm.platforms": {"current_platform": some(get_device_name=lambda: "a stand-in")},
        "vllm.sampling_params": {
            "RequestOutputKind": RequestOutputKind,
            "SamplingParams": SamplingParams,
        },
        "vllm.v1": {},
        "vllm.v1.engine": {},
        "vllm.v1.engine.async_llm": {"AsyncLLM": AsyncLLM},
    }
    for name, names in contents.items():
        module = types.ModuleType(name)
        vars(module).update(names)
        monkeypatch.setitem(sys.modules, name, module)
