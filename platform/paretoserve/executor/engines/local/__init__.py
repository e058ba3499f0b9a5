"""The `local` engine: PyTorch, continuous batching, paged KV cache, draft-head speculation."""

from paretoserve.executor.engines.local.engine import LocalEngine

__all__ = ["LocalEngine"]
