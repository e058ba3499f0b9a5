"""An engine elsewhere: a stock `trtllm-serve --grpc` server, through TrtllmService."""

from paretoserve.executor.engines.trtllm_grpc.engine import TrtllmGrpcEngine

__all__ = ["TrtllmGrpcEngine"]
