"""A vLLM worker whose random weights are all finite: named by `worker_cls`, imported by vLLM."""

from __future__ import annotations

from typing import Any

import torch
from vllm.v1.worker.gpu_worker import Worker

SPREAD = 0.02
FP8_SPREAD = 32.0
MOST = 1 << 26
"""Numbers that are filled at a time: the float32 they are drawn in needs room beside the model."""


class FiniteWorker(Worker):  # type: ignore[misc]
    """Loads as vLLM does, then draws every weight anew before anything runs."""

    def load_model(self, **how: Any) -> None:
        """See Worker."""
        super().load_model(**how)
        self._fill(self.model_runner.get_model())
        for name in ("drafter", "speculator"):  # what vLLM's two model runners call it
            draft = getattr(getattr(self.model_runner, name, None), "model", None)
            if isinstance(draft, torch.nn.Module):
                self._fill(draft)

    @torch.inference_mode()
    def _fill(self, model: torch.nn.Module) -> None:
        for name, weights in model.named_parameters():
            if not weights.dtype.is_floating_point:
                continue
            if name.endswith("weight_scale"):
                weights.fill_(SPREAD / FP8_SPREAD)
            elif weights.dim() > 1:
                fill_normal(weights.data)
            elif "norm" in name:
                weights.fill_(1.0)


def fill_normal(weights: torch.Tensor) -> None:
    """Normal numbers, SPREAD wide; FP8_SPREAD wide for 8 bits, whose scale is kept apart."""
    if not weights.is_contiguous() and weights.dim() == 2:
        weights = weights.t()  # quantized weights lie transposed
    if not weights.is_contiguous():
        for part in weights:
            fill_normal(part)
        return
    spread = SPREAD if weights.element_size() > 1 else FP8_SPREAD
    flat = weights.view(-1)
    for begin in range(0, flat.numel(), MOST):
        part = flat[begin : begin + MOST]
        part.copy_(torch.randn(part.numel(), device=part.device).mul_(spread))
