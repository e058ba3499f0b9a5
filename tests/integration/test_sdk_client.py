"""The synchronous client against the real gRPC server, in the cases that are rare in life."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Iterator

import pytest
from tests.integration.sdk_gateway import (
    COMPLETED,
    KEY,
    WORDS,
    ScriptedServing,
    delta,
    moved,
    scripted_gateway,
    started,
)

from paretoserve import sdk
from paretoserve.gateway.calls import Call, Event

QUICK = sdk.RetryPolicy(base_s=0.01, cap_s=0.05)
TEXT = "".join(WORDS)


@pytest.fixture(scope="module")
def gateway() -> Iterator[tuple[str, ScriptedServing]]:
    with scripted_gateway() as running:
        yield running


@pytest.fixture
def serving(gateway: tuple[str, ScriptedServing]) -> ScriptedServing:
    serving = gateway[1]
    serving.__init__()  # type: ignore[misc]
    return serving


@pytest.fixture
def client(gateway: tuple[str, ScriptedServing], serving: ScriptedServing) -> Iterator[sdk.Client]:
    del serving
    options = sdk.ClientOptions(retry=QUICK, timeout_s=20)
    with sdk.Client(gateway[0], api_key=KEY, options=options) as client:
        yield client


def test_a_whole_answer(client: sdk.Client, serving: ScriptedServing) -> None:
    answer = client.generate("Once", model="scribe", include_decision=True, logprobs=1)
    assert answer.text == TEXT
    assert answer.token_ids == (0, 1, 2, 3, 4)
    assert [token.text for token in answer.logprobs] == list(WORDS)
    assert answer.logprobs[0].top[0].logprob == -0.5
    assert (answer.tier, answer.service_tier) == ("premium", "priority")
    assert (answer.profile, answer.replica_id) == ("min-latency", "ml-0")
    assert (answer.finish_reason, answer.stop) == (sdk.FinishReason.STOP, ".")
    assert answer.usage == sdk.Usage(4, 5, 2)
    assert answer.timing == sdk.Timing(1, 20, 60)
    assert answer.acceptance == sdk.Acceptance(3, 6, 2)
    assert answer.gpu_seconds == 0.06
    assert answer.request_id == serving.calls[0].request_id
    assert answer.decision is not None
    assert answer.decision.chosen == answer.decision.candidates[0]
    assert (answer.moves, answer.profiles) == (0, ("min-latency",))


def test_an_answer_that_was_moved_says_so(client: sdk.Client, serving: ScriptedServing) -> None:
    serving.script = moved
    with client.stream("Once", model="scribe", include_decision=True) as stream:
        *_, end = stream
        answer = stream.final()
    assert isinstance(end, sdk.Completed)
    for each in (end, answer):
        assert (each.moves, each.profiles) == (1, ("min-latency", "max-throughput"))
        assert each.replica_id == "mt-0"
        assert each.decision is not None
        assert each.decision.request_id == "moved"
    assert answer.profile == "max-throughput"
    assert stream.started is not None
    assert stream.started.profile == "min-latency"


def test_every_option_reaches_the_gateway(client: sdk.Client, serving: ScriptedServing) -> None:
    client.generate(
        [sdk.Message("system", "Be brief."), {"role": "user", "content": "Hello"}],
        model="scribe", tier="premium", max_tokens=7, temperature=0.5, top_p=0.9, top_k=3, seed=11,
        stop="END", stop_token_ids=[2], ignore_eos=True, presence_penalty=0.1,
        frequency_penalty=0.2, repetition_penalty=1.1, logprobs=2, session_id="s1",
        request_id="my-request", ttft_ms=250, tpot_ms=4.5, e2e_ms=900, timeout_s=9,
    )  # fmt: skip
    call = serving.calls[0]
    assert [(turn.role, turn.content) for turn in call.input] == [
        ("system", "Be brief."),
        ("user", "Hello"),
    ]
    sampling = call.sampling
    assert (sampling.max_tokens, sampling.temperature, sampling.top_p) == (7, 0.5, 0.9)
    assert (sampling.top_k, sampling.seed, sampling.logprobs) == (3, 11, 2)
    assert (sampling.stop, sampling.stop_token_ids) == (("END",), (2,))
    assert sampling.ignore_eos
    assert (sampling.presence_penalty, sampling.frequency_penalty) == (0.1, 0.2)
    assert sampling.repetition_penalty == 1.1
    assert (call.model, call.service_tier, call.session_id) == ("scribe", "premium", "s1")
    assert (call.request_id, call.ttft_ms, call.tpot_ms) == ("my-request", 250, 4.5)
    assert call.e2e_ms == 900
    assert call.deadline is not None
    assert 0 < call.deadline - time.monotonic() < 9.5, "gRPC rounds a deadline up"


def test_token_ids_as_a_prompt(client: sdk.Client, serving: ScriptedServing) -> None:
    client.generate([5, 6, 7], model="scribe", tier=None)
    assert serving.calls[0].input == (5, 6, 7)


def test_a_stream_yields_events_and_then_the_whole(client: sdk.Client) -> None:
    with client.stream("Once", model="scribe") as stream:
        first = next(stream)
        texts = stream.text_deltas()
        assert next(texts) == "Once"
        answer = stream.final()
    assert isinstance(first, sdk.Started)
    assert stream.started == first
    assert answer.text == TEXT
    assert list(stream) == []


def unavailable_until(attempt: int, events_before: int = 0) -> object:
    async def script(number: int, call: Call) -> AsyncIterator[Event]:
        if number < attempt:
            for event in (started(call), delta(0), delta(1), delta(2))[:events_before]:
                yield event
            raise sdk.ReplicaLost("the executor went away", delivered=0)
        yield started(call)
        for number in range(len(WORDS)):
            yield delta(number)
        yield COMPLETED

    return script


@pytest.mark.parametrize("events_before", [0, 1])
def test_it_fails_twice_and_then_works(
    client: sdk.Client, serving: ScriptedServing, events_before: int
) -> None:
    serving.script = unavailable_until(3, events_before)
    answer = client.generate("Once", model="scribe")
    assert answer.text == TEXT
    assert len(serving.calls) == 3
    assert len({call.request_id for call in serving.calls}) == 1
    deadlines = [call.deadline or 0 for call in serving.calls]
    assert max(deadlines) - min(deadlines) < 0.5, "attempts share one deadline"


def test_a_stream_that_failed_after_three_deltas_is_not_tried_again(
    client: sdk.Client, serving: ScriptedServing
) -> None:
    serving.script = unavailable_until(3, events_before=4)
    seen: list[str] = []
    with (
        client.stream("Once", model="scribe") as stream,
        pytest.raises(sdk.ReplicaLost, match="went away"),
    ):
        seen.extend(stream.text_deltas())
    assert seen == ["Once", " upon", " a"]
    assert len(serving.calls) == 1


def test_saturation_is_waited_out_as_long_as_the_server_said(
    client: sdk.Client, serving: ScriptedServing
) -> None:
    async def script(number: int, call: Call) -> AsyncIterator[Event]:
        if number == 1:
            raise sdk.Saturated("no profile is in time", retry_after_s=0.3)
        yield started(call)
        yield delta(0)
        yield COMPLETED

    serving.script = script
    before = time.monotonic()
    assert client.generate("Once", model="scribe").text == "Once"
    assert time.monotonic() - before >= 0.3


def test_a_rejection_that_outlasts_the_deadline_is_raised_at_once(
    client: sdk.Client, serving: ScriptedServing
) -> None:
    async def script(number: int, call: Call) -> AsyncIterator[Event]:
        del number, call
        raise sdk.QuotaExceeded("over quota", retry_after_s=15)
        yield

    serving.script = script
    with pytest.raises(sdk.QuotaExceeded, match="over quota") as caught:
        client.generate("Once", model="scribe", timeout_s=10)
    assert caught.value.retry_after_s == 15
    assert len(serving.calls) == 1


async def hang(_number: int, call: Call) -> AsyncIterator[Event]:
    yield started(call)
    yield delta(0)
    await asyncio.sleep(60)


def test_the_deadline_ends_a_call_that_hangs(client: sdk.Client, serving: ScriptedServing) -> None:
    serving.script = hang
    with pytest.raises(sdk.DeadlineExceeded):
        client.generate("Once", model="scribe", timeout_s=0.3)
    assert serving.abandoned.wait(10)
    assert len(serving.calls) == 1


def test_leaving_the_block_cancels_the_request(
    client: sdk.Client, serving: ScriptedServing
) -> None:
    serving.script = hang
    with client.stream("Once", model="scribe") as stream:
        assert next(stream.text_deltas()) == "Once"
    assert serving.abandoned.wait(10)


def test_another_thread_may_close_the_stream(client: sdk.Client, serving: ScriptedServing) -> None:
    serving.script = hang
    with client.stream("Once", model="scribe") as stream:
        threading.Timer(0.2, stream.close).start()
        with pytest.raises(sdk.Cancelled):
            stream.final()
    assert serving.abandoned.wait(10)


def test_closing_ends_a_wait_between_attempts(client: sdk.Client, serving: ScriptedServing) -> None:
    async def script(number: int, call: Call) -> AsyncIterator[Event]:
        del number, call
        raise sdk.Saturated("busy", retry_after_s=15)
        yield

    serving.script = script
    with client.stream("Once", model="scribe") as stream:
        threading.Timer(0.2, stream.close).start()
        before = time.monotonic()
        with pytest.raises(sdk.Cancelled):
            next(stream)
    assert time.monotonic() - before < 10


def test_a_stream_without_its_end_is_an_error(client: sdk.Client, serving: ScriptedServing) -> None:
    async def script(number: int, call: Call) -> AsyncIterator[Event]:
        del number
        yield started(call)
        yield delta(0)

    serving.script = script
    with pytest.raises(sdk.Unavailable, match="before its last event"):
        client.generate("Once", model="scribe")


def test_explain_shows_every_candidate(client: sdk.Client) -> None:
    decision = client.explain("Once", model="scribe", tier="premium", request_id="why")
    assert decision.request_id == "why"
    text = str(decision)
    assert "->  ml-0" in text
    assert "in time" in text
    assert "TPOT -180%" in text, "by how much the other profile would miss its target"
    assert "TTFT 300 ms, TPOT 5 ms" in text


def test_explain_is_tried_again(client: sdk.Client, serving: ScriptedServing) -> None:
    serving.script = unavailable_until(2)
    assert client.explain("Once", model="scribe").outcome is sdk.Outcome.PLACED
    assert len(serving.calls) == 2


def test_models(client: sdk.Client) -> None:
    (model,) = client.list_models()
    assert model == sdk.ModelInfo("scribe", 2048, ("min-latency", "max-throughput"), ("premium",))


@pytest.mark.parametrize("key", ["sk-wrong", ""])
def test_a_key_nobody_has(gateway: tuple[str, ScriptedServing], key: str) -> None:
    with sdk.Client(gateway[0], api_key=key) as client:
        with pytest.raises(sdk.Unauthenticated):
            client.generate("Once", model="scribe")
        with pytest.raises(sdk.Unauthenticated):
            client.list_models()


def test_nobody_there() -> None:
    options = sdk.ClientOptions(retry=sdk.RetryPolicy(attempts=2, base_s=0.01))
    with (
        sdk.Client("127.0.0.1:1", options=options) as client,
        pytest.raises(sdk.Unavailable) as caught,
    ):
        client.generate("Once", model="scribe", timeout_s=10)
    assert caught.value.__notes__ == ["gave up after 2 attempts"]


@pytest.mark.parametrize(
    ("options", "param"),
    [
        ({"max_tokens": 2**40}, "max_tokens"),
        ({"temperature": "hot"}, "temperature"),
        ({"seed": 2**70}, "seed"),
        ({"timeout_s": 0}, "timeout_s"),
        ({"timeout_s": float("nan")}, "timeout_s"),
        ({"request_id": "naïve"}, "request_id"),
        ({"stop": ["\ud800"]}, "stop"),
        ({"stop_token_ids": 3}, "stop_token_ids"),
    ],
)
def test_bad_options_are_named(
    client: sdk.Client, serving: ScriptedServing, options: dict[str, object], param: str
) -> None:
    with pytest.raises(sdk.InvalidRequest) as caught:
        client.generate("Once", model="scribe", **options)  # type: ignore[arg-type]
    assert caught.value.param == param
    assert serving.calls == []


@pytest.mark.parametrize("prompt", ["\ud800", [], [{"role": "user"}], [1, "two"], [2**40]])
def test_bad_prompts_are_refused(client: sdk.Client, prompt: object) -> None:
    with pytest.raises(sdk.InvalidRequest):
        client.generate(prompt, model="scribe")  # type: ignore[arg-type]


def test_a_misspelt_option_gets_the_right_name(client: sdk.Client) -> None:
    with pytest.raises(TypeError, match="did you mean 'max_tokens'"):
        client.generate("Once", model="scribe", max_token=3)  # type: ignore[call-arg]


def test_not_a_number_is_the_servers_to_refuse(client: sdk.Client) -> None:
    with pytest.raises(sdk.InvalidRequest) as caught:
        client.generate("Once", model="scribe", temperature=float("nan"))
    assert caught.value.param == "temperature"
