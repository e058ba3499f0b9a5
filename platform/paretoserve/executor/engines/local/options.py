"""The engine_args of a profile whose engine is `local`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, ValidationError

from paretoserve.domain.document import Document
from paretoserve.domain.errors import EngineError
from paretoserve.domain.profile import Profile


class Speculation(Document):
    """Draft-head speculative decoding: which head, and how many tokens it drafts per step."""

    draft: str = Field(default="draft", description="folder of the head, inside the model's")
    tokens: int = Field(default=3, ge=1, le=16)


class Options(Document):
    """How one `local` engine runs. An unknown key is an error."""

    threads: int = Field(default=1, ge=1, description="CPU threads for each operation")
    device: Literal["auto", "cpu", "cuda"] = "auto"
    dtype: Literal["auto", "float32", "bfloat16"] = Field(
        default="auto", description="of weights, activations and KV: float32 on CPU, else bfloat16"
    )
    weights: Literal["stored", "int8"] = Field(
        default="stored",
        description="the layers' matrices as the checkpoint has them, or rounded to 8 bits; "
        "embedding, output matrix and norms are always as stored",
    )
    block_tokens: int = Field(default=16, ge=1, description="tokens in one block of the KV cache")
    kv_tokens: int = Field(default=16384, ge=1, description="size of the KV cache, preallocated")
    step_tokens: int = Field(
        default=256, ge=1, description="tokens in one step: decodes first, prefill what is left"
    )
    prefix_cache: bool = True
    speculation: Speculation | None = None
    seed: int | None = Field(default=None, description="seeds the requests that bring no seed")

    @property
    def drafted(self) -> int:
        """Draft tokens per step; 0 without speculation."""
        return self.speculation.tokens if self.speculation else 0


def read_options(profile: Profile) -> Options:
    """The profile's engine_args.

    Raises EngineError naming the profile and each wrong key, and when the cache could not hold
    one request of the length that the profile's limits promise.
    """
    try:
        options = Options.model_validate(profile.engine_args)
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise EngineError(f"profile {profile.name}, engine_args: {problems}") from error
    needed = profile.limits.context_tokens + options.drafted
    if options.kv_tokens // options.block_tokens * options.block_tokens < needed:
        raise EngineError(
            f"profile {profile.name}, engine_args.kv_tokens is {options.kv_tokens}; one request of "
            f"limits.context_tokens needs {needed}, in blocks of {options.block_tokens}"
        )
    return options
