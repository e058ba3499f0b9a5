"""TensorRT-LLM's PyTorch backend, run through its `LLM` API in the executor's process."""

from paretoserve.executor.engines.trtllm.engine import TrtllmEngine

__all__ = ["TrtllmEngine"]
