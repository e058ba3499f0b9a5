"""Options of a client and of one request."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Self, TypedDict

from paretoserve.sdk._retry import RetryPolicy

API_KEY_VARIABLE = "PARETOSERVE_API_KEY"


@dataclass(frozen=True, slots=True)
class Tls:
    """An encrypted channel. All fields are optional: the system's roots, no client certificate."""

    root_certificates: bytes | None = None
    """PEM; None trusts what gRPC trusts."""

    private_key: bytes | None = field(default=None, repr=False)
    """PEM, for a server that asks for a client certificate."""

    certificate_chain: bytes | None = None
    """PEM, belongs to `private_key`."""

    server_name: str | None = None
    """The name that the server's certificate must carry, when it is not the address's."""


@dataclass(frozen=True, slots=True)
class ClientOptions:
    """How a client connects and behaves. Raises ValueError for values that are out of range."""

    api_key: str = field(default="", repr=False)
    """Sent as `authorization: Bearer <key>`."""

    tls: Tls | None = None
    """None is plaintext: for loopback and private networks only, the key travels readable."""

    timeout_s: float | None = 300.0
    """For a whole call, its retries included, seconds; None waits for ever."""

    retry: RetryPolicy = field(default_factory=RetryPolicy)
    """When a failed call is tried again."""

    headers: Mapping[str, str] = field(default_factory=dict)
    """Sent with every call as gRPC metadata; lower-case names."""

    max_message_bytes: int = 64 * 1024 * 1024
    """The largest request and response message, bytes."""

    keepalive_s: float = 60.0
    """A connection with a call on it that is silent for longer is probed, seconds."""

    keepalive_timeout_s: float = 20.0
    """A probe that is unanswered for longer ends the connection, seconds."""

    def __post_init__(self) -> None:
        if self.timeout_s is not None and not 0 < self.timeout_s < float("inf"):
            raise ValueError(f"timeout_s is {self.timeout_s}; it must be above 0, or None")
        for name in ("max_message_bytes", "keepalive_s", "keepalive_timeout_s"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be above 0")
        check_header("api_key", self.api_key, secret=True)
        for key, value in self.headers.items():
            if not key or key != key.lower() or not key.isascii():
                raise ValueError(f"header {key!r} must be a lower-case ASCII name")
            check_header(key, value)

    @classmethod
    def from_env(cls, environ: Mapping[str, str] = os.environ) -> Self:
        """The defaults, with the API key from the variable PARETOSERVE_API_KEY.

        Raises ValueError when it is not set. Nothing else in the SDK reads the environment.
        """
        key = environ.get(API_KEY_VARIABLE, "")
        if not key:
            raise ValueError(f"{API_KEY_VARIABLE} is not set")
        return cls(api_key=key)


class RequestOptions(TypedDict, total=False):
    """Keyword options of `generate`, `stream` and `explain`.

    What is absent, or None where None is allowed, takes the server's default.
    """

    tier: str | None
    """A tier that the tenant bought, or `auto`, `default`, `flex`, `priority`."""

    max_tokens: int | None
    """At most so many tokens are generated."""

    temperature: float
    """0 is greedy, up to 2."""

    top_p: float
    """Only the most probable tokens that together have this probability, above 0, up to 1."""

    top_k: int
    """Only the k most probable tokens; 0 is off."""

    seed: int | None
    """The same seed gives the same tokens on the same profile."""

    stop: str | Sequence[str]
    """Generation ends before any of these strings."""

    stop_token_ids: Sequence[int]
    """Generation ends at any of these tokens."""

    ignore_eos: bool
    """Go on after the model's own end, up to `max_tokens`."""

    presence_penalty: float
    """-2..2, on tokens that have occurred."""

    frequency_penalty: float
    """-2..2, on tokens by how often they have occurred."""

    repetition_penalty: float
    """Above 0; 1 is off."""

    logprobs: int | None
    """Report each token's log probability and this many alternatives, 0..20."""

    logit_bias: Mapping[int, float]
    """By token id: added to its logit, -100..100. Where no profile can, the request is refused."""

    session_id: str | None
    """Groups the requests of one conversation, in traces and for routing: what holds its prefix is
    left only for a lower price."""

    request_id: str | None
    """Names the request in logs, traces and errors; made up when absent."""

    ttft_ms: float | None
    """A target for the time to first token instead of the tier's, milliseconds."""

    tpot_ms: float | None
    """A target for the time per output token instead of the tier's, milliseconds."""

    e2e_ms: float | None
    """A target from arrival to the last token instead of the tier's, milliseconds."""

    timeout_s: float | None
    """Instead of the client's, seconds; here None means to wait for ever."""

    include_decision: bool
    """Return the whole routing decision with the output."""


def check_header(name: str, value: str, *, secret: bool = False) -> None:
    """Raise ValueError for a value that gRPC metadata cannot carry; a secret is not repeated."""
    if not (value.isascii() and (value.isprintable() or not value)) or value != value.strip():
        shown = "" if secret else f" {value!r}"
        raise ValueError(f"{name}{shown} must be printable ASCII without spaces around it")


def with_key(options: ClientOptions | None, api_key: str | None) -> ClientOptions:
    """The options, or the defaults, with `api_key` where one is given."""
    options = options or ClientOptions()
    return options if api_key is None else replace(options, api_key=api_key)
