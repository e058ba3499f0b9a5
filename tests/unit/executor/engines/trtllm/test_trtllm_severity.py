"""Which errors cost a request, and which the engine."""

from __future__ import annotations

import pytest

from paretoserve.executor.engines.trtllm.severity import SevereBudget, Severity, classify

TABLE = [
    ("ValueError", "prompt is empty", Severity.REQUEST),
    ("UnicodeEncodeError", "surrogates not allowed", Severity.REQUEST),
    ("OverflowError", "int too big to convert", Severity.REQUEST),
    ("TypeError", "sampling_params must be SamplingParams", Severity.REQUEST),
    ("RequestError", "The sum of prompt length (9) and max_tokens should not exceed max_seq_len (8)", Severity.REQUEST),
    ("RequestError", "penalties are not supported with one-model speculative decoding", Severity.REQUEST),
    ("RequestError", "the decoder met an unexpected state", Severity.TRANSIENT),
    ("RequestError", "request timed out in the queue", Severity.TRANSIENT),
    ("RequestError", "CUDA out of memory. Tried to allocate 2 GiB", Severity.SEVERE),
    ("RequestError", "NCCL error: unhandled system error", Severity.SEVERE),
    ("RequestError", "CUDA error: invalid argument", Severity.SEVERE),
    ("RequestError", "CUDA error: device-side assert triggered", Severity.FATAL),
    ("RequestError", "cudaErrorIllegalAddress: an illegal memory access was encountered", Severity.FATAL),
    ("RuntimeError", "LLM is shutting down", Severity.FATAL),
    ("RequestError", "Hang detected after 300 seconds.", Severity.FATAL),
    ("CppExecutorError", "anything at all", Severity.FATAL),
    ("MPIAbort", "rank 3", Severity.FATAL),
    ("BrokenProcessPool", "a child process terminated abruptly", Severity.FATAL),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "message", "severity"), TABLE)
def test_severity(kind: str, message: str, severity: Severity) -> None:
    assert classify(kind, message) is severity


def test_a_budget_of_severe_errors() -> None:
    budget = SevereBudget(most=3, within_s=60)
    assert [budget.spend(at) for at in (0.0, 0.1, 0.2, 0.3, 10.0, 20.0)] == [*[False] * 5, True]
    budget = SevereBudget(most=3, within_s=60)
    assert [budget.spend(at) for at in (0.0, 50.0, 100.0, 150.0)] == [False] * 4
