"""The target model: a small Llama, how it is trained, and how it generates."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from data import BOS, END, PAD, ChatWriter, PlainRows, Stream
from torch import Tensor, nn
from torch.nn import functional as F


@dataclass(frozen=True)
class Shape:
    """Sizes of the target; the draft head shares them."""

    vocab: int = 2048
    width: int = 256
    layers: int = 10
    heads: int = 4
    kv_heads: int = 2
    head_dim: int = 64
    mlp: int = 512
    context: int = 2048
    norm_eps: float = 1e-5
    rope_theta: float = 10000.0
    aux_layers: tuple[int, ...] = (1, 5, 9)


@dataclass(frozen=True)
class TargetOptions:
    """How the target is trained."""

    steps: int = 4000
    tokens_per_step: int = 32768
    peak_lr: float = 3e-3
    weight_decay: float = 0.8
    dropout: float = 0.25
    warmup: int = 200
    chat_share: float = 1 / 3
    eval_every: int = 250


class RMSNorm(nn.Module):
    """Root mean square norm, computed in float32."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """Normalise the last dimension."""
        y = x.float()
        y = y * torch.rsqrt(y.pow(2).mean(-1, keepdim=True) + self.eps)
        return self.weight * y.to(x.dtype)


class SwiGLU(nn.Module):
    """Llama's feed-forward block."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(shape.width, shape.mlp, bias=False)
        self.up_proj = nn.Linear(shape.width, shape.mlp, bias=False)
        self.down_proj = nn.Linear(shape.mlp, shape.width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """down(silu(gate) * up)."""
        out: Tensor = self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))
        return out


def rope_tables(positions: Tensor, shape: Shape) -> tuple[Tensor, Tensor]:
    """Cosines and sines for the given positions, each [..., head_dim]."""
    half = torch.arange(0, shape.head_dim, 2, device=positions.device).float() / shape.head_dim
    angles = positions.float()[..., None] * shape.rope_theta**-half
    angles = torch.cat([angles, angles], dim=-1)
    return angles.cos(), angles.sin()


def rotate(x: Tensor, tables: tuple[Tensor, Tensor]) -> Tensor:
    """Apply rotary positions to heads of [batch, heads, time, head_dim]."""
    low, high = x.float().chunk(2, dim=-1)
    turned = torch.cat([-high, low], dim=-1)
    return (x.float() * tables[0] + turned * tables[1]).to(x.dtype)


class Attention(nn.Module):
    """Grouped-query attention projections; its input may be wider than its output."""

    def __init__(self, shape: Shape, input_width: int) -> None:
        super().__init__()
        self.head_dim = shape.head_dim
        self.q_proj = nn.Linear(input_width, shape.heads * shape.head_dim, bias=False)
        self.k_proj = nn.Linear(input_width, shape.kv_heads * shape.head_dim, bias=False)
        self.v_proj = nn.Linear(input_width, shape.kv_heads * shape.head_dim, bias=False)
        self.o_proj = nn.Linear(shape.heads * shape.head_dim, shape.width, bias=False)

    def project(self, x: Tensor, tables: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values as [batch, heads, time, head_dim], positions applied."""
        q, k, v = (
            p(x).unflatten(-1, (-1, self.head_dim)).transpose(1, 2)
            for p in (self.q_proj, self.k_proj, self.v_proj)
        )
        return rotate(q, tables), rotate(k, tables), v

    def output(self, heads: Tensor) -> Tensor:
        """Merge heads back into the residual width."""
        out: Tensor = self.o_proj(heads.transpose(1, 2).flatten(-2))
        return out


class Cache:
    """Keys and values of all layers, preallocated; `length` positions are filled."""

    def __init__(self, shape: Shape, rows: int, length: int, like: Tensor) -> None:
        size = (shape.layers, 2, rows, shape.kv_heads, length, shape.head_dim)
        self.store = torch.empty(size, dtype=like.dtype, device=like.device)
        self.length = 0

    def extend(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Store new keys and values of one layer and return all of that layer's."""
        end = self.length + k.shape[2]
        keys, values = self.store[layer]
        keys[:, :, self.length : end] = k
        values[:, :, self.length : end] = v
        return keys[:, :, :end], values[:, :, :end]


class Block(nn.Module):
    """One decoder layer."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.input_layernorm = RMSNorm(shape.width, shape.norm_eps)
        self.self_attn = Attention(shape, shape.width)
        self.post_attention_layernorm = RMSNorm(shape.width, shape.norm_eps)
        self.mlp = SwiGLU(shape)

    def forward(
        self,
        x: Tensor,
        tables: tuple[Tensor, Tensor],
        dropout: float,
        extend: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]] | None,
    ) -> Tensor:
        """Attention and feed-forward, each added to the residual stream."""
        q, k, v = self.self_attn.project(self.input_layernorm(x), tables)
        if extend is not None:
            k, v = extend(k, v)
        causal = q.shape[2] > 1
        heads = F.scaled_dot_product_attention(q, k, v, is_causal=causal, enable_gqa=True)
        x = x + F.dropout(self.self_attn.output(heads), dropout, self.training)
        fed = self.mlp(self.post_attention_layernorm(x))
        return x + F.dropout(fed, dropout, self.training)


class Target(nn.Module):
    """A Llama with tied embeddings, which also hands out its inner residual streams."""

    def __init__(self, shape: Shape, dropout: float = 0.0) -> None:
        super().__init__()
        self.shape = shape
        self.dropout = dropout
        self.embed_tokens = nn.Embedding(shape.vocab, shape.width)
        self.layers = nn.ModuleList(Block(shape) for _ in range(shape.layers))
        self.norm = RMSNorm(shape.width, shape.norm_eps)
        self.apply(init_weights)
        for name, weight in self.named_parameters():
            if name.endswith(("o_proj.weight", "down_proj.weight")):
                weight.data /= math.sqrt(2 * shape.layers)

    def forward(self, ids: Tensor, cache: Cache | None = None) -> tuple[Tensor, Tensor]:
        """Logits, and the residual streams after `aux_layers` side by side."""
        start = cache.length if cache else 0
        positions = torch.arange(start, start + ids.shape[1], device=ids.device)
        tables = rope_tables(positions, self.shape)
        x = F.dropout(self.embed_tokens(ids), self.dropout, self.training)
        aux = []
        for index, layer in enumerate(self.layers):
            extend = bind(cache, index) if cache else None
            x = layer(x, tables, self.dropout, extend)
            if index in self.shape.aux_layers:
                aux.append(x)
        if cache:
            cache.length += ids.shape[1]
        return F.linear(self.norm(x), self.embed_tokens.weight), torch.cat(aux, dim=-1)


def bind(cache: Cache, layer: int) -> Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """The cache's extend for one layer."""
    return lambda k, v: cache.extend(layer, k, v)


def init_weights(module: nn.Module) -> None:
    """Small normal weights for every matrix."""
    if isinstance(module, nn.Linear | nn.Embedding):
        nn.init.normal_(module.weight, std=0.02)


def cosine(step: int, steps: int, warmup: int, peak: float) -> float:
    """Learning rate: linear warm-up, then a cosine to zero."""
    if step < warmup:
        return peak * (step + 1) / warmup
    return peak * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))


def make_optimizer(model: nn.Module, weight_decay: float) -> torch.optim.AdamW:
    """AdamW that decays matrices and leaves norms alone."""
    matrices = [p for p in model.parameters() if p.ndim >= 2]
    vectors = [p for p in model.parameters() if p.ndim < 2]
    groups = [
        {"params": matrices, "weight_decay": weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
    fused = matrices[0].device.type == "cuda"
    return torch.optim.AdamW(groups, betas=(0.9, 0.95), fused=fused)


def optimizer_step(model: nn.Module, optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Clip, step at the given rate, forget the gradients."""
    for group in optimizer.param_groups:
        group["lr"] = rate
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)


def held_out_windows(stream: Stream, length: int, device: torch.device) -> Tensor:
    """The stream in windows that do not overlap, each after a <|bos|>; padded at its end."""
    ids = torch.from_numpy(stream.ids)
    ids = F.pad(ids, (0, -len(ids) % (length - 1)), value=PAD)
    return F.pad(ids.view(-1, length - 1), (1, 0), value=BOS).to(device)


@torch.no_grad()
def mean_loss(model: Callable[[Tensor], tuple[Tensor, Tensor]], windows: Tensor) -> float:
    """Mean loss per token, in nats."""
    total, count = 0.0, 0
    for rows in torch.split(windows, 8):
        logits, _ = model(rows)
        wanted = rows[:, 1:].flatten()
        loss = F.cross_entropy(
            logits[:, :-1].flatten(0, 1).float(), wanted, ignore_index=PAD, reduction="sum"
        )
        total += loss.item()
        count += int((wanted != PAD).sum())
    return total / count


class Rows:
    """Batches for the target: short or long rows, about a third of them conversations."""

    def __init__(self, plain: PlainRows, chat: ChatWriter, tokens: int, share: float) -> None:
        self.plain, self.tokens, self.share = plain, tokens, share
        self.lengths = [min(512, tokens), min(2048, tokens)]
        pool = {self.lengths[0]: 16384, self.lengths[1]: 4096}
        if tokens < 16384:  # a trial run
            pool = dict.fromkeys(pool, 64)
        self.chats = {n: chat.rows(count, n).to(plain.ids.device) for n, count in pool.items()}

    def draw(self, step: int) -> Tensor:
        """Rows of 512 tokens on even steps, of 2048 on odd ones."""
        length = self.lengths[step % 2]
        rows = self.tokens // length
        chats = int(rows * self.share)
        pool = self.chats[length]
        pick = torch.randint(len(pool), (chats,), device=pool.device)
        return torch.cat([self.plain.draw(rows - chats, length), pool[pick]])


@dataclass
class Curve:
    """What a training run writes down."""

    points: list[dict[str, float]] = field(default_factory=list)
    best_step: int = 0
    seconds: float = 0.0


def train_target(
    shape: Shape, options: TargetOptions, rows: Rows, held_out: Tensor
) -> tuple[Target, Curve]:
    """Train, and return the weights with the lowest held-out loss."""
    device = held_out.device
    model = Target(shape, options.dropout).to(device)
    on_gpu = device.type == "cuda"
    forward = torch.compile(model, dynamic=False) if on_gpu else model
    optimizer = make_optimizer(model, options.weight_decay)
    curve, best, best_loss = Curve(), copy.deepcopy(model.state_dict()), math.inf
    began, running = time.monotonic(), torch.zeros((), device=device)
    for step in range(options.steps):
        ids = rows.draw(step)
        with torch.autocast(device.type, torch.bfloat16, enabled=on_gpu):
            logits, _ = forward(ids)
            loss = F.cross_entropy(logits[:, :-1].flatten(0, 1).float(), ids[:, 1:].flatten())
        torch.autograd.backward([loss])
        running += loss.detach()
        rate = cosine(step, options.steps, options.warmup, options.peak_lr)
        optimizer_step(model, optimizer, rate)
        if (step + 1) % options.eval_every == 0 or step + 1 == options.steps:
            model.eval()
            with torch.autocast(device.type, torch.bfloat16, enabled=on_gpu):
                loss_out = mean_loss(model, held_out)
            model.train()
            since = step + 1 - (int(curve.points[-1]["step"]) if curve.points else 0)
            loss_in = running.item() / since
            running.zero_()
            curve.points.append({"step": step + 1, "train": loss_in, "held_out": loss_out})
            curve.seconds = time.monotonic() - began
            print(
                f"target {step + 1}/{options.steps} train {loss_in:.4f} "
                f"held-out {loss_out:.4f} {curve.seconds:.0f}s",
                flush=True,
            )
            if loss_out < best_loss:
                best_loss, curve.best_step = loss_out, step + 1
                best = copy.deepcopy(model.state_dict())
    model.load_state_dict(best)
    return model.eval(), curve


@torch.no_grad()
def generate(model: Target, prompts: Tensor, new_tokens: int, temperature: float) -> Tensor:
    """Continue prompts of one length; after <|end|> a row is filled with <|pad|>."""
    length = prompts.shape[1] + new_tokens
    cache = Cache(model.shape, len(prompts), length, model.embed_tokens.weight)
    ended = torch.zeros(len(prompts), dtype=torch.bool, device=prompts.device)
    pieces, feed = [prompts], prompts
    for _ in range(new_tokens):
        logits = model(feed, cache)[0][:, -1].float()
        logits[:, PAD] = -math.inf
        if temperature > 0:
            chances = torch.softmax(logits / temperature, dim=-1)
            token = torch.multinomial(chances, 1)
        else:
            token = logits.argmax(-1, keepdim=True)
        token = token.masked_fill(ended[:, None], PAD)
        ended |= token[:, 0] == END
        pieces.append(token)
        feed = token
    return torch.cat(pieces, dim=1)
