"""What every engine checks of a request before it queues it: one set of rules, in the same words."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from paretoserve.domain.errors import ContextTooLong, InvalidRequest, QueueFull
from paretoserve.domain.profile import Capabilities, Profile
from paretoserve.executor.contract import GenerationRequest


@dataclass(frozen=True, slots=True)
class Intake:
    """What one started engine takes.

    `most` requests may be in flight, waiting ones included. `has_text` says that it can match stop
    strings.
    """

    vocab_size: int
    context_tokens: int
    most: int
    capabilities: Capabilities
    has_text: bool = True

    @classmethod
    def of(
        cls, profile: Profile, *, vocab_size: int, context_tokens: int, has_text: bool = True
    ) -> Intake:
        """By what the profile says of itself, and the engine of its model."""
        limits = profile.limits
        most = limits.max_batch + limits.max_queue
        return cls(vocab_size, context_tokens, most, profile.capabilities, has_text)

    def check(self, request: GenerationRequest, in_flight: Collection[str]) -> None:
        """`in_flight` are the ids that the engine has now.

        Raises what `Engine.generate` must, and nothing for a request that may be queued.
        """
        if request.request_id in in_flight:
            raise InvalidRequest(f"request id {request.request_id!r} is in flight already")
        request.sampling.validate()
        self._check_prompt(request)
        self._check_capabilities(request)
        needed = len(request.prompt_token_ids) + request.sampling.max_tokens
        if needed > self.context_tokens:
            raise ContextTooLong(
                f"{len(request.prompt_token_ids)} prompt tokens and max_tokens "
                f"{request.sampling.max_tokens} exceed the context of {self.context_tokens} tokens",
                param="max_tokens",
            )
        if len(in_flight) >= self.most:
            raise QueueFull(f"{len(in_flight)} requests run or wait already; {self.most} may")

    def _check_prompt(self, request: GenerationRequest) -> None:
        prompt = request.prompt_token_ids
        if not prompt:
            raise InvalidRequest("the prompt is empty; it needs at least one token", param="prompt")
        low, high = min(prompt), max(prompt)
        if low < 0 or high >= self.vocab_size:
            worst = low if low < 0 else high
            raise InvalidRequest(
                f"prompt token id {worst} is not in the vocabulary of {self.vocab_size}",
                param="prompt",
            )

        for token_id, _ in request.sampling.logit_bias:
            if not 0 <= token_id < self.vocab_size:
                raise InvalidRequest(
                    f"token id {token_id} is not in the vocabulary of {self.vocab_size}",
                    param="logit_bias",
                )

    def _check_capabilities(self, request: GenerationRequest) -> None:
        """The router steers by the same words; whoever comes past it is told."""
        sampling, can = request.sampling, self.capabilities
        if sampling.penalized and not can.penalties:
            raise InvalidRequest("this profile cannot apply penalties", param="presence_penalty")
        if sampling.penalized and request.replayed and not can.resumed_penalties:
            raise InvalidRequest(
                "this profile cannot apply penalties to what another replica generated",
                param="presence_penalty",
            )
        if sampling.logprobs is not None and not can.logprobs:
            raise InvalidRequest("this profile does not report logprobs", param="logprobs")
        if sampling.seed is not None and not can.seed:
            raise InvalidRequest("this profile does not honour a seed", param="seed")
        if sampling.logit_bias and not can.logit_bias:
            raise InvalidRequest("this profile cannot do logit_bias", param="logit_bias")
        if sampling.stop and not self.has_text:
            raise InvalidRequest("stop strings need a tokenizer; the model has none", param="stop")
