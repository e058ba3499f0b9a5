"""The EAGLE-3 draft head (Li et al. 2025): one decoder layer that reads the target's mind.

For position t it sees the pair (token t+1, feature t) and predicts token t+2. The feature is a
mix of three of the target's residual streams at t while the text is known, and the head's own
output while it drafts further. Its keys and values are one more layer of the target's cache.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from paretoserve.executor.engines.local.attention import Rows, attend
from paretoserve.executor.engines.local.config import ModelConfig, read_aux_layers
from paretoserve.executor.engines.local.layers import paired, rms_norm, rotate_, swiglu
from paretoserve.executor.engines.local.model import Llama
from paretoserve.executor.engines.local.weights import Weights


class DraftHead:
    """Weights and forward pass; embedding and output matrix are the target's."""

    def __init__(self, target: Llama, folder: Path) -> None:
        """Raises EngineError for a head that is missing, damaged or of other shapes."""
        config, like = target.config, target.embedding
        weights = Weights(folder, like.device, like.dtype, int8=target.int8)
        self.target = target
        self.aux_layers = read_aux_layers(folder, config.layers)
        self._load_attention(config, weights)
        self._load_mlp(config, weights)
        self.mix = weights.linear(
            weights.take("fc.weight", config.width, len(self.aux_layers) * config.width)
        )
        self.norm = rms_norm(weights.take("norm.weight", config.width), config.norm_eps)
        self.weight_bytes = weights.bytes

    def _load_attention(self, config: ModelConfig, weights: Weights) -> None:
        both, dim, attn = 2 * config.width, config.head_dim, "midlayer.self_attn."
        query, kv = config.heads * dim, config.kv_heads * dim
        self.embedded_norm, self.feature_norm = (
            rms_norm(weights.take(f"midlayer.{name}.weight", config.width), config.norm_eps)
            for name in ("input_layernorm", "hidden_norm")
        )
        self.query = weights.linear(paired(weights.take(f"{attn}q_proj.weight", query, both), dim))
        keys = paired(weights.take(f"{attn}k_proj.weight", kv, both), dim)
        self.kv = weights.linear(keys, weights.take(f"{attn}v_proj.weight", kv, both))
        self.output = weights.linear(weights.take(f"{attn}o_proj.weight", config.width, query))

    def _load_mlp(self, config: ModelConfig, weights: Weights) -> None:
        mlp = "midlayer.mlp."
        gate_up = [
            weights.take(f"{mlp}{name}_proj.weight", config.mlp, config.width)
            for name in ("gate", "up")
        ]
        post = weights.take("midlayer.post_attention_layernorm.weight", config.width)
        self.before_mlp = rms_norm(post, config.norm_eps)
        self.gate_up = weights.linear(*gate_up)
        self.down = weights.linear(weights.take(f"{mlp}down_proj.weight", config.width, config.mlp))

    def pair(self, tokens: Tensor, features: Tensor) -> Tensor:
        """[rows, 2 * width] that attention reads, of next tokens and features."""
        embedded = self.target.embedding.index_select(0, tokens)
        return torch.cat([self.embedded_norm(embedded), self.feature_norm(features)], dim=-1)

    def remember(self, pairs: Tensor, positions: Tensor, slots: Tensor, cache: Tensor) -> None:
        """Write the pairs' keys and values. All that a pair needs whose output is not used."""
        config = self.target.config
        kv = self.kv(pairs)
        keys = kv.view(len(kv), -1, config.head_dim)[:, : config.kv_heads]
        rotate_(keys, self.target.turns.index_select(0, positions))
        cache.view(-1, config.kv_row).index_copy_(0, slots, kv)

    def predict(self, pairs: Tensor, features: Tensor, rows: Rows, cache: Tensor) -> Tensor:
        """The head's output of remembered pairs: the feature of the next position."""
        config = self.target.config
        query = self.query(pairs).view(len(pairs), -1, config.head_dim)
        rotate_(query, self.target.turns.index_select(0, rows.positions))
        x = features + self.output(attend(query, cache, rows.groups))
        return x.add_(self.down(swiglu(self.gate_up(self.before_mlp(x)))))

    def logits(self, features: Tensor) -> Tensor:
        """[rows, vocab] for the token after the next."""
        return self.target.head(self.norm(features)).float()
