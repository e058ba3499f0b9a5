"""The target: a Llama that runs a flattened batch against the paged KV cache."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from paretoserve.executor.engines.local.attention import Rows, attend
from paretoserve.executor.engines.local.config import ModelConfig
from paretoserve.executor.engines.local.layers import (
    paired,
    rms_norm,
    rope_table,
    rotate_,
    swiglu,
)
from paretoserve.executor.engines.local.weights import Weights


class Layer:
    """One decoder layer. Queries, keys and values come from one matrix, so do gate and up."""

    def __init__(self, config: ModelConfig, weights: Weights, prefix: str) -> None:
        width, dim = config.width, config.head_dim
        query, kv = config.heads * dim, config.kv_heads * dim
        attn, mlp = f"{prefix}self_attn.", f"{prefix}mlp."
        qkv = [
            paired(weights.take(f"{attn}q_proj.weight", query, width), dim),
            paired(weights.take(f"{attn}k_proj.weight", kv, width), dim),
            weights.take(f"{attn}v_proj.weight", kv, width),
        ]
        gate_up = [
            weights.take(f"{mlp}{name}_proj.weight", config.mlp, width) for name in ("gate", "up")
        ]
        post = weights.take(f"{prefix}post_attention_layernorm.weight", width)
        self.before_attention = rms_norm(
            weights.take(f"{prefix}input_layernorm.weight", width), config.norm_eps
        )
        self.qkv = weights.linear(*qkv)
        self.output = weights.linear(weights.take(f"{attn}o_proj.weight", width, query))
        self.before_mlp = rms_norm(post, config.norm_eps)
        self.gate_up = weights.linear(*gate_up)
        self.down = weights.linear(weights.take(f"{mlp}down_proj.weight", width, config.mlp))


class Llama:
    """Weights and forward pass. Logits are float32."""

    def __init__(
        self,
        config: ModelConfig,
        folder: Path,
        positions: int,
        like: Tensor,
        *,
        int8: bool = False,
    ) -> None:
        """Load from `folder` to the device and dtype of `like`, for up to `positions` positions;
        with `int8` the layers' matrices are rounded to 8 bits.

        Raises EngineError for a checkpoint that is missing, damaged or of other shapes.
        """
        weights = Weights(folder, like.device, like.dtype, int8=int8)
        self.config = config
        self.int8 = int8
        self.embedding = weights.keep(
            weights.take("model.embed_tokens.weight", config.vocab, config.width)
        )
        self.layers = [Layer(config, weights, f"model.layers.{i}.") for i in range(config.layers)]
        self.norm = rms_norm(weights.take("model.norm.weight", config.width), config.norm_eps)
        head = self.embedding
        if not config.tied:
            head = weights.take("lm_head.weight", config.vocab, config.width)
        self.head = weights.linear(head, exact=True)
        self.turns = rope_table(config.head_dim, positions, config.rope_theta, like.device)
        self.weight_bytes = weights.bytes

    def forward(
        self, rows: Rows, cache: Tensor, aux_layers: tuple[int, ...] = ()
    ) -> tuple[Tensor, Tensor]:
        """The residual stream after the last layer, and those after `aux_layers` side by side.

        `cache` is [layers, blocks, block_tokens * kv_row]; the rows' keys and values are written
        to it before they are read.
        """
        config = self.config
        query = config.heads * config.head_dim
        turning = config.heads + config.kv_heads
        turns = self.turns.index_select(0, rows.positions)
        x = self.embedding.index_select(0, rows.tokens)
        aux = x.new_empty(len(x), len(aux_layers), config.width)
        for number, layer in enumerate(self.layers):
            held = cache[number]
            qkv = layer.qkv(layer.before_attention(x))
            heads = qkv.view(len(qkv), -1, config.head_dim)
            rotate_(heads[:, :turning], turns)
            held.view(-1, config.kv_row).index_copy_(0, rows.slots, qkv[:, query:])
            seen = attend(heads[:, : config.heads], held, rows.groups)
            x.add_(layer.output(seen))
            x.add_(layer.down(swiglu(layer.gate_up(layer.before_mlp(x)))))
            if number in aux_layers:
                aux[:, aux_layers.index(number)] = x
        return x, aux.flatten(1)

    def logits(self, x: Tensor) -> Tensor:
        """[rows, vocab] from the residual stream after the last layer."""
        return self.head(self.norm(x)).float()
