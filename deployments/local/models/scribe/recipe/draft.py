"""The EAGLE-3 draft head: one decoder layer that guesses what the target will say next.

At index t the head sees the pair (token t+1, feature g_t). For known text g_t mixes three of the
target's residual streams; while drafting, it is the head's own output one step earlier. So in
training the head is unrolled over its own outputs, as it will be used ("training-time test").
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch
from data import PAD, ChatWriter, PlainRows
from target import (
    Attention,
    Curve,
    RMSNorm,
    Shape,
    SwiGLU,
    Target,
    cosine,
    generate,
    init_weights,
    make_optimizer,
    optimizer_step,
    rope_tables,
)
from torch import Tensor, nn
from torch.nn import functional as F


@dataclass(frozen=True)
class DraftOptions:
    """How the draft head is trained."""

    steps: int = 7000
    rows_per_step: int = 48
    row_length: int = 512
    peak_lr: float = 2e-3
    weight_decay: float = 0.05
    warmup: int = 200
    step_weights: tuple[float, ...] = (1.0, 0.8, 0.64)
    rows_per_generation: int = 2048
    prompt_lengths: tuple[int, ...] = (48, 128, 256)
    temperatures: tuple[float, ...] = (0.0, 0.6, 1.0)
    corpus_every: int = 4
    log_every: int = 250


class MidLayer(nn.Module):
    """The head's only decoder layer; its attention reads embedding and feature together."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.input_layernorm = RMSNorm(shape.width, shape.norm_eps)
        self.hidden_norm = RMSNorm(shape.width, shape.norm_eps)
        self.self_attn = Attention(shape, 2 * shape.width)
        self.post_attention_layernorm = RMSNorm(shape.width, shape.norm_eps)
        self.mlp = SwiGLU(shape)


class Draft(nn.Module):
    """The head; embedding and output matrix are the target's."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.fc = nn.Linear(len(shape.aux_layers) * shape.width, shape.width, bias=False)
        self.midlayer = MidLayer(shape)
        self.norm = RMSNorm(shape.width, shape.norm_eps)
        self.apply(init_weights)

    def step(self, embedded: Tensor, feature: Tensor, past: list[tuple[Tensor, Tensor]]) -> Tensor:
        """One draft step at every index; `past` holds earlier steps' keys and values."""
        layer, count = self.midlayer, embedded.shape[1]
        positions = torch.arange(count, device=embedded.device) + len(past)
        both = torch.cat([layer.input_layernorm(embedded), layer.hidden_norm(feature)], dim=-1)
        q, k, v = layer.self_attn.project(both, rope_tables(positions, self.shape))
        past.append((k, v))
        group = self.shape.heads // self.shape.kv_heads
        keys = torch.cat([k for k, _ in past], dim=2).repeat_interleave(group, dim=1)
        values = torch.cat([v for _, v in past], dim=2).repeat_interleave(group, dim=1)
        mask = step_mask(count, len(past), embedded.device)
        heads = F.scaled_dot_product_attention(q, keys, values, attn_mask=mask)
        h = feature + layer.self_attn.output(heads)
        out: Tensor = h + layer.mlp(layer.post_attention_layernorm(h))
        return out


def step_mask(count: int, steps: int, device: torch.device) -> Tensor:
    """Index t sees the known text up to t, and of later steps only its own chain."""
    causal = torch.ones(count, count, dtype=torch.bool, device=device).tril()
    own = torch.eye(count, dtype=torch.bool, device=device)
    return torch.cat([causal] + [own] * (steps - 1), dim=1)


def unroll(
    draft: Draft, embedding: Tensor, ids: Tensor, aux: Tensor, steps: int, *, free: bool
) -> list[Tensor]:
    """Each step's logits for every index; `free` feeds back the head's own tokens."""
    count = ids.shape[1] - steps
    feature = draft.fc(aux[:, :count])
    tokens = ids[:, 1 : 1 + count]
    past: list[tuple[Tensor, Tensor]] = []
    said = []
    for step in range(steps):
        feature = draft.step(F.embedding(tokens, embedding), feature, past)
        logits = F.linear(draft.norm(feature), embedding)
        said.append(logits)
        tokens = logits.argmax(-1) if free else ids[:, 2 + step : 2 + step + count]
    return said


def unrolled_loss(
    draft: Draft,
    embedding: Tensor,
    ids: Tensor,
    aux: Tensor,
    target_logits: Tensor,
    *,
    weights: tuple[float, ...],
) -> Tensor:
    """Soft cross entropy against the target, one entry for each step of the chain."""
    losses = []
    for step, logits in enumerate(unroll(draft, embedding, ids, aux, len(weights), free=False)):
        window = slice(1 + step, 1 + step + logits.shape[1])
        real = ids[:, window] != PAD
        wanted = torch.softmax(target_logits[:, window].float(), dim=-1)
        surprise = -(wanted * torch.log_softmax(logits.float(), dim=-1)).sum(-1)
        losses.append((surprise * real).sum() / real.sum().clamp(min=1))
    return torch.stack(losses)


def write_own_text(
    target: Target, plain: PlainRows, chat: ChatWriter, options: DraftOptions
) -> Tensor:
    """Text that the target writes itself after prompts of the training split."""
    device = plain.ids.device
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    writer = Target(target.shape).to(device=device, dtype=dtype).eval()
    writer.load_state_dict(target.state_dict())
    batches, half = [], options.rows_per_generation // 2
    for temperature in options.temperatures:
        for length in options.prompt_lengths:
            chat_prompts = chat.prompts(half, max(length, 64)).to(device)
            for prompts in (plain.draw(half, length), chat_prompts):
                room = options.row_length - prompts.shape[1]
                batches.append(generate(writer, prompts, room, temperature).cpu())
        print(f"draft: own text at temperature {temperature} written", flush=True)
    own = torch.cat(batches)
    return own[torch.randperm(len(own))].to(device)


def train_draft(
    target: Target, plain: PlainRows, chat: ChatWriter, options: DraftOptions
) -> tuple[Draft, Curve]:
    """Train the head on the target's own text, with some of the corpus mixed in."""
    began, curve = time.monotonic(), Curve()
    own = write_own_text(target, plain, chat, options)
    device = own.device
    on_gpu = device.type == "cuda"
    draft = Draft(target.shape).to(device)
    loss_of = torch.compile(unrolled_loss, dynamic=False) if on_gpu else unrolled_loss
    teach = torch.compile(target, dynamic=False) if on_gpu else target
    embedding = target.embed_tokens.weight.detach()
    optimizer = make_optimizer(draft, options.weight_decay)
    weights = torch.tensor(options.step_weights, device=device)
    running = torch.zeros(len(weights), device=device)
    for step in range(options.steps):
        if step % options.corpus_every == 0:
            long = options.row_length * 2
            ids = plain.draw(options.rows_per_step // 2, long)
        else:
            ids = own[torch.randint(len(own), (options.rows_per_step,), device=device)]
        with torch.autocast(device.type, torch.bfloat16, enabled=on_gpu):
            with torch.no_grad():
                logits, aux = teach(ids)
            losses = loss_of(draft, embedding, ids, aux, logits, weights=options.step_weights)
        torch.autograd.backward([(losses * weights).sum()])
        running += losses.detach()
        rate = cosine(step, options.steps, options.warmup, options.peak_lr)
        optimizer_step(draft, optimizer, rate)
        if (step + 1) % options.log_every == 0:
            means = (running / options.log_every).tolist()
            running.zero_()
            point = {f"step_{i}": value for i, value in enumerate(means)}
            curve.points.append({"step": step + 1, **point})
            curve.seconds = time.monotonic() - began
            shown = " ".join(f"{value:.4f}" for value in means)
            print(f"draft {step + 1}/{options.steps} {shown} {curve.seconds:.0f}s", flush=True)
    curve.best_step = options.steps
    return draft.eval(), curve
