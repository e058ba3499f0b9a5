"""Measures one plan in this process, or runs the conformance suite. `run.py` starts it."""

from __future__ import annotations

import argparse
import asyncio
import importlib.metadata
import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, perf_counter

from benchmarks.h200.conform import conform
from benchmarks.h200.plans import CONTEXT, LONG_PROMPT, OUTPUT, PROMPT, Plan, plans
from paretoserve.app.profiling.measure import EngineSource, RandomPrompts, greedy, play
from paretoserve.app.profiling.results import Place, ProfilePoint, ProfileResults, point_of
from paretoserve.app.profiling.streams import Run
from paretoserve.domain.model import Model
from paretoserve.domain.profile import Capabilities, CurvePoint, LatencyCurve, Limits, Profile
from paretoserve.executor.catalog import create
from paretoserve.executor.contract import Engine, EngineInfo

WARM_UP_TOKENS = 8
LEAST_RUNS = 2
REPEATS_WITHIN_S = 2.0
"""A point's runs go on until they took that long and are LEAST_RUNS, if there is time."""


@dataclass(frozen=True, slots=True)
class Until:
    """Where the results go, and when (monotonic seconds) to measure no more."""

    out: Path
    deadline: float


def profile_of(plan: Plan, gpus: int) -> Profile:
    """The plan as an operator would write it down; its curve is what is to be found out."""
    return Profile(
        name=plan.name,
        model="random",
        engine="vllm",
        engine_args=plan.args,
        gpus=gpus,
        capabilities=Capabilities(resumed_penalties=False),
        limits=Limits(context_tokens=CONTEXT, max_batch=plan.batches[-1], max_queue=0, admit=1),
        curve=LatencyCurve(
            source="emulated",
            hardware="not measured yet",
            points=(CurvePoint(batch=1, tpot_ms=1.0),),
            prefill_tokens_per_s=1.0,
        ),
    )


async def measure(plan: Plan, gpus: int, out: Path, deadline: float) -> None:
    """Start the engine and measure point by point; `out` holds what is known at any time."""
    with tempfile.TemporaryDirectory(prefix="h200-") as folder:
        plan.shape.write(Path(folder))
        model = Model(name="random", path=folder, context_tokens=CONTEXT)
        engine = create(profile_of(plan, gpus), model)
        began = perf_counter()
        try:
            info = await engine.start()
            started_s = perf_counter() - began
            print(f"{plan.name}: started in {started_s:.0f} s, {info}", flush=True)
            results = _results(plan, info, gpus)
            results.notes.append(f"the engine started in {started_s:.0f} s")
            results.save(out)
            await _sweep(plan, engine, info, results, Until(out, deadline))
        finally:
            await engine.stop()


async def _sweep(
    plan: Plan, engine: Engine, info: EngineInfo, results: ProfileResults, until: Until
) -> None:
    source, prompts = EngineSource(engine), RandomPrompts(info.vocab_size, seed=1)
    places: list[Place] = [(batch, PROMPT, OUTPUT) for batch in plan.batches]
    places += [(batch, LONG_PROMPT, OUTPUT) for batch in plan.long_batches]
    for place in places:
        batch, prompt, output = place
        if batch * (prompt + output) > info.kv_total_tokens:
            print(f"{plan.name}: {place} does not fit {info.kv_total_tokens} tokens", flush=True)
            continue
        await play(source, greedy("warm", prompts.take(batch, prompt), WARM_UP_TOKENS))
        runs = await _repeat(source, prompts, place, until.deadline)
        point = point_of(runs, place, batch)
        results.points.append(point)
        _tell(plan, results, point, engine)
        if monotonic() > until.deadline:
            results.notes.append("cut short by the time limit")
        results.save(until.out)
        if monotonic() > until.deadline:
            return


async def _repeat(
    source: EngineSource, prompts: RandomPrompts, place: Place, deadline: float
) -> list[Run]:
    batch, prompt, output = place
    runs: list[Run] = []
    began = perf_counter()
    while len(runs) < LEAST_RUNS or perf_counter() - began < REPEATS_WITHIN_S:
        asked = greedy(f"r{len(runs)}", prompts.take(batch, prompt), output)
        runs.append(await play(source, asked))
        if monotonic() > deadline:
            break
    return runs


def _tell(plan: Plan, results: ProfileResults, point: ProfilePoint, engine: Engine) -> None:
    share, stats = results.share_of_limit(point) or 0.0, engine.stats()
    print(
        f"{plan.name}: batch {point.batch:4d} prompt {point.prompt_tokens:5d}: "
        f"{point.tokens_per_s_per_user:8.1f} tokens/s/user {point.tokens_per_s:9.0f} tokens/s, "
        f"step {point.step_ms:7.2f} ms ({share:4.0%} of the limit), "
        f"TTFT p50 {point.ttft_ms.p50:7.1f} ms, {point.acceptance_length:.2f} tokens/step "
        f"(engine says {stats.acceptance_length:.2f}, {stats.step_ms:.2f} ms)",
        flush=True,
    )


def _results(plan: Plan, info: EngineInfo, gpus: int) -> ProfileResults:
    shape = {key: plan.shape.config[key] for key in ("model_type", "num_hidden_layers")}
    memory = plan.shape.memory(
        gpus=gpus, weight_bytes=plan.weight_bytes, kv_bytes=plan.kv_bytes, drafts=plan.drafts
    )
    return ProfileResults(
        profile=plan.name,
        engine=f"vllm {importlib.metadata.version('vllm')}",
        model=f"random weights, {json.dumps(shape)}",
        hardware=info.device,
        gpus=gpus,
        engine_args={**plan.args, "max_num_seqs": plan.batches[-1]},
        notes=[*plan.notes, f"{info.kv_total_tokens} tokens of KV cache"],
        memory=memory,
    )


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--plan", required=True, help="a plan's name, or: conformance")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seconds", type=float, required=True, help="stop measuring after that")
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--gpus", type=int, default=1)
    options = parser.parse_args()
    deadline = monotonic() + options.seconds
    if options.plan == "conformance":
        asyncio.run(conform(options.out, deadline))
    else:
        plan = plans(layers=options.layers, gpus=options.gpus)[options.plan]
        asyncio.run(measure(plan, options.gpus, options.out, deadline))


if __name__ == "__main__":
    main()
