"""Whatever the engine does and however late the reader is, no token is lost, doubled or moved."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.emulated import emulated_profile, request

from paretoserve.domain.completion import FinishReason, TokenLogprob
from paretoserve.domain.request import Sampling
from paretoserve.domain.usage import Acceptance, Timing, Usage
from paretoserve.executor import codec
from paretoserve.executor.contract import Chunk, Finish, GenerationRequest
from paretoserve.executor.engines.emulator.arguments import EmulatorArgs
from paretoserve.executor.engines.emulator.batch import Batch
from paretoserve.executor.unread import Unread
from paretoserve.wire import messages
from paretoserve.wire._pb import executor_pb2 as pb

int32 = st.integers(0, 2**31 - 1)
number = st.floats(allow_nan=False, allow_infinity=False)
text = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
samplings = st.builds(
    Sampling,
    max_tokens=int32,
    temperature=number,
    top_p=number,
    top_k=int32,
    seed=st.none() | st.integers(-(2**63), 2**63 - 1),
    stop=st.lists(text, max_size=4).map(tuple),
    stop_token_ids=st.lists(int32, max_size=4).map(tuple),
    ignore_eos=st.booleans(),
    presence_penalty=number,
    frequency_penalty=number,
    repetition_penalty=number,
    logprobs=st.none() | int32,
)
logprobs = st.builds(
    TokenLogprob, number, st.lists(st.tuples(int32, number), max_size=3).map(tuple)
)
finishes = st.builds(
    Finish,
    reason=st.sampled_from(FinishReason),
    usage=st.builds(Usage, int32, int32, int32),
    timing=st.builds(Timing, number, number, number),
    acceptance=st.builds(Acceptance, int32, int32, int32),
    stop=text,
    message=text,
)


@given(samplings)
def test_sampling_survives_the_wire(sampling: Sampling) -> None:
    assert messages.sampling_from_proto(messages.sampling_to_proto(sampling)) == sampling


@given(samplings, text, st.lists(int32).map(tuple), st.integers(0, 100), int32)
def test_requests_survive_the_wire(sampling, name, prompt, priority, replayed) -> None:
    sent = GenerationRequest(name, prompt, sampling, priority, replayed=replayed)
    assert codec.request_from_submit(codec.submit_to_proto(sent)) == sent


@given(st.lists(st.lists(st.tuples(int32, logprobs))), st.none() | finishes, st.data())
def test_merging_and_the_wire_keep_every_token_in_order(steps, finish, data) -> None:
    unread, read = Unread(), []
    for index, step in enumerate(steps):
        last = index == len(steps) - 1
        tokens = tuple(token for token, _ in step)
        unread.add(Chunk("r", tokens, tuple(p for _, p in step), finish if last else None))
        if last or data.draw(st.booleans()):
            delta = pb.Delta()
            codec.fill_delta(delta, "r", unread, "")
            read.append(codec.chunk_from_delta(delta))
            unread = Unread()
    assert [t for c in read for t in c.token_ids] == [t for step in steps for t, _ in step]
    assert [p for c in read for p in c.logprobs] == [p for step in steps for _, p in step]
    assert [c.finish for c in read if c.finish] == ([finish] if finish and steps else [])


operations = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.integers(1, 12), st.integers(1, 12)),
        st.tuples(st.just("abort"), st.integers(0, 30), st.just(0)),
        st.tuples(st.just("step"), st.just(0), st.just(0)),
    ),
    max_size=60,
)


@settings(max_examples=150)
@given(operations, st.sampled_from([1.0, 2.0, 2.7]), st.booleans())
def test_an_emulated_batch_ends_each_request_once_and_gives_all_memory_back(
    steps, acceptance_length, prefix_cache
) -> None:
    profile = emulated_profile(
        max_batch=3, max_queue=100, acceptance_length=acceptance_length, chunk_tokens=5
    )
    args = EmulatorArgs(kv_tokens=40, prefix_cache=prefix_cache)
    batch = Batch(profile, args, 50)
    ends: dict[str, int] = {}
    tokens: dict[str, int] = {}

    def step() -> None:
        batch.begin(0.0)
        for _, chunk in batch.end(0.0):
            assert ends[chunk.request_id] == 0
            ends[chunk.request_id] += chunk.finish is not None
            tokens[chunk.request_id] += len(chunk.token_ids)
        stats = batch.stats()
        assert 0 <= stats.kv_used_tokens <= stats.kv_total_tokens
        assert stats.running <= 3
        assert stats.running + stats.waiting == len(batch)

    for kind, first, second in steps:
        if kind == "add":
            name = f"r{len(ends)}"
            batch.add(request(name, prompt=(1,) * first, max_tokens=second), print, 0.0)
            ends[name] = tokens[name] = 0
        elif kind == "abort":
            batch.abort(f"r{first}")
        else:
            step()
    while batch:
        step()
    assert all(count == 1 for count in ends.values())
    assert (batch.stats().kv_used_tokens, batch.stats().waiting_tokens) == (0, 0)
    assert sum(tokens.values()) == batch.stats().generated_tokens_total
