"""Models of random weights: their config files, and the bytes that a step of theirs reads."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from paretoserve.app.profiling.memory import Memory

H200_BYTES_PER_S = 4.8e12
"""HBM3e of one H200, by its datasheet; a copy reaches about nine tenths of it."""

LLAMA_8B: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "vocab_size": 128256,
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "hidden_act": "silu",
    "max_position_embeddings": 131072,
    "rms_norm_eps": 1e-5,
    "rope_theta": 500000.0,
    "tie_word_embeddings": False,
    "bos_token_id": 128000,
    "eos_token_id": 128001,
    "torch_dtype": "bfloat16",
}
"""Llama 3.1 8B."""

MAVERICK: dict[str, Any] = {
    "architectures": ["Llama4ForCausalLM"],
    "model_type": "llama4_text",
    "vocab_size": 202048,
    "hidden_size": 5120,
    "intermediate_size": 8192,
    "intermediate_size_mlp": 16384,
    "num_hidden_layers": 48,
    "num_attention_heads": 40,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "hidden_act": "silu",
    "max_position_embeddings": 131072,
    "rms_norm_eps": 1e-5,
    "rope_theta": 500000.0,
    "num_local_experts": 128,
    "num_experts_per_tok": 1,
    "interleave_moe_layer_step": 2,
    "use_qk_norm": False,
    "attention_chunk_size": 8192,
    "attn_temperature_tuning": False,
    "tie_word_embeddings": False,
    "bos_token_id": 200000,
    "eos_token_id": 200001,
    "torch_dtype": "bfloat16",
}
"""The language model of Llama 4 Maverick, all 48 layers of it."""


@dataclass(frozen=True, slots=True)
class Shape:
    """A model's config, and an EAGLE-3 draft head for it."""

    config: dict[str, Any]

    def write(self, folder: Path) -> None:
        """Write config.json, and draft/config.json for the head."""
        draft = folder / "draft"
        draft.mkdir(parents=True, exist_ok=True)
        for path, config in ((folder, self.config), (draft, self._draft_config())):
            text = json.dumps(config, indent=1)
            (path / "config.json").write_text(text, encoding="utf-8")

    def memory(self, *, gpus: int, weight_bytes: float, kv_bytes: float, drafts: int) -> Memory:
        """What a step reads, with so many bytes for a weight and for a number in the KV cache.

        The embedding is looked up, not read; the head over the vocabulary is read, and stays in
        two bytes a weight whatever the rest is quantized to. So does all of the draft head.
        """
        config = self.config
        width, layers = config["hidden_size"], config["num_hidden_layers"]
        heads, kv_heads = config["num_attention_heads"], config["num_key_value_heads"]
        attention = width * config["head_dim"] * 2 * (heads + kv_heads)
        experts = config.get("num_local_experts", 0)
        moe = layers // config["interleave_moe_layer_step"] if experts else 0
        expert = 3 * width * config["intermediate_size"]
        mlp = 3 * width * config.get("intermediate_size_mlp", config["intermediate_size"])
        router = width * experts
        dense = layers * attention + (layers - moe) * mlp + moe * (expert + router)
        head = 2 * width * config["vocab_size"]
        return Memory(
            bytes_per_s=gpus * H200_BYTES_PER_S,
            dense_bytes=weight_bytes * dense + head,
            kv_bytes_per_token=kv_bytes * 2 * layers * kv_heads * config["head_dim"],
            expert_bytes=weight_bytes * moe * experts * expert,
            experts=experts or 1,
            experts_per_token=config.get("num_experts_per_tok", 0),
            draft_bytes=2 * self._draft_weights() if drafts else 0.0,
            drafts=drafts,
        )

    def _draft_config(self) -> dict[str, Any]:
        """One Llama layer over the target's hidden states, with a vocabulary of its own."""
        kept = ("vocab_size", "hidden_size", "num_attention_heads", "num_key_value_heads")
        return {
            **{key: LLAMA_8B[key] for key in LLAMA_8B},
            **{key: self.config[key] for key in (*kept, "head_dim", "max_position_embeddings")},
            "architectures": ["LlamaForCausalLMEagle3"],
            "intermediate_size": _draft_mlp(self.config),
            "num_hidden_layers": 1,
            "draft_vocab_size": DRAFT_VOCAB,
            "eagle_aux_hidden_state_layer_ids": _read_layers(self.config["num_hidden_layers"]),
        }

    def _draft_weights(self) -> int:
        """Weights that one drafted token reads. The layer's input is twice as wide as the model."""
        width, dim = self.config["hidden_size"], self.config["head_dim"]
        heads, kv_heads = self.config["num_attention_heads"], self.config["num_key_value_heads"]
        attention = 2 * width * dim * (heads + 2 * kv_heads) + width * dim * heads
        return int(attention + 3 * width * _draft_mlp(self.config) + width * DRAFT_VOCAB)


DRAFT_VOCAB = 32000


def _read_layers(layers: int) -> list[int]:
    """The layers whose hidden states the draft head reads: vLLM's default where it is three.

    That is 2, half of them and all but 3, which are not three different layers of a model of 6;
    vLLM then hands two states to a head that was built for three.
    """
    usual = [2, layers // 2, layers - 3]
    return usual if len(set(usual)) == len(usual) else [1, layers // 2, layers - 1]


def _draft_mlp(config: dict[str, Any]) -> int:
    return int(config.get("intermediate_size_mlp", config["intermediate_size"]))


def llama_8b() -> Shape:
    """The dense shape."""
    return Shape(LLAMA_8B)


def maverick(layers: int) -> Shape:
    """Maverick with fewer layers: an even number of them, half of which hold the experts."""
    if layers < 2 or layers % 2:
        raise ValueError(f"layers is {layers}; it must be even, from 2")
    no_rope = [int((layer + 1) % 4 != 0) for layer in range(layers)]
    moe = list(range(1, layers, 2))
    kinds = ["chunked_attention" if rope else "full_attention" for rope in no_rope]
    return Shape(
        {
            **MAVERICK,
            "num_hidden_layers": layers,
            "no_rope_layers": no_rope,
            "moe_layers": moe,
            "layer_types": kinds,
        }
    )
