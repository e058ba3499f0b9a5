"""Reach: which tiers a profile can keep its word to, from the latency curve alone.

On an idle replica, at short context. A profile that is too slow there for the least of all requests
is too slow always; one that is too slow for a typical request may still do for shorter ones, and one
that is not may be under load.
"""

from __future__ import annotations

from typing import NamedTuple

from paretoserve.domain.estimate import Estimate
from paretoserve.domain.prediction import Prediction
from paretoserve.domain.profile import Profile
from paretoserve.domain.replica import Health, ReplicaState
from paretoserve.domain.targets import Targets
from paretoserve.domain.tier import Tier
from paretoserve.latency.curve import batch_within
from paretoserve.latency.outlook import outlook
from paretoserve.latency.predict import predict
from paretoserve.policy.options import tolerable_tpot_ms


class Asked(NamedTuple):
    """How much a request asks for."""

    prompt_tokens: int
    output_tokens: int

    def __str__(self) -> str:
        return (
            f"a request of {self.prompt_tokens:,} prompt and {self.output_tokens:,} output tokens"
        )


TYPICAL = Asked(1000, 200)
LEAST = Asked(1, 1)


class Reach(NamedTuple):
    """What one profile can do for one tier. `idle` is at batch 1; `batch` the most streams at
    which TPOT still keeps the tier's targets, 0 for none, of `max_batch`.
    """

    tier: str
    profile: str
    targets: Targets
    idle: Prediction
    batch: int
    max_batch: int

    @property
    def late(self) -> tuple[str, ...]:
        """The targets that it misses even when idle, with the figures; none where it is in time."""
        figures = (
            ("TTFT", self.idle.ttft_ms, self.targets.ttft_ms),
            ("TPOT", self.idle.tpot_ms, self.targets.tpot_ms),
            ("end-to-end", self.idle.e2e_ms, self.targets.e2e_ms),
        )
        return tuple(
            f"{name} {predicted:.4g} ms, promised {promised:g} ms"
            for name, predicted, promised in figures
            if predicted > promised
        )


def reach(tier: Tier, profile: Profile, asked: Asked = TYPICAL) -> Reach:
    """What `profile` can do for a request of `tier`."""
    estimate = Estimate(asked.output_tokens, asked.output_tokens)
    idle = ReplicaState("", profile.name, "", Health.SERVING)
    targets, limits = tier.targets, profile.limits
    tpot_ms = tolerable_tpot_ms(targets, estimate, 0.0)
    return Reach(
        tier.name,
        profile.name,
        targets,
        predict(outlook(profile, idle), asked.prompt_tokens, estimate),
        batch_within(profile.curve, tpot_ms, limits.max_batch),
        limits.max_batch,
    )
