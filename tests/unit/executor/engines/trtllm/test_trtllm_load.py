"""Iteration statistics as load."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType
from typing import Any

from paretoserve.executor.engines.trtllm.load import IterationLoad


def row(number: int, rank: int = 0, **changes: Any) -> dict[str, Any]:
    """A row as it comes where attention is data-parallel; other ranks count no queue."""
    return {
        "iter": number,
        "attentionDpRank": rank,
        "iterLatencyMS": 5.0 + rank,
        "numActiveRequests": 3,
        "numQueuedRequests": 0 if rank else 7,
        "kvCacheStats": {"maxNumBlocks": 100, "usedNumBlocks": 20, "tokensPerBlock": 32},
        "inflightBatchingStats": {
            "numScheduledRequests": 2,
            "numCtxKvTokens": 10,
            "numGenKvTokens": 30,
        },
        "specDecodingStats": None,
        **changes,
    }


def test_nothing_yet() -> None:
    load = IterationLoad()
    assert (load.steps, load.active, load.batch, load.step_ms) == (0, 0, 0, 0.0)
    assert (load.kv_used_tokens, load.kv_total_tokens, load.acceptance_length) == (0, 0, 1.0)


def test_ranks_are_summed_and_their_iteration_counts_once() -> None:
    load = IterationLoad()
    for number in range(3):
        for rank in range(2):
            load.take(row(number, rank))
    assert (load.steps, load.active, load.batch, load.step_ms) == (3, 6, 4, 6.0)
    assert (load.kv_used_tokens, load.kv_total_tokens) == (80, 6400)


def test_acceptance_is_tokens_per_sequence_and_step() -> None:
    load = IterationLoad()
    for accepted, requests in ((4, 2), (2, 1), (0, 0)):
        drafting = {"numAcceptedTokens": accepted, "numRequestsWithDraftTokens": requests}
        load.take(row(accepted, specDecodingStats=drafting))
    assert load.acceptance_length == 3.0


def test_a_row_without_optional_groups() -> None:
    load = IterationLoad()
    load.take({"iter": 0, "iterLatencyMS": 1, "numActiveRequests": 1})
    assert (load.active, load.batch, load.kv_total_tokens) == (1, 0, 0)


def test_the_stand_ins_rows_are_read(stand_in_tensorrt_llm: ModuleType) -> None:
    load = IterationLoad()
    for drafts in (0, 3):
        load.take(
            import_module("tensorrt_llm.worker").report(
                drafts, 0, batch=[], queued=0, ms=1.0, drafts=drafts
            )
        )
    assert load.steps == 2
