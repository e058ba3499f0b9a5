"""The paged, batched forward passes against a dense one written independently of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conftest import (
    CONFIG,
    DIM,
    HEADS,
    KV_HEADS,
    LAYERS,
    SPECULATION,
    VOCAB,
    WIDTH,
    Driver,
    make_profile,
    random_prompt,
    target_weights,
    write_model,
)
from safetensors.torch import load_file, save_file

from paretoserve.domain.errors import EngineError
from paretoserve.domain.model import Model
from paretoserve.executor.engines.local.layers import (
    FLOAT32_ROUNDING,
    int8_linear,
    linear,
    quantized,
    rms_norm,
)

Weights = dict[str, torch.Tensor]


def norm(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-5) * weight


def rotate(x: torch.Tensor, first: int) -> torch.Tensor:
    angles = torch.arange(first, first + len(x))[:, None] * 10000 ** -(
        torch.arange(0, DIM, 2) / DIM
    )
    cos, sin = angles.cos().repeat(1, 2)[:, None], angles.sin().repeat(1, 2)[:, None]
    low, high = x.chunk(2, -1)
    return x * cos + torch.cat([-high, low], -1) * sin


def attention(w: Weights, prefix: str, x: torch.Tensor) -> torch.Tensor:
    q, k, v = ((x @ w[f"{prefix}self_attn.{n}_proj.weight"].T).view(len(x), -1, DIM) for n in "qkv")
    q, k = rotate(q, 0), rotate(k, 0)
    k, v = (part.repeat_interleave(HEADS // KV_HEADS, 1) for part in (k, v))
    scores = torch.einsum("qhd,khd->hqk", q, k) / DIM**0.5
    scores += torch.full(scores.shape[1:], -torch.inf).triu(1)
    seen = torch.einsum("hqk,khd->qhd", scores.softmax(-1), v).flatten(1)
    return seen @ w[f"{prefix}self_attn.o_proj.weight"].T


def mlp(w: Weights, prefix: str, x: torch.Tensor) -> torch.Tensor:
    gate, up = (x @ w[f"{prefix}mlp.{n}_proj.weight"].T for n in ("gate", "up"))
    return (torch.nn.functional.silu(gate) * up) @ w[f"{prefix}mlp.down_proj.weight"].T


def dense_target(w: Weights, tokens: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
    x = w["model.embed_tokens.weight"][tokens]
    aux = []
    for layer in range(LAYERS):
        p = f"model.layers.{layer}."
        x = x + attention(w, p, norm(x, w[f"{p}input_layernorm.weight"]))
        x = x + mlp(w, p, norm(x, w[f"{p}post_attention_layernorm.weight"]))
        aux.append(x)
    head = w.get("lm_head.weight", w["model.embed_tokens.weight"])
    return norm(x, w["model.norm.weight"]) @ head.T, torch.cat(aux, -1)


def dense_drafts(w: Weights, head: Weights, tokens: list[int], count: int) -> list[int]:
    """Recompute the whole chain from scratch for every drafted token."""
    features = list(dense_target(w, tokens)[1][:-1] @ head["fc.weight"].T)
    said, drafts = tokens[1:], []
    for _ in range(count):
        g = torch.stack(features)
        embedded = w["model.embed_tokens.weight"][said]
        pairs = torch.cat(
            [
                norm(embedded, head["midlayer.input_layernorm.weight"]),
                norm(g, head["midlayer.hidden_norm.weight"]),
            ],
            -1,
        )
        h = g + attention(head, "midlayer.", pairs)
        h = h + mlp(head, "midlayer.", norm(h, head["midlayer.post_attention_layernorm.weight"]))
        logits = norm(h[-1], head["norm.weight"]) @ w["model.embed_tokens.weight"].T
        drafts.append(int(logits.argmax()))
        features, said = [*features, h[-1]], [*said, drafts[-1]]
    return drafts


def load(folder: Path) -> Weights:
    return {k: v.float() for k, v in load_file(folder / "model.safetensors").items()}


def dense_greedy(w: Weights, prompt: list[int], count: int) -> list[int]:
    tokens = list(prompt)
    for _ in range(count):
        tokens.append(int(dense_target(w, tokens)[0][-1].argmax()))
    return tokens[len(prompt) :]


@pytest.mark.parametrize("speculation", [None, SPECULATION])
def test_greedy_tokens_equal_dense_ones(
    driver: Callable[..., Driver], model_folder: Path, speculation: dict[str, object] | None
) -> None:
    weights = load(model_folder)
    engine = driver(speculation=speculation, step_tokens=24)
    prompts = {str(n): random_prompt(n, length) for n, length in enumerate((1, 15, 16, 17, 70))}
    for name, prompt in prompts.items():
        engine.add(name, prompt, max_tokens=20)
    engine.run()
    for name, prompt in prompts.items():
        assert engine.tokens(name) == dense_greedy(weights, prompt, 20)


def test_logprobs_equal_dense_ones(driver: Callable[..., Driver], model_folder: Path) -> None:
    engine = driver(speculation=SPECULATION)
    prompt = random_prompt(3, 20)
    engine.add("a", prompt, max_tokens=12, logprobs=3)
    engine.run()
    said = engine.tokens("a")
    logits, _ = dense_target(load(model_folder), prompt + said)
    expected = logits.log_softmax(-1)[len(prompt) - 1 : -1]
    reported = [logprob for chunk in engine.chunks["a"] for logprob in chunk.logprobs]
    assert len(reported) == len(said)
    for row, token, logprob in zip(expected, said, reported, strict=True):
        assert logprob.logprob == pytest.approx(float(row[token]), abs=1e-4)
        assert [token for token, _ in logprob.top] == row.topk(3).indices.tolist()


def test_drafts_equal_dense_ones(driver: Callable[..., Driver], model_folder: Path) -> None:
    weights, head = load(model_folder), load(model_folder / "draft")
    engine = driver(speculation=SPECULATION, step_tokens=24)
    for n, length in enumerate((1, 9, 33, 64)):
        engine.add(str(n), random_prompt(n, length), max_tokens=14)
    compared = 0
    while engine.core.busy:
        engine.step()
        for sequence in engine.core._scheduler.running:
            if sequence.drafts:
                compared += 1
                assert sequence.drafts == dense_drafts(weights, head, sequence.tokens, 3)
    assert compared > 20


def test_reads_untied_and_sharded_checkpoints(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "sharded", tie_word_embeddings=False)
    torch.manual_seed(11)
    weights = {
        name: weight.bfloat16()
        for name, weight in (
            target_weights() | {"lm_head.weight": torch.randn(VOCAB, WIDTH)}
        ).items()
    }
    (folder / "model.safetensors").unlink()
    names = sorted(weights)
    shards = {"a.safetensors": names[::2], "b.safetensors": names[1::2]}
    for file, held in shards.items():
        save_file({name: weights[name] for name in held}, folder / file)
    index = {name: file for file, held in shards.items() for name in held}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    model = Model(name="sharded", path=str(folder), context_tokens=256)
    engine = Driver(make_profile(), model)
    engine.add("a", random_prompt(1, 10), max_tokens=10)
    engine.run()
    full = {name: weight.float() for name, weight in weights.items()}
    assert engine.tokens("a") == dense_greedy(full, random_prompt(1, 10), 10)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"attention_bias": True}, "attention_bias"),
        ({"rope_scaling": {"rope_type": "llama3"}}, "rope_type"),
        ({"hidden_size": 40}, "embed_tokens"),
        ({"num_hidden_layers": LAYERS + 1}, "layers.3"),
        ({"vocab_size": "many"}, "vocab_size"),
        ({"max_position_embeddings": 100}, "positions"),
    ],
)
def test_refuses_what_it_cannot_compute(
    tmp_path: Path, config: dict[str, object], message: str
) -> None:
    folder = write_model(tmp_path / "odd", **(CONFIG | config))
    with pytest.raises(EngineError, match=message):
        Driver(make_profile(), Model(name="odd", path=str(folder), context_tokens=256))


def test_refuses_a_damaged_checkpoint(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "damaged")
    (folder / "model.safetensors").write_bytes(b"no tensors")
    with pytest.raises(EngineError, match=r"model\.safetensors"):
        Driver(make_profile(), Model(name="odd", path=str(folder), context_tokens=256))


@pytest.mark.parametrize("stored", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("rows", [1, 4, 33])
def test_packed_matrices_lose_nothing(stored: torch.dtype, rows: int) -> None:
    torch.manual_seed(0)
    weight = (torch.randn(64, 48) * 0.02).to(stored).float()
    x = torch.randn(rows, 48)
    exact = x.double() @ weight.double().T
    error = torch.linalg.vector_norm(linear(weight).apply(x) - exact) / torch.linalg.vector_norm(
        exact
    )
    assert error < 4 * FLOAT32_ROUNDING


@pytest.mark.parametrize("stored", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("spread", [1e-3, 0.02, 50.0])
def test_quantized_weights_are_within_half_a_step(stored: torch.dtype, spread: float) -> None:
    torch.manual_seed(0)
    weight = (torch.randn(64, 48) * spread).to(stored)
    weight[5] = 0
    scales, rounded = quantized(weight)
    assert (scales.dtype, rounded.dtype) == (torch.bfloat16, torch.int8)
    steps = (weight.float() - scales.float()[:, None] * rounded.float()).abs() / scales.float()[
        :, None
    ]
    assert steps.max() <= 1.0  # a half, but for a row's largest weight, whose scale was rounded
    assert steps.mean() < 0.27
    assert not rounded[5].any()


@pytest.mark.parametrize("rows", [1, 4, 33])
def test_int8_matrices_multiply_their_rounded_weights(rows: int) -> None:
    torch.manual_seed(0)
    weight, x = torch.randn(64, 48) * 0.02, torch.randn(rows, 48)
    scales, rounded = quantized(weight)
    exact = x.double() @ (scales.double()[:, None] * rounded.double()).T
    result = int8_linear(weight).apply(x)
    assert result.dtype == x.dtype
    assert torch.linalg.vector_norm(result - exact) < 0.01 * torch.linalg.vector_norm(exact)


def test_a_row_of_an_int8_product_does_not_depend_on_the_others() -> None:
    torch.manual_seed(0)
    apply, x = int8_linear(torch.randn(64, 48)).apply, torch.randn(33, 48)
    assert torch.equal(torch.cat([apply(row[None]) for row in x]), apply(x))


@pytest.mark.parametrize("speculation", [None, SPECULATION])
def test_int8_weights_take_less_memory(
    driver: Callable[..., Driver], speculation: dict[str, object] | None
) -> None:
    stored, int8 = (
        driver(weights=weights, speculation=speculation).core.runner.weight_bytes
        for weights in ("stored", "int8")
    )
    embeddings = VOCAB * WIDTH * (4 + 2)  # looked up in float32, multiplied packed to 16 bits
    assert 0.5 < (int8 - embeddings) / (stored - embeddings) < 0.56


def test_speculation_is_lossless_with_int8_weights_too(driver: Callable[..., Driver]) -> None:
    said = []
    for speculation in (None, SPECULATION):
        engine = driver(weights="int8", speculation=speculation)
        for number in range(4):
            engine.add(str(number), random_prompt(number, 20))
        engine.run()
        said.append([engine.tokens(str(number)) for number in range(4)])
    assert said[0] == said[1]


def test_rms_norm_equals_its_definition() -> None:
    torch.manual_seed(0)
    weight, x = torch.randn(48), torch.randn(5, 48) * torch.tensor([[1e-4], [1], [1e3], [0], [5]])
    torch.testing.assert_close(rms_norm(weight, 1e-5)(x), norm(x, weight))
