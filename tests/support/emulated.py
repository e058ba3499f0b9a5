"""Emulated profiles and requests for tests; fast unless a test says otherwise."""

from __future__ import annotations

import json
from typing import Any

from paretoserve.domain.model import Model
from paretoserve.domain.profile import CurvePoint, LatencyCurve, Limits, Profile
from paretoserve.domain.request import Sampling
from paretoserve.executor.contract import GenerationRequest

MODEL = Model(name="m", path="no/weights", context_tokens=200_000)


def emulated_profile(
    *,
    context_tokens: int = 200_000,
    max_batch: int = 64,
    max_queue: int = 64,
    admit: int = 1,
    tpot_ms: float = 1.0,
    engine_args: dict[str, Any] | None = None,
    **curve: Any,
) -> Profile:
    """A profile of the emulator: `tpot_ms` at batch 1, a tenth more at a full batch."""
    points = (
        CurvePoint(batch=1, tpot_ms=tpot_ms),
        CurvePoint(batch=max(2, max_batch), tpot_ms=tpot_ms * 1.1),
    )
    return Profile(
        name="fast",
        model="m",
        engine="emulator",
        engine_args=engine_args or {},
        gpus=1,
        limits=Limits(
            context_tokens=context_tokens, max_batch=max_batch, max_queue=max_queue, admit=admit
        ),
        curve=LatencyCurve(
            source="emulated",
            hardware="test",
            points=points,
            **{"prefill_tokens_per_s": 1e6, **curve},
        ),
    )


def request(
    request_id: str = "r",
    *,
    prompt: tuple[int, ...] = (1, 2, 3, 4),
    max_tokens: int = 8,
    priority: int = 0,
    **sampling: Any,
) -> GenerationRequest:
    """A request that runs to max_tokens unless told otherwise."""
    how = {"ignore_eos": True, **sampling}
    return GenerationRequest(request_id, prompt, Sampling(max_tokens=max_tokens, **how), priority)


def deployment_documents(profile: Profile) -> dict[str, Any]:
    """The smallest deployment folder around a profile: what stands in which file."""
    return {
        "models.yaml": {"models": [{"name": "m", "path": "m", "context_tokens": 4096}]},
        "policy.yaml": {"version": "1"},
        "tiers/t.yaml": {"name": "t", "ttft_ms": 1, "tpot_ms": 1, "profiles": [profile.name]},
        "tenants/a.yaml": {"name": "a", "key_hashes": ["sha256:" + "0" * 64], "tiers": ["t"]},
        "profiles/fast.yaml": json.loads(profile.model_dump_json()),
    }
