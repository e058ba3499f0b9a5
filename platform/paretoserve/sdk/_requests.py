"""From Python arguments to one prepared RPC: message, metadata, deadline."""

from __future__ import annotations

import difflib
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from paretoserve.domain.conversation import Message
from paretoserve.domain.errors import InvalidRequest
from paretoserve.sdk._options import ClientOptions, RequestOptions, check_header
from paretoserve.wire._pb import common_pb2, inference_pb2

Prompt = str | Sequence[Message | Mapping[str, str]] | Sequence[int]
"""A text, the turns of a chat (or their `{"role", "content"}` mappings), or token ids."""

Metadata = tuple[tuple[str, str], ...]

SAMPLING = (
    "max_tokens", "temperature", "top_p", "top_k", "seed", "stop_token_ids", "ignore_eos",
    "presence_penalty", "frequency_penalty", "repetition_penalty", "logprobs",
    "logit_bias",
)  # fmt: skip

TARGETS = {
    "ttft_ms": "x-llm-d-slo-ttft-ms",
    "tpot_ms": "x-llm-d-slo-tpot-ms",
    "e2e_ms": "x-paretoserve-slo-e2e-ms",
}


@dataclass(frozen=True, slots=True)
class Prepared:
    """Everything that every attempt of one call has in common. `timeout_s` None is for ever."""

    message: inference_pb2.GenerateRequest
    metadata: Metadata
    timeout_s: float | None
    request_id: str

    @property
    def operation(self) -> str:
        """The name that OpenTelemetry gives to this kind of request."""
        return "chat" if self.message.HasField("chat") else "text_completion"


def prepare(prompt: Prompt, model: str, options: RequestOptions, client: ClientOptions) -> Prepared:
    """Check and convert. Raises TypeError for an unknown option, InvalidRequest for bad values."""
    _check_names(options)
    timeout_s = check_timeout(options.get("timeout_s", client.timeout_s))
    options = _given(options)
    request_id = options.get("request_id") or f"req-{uuid.uuid4().hex}"
    message = inference_pb2.GenerateRequest()
    _assign(message, "model", model)
    _set_prompt(message, prompt)
    _set_sampling(message.sampling, options)
    _assign(message, "service_tier", options.get("tier") or "")
    _assign(message, "session_id", options.get("session_id") or "")
    message.include_decision = options.get("include_decision", False)
    return Prepared(
        message=message,
        metadata=call_metadata(client, request_id, _targets(options)),
        timeout_s=timeout_s,
        request_id=request_id,
    )


def call_metadata(
    client: ClientOptions, request_id: str, extra: Iterable[tuple[str, str]] = ()
) -> Metadata:
    """What every attempt sends beside the message. Raises InvalidRequest for a bad request id."""
    try:
        check_header("request_id", request_id)
    except ValueError as error:
        raise InvalidRequest(str(error), param="request_id") from None
    key = (("authorization", f"Bearer {client.api_key}"),) if client.api_key else ()
    return (*client.headers.items(), *key, ("x-request-id", request_id), *extra)


def check_timeout(timeout_s: float | None) -> float | None:
    """The timeout. Raises InvalidRequest when it is not a positive number of seconds."""
    if timeout_s is not None and not 0 < timeout_s < float("inf"):
        raise InvalidRequest(
            f"timeout_s is {timeout_s}; it must be above 0, or None", param="timeout_s"
        )
    return timeout_s


def _check_names(options: RequestOptions) -> None:
    known = RequestOptions.__annotations__
    for name in options:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            raise TypeError(f"unknown option {name!r}{hint}")


def _given(options: RequestOptions) -> RequestOptions:
    given = {name: value for name, value in options.items() if value is not None}
    return cast("RequestOptions", given)


def _targets(options: RequestOptions) -> list[tuple[str, str]]:
    return [(TARGETS[name], str(options[name])) for name in TARGETS if name in options]  # type: ignore[literal-required]


def _set_prompt(message: inference_pb2.GenerateRequest, prompt: Prompt) -> None:
    if isinstance(prompt, str):
        _assign(message, "prompt", prompt)
        return
    parts: list[Any] = list(prompt)
    if not parts:
        raise InvalidRequest("the prompt is empty", param="prompt")
    if all(isinstance(part, int) and not isinstance(part, bool) for part in parts):
        message.tokens.SetInParent()
        _assign(message.tokens, "ids", parts)
        return
    for part in parts:
        turn = message.chat.messages.add()
        role, content = _turn(part)
        _assign(turn, "role", role)
        _assign(turn, "content", content)


def _turn(part: object) -> tuple[str, str]:
    if isinstance(part, Message):
        return part.role, part.content
    if isinstance(part, Mapping) and set(part) == {"role", "content"}:
        turn = cast("Mapping[str, str]", part)
        return turn["role"], turn["content"]
    raise InvalidRequest(
        "a prompt is a text, a list of token ids, or a list of Message or "
        f'{{"role", "content"}} mappings; one of its items is a {type(part).__name__}',
        param="prompt",
    )


def _set_sampling(sampling: common_pb2.Sampling, options: RequestOptions) -> None:
    for name in SAMPLING:
        if name in options:
            _assign(sampling, name, options[name])  # type: ignore[literal-required]
    stop = options.get("stop", ())
    _assign(sampling, "stop", (stop,) if isinstance(stop, str) else stop)


def _assign(message: Any, name: str, value: Any) -> None:
    """Set a field; protobuf's own complaint about the value becomes an InvalidRequest."""
    try:
        if isinstance(value, str | bytes | float | int):
            setattr(message, name, value)
        elif isinstance(value, Mapping):
            getattr(message, name).update(value)
        else:
            getattr(message, name).extend(value)
    except (TypeError, ValueError, AttributeError) as error:
        raise InvalidRequest(f"{name}: {error}", param=name) from None
