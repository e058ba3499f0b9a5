"""TrtllmService over any engine: for gateways that speak TensorRT-LLM's protocol, such as smg."""

from paretoserve.executor.trtllm.server import TrtllmServer

__all__ = ["TrtllmServer"]
