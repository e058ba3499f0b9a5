"""OpenAI's request bodies -> our own request. Raises InvalidRequest for whatever is wrong.

vLLM's extra parameters (top_k, repetition_penalty, ignore_eos, stop_token_ids) are read under the
names that vLLM gives them. Without max_tokens, Sampling's default applies to both APIs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Annotated, Any

from pydantic import FailFast, Field

from paretoserve.domain.errors import InvalidRequest
from paretoserve.domain.request import MAX_STOP_TOKEN_IDS, Sampling
from paretoserve.gateway.calls import Input
from paretoserve.gateway.openai_fields import MAX_NAME_CHARS, Body, read_fields
from paretoserve.gateway.openai_input import (
    ChatMessage,
    read_logit_bias,
    read_message,
    read_prompt,
    read_stop,
    read_token_ids,
)

_SAMPLING_FIELDS = (
    "temperature", "top_p", "seed", "presence_penalty", "frequency_penalty",
    "repetition_penalty", "ignore_eos",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class OpenAIRequest:
    """What one body of either API asks for."""

    model: str
    input: Input
    sampling: Sampling
    service_tier: str
    stream: bool
    include_usage: bool
    spelled: Mapping[str, str]
    """The caller's word for a parameter, where ours is another."""

    @contextmanager
    def in_callers_words(self) -> Iterator[None]:
        """A refusal that comes later names the parameter as the caller did."""
        try:
            yield
        except InvalidRequest as error:
            error.param = self.spelled.get(error.param or "", error.param)
            raise


class _StreamOptions(Body):
    include_usage: bool | None = None


class _Common(Body):
    model: str = Field(min_length=1, max_length=MAX_NAME_CHARS)
    stream: bool | None = None
    stream_options: _StreamOptions | None = None
    service_tier: Annotated[str, Field(max_length=MAX_NAME_CHARS)] | None = None
    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    seed: int | None = None
    stop: Any = None
    stop_token_ids: Any = None
    ignore_eos: bool | None = None
    logit_bias: Any = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    repetition_penalty: float | None = None


class _Chat(_Common):
    messages: Annotated[list[ChatMessage], FailFast()]
    max_completion_tokens: int | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None


class _Completion(_Common):
    prompt: Any = None
    logprobs: int | None = None


def parse_chat(body: Mapping[str, Any]) -> OpenAIRequest:
    """A body of POST /v1/chat/completions."""
    chat = read_fields(_Chat, body)
    if not chat.messages:
        raise InvalidRequest("messages is empty; send at least one", param="messages")
    messages = tuple(read_message(i, message) for i, message in enumerate(chat.messages))
    spelled = {"prompt": "messages"}
    if chat.max_completion_tokens is not None:
        spelled["max_tokens"] = "max_completion_tokens"
    if chat.top_logprobs is not None:
        spelled["logprobs"] = "top_logprobs"
    sampling = replace(
        _sampling(chat), max_tokens=_chat_max_tokens(chat), logprobs=_chat_logprobs(chat)
    )
    return _request(chat, messages, sampling, spelled)


def parse_completion(body: Mapping[str, Any]) -> OpenAIRequest:
    """A body of POST /v1/completions."""
    completion = read_fields(_Completion, body)
    sampling = replace(_sampling(completion), logprobs=completion.logprobs)
    return _request(completion, read_prompt(completion.prompt), sampling, {})


def parse_either(body: Mapping[str, Any]) -> OpenAIRequest:
    """A body of either API: with `messages` it is a chat."""
    return parse_chat(body) if "messages" in body else parse_completion(body)


def _request(
    common: _Common, given: Input, sampling: Sampling, spelled: Mapping[str, str]
) -> OpenAIRequest:
    if common.stream_options is not None and not common.stream:
        raise InvalidRequest(
            "stream_options is allowed only with stream: true", param="stream_options"
        )
    _validate(sampling, spelled)
    return OpenAIRequest(
        model=common.model,
        input=given,
        sampling=sampling,
        service_tier=common.service_tier or "",
        stream=bool(common.stream),
        include_usage=bool(common.stream_options and common.stream_options.include_usage),
        spelled=spelled,
    )


def _validate(sampling: Sampling, spelled: Mapping[str, str]) -> None:
    """`spelled` gives the caller's word for a field of Sampling where it has another."""
    try:
        sampling.validate()
    except InvalidRequest as error:
        name = error.param or ""
        word = spelled.get(name, name)
        raise InvalidRequest(error.message.replace(name, word, 1), param=word) from None


def _sampling(common: _Common) -> Sampling:
    given: dict[str, Any] = {
        name: value for name in _SAMPLING_FIELDS if (value := getattr(common, name)) is not None
    }
    if common.max_tokens is not None:
        given["max_tokens"] = common.max_tokens
    if common.top_k is not None:
        given["top_k"] = 0 if common.top_k == -1 else common.top_k
    return Sampling(
        **given,
        stop=read_stop(common.stop),
        stop_token_ids=read_token_ids("stop_token_ids", common.stop_token_ids, MAX_STOP_TOKEN_IDS),
        logit_bias=read_logit_bias(common.logit_bias),
    )


def _chat_max_tokens(chat: _Chat) -> int:
    if chat.max_completion_tokens is None:
        return Sampling().max_tokens if chat.max_tokens is None else chat.max_tokens
    if chat.max_tokens not in {None, chat.max_completion_tokens}:
        raise InvalidRequest(
            "max_tokens and max_completion_tokens differ; send max_completion_tokens alone",
            param="max_tokens",
        )
    return chat.max_completion_tokens


def _chat_logprobs(chat: _Chat) -> int | None:
    if chat.top_logprobs and not chat.logprobs:
        raise InvalidRequest("top_logprobs needs logprobs: true", param="top_logprobs")
    return (chat.top_logprobs or 0) if chat.logprobs else None
