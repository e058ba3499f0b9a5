"""Everything that calls are judged by, made ready from one Deployment."""

from __future__ import annotations

from typing import Self

from paretoserve.domain.conversation import ModelInfo
from paretoserve.domain.deployment import Deployment
from paretoserve.domain.errors import ModelNotFound, PermissionDenied
from paretoserve.domain.model import Model
from paretoserve.domain.profile import Profile
from paretoserve.domain.tenant import Tenant
from paretoserve.domain.tier import Tier
from paretoserve.executor.tokenizer import Tokenizer
from paretoserve.gateway.prompt import PromptEncoder
from paretoserve.gateway.tenants import TenantDirectory
from paretoserve.policy.policy import Policy


class Setup:
    """Immutable. To change anything, load another and put it in this one's place: a call keeps
    the one that it began with.
    """

    def __init__(self, deployment: Deployment, tokenizers: dict[str, Tokenizer]) -> None:
        """`tokenizers` by model path."""
        self.tenants = TenantDirectory(deployment)
        self.policy = Policy(deployment.policy, deployment.tiers, deployment.profiles)
        self.profiles = {profile.name: profile for profile in deployment.profiles}
        self.tiers = {tier.name: tier for tier in deployment.tiers}
        self.tokenizers = tokenizers
        self._models = {model.name: model for model in deployment.models}
        self._prompts = {
            model.name: PromptEncoder(model, tokenizers[model.path]) for model in deployment.models
        }

    @classmethod
    def load(cls, deployment: Deployment, before: Self | None = None) -> Self:
        """Read the tokenizers that `before` does not have yet.

        Raises EngineError when a model's folder has no good tokenizer.
        """
        known = before.tokenizers if before is not None else {}
        paths = {model.path for model in deployment.models}
        return cls(deployment, {path: known.get(path) or Tokenizer.load(path) for path in paths})

    def prompts(self, model: Model) -> PromptEncoder:
        return self._prompts[model.name]

    def model_for(self, tenant: Tenant, tier: Tier, name: str) -> Model:
        """The model called `name`, which `tier` must be able to serve.

        Raises ModelNotFound for one that does not exist as far as this tenant is concerned, and
        PermissionDenied when only another of its tiers may use it.
        """
        model = self._models.get(name)
        serving = [t for t in self.tenants.tiers(tenant) if model and self._allowed(t, model)]
        if model is None or not serving:
            raise ModelNotFound(f"the model {name[:128]!r} does not exist", param="model")
        if tier not in serving:
            raise PermissionDenied(
                f"tier {tier.name} does not serve model {name}; "
                f"set service_tier to one that does: {', '.join(t.name for t in serving)}",
                param="service_tier",
            )
        return model

    def context_tokens(self, tier: Tier, model: Model) -> int:
        """The longest prompt and completion together that `tier` may use, in tokens."""
        limits = (profile.limits.context_tokens for profile in self._allowed(tier, model))
        return min(model.context_tokens, max(limits))

    def models_of(self, tenant: Tenant) -> tuple[ModelInfo, ...]:
        """The models that the tenant may use, and as what."""
        return tuple(info for model in self._models.values() if (info := self._info(tenant, model)))

    def _info(self, tenant: Tenant, model: Model) -> ModelInfo | None:
        tiers = [tier for tier in self.tenants.tiers(tenant) if self._allowed(tier, model)]
        if not tiers:
            return None
        profiles = (profile.name for tier in tiers for profile in self._allowed(tier, model))
        return ModelInfo(
            name=model.name,
            context_tokens=max(self.context_tokens(tier, model) for tier in tiers),
            profiles=tuple(dict.fromkeys(profiles)),
            tiers=tuple(tier.name for tier in tiers),
        )

    def _allowed(self, tier: Tier, model: Model) -> list[Profile]:
        profiles = (self.profiles[name] for name in tier.profiles)
        return [profile for profile in profiles if profile.model == model.name]
