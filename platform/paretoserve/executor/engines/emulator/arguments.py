"""What `engine_args` may say for the emulator."""

from __future__ import annotations

from pydantic import Field

from paretoserve.domain.document import Document


class EmulatorArgs(Document):
    """Everything has a default; pace and acceptance come from the profile's curve."""

    kv_tokens: int | None = Field(
        default=None, gt=0, description="KV cache size; absent: a full context for every sequence"
    )
    seed: int = Field(default=0, description="for requests that bring none")
    mean_output_tokens: float = Field(
        default=128.0, ge=1, description="mean length of an answer that is not told to ignore EOS"
    )
    prefix_cache: bool = False
    vocab_size: int = Field(default=32768, gt=1, description="when the model has no config.json")
