"""A stand-in for TensorRT-LLM: its signatures and fields, deterministic tokens, no GPU.

What it must agree with is in `tests/data/tensorrt_llm_api.json`; a test compares the two. Put
`tests/stand_ins` on the import path to have it as `tensorrt_llm`.
"""

from tensorrt_llm.llm import LLM
from tensorrt_llm.outputs import CompletionOutput, CppExecutorError, RequestError, RequestOutput
from tensorrt_llm.sampling_params import SamplingParams

__version__ = "0.stand-in"

__all__ = [
    "LLM",
    "CompletionOutput",
    "CppExecutorError",
    "RequestError",
    "RequestOutput",
    "SamplingParams",
]
