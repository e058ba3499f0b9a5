"""How fast the `local` engine steps, with and without speculation, on one CPU thread.

    python benchmarks/engine_step.py --model deployments/local/models/scribe --batches 1,32

With `--against int8` it is not speculation that the plain engine is compared with, but weights of
8 bits. Runs both engines in turn (A B A B ...), so that a change of the machine's speed hits both,
and prints medians and ratios. Without --model it makes a model of the same shape with
random weights, whose drafts are never accepted: then only the step times say something.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file

from paretoserve.domain.model import Model
from paretoserve.domain.profile import CurvePoint, LatencyCurve, Limits, Profile
from paretoserve.domain.request import Sampling
from paretoserve.executor.contract import Chunk, GenerationRequest
from paretoserve.executor.engines.local.core import Core, Output
from paretoserve.executor.engines.local.options import read_options

SHAPE = {
    "model_type": "llama",
    "vocab_size": 2048,
    "hidden_size": 256,
    "num_hidden_layers": 10,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 64,
    "intermediate_size": 512,
    "max_position_embeddings": 2048,
    "rms_norm_eps": 1e-5,
    "tie_word_embeddings": True,
}


@dataclass(frozen=True)
class Measurement:
    """One round: medians over its decoding steps."""

    step_ms: float
    tokens_per_s: float
    acceptance_length: float


def build(
    folder: Path, *, draft_tokens: int | None = None, weights: str = "stored", max_batch: int
) -> Core:
    """An engine core as the profiles configure it."""
    speculation = {"draft": "draft", "tokens": draft_tokens} if draft_tokens else None
    profile = Profile(
        name="bench",
        model="bench",
        engine="local",
        engine_args={
            "device": "cpu",
            "kv_tokens": 65536,
            "step_tokens": 512,
            "prefix_cache": False,
            "speculation": speculation,
            "weights": weights,
        },
        gpus=1,
        limits=Limits(context_tokens=2048, max_batch=max_batch, admit=max_batch, max_queue=0),
        curve=LatencyCurve(
            source="emulated",
            hardware="unused",
            points=(CurvePoint(batch=1, tpot_ms=1),),
            prefill_tokens_per_s=1,
        ),
    )
    model = Model(name="bench", path=str(folder), context_tokens=2048)
    core = Core(profile, model, read_options(profile))
    core.warm_up()
    return core


def measure(
    core: Core, prompts: list[list[int]], output_tokens: int, temperature: float
) -> Measurement:
    """Prefill all prompts, then time the steps in which every sequence decodes."""
    sampling = Sampling(max_tokens=output_tokens, temperature=temperature, ignore_eos=True, seed=1)
    for number, prompt in enumerate(prompts):
        core.add(GenerationRequest(str(number), tuple(prompt), sampling), discard, 0.0)
    while core.stats().waiting or core.stats().waiting_tokens:
        core.step(drop)
    times, before, began = [], core.stats().generated_tokens_total, time.perf_counter()
    while core.stats().running == len(prompts):
        core.step(drop)
        times.append(core.stats().step_ms)
    seconds = time.perf_counter() - began
    said = core.stats().generated_tokens_total - before
    acceptance = core.stats().acceptance_length
    core.abort_all("measured", drop)
    return Measurement(statistics.median(times), said / seconds, acceptance)


def drop(_: Output) -> None:
    """Nobody reads."""


def discard(_: Sequence[Chunk]) -> None:
    """What a request's own reader would get; a core hands its output to the step's caller."""


def write_random_model(folder: Path) -> None:
    """Random weights, stored in bfloat16, in the shape of the demo model."""
    torch.manual_seed(0)
    width, mlp, dim = 256, 512, 64
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (2048, width)}
    for number in range(10):
        shapes |= layer_shapes(f"model.layers.{number}.", width, width, mlp, dim)
    shapes["model.norm.weight"] = (width,)
    draft = layer_shapes("midlayer.", width, 2 * width, mlp, dim)
    draft |= {"midlayer.hidden_norm.weight": (width,), "norm.weight": (width,)}
    draft["fc.weight"] = (width, 3 * width)
    (folder / "draft").mkdir()
    (folder / "config.json").write_text(json.dumps(SHAPE))
    (folder / "draft" / "config.json").write_text('{"aux_hidden_state_layers": [1, 5, 9]}')
    for path, wanted in ((folder, shapes), (folder / "draft", draft)):
        tensors = {
            name: (torch.randn(s) * 0.05 if len(s) > 1 else torch.ones(s)).bfloat16()
            for name, s in wanted.items()
        }
        save_file(tensors, path / "model.safetensors")


def layer_shapes(
    prefix: str, width: int, read: int, mlp: int, dim: int
) -> dict[str, tuple[int, ...]]:
    """Names and shapes of one decoder layer whose attention reads `read` numbers."""
    return {
        f"{prefix}self_attn.q_proj.weight": (4 * dim, read),
        f"{prefix}self_attn.k_proj.weight": (2 * dim, read),
        f"{prefix}self_attn.v_proj.weight": (2 * dim, read),
        f"{prefix}self_attn.o_proj.weight": (width, 4 * dim),
        f"{prefix}mlp.gate_proj.weight": (mlp, width),
        f"{prefix}mlp.up_proj.weight": (mlp, width),
        f"{prefix}mlp.down_proj.weight": (width, mlp),
        f"{prefix}input_layernorm.weight": (width,),
        f"{prefix}post_attention_layernorm.weight": (width,),
    }


def read_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--model", type=Path, help="folder of a trained model with a draft head")
    parser.add_argument("--against", choices=("speculating", "int8"), default="speculating")
    parser.add_argument("--batches", default="1,32", help="comma-separated batch sizes")
    parser.add_argument("--rounds", type=int, default=3, help="rounds of A and B per batch size")
    parser.add_argument("--prompt-tokens", type=int, default=64)
    parser.add_argument("--output-tokens", type=int, default=64)
    parser.add_argument("--draft-tokens", type=int, default=3)
    parser.add_argument("--temperature", type=float, default=0.0)
    parser.add_argument("--prompts", type=Path, help="text to cut prompts from (needs --model)")
    return parser.parse_args()


def cut_prompts(arguments: argparse.Namespace, count: int) -> list[list[int]]:
    """Prompts of equal length, from the given text or at random."""
    draw = random.Random(0)
    length = arguments.prompt_tokens
    if not (arguments.prompts and arguments.model):
        return [[draw.randrange(3, 2048) for _ in range(length)] for _ in range(count)]
    from paretoserve.executor.tokenizer import Tokenizer  # noqa: PLC0415 - only for real text

    text = arguments.prompts.read_text(encoding="utf-8", errors="replace")
    tokenizer = Tokenizer.load(arguments.model)
    starts = [draw.randrange(max(1, len(text) - 16 * length)) for _ in range(count)]
    return [tokenizer.encode_prompt(text[s : s + 16 * length])[:length] for s in starts]


def main() -> None:
    """Measure and print."""
    arguments = read_arguments()
    batches = [int(batch) for batch in arguments.batches.split(",")]
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as temporary, torch.inference_mode():
        folder = arguments.model or Path(temporary)
        if not arguments.model:
            write_random_model(folder)
        plain = build(folder, max_batch=max(batches))
        if arguments.against == "int8":
            other = build(folder, weights="int8", max_batch=max(batches))
        else:
            other = build(folder, draft_tokens=arguments.draft_tokens, max_batch=max(batches))
        cores = {"plain": plain, arguments.against: other}
        for name, core in cores.items():
            print(f"{name:11s}  {core.runner.weight_bytes / 1e6:.2f} MB of weights")
        for batch in batches:
            prompts = cut_prompts(arguments, batch)
            rounds: dict[str, list[Measurement]] = {name: [] for name in cores}
            for _ in range(arguments.rounds):
                for name, core in cores.items():
                    rounds[name].append(
                        measure(core, prompts, arguments.output_tokens, arguments.temperature)
                    )
            report(batch, rounds)


def report(batch: int, rounds: dict[str, list[Measurement]]) -> None:
    """Medians of the rounds, and how the two compare."""
    middle = {
        name: Measurement(
            statistics.median(m.step_ms for m in measured),
            statistics.median(m.tokens_per_s for m in measured),
            statistics.median(m.acceptance_length for m in measured),
        )
        for name, measured in rounds.items()
    }
    for name, m in middle.items():
        print(
            f"batch {batch:3d}  {name:11s}  step {m.step_ms:7.2f} ms  {m.tokens_per_s:7.0f} tokens/s"
            f"  acceptance length {m.acceptance_length:.2f}"
        )
    (_, plain), (name, other) = middle.items()
    print(
        f"batch {batch:3d}  a step with {name} costs {other.step_ms / plain.step_ms:.2f} plain steps; "
        f"{name}/plain tokens/s {other.tokens_per_s / plain.tokens_per_s:.2f}"
    )


if __name__ == "__main__":
    main()
