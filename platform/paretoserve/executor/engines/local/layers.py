"""The small parts of a Llama, each with as few operations as PyTorch allows.

On one CPU core a decoding step of a small model is bound by the bytes of its weights and by the
number of operations, so matrices are packed to 16 bits where that loses nothing, and norms and
rotary positions are written in the fewest kernels.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

Apply = Callable[[Tensor], Tensor]

FLOAT32_ROUNDING = 2.0**-24
INT8_MOST = 127
LEAST_SCALE = 2.0**-100
"""Of a row of zeros."""


@dataclass(frozen=True, slots=True)
class Linear:
    """X -> x @ weight.T, and the tensors that it reads; `size` is theirs, in bytes."""

    apply: Apply
    size: int
    weight: Tensor | None = None
    """The matrix that it was made of, if it reads that itself."""


def linear(weight: Tensor) -> Linear:
    """X -> x @ weight.T for a weight of [out, in] and float32 or bfloat16 x of [rows, in].

    A float32 matrix on an x86 CPU is held as float16, multiplied and summed in float32 (FBGEMM),
    if float16 holds it to within float32's own rounding, as it does for checkpoints stored in
    bfloat16: half the memory traffic for the same result.
    """
    if weight.device.type == "cpu" and weight.dtype == torch.float32 and _fits_float16(weight):
        packed = torch.ops.quantized.linear_prepack_fp16(weight.contiguous(), None)
        multiply = torch.ops.quantized.linear_dynamic_fp16.default
        return Linear(lambda x: multiply(x, packed), 2 * weight.numel())
    weight = weight.contiguous()
    return Linear(lambda x: F.linear(x, weight), weight.nbytes, weight)


def int8_linear(weight: Tensor) -> Linear:
    """`linear` with the weights rounded to 8 bits, symmetrically, with one scale per output.

    On a CPU activations are bfloat16 inside, and PyTorch's kernel reads the 8-bit weights as they
    are; elsewhere they are widened to the activations' type for each product. A row's result does
    not depend on the other rows.
    """
    scales, rounded = quantized(weight)
    size = rounded.nbytes + scales.nbytes
    if weight.device.type != "cpu":
        return Linear(lambda x: F.linear(x, rounded.to(x.dtype)).mul_(scales), size)
    multiply = torch.ops.aten._weight_int8pack_mm.default  # noqa: SLF001 (an operator's name)
    return Linear(lambda x: multiply(x.bfloat16(), rounded, scales).to(x.dtype), size)


def quantized(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Scales, bfloat16 [out], and int8 [out, in]: scale * int8 is the weight, rounded.

    Symmetric, with one scale per output row: its largest weight becomes 127. It is the rounded
    scale that the weights are divided by, so that rounding it costs no accuracy.
    """
    most = weight.abs().amax(dim=1, keepdim=True).float()
    scales = (most / INT8_MOST).clamp(min=LEAST_SCALE).bfloat16()
    rounded = (weight.float() / scales.float()).round().clamp(-INT8_MOST, INT8_MOST)
    return scales.squeeze(1), rounded.to(torch.int8)


def _fits_float16(weight: Tensor) -> bool:
    if "fbgemm" not in torch.backends.quantized.supported_engines:
        return False
    error = torch.linalg.vector_norm(weight.half().float() - weight)
    return bool(error <= FLOAT32_ROUNDING * torch.linalg.vector_norm(weight))


def rms_norm(weight: Tensor, eps: float) -> Apply:
    """X / sqrt(mean(x^2) + eps) * weight over the last dimension."""
    width = weight.shape[0]
    if weight.device.type != "cpu" or weight.dtype != torch.float32:
        return lambda x: F.rms_norm(x, (width,), weight, eps)
    # sqrt(mean(x^2) + eps) = hypot(|x|, sqrt(width * eps)) / sqrt(width): four kernels, not seven.
    floor = torch.tensor(math.sqrt(width * eps))
    scaled = weight * math.sqrt(width)
    norm = torch.linalg.vector_norm
    return lambda x: x.div(norm(x, 2, -1, True).hypot_(floor)).mul_(scaled)


def swiglu(gate_and_up: Tensor) -> Tensor:
    """silu(gate) * up for [rows, 2 * mlp] that holds them side by side."""
    gate, up = gate_and_up.chunk(2, dim=-1)
    return F.silu(gate).mul_(up)


def rope_table(head_dim: int, positions: int, theta: float, device: torch.device) -> Tensor:
    """Unit complex numbers [positions, 1, head_dim / 2], one turn per position and pair."""
    powers = torch.arange(0, head_dim, 2, device=device, dtype=torch.float32) / head_dim
    angles = torch.arange(positions, device=device, dtype=torch.float32)[:, None] * theta**-powers
    return torch.polar(torch.ones_like(angles), angles)[:, None]


def paired(weight: Tensor, head_dim: int) -> Tensor:
    """Reorder a query or key projection so that each rotary pair is adjacent in its output.

    The Hugging Face layout pairs dimension i with i + head_dim / 2. Scores do not change when
    queries and keys are reordered alike, and adjacent pairs rotate as complex numbers in place.
    """
    heads = weight.view(-1, 2, head_dim // 2, weight.shape[1])
    return heads.transpose(1, 2).reshape(weight.shape)


def rotate_(heads: Tensor, turns: Tensor) -> None:
    """Turn [rows, heads, head_dim] in place by `turns` of [rows, 1, head_dim / 2]."""
    pairs = heads.view(*heads.shape[:-1], -1, 2)
    if heads.dtype == torch.float32:
        torch.view_as_complex(pairs).mul_(turns)
    else:
        pairs.copy_(torch.view_as_real(torch.view_as_complex(pairs.float()).mul_(turns)))
