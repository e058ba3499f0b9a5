"""The base of everything that an operator writes in YAML."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Document(BaseModel):
    """A frozen, validated document; an unknown key or a wrong type is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
