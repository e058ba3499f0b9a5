"""Filter `capable`: the profile can do what the request asks.

Inputs: the profile's model, capabilities and context limit; the request's features.
Intent: what a configuration cannot do steers a request elsewhere instead of failing it there.
"""

from __future__ import annotations

from paretoserve.domain.decision import Verdict
from paretoserve.domain.profile import Profile
from paretoserve.policy.protocols import Case, Rejection


def capable(case: Case, profile: Profile) -> Rejection | None:
    request = case.request
    if profile.model != request.model:
        return Rejection(Verdict.NOT_CAPABLE, f"serves model {profile.model}")
    needed = request.prompt_tokens + request.max_tokens - request.generated
    if needed > profile.limits.context_tokens:
        return Rejection(
            Verdict.CONTEXT_TOO_SMALL,
            f"needs {needed} tokens of context, holds {profile.limits.context_tokens}",
        )
    if not (request.penalized or request.logprobs or request.seeded or request.biased):
        return None
    can = profile.capabilities
    wants = (
        ("penalties", request.penalized, can.penalties),
        (
            "penalties for what another replica generated",
            request.penalized and request.generated > 0 and can.penalties,
            can.resumed_penalties,
        ),
        ("logprobs", request.logprobs, can.logprobs),
        ("a seed", request.seeded, can.seed),
        ("logit_bias", request.biased, can.logit_bias),
    )
    missing = [name for name, wanted, able in wants if wanted and not able]
    if missing:
        return Rejection(Verdict.NOT_CAPABLE, f"cannot do {' or '.join(missing)}")
    return None
