"""Reads safetensors checkpoints, in one file or sharded behind an index."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from paretoserve.domain.errors import EngineError
from paretoserve.executor.engines.local.layers import Apply, int8_linear, linear

INDEX = "model.safetensors.index.json"


class Weights:
    """The tensors of one checkpoint; each is taken with the shape it must have.

    `bytes` is what the matrices that were asked for occupy while the engine runs.
    """

    def __init__(
        self, folder: Path, device: torch.device, dtype: torch.dtype, *, int8: bool = False
    ) -> None:
        """Read every *.safetensors of `folder` that belongs to the checkpoint, as `dtype`.

        With `int8`, `linear` rounds its matrices to 8 bits. Raises EngineError for a missing or damaged file.
        """
        self.folder, self.device, self.dtype = folder, device, dtype
        self._int8 = int8
        self.bytes = 0
        self._kept: Tensor | None = None
        self._tensors: dict[str, Tensor] = {}
        for path in _files(folder):
            try:
                self._tensors |= load_file(path)
            except (OSError, SafetensorError) as error:
                raise EngineError(f"{path}: cannot be read: {error}") from error

    def take(self, name: str, *shape: int) -> Tensor:
        """The tensor `name` on the engine's device. Raises EngineError if absent or misshapen."""
        tensor = self._tensors.get(name)
        if tensor is None:
            raise EngineError(f"{self.folder}: the checkpoint has no tensor {name!r}")
        if tensor.shape != shape:
            raise EngineError(
                f"{self.folder}: {name} is {list(tensor.shape)}; config.json says {list(shape)}"
            )
        return tensor.to(self.device, self.dtype)

    def keep(self, tensor: Tensor) -> Tensor:
        """The tensor itself, counted in `bytes`."""
        self._kept = tensor
        self.bytes += tensor.nbytes
        return tensor

    def linear(self, *matrices: Tensor, exact: bool = False) -> Apply:
        """X -> x @ weight.T for the matrices [out, in] stacked, in 8 bits unless `exact`."""
        weight = torch.cat(matrices) if len(matrices) > 1 else matrices[0]
        matrix = int8_linear(weight) if self._int8 and not exact else linear(weight)
        if self._kept is None or matrix.weight is not self._kept:
            self.bytes += matrix.size
        return matrix.apply


def _files(folder: Path) -> list[Path]:
    index = folder / INDEX
    if index.exists():
        try:
            names = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
        except (OSError, ValueError, KeyError, AttributeError) as error:
            raise EngineError(f"{index}: no readable weight_map: {error!r}") from error
        return [folder / name for name in sorted(names)]
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise EngineError(f"{folder}: holds no *.safetensors file")
    return files
