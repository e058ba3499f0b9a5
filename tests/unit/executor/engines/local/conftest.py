from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from paretoserve.domain.model import Model
from paretoserve.domain.profile import CurvePoint, LatencyCurve, Limits, Profile
from paretoserve.domain.request import Sampling
from paretoserve.executor.contract import Chunk, GenerationRequest
from paretoserve.executor.engines.local.core import Core
from paretoserve.executor.engines.local.options import read_options

torch.set_num_threads(1)  # as the engine does; small tensors gain nothing from more

VOCAB, WIDTH, LAYERS, HEADS, KV_HEADS, DIM, MLP = 96, 32, 3, 4, 2, 8, 48
CONFIG = {
    "model_type": "llama",
    "vocab_size": VOCAB,
    "hidden_size": WIDTH,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "num_key_value_heads": KV_HEADS,
    "head_dim": DIM,
    "intermediate_size": MLP,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "max_position_embeddings": 512,
    "tie_word_embeddings": True,
    "eos_token_id": 2,
}


def layer_weights(prefix: str, attention_width: int = WIDTH) -> dict[str, torch.Tensor]:
    query, kv = HEADS * DIM, KV_HEADS * DIM
    shapes = {
        "self_attn.q_proj": (query, attention_width),
        "self_attn.k_proj": (kv, attention_width),
        "self_attn.v_proj": (kv, attention_width),
        "self_attn.o_proj": (WIDTH, query),
        "mlp.gate_proj": (MLP, WIDTH),
        "mlp.up_proj": (MLP, WIDTH),
        "mlp.down_proj": (WIDTH, MLP),
    }
    weights = {f"{prefix}{name}.weight": torch.randn(s) * 0.13 for name, s in shapes.items()}
    for norm in ("input_layernorm", "post_attention_layernorm"):
        weights[f"{prefix}{norm}.weight"] = 1 + torch.randn(WIDTH) * 0.1
    return weights


def draft_weights() -> dict[str, torch.Tensor]:
    """A head that passes the target's last residual stream on, and so is right now and then."""
    mix = torch.cat([torch.zeros(WIDTH, 2 * WIDTH), torch.eye(WIDTH)], dim=1)
    return layer_weights("midlayer.", 2 * WIDTH) | {
        "midlayer.hidden_norm.weight": torch.ones(WIDTH),
        "fc.weight": mix,
        "norm.weight": torch.ones(WIDTH),
    }


def target_weights() -> dict[str, torch.Tensor]:
    weights = {
        "model.embed_tokens.weight": torch.randn(VOCAB, WIDTH) * 0.5,
        "model.norm.weight": torch.ones(WIDTH),
    }
    for layer in range(LAYERS):
        weights |= layer_weights(f"model.layers.{layer}.")
    return weights


def random_prompt(seed: int, length: int) -> list[int]:
    draw = random.Random(seed)
    return [draw.randrange(3, VOCAB) for _ in range(length)]


def write_model(folder: Path, **config: Any) -> Path:
    """A random model with a draft head, in the layout of a real one."""
    torch.manual_seed(7)
    draft = folder / "draft"
    draft.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(CONFIG | config))
    (draft / "config.json").write_text(json.dumps({"aux_hidden_state_layers": [0, 1, 2]}))
    for path, weights in ((folder, target_weights()), (draft, draft_weights())):
        halved = {name: weight.bfloat16() for name, weight in weights.items()}
        save_file(halved, path / "model.safetensors")
    return folder


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture
def model(model_folder: Path) -> Model:
    return Model(name="tiny", path=str(model_folder), context_tokens=256)


def make_profile(
    *, max_batch: int = 8, max_queue: int = 64, context: int = 256, **engine_args: Any
) -> Profile:
    return Profile(
        name="test",
        model="tiny",
        engine="local",
        engine_args={"device": "cpu", "kv_tokens": 4096, "step_tokens": 64} | engine_args,
        gpus=1,
        limits=Limits(context_tokens=context, max_batch=max_batch, admit=1, max_queue=max_queue),
        curve=LatencyCurve(
            source="emulated",
            hardware="none",
            points=(CurvePoint(batch=1, tpot_ms=1),),
            prefill_tokens_per_s=1000,
        ),
    )


SPECULATION = {"draft": "draft", "tokens": 3}


class Driver:
    """Steps a Core by hand and keeps what it says."""

    def __init__(self, profile: Profile, model: Model) -> None:
        self.core = Core(profile, model, read_options(profile))
        self.chunks: dict[str, list[Chunk]] = {}
        self.emitted: list[list[Chunk]] = []

    def add(self, request_id: str, prompt: list[int], priority: int = 0, **sampling: Any) -> None:
        asked = Sampling(**({"temperature": 0.0, "ignore_eos": True, "max_tokens": 16} | sampling))
        request = GenerationRequest(request_id, tuple(prompt), asked, priority)
        self.core.add(request, self._unused, 0.0)

    def step(self) -> None:
        with torch.inference_mode():
            self.core.step(self.emit)

    def run(self) -> None:
        while self.core.busy:
            self.step()

    def emit(self, output: list[Any]) -> None:
        self.emitted.append([chunk for _, chunk in output])
        for _, chunk in output:
            self.chunks.setdefault(chunk.request_id, []).append(chunk)

    def tokens(self, request_id: str) -> list[int]:
        return [token for chunk in self.chunks[request_id] for token in chunk.token_ids]

    def finish(self, request_id: str) -> Any:
        return self.chunks[request_id][-1].finish

    def _unused(self, _: object) -> None:
        raise AssertionError("a Core hands its output to `emit`")


@pytest.fixture
def driver(model: Model) -> Callable[..., Driver]:
    return lambda **options: Driver(make_profile(**options), model)
