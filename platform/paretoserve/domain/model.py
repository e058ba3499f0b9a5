"""Model: what a client asks for by name."""

from __future__ import annotations

from pydantic import Field

from paretoserve.domain.document import Document
from paretoserve.domain.parity import Parity


class Model(Document):
    """A model in the Hugging Face layout. The loader makes a relative `path` absolute."""

    name: str = Field(min_length=1)
    path: str = Field(description="folder with config.json, *.safetensors, tokenizer.json")
    context_tokens: int = Field(gt=0)
    parity: Parity | None = Field(
        default=None, description="asks for a parity record of every profile but the reference"
    )
