"""Train the demo model: tokenizer, target, draft head, and the figures of all three.

    python train.py --corpus novels.txt.gz --out scribe

Writes a folder in the Hugging Face layout, with the draft head under draft/ and everything
measured in training.json. Needs torch, tokenizers, safetensors and numpy. A GPU takes minutes;
on a CPU use --trial, which runs every step on next to no data.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import platform
import time
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import tokenizers
import torch
from data import (
    BOS,
    CHAT_TEMPLATE,
    END,
    PAD,
    Book,
    ChatWriter,
    PlainRows,
    Stream,
    build_stream,
    read_books,
    train_tokenizer,
)
from draft import Draft, DraftOptions, train_draft
from evaluate import acceptance_report, perplexity, samples
from safetensors.torch import load_file, save_file
from target import (
    Curve,
    Rows,
    Shape,
    Target,
    TargetOptions,
    held_out_windows,
    train_target,
)
from tokenizers import Tokenizer
from torch import nn

HELD_OUT = 0.05


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    target, draft = TargetOptions(), DraftOptions()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    add = parser.add_argument
    add("--corpus", type=Path, required=True, help="text of the books, .txt or .txt.gz")
    add("--out", type=Path, required=True, help="folder to write the model to")
    add(
        "--stage",
        choices=["all", "target", "draft", "evaluate"],
        default="all",
        help="draft and evaluate go on from what is already in --out",
    )
    add("--seed", type=int, default=7)
    add("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    add("--target-steps", type=int, default=target.steps)
    add("--target-lr", type=float, default=target.peak_lr)
    add("--target-dropout", type=float, default=target.dropout)
    add("--target-weight-decay", type=float, default=target.weight_decay)
    add("--draft-steps", type=int, default=draft.steps)
    add("--draft-lr", type=float, default=draft.peak_lr)
    add("--trial", action="store_true", help="a short run on a CPU, to see that all works")
    return parser.parse_args()


def options_of(arguments: argparse.Namespace) -> tuple[TargetOptions, DraftOptions]:
    """Training options for this run."""
    target = TargetOptions(
        steps=arguments.target_steps,
        peak_lr=arguments.target_lr,
        dropout=arguments.target_dropout,
        weight_decay=arguments.target_weight_decay,
    )
    draft = DraftOptions(steps=arguments.draft_steps, peak_lr=arguments.draft_lr)
    if arguments.trial:
        target = dataclasses.replace(target, steps=20, tokens_per_step=2048, eval_every=10)
        draft = dataclasses.replace(
            draft,
            steps=10,
            rows_per_step=4,
            row_length=160,
            rows_per_generation=8,
            prompt_lengths=(64,),
            log_every=5,
        )
    return target, draft


def write_json(path: Path, content: object) -> None:
    """Write JSON for people to read."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def llama_config(shape: Shape) -> dict[str, object]:
    """Config keys that the target and the draft head share."""
    return {
        "vocab_size": shape.vocab,
        "hidden_size": shape.width,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        "head_dim": shape.head_dim,
        "intermediate_size": shape.mlp,
        "hidden_act": "silu",
        "max_position_embeddings": shape.context,
        "rms_norm_eps": shape.norm_eps,
        "rope_theta": shape.rope_theta,
        "attention_bias": False,
        "mlp_bias": False,
        "torch_dtype": "bfloat16",
        "bos_token_id": BOS,
        "eos_token_id": END,
        "pad_token_id": PAD,
    }


def save_weights(module: nn.Module, path: Path, prefix: str) -> None:
    """Write weights as bfloat16."""
    path.parent.mkdir(parents=True, exist_ok=True)
    tensors = {
        prefix + name: weight.detach().to("cpu", torch.bfloat16).contiguous()
        for name, weight in module.state_dict().items()
    }
    save_file(tensors, path, metadata={"format": "pt"})


def load_weights(module: nn.Module, path: Path, prefix: str, device: torch.device) -> None:
    """Read weights back as float32, so that what is measured is what was written."""
    tensors = load_file(path)
    module.load_state_dict({name.removeprefix(prefix): t.float() for name, t in tensors.items()})
    module.to(device).eval()


def save_target(model: Target, tokenizer: Tokenizer, out: Path) -> None:
    """Write the target in the Hugging Face layout."""
    shape = model.shape
    save_weights(model, out / "model.safetensors", "model.")
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "num_hidden_layers": shape.layers,
        "tie_word_embeddings": True,
        **llama_config(shape),
    }
    write_json(out / "config.json", config)
    ends = {"bos_token_id": BOS, "eos_token_id": END, "pad_token_id": PAD}
    sampling = {"do_sample": True, "temperature": 0.8, "top_p": 0.95, "max_new_tokens": 256}
    write_json(out / "generation_config.json", {**ends, **sampling})
    tokenizer.save(str(out / "tokenizer.json"))
    tokenizer_config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<|bos|>",
        "eos_token": "<|end|>",
        "pad_token": "<|pad|>",
        "additional_special_tokens": ["<|user|>", "<|assistant|>", "<|system|>"],
        "clean_up_tokenization_spaces": False,
        "model_max_length": shape.context,
        "chat_template": CHAT_TEMPLATE,
    }
    write_json(out / "tokenizer_config.json", tokenizer_config)


def save_draft(draft: Draft, out: Path) -> None:
    """Write the head in the public EAGLE-3 layout."""
    shape = draft.shape
    save_weights(draft, out / "draft" / "model.safetensors", "")
    config = {
        "architectures": ["LlamaForCausalLMEagle3"],
        "model_type": "llama",
        "num_hidden_layers": 1,
        **llama_config(shape),
        "draft_vocab_size": shape.vocab,
        "target_hidden_size": shape.width,
        "tie_target_embeddings": True,
        "aux_hidden_state_layers": list(shape.aux_layers),
    }
    write_json(out / "draft" / "config.json", config)


def load_target(out: Path, device: torch.device) -> Target:
    """The target as stored."""
    target = Target(Shape())
    load_weights(target, out / "model.safetensors", "model.", device)
    return target


def run_info(arguments: argparse.Namespace, books: list[Book]) -> dict[str, Any]:
    """Where and on what the run took place."""
    on_gpu = arguments.device.startswith("cuda")
    return {
        "seed": arguments.seed,
        "data": {
            "split": f"last {HELD_OUT:.0%} of each book held out, cut at a paragraph",
            "books": len(books),
            "train_bytes": sum(len(book.train.encode()) for book in books),
            "held_out_bytes": sum(len(book.held_out.encode()) for book in books),
        },
        "hardware": torch.cuda.get_device_name() if on_gpu else platform.processor() or "CPU",
        "libraries": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "numpy": np.__version__,
            "tokenizers": tokenizers.__version__,
            "safetensors": safetensors.__version__,
        },
    }


def curve_info(options: TargetOptions | DraftOptions, curve: Curve) -> dict[str, object]:
    """One training run for training.json."""
    points = [{k: round(v, 4) for k, v in point.items()} for point in curve.points]
    return {
        "options": dataclasses.asdict(options),
        "best_step": curve.best_step,
        "wall_seconds": round(curve.seconds, 1),
        "curve": points,
    }


@dataclasses.dataclass(frozen=True)
class Job:
    """What every stage works on."""

    tokenizer: Tokenizer
    train: Stream
    held_out: Stream
    held_out_bytes: int
    seed: int
    device: torch.device
    out: Path


def run_target(job: Job, options: TargetOptions) -> dict[str, object]:
    """Train and store the target."""
    plain = PlainRows(job.train, job.device)
    chat = ChatWriter(job.tokenizer, job.train, job.seed)
    rows = Rows(plain, chat, options.tokens_per_step, options.chat_share)
    windows = held_out_windows(job.held_out, 1024, job.device)
    model, curve = train_target(Shape(), options, rows, windows)
    save_target(model, job.tokenizer, job.out)
    return curve_info(options, curve)


def run_draft(job: Job, options: DraftOptions) -> dict[str, object]:
    """Train and store the draft head for the stored target."""
    target = load_target(job.out, job.device)
    plain = PlainRows(job.train, job.device)
    chat = ChatWriter(job.tokenizer, job.train, job.seed + 1)
    draft, curve = train_draft(target, plain, chat, options)
    save_draft(draft, job.out)
    return curve_info(options, curve)


def evaluate(job: Job, prompts: int) -> dict[str, object]:
    """Measure what is stored, in float32."""
    torch.manual_seed(job.seed)
    target = load_target(job.out, job.device)
    figures: dict[str, object] = {
        "computed": f"float32 from the bfloat16 weights, on {job.device.type}",
        "target": perplexity(target, job.held_out, job.held_out_bytes),
    }
    if (job.out / "draft" / "model.safetensors").exists():
        draft = Draft(Shape())
        load_weights(draft, job.out / "draft" / "model.safetensors", "", job.device)
        chat = ChatWriter(job.tokenizer, job.held_out, job.seed + 2)
        plain = PlainRows(job.held_out, job.device)
        figures["acceptance"] = acceptance_report(target, draft, plain, chat, prompts)
    figures["samples"] = samples(target, job.tokenizer)
    return figures


def prepare(arguments: argparse.Namespace) -> tuple[Job, dict[str, Any]]:
    """Read the corpus; train the tokenizer, or read what an earlier stage left."""
    out: Path = arguments.out
    out.mkdir(parents=True, exist_ok=True)
    books = read_books(arguments.corpus, HELD_OUT)
    if arguments.stage in {"all", "target"}:
        tokenizer = train_tokenizer([book.train for book in books], Shape().vocab)
        report = run_info(arguments, books)
    else:
        tokenizer = Tokenizer.from_file(str(out / "tokenizer.json"))
        report = json.loads((out / "training.json").read_text(encoding="utf-8"))
    train = build_stream(tokenizer, [book.train for book in books])
    held_out = build_stream(tokenizer, [book.held_out for book in books])
    held_out_bytes = sum(len(book.held_out.encode()) for book in books)
    print(f"{len(books)} books, {len(train.ids)} + {len(held_out.ids)} tokens", flush=True)
    report["data"] |= {"train_tokens": len(train.ids), "held_out_tokens": len(held_out.ids)}
    device = torch.device(arguments.device)
    return Job(tokenizer, train, held_out, held_out_bytes, arguments.seed, device, out), report


def main() -> None:
    """Run the stages asked for and write everything down."""
    arguments = parse_arguments()
    began = time.monotonic()
    torch.manual_seed(arguments.seed)
    target_options, draft_options = options_of(arguments)
    job, report = prepare(arguments)
    if arguments.stage in {"all", "target"}:
        report["target"] = run_target(job, target_options)
    if arguments.stage in {"all", "draft"}:
        report["draft"] = run_draft(job, draft_options)
    report["held_out"] = evaluate(job, prompts=8 if arguments.trial else 192)
    if arguments.stage != "evaluate":
        report["wall_seconds"] = round(
            report.get("wall_seconds", 0.0) + time.monotonic() - began, 1
        )
    write_json(job.out / "training.json", report)
    print(json.dumps(report["held_out"], indent=2))


if __name__ == "__main__":
    main()
