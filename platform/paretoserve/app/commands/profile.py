"""`paretoserve profile`: measure a running executor's profile and write its latency curve."""

from __future__ import annotations

import argparse
import asyncio
import secrets
from pathlib import Path

import yaml

from paretoserve.app.config import ConfigError, load_deployment
from paretoserve.app.option_types import count, not_negative, serving, several
from paretoserve.app.profiling.curve import latency_curve
from paretoserve.app.profiling.links import linked
from paretoserve.app.profiling.measure import RandomPrompts
from paretoserve.app.profiling.results import Place, ProfilePoint, ProfileResults
from paretoserve.app.profiling.sweep import ProfileSweep, measure_points
from paretoserve.domain.model import Model
from paretoserve.domain.profile import Profile
from paretoserve.executor.control_client import ask_who
from paretoserve.executor.model_files import read_vocabulary

FEW_TOKENS = 256
"""A vocabulary that every model has, for one whose config says nothing of its own."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--deployment", type=Path, required=True, metavar="DIR")
    parser.add_argument("--profile", required=True, metavar="NAME", help="what the executor runs")
    parser.add_argument(
        "--executor", type=serving, required=True, metavar="HOST:PORT", help="a running executor"
    )
    parser.add_argument("--batches", type=_numbers, default=[1, 2, 4, 8, 16, 32], metavar="N,...")
    parser.add_argument("--prompts", type=_numbers, default=[64, 512], metavar="TOKENS,...")
    parser.add_argument("--outputs", type=_outputs, default=[64], metavar="TOKENS,...")
    parser.add_argument("--repeats", type=count, default=2, help="of each point at least [2]")
    parser.add_argument(
        "--seconds", type=not_negative, default=1.0, help="for each point at least [1]"
    )
    parser.add_argument("--hardware", default="", help="what it runs on, for the records")
    parser.add_argument(
        "--seed",
        type=int,
        help="of the prompts; default: another each time, as an executor may keep prefixes that it has seen",
    )
    parser.add_argument(
        "--out",
        type=Path,
        required=True,
        metavar="FILE",
        help="results, JSON; points already in it are not measured again. FILE.curve.yaml beside it",
    )


def run(options: argparse.Namespace) -> int:
    """Measure what is missing, point by point, then write the curve of all there is."""
    deployment = load_deployment(options.deployment)
    try:
        profile = deployment.profile(options.profile)
    except KeyError:
        known = ", ".join(each.name for each in deployment.profiles)
        raise ConfigError(
            f"{options.deployment}: no profile {options.profile!r}; known are {known}"
        ) from None
    model = deployment.model(profile.model)
    results = _results(profile, model, options)
    places, impossible = _sweep(options).places(profile.limits)
    for place in impossible:
        print(f"left out, beyond the profile's limits: {_name(place)}")
    missing = [place for place in places if not results.has(place)]
    print(f"{len(missing)} points to measure, {len(places) - len(missing)} known already")
    if missing:
        seed = secrets.randbits(32) if options.seed is None else options.seed + len(results.points)
        print(f"prompts of seed {seed}")
        prompts = RandomPrompts(read_vocabulary(Path(model.path)).size or FEW_TOKENS, seed)
        asyncio.run(_measure(profile, results, missing, prompts, options))
    if not results.points:
        raise ConfigError("nothing was measured: no point of the sweep is within the limits")
    curve = latency_curve(results, profile.curve.chunk_tokens)
    path = options.out.with_suffix(".curve.yaml")
    block = {"curve": curve.model_dump(mode="json")}
    try:
        path.write_text(yaml.safe_dump(block, sort_keys=False, width=100), encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{path}: cannot be written: {error.strerror}") from None
    print(f"{options.out} holds {len(results.points)} points, {path} the profile's curve")
    return 0


async def _measure(
    profile: Profile,
    results: ProfileResults,
    missing: list[Place],
    prompts: RandomPrompts,
    options: argparse.Namespace,
) -> None:
    await ask_who(options.executor, profile.name)  # another profile's figures would look like its
    try:
        async with linked({profile.name: options.executor}) as links:
            points = measure_points(
                links[profile.name],
                results,
                missing,
                _sweep(options),
                prompts,
                max_batch=profile.limits.max_batch,
                out=options.out,
            )
            done = 0
            async for point in points:
                done += 1
                print(f"[{done}/{len(missing)}] {_figures(results, point)}", flush=True)
    except TimeoutError:
        raise ConfigError(f"no executor serves at {options.executor}") from None


def _sweep(options: argparse.Namespace) -> ProfileSweep:
    return ProfileSweep(
        options.batches, options.prompts, options.outputs, options.repeats, options.seconds
    )


def _results(profile: Profile, model: Model, options: argparse.Namespace) -> ProfileResults:
    """Those of the file, if it is there and of the same profile; else none yet."""
    fresh = ProfileResults(
        profile=profile.name,
        engine=profile.engine,
        model=model.name,
        hardware=options.hardware or profile.curve.hardware,
        gpus=profile.gpus,
        source="emulated" if profile.engine == "emulator" else "measured",
        engine_args=profile.engine_args,
    )
    if not options.out.exists():
        _prove_writable(fresh, options.out)
        return fresh
    kept = ProfileResults.load(options.out)
    if not options.hardware:
        fresh.hardware = kept.hardware
    for what in ("profile", "engine", "model", "hardware", "gpus", "engine_args"):
        was, now = getattr(kept, what), getattr(fresh, what)
        if was != now:
            raise ConfigError(
                f"{options.out} is of another configuration: its {what} is {was!r}, not {now!r}; "
                "name another --out"
            )
    return kept


def _figures(results: ProfileResults, point: ProfilePoint) -> str:
    return (
        f"{_name(point.place)}: {point.tokens_per_s_per_user:.1f} tokens/s/user, "
        f"{results.per_gpu(point):.0f} tokens/s/GPU, TPOT {point.tpot_ms.p50:.2f} ms (p50) "
        f"{point.tpot_ms.p99:.2f} (p99), TTFT {point.ttft_ms.p50:.1f} ms (p50) "
        f"{point.ttft_ms.p99:.1f} (p99), {point.acceptance_length:.2f} tokens a step"
    )


def _name(place: Place) -> str:
    batch, prompt, output = place
    return f"batch {batch}, {prompt} prompt and {output} output tokens"


def _prove_writable(results: ProfileResults, out: Path) -> None:
    """Before anything is measured: a sweep takes long."""
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        results.save(out)
    except OSError as error:
        raise ConfigError(f"--out {out}: cannot be written: {error.strerror}") from None


def _numbers(text: str) -> list[int]:
    return sorted({count(number.strip()) for number in text.split(",")})


def _outputs(text: str) -> list[int]:
    """Of one token there is no pace."""
    return sorted({several(number.strip()) for number in text.split(",")})
