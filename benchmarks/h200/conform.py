"""The conformance suite on the `vllm` engine with the demo model, and its output beside `local`'s.

Most checks share one started engine, because a start of vLLM takes a quarter of a minute; those
about starting and stopping get their own.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from time import monotonic
from typing import Any

from paretoserve.domain.errors import ParetoserveError
from paretoserve.domain.model import Model
from paretoserve.domain.profile import Capabilities, CurvePoint, LatencyCurve, Limits, Profile
from paretoserve.domain.request import Sampling
from paretoserve.executor.catalog import create
from paretoserve.executor.conformance import Check, Subject, Violation
from paretoserve.executor.conformance.life import LIFE_CHECKS
from paretoserve.executor.conformance.limits import LIMIT_CHECKS
from paretoserve.executor.conformance.output import OUTPUT_CHECKS
from paretoserve.executor.contract import (
    Deliver,
    Engine,
    EngineInfo,
    EngineStats,
    GenerationRequest,
)
from paretoserve.executor.streams import stream

ROOT = Path(__file__).parents[2]
SCRIBE = Model(
    name="scribe", path=str(ROOT / "deployments/local/models/scribe"), context_tokens=2048
)
SMALL = {"enforce_eager": True, "gpu_memory_utilization": 0.3, "dtype": "bfloat16"}
NGRAM = {"method": "ngram", "num_speculative_tokens": 3, "prompt_lookup_max": 3}
SETTINGS: dict[str, dict[str, Any]] = {
    "plain": SMALL,
    "ngram": {**SMALL, "speculative_config": NGRAM},
}
SETTLE_S = 0.1
PROMPT = (1, *range(300, 340))


class Shared:
    """A started engine that many checks use, each as if it were its own."""

    def __init__(self, engine: Engine, info: EngineInfo) -> None:
        self._engine, self._info = engine, info
        self._asked: set[str] = set()

    async def start(self) -> EngineInfo:
        return self._info

    def generate(self, request: GenerationRequest, deliver: Deliver) -> None:
        self._engine.generate(request, deliver)
        self._asked.add(request.request_id)

    def abort(self, request_id: str) -> None:
        self._engine.abort(request_id)

    def stats(self) -> EngineStats:
        return self._engine.stats()

    async def stop(self) -> None:
        """End what this check has left; the engine goes on for the next one."""
        for request_id in self._asked:
            self._engine.abort(request_id)
        await asyncio.sleep(SETTLE_S)


class Report:
    """What passed and what did not, on disk after each line."""

    def __init__(self, out: Path) -> None:
        self._out = out
        self._lines: dict[str, str] = {}

    def note(self, what: str, outcome: str) -> None:
        self._lines[what] = outcome
        self._out.write_text(json.dumps(self._lines, indent=1) + "\n", encoding="utf-8")
        print(f"{what}: {outcome}", flush=True)


async def conform(out: Path, deadline: float) -> None:
    """Run what there is time for and write pass or fail of each check to `out`."""
    report = Report(out)
    for setting, args in SETTINGS.items():
        await _shared_checks(report, setting, args, deadline)
    profile = _profile("plain", SETTINGS["plain"])
    for check in LIFE_CHECKS:
        if monotonic() < deadline:
            await _check(report, "plain", check, profile, lambda: create(profile, SCRIBE))


async def _shared_checks(
    report: Report, setting: str, args: dict[str, Any], deadline: float
) -> None:
    profile = _profile(setting, args)
    engine = create(profile, SCRIBE)
    try:
        info = await engine.start()
        report.note(f"{setting}: start", f"pass: {info}")
        await _beside_local(report, setting, engine)
        for check in (*OUTPUT_CHECKS, *LIMIT_CHECKS):
            if monotonic() < deadline:
                await _check(report, setting, check, profile, lambda: Shared(engine, info))
    except ParetoserveError as error:
        report.note(f"{setting}: start", f"FAIL: {error.message}")
    finally:
        await engine.stop()


async def _check(
    report: Report, setting: str, check: Check, profile: Profile, new: Callable[[], Engine]
) -> None:
    bad = profile.model_copy(update={"engine_args": {**profile.engine_args, "no_such_key": 1}})
    subject = Subject(profile, new, lambda: create(bad, SCRIBE))
    try:
        await check(subject)
        outcome = "pass"
    except (Violation, ParetoserveError) as error:
        outcome = f"FAIL: {error}"
    report.note(f"{setting}: {check.__name__}", outcome)


async def _beside_local(report: Report, setting: str, engine: Engine) -> None:
    """Both engines' greedy tokens and log probabilities for one prompt; rounding may part them."""
    args = {"threads": 8, "device": "cpu", "kv_tokens": 4096}
    reference = create(_profile("local", args, engine="local"), SCRIBE)
    try:
        await reference.start()
        ours, theirs = [await _greedy(one) for one in (engine, reference)]
        same = next(
            (i for i, (a, b) in enumerate(zip(ours[0], theirs[0], strict=True)) if a != b), 32
        )
        gap = max(
            (abs(a - b) for a, b in zip(ours[1][:same], theirs[1][:same], strict=True)), default=0
        )
        report.note(
            f"{setting}: greedy beside the local engine in float32",
            f"first {same} of 32 tokens alike; log probabilities at most {gap:.3f} apart there",
        )
    finally:
        await reference.stop()


async def _greedy(engine: Engine) -> tuple[list[int], list[float]]:
    sampling = Sampling(max_tokens=32, temperature=0.0, ignore_eos=True, logprobs=2)
    tokens: list[int] = []
    logprobs: list[float] = []
    async for chunk in stream(engine, GenerationRequest("beside", PROMPT, sampling)):
        tokens += chunk.token_ids
        logprobs += [entry.logprob for entry in chunk.logprobs]
    return tokens, logprobs


def _profile(name: str, args: dict[str, Any], engine: str = "vllm") -> Profile:
    return Profile(
        name=name,
        model="scribe",
        engine=engine,
        engine_args=args,
        gpus=1,
        capabilities=Capabilities(resumed_penalties=False),
        limits=Limits(context_tokens=512, max_batch=4, max_queue=3, admit=4),
        curve=LatencyCurve(
            source="emulated",
            hardware="none",
            points=(CurvePoint(batch=1, tpot_ms=1.0),),
            prefill_tokens_per_s=1e5,
        ),
    )
