from __future__ import annotations

import pytest
from pydantic import ValidationError

from paretoserve.domain.tenant import Contract, Tenant

WHO = {"name": "acme", "key_hashes": ["sha256:" + "0" * 64], "tiers": ["premium", "standard"]}


def test_a_contract_is_a_rate_with_a_burst() -> None:
    tenant = Tenant.model_validate(
        {**WHO, "contracts": {"premium": {"gpu_seconds_per_s": 2, "burst_s": 1.5}}}
    )
    assert tenant.contracts["premium"].bucket == 3
    assert Contract(gpu_seconds_per_s=2).bucket == 0.5
    assert Tenant.model_validate(WHO).contracts == {}


@pytest.mark.parametrize(
    ("contracts", "says"),
    [
        ({"batch": {"gpu_seconds_per_s": 1}}, "for tier 'batch'.*it has premium, standard"),
        ({"premium": {}}, "contracts.premium.gpu_seconds_per_s"),
        ({"premium": {"gpu_seconds_per_s": 0}}, "greater than 0"),
        ({"premium": {"gpu_seconds_per_s": 1, "burst_s": 0}}, "greater than 0"),
        ({"premium": {"gpu_seconds_per_s": 1, "burst": 1}}, "contracts.premium.burst"),
    ],
)
def test_a_contract_that_cannot_be_meant_is_refused(
    contracts: dict[str, dict[str, float]], says: str
) -> None:
    with pytest.raises(ValidationError) as caught:
        Tenant.model_validate({**WHO, "contracts": contracts})
    caught.match(f"(?s){says}")
