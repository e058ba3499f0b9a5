"""Held-out figures: perplexity of the target, acceptance of the draft head, samples."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass

import torch
from data import END, ChatWriter, PlainRows, Stream
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
    for batch in torch.split(prompts, 16):
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
    """Acceptance on plain and chat prompts cut from held-out text.

    A small model at temperature 0 soon repeats itself, which is easy to draft; so the figures
    are also given for the first 32 tokens alone.
    """
    report: dict[str, object] = {"draft_tokens": 3, "temperature": 0.0, "prompts_each": prompts}
    device = plain.ids.device
    cases = {"plain": plain.draw(prompts, 128), "chat": chat.prompts(prompts, 128).to(device)}
    for new_tokens in (128, 32):
        results = {n: acceptance(target, draft, p, new_tokens, 3) for n, p in cases.items()}
        total = sum(r.verifications for r in results.values())
        emitted = sum(r.mean_length * r.verifications for r in results.values())
        report[f"first_{new_tokens}_tokens"] = {
            "mean_length": emitted / max(1, total),
            **{name: asdict(result) for name, result in results.items()},
        }
    return report


PLAIN_SAMPLES = ["It was a dark night, and", "The captain looked at the sea."]
CHAT_SAMPLES = [
    "Tell me a story.",
    "Continue the story.\n\nThe old house stood at the end of the lane. Nobody had lived there.",
]


def samples(target: Target, tokenizer: Tokenizer) -> list[dict[str, object]]:
    """A few continuations to show, greedy and sampled; not chosen."""
    device = target.embed_tokens.weight.device
    chats = [f"<|user|>\n{text}<|end|>\n<|assistant|>\n" for text in CHAT_SAMPLES]
    shown: list[dict[str, object]] = []
    for prompt in ["<|bos|>" + text for text in PLAIN_SAMPLES] + chats:
        ids = tokenizer.encode(prompt, add_special_tokens=False).ids
        for temperature in (0.0, 0.8):
            row = generate(target, torch.tensor([ids], device=device), 100, temperature)[0]
            text = tokenizer.decode(row[len(ids) :].tolist(), skip_special_tokens=True)
            shown.append({"prompt": prompt, "temperature": temperature, "text": text})
    return shown
