"""Acceptance: how many tokens a speculative step gives, by tenant and profile."""

from __future__ import annotations

from dataclasses import dataclass

from paretoserve.domain.usage import Acceptance

PRIOR_STEPS = 200.0
"""Steps that the profile's own figure is worth."""
MOST_STEPS = 5000.0
"""Steps of a tenant on a profile that are remembered at full weight."""
HALF_LIFE_S = 3600.0
MOST_PAIRS = 10_000
"""Pairs of tenant and profile that are remembered; past that the one not heard of for longest is
forgotten."""


@dataclass(slots=True)
class _Seen:
    steps: float = 0.0
    tokens: float = 0.0
    at: float = 0.0


class Acceptances:
    """Tokens per speculative step, learned from finished requests.

    A step gives the drafts that were accepted and one token of the target model's own (Leviathan,
    Kalman and Matias, ICML 2023). A tenant's figure is the mean over its recent steps, older ones
    fading, shrunk to the profile's own as if that had been seen in PRIOR_STEPS more.
    """

    def __init__(self, most_pairs: int = MOST_PAIRS) -> None:
        self._seen: dict[tuple[str, str], _Seen] = {}
        self._most_pairs = most_pairs

    def observe(self, tenant: str, profile: str, acceptance: Acceptance, now: float) -> None:
        """A request of the tenant ended on the profile. Without steps it says nothing.

        Raises ValueError for negative counts.
        """
        steps, accepted = acceptance.steps, acceptance.accepted
        if steps < 0 or accepted < 0:
            raise ValueError(
                f"tenant {tenant} on {profile}: {steps} steps accepted {accepted} tokens; "
                "both are counts"
            )
        if steps == 0:
            return
        seen = self._latest(tenant, profile)
        fade = 0.5 ** (max(0.0, now - seen.at) / HALF_LIFE_S)
        fade = min(fade, max(0.0, MOST_STEPS - steps) / seen.steps) if seen.steps else fade
        seen.steps = fade * seen.steps + steps
        seen.tokens = fade * seen.tokens + steps + accepted
        seen.at = max(seen.at, now)

    def factor(self, tenant: str, profile: str, prior: float) -> float:
        """The tenant's tokens per step over `prior`, the profile's `acceptance_length`.

        Raises ValueError for a prior below 1, which no step can give.
        """
        if not prior >= 1:
            raise ValueError(f"profile {profile}: acceptance length is {prior}; the least is 1")
        seen = self._seen.get((tenant, profile))
        if seen is None:
            return 1.0
        tokens = (seen.tokens + PRIOR_STEPS * prior) / (seen.steps + PRIOR_STEPS)
        return tokens / prior

    def _latest(self, tenant: str, profile: str) -> _Seen:
        """What was seen of a pair, which becomes the last to be forgotten."""
        seen = self._seen.pop((tenant, profile), None)
        if seen is None:
            seen = _Seen()
            if len(self._seen) >= self._most_pairs:
                del self._seen[next(iter(self._seen))]
        self._seen[tenant, profile] = seen
        return seen
