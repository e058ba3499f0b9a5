"""The `vllm` engine: vLLM's AsyncLLM behind the Engine contract. Written against vLLM 0.26.0."""

from paretoserve.executor.engines.vllm.engine import VllmEngine

__all__ = ["VllmEngine"]
