"""Ends that the stand-in does not make: stop strings, unnamed ends, timeouts."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from tests.unit.executor.engines.trtllm.trtllm_profiles import request

from paretoserve.executor.contract import FinishReason
from paretoserve.executor.engines.trtllm.progress import Progress


def ended(tokens: list[int], reason: str, stop_reason: Any, /, **sampling: Any) -> Any:
    completion = SimpleNamespace(
        token_ids=tokens, logprobs=[], finish_reason=reason, stop_reason=stop_reason
    )
    output = SimpleNamespace(outputs=[completion], finished=True, cached_tokens=9)
    progress = Progress(request(**sampling), print, output, frozenset({7}), arrived=0.0)
    chunk = progress.advance(2.0)
    assert chunk is not None
    assert chunk.finish is not None
    return chunk


@pytest.mark.parametrize(
    ("tokens", "stop", "sampling", "delivered", "named", "counted"),
    [
        ([1, 2], "END", {"stop": ("END",)}, (1, 2), "END", 2),
        ([1, 7], None, {"ignore_eos": False}, (1,), "", 2),
        ([1], None, {"ignore_eos": False}, (1,), "", 2),
        ([1, 5], 5, {"stop_token_ids": (5,)}, (1,), "5", 2),
        ([1], 5, {"stop_token_ids": (5,)}, (1,), "5", 2),
        ([7], None, {"ignore_eos": False, "stop_token_ids": (7,)}, (), "7", 1),
    ],
)
def test_stops(
    tokens: list[int],
    stop: Any,
    sampling: dict[str, Any],
    delivered: tuple[int, ...],
    named: str,
    counted: int,
) -> None:
    chunk = ended(tokens, "stop", stop, **sampling)
    assert (chunk.token_ids, chunk.finish.stop) == (delivered, named)
    assert chunk.finish.usage.completion_tokens == counted
    assert chunk.finish.usage.cached_tokens == 4  # one of five is always computed


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ("length", FinishReason.LENGTH),
        ("cancelled", FinishReason.ABORTED),
        ("timeout", FinishReason.ABORTED),
        ("something_new", FinishReason.ERROR),
    ],
)
def test_reasons(said: str, reason: FinishReason) -> None:
    finish = ended([1, 2], said, None).finish
    assert finish.reason is reason
    assert (said in finish.message) == (said != "length")
    assert finish.timing.total_ms == 2000
