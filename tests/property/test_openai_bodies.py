"""Whatever arrives as a body, it is read or refused: never a fault of ours."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from paretoserve.domain.errors import InvalidRequest
from paretoserve.gateway.openai_api import OpenAIRequest, parse_chat, parse_completion
from paretoserve.gateway.openai_fields import parse_json
from paretoserve.wire.errors import openai_error

PARSERS = [parse_chat, parse_completion]
NAMES = [
    "model", "messages", "prompt", "stream", "stream_options", "service_tier", "max_tokens",
    "max_completion_tokens", "temperature", "top_p", "top_k", "seed", "stop", "stop_token_ids",
    "ignore_eos", "presence_penalty", "frequency_penalty", "repetition_penalty", "logprobs",
    "top_logprobs", "n", "tools", "response_format", "logit_bias", "echo", "best_of", "user",
]  # fmt: skip

numbers = st.integers() | st.floats() | st.sampled_from([10**400, -(2**63), 2**31])
leaves = st.none() | st.booleans() | numbers | st.text()
keys = st.sampled_from(["role", "content", "type", "text", "include_usage"]) | st.text(max_size=5)
values = st.recursive(
    leaves,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys, inner, max_size=4),
    max_leaves=12,
)
bodies = st.dictionaries(st.sampled_from(NAMES), values, max_size=8)
good = {"model": "m", "messages": [{"role": "user", "content": "x"}], "prompt": "x"}


def read(parse: Any, body: dict[str, Any]) -> OpenAIRequest | None:
    """Through the bytes that a client would send; json writes NaN and lone surrogates as it can."""
    try:
        return parse(parse_json(json.dumps(body).encode()))
    except InvalidRequest as error:
        refused = error
    assert refused.message
    json.dumps(openai_error(refused), ensure_ascii=False).encode()
    return None


@pytest.mark.parametrize("parse", PARSERS)
@settings(suppress_health_check=[HealthCheck.too_slow])  # the first text() loads a table
@given(body=bodies)
def test_any_fields(parse: Any, body: dict[str, Any]) -> None:
    read(parse, body)


@pytest.mark.parametrize("parse", PARSERS)
@given(change=st.dictionaries(st.sampled_from(NAMES), values, min_size=1, max_size=2))
def test_a_good_body_with_a_part_changed(parse: Any, change: dict[str, Any]) -> None:
    asked = read(parse, {**good, **change})
    if asked is not None:
        asked.sampling.validate()
        str(asked.input).encode()


@given(data=st.binary(max_size=200))
def test_any_bytes(data: bytes) -> None:
    with contextlib.suppress(InvalidRequest):
        assert isinstance(parse_json(data), dict)


@given(text=st.text(max_size=50), cut=st.integers(0, 60))
def test_json_that_is_cut(text: str, cut: int) -> None:
    data = json.dumps({**good, "prompt": text}, ensure_ascii=False).encode("utf-8", "surrogatepass")
    with contextlib.suppress(InvalidRequest):
        assert isinstance(parse_json(data[:cut]), dict)
