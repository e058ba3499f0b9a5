"""Small `trtllm` profiles, a model folder, and requests for them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from paretoserve.domain.model import Model
from paretoserve.domain.profile import Capabilities, CurvePoint, LatencyCurve, Limits, Profile
from paretoserve.domain.request import Sampling
from paretoserve.executor.contract import GenerationRequest

ROOT = Path(__file__).parents[5]
FACTS = Path(os.environ.get("TRTLLM_FACTS", ROOT.parent / "shared" / "facts"))
"""The transcripts of TensorRT-LLM that schema and stand-in were made from; absent elsewhere."""
MODEL = Model(
    name="m", path=str(ROOT / "deployments" / "local" / "models" / "scribe"), context_tokens=2048
)
EAGLE = {"decoding_type": "Eagle3", "max_draft_len": 3, "speculative_model": "/models/eagle"}


def profile(*, gpus: float = 1, max_batch: int = 4, penalties: bool = True, **args: Any) -> Profile:
    return Profile(
        name="p",
        model="m",
        engine="trtllm",
        engine_args={"max_batch_size": 4, **args},
        gpus=gpus,
        limits=Limits(context_tokens=512, max_batch=max_batch, max_queue=2, admit=4),
        capabilities=Capabilities(penalties=penalties, resumed_penalties=False),
        curve=LatencyCurve(
            source="emulated",
            hardware="test",
            points=(CurvePoint(batch=1, tpot_ms=1),),
            prefill_tokens_per_s=1e5,
        ),
    )


def request(
    name: str = "r", *, max_tokens: int = 8, priority: int = 0, replayed: int = 0, **sampling: Any
) -> GenerationRequest:
    how = {"temperature": 0.0, "ignore_eos": True, **sampling}
    return GenerationRequest(
        name,
        (3, 10, 17, 24, 31),
        Sampling(max_tokens=max_tokens, **how),
        priority,
        replayed=replayed,
    )
