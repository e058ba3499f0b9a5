"""All that this engine uses of vLLM, in one place: its names and inner seams change by version.

Requests go the way of `AsyncLLM.add_request`, but their output is pushed to an inbox of ours
instead of a queue that one task per request would wait on, and the statistics that vLLM records
after each message of an engine core tell when its output is complete.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from typing import Any, Protocol

from paretoserve.domain.errors import InvalidRequest

OnMessage = Callable[[int, Any], None]
"""Called after each message of an engine core, on the event loop, with its index and SchedulerStats.

It sends one for each step, and some for none.
"""


class Inbox(Protocol):
    """Receives a request's output: RequestOutput, or the exception that killed the engine."""

    def put(self, output: Any) -> None:
        """One step's output. Called on the event loop; must not raise."""


def argument_names() -> frozenset[str]:
    """The names that the installed vLLM's AsyncEngineArgs takes. Raises ImportError."""
    from vllm.engine.arg_utils import AsyncEngineArgs  # noqa: PLC0415 (vLLM takes seconds to import)

    return frozenset(field.name for field in dataclasses.fields(AsyncEngineArgs))


class Frontend:
    """A vLLM engine in its own processes, and the end of it that lives in this one."""

    def __init__(self, arguments: dict[str, Any], on_message: OnMessage) -> None:
        """Load the model and wait until it can serve: blocks for minutes, in any thread.

        Raises what vLLM raises: ImportError, ValueError, RuntimeError and more.
        """
        # Forking a process that has threads, as the executor's has, can hang its child.
        os.environ.setdefault("VLLM_WORKER_MULTIPROC_METHOD", "spawn")
        from vllm.engine.arg_utils import AsyncEngineArgs  # noqa: PLC0415
        from vllm.platforms import current_platform  # noqa: PLC0415
        from vllm.v1.engine.async_llm import AsyncLLM  # noqa: PLC0415

        self._llm = AsyncLLM.from_engine_args(
            AsyncEngineArgs(**arguments),
            stat_loggers=[lambda _config, core: _Listener(core, on_message)],
        )
        config = self._llm.vllm_config
        cache = config.cache_config
        self.vocab_size: int = config.model_config.get_vocab_size()
        self.context_tokens: int = config.model_config.max_model_len
        cores = config.parallel_config.data_parallel_size
        blocks = (cache.num_gpu_blocks or 0) * cache.block_size
        self.kv_total_tokens: int = (cache.kv_cache_size_tokens or 0) * cores or blocks
        self.device: str = (
            f"{current_platform.get_device_name()} x{config.parallel_config.world_size}"
        )
        self._tasks: Any = None

    async def attach(self) -> None:
        """Bind to the running event loop; from here on output flows."""
        self._tasks = await self._llm.get_supported_tasks()
        self._llm._run_output_handler()  # noqa: SLF001 (add_request calls it too; see above)

    @property
    def dead(self) -> bool:
        """Whether the engine's processes are gone for good."""
        return bool(self._llm.errored)

    def prepare(
        self, request_id: str, prompt: tuple[int, ...], sampling: dict[str, Any], priority: int
    ) -> Any:
        """Check a request and make vLLM's EngineCoreRequest of it, with an id of its own.

        Raises InvalidRequest for what vLLM cannot honour.
        """
        from vllm.inputs.engine import tokens_input  # noqa: PLC0415
        from vllm.sampling_params import RequestOutputKind, SamplingParams  # noqa: PLC0415

        processor = self._llm.input_processor
        try:
            params = SamplingParams(output_kind=RequestOutputKind.DELTA, **sampling)
            prepared = processor.process_inputs(
                request_id, tokens_input(list(prompt)), params, self._tasks, priority=priority
            )
        except ValueError as error:
            raise InvalidRequest(f"vLLM cannot honour the request: {error}") from error
        processor.assign_request_id(prepared)
        return prepared

    async def add(self, prepared: Any, inbox: Inbox) -> None:
        """Queue a prepared request. Raises vLLM's EngineDeadError."""
        self._llm.output_processor.add_request(prepared, None, None, 0, inbox)
        await self._llm.engine_core.add_request_async(prepared)

    async def abort(self, internal_id: str) -> None:
        """End a request by the id that `prepare` gave it; an unknown one is not an error."""
        await self._llm.abort(internal_id, internal=True)

    def shutdown(self) -> None:
        """End the engine's processes and free their memory. Blocks; may run in any thread."""
        self._llm.shutdown()


class _Listener:
    """What vLLM calls a stat logger, one for each engine core."""

    def __init__(self, core: int, on_message: OnMessage) -> None:
        self._core, self._on_message = core, on_message

    def record(self, scheduler_stats: Any, iteration_stats: Any, **_: Any) -> None:  # noqa: ARG002
        """After every message of an engine core."""
        self._on_message(self._core, scheduler_stats)

    def log_engine_initialized(self) -> None:
        """Nothing to say."""

    def log(self) -> None:
        """Nothing to say."""

    def record_sleep_state(self, is_awake: int, level: int) -> None:
        """An engine of ours never sleeps."""
