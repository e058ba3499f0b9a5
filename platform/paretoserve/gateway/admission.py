"""Admission: who is calling, what it may have, and whether what it asks for makes sense."""

from __future__ import annotations

from dataclasses import dataclass, replace

from paretoserve.domain.errors import ContextTooLong, InvalidRequest
from paretoserve.domain.model import Model
from paretoserve.domain.request import Request, Sampling
from paretoserve.domain.tenant import Tenant
from paretoserve.domain.tier import Tier
from paretoserve.executor.tokenizer import Tokenizer
from paretoserve.gateway.calls import Call
from paretoserve.gateway.setup import Setup
from paretoserve.placement.prefixes import block_hashes

DEFAULT_MAX_TOKENS = Sampling().max_tokens
LEAST_TARGET_MS, MOST_TARGET_MS = 0.001, 1e9
"""What a client may ask for as a target of its own."""


@dataclass(frozen=True, slots=True)
class Admitted:
    """A call that may run, if there is room. `sampling.max_tokens` fits into the context."""

    call: Call
    setup: Setup
    tenant: Tenant
    tier: Tier
    model: Model
    prompt: tuple[int, ...]
    sampling: Sampling

    @property
    def tokenizer(self) -> Tokenizer:
        return self.setup.prompts(self.model).tokenizer

    def request(self, request_id: str) -> Request:
        """The features that a decision depends on."""
        return Request(
            request_id=request_id,
            model=self.model.name,
            tenant=self.tenant.name,
            tier=self.tier.name,
            prompt_tokens=len(self.prompt),
            max_tokens=self.sampling.max_tokens,
            penalized=self.sampling.penalized,
            logprobs=self.sampling.logprobs is not None,
            seeded=self.sampling.seed is not None,
            biased=bool(self.sampling.logit_bias),
            session_id=self.call.session_id,
            ttft_ms=self.call.ttft_ms,
            tpot_ms=self.call.tpot_ms,
            e2e_ms=self.call.e2e_ms,
            blocks=block_hashes(self.prompt),
        )


async def admit(setup: Setup, call: Call) -> Admitted:
    """Authenticate, resolve, validate, tokenize; what is cheap to refuse is refused first.

    Raises Unauthenticated, PermissionDenied, ModelNotFound, InvalidRequest, ContextTooLong.
    """
    tenant = setup.tenants.authenticate(call.api_key)
    tier = setup.tenants.resolve_tier(tenant, call.service_tier)
    model = setup.model_for(tenant, tier, call.model)
    call.sampling.validate()
    _check_target("ttft_ms", call.ttft_ms)
    _check_target("tpot_ms", call.tpot_ms)
    _check_target("e2e_ms", call.e2e_ms)
    prompt = await setup.prompts(model).encode(call.input)
    sampling = _fitted(call.sampling, len(prompt), setup.context_tokens(tier, model), model.name)
    return Admitted(call, setup, tenant, tier, model, prompt, sampling)


def _check_target(name: str, value: float | None) -> None:
    if value is not None and not LEAST_TARGET_MS <= value <= MOST_TARGET_MS:
        raise InvalidRequest(
            f"{name} is {value}; it must be from {LEAST_TARGET_MS:g} to {MOST_TARGET_MS:g} "
            "milliseconds",
            param=name,
        )


def _fitted(sampling: Sampling, prompt_tokens: int, context: int, model: str) -> Sampling:
    """`sampling` as it fits into the context: max_tokens at its default gives way to the prompt."""
    room = context - prompt_tokens
    if sampling.max_tokens <= room:
        return sampling
    if room > 0 and sampling.max_tokens == DEFAULT_MAX_TOKENS:
        return replace(sampling, max_tokens=room)
    if room > 0:
        raise ContextTooLong(
            f"the prompt has {prompt_tokens} tokens and max_tokens is {sampling.max_tokens}; "
            f"model {model} has a context of {context}: set max_tokens to {room} or less",
            param="max_tokens",
        )
    raise ContextTooLong(
        f"the prompt has {prompt_tokens} tokens; model {model} has a context of {context}, prompt "
        "and completion together",
        param="prompt",
    )
