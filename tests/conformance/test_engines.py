"""Every engine of the catalog against the conformance suite.

trtllm-grpc attaches to our own TrtllmService server, which runs another engine.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from tests.support import vllm_stand_in

from paretoserve.domain.model import Model
from paretoserve.domain.profile import Capabilities, CurvePoint, LatencyCurve, Limits, Profile
from paretoserve.executor.catalog import ENGINES, create
from paretoserve.executor.conformance import CHECKS, Check, Subject
from paretoserve.executor.trtllm import TrtllmServer

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
    gpus: float = 1
    capabilities: dict[str, bool] = field(default_factory=dict)
    behind: Setting | None = None
    """What the server runs that it attaches to."""

    @property
    def profile(self) -> Profile:
        return Profile(
            name=self.name,
            model="scribe",
            engine=self.engine,
            engine_args=self.args,
            gpus=self.gpus,
            capabilities=Capabilities(**self.capabilities),
            limits=Limits(context_tokens=512, max_batch=4, max_queue=3, admit=4),
            curve=LatencyCurve(
                source="emulated",
                hardware="test",
                points=(CurvePoint(batch=1, tpot_ms=1.0), CurvePoint(batch=4, tpot_ms=1.5)),
                **{"prefill_tokens_per_s": 1e5, "prefill_ms": 1.0, **self.curve},
            ),
        )


TRTLLM = {
    "max_batch_size": 4,
    "kv_cache_config": {"enable_block_reuse": False},
    "scheduler_config": {"waiting_queue_policy": "priority"},
}
LOCAL = {"threads": 1, "device": "cpu", "kv_tokens": 4096, "step_tokens": 64}
EMULATED = Setting("emulator", "plain")
SPECULATING = Setting(
    "local",
    "speculating",
    {**LOCAL, "prefix_cache": True, "speculation": {"draft": "draft", "tokens": 3}},
)
SETTINGS = (
    EMULATED,
    Setting("emulator", "speculating", curve={"acceptance_length": 2.5}),
    Setting("emulator", "prefix-cache", {"prefix_cache": True}, curve={"chunk_tokens": 3}),
    Setting("local", "plain", {**LOCAL, "prefix_cache": False, "speculation": None}),
    SPECULATING,
    Setting("trtllm", "plain", TRTLLM, capabilities={"resumed_penalties": False}),
    Setting(
        "trtllm",
        "speculating",
        {
            **TRTLLM,
            "speculative_config": {
                "decoding_type": "Eagle3",
                "max_draft_len": 3,
                "speculative_model": "draft",
            },
        },
        capabilities={"penalties": False},
    ),
    Setting(
        "trtllm",
        "attention-dp",
        {
            **TRTLLM,
            "max_batch_size": 2,
            "tensor_parallel_size": 2,
            "enable_attention_dp": True,
            "kv_cache_config": {"enable_block_reuse": True},
        },
        gpus=2,
        capabilities={"resumed_penalties": False},
    ),
    Setting("trtllm-grpc", "over-emulator", behind=EMULATED),
    Setting("trtllm-grpc", "over-local", behind=SPECULATING),
    Setting(
        "vllm",
        "plain",
        {"enforce_eager": True},
        capabilities={"resumed_penalties": False},
    ),
    Setting(
        "vllm",
        "speculating",
        {"speculative_config": {"num_speculative_tokens": 3}},
        capabilities={"resumed_penalties": False},
    ),
    Setting("local", "int8", {**LOCAL, "weights": "int8"}),
    Setting(
        "local",
        "int8-speculating",
        {**LOCAL, "weights": "int8", "speculation": {"draft": "draft", "tokens": 3}},
    ),
)


@pytest.fixture(autouse=True)
def stand_ins(monkeypatch: pytest.MonkeyPatch) -> None:
    """vLLM needs a GPU: here the engine's own part is checked, on a GPU benchmarks/h200 checks all."""
    vllm_stand_in.install(monkeypatch)


def subject(setting: Setting) -> Subject:
    profile = setting.profile
    bad = profile.model_copy(update={"engine_args": {**profile.engine_args, "no_such_key": 1}})
    return Subject(
        profile, create=lambda: create(profile, SCRIBE), create_broken=lambda: create(bad, SCRIBE)
    )


@contextlib.asynccontextmanager
async def attached(setting: Setting) -> AsyncIterator[Setting]:
    """The setting, with the address of a server that runs as long as the context."""
    if setting.behind is None:
        yield setting
        return
    server = TrtllmServer(create(setting.behind.profile, SCRIBE), "behind")
    address = await server.bind("127.0.0.1:0")
    try:
        await server.start_engine()
        yield replace(setting, args={**setting.args, "address": address})
    finally:
        await server.stop()


def test_every_engine_of_the_catalog_is_checked() -> None:
    assert {setting.engine for setting in SETTINGS} == set(ENGINES)


@pytest.fixture(autouse=True)
def _stand_in_of_tensorrt_llm(stand_in_tensorrt_llm: ModuleType) -> None:
    """The wheel needs GPUs; tests/stand_ins says what stands in for it."""


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("setting", SETTINGS, ids=lambda s: f"{s.engine}-{s.name}")
async def test_engine(setting: Setting, check: Check) -> None:
    async with attached(setting) as attached_setting:
        await check(subject(attached_setting))
