from __future__ import annotations

from typing import Any

import pytest

from paretoserve.domain.conversation import Message
from paretoserve.domain.errors import InvalidRequest
from paretoserve.domain.request import Sampling
from paretoserve.gateway.openai_api import parse_chat, parse_completion, parse_either

USER = {"role": "user", "content": "hi"}


def chat(**fields: Any) -> dict[str, Any]:
    return {"model": "scribe", "messages": [USER], **fields}


def completion(**fields: Any) -> dict[str, Any]:
    return {"model": "scribe", "prompt": "hi", **fields}


def test_the_least_that_is_enough() -> None:
    asked = parse_chat(chat())
    assert (asked.model, asked.input) == ("scribe", (Message("user", "hi"),))
    assert asked.sampling == Sampling()
    assert (asked.stream, asked.include_usage, asked.service_tier) == (False, False, "")
    assert parse_completion(completion()).input == "hi"


def test_every_parameter_of_a_chat() -> None:
    asked = parse_chat(
        chat(
            stream=True,
            stream_options={"include_usage": True, "include_obfuscation": False},
            service_tier="priority",
            max_completion_tokens=9,
            temperature=0,
            top_p=0.5,
            top_k=3,
            seed=-1,
            stop=["a", "b"],
            stop_token_ids=[5],
            ignore_eos=True,
            presence_penalty=1,
            frequency_penalty=-1.5,
            repetition_penalty=1.1,
            logprobs=True,
            top_logprobs=4,
        )
    )
    assert asked.sampling == Sampling(
        max_tokens=9, temperature=0, top_p=0.5, top_k=3, seed=-1, stop=("a", "b"),
        stop_token_ids=(5,), ignore_eos=True, presence_penalty=1, frequency_penalty=-1.5,
        repetition_penalty=1.1, logprobs=4,
    )  # fmt: skip
    assert (asked.stream, asked.include_usage, asked.service_tier) == (True, True, "priority")


def test_null_is_absent() -> None:
    names = (
        "stream", "stream_options", "service_tier", "max_tokens", "max_completion_tokens",
        "temperature", "top_p", "top_k", "seed", "stop", "stop_token_ids", "ignore_eos",
        "presence_penalty", "frequency_penalty", "repetition_penalty", "logprobs",
        "top_logprobs", "n", "tools", "response_format", "logit_bias",
    )  # fmt: skip
    assert parse_chat(chat(**dict.fromkeys(names))) == parse_chat(chat())


@pytest.mark.parametrize(
    "tolerated",
    [
        {"user": "u"},
        {"metadata": {"a": "b"}},
        {"store": True},
        {"prompt_cache_key": "k"},
        {"never_heard_of": [1, {"x": 2}]},
        {"n": 1},
        {"tools": []},
        {"tool_choice": "none"},
        {"response_format": {"type": "text"}},
        {"logit_bias": {}},
        {"modalities": ["text"]},
    ],
)
def test_what_asks_for_nothing_is_tolerated(tolerated: dict[str, Any]) -> None:
    assert parse_chat(chat(**tolerated)) == parse_chat(chat())


def test_a_logit_bias_is_read_by_token_id() -> None:
    asked = parse_chat(chat(logit_bias={"50": -100, "7": 1.5}))
    assert asked.sampling.logit_bias == ((7, 1.5), (50, -100.0))


@pytest.mark.parametrize(
    ("bias", "said"),
    [
        ([1], "logit_bias is a list; it must be an object"),
        ({"-1": 1}, "key that is not a token id"),
        ({"the": 1}, "key that is not a token id"),
        ({"4294967296": 1}, "key that is not a token id"),
        ({"1": "2"}, "logit_bias of 1 is a string"),
        ({"1": True}, "logit_bias of 1 is true or false"),
    ],
)
def test_what_is_no_logit_bias_is_named(bias: Any, said: str) -> None:
    with pytest.raises(InvalidRequest, match=said) as caught:
        parse_chat(chat(logit_bias=bias))
    assert caught.value.param == "logit_bias"


@pytest.mark.parametrize(
    "unsupported",
    [
        {"n": 2},
        {"n": "1"},
        {"tools": [{"type": "function"}]},
        {"tool_choice": "required"},
        {"functions": [{}]},
        {"response_format": {"type": "json_object"}},
        {"modalities": ["audio"]},
        {"audio": {}},
        {"best_of": 2},
        {"echo": True},
        {"suffix": "x"},
        {"guided_json": {}},
        {"min_p": 0.1},
    ],
)
def test_what_is_known_but_not_supported_is_named(unsupported: dict[str, Any]) -> None:
    (name,) = unsupported
    for parse, body in ((parse_chat, chat()), (parse_completion, completion())):
        with pytest.raises(InvalidRequest, match=name) as raised:
            parse({**body, **unsupported})
        assert raised.value.param == name


@pytest.mark.parametrize(
    ("body", "param", "message"),
    [
        ({}, "model", "model is missing"),
        (chat(model=7), "model", "model is a number; it must be a string"),
        (chat(model=""), "model", "model must be a string that is not empty"),
        (chat(model="m" * 300), "model", "model must be a string of at most 256 characters"),
        ({"model": "m"}, "messages", "messages is missing"),
        (chat(messages=[]), "messages", "messages is empty"),
        (chat(messages="hi"), "messages", "messages is a string; it must be a list"),
        (chat(messages=[USER, 3]), "messages[1]", "messages[1] is a number; it must be an object"),
        (chat(messages=[{"content": "x"}]), "messages[0].role", "messages[0].role is missing"),
        (
            chat(messages=[{"role": "wizard", "content": "x"}]),
            "messages[0].role",
            "messages[0].role must be one of system, developer, user, assistant",
        ),
        (chat(messages=[{"role": "tool", "content": "x"}]), "messages[0].role", "must be one of"),
        (chat(messages=[{"role": "user"}]), "messages[0].content", "is null; it must be a string"),
        (
            chat(messages=[{"role": "assistant", "content": None, "tool_calls": [{}]}]),
            "messages[0].tool_calls",
            "not supported",
        ),
        (chat(messages=[{"role": "user", "content": []}]), "messages[0].content", "is empty"),
        (
            chat(messages=[{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]),
            "messages[0].content[0]",
            "reads text only",
        ),
        (
            chat(messages=[{"role": "user", "content": [{"type": "text", "text": 1}]}]),
            "messages[0].content[0].text",
            "is a number; it must be a string",
        ),
        (chat(temperature="hot"), "temperature", "is a string; it must be a number"),
        (chat(temperature=True), "temperature", "is true or false; it must be a number"),
        (chat(temperature=float("nan")), "temperature", "must be a finite number"),
        (chat(temperature=3), "temperature", "temperature is 3"),
        (chat(max_tokens=0), "max_tokens", "max_tokens is 0; it must be from 1"),
        (chat(max_tokens=-4), "max_tokens", "max_tokens is -4"),
        (chat(max_tokens=1.5), "max_tokens", "it must be an integer"),
        (chat(max_tokens=10**30), "max_tokens", "it must be from 1"),
        (chat(max_completion_tokens=0), "max_completion_tokens", "max_completion_tokens is 0"),
        (chat(max_tokens=1, max_completion_tokens=2), "max_tokens", "differ"),
        (chat(top_p=0), "top_p", "it must be a number above 0"),
        (chat(top_k=-2), "top_k", "top_k is -2"),
        (chat(seed=2**63), "seed", "seed is"),
        (chat(stop=5), "stop", "it must be a string or a list of strings"),
        (chat(stop=""), "stop", "stop (characters in one string) is 0"),
        (chat(stop=["x" * 600]), "stop", "stop (characters in one string) is 600"),
        (chat(stop=["a", 5]), "stop[1]", "stop[1] is a number"),
        (chat(stop=["x"] * 5000), "stop", "stop has 5000 strings; at most 16"),
        (chat(stop_token_ids=[1, "x"]), "stop_token_ids[1]", "is not a token id"),
        (chat(stop_token_ids=list(range(65))), "stop_token_ids", "at most 64"),
        (chat(stop_token_ids=5), "stop_token_ids", "it must be a list"),
        (chat(top_logprobs=3), "top_logprobs", "needs logprobs: true"),
        (chat(logprobs=True, top_logprobs=21), "top_logprobs", "top_logprobs is 21"),
        (chat(logprobs=3), "logprobs", "it must be true or false"),
        (chat(stream_options={"include_usage": True}), "stream_options", "only with stream: true"),
        (chat(stream=True, stream_options=[]), "stream_options", "it must be an object"),
        (chat(stream="yes"), "stream", "it must be true or false"),
    ],
)
def test_a_chat_that_is_wrong(body: dict[str, Any], param: str, message: str) -> None:
    with pytest.raises(InvalidRequest) as raised:
        parse_chat(body)
    assert raised.value.param == param
    assert message in raised.value.message


@pytest.mark.parametrize(
    ("prompt", "read"),
    [("hi", "hi"), (["hi"], "hi"), ([1, 2], (1, 2)), ([[1, 2]], (1, 2)), ("", "")],
)
def test_prompts(prompt: Any, read: Any) -> None:
    assert parse_completion(completion(prompt=prompt)).input == read


@pytest.mark.parametrize(
    ("prompt", "param", "message"),
    [
        (None, "prompt", "prompt is missing"),
        ([], "prompt", "prompt is empty"),
        ([[]], "prompt", "prompt is empty"),
        (5, "prompt", "prompt is a number"),
        ({"a": 1}, "prompt", "prompt is an object"),
        (["a", "b"], "prompt", "prompt holds 2 prompts"),
        ([[1], [2]], "prompt", "prompt holds 2 prompts"),
        ([1, True], "prompt[1]", "is not a token id"),
        ([1, -1], "prompt[1]", "is not a token id"),
        ([2**31], "prompt[0]", "is not a token id"),
        ([1, "a"], "prompt[1]", "is not a token id"),
        ([None], "prompt[0]", "is not a token id"),
    ],
)
def test_prompts_that_are_wrong(prompt: Any, param: str, message: str) -> None:
    with pytest.raises(InvalidRequest) as raised:
        parse_completion(completion(prompt=prompt))
    assert raised.value.param == param
    assert message in raised.value.message


def test_completion_logprobs_is_a_number() -> None:
    assert parse_completion(completion(logprobs=3)).sampling.logprobs == 3
    assert parse_completion(completion(logprobs=0)).sampling.logprobs == 0
    with pytest.raises(InvalidRequest) as raised:
        parse_completion(completion(logprobs=True))
    assert raised.value.param == "logprobs"


def test_chat_logprobs_is_a_switch() -> None:
    assert parse_chat(chat(logprobs=True)).sampling.logprobs == 0
    assert parse_chat(chat(logprobs=False)).sampling.logprobs is None


def test_text_parts_are_joined_and_developer_is_system() -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    body = chat(messages=[{"role": "developer", "content": parts, "name": "x"}])
    assert parse_chat(body).input == (Message("system", "a\nb"),)


def test_top_k_of_minus_one_is_off_as_in_vllm() -> None:
    assert parse_chat(chat(top_k=-1)).sampling.top_k == 0


def test_a_body_with_messages_is_a_chat() -> None:
    assert parse_either(chat()) == parse_chat(chat())
    assert parse_either(completion()) == parse_completion(completion())


def test_no_value_of_the_callers_is_repeated() -> None:
    secret = "do not repeat me"
    for body in (
        chat(messages=[{"role": secret, "content": "x"}]),
        chat(stop=[{"x": secret}]),
        chat(temperature=secret),
        chat(messages=secret),
    ):
        with pytest.raises(InvalidRequest) as raised:
            parse_chat(body)
        assert secret not in raised.value.message
