"""The `LLM` class: the methods that the adapter and its tests use, with their signatures."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from typing import Any, ClassVar

from tensorrt_llm.outputs import RequestOutput, Response
from tensorrt_llm.sampling_params import SamplingParams
from tensorrt_llm.worker import BLOCKS, TOKENS_PER_BLOCK, Worker, rejects


class LLM:
    """Serves no model. `latest` is the one that was made last, for tests to break."""

    latest: ClassVar[Any] = None

    def __init__(self, model: str, **kwargs: Any) -> None:
        self.args = {"model": model, **kwargs}
        self.worker = Worker(self.args)
        self._ids = itertools.count(1)
        self._shut_down = False
        type(self).latest = self

    def generate(
        self, inputs: Any, sampling_params: SamplingParams | None = None, **kwargs: Any
    ) -> RequestOutput:
        raise NotImplementedError("the platform only streams")

    def generate_async(
        self,
        inputs: Any,
        sampling_params: SamplingParams | None = None,
        lora_request: Any = None,
        prompt_adapter_request: Any = None,
        streaming: bool = False,
        kv_cache_retention_config: Any = None,
        disaggregated_params: Any = None,
        trace_headers: Any = None,
        _postproc_params: Any = None,
        scheduling_params: Any = None,
        conversation_params: Any = None,
        cache_salt: Any = None,
        priority: float = 0.5,
    ) -> RequestOutput:
        if self._shut_down:
            raise RuntimeError("LLM is shutting down")
        if not 0 <= priority <= 1:
            raise ValueError(f"priority must be from 0 to 1, got {priority}")
        assert streaming
        params = sampling_params or SamplingParams()
        output = RequestOutput(next(self._ids), list(inputs["prompt_token_ids"]), self.worker.abort)
        drafts = (self.args.get("speculative_config") or {}).get("max_draft_len", 0)
        if error := rejects(params, drafts):
            asyncio.get_running_loop().call_soon(output.put, Response(error=error))
        else:
            self.worker.submit(output, params, priority)
        return output

    def get_stats(self, timeout: float = 2) -> list[dict[str, Any]]:
        return [self.worker.reports.popleft() for _ in range(len(self.worker.reports))]

    async def get_stats_async(self, timeout: float = 2) -> AsyncIterator[dict[str, Any]]:
        """Ends when no iteration was made for `timeout` seconds."""
        quiet = 0.0
        while quiet < timeout:
            if self.worker.reports:
                quiet = 0.0
                yield self.worker.reports.popleft()
            else:
                await asyncio.sleep(0.002)
                quiet += 0.002

    def get_kv_cache_capacity(self) -> dict[str, int]:
        return {
            "maxNumBlocks": BLOCKS,
            "tokensPerBlock": TOKENS_PER_BLOCK,
            "maxNumTokens": BLOCKS * TOKENS_PER_BLOCK,
        }

    def _check_health(self) -> bool:
        return not (self._shut_down or self.worker.faults.ill)

    def shutdown(self) -> None:
        self._shut_down = True
        self.worker.stop()
