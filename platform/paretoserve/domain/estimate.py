"""Estimate: what the router expects of a request before it has run."""

from __future__ import annotations

from typing import NamedTuple


class Estimate(NamedTuple):
    """Expectations of one request, from its tenant's past.

    `output_tokens` is the median completion length and `output_tokens_high` its high quantile,
    both within max_tokens. `acceptance` is the tenant's tokens per speculative step over the figure
    of the profile that drafts: 1 where nothing is known.
    """

    output_tokens: float = 128.0
    output_tokens_high: float = 512.0
    acceptance: float = 1.0


NO_ESTIMATE = Estimate()
