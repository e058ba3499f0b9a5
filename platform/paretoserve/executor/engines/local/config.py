"""The shapes of a Llama and of its EAGLE-3 draft head, from their Hugging Face config files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from paretoserve.domain.errors import EngineError
from paretoserve.executor.model_files import read_eos_ids, read_json


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """Shapes and constants of a Llama."""

    vocab: int
    width: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    mlp: int
    norm_eps: float
    rope_theta: float
    max_positions: int
    tied: bool
    eos_ids: frozenset[int]

    @property
    def kv_row(self) -> int:
        """Numbers that one token keeps in one layer's cache: keys and values of all KV heads."""
        return 2 * self.kv_heads * self.head_dim


def read_model_config(folder: Path) -> ModelConfig:
    """Read config.json, and the end-of-sequence ids of generation_config.json where it exists.

    Raises EngineError for a missing or unreadable file and for a variant this engine does not
    compute (another architecture, biases, scaled rotary positions).
    """
    path = folder / "config.json"
    raw = read_json(path)
    _refuse_variants(path, raw)
    heads = _integer(path, raw, "num_attention_heads")
    width = _integer(path, raw, "hidden_size")
    return ModelConfig(
        vocab=_integer(path, raw, "vocab_size"),
        width=width,
        layers=_integer(path, raw, "num_hidden_layers"),
        heads=heads,
        kv_heads=raw.get("num_key_value_heads") or heads,
        head_dim=raw.get("head_dim") or width // heads,
        mlp=_integer(path, raw, "intermediate_size"),
        norm_eps=float(raw.get("rms_norm_eps", 1e-6)),
        rope_theta=float(_rope(raw).get("rope_theta", raw.get("rope_theta", 10000.0))),
        max_positions=_integer(path, raw, "max_position_embeddings"),
        tied=bool(raw.get("tie_word_embeddings", False)),
        eos_ids=frozenset(read_eos_ids(folder, raw)),
    )


def read_aux_layers(folder: Path, layers: int) -> tuple[int, ...]:
    """The target layers after which the draft head reads the residual stream.

    Raises EngineError when draft/config.json does not name three layers that the target has.
    """
    path = folder / "config.json"
    aux: list[int] = read_json(path).get("aux_hidden_state_layers") or []
    if len(aux) != 3 or aux != sorted(set(aux)) or not 0 <= aux[0] <= aux[-1] < layers:
        raise EngineError(
            f"{path}: aux_hidden_state_layers is {aux}; it must be three rising layers "
            f"from 0 to {layers - 1}"
        )
    return tuple(aux)


def _rope(raw: dict[str, Any]) -> dict[str, Any]:
    return raw.get("rope_parameters") or raw.get("rope_scaling") or {}


def _refuse_variants(path: Path, raw: dict[str, Any]) -> None:
    wrong = [
        f"{key} is {value!r}, supported is {right!r}"
        for key, value, right in (
            ("model_type", raw.get("model_type", "llama"), "llama"),
            ("hidden_act", raw.get("hidden_act", "silu"), "silu"),
            ("attention_bias", raw.get("attention_bias", False), False),
            ("mlp_bias", raw.get("mlp_bias", False), False),
            ("rope_type", _rope(raw).get("rope_type", "default"), "default"),
        )
        if value != right
    ]
    if wrong:
        raise EngineError(f"{path}: {'; '.join(wrong)}")


def _integer(path: Path, raw: dict[str, Any], key: str) -> int:
    value = raw.get(key)
    if not isinstance(value, int) or value < 1:
        raise EngineError(f"{path}: {key} is {value!r}; it must be a positive whole number")
    return value
