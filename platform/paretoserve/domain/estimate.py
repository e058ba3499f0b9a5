"""Estimate: what the router expects of a request before it has run."""

from __future__ import annotations

from typing import NamedTuple


class Estimate(NamedTuple):
    """Expectations of one request, from its tenant's past.

    `output_tokens` is the median completion length and `output_tokens_high` its high quantile,
    both within max_tokens. `acceptance` is by profile that drafts: the tenant's tokens per
    speculative step over the profile's own figure. Profiles that are not named have 1.
    """

    output_tokens: float = 128.0
    output_tokens_high: float = 512.0
    acceptance: tuple[tuple[str, float], ...] = ()

    def accepts(self, profile: str) -> float:
        """The factor of one profile."""
        for name, factor in self.acceptance:
            if name == profile:
                return factor
        return 1.0


NO_ESTIMATE = Estimate()
