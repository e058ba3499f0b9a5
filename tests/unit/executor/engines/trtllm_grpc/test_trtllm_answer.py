"""Each token once, whatever messages it came in; and what the end of an answer means."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from smg_grpc_proto import trtllm_service_pb2 as pb
from tests.support.emulated import request

from paretoserve.domain.completion import FinishReason, TokenLogprob
from paretoserve.domain.errors import EngineError
from paretoserve.executor.engines.trtllm_grpc.answer import Answer, Ending

EOS = 2


def answer(**sampling: Any) -> Answer:
    return Answer(request(**{"ignore_eos": False, **sampling}), frozenset({EOS}))


def chunk(*tokens: int, **fields: Any) -> Any:
    return pb.GenerateStreamChunk(token_ids=tokens, **fields)


def complete(*tokens: int, reason: str = "stop", **fields: Any) -> Any:
    fields = {"completion_tokens": len(tokens), **fields}
    return pb.GenerateComplete(output_token_ids=tokens, finish_reason=reason, **fields)


def play(subject: Answer, *chunks: tuple[int, ...], end: Any) -> tuple[tuple[int, ...], Ending]:
    given = tuple(token for each in chunks for token in subject.chunk(chunk(*each)).token_ids)
    ending = subject.complete(end)
    return given + ending.fresh.token_ids, ending


@given(st.lists(st.integers(0, 9), max_size=30), st.lists(st.integers(0, 30)), st.booleans())
def test_every_token_once_however_they_are_cut(
    tokens: list[int], cuts: list[int], ignore_eos: bool
) -> None:
    bounds = sorted({cut for cut in cuts if cut <= len(tokens)} | {0})
    chunks = [tuple(tokens[a:b]) for a, b in itertools.pairwise(bounds)]
    told, ending = play(
        answer(ignore_eos=ignore_eos), *chunks, end=complete(*tokens, reason="length")
    )
    assert told == tuple(tokens)
    assert ending.completion_tokens == len(tokens)
    assert ending.reason is FinishReason.LENGTH


@pytest.mark.parametrize(
    ("chunks", "end", "told", "stop", "counted"),
    [
        ([(5, 6)], complete(5, 6, EOS), (5, 6), "", 3),
        ([(5, 6, EOS)], complete(5, 6, EOS), (5, 6), "", 3),
        ([(5,), (6, EOS)], complete(5, 6, EOS), (5, 6), "", 3),
        ([(5, 6)], complete(5, 6), (5, 6), "", 2),  # a server that neither repeats nor counts it
        ([(5, 9)], complete(5, 9, matched_token_id=9), (5,), "9", 2),
        ([(5,)], complete(5, matched_token_id=9), (5,), "9", 2),  # one that strips it regardless
        ([(5,)], complete(5, 7, matched_token_id=7), (5,), "", 2),  # its own end of sequence
        ([(5, 9)], complete(5, 9), (5,), "9", 2),  # one that does not name it
        ([(5, 6, 7)], complete(5, 6, 7, matched_stop_str="x"), (5, 6, 7), "x", 3),
        ([(5, 6, 7)], complete(5, matched_stop_str="x"), (5, 6, 7), "x", 3),  # took it back
        ([], complete(5, 6, reason="stop_word", matched_stop_str="x"), (5, 6), "x", 2),
        ([(5, 6)], complete(completion_tokens=2), (5, 6), "", 2),  # one that does not repeat
        ([], complete(), (), "", 0),
    ],
)
def test_the_end_of_a_stop(
    chunks: list[tuple[int, ...]], end: Any, told: tuple[int, ...], stop: str, counted: int
) -> None:
    tokens, ending = play(answer(stop_token_ids=(9,)), *chunks, end=end)
    assert (tokens, ending.stop, ending.completion_tokens) == (told, stop, counted)
    assert ending.reason is FinishReason.STOP


def test_an_end_of_sequence_that_ends_nothing_is_a_token_like_others() -> None:
    subject = answer()
    assert subject.chunk(chunk(5, EOS)).token_ids == (5,)
    assert subject.chunk(chunk(6)).token_ids == (EOS, 6)
    tokens, _ = play(answer(), (5,), (EOS,), end=complete(5, EOS, reason="length"))
    assert tokens == (5, EOS)


@pytest.mark.parametrize(
    ("chunks", "end"),
    [
        ([(5, 6)], complete(6, 5, reason="length")),  # out of order
        ([(5, 6), (5, 6)], complete(5, 6, reason="length")),  # said twice
        ([(5,)], complete(4, 5, reason="length")),  # one chunk was lost
        ([(5, 6)], complete(reason="length")),
        ([(5, 6)], complete(7, matched_stop_str="x")),
    ],
)
def test_a_final_message_that_contradicts_the_chunks(
    chunks: list[tuple[int, ...]], end: Any
) -> None:
    with pytest.raises(EngineError, match="final message has"):
        play(answer(), *chunks, end=end)


@pytest.mark.parametrize("word", ["", "repetition", "error", "something new"])
def test_an_end_that_the_contract_does_not_know_is_an_error(word: str) -> None:
    tokens, ending = play(answer(), (5,), end=complete(5, 6, reason=word))
    assert tokens == (5, 6)
    assert ending.reason is FinishReason.ERROR
    assert repr(word) in ending.message or "no reason" in ending.message


def logprob(token: int, value: float, *top: tuple[int, float]) -> Any:
    return pb.TokenLogprob(
        token_id=token,
        logprob=value,
        top_logprobs=[pb.TopLogprob(token_id=other, logprob=each) for other, each in top],
    )


def test_logprobs_are_as_many_as_tokens_and_best_first() -> None:
    subject = answer(logprobs=2)
    said = [logprob(5, -1.0, (5, -1.0), (7, -0.5), (8, -2.0)), logprob(6, -3.0)]
    fresh = subject.chunk(chunk(5, logprobs=said[:1]))
    assert fresh.logprobs == (TokenLogprob(-1.0, ((7, -0.5), (5, -1.0))),)
    ending = subject.complete(complete(5, 6, EOS, logprobs=said))
    assert ending.fresh.token_ids == (6,)
    assert ending.fresh.logprobs == (TokenLogprob(-3.0),)


def test_missing_logprobs_are_an_error_and_those_nobody_asked_for_are_left_out() -> None:
    with pytest.raises(EngineError, match="logprobs of 1 tokens with 2"):
        answer(logprobs=0).chunk(chunk(5, 6, logprobs=[logprob(5, -1.0)]))
    assert answer().chunk(chunk(5, logprobs=[logprob(5, -1.0)])).logprobs == ()


def test_speculation_and_queueing_where_the_server_tells_them() -> None:
    metrics = pb.PerfMetrics(arrival_time=100.0, first_scheduled_time=100.25)
    end = complete(
        *range(3, 13), reason="length", spec_draft_tokens=12, spec_accepted_tokens=5,
        perf_metrics=metrics, cached_tokens=9,
    )  # fmt: skip
    ending = answer().complete(end)
    assert (ending.acceptance.steps, ending.acceptance.drafted, ending.acceptance.accepted) == (
        4, 12, 5,
    )  # fmt: skip
    assert ending.queue_ms == 250
    assert ending.cached_tokens == 3  # never the whole prompt of four
