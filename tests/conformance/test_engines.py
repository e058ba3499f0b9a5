"""Every engine of the catalog against the conformance suite."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from paretoserve.domain.model import Model
from paretoserve.domain.profile import CurvePoint, LatencyCurve, Limits, Profile
from paretoserve.executor.catalog import ENGINES, create
from paretoserve.executor.conformance import CHECKS, Check, Subject

ROOT = Path(__file__).parents[2]
SCRIBE = Model(
    name="scribe",
    path=str(ROOT / "deployments" / "local" / "models" / "scribe"),
    context_tokens=2048,
)
NO_WEIGHTS = SCRIBE.model_copy(update={"path": str(ROOT / "no" / "such" / "model")})


@dataclass(frozen=True)
class Setting:
    """How an engine is run here: small, and once for each way it has of making tokens."""

    engine: str
    name: str
    args: dict[str, Any] = field(default_factory=dict)
    curve: dict[str, Any] = field(default_factory=dict)

    @property
    def profile(self) -> Profile:
        return Profile(
            name=self.name,
            model="scribe",
            engine=self.engine,
            engine_args=self.args,
            gpus=1,
            limits=Limits(context_tokens=512, max_batch=4, max_queue=3, admit=4),
            curve=LatencyCurve(
                source="emulated",
                hardware="test",
                points=(CurvePoint(batch=1, tpot_ms=1.0), CurvePoint(batch=4, tpot_ms=1.5)),
                **{"prefill_tokens_per_s": 1e5, "prefill_ms": 1.0, **self.curve},
            ),
        )


LOCAL = {"threads": 1, "device": "cpu", "kv_tokens": 4096, "step_tokens": 64}
SETTINGS = (
    Setting("emulator", "plain"),
    Setting("emulator", "speculating", curve={"acceptance_length": 2.5}),
    Setting("emulator", "prefix-cache", {"prefix_cache": True}, curve={"chunk_tokens": 3}),
    Setting("local", "plain", {**LOCAL, "prefix_cache": False, "speculation": None}),
    Setting(
        "local",
        "speculating",
        {**LOCAL, "prefix_cache": True, "speculation": {"draft": "draft", "tokens": 3}},
    ),
    Setting("local", "int8", {**LOCAL, "weights": "int8"}),
    Setting(
        "local",
        "int8-speculating",
        {**LOCAL, "weights": "int8", "speculation": {"draft": "draft", "tokens": 3}},
    ),
)


def subject(setting: Setting) -> Subject:
    profile = setting.profile
    bad = profile.model_copy(update={"engine_args": {**profile.engine_args, "no_such_key": 1}})
    return Subject(
        profile, create=lambda: create(profile, SCRIBE), create_broken=lambda: create(bad, SCRIBE)
    )


def test_every_engine_of_the_catalog_is_checked() -> None:
    assert {setting.engine for setting in SETTINGS} == set(ENGINES)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("setting", SETTINGS, ids=lambda s: f"{s.engine}-{s.name}")
async def test_engine(setting: Setting, check: Check) -> None:
    await check(subject(setting))
