"""Request: what a client wants, as features a policy can decide on."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from paretoserve.domain.errors import InvalidRequest
from paretoserve.domain.estimate import NO_ESTIMATE, Estimate

MAX_STOP_STRINGS = 16
MAX_STOP_CHARS = 512
MAX_STOP_TOKEN_IDS = 64
MAX_LOGPROBS = 20
MAX_LOGIT_BIASES = 1024
MAX_LOGIT_BIAS = 100.0


@dataclass(frozen=True, slots=True)
class Sampling:
    """How tokens are chosen. `temperature` 0 is greedy; `top_k` 0 and `top_p` 1 are off.

    `logprobs` is None for none, or how many alternatives (0..20) are reported beside each
    chosen token. `logit_bias` holds (token id, what is added to its logit), -100..100.
    """

    max_tokens: int = 256
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    seed: int | None = None
    stop: tuple[str, ...] = ()
    stop_token_ids: tuple[int, ...] = ()
    ignore_eos: bool = False
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    logprobs: int | None = None
    logit_bias: tuple[tuple[int, float], ...] = ()

    @property
    def penalized(self) -> bool:
        return (
            self.presence_penalty != 0
            or self.frequency_penalty != 0
            or self.repetition_penalty != 1
        )

    def validate(self) -> None:
        """Raise InvalidRequest naming the first parameter that is out of range."""
        _integer("max_tokens", self.max_tokens, 1, 2**31 - 1)
        _number("temperature", self.temperature, 0, 2)
        _number("top_p", self.top_p, 0, 1, exclusive_low=True)
        _integer("top_k", self.top_k, 0, 2**31 - 1)
        if self.seed is not None:
            _integer("seed", self.seed, -(2**63), 2**63 - 1)
        _number("presence_penalty", self.presence_penalty, -2, 2)
        _number("frequency_penalty", self.frequency_penalty, -2, 2)
        _number("repetition_penalty", self.repetition_penalty, 0, 10, exclusive_low=True)
        if self.logprobs is not None:
            _integer("logprobs", self.logprobs, 0, MAX_LOGPROBS)
        _integer("stop (number of strings)", len(self.stop), 0, MAX_STOP_STRINGS)
        for stop in self.stop:
            _integer("stop (characters in one string)", len(stop), 1, MAX_STOP_CHARS)
        _integer("stop_token_ids (how many)", len(self.stop_token_ids), 0, MAX_STOP_TOKEN_IDS)
        _integer("logit_bias (how many tokens)", len(self.logit_bias), 0, MAX_LOGIT_BIASES)
        for _, bias in self.logit_bias:
            _number("logit_bias", bias, -MAX_LOGIT_BIAS, MAX_LOGIT_BIAS)


@dataclass(frozen=True, slots=True)
class Request:
    """The features of one request that a decision may depend on. Holds no prompt text."""

    request_id: str
    model: str
    tenant: str
    tier: str
    prompt_tokens: int
    max_tokens: int
    penalized: bool = False
    logprobs: bool = False
    seeded: bool = False
    biased: bool = False
    session_id: str = ""
    ttft_ms: float | None = None
    """A target that the client set itself; it may only tighten or loosen its own request."""
    tpot_ms: float | None = None
    e2e_ms: float | None = None
    excluded_replicas: frozenset[str] = field(default_factory=frozenset)
    """Replicas that already failed this request."""
    estimate: Estimate = NO_ESTIMATE
    cached: tuple[tuple[str, int], ...] = ()
    """Replicas that hold a prefix of the prompt, with its length in tokens; none elsewhere."""
    blocks: tuple[int, ...] = ()
    """Names of the prompt's blocks, each of all that precedes it; only the router looks at them."""
    home: str = ""
    """The profile that served its session last, where that still holds a prefix."""
    waited_ms: float = 0.0
    """How long ago it arrived: to be read and tokenized takes time too."""
    held: bool = False
    """Whether it has waited in the router."""
    generated: int = 0
    """Tokens that it has had already from a replica that it leaves; they are in prompt_tokens."""
    running: bool = False
    """Whether it runs where it is and asks for a faster place; then it cannot wait."""
    in_contract: bool = True
    """Whether the tenant's contract covers it; else `tier` is the fallback of what it asked for."""
    draw: float = 1.0
    """In [0, 1): the only randomness a decision may use; 1 for none."""

    @property
    def has_own_targets(self) -> bool:
        """Whether a target of its own takes the place of its tier's."""
        return not self.ttft_ms is self.tpot_ms is self.e2e_ms is None


def _integer(name: str, value: int, low: int, high: int) -> None:
    if not low <= value <= high:
        raise InvalidRequest(
            f"{name} is {value}; it must be from {low} to {high}", param=name.partition(" ")[0]
        )


def _number(
    name: str, value: float, low: float, high: float, *, exclusive_low: bool = False
) -> None:
    if not math.isfinite(value) or value > high or value < low or (exclusive_low and value == low):
        bound = "above" if exclusive_low else "from"
        raise InvalidRequest(
            f"{name} is {value}; it must be a number {bound} {low} to {high}", param=name
        )
