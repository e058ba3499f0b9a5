"""Who is calling, and as which tier they are served."""

from __future__ import annotations

import hashlib
import hmac
import secrets

from paretoserve.domain.deployment import Deployment
from paretoserve.domain.errors import PermissionDenied, Unauthenticated
from paretoserve.domain.tenant import Tenant
from paretoserve.domain.tier import Tier

HOW_TO_AUTHENTICATE = "pass it as `authorization: Bearer <key>` (HTTP header or gRPC metadata)"


def hash_key(api_key: str) -> str:
    """An API key as tenant documents store it: `sha256:<hex>`."""
    return "sha256:" + hashlib.sha256(api_key.encode("utf-8", "surrogatepass")).hexdigest()


class TenantDirectory:
    """The tenants and tiers of one deployment. Immutable; to change it, build another."""

    def __init__(self, deployment: Deployment) -> None:
        self._blind_key = secrets.token_bytes(32)
        self._tiers = {tier.name: tier for tier in deployment.tiers}
        self._tenants = {
            self._blinded(key_hash.lower()): tenant
            for tenant in deployment.tenants
            for key_hash in tenant.key_hashes
        }

    def authenticate(self, api_key: str) -> Tenant:
        """The tenant whose key this is. Raises Unauthenticated, which never repeats the key.

        The time taken says nothing about the keys there are.
        """
        if not api_key:
            raise Unauthenticated(f"no API key was given; {HOW_TO_AUTHENTICATE}")
        tenant = self._tenants.get(self._blinded(hash_key(api_key)))
        if tenant is None:
            raise Unauthenticated(f"the API key is not known here; {HOW_TO_AUTHENTICATE}")
        return tenant

    def tiers(self, tenant: Tenant) -> tuple[Tier, ...]:
        """The tiers that the tenant bought, the one used by default first."""
        return tuple(self._tiers[name] for name in tenant.tiers)

    def resolve_tier(self, tenant: Tenant, service_tier: str) -> Tier:
        """The tier to serve as.

        "" and "auto" are the tenant's first tier; a name is a tier that it bought; default, flex
        and priority are its first tier that OpenAI clients see under that name.

        Raises PermissionDenied that says what the tenant may use.
        """
        bought = self.tiers(tenant)
        if service_tier in {"", "auto"}:
            return bought[0]
        for tier in bought:
            if tier.name == service_tier:
                return tier
        for tier in bought:
            if tier.service_tier == service_tier:
                return tier
        names = dict.fromkeys([tier.name for tier in bought] + [t.service_tier for t in bought])
        raise PermissionDenied(
            f"tenant {tenant.name} may not use service_tier {service_tier[:64]!r}; "
            f"it may use auto, {', '.join(names)}",
            param="service_tier",
        )

    def _blinded(self, key_hash: str) -> bytes:
        """What the dictionary is keyed by. A lookup's time depends on the bytes it compares; with
        this process's secret mixed in, a caller cannot choose or learn them.
        """
        return hmac.digest(self._blind_key, key_hash.encode(), "sha256")
