"""Deployment: all the documents of one platform, consistent with each other; and those of them that
executors need.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Self

from pydantic import Field, model_validator

from paretoserve.domain.document import Document
from paretoserve.domain.model import Model
from paretoserve.domain.parity import ParityRecord
from paretoserve.domain.policy import PolicyDocument
from paretoserve.domain.profile import Profile
from paretoserve.domain.rollout import Rollout
from paretoserve.domain.tenant import Tenant
from paretoserve.domain.tier import Tier


class ProfileSet(Document):
    """Models and the profiles of them: all that hosting engines needs. No tenant, no policy."""

    models: tuple[Model, ...] = Field(min_length=1)
    profiles: tuple[Profile, ...] = Field(min_length=1)
    parity: tuple[ParityRecord, ...] = ()

    @model_validator(mode="after")
    def _models_resolve(self) -> Self:
        models = _unique("model", (m.name for m in self.models))
        _unique("profile", (p.name for p in self.profiles))
        for profile in self.profiles:
            _known(f"profile {profile.name}", "model", (profile.model,), models)
        for model in self.models:
            if model.parity is not None:
                names = (model.parity.reference, *model.parity.unchecked)
                own = {p.name for p in self.profiles if p.model == model.name}
                _known(f"model {model.name}, parity:", "its profile", names, own)
        return self

    def model(self, name: str) -> Model:
        """The model of that name. Raises KeyError."""
        return {model.name: model for model in self.models}[name]

    def profile(self, name: str) -> Profile:
        """The profile of that name. Raises KeyError."""
        return {profile.name: profile for profile in self.profiles}[name]


class Deployment(ProfileSet):
    """Models, profiles, tiers, tenants and the policy; every name that one uses another defines.

    `candidate` is a policy that is tried as `rollout` says; without a rollout it only has to fit.
    """

    tiers: tuple[Tier, ...] = Field(min_length=1)
    tenants: tuple[Tenant, ...] = Field(min_length=1)
    policy: PolicyDocument
    candidate: PolicyDocument | None = None
    rollout: Rollout | None = None

    @model_validator(mode="after")
    def _names_resolve(self) -> Self:
        profiles = {profile.name for profile in self.profiles}
        tiers = _unique("tier", (t.name for t in self.tiers))
        tenants = _unique("tenant", (t.name for t in self.tenants))
        _unique("API key hash", (h for t in self.tenants for h in t.key_hashes))
        for tier in self.tiers:
            _known(f"tier {tier.name}", "profile", tier.profiles, profiles)
            _known(f"tier {tier.name}", "tier", filter(None, (tier.fallback,)), tiers)
        for tenant in self.tenants:
            _known(f"tenant {tenant.name}", "tier", tenant.tiers, tiers)
        for rule in self.policy.rules:
            _known(f"rule {rule.name} of the policy", "profile", rule.profiles, profiles)
        for rule in self.candidate.rules if self.candidate else ():
            _known(f"rule {rule.name} of the candidate policy", "profile", rule.profiles, profiles)
        if self.rollout is not None:
            _known("the rollout", "tenant", self.rollout.tenants, tenants)
        _ends({tier.name: tier.fallback for tier in self.tiers})
        return self

    @model_validator(mode="after")
    def _candidate_can_be_tried(self) -> Self:
        if self.rollout is not None and self.candidate is None:
            raise ValueError("the rollout has no candidate policy; write it to policy.next.yaml")
        if self.candidate is not None and self.candidate.version == self.policy.version:
            raise ValueError(
                f"the candidate policy has the version of the policy, {self.policy.version!r}; "
                "decisions are told apart by it, so give policy.next.yaml one of its own"
            )
        return self


def _unique(kind: str, names: Iterable[str]) -> set[str]:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise ValueError(f"{kind} {name!r} is defined twice")
        seen.add(name)
    return seen


def _ends(fallbacks: Mapping[str, str | None]) -> None:
    """Every chain of fallbacks comes to a tier that has none."""
    for name in fallbacks:
        chain, at = [name], fallbacks[name]
        while at is not None:
            chain.append(at)
            if at == name:
                raise ValueError(f"the fallbacks of tiers go round: {' -> '.join(chain)}")
            at = fallbacks[at] if len(chain) <= len(fallbacks) else None


def _known(where: str, kind: str, used: Iterable[str], defined: set[str]) -> None:
    for name in used:
        if name not in defined:
            raise ValueError(
                f"{where} names {kind} {name!r}, which is not defined; "
                f"defined are {', '.join(sorted(defined))}"
            )
