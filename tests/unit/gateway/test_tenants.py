from __future__ import annotations

import hashlib

import pytest

from paretoserve.domain.deployment import Deployment
from paretoserve.domain.errors import PermissionDenied, Unauthenticated
from paretoserve.gateway.tenants import TenantDirectory, hash_key

KEY, SECOND_KEY, OTHER_KEY = "sk-acme-one", "sk-acme-two", "sk-other"


def tier(name: str, service_tier: str) -> dict[str, object]:
    targets = {"ttft_ms": 100, "tpot_ms": 10}
    return {"name": name, "profiles": ["p"], "service_tier": service_tier, **targets}


@pytest.fixture(scope="module")
def directory() -> TenantDirectory:
    curve = {"source": "emulated", "hardware": "none", "prefill_tokens_per_s": 1}
    limits = {"context_tokens": 10, "max_batch": 1, "max_queue": 0, "admit": 1}
    deployment = Deployment.model_validate(
        {
            "models": [{"name": "m", "path": "m", "context_tokens": 10}],
            "profiles": [
                {
                    "name": "p",
                    "model": "m",
                    "engine": "emulator",
                    "gpus": 1,
                    "limits": limits,
                    "curve": {**curve, "points": [{"batch": 1, "tpot_ms": 1}]},
                }
            ],
            "tiers": [
                tier("premium", "priority"),
                tier("gold", "priority"),
                tier("standard", "default"),
                tier("batch", "flex"),
            ],
            "tenants": [
                {
                    "name": "acme",
                    "key_hashes": [
                        hash_key(KEY),
                        hash_key(SECOND_KEY).upper().replace("SHA", "sha"),
                    ],
                    "tiers": ["standard", "premium", "gold"],
                },
                {"name": "other", "key_hashes": [hash_key(OTHER_KEY)], "tiers": ["batch"]},
            ],
            "policy": {"version": "1"},
        }
    )
    return TenantDirectory(deployment)


def test_a_key_is_stored_as_the_hash_of_its_bytes() -> None:
    assert hash_key("sk-ü") == "sha256:" + hashlib.sha256("sk-ü".encode()).hexdigest()


@pytest.mark.parametrize(
    ("key", "name"), [(KEY, "acme"), (SECOND_KEY, "acme"), (OTHER_KEY, "other")]
)
def test_every_key_of_a_tenant_names_it(directory: TenantDirectory, key: str, name: str) -> None:
    assert directory.authenticate(key).name == name


@pytest.mark.parametrize(
    "key", ["", "sk-wrong", KEY.upper(), KEY + " ", hash_key(KEY), "\ud800", "x" * 10_000]
)
def test_any_other_key_is_refused_and_not_repeated(directory: TenantDirectory, key: str) -> None:
    with pytest.raises(Unauthenticated, match="authorization: Bearer") as refused:
        directory.authenticate(key)
    assert not key or key not in str(refused.value)


@pytest.mark.parametrize(
    ("asked", "served"),
    [
        ("", "standard"),
        ("auto", "standard"),
        ("default", "standard"),
        ("priority", "premium"),
        ("gold", "gold"),
    ],
)
def test_which_tier_a_request_is_served_as(
    directory: TenantDirectory, asked: str, served: str
) -> None:
    assert directory.resolve_tier(directory.authenticate(KEY), asked).name == served


@pytest.mark.parametrize("asked", ["flex", "batch", "platinum", "Premium", "x" * 10_000])
def test_a_tier_not_bought_is_refused_with_those_that_were(
    directory: TenantDirectory, asked: str
) -> None:
    with pytest.raises(PermissionDenied) as refused:
        directory.resolve_tier(directory.authenticate(KEY), asked)
    message = str(refused.value)
    assert "it may use auto, standard, premium, gold, default, priority" in message
    assert refused.value.param == "service_tier"
    assert len(message) < 300
