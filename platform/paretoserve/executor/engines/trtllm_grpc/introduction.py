"""What the server says of itself, held against what the profile promises."""

from __future__ import annotations

from typing import Any

import grpc.aio
from smg_grpc_proto import trtllm_service_pb2 as pb

from paretoserve.domain.errors import EngineError
from paretoserve.domain.model import Model
from paretoserve.domain.profile import Profile
from paretoserve.executor.contract import EngineInfo
from paretoserve.executor.engines.trtllm_grpc.arguments import TrtllmGrpcArgs
from paretoserve.executor.model_files import Vocabulary


async def introduce(
    stub: Any, args: TrtllmGrpcArgs, profile: Profile, model: Model, files: Vocabulary
) -> EngineInfo:
    """Ask GetModelInfo and GetServerInfo.

    A stock server tells no batch size, and as vocabulary the tokenizer's without its special
    tokens: the model's config.json goes before it. Raises EngineError where the server cannot
    keep what the profile promises.
    """
    try:
        timeout = args.health_timeout_s
        said = await stub.GetModelInfo(pb.GetModelInfoRequest(), timeout=timeout)
        server = await stub.GetServerInfo(pb.GetServerInfoRequest(), timeout=timeout)
    except grpc.aio.AioRpcError as error:
        raise EngineError(
            f"the server at {args.address} does not tell its model: {error.details()}"
        ) from error
    limits, where = profile.limits, f"profile {profile.name}: the server at {args.address}"
    if args.served_model is not None and said.model_id != args.served_model:
        raise EngineError(f"{where} serves {said.model_id!r}, not {args.served_model!r}")
    for key, least, most in (
        ("context_tokens", limits.context_tokens, said.max_seq_len),
        ("max_batch", limits.max_batch, said.max_batch_size),
    ):
        if 0 < most < least:
            raise EngineError(f"{where} holds {most}; limits.{key} promises {least}")
    vocab_size = args.vocab_size or files.size or said.vocab_size
    if not vocab_size:
        raise EngineError(
            f"{where} does not tell its vocab_size, nor does {model.path}/config.json; "
            "set engine_args.vocab_size"
        )
    return EngineInfo(
        engine="trtllm-grpc",
        model=model.name,
        device=f"{args.address}, {server.world_size or 1} ranks, {server.backend} {server.version}",
        vocab_size=vocab_size,
        context_tokens=limits.context_tokens,
        max_batch=limits.max_batch,
        kv_total_tokens=args.kv_tokens or limits.max_batch * limits.context_tokens,
    )
