"""Held-out figures: perplexity of the target, acceptance of the draft head, samples."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass

import torch
from data import BOS, END, ChatWriter, PlainRows, Stream
from draft import Draft, unroll
from target import Target, generate, held_out_windows, mean_loss
from tokenizers import Tokenizer
from torch import Tensor


@dataclass(frozen=True)
class Acceptance:
    """How far chains of drafted tokens agree with the target at temperature 0."""

    mean_length: float  # tokens emitted per verification, the target's own included
    per_position: list[float]  # share of verifications in which drafted token i is accepted
    verifications: int


def perplexity(target: Target, stream: Stream, text_bytes: int) -> dict[str, float]:
    """Held-out perplexity per token and per byte of text."""
    windows = held_out_windows(stream, target.shape.context, target.embed_tokens.weight.device)
    loss = mean_loss(target, windows)
    tokens = len(stream.ids)
    return {
        "loss_per_token": loss,
        "perplexity_per_token": math.exp(loss),
        "perplexity_per_byte": math.exp(loss * tokens / text_bytes),
        "bits_per_byte": loss * tokens / text_bytes / math.log(2),
        "tokens": tokens,
        "bytes": text_bytes,
    }


def text_end(row: list[int], prompt: int) -> int:
    """Index of the last token of a generated row."""
    return row.index(END, prompt) if END in row[prompt:] else len(row) - 1


def verify(row: list[int], drafts: list[list[int]], prompt: int, last: int) -> list[int]:
    """Replay greedy verification over a row; the accepted count of each verification.

    `drafts[t]` is the chain drafted from index t, for the tokens t+2, t+3, ... The row is what
    the target says greedily, so it is also what verification leads to, whatever is drafted.
    """
    counts, known = [], prompt
    while known + len(drafts[0]) < last:
        chain = drafts[known - 1]
        agreed = [token == row[known + 1 + i] for i, token in enumerate(chain)]
        accepted = agreed.index(False) if False in agreed else len(agreed)
        counts.append(accepted)
        known += accepted + 1
    return counts


@torch.no_grad()
def acceptance(
    target: Target, draft: Draft, prompts: Tensor, new_tokens: int, chain: int
) -> Acceptance:
    """Measure chain drafting on the target's greedy continuations of prompts."""
    embedding = target.embed_tokens.weight
    counts: list[int] = []
    for batch in prompts.split(16):
        ids = generate(target, batch, new_tokens, 0.0)
        _, aux = target(ids)
        steps = unroll(draft, embedding, ids, aux, chain, free=True)
        drafts = torch.stack([logits.argmax(-1) for logits in steps], dim=-1)
        for row, drafted in zip(ids.tolist(), drafts.tolist(), strict=True):
            prompt = batch.shape[1]
            counts += verify(row, drafted, prompt, text_end(row, prompt))
    total = max(1, len(counts))
    rates = [sum(count > i for count in counts) / total for i in range(chain)]
    return Acceptance(1 + sum(counts) / total, rates, len(counts))


def acceptance_report(
    target: Target, draft: Draft, plain: PlainRows, chat: ChatWriter, prompts: int
) -> dict[str, object]:
    """Acceptance on plain and chat prompts cut from held-out text."""
    report: dict[str, object] = {"draft_tokens": 3, "temperature": 0.0, "new_tokens": 128}
    device = plain.ids.device
    cases = {"plain": plain.draw(prompts, 128), "chat": chat.prompts(prompts, 128).to(device)}
    lengths = []
    for name, case in cases.items():
        result = acceptance(target, draft, case, 128, 3)
        lengths.append(result)
        report[name] = asdict(result)
    steps = sum(result.verifications for result in lengths)
    report["mean_length"] = sum(r.mean_length * r.verifications for r in lengths) / max(1, steps)
    report["prompts_each"] = prompts
    return report


def samples(target: Target, tokenizer: Tokenizer, chat_prompt: str) -> dict[str, str]:
    """A few continuations to show, greedy and sampled."""
    device = target.embed_tokens.weight.device
    prompts = {
        "plain": [BOS, *tokenizer.encode("It was a dark night, and", add_special_tokens=False).ids],
        "chat": tokenizer.encode(chat_prompt, add_special_tokens=False).ids,
    }
    shown = {}
    for name, ids in prompts.items():
        for temperature in (0.0, 0.8):
            row = generate(target, torch.tensor([ids], device=device), 120, temperature)[0]
            text = tokenizer.decode(row[len(ids) :].tolist(), skip_special_tokens=True)
            shown[f"{name}, temperature {temperature}"] = text
    return shown
