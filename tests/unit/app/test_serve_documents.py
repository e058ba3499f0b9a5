"""What a Serve user_config makes of a deployment folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from paretoserve.app.config import ConfigError, load_deployment
from paretoserve.app.serve import documents

LOCAL = Path(__file__).parents[3] / "deployments" / "local"


def resolve(user_config):
    return documents.resolve(LOCAL, documents.parse(user_config))


def test_an_empty_user_config_is_the_folder_itself():
    assert resolve({}) == load_deployment(LOCAL)
    assert resolve({"revision": 7}) == load_deployment(LOCAL)


def test_documents_in_it_replace_the_folders():
    tenant = {"name": "newcomer", "key_hashes": ["sha256:" + "0" * 64], "tiers": ["standard"]}
    changed = resolve({"policy": {"version": "v2"}, "tenants": [tenant]})
    assert changed.policy.version == "v2"
    assert [t.name for t in changed.tenants] == ["newcomer"]
    assert changed.tiers == load_deployment(LOCAL).tiers


def test_another_folder_can_be_named(tmp_path):
    with pytest.raises(ConfigError, match=str(tmp_path / "absent")):
        resolve({"deployment": str(tmp_path / "absent")})


@pytest.mark.parametrize(
    ("user_config", "message"),
    [
        ({"policy": {"verson": "v2"}}, r"user_config: policy\.verson"),
        ({"polcy": {}}, "user_config: polcy"),
        (
            {"tenants": [{"name": "x", "key_hashes": ["sha256:" + "1" * 64], "tiers": ["gold"]}]},
            "tier 'gold'",
        ),
        ({"profiles": []}, "user_config: profiles"),
    ],
)
def test_what_is_wrong_is_named(user_config, message):
    with pytest.raises(ConfigError, match=message):
        resolve(user_config)
